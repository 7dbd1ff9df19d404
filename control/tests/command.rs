//! The command as an operator meets it: against the real daemon over TLS, the socket and loopback, and
//! against servers that lie.

#[path = "support/site.rs"]
mod site;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nautilus_control::roles::Role;
use nautilus_control::tls::identity::Kind;
use nautilus_control::tls::token::TOKEN_LIFETIME;
use serde_json::Value;
use site::{DAY, Site};
use support::{hand_out, keep_beating, region, reply};

/// The command with nothing of this machine's around it.
fn bare(words: &[&str]) -> Command {
    bare_of(Path::new(env!("CARGO_BIN_EXE_nautilus")), words)
}

/// The same of another copy of the program.
fn bare_of(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    for name in ["NAUTILUS_CONTROL", "NAUTILUS_CONTROL_CONFIG", "NAUTILUS_IDENTITY", "COLUMNS"] {
        command.env_remove(name);
    }
    command.env_remove("NAUTILUS_CLIENT_CONFIG").env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn nautilus(control: &str, words: &[&str]) -> Output {
    bare(words).args(["--control", control]).output().unwrap()
}

/// Code, stdout, stderr.
fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A daemon without TLS that watches a node which serves; its control region lives as long as the process.
struct Plain {
    child: std::process::Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Plain {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let region = region("node-1");
        keep_beating(&region);
        hand_out(folder.path(), region, || reply(1, &[]));
        let socket = folder.path().join("control.sock");
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\n[[node]]\nrun_dir = \"{}\"\n\
             region = \"ny4\"\n",
            socket.display(),
            folder.path().display()
        );
        std::fs::write(folder.path().join("control.toml"), text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nautilus-control"))
            .arg("--config")
            .arg(folder.path().join("control.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
        let line =
            lines.find(|line| line.as_ref().unwrap().contains("listening on")).unwrap().unwrap();
        let url = line.split("listening on ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        let plain = Self { child, url, folder };
        site::until("a node that is attached", || {
            (nautilus(&plain.url, &["control", "ready"]).status.code() == Some(0)).then_some(())
        });
        plain
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.folder.path().join("control.sock").display())
    }
}

#[test]
fn a_person_enrols_and_asks_over_tls() {
    let site = Site::start("enrolment = true");
    let identity = site.identity(Role::Operator, Kind::Person, "alice");
    let token = site.authority.token(&identity, TOKEN_LIFETIME).unwrap();
    let path = |name: &str| site.folder.path().join(name);
    let token_file = path("token");
    std::fs::write(&token_file, token.expose()).unwrap();
    std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let (reference, folder) = (format!("file:{}", token_file.display()), path("alice"));
    let folder = folder.to_str().unwrap();
    let enrol = ["ca", "enrol", &site.address, "--token", &reference, "--kind", "person"];
    let enrol = bare(&enrol).args(["--name", "alice", "--out", folder]).output().unwrap();
    assert!(enrol.status.success(), "{enrol:?}");
    let renew = bare(&["ca", "renew", &site.address, folder]).output().unwrap();
    assert!(renew.status.success(), "{renew:?}");

    let (code, document, said) =
        told(nautilus(&site.address, &["nodes", "status", "--json", "--identity", folder]));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["nodes"].as_array().unwrap().len(), 1);
    // What her role does not allow, with the id under which it is on record.
    let (code, _, said) =
        told(nautilus(&site.address, &["certificates", "list", "--identity", folder]));
    assert_eq!(code, Some(1));
    let id = said.split("request ").nth(1).unwrap_or_else(|| panic!("{said}")).trim();
    assert!(said.contains("(403): this needs the role admin, not operator"), "{said}");
    assert!(site.records().iter().any(|record| record["request_id"] == id), "{id}");

    // A file says where and who.
    let file = path("client.toml");
    let text = format!("control = \"{}\"\nidentity = \"{folder}\"\n", site.address);
    std::fs::write(&file, text).unwrap();
    let output = bare(&["version", "--client-config", file.to_str().unwrap()]).output().unwrap();
    let (code, text, said) = told(output);
    assert_eq!(code, Some(0), "{said}");
    assert!(text.starts_with("client  ") && text.contains("control."), "{text}");

    // Nobody is asked who is not of her authority, and without a certificate nobody is asked at all.
    let other = Site::start("");
    let (code, _, said) =
        told(nautilus(&other.address, &["nodes", "status", "--identity", folder]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("certificate"), "{said}");
    let wrong = [format!("https://{}", site.address), "ny4-control:9477".into()];
    for control in wrong {
        let (code, _, said) = told(nautilus(&control, &["nodes", "status"]));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--identity DIR"), "{said}");
    }
}

#[test]
fn an_admin_gives_tokens_and_revokes() {
    let site = Site::start("enrolment = true");
    let socket = format!("unix:{}", site.folder.path().join("control.sock").display());
    let token = ["certificates", "token", "--kind", "person", "--name", "bob", "--role", "viewer"];
    let (code, token, said) = told(nautilus(&socket, &token));
    assert_eq!((code, token.lines().count()), (Some(0), 1), "{said}");
    let bob = site.certificate(Role::Viewer, "bob", DAY);
    assert!(site.ask(Some(&bob), "GET", "/readyz").is_ok());
    let (code, list, _) = told(nautilus(&socket, &["certificates", "list"]));
    assert_eq!(code, Some(0));
    let row = list.lines().find(|line| line.contains("viewer/person/bob")).unwrap();
    let serial = row.split(' ').next().unwrap();
    let (code, ..) = told(nautilus(&socket, &["certificates", "revoke", serial]));
    assert_eq!(code, Some(0));
    let (code, _, said) = told(nautilus(&socket, &["certificates", "revoke", "00ff00"]));
    assert_eq!(code, Some(1), "{said}");
    site::until("bob refused", || {
        let answer = site.ask(Some(&bob), "GET", "/readyz");
        (!answer.is_ok_and(|(status, _)| status == 200)).then_some(())
    });
}

#[test]
fn tables_and_documents_come_over_loopback_and_socket() {
    let plain = Plain::start();
    for control in [plain.url.clone(), plain.socket()] {
        let (code, table, said) = told(nautilus(&control, &["nodes", "status"]));
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            table,
            "NODE    REGION  TIER  STATE   HALTED  LIFE  DEPLOYMENT  RELEASE  CONTROL   WORKERS  CACHES  \
             P50 us  P99 us  P99.9 us  REASON\n\
             node-1  ny4     lab   active  no      -     -           -        attached  2        2       \
             8.0     90.0    90.0      -\n"
        );
        let (code, text, _) = told(nautilus(&control, &["nodes", "health", "node-1"]));
        assert_eq!(code, Some(0));
        assert!(text.starts_with("node-1") && text.contains("healthy"), "{text}");
        let (_, document, _) = told(nautilus(&control, &["nodes", "health", "node-1", "--json"]));
        assert_eq!(serde_json::from_str::<Value>(&document).unwrap()["health"], "healthy");
        let (code, _, said) = told(nautilus(&control, &["nodes", "health", "node-9"]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("Node not found (404)") && said.contains("request "), "{said}");
        let (code, text, _) = told(nautilus(&control, &["control", "metrics"]));
        assert!(code == Some(0) && text.contains("nautilus_node_attached{node=\"node-1\"} 1"));
    }
    for columns in [40, 72] {
        let output = bare(&["nodes", "status", "--control", &plain.url])
            .env("COLUMNS", columns.to_string())
            .output()
            .unwrap();
        let (_, table, _) = told(output);
        assert!(table.lines().all(|line| line.chars().count() <= columns), "{columns}: {table}");
        assert!(!table.contains('\u{1b}'), "{table}");
    }
    let (code, document, _) = told(nautilus(&plain.url, &["control", "openapi"]));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert!(code == Some(0) && document["paths"].as_object().unwrap().len() > 20);
}

#[test]
fn a_reader_that_leaves_changes_nothing_about_the_end() {
    let plain = Plain::start();
    let mut child = bare(&["control", "openapi", "--control", &plain.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, said) = told(child.wait_with_output().unwrap());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // Even where the complaint has no reader either.
    let mut child = bare(&["nodes", "health", "node-9", "--control", &plain.url])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// Serves each connection with this.
fn liar(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            answer(stream);
        }
    });
    format!("http://{address}")
}

const LOOK: [&str; 4] = ["nodes", "status", "--timeout-s", "1"];
const CHANGE: [&str; 6] = ["nodes", "drain", "a", "--no-wait", "--timeout-s", "1"];

#[test]
fn answers_that_lie_are_bounded_and_named() {
    let hangs = liar(std::mem::forget);
    let closes = liar(drop);
    let noise = liar(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.7\r\n\r\n");
    });
    let no_json = liar(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>");
    });
    let short = liar(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{\"a\"");
    });
    let endless = liar(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while stream.write_all(piece.as_bytes()).is_ok() {}
    });
    let head = liar(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-again: and again and again and again\r\n").is_ok() {}
    });
    let nothing =
        format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for (control, look, change, reason) in [
        (&nothing, 3, 3, "Connection refused"),
        (&hangs, 3, 5, "no answer within 1 s"),
        (&closes, 3, 5, "connection closed"),
        (&noise, 3, 5, "invalid HTTP"),
        (&no_json, 3, 5, "is no JSON document"),
        (&short, 3, 5, ""),
        (&endless, 3, 5, ""),
        (&head, 3, 5, ""),
    ] {
        for (words, expected) in [(&LOOK[..], look), (&CHANGE[..], change)] {
            let begun = Instant::now();
            let (code, text, said) = told(nautilus(control, words));
            assert!(begun.elapsed() < Duration::from_secs(8), "{words:?} {control}");
            // A 200 to a change is an answer; what it says of it cannot be read.
            assert_eq!(code, Some(expected), "{words:?}: {said}");
            assert!(said.contains(reason) && said.contains(control.as_str()), "{words:?}: {said}");
            assert_eq!(said.contains("whether it was done is not known"), expected == 5, "{said}");
            assert_eq!(text, "");
        }
    }
}

#[test]
fn an_answer_too_long_is_cut_off_in_time() {
    let endless = liar(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
        while stream.write_all(piece.as_bytes()).is_ok() {}
    });
    let (code, _, said) = told(nautilus(&endless, &["nodes", "status"]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the answer is longer than 64 MiB"), "{said}");
}

#[test]
fn statuses_have_their_exit_codes() {
    for (status, look, change) in
        [(400, 1, 1), (404, 1, 1), (409, 1, 1), (500, 1, 5), (501, 4, 4), (503, 1, 1), (504, 5, 5)]
    {
        let control = liar(move |mut stream| {
            let body = "{\"title\": \"Told\", \"detail\": \"so\\u001b[2J\", \"fields\": []}";
            let text = format!(
                "HTTP/1.1 {status} X\r\nx-request-id: r-1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes());
        });
        for (words, expected) in [(&LOOK[..], look), (&CHANGE[..], change)] {
            let (code, _, said) = told(nautilus(&control, words));
            assert_eq!(code, Some(expected), "{status}: {said}");
            assert_eq!(said, format!("nautilus: Told ({status}): so[2J\n  request r-1\n"));
        }
    }
}

#[test]
fn an_unhealthy_node_is_told_apart_from_one_that_serves() {
    for (health, expected) in [("healthy", 0), ("degraded", 0), ("unhealthy", 1)] {
        let control = liar(move |mut stream| {
            let body = format!("{{\"node_id\": \"a\", \"health\": \"{health}\"}}");
            let length = body.len();
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(text.as_bytes());
        });
        let (code, text, said) = told(nautilus(&control, &["nodes", "health", "a"]));
        assert_eq!(code, Some(expected), "{health}: {said}");
        assert!(text.contains(health), "{text}");
    }
}

#[test]
fn whom_nobody_can_ask_is_told_apart_from_a_no() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (control, node, nobody) = (path("control.toml"), path("node.toml"), path("nobody"));
    let socket = path("control.sock");
    let text = format!("[control]\nsocket = {socket:?}\n[[node]]\nrun_dir = \"/nowhere\"\n");
    std::fs::write(&control, text).unwrap();
    std::fs::write(&node, "[[interface]]\nname = \"lo\"\n").unwrap();
    let [control, node, nobody] = [&control, &node, &nobody].map(|path| path.to_str().unwrap());
    let packet = "udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'";
    // As it is where only the command was installed.
    let alone = path("nautilus");
    std::fs::copy(env!("CARGO_BIN_EXE_nautilus"), &alone).unwrap();
    for (words, reason) in [
        (&["config", "diff", control][..], "control.sock"),
        (&["config", "check", node], "nautilus-supervisor"),
        (&["explain", packet, "--config", node], "nautilus-supervisor"),
        (&["explain", packet, "--node", nobody], "no supervisor is listening"),
        (&["cache", "list", "--node", nobody], "no supervisor is listening"),
        (&["cache", "remove", "c", "--node", nobody], "no supervisor is listening"),
    ] {
        let (code, text, said) = told(bare_of(&alone, words).output().unwrap());
        assert_eq!(code, Some(3), "{words:?}: {text}{said}");
        assert!(said.contains(reason), "{words:?}: {said}");
    }
    // What is asked for wrongly is not asked at all.
    let (code, _, said) = told(bare(&["explain", "no packet", "--node", nobody]).output().unwrap());
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn files_are_checked_compared_and_applied() {
    let plain = Plain::start();
    let path = |name: &str| plain.folder.path().join(name);
    let (used, draft) = (path("control.toml"), path("draft.toml"));
    let run = |words: &[&str], file: &Path| told(bare(words).arg(file).output().unwrap());
    let text = std::fs::read_to_string(&used).unwrap();
    std::fs::write(
        &draft,
        text.replace("ny4", "ld4").replace("[[node]]", "[[node]]\nid = \"X\"\nno = 1"),
    )
    .unwrap();
    let (code, said, _) = run(&["config", "check"], &draft);
    assert_eq!(code, Some(2), "{said}");
    let said = said.replace(&format!("{}:", draft.display()), "");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("5: node[0].id: \"X\": ids are"), "{said}");
    assert_eq!(lines[1], "6: node[0].no: unknown key");
    let (code, _, said) = run(&["config", "apply"], &draft);
    assert!(code == Some(2) && said.contains("node[0].no: unknown key"), "{said}");
    assert_eq!(std::fs::read_to_string(&used).unwrap(), text);

    std::fs::write(&draft, text.replace("ny4", "ld4")).unwrap();
    assert_eq!(run(&["config", "check"], &draft).0, Some(0));
    let node = format!("node[{}].region", plain.folder.path().display());
    let (code, said, _) = run(&["config", "diff"], &draft);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&node) && said.contains("\"ny4\"    \"ld4\"  restart"), "{said}");
    let (code, ..) = run(&["config", "diff"], &used);
    assert_eq!(code, Some(0));
    let (code, said, _) = run(&["config", "apply", "--dry-run"], &draft);
    assert!(code == Some(0) && said.contains("has to be started anew for"), "{said}");
    assert_eq!(std::fs::read_to_string(&used).unwrap(), text);
    // Twice is as once; what runs stays known although its file says something else now.
    for round in 0..2 {
        let (code, said, errors) = run(&["config", "apply"], &draft);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(said.contains("was replaced"), round == 0, "{said}");
        assert!(said.contains(&node) && said.contains("has to be started anew for"), "{said}");
        assert_eq!(std::fs::read_to_string(&used).unwrap(), text.replace("ny4", "ld4"));
        assert_eq!(run(&["config", "diff"], &draft).0, Some(1));
    }
    let (code, document, _) = run(&["config", "diff", "--json"], &draft);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((code, &document["differences"][0]["takes"]), (Some(1), &"restart".into()));
}
