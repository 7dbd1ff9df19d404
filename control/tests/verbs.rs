//! Every path of the API has a verb: each verb is run against a server that takes note of what it is asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use nautilus_control::problem::Problem;
use nautilus_control::roles::TABLE;

/// Asked with a token or with the certificate itself by `nautilus ca enrol` and `renew`, as `tests/tls.rs`
/// and `tests/command.rs` do.
const BY_CA: [&str; 2] = ["/api/v1/edge/enrol", "/api/v1/edge/renew"];

/// What an operator types for each row; `FILE` is a document.
const VERBS: &[(&str, &str, &str)] = &[
    ("GET", "/livez", "control live"),
    ("GET", "/readyz", "control ready"),
    ("GET", "/metrics", "control metrics"),
    ("GET", "/api/v1/edge/version", "version"),
    ("GET", "/api/v1/edge/openapi.json", "control openapi"),
    ("GET", "/api/v1/edge/certificates", "certificates list"),
    (
        "POST",
        "/api/v1/edge/certificates/tokens",
        "certificates token --kind person --name a --role viewer",
    ),
    ("POST", "/api/v1/edge/certificates/{serial}/revoke", "certificates revoke some-1"),
    ("GET", "/api/v1/edge/nodes/status", "nodes status"),
    ("GET", "/api/v1/edge/nodes/{node_id}/health", "nodes health some-1"),
    ("POST", "/api/v1/edge/nodes/deploy", "nodes deploy FILE"),
    ("POST", "/api/v1/edge/nodes/{node_id}/drain", "nodes drain some-1 --dry-run"),
    ("POST", "/api/v1/edge/nodes/{node_id}/resume", "nodes resume some-1 --force"),
    ("POST", "/api/v1/edge/nodes/{node_id}/retire", "nodes retire some-1 --no-wait"),
    ("GET", "/api/v1/edge/operations", "operations list"),
    ("GET", "/api/v1/edge/operations/{operation_id}", "operations show some-1"),
    ("POST", "/api/v1/edge/operations/{operation_id}/abort", "operations abort some-1"),
    ("POST", "/api/v1/edge/placement/activities", "placement activities FILE --dry-run"),
    ("POST", "/api/v1/edge/placement/optimize", "placement optimize --set max_nodes=3"),
    ("GET", "/api/v1/edge/placement/recommendations", "placement recommendations"),
    ("POST", "/api/v1/edge/cache/create", "cache create some-1 --port 7"),
    ("GET", "/api/v1/edge/cache/status", "cache status"),
    ("GET", "/api/v1/edge/cache/status", "cache list"),
    ("GET", "/api/v1/edge/cache/{cache_id}", "cache show some-1"),
    ("GET", "/api/v1/edge/cache/{cache_id}", "cache get some-1 k"),
    ("PUT", "/api/v1/edge/cache/{cache_id}", "cache put some-1 k v --ttl-ms 5"),
    (
        "PUT",
        "/api/v1/edge/cache/{cache_id}",
        "cache configure some-1 FILE --whole --if-match \"1\"",
    ),
    ("DELETE", "/api/v1/edge/cache/{cache_id}", "cache delete some-1 --key k"),
    ("POST", "/api/v1/edge/performance/profiles", "performance profile FILE"),
    ("POST", "/api/v1/edge/performance/optimize/{region_id}", "performance optimize some-1"),
    ("GET", "/api/v1/edge/performance/summary", "performance summary"),
    ("POST", "/api/v1/edge/failover/configure", "failover configure FILE"),
    ("POST", "/api/v1/edge/failover/manual/{node_id}", "failover manual some-1 --reason r"),
    ("GET", "/api/v1/edge/failover/status", "failover status"),
    ("POST", "/api/v1/edge/monitoring/alerts", "monitoring alert FILE"),
    (
        "GET",
        "/api/v1/edge/monitoring/metrics/{name}",
        "monitoring metric some-1 --label a=b --step-ms 9",
    ),
    ("GET", "/api/v1/edge/monitoring/dashboards/{id}", "monitoring dashboard edge-overview"),
    ("GET", "/api/v1/edge/monitoring/status", "monitoring status"),
    ("GET", "/api/v1/edge/audit", "audit list --limit 5"),
];

/// Whether a path is one of the route's.
fn fits(route: &str, path: &str) -> bool {
    let (route, path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    let same = |(route, path): (&&str, &&str)| route.starts_with('{') || route == path;
    route.len() == path.len() && route.iter().zip(&path).all(same)
}

type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

/// Says of every path that it is not built, and takes note.
fn listen() -> (String, Asked) {
    let asked = Asked::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let notes = Arc::clone(&asked);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().to_string()).unwrap();
            let router = Router::new().fallback(async move |request: Request| {
                let (method, uri) = (request.method().to_string(), request.uri());
                let query = uri.query().unwrap_or_default().to_owned();
                notes.lock().unwrap().push((method, uri.path().to_owned(), query));
                let detail = "no manager is built here";
                Problem::new(StatusCode::NOT_IMPLEMENTED, "not-available", "Not available", detail)
            });
            axum::serve(listener, router).await.unwrap();
        });
    });
    (receiver.recv().unwrap(), asked)
}

fn run(control: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
    command.args(words).env("NAUTILUS_CONTROL", control);
    for name in ["NAUTILUS_CONTROL_CONFIG", "NAUTILUS_IDENTITY", "NAUTILUS_CLIENT_CONFIG", "HOME"] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent").output().unwrap()
}

#[test]
fn every_path_of_the_table_is_reached_by_a_verb() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("document.json");
    std::fs::write(&file, "{\"deployment_id\": \"a\"}").unwrap();
    let (control, asked) = listen();
    let control = format!("http://{control}");
    let mut reached = BTreeSet::new();
    for (method, route, line) in VERBS {
        let words = line.split(' ').map(|word| match word {
            "FILE" => file.to_str().unwrap(),
            word => word,
        });
        asked.lock().unwrap().clear();
        let output = run(&control, &words.collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr);
        // The reason of the 501, under a code of its own.
        assert_eq!(output.status.code(), Some(4), "{line}: {said}");
        assert!(said.contains("Not available (501): no manager is built here"), "{line}: {said}");
        let asked = asked.lock().unwrap();
        let (found, path, query) = asked.first().unwrap_or_else(|| panic!("{line} asked nothing"));
        assert!(found == method && fits(route, path), "{line} asked {found} {path}");
        for flag in ["dry-run", "force"] {
            let asks = query.contains(&format!("{}=true", flag.replace('-', "_")));
            assert_eq!(asks, line.contains(&format!("--{flag}")), "{line}: {query}");
        }
        reached.insert((*method, *route));
    }
    // It needs an operation that is there: `tests/command.rs` follows one.
    reached.insert(("GET", "/api/v1/edge/operations/{operation_id}/events"));
    for (method, route, _) in TABLE {
        let has_verb = reached.contains(&(*method, *route)) || BY_CA.contains(route);
        assert!(has_verb, "{method} {route} has no verb");
    }
    for (method, route) in reached {
        let listed = TABLE.iter().any(|row| row.0 == method && row.1 == route);
        assert!(listed, "{method} {route} is no path of the table");
    }
}

#[test]
fn json_prints_the_problem_as_it_came() {
    let (control, _) = listen();
    let output = run(&format!("http://{control}"), &["failover", "status", "--json"]);
    assert_eq!(output.status.code(), Some(4));
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problem["type"], "urn:nautilus:problem:not-available");
}

#[test]
fn completions_know_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run("", &["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for (.., line) in VERBS {
            let words = line.split(' ').take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            for word in words.take(2) {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), &text).unwrap();
        if let Some(said) = syntax(shell, script.path()) {
            assert_eq!(said, "", "{shell}");
        }
    }
    assert_eq!(run("", &["completion", "tcl"]).status.code(), Some(2));
}

/// What the shell itself says of a script; none where it is not installed.
fn syntax(shell: &str, script: &Path) -> Option<String> {
    let output = Command::new(shell).arg("-n").arg(script).output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}
