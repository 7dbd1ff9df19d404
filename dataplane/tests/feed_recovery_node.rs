//! A venue, two lines that lose, damage, double and reorder packets, and a node that gets back what both lost:
//! from the venue's request server, and after the death of its worker from the venue's snapshots, fetched by its
//! front. Needs root.

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_dataplane::feed::book::Level;
use nautilus_dataplane::feed::itch::Price4;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{Recovery, SnapshotEnd};
use nautilus_shm::metrics::{Counter, table};
use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ip, privileged, wait_until};
use wire::{Wire, numbers};

const PATIENCE: Duration = Duration::from_secs(60);
const REQUESTS: u16 = 26_500;
const SNAPSHOTS: u16 = 26_600;
const LINES: [&str; 2] = ["233.54.12.111:26477", "233.54.12.112:26478"];
/// Both lines lose one packet of six or seven, and thus the same one of forty-four. The second is behind, and
/// untidy.
const FAULTS: &str = "
seed = 5
[[line]]
to = \"233.54.12.111:26477\"
loss_ppm = 150000
[[line]]
to = \"233.54.12.112:26478\"
loss_ppm = 150000
duplicate_ppm = 20000
corrupt_ppm = 10000
reorder_ppm = 20000
delay_us = 100
jitter_us = 100
";

/// A node, and the folder that its front reads a password in.
fn node(workers: u32, more: &str) -> (Supervised, tempfile::TempDir) {
    let config = format!(
        "queues = [{}]\n[worker]\ncount = {workers}\n[port]\nframes = 1024\n\
         [cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         lines = [{{ group = \"233.54.12.112\", port = 26478 }}]\nchannel = 1\nmax_orders = 32768\n\
         [feed.recovery]\n{more}\
         [feed.recovery.snapshot]\nserver = \"{CLIENT}:{SNAPSHOTS}\"\nuser = \"NODE\"\n",
        if workers == 1 { "0" } else { "0, 1" },
    );
    let password = |dir: &std::path::Path| format!("password_file = {:?}\n", dir.join("password"));
    let folder = tempfile::Builder::new().prefix("ne-venue").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("password"), "secret\n").unwrap();
    (Supervised::new(&(config + &password(folder.path()))), folder)
}

/// The venue in the client's namespace; what it prints is shown when it fails.
struct Venue(Child);

impl Venue {
    fn start(node: &Supervised, messages: u32, begin_after_ms: u32) -> Self {
        let books = node.dir.path().join("books");
        let password = node.dir.path().join("venue-password");
        std::fs::write(&password, "secret\n").unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node.client_ns, env!("CARGO_BIN_EXE_nautilus-venue")]);
        for line in LINES {
            command.args(["--line", line]);
        }
        let options = format!(
            "--source {CLIENT} --seed 5 --symbols 24 --rate 8000 --session VENUE --messages {messages} \
             --begin-after-ms {begin_after_ms} --linger-ms 600000 --user NODE \
             --request {CLIENT}:{REQUESTS} --snapshot {CLIENT}:{SNAPSHOTS}"
        );
        command.args(options.split(' ')).arg("--password-file").arg(password);
        command.arg("--write-books").arg(books);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The best bid and offer that the venue wrote down, by symbol.
fn written(node: &Supervised) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(node.dir.path().join("books")).unwrap();
    let heads = text.lines().filter_map(|line| line.split_once(" bid "));
    heads.map(|(symbol, rest)| (symbol.to_owned(), format!("bid {rest}"))).collect()
}

/// A record in the venue's words.
fn in_words(record: &BboRecord) -> String {
    let side = |name: &str, level: Option<Level>| match level {
        None => format!("{name} none"),
        Some(Level { price, shares, orders }) => {
            format!("{name} {} {shares} {orders}", Price4(price))
        }
    };
    format!("{} {}", side("bid", record.bbo.bid), side("offer", record.bbo.ask))
}

fn get(client: &UdpSocket, symbol: &str) -> Option<BboRecord> {
    let request =
        [&[0, 1, 0, 0, 0, 1, 0, 0][..], format!("get md:nasdaq:{symbol}:bbo\r\n").as_bytes()]
            .concat();
    let mut reply = [0; 1500];
    client.send(&request).ok()?;
    let length = client.recv(&mut reply).ok()?;
    let text = reply.get(8..length)?;
    let start = text.windows(2).position(|pair| pair == b"\r\n")? + 2;
    BboRecord::decode(text.get(start..text.len().checked_sub(7)?)?)
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// A day with losses; `meanwhile` is done in its middle.
fn day(node: &mut Supervised, workers: usize, meanwhile: impl FnOnce(&Supervised)) {
    let mut wire = Wire::insert(node, FAULTS, workers as u32);
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    node.start();
    node.await_workers(workers);
    {
        let node: &Supervised = node;
        let mut venue = Venue::start(node, 40_000, 500);
        let region = node.attach().unwrap();
        wait_until("a third of the day", PATIENCE, || {
            sum(&region, table::FEED_MESSAGES) > 13_000 || venue.has_ended()
        });
        meanwhile(node);
        wait_until("the books are written", PATIENCE, || {
            node.dir.path().join("books").metadata().is_ok_and(|file| file.len() > 0)
        });
        // Written in one go; read again until it is whole.
        wait_until("all books", PATIENCE, || written(node).len() == 24);
        let client = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
        client.connect((SERVER, CACHE_PORT)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let expected = written(node);
        wait_until("every record is that of the venue's books", PATIENCE, || {
            expected.iter().all(|(symbol, words)| {
                words == "bid none offer none"
                    || get(&client, symbol).is_some_and(|record| in_words(&record) == *words)
            })
        });
    }
    let said = wire.cut();
    let [passed, lost] = ["passed", "lost"].map(|name| numbers(&said, name));
    let region = node.attach().unwrap();
    let recovery = |what| sum(&region, table::FEED_RECOVERY.of(what));
    println!(
        "packets passed {passed:?}, lost {lost:?}; {} requests, {} replies, {} messages recovered, \
         {} snapshots of {}",
        recovery(Recovery::Requests),
        recovery(Recovery::Replies),
        sum(&region, table::FEED_RECOVERED_MESSAGES),
        recovery(Recovery::SnapshotsLoaded),
        recovery(Recovery::Snapshots),
    );
    assert!(lost.iter().all(|lost| *lost > 100), "{said}");
    assert!(numbers(&said, "reordered")[1] > 5 && numbers(&said, "duplicated")[1] > 5, "{said}");
    assert_eq!(numbers(&said, "queue_full"), [0, 0], "{said}");
    assert_eq!(sum(&region, table::FEED_GAPS), 0);
    assert!(recovery(Recovery::Replies) > 10);
    assert!(sum(&region, table::FEED_RECOVERED_MESSAGES) > 50);
}

fn servers() -> String {
    format!(
        "servers = [\"{CLIENT}:{REQUESTS}\"]\nfrom = \"{SERVER}:26499\"\n\
         request_messages_max = 5000\n"
    )
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_both_lines_lost_is_asked_for_and_a_new_worker_takes_a_snapshot() {
    if !privileged("what_both_lines_lost_is_asked_for_and_a_new_worker_takes_a_snapshot") {
        return;
    }
    let (mut node, _folder) = node(1, &servers());
    day(&mut node, 1, |node| {
        let worker = node.active().unwrap();
        Supervised::kill_worker(worker as i32);
        let region = node.attach().unwrap();
        let loaded = table::FEED_RECOVERY.of(Recovery::SnapshotsLoaded);
        wait_until("a snapshot is in the books", PATIENCE, || sum(&region, loaded) >= 1);
    });
    let region = node.attach().unwrap();
    let complete = table::FRONT_SNAPSHOTS.of(SnapshotEnd::Complete);
    assert!(region.metrics(FRONT_PROCESS).counter(complete) >= 1);
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_front_that_dies_in_the_middle_of_a_snapshot_is_followed_by_another() {
    if !privileged("a_front_that_dies_in_the_middle_of_a_snapshot_is_followed_by_another") {
        return;
    }
    let (mut node, _folder) = node(1, &servers());
    day(&mut node, 1, |node| {
        let worker = node.active().unwrap();
        let front = front_of(node);
        Supervised::kill_worker(front);
        Supervised::kill_worker(worker as i32);
        let region = node.attach().unwrap();
        let loaded = table::FEED_RECOVERY.of(Recovery::SnapshotsLoaded);
        wait_until("a snapshot is in the books", PATIENCE, || sum(&region, loaded) >= 1);
    });
    node.stop();
}

/// The front's process.
fn front_of(node: &Supervised) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", node.supervisor_pid());
    let children = std::fs::read_to_string(children).unwrap();
    let is_front = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "nautilus-front")
    };
    children.split_whitespace().find(is_front).expect("a front").parse().unwrap()
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn the_owner_of_a_feed_asks_by_way_of_another_worker() {
    if !privileged("the_owner_of_a_feed_asks_by_way_of_another_worker") {
        return;
    }
    let (mut node, _folder) = node(2, &servers());
    day(&mut node, 2, |_| {});
    node.stop();
}
