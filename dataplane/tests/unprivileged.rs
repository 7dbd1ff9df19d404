//! A node of an ordinary user, on kernel sockets and the loopback. As root the test runs itself again as
//! somebody else.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use supervised::{Supervised, wait_until};

/// Nobody's, and not the one that nodes' workers usually have.
const ORDINARY_UID: u32 = 65_530;

/// A node on the loopback. The supervisor's standard error is its log.
fn start() -> (Supervised, u16) {
    let dir = tempfile::Builder::new().prefix("ne").tempdir().unwrap();
    let config = dir.path().join("node.toml");
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[node]\nid = \"ordinary\"\nrun_dir = \"{}\"\n[port]\nkind = \"socket\"\n[access]\n\
         sources = [\"127.0.0.0/8\"]\n[echo]\nport = {port}\n[[interface]]\nname = \"lo\"\n\
         addresses = [\"127.0.0.1\"]\n",
        dir.path().join("run").display()
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let supervisor = Command::new(env!("CARGO_BIN_EXE_nautilus-supervisor"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    (Supervised::around(dir, config, supervisor), port)
}

#[test]
fn an_ordinary_user_runs_a_node_and_reads_it() {
    if nix::unistd::geteuid().is_root() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_ordinary_user_runs_a_node_and_reads_it", "--nocapture"])
            .uid(ORDINARY_UID)
            .gid(ORDINARY_UID)
            .env_remove("TMPDIR")
            .current_dir("/")
            .output();
        match output {
            Err(error) => println!("SKIPPED an_ordinary_user_runs_a_node_and_reads_it: {error}"),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}");
            }
        }
        return;
    }
    let (mut node, port) = start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let echoes = || {
        wait_until("an echo", Duration::from_secs(10), || {
            let _ = client.send(b"ping");
            client.recv(&mut [0; 16]).is_ok_and(|length| length == 4)
        });
    };
    echoes();
    assert!(node.attach().is_ok(), "the user that runs the supervisor is a reader");
    node.replace_worker();
    echoes();
    node.stop();
    assert!(!node.run_dir().exists());
}
