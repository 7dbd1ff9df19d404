//! A node that distributes a venue's day: subscribers in Python behind lines that lose hold what the cache holds,
//! though the worker is killed meanwhile; tshark reads every packet as we do. Needs root.

#[path = "support/supervised.rs"]
mod supervised;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::replay::pcap::PcapReader;
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nautilus_shm::metrics::labels::SubscriptionReason;
use nautilus_shm::metrics::{Counter, table};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const ENDPOINT: u16 = 26_700;
const REQUESTS: u16 = 26_500;
const LINE: &str = "233.54.12.111:26477";
const SYMBOLS: u32 = 24;

fn node(workers: u32) -> Supervised {
    let node = Supervised::new(&format!(
        "queues = [{}]\n[worker]\ncount = {workers}\n[port]\nframes = 1024\n\
         [cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         channel = 1\nmax_orders = 32768\ndepth = 5\n\
         [feed.recovery]\nservers = [\"{CLIENT}:{REQUESTS}\"]\nfrom = \"{SERVER}:26499\"\n\
         [feed.distribution]\nendpoint = \"{SERVER}:{ENDPOINT}\"\nlease_ms = 2000\n\
         entitled = [{{ prefix = \"{CLIENT}/32\", max_subscriptions = 3 }}]\n",
        if workers == 1 { "0" } else { "0, 1" },
    ));
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    node
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_client(node: &Supervised, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.client_ns, program]);
    command
}

/// The venue with its day, which is there until it is dropped: without it the node believes nothing for long.
fn venue(node: &Supervised) -> Running {
    let mut command = in_client(node, env!("CARGO_BIN_EXE_nautilus-venue"));
    let options = format!(
        "--line {LINE} --interface-address {CLIENT} --seed 5 --symbols {SYMBOLS} --rate 8000 \
         --session VENUE --messages 40000 --begin-after-ms 500 --linger-ms 600000 \
         --request {CLIENT}:{REQUESTS}"
    );
    command.args(options.split_whitespace());
    command.arg("--write-books").arg(node.dir.path().join("books"));
    Running(command.stdout(Stdio::null()).spawn().unwrap())
}

/// A subscriber in Python; its lines are read as they come.
struct Subscriber {
    process: Running,
    lines: BufReader<std::process::ChildStdout>,
    file: PathBuf,
}

impl Subscriber {
    fn start(node: &Supervised, name: &str, options: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = node.dir.path().join(name);
        let mut command = in_client(node, "python3");
        command.env("PYTHONPATH", root.join("client/python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(root.join("tests/support/distributed.py"));
        command.arg(format!("{SERVER}:{ENDPOINT}")).arg("--write").arg(&file);
        command.args(options.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { process: Running(child), lines, file }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Tells it to end; what it printed, and the records it holds.
    fn end(mut self) -> (String, BTreeMap<String, Vec<u8>>) {
        drop(self.process.0.stdin.take());
        let mut said = String::new();
        self.lines.read_to_string(&mut said).unwrap();
        assert!(self.process.0.wait().unwrap().success(), "{said}");
        let text = std::fs::read_to_string(&self.file).unwrap();
        let records = text.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let key = match words[..2] {
                ["venue_status", _] => "md:nasdaq:status".to_owned(),
                ["venue_stats", _] => "md:nasdaq:stats".to_owned(),
                ["depth", symbol] => format!("md:nasdaq:{symbol}:depth5"),
                [kind, symbol] => format!("md:nasdaq:{symbol}:{kind}"),
                _ => panic!("{line}"),
            };
            let bytes = (0..words[2].len()).step_by(2);
            let byte = |at| u8::from_str_radix(&words[2][at..at + 2], 16).unwrap();
            (key, bytes.map(byte).collect())
        });
        (said, records.collect())
    }
}

/// A number of a subscriber's last line.
fn number(said: &str, name: &str) -> u64 {
    let mut words = said.lines().last().unwrap().split_whitespace();
    words.find(|word| *word == name).unwrap_or_else(|| panic!("{said}"));
    words.next().unwrap().parse().unwrap()
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// What the cache holds under a key.
fn get(client: &UdpSocket, key: &str) -> Option<Vec<u8>> {
    let request = [&[0, 1, 0, 0, 0, 1, 0, 0][..], format!("get {key}\r\n").as_bytes()].concat();
    let mut reply = [0; 1500];
    client.send(&request).ok()?;
    let length = client.recv(&mut reply).ok()?;
    let text = reply.get(8..length)?;
    let start = text.windows(2).position(|pair| pair == b"\r\n")? + 2;
    Some(text.get(start..text.len().checked_sub(7)?)?.to_vec())
}

fn day(workers: u32) {
    let mut node = node(workers);
    if workers > 1 {
        // Two queues, so that what subscribers say arrives at either worker.
        ip(&format!("-n {} link del c0", node.client_ns));
        node.make_link(0, workers);
        ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    }
    node.start();
    node.await_workers(workers as usize);
    let capture = Capture::start(&node);
    let mut full = Subscriber::start(&node, "full", "--depth 5 --lose 80");
    let mut conflated =
        Subscriber::start(&node, "conflated", "--depth 5 --lose 40 --seed 2 --conflate-us 20000");
    let mut some =
        Subscriber::start(&node, "some", "--records bbo,last --symbols NAAAAA,NAAAAB,NAAAAC");
    for subscriber in [&mut full, &mut conflated, &mut some] {
        assert!(subscriber.line().starts_with("session "));
    }
    let mut refused = Subscriber::start(&node, "refused", "--depth 5");
    assert_eq!(refused.line(), "refused too many subscriptions");

    let _venue = venue(&node);
    let region = node.attach().unwrap();
    wait_until("a third of the day", PATIENCE, || sum(&region, table::FEED_MESSAGES) > 13_000);
    for pid in node.serving() {
        Supervised::kill_worker(pid);
    }
    for subscriber in [&mut full, &mut conflated, &mut some] {
        assert!(subscriber.line().starts_with("session "), "it subscribes again");
    }
    wait_until("the books are written", PATIENCE, || {
        node.dir.path().join("books").metadata().is_ok_and(|file| file.len() > 0)
    });
    let suspect = || -> u64 {
        (0..WORKERS_MAX).map(|slot| region.metrics(slot).gauge(table::FEED_SUSPECT_CHANNELS)).sum()
    };
    wait_until("the node has the whole day", PATIENCE, || {
        let suspects = suspect();
        suspects == 0 && sum(&region, table::FEED_RESENT_MESSAGES) > 0
    });
    // The venue's own statistics come ten times a second.
    std::thread::sleep(Duration::from_millis(500));

    let client = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    client.connect((SERVER, CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for (name, subscriber) in [("full", full), ("conflated", conflated), ("some", some)] {
        let (said, records) = subscriber.end();
        println!("{name}: {said}");
        assert!(said.trim_end().ends_with("ends unknown"), "{said}");
        for (key, record) in &records {
            let mut held = None;
            wait_until(&format!("the cache answers for {key}"), PATIENCE, || {
                held = get(&client, key);
                held.is_some()
            });
            assert_eq!(held.as_ref(), Some(record), "{name} {key}");
        }
        let symbols: BTreeSet<_> = records.keys().filter(|key| key.ends_with(":bbo")).collect();
        let expected = if name == "some" { 3 } else { SYMBOLS as usize };
        assert_eq!(symbols.len(), expected, "{name}");
        if name != "some" {
            assert!(records.len() > 5 * SYMBOLS as usize - 10, "{} records", records.len());
            assert!(number(&said, "lost") > 50 && number(&said, "asked") > 10, "{said}");
        }
        // One in full that gets too little of the machine to keep up is conflated, and told so.
        let left_out = number(&said, "left_out");
        match (name, number(&said, "slowed")) {
            ("conflated", slowed) => assert!(left_out > 100 && slowed == 0, "{said}"),
            (_, 0) => assert_eq!(left_out, 0, "{name}: {said}"),
            ("full", _) => {}
            _ => panic!("{name} is no more than three stocks: {said}"),
        }
    }
    // Who lost its last word is gone with its lease.
    wait_until("they are gone", PATIENCE, || {
        let ended = [SubscriptionReason::Unsubscribed, SubscriptionReason::Lease];
        ended.map(|end| sum(&region, table::FEED_SUBSCRIPTION_ENDED.of(end))).iter().sum::<u64>()
            == 3
    });
    let refused = table::FEED_SUBSCRIPTION_REFUSED.of(SubscriptionReason::TooMany);
    assert_eq!(sum(&region, refused), 1);
    println!(
        "{} messages in {} packets, {} again, {} left out",
        sum(&region, table::FEED_DISTRIBUTED_MESSAGES),
        sum(&region, table::FEED_DISTRIBUTED_PACKETS),
        sum(&region, table::FEED_RESENT_MESSAGES),
        sum(&region, table::FEED_LEFT_OUT),
    );
    match capture.map(Capture::end) {
        Some(path) => tshark_agrees(&path, workers == 1),
        None => println!("SKIPPED the part of tshark: tcpdump or tshark is not installed"),
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn subscribers_in_python_hold_what_the_cache_holds() {
    if privileged("subscribers_in_python_hold_what_the_cache_holds") {
        day(1);
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn subscribers_of_a_node_of_two_workers_hold_what_the_cache_holds() {
    if privileged("subscribers_of_a_node_of_two_workers_hold_what_the_cache_holds") {
        day(2);
    }
}

/// What the node sends to subscribers.
struct Capture {
    process: Running,
    path: PathBuf,
}

impl Capture {
    fn start(node: &Supervised) -> Option<Self> {
        for program in ["tcpdump", "tshark"] {
            Command::new(program).arg("--version").output().ok()?;
        }
        let path = node.dir.path().join("capture.pcap");
        let mut command = in_client(node, "tcpdump");
        command.args(["-i", "c0", "-U", "-B", "32768", "-Z", "root", "-w"]).arg(&path);
        command.arg(format!("udp src port {ENDPOINT}"));
        let process = Running(command.stderr(Stdio::null()).spawn().unwrap());
        wait_until("tcpdump captures", Duration::from_secs(10), || path.exists());
        std::thread::sleep(Duration::from_millis(300));
        Some(Self { process, path })
    }

    fn end(mut self) -> PathBuf {
        std::thread::sleep(Duration::from_millis(300));
        kill(Pid::from_raw(self.process.0.id() as i32), Signal::SIGTERM).unwrap();
        self.process.0.wait().unwrap();
        self.path
    }
}

/// Session, sequence and count of every packet of messages, by tshark and by us; and that of each session every
/// number was sent, unless another worker sends what it finds room for.
fn tshark_agrees(path: &Path, is_whole: bool) {
    let mut reader = PcapReader::open(path).unwrap();
    let (mut ours, mut next) = (Vec::new(), BTreeMap::<[u8; 10], u64>::new());
    while let Some(record) = reader.next_record().unwrap() {
        // Ethernet, IPv4 without options, UDP.
        let bytes = &record.data[14 + 20 + 8..];
        if bytes.starts_with(b"NXR1") {
            continue;
        }
        let packet = Packet::parse(bytes).unwrap();
        packet.check().unwrap();
        let count = u16::from_be_bytes([bytes[18], bytes[19]]);
        ours.push(format!("{}\t{}\t{count}", packet.session, packet.sequence));
        let next = next.entry(packet.session.0).or_insert(1);
        // An image takes the place of what has not been sent before it.
        let is_image = bytes.get(22) == Some(&b'I') && bytes.get(30) == Some(&b'B');
        assert!(
            packet.sequence <= *next || is_image || !is_whole,
            "{}: {} of {next}",
            packet.session,
            packet.sequence
        );
        *next = packet.next_sequence().max(*next);
    }
    assert_eq!(next.len(), 6, "three subscribers, twice each: {next:?}");
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-o", "udp.check_checksum:TRUE"]);
    tshark.args(["-d", &format!("udp.port=={ENDPOINT},moldudp64")]);
    tshark.args(["-Y", "!(udp.payload[0:4] == 4e:58:52:31) && udp.checksum.status == 1"]);
    tshark.args(["-T", "fields", "-e", "moldudp64.session", "-e", "moldudp64.sequence"]);
    tshark.args(["-e", "moldudp64.count"]);
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = theirs.lines().collect();
    assert!(ours.len() > 2_000, "{} packets", ours.len());
    assert_eq!(theirs.len(), ours.len());
    for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
        assert_eq!(theirs, ours, "packet {number}");
    }
    println!("tshark agrees on {} packets", ours.len());
}
