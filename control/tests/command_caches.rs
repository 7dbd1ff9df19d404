//! `nautilus cache` through the real daemon, on a node that runs.

#[path = "support/node.rs"]
mod node;
#[path = "support/site.rs"]
mod site;

use std::io::Write;
use std::process::{Command, Stdio};

use node::{Node, free_port, supervisor, told};
use serde_json::Value;
use site::until;

/// The daemon over one node.
struct Control {
    child: std::process::Child,
    socket: String,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Control {
    fn start(node: &Node) -> Self {
        let folder = node.dir.path().display();
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\nsocket = \"{folder}/control.sock\"\n\
             [control.store]\nfile = \"{folder}/store.redb\"\n[[node]]\nrun_dir = \"{folder}/run\"\n"
        );
        std::fs::write(node.path("control.toml"), text).unwrap();
        let log = std::fs::File::create(node.path("control.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nautilus-control"))
            .arg("--config")
            .arg(node.path("control.toml"))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let control = Self { child, socket: format!("unix:{folder}/control.sock") };
        until("a control that has its node", || {
            (control.run(&["control", "ready"]).0 == Some(0)).then_some(())
        });
        control
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
        command
            .args(words)
            .args(["--control", &self.socket])
            .env("XDG_CONFIG_HOME", "/nonexistent");
        command
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        told(self.command(words).output().unwrap())
    }
}

#[test]
fn a_cache_is_made_filled_read_changed_and_removed() {
    let Some(program) = supervisor() else { return };
    let node = Node::start(&program, free_port());
    let control = Control::start(&node);
    let port = free_port().to_string();
    let create = ["cache", "create", "orders", "--port", &port, "--max-memory-mb", "8"];
    let dry = control.run(&[&create[..], &["--dry-run"]].concat());
    assert_eq!((dry.0, node.caches()), (Some(0), vec!["first".into()]), "{}", dry.2);
    for _ in 0..2 {
        let (code, _, said) = control.run(&create);
        assert_eq!(
            (code, node.caches()),
            (Some(0), vec!["first".into(), "orders".into()]),
            "{said}"
        );
    }
    let (code, _, said) = control.run(&["cache", "create", "No", "--port", &port, "--set", "x=1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("\n  cache_id: ") && said.contains("\n  x: "), "{said}");
    let (code, table, _) = control.run(&["cache", "status"]);
    assert!(code == Some(0) && table.starts_with("CACHE") && table.contains("\norders"), "{table}");

    let put = |words: &[&str]| control.run(&[&["cache", "put", "orders", "k 1/é"], words].concat());
    let (code, told_of, said) = put(&["value", "--ttl-ms", "60000"]);
    assert!(code == Some(0) && told_of.starts_with("etag"), "{told_of}{said}");
    let (code, _, said) = put(&["other", "--add"]);
    assert!(code == Some(1) && said.contains("(412)"), "{said}");
    let (code, _, said) = put(&["other", "--if-match", "\"1\""]);
    assert!(code == Some(1) && said.contains("(412)"), "{said}");
    // What is only tried changes nothing, as the next look shows.
    let (code, _, said) = put(&["other", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    let delete = ["cache", "delete", "orders", "--key", "k 1/é", "--dry-run"];
    assert_eq!(control.run(&delete).0, Some(0));
    let (code, value, known) = control.run(&["cache", "get", "orders", "k 1/é", "--told"]);
    assert_eq!((code, value.as_str()), (Some(0), "value"));
    assert!(known.contains("expires_ms") && known.contains("age_us"), "{known}");
    let (_, document, _) = control.run(&["cache", "get", "orders", "k 1/é", "--json"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["value"], &document["suspect"]), (&"value".into(), &"false".into()));
    let etag = document["etag"].as_str().unwrap();
    // Bytes as they are, in and out.
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let mut child = control
        .command(&["cache", "put", "orders", "k 1/é", "--file", "-", "--if-match", etag])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
    let output = control.command(&["cache", "get", "orders", "k 1/é"]).output().unwrap();
    assert!(output.stdout == bytes);
    let (code, _, said) = control.run(&["cache", "get", "orders", "none"]);
    assert!(code == Some(1) && said.contains("(404)"), "{said}");

    let (code, _, said) = control.run(&[
        "cache",
        "configure",
        "orders",
        "--set",
        "max_memory_mb=16",
        "--if-match",
        "\"r0\"",
    ]);
    assert!(code == Some(1) && said.contains("(412)"), "{said}");
    let (code, shown, _) = control.run(&["cache", "show", "orders"]);
    assert!(code == Some(0) && shown.contains("configuration.port"), "{shown}");

    assert_eq!(control.run(&["cache", "delete", "orders", "--key", "k 1/é"]).0, Some(0));
    assert_eq!(control.run(&["cache", "get", "orders", "k 1/é"]).0, Some(1));
    let (code, _, said) = control.run(&["cache", "delete", "orders"]);
    assert_eq!((code, node.caches()), (Some(0), vec!["first".into()]), "{said}");
    // The next one of this name is not asked by way of what was open to the last.
    assert_eq!(control.run(&create).0, Some(0));
    let (code, _, said) = put(&["new", "--add"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, value, said) = control.run(&["cache", "get", "orders", "k 1/é"]);
    assert_eq!((code, value.as_str()), (Some(0), "new"), "{said}");
    assert_eq!(control.run(&["cache", "delete", "nothing"]).0, Some(1));
}
