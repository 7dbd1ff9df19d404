//! A venue, a node, and a second node that receives nothing but what the first gives out: it recovers from the first
//! node's servers while workers and fronts of both are killed, and no price that it believes is wrong. Needs root.

#[path = "support/lossy_venue.rs"]
mod lossy_venue;
#[path = "support/proxies.rs"]
mod proxies;
#[path = "support/supervised.rs"]
mod supervised;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lossy_venue::{REQUESTS, Relay, SNAPSHOTS, Venue};
use nautilus_dataplane::feed::book::{Bbo, BookLimits, Books};
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_dataplane::venue::day::Day;
use nautilus_dataplane::venue::engine::Tape;
use nautilus_dataplane::venue::flow::FlowSpec;
use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{Recovery, RequestEnd, ServedSnapshot};
use nautilus_shm::metrics::{Counter, table};
use proxies::{Way, carry_connections, carry_datagrams, carry_group};
use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "239.255.70.1";
const LINE: u16 = 26_700;
const OWN_REQUESTS: u16 = 26_800;
const OWN_SNAPSHOTS: u16 = 26_900;
const MESSAGES: u32 = 80_000;

fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

fn readable_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("ne-chain").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("password"), "secret\n").unwrap();
    folder
}

/// A node of two lines that recovers from servers at these ports of its client.
fn node_file(folder: &Path, lines: &str, (requests, snapshots): (u16, u16), more: &str) -> String {
    let password = folder.join("password");
    format!(
        "queues = [0]\n[port]\nframes = 1024\n[cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n{lines}\
         channel = 1\nmax_orders = 32768\n\
         [feed.recovery]\nservers = [\"{CLIENT}:{requests}\"]\nfrom = \"{SERVER}:26499\"\n\
         request_messages_max = 5000\n\
         [feed.recovery.snapshot]\nserver = \"{CLIENT}:{snapshots}\"\nuser = \"NODE\"\n\
         password_file = {password:?}\n{more}"
    )
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

/// The best bid and offer of every symbol of the venue's day, by the number of the message behind which they are.
struct Truth(BTreeMap<String, Vec<(u64, Bbo)>>);

impl Truth {
    /// Of the day that the venue of the tests has.
    fn new(messages: u32) -> Self {
        let spec = FlowSpec { seed: 5, symbols: 24, messages: messages.into(), rate: 8_000 };
        let mut day = Day::new(spec).unwrap();
        let limits = BookLimits { orders_max: 1 << 15, levels_max: 1 << 15, hash_seed: 1 };
        let (mut books, mut tape) = (Books::new(limits), Tape::default());
        let (mut truth, mut sequence) = (BTreeMap::<String, Vec<(u64, Bbo)>>::new(), 0);
        while day.step(&mut tape) {
            for bytes in tape.messages() {
                sequence += 1;
                let (effect, _) = books.apply(&Message::decode(bytes).unwrap());
                let Some(symbol) = books.symbol(effect.locate).filter(|_| effect.book) else {
                    continue;
                };
                let symbol = String::from_utf8(symbol.0.trim_ascii_end().to_vec()).unwrap();
                truth.entry(symbol).or_default().push((sequence, books.bbo(effect.locate)));
            }
        }
        Self(truth)
    }

    fn symbols(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn at(&self, symbol: &str, sequence: u64) -> Bbo {
        let changes = &self.0[symbol];
        let count = changes.partition_point(|(number, _)| *number <= sequence);
        count.checked_sub(1).map_or_else(Bbo::default, |last| changes[last].1)
    }

    fn last(&self, symbol: &str) -> Bbo {
        self.at(symbol, u64::MAX)
    }
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

fn cache_client(node: &Supervised) -> UdpSocket {
    let client = Supervised::udp(&node.client_ns, address(CLIENT, 0));
    client.connect((SERVER, CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client
}

/// Reads of a node's prices, all day long.
#[derive(Default)]
struct Reads {
    over: AtomicBool,
    believed: AtomicU64,
    wrong: AtomicU64,
}

impl Reads {
    fn run(&self, node: &Supervised, truth: &Truth) {
        let client = cache_client(node);
        while !self.over.load(Ordering::Relaxed) {
            for symbol in truth.symbols() {
                // Late answers to a question of before name another symbol.
                let Some(record) = get(&client, symbol) else { continue };
                let named = String::from_utf8_lossy(record.origin.symbol.0.trim_ascii_end());
                let expected = truth.at(&named, record.origin.source_sequence);
                self.believed.fetch_add(1, Ordering::Relaxed);
                if record.bbo != expected {
                    self.wrong.fetch_add(1, Ordering::Relaxed);
                    println!("{named}: {record:?} instead of {expected:?}");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
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
#[ignore = "privileged: makes network namespaces and two nodes"]
fn a_second_node_recovers_from_the_first_while_both_lose_their_processes() {
    if !privileged("a_second_node_recovers_from_the_first_while_both_lose_their_processes") {
        return;
    }
    let folder = readable_folder();
    let folder = folder.path();
    let password = folder.join("password");
    let republish = format!(
        "[feed.republish]\ngroup = \"{GROUP}\"\nport = {LINE}\nfrom = \"{SERVER}:26701\"\n\
         requests = \"{SERVER}:{OWN_REQUESTS}\"\nhistory_mb = 16\n\
         [feed.republish.snapshot]\nlisten = \"{SERVER}:{OWN_SNAPSHOTS}\"\nuser = \"NODE\"\n\
         password_file = {password:?}\n"
    );
    let lines = "lines = [{ group = \"233.54.12.112\", port = 26478 }]\n";
    let mut first = Supervised::new(&node_file(folder, lines, (REQUESTS, SNAPSHOTS), &republish));
    let mut second = Supervised::new(&node_file(folder, "", (OWN_REQUESTS, OWN_SNAPSHOTS), ""));
    for node in [&mut first, &mut second] {
        ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
        node.start();
        node.await_workers(1);
    }
    let truth = Truth::new(MESSAGES);
    let (relay, reads, over) = (Relay::default(), Reads::default(), AtomicBool::new(false));
    let way = |from, to| Way {
        from: (second.client_ns.as_str(), address(CLIENT, from)),
        to: (first.client_ns.as_str(), address(SERVER, to)),
    };
    let group = Way {
        from: (first.client_ns.as_str(), address(GROUP, LINE)),
        to: (second.client_ns.as_str(), address("233.54.12.111", 26_477)),
    };
    std::thread::scope(|scope| {
        let (first, second, truth) = (&first, &second, &truth);
        let (relay, reads, over) = (&relay, &reads, &over);
        // Nothing is left running by a failed assertion.
        let _ending = Ending([&relay.over, &reads.over, over]);
        scope.spawn(|| relay.run(first));
        scope.spawn(move || carry_group(group, CLIENT.parse().unwrap(), 40, over));
        scope.spawn(move || carry_datagrams(way(OWN_REQUESTS, OWN_REQUESTS), 50, over));
        scope.spawn(move || carry_connections(way(OWN_SNAPSHOTS, OWN_SNAPSHOTS), over));
        scope.spawn(|| reads.run(second, truth));
        let venue = Venue::start(first, MESSAGES, 500, 600_000);
        let regions = [first, second].map(|node| node.attach().unwrap());
        let messages = || sum(&regions[1], table::FEED_MESSAGES);
        let loaded =
            |node: usize| sum(&regions[node], table::FEED_RECOVERY.of(Recovery::SnapshotsLoaded));
        wait_until("the second node is on its way", PATIENCE, || messages() > 8_000);
        assert_eq!(loaded(1), 0, "until here by requests");
        let victims: [(&str, &Supervised, bool); 4] = [
            ("the second's worker", second, true),
            ("the first's front", first, false),
            ("the first's worker", first, true),
            ("the second's front and worker", second, true),
        ];
        for (place, (what, node, kills_worker)) in victims.into_iter().enumerate() {
            println!("killing {what} behind {} messages", messages());
            let before = loaded(1);
            if place % 2 == 1 {
                Supervised::kill_worker(front_of(node));
            }
            if kills_worker {
                Supervised::kill_worker(node.active().unwrap() as i32);
                wait_until("a snapshot is loaded", PATIENCE, || loaded(1) > before);
                node.await_workers(1);
            }
            std::thread::sleep(Duration::from_millis(700));
        }
        let client = cache_client(second);
        wait_until("every price of the second node is the venue's last", PATIENCE, || {
            truth.symbols().into_iter().all(|symbol| {
                let last = truth.last(symbol);
                last == Bbo::default()
                    || get(&client, symbol).is_some_and(|record| record.bbo == last)
            })
        });
        drop(venue);
    });
    let regions = [&first, &second].map(|node| node.attach().unwrap());
    let answered = sum(&regions[0], table::FEED_REQUESTS.of(RequestEnd::Answered));
    let served = regions[0]
        .metrics(FRONT_PROCESS)
        .counter(table::FRONT_SERVED_SNAPSHOTS.of(ServedSnapshot::Sent));
    let recovered = sum(&regions[1], table::FEED_RECOVERED_MESSAGES);
    let (believed, wrong) =
        (reads.believed.load(Ordering::Relaxed), reads.wrong.load(Ordering::Relaxed));
    println!(
        "{believed} prices believed, {wrong} wrong; {answered} requests answered and {served} \
         snapshots served by the first node, {recovered} messages recovered by the second"
    );
    assert_eq!(wrong, 0);
    assert!(believed > 1_000 && answered > 50 && recovered > 200 && served >= 3);
    for node in [&mut first, &mut second] {
        node.stop();
    }
}

/// Sets them all when it goes.
struct Ending<'a>([&'a AtomicBool; 3]);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|over| over.store(true, Ordering::Relaxed));
    }
}
