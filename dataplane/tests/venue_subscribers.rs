//! Subscribers of other hands: a Python program written from the documents rebuilds a venue's books over
//! lines that lose packets, by its request server and its snapshots; and tshark reads every frame that the
//! venue sent as we do. Needs root.

#[path = "support/supervised.rs"]
mod supervised;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::replay::pcap::PcapReader;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use supervised::{ip, privileged, wait_until};

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

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; what it printed since.
    fn end(mut self) -> String {
        let mut output = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            std::io::Read::read_to_string(stdout, &mut output).unwrap();
        }
        assert!(self.0.wait().unwrap().success(), "{output}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

    let capture = Capture::start(&namespace, folder);
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
        Some(path) => tshark_agrees(&path, number(&ends[0], "end")),
        None => println!("SKIPPED the part of tshark: tcpdump or tshark is not installed"),
    }
}

/// Everything on the namespace's loopback.
struct Capture {
    process: Running,
    path: PathBuf,
}

impl Capture {
    fn start(namespace: &Namespace, folder: &Path) -> Option<Self> {
        for program in ["tcpdump", "tshark"] {
            Command::new(program).arg("--version").output().ok()?;
        }
        let path = folder.join("capture.pcap");
        let mut command = namespace.command("tcpdump");
        command.args(["-i", "lo", "-U", "-B", "32768", "-Z", "root", "-w"]).arg(&path).arg("udp");
        let process = Running(command.stderr(Stdio::null()).spawn().unwrap());
        wait_until("tcpdump captures", Duration::from_secs(10), || path.exists());
        std::thread::sleep(Duration::from_millis(300));
        Some(Self { process, path })
    }

    fn end(self) -> PathBuf {
        std::thread::sleep(Duration::from_millis(300));
        self.process.terminate();
        self.process.end();
        self.path
    }
}

/// The UDP payload of an IPv4 frame of loopback, with its source and destination ports.
fn payload(frame: &[u8]) -> Option<(u16, u16, &[u8])> {
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let bytes = usize::from(port(4)?);
    Some((port(0)?, port(2)?, udp.get(8..bytes)?))
}

/// Session, sequence and count of every frame that came from the venue, by tshark and by us.
fn tshark_agrees(path: &Path, end: u64) {
    let mut ours = Vec::new();
    let mut reader = PcapReader::open(path).unwrap();
    let mut lines: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    while let Some(record) = reader.next_record().unwrap() {
        let Some((source, destination, bytes)) = payload(record.data) else { continue };
        let is_line = matches!(destination, 26_481 | 26_482);
        if !is_line && source != 26_500 {
            continue;
        }
        let packet = Packet::parse(bytes).unwrap();
        packet.check().unwrap();
        let count = u16::from_be_bytes([bytes[18], bytes[19]]);
        ours.push(format!("{}\t{}\t{count}", packet.session, packet.sequence));
        if is_line {
            let range = (packet.sequence, packet.next_sequence());
            lines.entry(destination).or_default().push(range);
        }
    }
    // Whole, on both lines: one packet behind the other from number 1 to the end.
    assert_eq!(lines.len(), 2);
    for packets in lines.values() {
        assert_eq!(packets[0].0, 1);
        assert!(packets.windows(2).all(|pair| pair[0].1 == pair[1].0), "a packet is missing");
        assert_eq!(packets.last().unwrap().1, end);
    }

    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-o", "udp.check_checksum:TRUE"]);
    for port in ["26481", "26482", "26500"] {
        tshark.args(["-d", &format!("udp.port=={port},moldudp64")]);
    }
    tshark.args(["-Y", "udp.dstport==26481 || udp.dstport==26482 || udp.srcport==26500"]);
    tshark.args(["-T", "fields", "-e", "moldudp64.session", "-e", "moldudp64.sequence"]);
    tshark.args(["-e", "moldudp64.count"]);
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = theirs.lines().collect();
    assert!(ours.len() > 5_000, "{} frames", ours.len());
    assert_eq!(theirs.len(), ours.len());
    for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        let words = |line: &str| line.split('\t').map(|word| word.trim().to_owned()).collect();
        let (theirs, ours): (Vec<String>, Vec<String>) = (words(theirs), words(ours));
        assert_eq!(theirs, ours, "frame {number}");
    }
    println!("tshark agrees on {} frames", ours.len());
}
