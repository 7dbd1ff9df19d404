//! A venue, two lines that lose packets, a node that gives out one clean line, and who receives that: a subscriber
//! in Python that knows nothing but the documents. tshark reads every frame. Needs root.

#[path = "support/capture.rs"]
mod capture;
#[path = "support/lossy_venue.rs"]
mod lossy_venue;
#[path = "support/supervised.rs"]
mod supervised;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture::{Capture, Running, tshark_agrees};
use lossy_venue::{REQUESTS, Relay, SNAPSHOTS, Venue};
use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{Republished, RequestEnd, ServedSnapshot};
use nautilus_shm::metrics::{Counter, table};
use supervised::{CLIENT, SERVER, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the node gives out, and where it answers.
const GROUP: &str = "239.255.70.1";
const LINE: u16 = 26_700;
const OWN_REQUESTS: u16 = 26_800;
const OWN_SNAPSHOTS: u16 = 26_900;
const MESSAGES: u32 = 40_000;

fn node_file(folder: &Path, port_kind: &str, workers: u32) -> String {
    let password = folder.join("password");
    format!(
        "queues = [{}]\n[worker]\ncount = {workers}\n[port]\nkind = \"{port_kind}\"\nframes = 1024\n\
         [cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         lines = [{{ group = \"233.54.12.112\", port = 26478 }}]\nchannel = 1\nmax_orders = 32768\n\
         [feed.recovery]\nservers = [\"{CLIENT}:{REQUESTS}\"]\nfrom = \"{SERVER}:26499\"\n\
         request_messages_max = 5000\n\
         [feed.recovery.snapshot]\nserver = \"{CLIENT}:{SNAPSHOTS}\"\nuser = \"NODE\"\n\
         password_file = {password:?}\n\
         [feed.republish]\ngroup = \"{GROUP}\"\nport = {LINE}\nfrom = \"{SERVER}:26701\"\n\
         requests = \"{SERVER}:{OWN_REQUESTS}\"\nhistory_mb = 16\n\
         [feed.republish.snapshot]\nlisten = \"{SERVER}:{OWN_SNAPSHOTS}\"\nuser = \"DOWN\"\n\
         password_file = {password:?}\n",
        if workers == 1 { "0" } else { "0, 1" },
    )
}

/// A folder that the front of a node may read, with the password of everything.
fn readable_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("ne-republish").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("password"), "secret\n").unwrap();
    folder
}

/// The Python subscriber, which has joined the node's line.
fn subscriber(node: &Supervised, folder: &Path, name: &str, options: &[&str]) -> Running {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/subscriber.py");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.client_ns, "python3"]).arg(script);
    command.args(["--line", &format!("{GROUP}:{LINE}"), "--interface-address", CLIENT]);
    command.args(["--request", &format!("{SERVER}:{OWN_REQUESTS}")]);
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

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// Waits until the venue has written its books, which it does in one go.
fn await_books(node: &Supervised) {
    let books = node.dir.path().join("books");
    let mut before = 0;
    wait_until("the venue's books", PATIENCE, || {
        let bytes = books.metadata().map_or(0, |file| file.len());
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, bytes) == bytes && bytes > 0
    });
}

/// Python is there, and so is everything else.
fn can_run(test: &str) -> bool {
    if Command::new("python3").arg("-V").output().is_err() {
        println!("SKIPPED {test}: no python3");
        return false;
    }
    privileged(test)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_subscriber_of_the_node_rebuilds_the_venues_books() {
    if !can_run("a_subscriber_of_the_node_rebuilds_the_venues_books") {
        return;
    }
    rebuild("xdp", 1);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_subscriber_of_a_node_with_kernel_sockets_does_too() {
    if !can_run("a_subscriber_of_a_node_with_kernel_sockets_does_too") {
        return;
    }
    rebuild("socket", 1);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_node_of_two_workers_gives_out_one_line_in_order() {
    if !can_run("a_node_of_two_workers_gives_out_one_line_in_order") {
        return;
    }
    rebuild("xdp", 2);
}

fn rebuild(port_kind: &str, workers: u32) {
    let folder = readable_folder();
    let folder = folder.path();
    let mut node = Supervised::new(&node_file(folder, port_kind, workers));
    if workers > 1 {
        ip(&format!("-n {} link del s0", node.server_ns));
        node.make_link(0, workers);
    }
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    // The echo port of these nodes is one of root's.
    let allow = "sysctl -q -w net.ipv4.ip_unprivileged_port_start=0";
    ip(&format!("netns exec {} {allow}", node.server_ns));
    node.start();
    node.await_workers(workers as usize);
    let mut tcpdump = Command::new("ip");
    tcpdump.args(["netns", "exec", &node.client_ns, "tcpdump"]);
    let capture = Capture::start(tcpdump, "c0", folder);
    let whole = subscriber(&node, folder, "whole", &["--seed", "1"]);
    let lossy = subscriber(&node, folder, "lossy", &["--lose", "100", "--seed", "2"]);
    let (server, password) = (format!("{SERVER}:{OWN_SNAPSHOTS}"), folder.join("password"));
    let snapshot =
        ["--snapshot", &server, "--user", "DOWN", "--password-file", password.to_str().unwrap()];
    let late = [&["--lose", "50", "--seed", "3", "--join-at", "12000"], &snapshot[..]].concat();
    let late = subscriber(&node, folder, "late", &late);
    let relay = Relay::default();
    let ends = std::thread::scope(|scope| {
        let node: &Supervised = &node;
        // Nothing is left running by a failed assertion.
        let _ending = Ending(&relay.over);
        scope.spawn(|| relay.run(node));
        let venue = Venue::start(node, MESSAGES, 500, 20_000);
        let ends = [whole, lossy, late].map(Running::end);
        relay.over.store(true, Ordering::Relaxed);
        await_books(node);
        drop(venue);
        ends
    });
    let packets = capture.map(Capture::end);
    println!("{ends:?}");
    let books = std::fs::read_to_string(node.dir.path().join("books")).unwrap();
    assert!(books.lines().count() > 200, "too little to compare:\n{books}");
    for name in ["whole", "lossy", "late"] {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), books, "{name}");
    }
    assert!(relay.lost.load(Ordering::Relaxed) > 100);
    assert!(number(&ends[1], "lost") > 50 && number(&ends[1], "filled") > 500, "{ends:?}");
    assert!(number(&ends[2], "began") > 12_000, "by a snapshot: {ends:?}");
    let region = node.attach().unwrap();
    let served = table::FRONT_SERVED_SNAPSHOTS.of(ServedSnapshot::Sent);
    wait_until("the snapshot is counted", PATIENCE, || {
        region.metrics(FRONT_PROCESS).counter(served) == 1
    });
    let end = number(&ends[0], "end");
    assert_eq!(sum(&region, table::FEED_REPUBLISHED_MESSAGES), end - 1);
    assert_eq!(sum(&region, table::FEED_UNSENT_MESSAGES), 0);
    assert!(sum(&region, table::FEED_REQUESTS.of(RequestEnd::Answered)) > 50);
    assert!(sum(&region, table::FEED_REPUBLISHED_PACKETS.of(Republished::Ends)) > 0);
    if let Some(path) = packets {
        let lines = tshark_agrees(&path, &[LINE], OWN_REQUESTS, port_kind == "xdp");
        let packets = &lines[&LINE];
        assert_eq!((packets[0].0, packets.last().unwrap().1), (1, end));
        let has_none_missing = packets.windows(2).all(|pair| pair[0].1 == pair[1].0);
        assert!(has_none_missing, "not one clean line");
        let frames = |kind| sum(&region, table::FEED_REPUBLISHED_PACKETS.of(kind));
        let sent = frames(Republished::Messages)
            + frames(Republished::Heartbeats)
            + frames(Republished::Ends);
        assert!(sent >= packets.len() as u64, "{sent} {}", packets.len());
    } else {
        println!("SKIPPED the part of tshark: tcpdump or tshark is not installed");
    }
    node.stop();
}

/// Sets it when it goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
