//! A node of two workers behind two queues: whatever worker a request comes to, it is answered; whichever
//! of them dies, nothing acknowledged is lost. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nautilus_shm::control_region::{ControlReader, HistogramId, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::{Counter, table};

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, ip, privileged, wait_until};
use tcp::Client;

const EXTRA: &str = "queues = [0, 1]\n[worker]\ncount = 2\n[port]\nframes = 1024\n\
                     [cache]\nid = \"q\"\nmax_memory_mb = 64\n";
const PATIENCE: Duration = Duration::from_secs(20);

fn node() -> Supervised {
    let node = Supervised::new(EXTRA);
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    node
}

fn start(node: &mut Supervised) {
    node.start();
    node.await_workers(2);
}

fn cache_client(node: &Supervised) -> UdpSocket {
    let client = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    client.connect((SERVER, CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client
}

fn sum(region: &ControlReader, counter: Counter) -> u64 {
    (0..WORKERS_MAX).map(|slot| region.metrics(slot).counter(counter)).sum()
}

fn server() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), CACHE_PORT)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn every_flow_reaches_every_key() {
    if !privileged("every_flow_reaches_every_key") {
        return;
    }
    let mut node = node();
    start(&mut node);
    let flows: Vec<UdpSocket> = (0..16).map(|_| cache_client(&node)).collect();
    let mut tcp = Client::connect(&node.client_ns, server()).unwrap();
    for (number, flow) in flows.iter().enumerate() {
        for key in 0..8 {
            let text = format!("set k{key} {number} 0 2\r\n{number:02}\r\n");
            assert_eq!(ask(flow, &text), "STORED\r\n");
            let value = format!("VALUE k{key} {number} 2\r\n{number:02}\r\nEND\r\n");
            let other = &flows[(number + key) % flows.len()];
            assert_eq!(ask(other, &format!("get k{key}\r\n")), value);
            tcp.ask(format!("get k{key}\r\n").as_bytes(), value.as_bytes());
        }
    }
    // Pipelined over TCP: keys of both workers, answered in the order of the commands.
    let (mut commands, mut answers) = (String::new(), String::new());
    for key in 0..200 {
        commands += &format!("set p{key} 0 0 3\r\n{key:03}\r\nincr p{key} 5\r\n");
        answers += &format!("STORED\r\n{}\r\n", key + 5);
    }
    tcp.ask(commands.as_bytes(), answers.as_bytes());
    for (key, flow) in (0..200).zip(flows.iter().cycle()) {
        let value = ask(flow, &format!("get p{key} p{}\r\n", (key + 1) % 200));
        assert_eq!(value.matches("VALUE").count(), 2, "{value}");
    }
    let region = node.attach().unwrap();
    // Workers publish every 10 ms.
    std::thread::sleep(Duration::from_millis(50));
    let [sent, taken, dropped] = [table::SENT_ON, table::TAKEN_ON, table::SENT_ON_DROPPED]
        .map(|counter| sum(&region, counter));
    println!("sent on {sent}, taken on {taken}, dropped {dropped}");
    assert!(sent >= 40, "about half of 128 changes, and as many answers: {sent}");
    assert_eq!((taken, dropped), (sent, 0));
    assert_eq!(ask(&flows[0], "flush_all\r\n"), "OK\r\n");
    for (key, flow) in (0..8).zip(&flows) {
        assert_eq!(ask(flow, &format!("get k{key}\r\n")), "END\r\n");
    }
    node.stop();
}

/// The number behind a name in `stats`, as a flow is told.
fn stat(flow: &UdpSocket, name: &str) -> u64 {
    let said = ask(flow, "stats\r\n");
    let value = said.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {said}"))
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn every_flow_is_told_what_the_whole_cache_counted() {
    if !privileged("every_flow_is_told_what_the_whole_cache_counted") {
        return;
    }
    const KEYS: u64 = 40;
    let mut node = node();
    start(&mut node);
    let flows: Vec<UdpSocket> = (0..8).map(|_| cache_client(&node)).collect();
    let mut tcp = Client::connect(&node.client_ns, server()).unwrap();
    let mut gets = 0;
    let names: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    let values: String = names.iter().map(|name| format!("VALUE {name} 0 1\r\nv\r\n")).collect();
    for round in 1..=3 {
        for (name, flow) in names.iter().zip(flows.iter().cycle()) {
            assert_eq!(ask(flow, &format!("set {name} 0 0 1\r\nv\r\n")), "STORED\r\n");
            assert_eq!(ask(flow, &format!("get {name}\r\n")).matches("VALUE").count(), 1);
            assert_eq!(ask(flow, "get none\r\n"), "END\r\n");
        }
        // By the front: reads of its own, and one command of keys of both workers.
        let all = format!("{values}END\r\n");
        tcp.ask(format!("get {}\r\n", names.join(" ")).as_bytes(), all.as_bytes());
        tcp.ask(format!("gat 1000 {}\r\n", names.join(" ")).as_bytes(), all.as_bytes());
        gets += 4 * KEYS;
        let shows = |flow: &UdpSocket| {
            [("cmd_set", round * KEYS), ("total_items", round * KEYS), ("cmd_gat", round * KEYS)]
                .into_iter()
                .chain([("touch_hits", round * KEYS), ("get_hits", gets - round * KEYS)])
                .chain([("get_misses", round * KEYS), ("curr_items", KEYS), ("threads", 2)])
                .all(|(name, value)| stat(flow, name) == value)
        };
        wait_until("what every process counted is shown to everybody", PATIENCE, || {
            flows.iter().all(shows)
        });
        // The figures outlast who counted.
        Supervised::kill_worker(node.serving()[round as usize % 2]);
        node.await_workers(2);
        for flow in &flows {
            wait_until("they go on", PATIENCE, || shows(flow));
        }
    }
    assert_eq!(ask(&flows[0], "stats reset\r\n"), "RESET\r\n");
    for flow in &flows {
        assert_eq!([stat(flow, "cmd_set"), stat(flow, "get_hits")], [0, 0]);
        assert_eq!(stat(flow, "curr_items"), KEYS);
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_worker_without_a_queue_serves_its_keys() {
    if !privileged("a_worker_without_a_queue_serves_its_keys") {
        return;
    }
    let mut node = Supervised::new(&EXTRA.replace("queues = [0, 1]\n", ""));
    start(&mut node);
    let flow = cache_client(&node);
    for round in 0..2 {
        for key in 0..40 {
            assert_eq!(ask(&flow, &format!("set k{key} 0 0 1\r\n{round}\r\n")), "STORED\r\n");
            let value = format!("VALUE k{key} 0 1\r\n{round}\r\nEND\r\n");
            assert_eq!(ask(&flow, &format!("get k{key}\r\n")), value);
        }
        Supervised::kill_worker(node.serving()[1 - round]);
        node.await_workers(2);
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn both_workers_outlive_their_supervisor_and_are_taken_back() {
    if !privileged("both_workers_outlive_their_supervisor_and_are_taken_back") {
        return;
    }
    let mut node = node();
    start(&mut node);
    let flows: Vec<UdpSocket> = (0..8).map(|_| cache_client(&node)).collect();
    let all = |what: &str, value: usize| {
        for (number, flow) in flows.iter().enumerate() {
            let expected = format!("VALUE k{number} 0 1\r\n{value}\r\nEND\r\n");
            assert_eq!(ask(flow, &format!("get k{number}\r\n")), expected, "{what}");
        }
    };
    let set = |value: usize| {
        for (number, flow) in flows.iter().rev().enumerate() {
            assert_eq!(ask(flow, &format!("set k{number} 0 0 1\r\n{value}\r\n")), "STORED\r\n");
        }
    };
    set(1);
    let before = node.serving();
    let sockets = node.shared_sockets();
    node.kill_supervisor();
    all("no supervisor", 1);
    set(2);
    start(&mut node);
    assert_eq!(node.serving(), before, "the same workers");
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    all("a new supervisor", 2);

    // One of them dies while there is no supervisor: the other one holds its sockets.
    node.kill_supervisor();
    Supervised::kill_worker(before[1]);
    wait_until("the worker is gone", PATIENCE, || {
        !std::path::Path::new(&format!("/proc/{}/exe", before[1])).exists()
    });
    start(&mut node);
    assert_eq!(node.serving()[0], before[0]);
    assert_eq!(node.shared_sockets(), sockets, "no rebind");
    all("one worker was new", 2);
    set(3);
    for worker in [0, 1] {
        Supervised::kill_worker(node.serving()[worker]);
        all("a worker was killed", 3);
        node.await_workers(2);
    }
    node.stop();
}

/// The key of the best bid/offer of a stock of the generator, below 26.
fn bbo(venue: &str, symbol: u8) -> String {
    format!("md:{venue}:ZAA{}:bbo", char::from(b'A' + symbol))
}

/// Messages of a replay.
const MESSAGES: u64 = 4000;

/// A replay of the seeded generator that goes on with heartbeats until it is dropped.
struct Replay(std::process::Child);

impl Replay {
    fn start(node: &Supervised, port: u16) -> Self {
        let port = port.to_string();
        let child = std::process::Command::new("ip")
            .args(["netns", "exec", &node.client_ns, env!("CARGO_BIN_EXE_nautilus-replay")])
            .args(["--generate", "--seed", "7", "--symbols", "4"])
            .args(["--messages", &MESSAGES.to_string()])
            .args(["--pace", "20000/s", "--no-end", "--heartbeat-ms", "50", "--max-seconds", "60"])
            .args(["--interface", "c0", "--port", &port])
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A feed's packets come to one queue, whoever owns its keys: they reach the owner, and every worker reads
/// what it publishes, or nothing once the owner is dead.
#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_feed_is_applied_by_its_owner_whatever_queue_it_comes_to() {
    if !privileged("a_feed_is_applied_by_its_owner_whatever_queue_it_comes_to") {
        return;
    }
    let venues = [("nasdaq", 26_477), ("psx", 26_478), ("bx", 26_479), ("itch", 26_480)];
    let feeds: String = (1..)
        .zip(venues)
        .map(|(channel, (venue, port))| {
            format!(
                "[[feed]]\nvenue = \"{venue}\"\ngroup = \"233.54.12.111\"\nport = {port}\n\
                 channel = {channel}\nmax_orders = 16384\n"
            )
        })
        .collect();
    let mut node = Supervised::new(&format!("{EXTRA}{feeds}"));
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    start(&mut node);
    let flows: Vec<UdpSocket> = (0..8).map(|_| cache_client(&node)).collect();
    let keys: Vec<String> =
        venues.iter().flat_map(|(venue, _)| (0..4).map(move |symbol| bbo(venue, symbol))).collect();
    // Every flow has the same answer, and it is a value.
    let all_read = || {
        keys.iter().all(|key| {
            let get = format!("get {key}\r\n");
            let answers: Vec<String> = flows.iter().map(|flow| ask(flow, &get)).collect();
            answers[0].starts_with("VALUE") && answers.iter().all(|answer| *answer == answers[0])
        })
    };
    let replay =
        || -> Vec<Replay> { venues.iter().map(|(_, port)| Replay::start(&node, *port)).collect() };
    let region = node.attach().unwrap();
    let mut replays = Vec::new();
    // The kernel chooses the queue of each flow; a replay is a new one, and a new session.
    let sent = (0..20).find_map(|_| {
        // To the last message: what comes after its owner's death would be read again.
        let all = sum(&region, table::FEED_MESSAGES) + venues.len() as u64 * MESSAGES;
        replays = replay();
        wait_until("every message is applied", PATIENCE, || {
            sum(&region, table::FEED_MESSAGES) >= all
        });
        wait_until("every venue is read by every flow", PATIENCE, all_read);
        Some(sum(&region, table::SENT_ON)).filter(|sent| *sent > 50)
    });
    println!("sent on {sent:?}, taken on {}", sum(&region, table::TAKEN_ON));
    assert!(sent.is_some(), "80 flows came to the queues of their feeds' owners");

    // The books died with their owners: nothing of before is read, by any worker.
    for pid in node.serving() {
        Supervised::kill_worker(pid);
    }
    node.await_workers(2);
    for (flow, key) in flows.iter().cycle().zip(&keys) {
        assert_eq!(
            ask(flow, &format!("get {key}\r\n")),
            "END\r\n",
            "{key} after its owner's death"
        );
    }
    drop(replays);
    let replays = replay();
    wait_until("new sessions are read by every flow", PATIENCE, all_read);
    drop(replays);
    node.stop();
}

/// What is known of a key that one client writes.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    newest: u64,
}

/// One client, over UDP or TCP: writes rising numbers under keys of its own and reads them. A value must be
/// the last acknowledged one, or one whose outcome is unknown that is newer.
fn client(node: &Supervised, name: usize, stop: &AtomicBool, rounds: &AtomicU64) -> Duration {
    let udp = cache_client(node);
    udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut tcp: Option<Client> = None;
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut longest = Duration::ZERO;
    let mut number = 0;
    let mut id = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("c{name}k{}", number % 6);
        let entry = known.entry(key.clone()).or_default();
        entry.newest = number;
        let begin = Instant::now();
        let mut over_udp = |text: &str| -> Option<String> {
            id = id.wrapping_add(1);
            let request = [&id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0], text.as_bytes()].concat();
            udp.send(&request).ok()?;
            let mut reply = [0; 1500];
            while let Ok(length) = udp.recv(&mut reply) {
                if reply[..2] == id.to_be_bytes() {
                    return Some(String::from_utf8_lossy(&reply[8..length]).into_owned());
                }
            }
            None
        };
        let set = format!("set {key} 0 0 8\r\n{number:08}\r\n");
        let said = match name % 2 {
            0 => over_udp(&set),
            _ => over_tcp(node, &mut tcp, &set, 1),
        };
        match said.as_deref() {
            Some("STORED\r\n") => entry.acknowledged = number,
            Some(other) if other.starts_with("SERVER_ERROR outcome unknown") => {}
            None => {}
            Some(other) => panic!("{key}: {other:?} to a set"),
        }
        let get = format!("get {key}\r\n");
        let said = match number % 2 {
            0 => over_udp(&get),
            _ => over_tcp(node, &mut tcp, &get, 3),
        };
        longest = longest.max(begin.elapsed());
        let Some(said) = said else { continue };
        if said.starts_with("SERVER_ERROR outcome unknown") {
            continue;
        }
        let value = said.lines().nth(1).and_then(|line| line.parse::<u64>().ok());
        let Some(value) = value else {
            assert_eq!(entry.acknowledged, 0, "{key}: {said:?}, {entry:?} is lost");
            continue;
        };
        assert!(
            (entry.acknowledged..=entry.newest).contains(&value),
            "{key}: read {value}, known {entry:?}"
        );
        entry.acknowledged = value;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

/// The answer to one command, of at most so many lines; `None` when the connection broke.
fn over_tcp(
    node: &Supervised,
    tcp: &mut Option<Client>,
    text: &str,
    lines: usize,
) -> Option<String> {
    use std::io::Write;
    if tcp.is_none() {
        *tcp = Client::connect(&node.client_ns, server()).ok();
    }
    let connection = tcp.as_mut()?;
    let mut answer = String::new();
    let mut read = || -> Option<()> {
        connection.0.write_all(text.as_bytes()).ok()?;
        for _ in 0..lines {
            let line = connection.line().ok()??;
            let is_last = line == "END" || line.starts_with("SERVER_ERROR");
            answer += &line;
            answer += "\r\n";
            if is_last {
                break;
            }
        }
        Some(())
    };
    if read().is_none() {
        *tcp = None;
        return None;
    }
    Some(answer)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn workers_are_killed_in_turn_and_nothing_acknowledged_is_lost() {
    if !privileged("workers_are_killed_in_turn_and_nothing_acknowledged_is_lost") {
        return;
    }
    let long = std::env::var("NAUTILUS_LONG").is_ok_and(|long| long == "1");
    let kills = std::env::var("NAUTILUS_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: usize = kills.unwrap_or(if long { 1_000 } else { 30 });
    let mut node = node();
    start(&mut node);
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|name| {
                let (node, stop, rounds) = (&node, stop.clone(), &rounds);
                scope.spawn(move || client(node, name, &stop, rounds))
            })
            .collect();
        for number in 0..kills {
            let before = rounds.load(Ordering::Relaxed);
            let victims = node.serving();
            match number % 5 {
                4 => victims.iter().for_each(|pid| Supervised::kill_worker(*pid)),
                _ => Supervised::kill_worker(victims[number % 2]),
            }
            node.await_workers(2);
            wait_until("clients go on", PATIENCE, || {
                rounds.load(Ordering::Relaxed) > before + 20
                    || clients.iter().any(std::thread::ScopedJoinHandle::is_finished)
            });
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let longest = client.join().unwrap();
            println!("longest write and read of a client: {longest:?}");
        }
    });
    let region = node.attach().unwrap();
    let gaps = region.histogram(SUPERVISOR_PROCESS, HistogramId::PromotionGap);
    println!(
        "{kills} kills, {} rounds; gap of {} promotions: p50 {} us, p99 {} us, max {} us",
        rounds.load(Ordering::Relaxed),
        gaps.count(),
        gaps.quantile(0.5) / 1_000,
        gaps.quantile(0.99) / 1_000,
        gaps.max() / 1_000
    );
    assert!(gaps.count() as usize >= kills, "each kill was a promotion");
    node.stop();
}
