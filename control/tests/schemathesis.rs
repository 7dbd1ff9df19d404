//! What a program that makes requests from the OpenAPI document finds: answers that are not in it, wrong
//! requests that are taken, right ones that are not.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/python.rs"]
mod python;
#[path = "support/site.rs"]
mod site;
mod support;

use std::path::Path;
use std::process::Command;

use ask::Ask;
use nautilus_control::roles::Role;
use nautilus_control::tls::authority::Authority;
use nautilus_control::tls::identity::Kind;
use nodes::{ALWAYS_OPEN, Nodes};
use site::DAY;

const VERSION: &str = "4.32.5";

/// What is different from its defaults. A path whose manager is not built says 501, a control that has
/// nothing to be ready for 503; a document of the right form may name nodes, regions and sessions that are
/// not there, and is then refused with what is wrong.
const SETTINGS: &str = r#"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 400, 401, 403, 404, 409, 412, 422, 428, 501, 503]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 501, 503]
"#;

#[test]
fn requests_made_from_the_document_get_answers_that_it_names() {
    let program = match python::program("schemathesis", VERSION, "st") {
        Ok(program) => program,
        Err(reason) => {
            eprintln!("SKIPPED schemathesis: cannot be installed: {reason}");
            return;
        }
    };
    let nodes = Nodes::new(2);
    // The same answers on every day.
    let site = nodes.site(&nodes.catalogue(ALWAYS_OPEN));
    // Of the same authority, but not in the list of what it issued: it would revoke itself.
    let aside = nodes.folder.path().join("aside");
    std::fs::create_dir_all(aside.join("issued")).unwrap();
    for entry in std::fs::read_dir(site.folder.path().join("ca")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, aside.join(path.file_name().unwrap())).unwrap();
        }
    }
    let authority = Authority::load(&aside).unwrap();
    let identity = site.identity(Role::Admin, Kind::Person, "schemathesis");
    let certificate = site::of(&authority, &identity, DAY, &aside);
    let deployment = nodes.deployment("one", "all_at_once");
    assert_eq!(Ask::of(&site).post("/api/v1/edge/nodes/deploy?force=true", &deployment).0, 202);
    nodes.end(&Ask::of(&site), "op-1");
    let folder = nodes.folder.path();
    std::fs::write(folder.join("schemathesis.toml"), SETTINGS).unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let examples = if std::env::var_os("NAUTILUS_LONG").is_some() { "100" } else { "15" };
    let output = Command::new(&program)
        .current_dir(folder)
        .args(["run", "--checks", "all", "--max-examples", examples, "--seed", "7"])
        .args(["--continue-on-failure", "--no-color", "--request-timeout", "20"])
        .args(["--suppress-health-check", "all", "--url"])
        .arg(format!("https://{}", site.address))
        .arg("--request-cert")
        .arg(&certificate)
        .arg("--tls-verify")
        .arg(site.ca())
        .arg(&document)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}\n{error}");
    assert!(output.status.success(), "it found something");
    assert_eq!(Ask::of(&site).get("/livez").0, 200, "and the control still answers");
}
