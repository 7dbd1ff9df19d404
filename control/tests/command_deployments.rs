//! `nautilus nodes deploy` and what follows it: the real daemon with a real store, killed in between.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/site.rs"]
mod site;
mod support;

use std::process::{Command, Output, Stdio};

use nodes::{ALWAYS_OPEN, Nodes};
use serde_json::Value;
use site::Site;

/// The command, with the site's socket as its control.
fn command(site: &Site, words: &[&str]) -> Command {
    let socket = site.folder.path().join("control.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
    command.args(words).env("NAUTILUS_CONTROL", format!("unix:{}", socket.display()));
    command.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("NAUTILUS_IDENTITY");
    command
}

/// Code, stdout, stderr.
fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn nautilus(site: &Site, words: &[&str]) -> (Option<i32>, String, String) {
    told(command(site, words).output().unwrap())
}

/// A deployment's file, in TOML as an operator may write it.
fn file(nodes: &Nodes, id: &str) -> String {
    let table: toml::Table = serde_json::from_value(nodes.deployment(id, "rolling")).unwrap();
    let path = nodes.folder.path().join(format!("{id}.toml"));
    std::fs::write(&path, table.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn a_deployment_is_planned_followed_and_listed() {
    let nodes = Nodes::new(2);
    let site = nodes.site(&nodes.catalogue(ALWAYS_OPEN));
    let one = file(&nodes, "one");
    let (code, plan, said) = nautilus(&site, &["nodes", "deploy", &one, "--dry-run", "--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        plan.starts_with("plan plan-") && plan.contains(", 10 steps\nSTEP  NODE  ACTION"),
        "{plan}"
    );
    assert!(plan.contains("\nsession of equinix_ny4: open, bats is open until 2100-"), "{plan}");
    let (_, none, _) = nautilus(&site, &["operations", "list", "--json"]);
    let none: Value = serde_json::from_str(&none).unwrap();
    assert_eq!(none["operations"].as_array().unwrap().len(), 0, "only tried");
    let (code, _, said) = nautilus(&site, &["nodes", "deploy", &one]);
    assert!(code == Some(1) && said.contains("(409)") && said.contains("request "), "{said}");
    assert!(said.contains("equinix_ny4 (open: bats is open until 2100-"), "{said}");

    let plan_id = plan.split([' ', ',']).nth(1).unwrap();
    let by_plan = ["nodes", "deploy", "--plan-id", plan_id, "--force"];
    let (code, document, said) = nautilus(&site, &by_plan);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("10/10 steps") && document.contains("operation_id  op-1"),
        "{said}{document}"
    );
    let (code, document, _) = nautilus(&site, &["operations", "watch", "op-1", "--json"]);
    let last: Value = serde_json::from_str(document.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["phase"], &last["is_over"]), (Some(0), &"done".into(), &true.into()));
    let (code, list, _) = nautilus(&site, &["operations", "list"]);
    assert!(code == Some(0) && list.contains("op-1") && list.contains("done"), "{list}");
    let (code, list, _) = nautilus(&site, &["deployments", "list"]);
    assert!(code == Some(0) && list.contains("one") && list.contains("n-0,n-1"), "{list}");
    assert_eq!(nautilus(&site, &["deployments", "show", "two"]).0, Some(1));
    assert_eq!(nautilus(&site, &["operations", "abort", "op-1"]).0, Some(1), "it is over");
    assert_eq!(nautilus(&site, &["operations", "watch", "op-9"]).0, Some(1));
}

#[test]
fn a_deployment_that_turns_back_says_so_when_it_does() {
    let nodes = Nodes::new(1);
    nodes.region(0).supervisor().set_serving(false);
    let site = nodes.site("");
    let one = file(&nodes, "one");
    let deploy = ["nodes", "deploy", &one, "--force", "--events"];
    let (code, lines, said) = nautilus(&site, &deploy);
    assert_eq!(code, Some(1), "{said}");
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let place = |is_it: fn(&Value) -> bool| {
        events.iter().position(is_it).unwrap_or_else(|| panic!("not in {lines}"))
    };
    let turned = place(|event| event["phase"] == "rolling_back");
    let back = place(|event| event["is_rollback"] == true && event["state"] == "started");
    let over = place(|event| event["phase"] == "rolled_back");
    place(|event| event["step"] == "n-0.provision" && event["state"] == "failed");
    assert!(turned < back && back < over, "{lines}");
    assert_eq!(events[events.len() - 1]["is_over"], true, "{lines}");
    assert!(events[turned]["reason"].as_str().unwrap().starts_with("n-0.provision: "), "{lines}");
}

#[test]
fn all_that_is_wrong_with_a_file_is_said_by_field() {
    let nodes = Nodes::new(1);
    let site = nodes.site("");
    let path = file(&nodes, "one");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("cpu_cores = 1", "cpu_cores = 0\ncolour = \"red\""))
        .unwrap();
    let (code, _, said) = nautilus(&site, &["nodes", "deploy", &path, "--dry-run"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("\n  nodes[0].cpu_cores: ") && said.contains("\n  nodes[0].colour: "),
        "{said}"
    );
    std::fs::write(&path, "deployment_id = \n").unwrap();
    let (code, _, said) = nautilus(&site, &["nodes", "deploy", &path]);
    assert!(code == Some(2) && said.contains("line 1"), "{said}");
}

#[test]
fn a_watch_goes_on_through_kills_of_the_control() {
    let nodes = Nodes::new(3);
    let mut site = nodes.site("");
    let one = file(&nodes, "one");
    let begin = ["nodes", "deploy", &one, "--force", "--no-wait"];
    let (code, id, said) = nautilus(&site, &begin);
    assert_eq!((code, id.as_str()), (Some(0), "op-1\n"), "{said}");
    site.kill();
    let watch = command(&site, &["operations", "watch", "op-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(700));
        site.start_again(&[]);
        std::thread::sleep(std::time::Duration::from_millis(150));
        site.kill();
    }
    site.start_again(&[]);
    let (code, document, said) = told(watch.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the control is away"), "{said}");
    assert!(document.contains("phase") && document.contains("done"), "{document}");
    site.kill();
    let (code, _, said) = nautilus(&site, &["operations", "watch", "op-1", "--patience-s", "1"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("has been away for 1 s"), "{said}");
}
