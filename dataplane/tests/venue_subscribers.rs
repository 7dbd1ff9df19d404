//! Subscribers of other hands: a Python program written from the documents rebuilds a venue's books over
//! lines that lose packets, by its request server and its snapshots; and tshark reads every frame that the
//! venue sent as we do. Needs root.

#[path = "support/capture.rs"]
mod capture;
#[path = "support/supervised.rs"]
mod supervised;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use capture::{Capture, Running, tshark_agrees};
use supervised::{ip, privileged};

const LINES: [&str; 2] = ["239.255.71.1:26481", "239.255.71.2:26482"];
const REQUESTS: &str = "127.0.0.1:26500";
const SNAPSHOTS: &str = "127.0.0.1:26600";
const MESSAGES: &str = "30000";

/// A namespace of its own, in which only loopback is.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("nautilus-subscribers-{}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add 224.0.0.0/4 dev lo"));
        Self(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn venue(namespace: &Namespace, folder: &Path) -> Running {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_nautilus-venue"));
    for line in LINES {
        command.args(["--line", line, "--interface-address", "127.0.0.1"]);
    }
    command.args(["--seed", "11", "--messages", MESSAGES, "--symbols", "12", "--rate", "10000"]);
    command.args(["--session", "VENUE", "--begin-after-ms", "500", "--linger-ms", "60000"]);
    command.args(["--request", REQUESTS, "--snapshot", SNAPSHOTS, "--user", "user"]);
    command.arg("--password-file").arg(folder.join("password"));
    command.arg("--write-books").arg(folder.join("books"));
    Running(command.stdout(Stdio::piped()).spawn().unwrap())
}

/// A subscriber that has joined its lines.
fn subscriber(namespace: &Namespace, folder: &Path, name: &str, options: &[&str]) -> Running {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/subscriber.py");
    let mut command = namespace.command("python3");
    command.arg(script).args(["--interface-address", "127.0.0.1", "--request", REQUESTS]);
    command.arg("--write-books").arg(folder.join(name)).args(options);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child.stdout = Some(stdout.into_inner());
    Running(child)
}

/// A number of a subscriber's last line.
fn number(line: &str, name: &str) -> u64 {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name).unwrap_or_else(|| panic!("{line}"));
    words.next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "privileged: makes a network namespace"]
fn a_subscriber_in_python_rebuilds_the_books_and_tshark_reads_the_frames() {
    if !privileged("a_subscriber_in_python_rebuilds_the_books_and_tshark_reads_the_frames") {
        return;
    }
    if Command::new("python3").arg("-V").output().is_err() {
        println!("SKIPPED a_subscriber_in_python_rebuilds_the_books: no python3");
        return;
    }
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("password"), "secret\n").unwrap();

    let capture = Capture::start(namespace.command("tcpdump"), "lo", folder);
    let password = folder.join("password");
    let snapshot =
        ["--snapshot", SNAPSHOTS, "--user", "user", "--password-file", password.to_str().unwrap()];
    let early_options = ["--line", LINES[0], "--lose", "100", "--seed", "1"];
    let late_options =
        [&["--line", LINES[1], "--lose", "200", "--join-at", "10000"], &snapshot[..]];
    let both_options = ["--line", LINES[0], "--line", LINES[1], "--lose", "300", "--seed", "3"];
    let early = subscriber(&namespace, folder, "early", &early_options);
    let late = subscriber(&namespace, folder, "late", &late_options.concat());
    let both = subscriber(&namespace, folder, "both", &both_options);
    let venue = venue(&namespace, folder);
    let ends = [early, late, both].map(Running::end);
    let packets = capture.map(Capture::end);
    venue.terminate();
    let counts = venue.end();
    println!("{ends:?}\n{counts}");

    let books = std::fs::read_to_string(folder.join("books")).unwrap();
    assert!(books.lines().count() > 200, "too little to compare:\n{books}");
    for (name, line) in ["early", "late", "both"].iter().zip(&ends) {
        let found = std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(found, books, "{name}");
        assert!(number(line, "lost") > 50 && number(line, "asked") > 10, "{line}");
    }
    assert!(number(&ends[1], "began") > 10_000, "by a snapshot");
    let filled = ends.each_ref().map(|line| number(line, "filled"));
    assert!(filled[0] > 500 && filled[2] > 500 && filled[2] < filled[0] * 2, "{filled:?}");
    match packets {
        Some(path) => {
            let lines = tshark_agrees(&path, &[26_481, 26_482], 26_500, false);
            // Whole, on both lines: one packet behind the other from number 1 to the end.
            assert_eq!(lines.len(), 2);
            for packets in lines.values() {
                assert_eq!(packets[0].0, 1);
                let has_none_missing = packets.windows(2).all(|pair| pair[0].1 == pair[1].0);
                assert!(has_none_missing, "a packet is missing");
                assert_eq!(packets.last().unwrap().1, number(&ends[0], "end"));
            }
        }
        None => println!("SKIPPED the part of tshark: tcpdump or tshark is not installed"),
    }
}
