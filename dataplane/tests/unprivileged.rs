//! A node of an ordinary user, on kernel sockets and the loopback. As root the test runs itself again as
//! somebody else.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nautilus_shm::attach::{Code, Request, Verb, kill_switch_request};
use supervised::{Supervised, wait_until};

/// Nobody's, and not the one that nodes' workers usually have.
const ORDINARY_UID: u32 = 65_530;

const PROGRAM: &str = env!("CARGO_BIN_EXE_nautilus-supervisor");

/// As root, runs this test of this file again as somebody else, and says so.
fn runs_as_somebody_else(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        return false;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .uid(ORDINARY_UID)
        .gid(ORDINARY_UID)
        .env_remove("TMPDIR")
        .current_dir("/")
        .output();
    match output {
        Err(error) => println!("SKIPPED {test}: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    true
}

/// A node on the loopback, whose supervisor is started by way of these words. Its standard error is its log.
fn start(by: &[&str]) -> (Supervised, u16) {
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
    let words: Vec<&str> = by.iter().copied().chain([PROGRAM, "--config"]).collect();
    let supervisor = Command::new(words[0])
        .args(&words[1..])
        .arg(&config)
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    (Supervised::around(dir, config, supervisor), port)
}

#[test]
fn an_ordinary_user_runs_a_node_and_reads_it() {
    if runs_as_somebody_else("an_ordinary_user_runs_a_node_and_reads_it") {
        return;
    }
    let (mut node, port) = start(&[]);
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

#[test]
fn what_the_next_supervisor_must_know_is_on_disk_before_it_is_said() {
    let test = "what_the_next_supervisor_must_know_is_on_disk_before_it_is_said";
    if runs_as_somebody_else(test) {
        return;
    }
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        println!("SKIPPED {test}: strace cannot be used here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let calls = "trace=write,fsync,rename,sendmsg,sendto";
    let by = ["strace", "-D", "-s", "256", "-e", calls, "-o", path.to_str().unwrap()];
    let (mut node, _) = start(&by);
    wait_until("a worker serves", Duration::from_secs(20), || {
        node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
    });
    for (request, file, outlives_host, told) in [
        (kill_switch_request(true, "a test"), "halted.toml", true, "kill switch on by"),
        (Request { verb: Verb::Park }.encode().to_vec(), "remembered.toml", false, "is parked"),
    ] {
        let (code, said) = node.request(&request);
        assert_eq!(code, Code::Ok, "{said}");
        assert!(said.contains(told), "{said}");
        let is_written = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(told));
        wait_until("the answer in the trace", Duration::from_secs(10), is_written);
        let trace = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = trace.lines().collect();
        let renamed = |line: &&str| line.starts_with("rename(") && line.contains(file);
        let renamed = lines.iter().position(renamed).unwrap_or_else(|| panic!("{trace}"));
        let is = |line: &str, call: &str| line.starts_with(&format!("{call}("));
        // The text, then its name, and that of what outlives the host, too; only then the answer.
        assert!(is(lines[renamed - 2], "write") && is(lines[renamed - 1], "fsync"), "{trace}");
        assert_eq!(is(lines[renamed + 1], "fsync"), outlives_host, "{trace}");
        let answered = lines.iter().position(|line| line.contains(told)).unwrap();
        assert!(answered > renamed + usize::from(outlives_host), "{trace}");
    }
    node.stop();
}
