//! What one cache suffers while another one is flooded with `stats`, values of 1 MiB and junk: prints its
//! latencies without, with, and while the same flood goes to a memcached beside the node, and holds every
//! answer and every memory limit. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nautilus_shm::attach::{Code, create_request};
use nautilus_shm::control_region::{FRONT_PROCESS, PROCESSES_MAX};
use nautilus_shm::metrics::table;

use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, privileged, wait_until};
use tcp::Client;

const FLOODED_PORT: u16 = 11_300;
const KEYS: usize = 500;
const RUN: Duration = Duration::from_secs(4);

/// No answer takes longer, whatever the other cache is asked; two busy cores and a debug build are slow.
const LONGEST: Duration = Duration::from_secs(1);

/// MiB that a worker or a front may hold beside the caches' tables and the connections' buffers.
const OTHER_MB: u64 = 160;

const NODE: &str = "[front]\nmax_buffer_mb = 16\n[port]\nframes = 1024\n\
                    [[cache]]\nid = \"quotes\"\nmax_memory_mb = 16\n";

fn over_udp(node: &Supervised, port: u16) -> UdpSocket {
    let socket = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    socket.connect((SERVER, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

fn over_tcp(node: &Supervised, port: u16) -> Client {
    Client::connect(&node.client_ns, SocketAddr::new(SERVER.parse().unwrap(), port)).unwrap()
}

fn value(key: usize) -> String {
    format!("value of {key}")
}

fn item(key: usize) -> String {
    let value = value(key);
    format!("VALUE key{key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}

/// Latencies of reads and changes over UDP, and of reads over TCP; every answer has to be the right one.
fn measure(node: &Supervised, what: &str) -> Vec<Duration> {
    let (udp, mut tcp) = (over_udp(node, CACHE_PORT), over_tcp(node, CACHE_PORT));
    let mut taken = Vec::new();
    let end = Instant::now() + RUN;
    for key in (0..KEYS).cycle() {
        let get = format!("get key{key}\r\n");
        let began = Instant::now();
        match key % 4 {
            0 => tcp.ask(get.as_bytes(), item(key).as_bytes()),
            1 => {
                let set = format!("set key{key} 0 0 {}\r\n{}\r\n", value(key).len(), value(key));
                assert_eq!(ask(&udp, &set), "STORED\r\n");
            }
            _ => assert_eq!(ask(&udp, &get), item(key)),
        }
        taken.push(began.elapsed());
        if Instant::now() > end {
            break;
        }
    }
    taken.sort_unstable();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} asked, p50 {:?}, p99 {:?}, max {:?}",
        taken.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    taken
}

/// Resident memory of a process in MiB, without what it shares.
fn own_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

fn front_pid(node: &Supervised) -> Option<u32> {
    let status = node.status()?;
    let line = status.lines().find(|line| line.starts_with("front "))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Asks until told to stop; counts what was asked.
fn flood(
    (stop, count): &(Arc<AtomicBool>, Arc<AtomicU64>),
    mut ask: impl FnMut(u64) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let (stop, count) = (stop.clone(), count.clone());
    std::thread::spawn(move || {
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            ask(round);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// `stats`, values of 1 MiB and junk, from three clients.
struct Flood {
    shared: (Arc<AtomicBool>, Arc<AtomicU64>),
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(node: &Supervised, port: u16) -> Self {
        let shared = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut threads = Vec::new();
        let stats = over_udp(node, port);
        stats.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
        threads.push(flood(&shared, move |_| {
            let _ = stats.send(b"\0\x01\0\0\0\x01\0\0stats\r\n");
            let _ = stats.recv(&mut [0; 1500]);
        }));
        let mut large = over_tcp(node, port);
        threads.push(flood(&shared, move |round| {
            let head = format!("set large{} 0 0 1048575\r\n", round % 64);
            large.send(head.as_bytes());
            large.send(&vec![b'v'; 1_048_575]);
            large.ask(b"\r\n", b"STORED\r\n");
        }));
        let namespace = node.client_ns.clone();
        let server = SocketAddr::new(SERVER.parse().unwrap(), port);
        let junk = over_udp(node, port);
        threads.push(flood(&shared, move |round| {
            let bytes: Vec<u8> =
                (0..1400u64).map(|at| ((at * 131 + round * 7919) >> 3) as u8).collect();
            let _ = junk.send(&bytes);
            if round % 64 == 0
                && let Ok(mut client) = Client::connect(&namespace, server)
            {
                // It may be closed in the middle of it.
                let _ = client.0.write_all(&bytes.repeat(200));
                let _ = client.0.set_read_timeout(Some(Duration::from_millis(1)));
                let _ = client.0.read(&mut [0; 4096]);
            }
            std::thread::sleep(Duration::from_micros(200));
        }));
        Self { shared, threads }
    }

    /// How much there was of it.
    fn stop(self) -> u64 {
        self.shared.0.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.shared.1.load(Ordering::Relaxed)
    }
}

/// In the node's namespace, on the kernel's path.
struct Memcached(Child);

impl Memcached {
    /// `None` when it is not installed.
    fn start(node: &Supervised, port: u16) -> Option<Self> {
        let port_text = port.to_string();
        Command::new("memcached").arg("-V").stdout(Stdio::null()).status().ok()?;
        let process = Command::new("ip")
            .args(["netns", "exec", &node.server_ns, "memcached", "-u", "nobody", "-t", "1"])
            .args(["-m", "64", "-I", "2m", "-l", SERVER, "-p", &port_text, "-U", &port_text])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let this = Self(process.unwrap());
        wait_until("memcached", Duration::from_secs(10), || {
            let server = SocketAddr::new(SERVER.parse().unwrap(), port);
            Client::connect(&node.client_ns, server).is_ok()
        });
        Some(this)
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_flooded_cache_changes_no_answer_of_another() {
    if !privileged("a_flooded_cache_changes_no_answer_of_another") {
        return;
    }
    let mut node = Supervised::new(NODE);
    node.start();
    wait_until("a front", Duration::from_secs(10), || front_pid(&node).is_some());
    let client = over_udp(&node, CACHE_PORT);
    for key in 0..KEYS {
        let set = format!("set key{key} 0 0 {}\r\n{}\r\n", value(key).len(), value(key));
        assert_eq!(ask(&client, &set), "STORED\r\n");
    }
    measure(&node, "alone");

    // The same flood at a server of its own: what two busy cores cost anybody.
    if let Some(_memcached) = Memcached::start(&node, FLOODED_PORT) {
        let flood = Flood::start(&node, FLOODED_PORT);
        measure(&node, "beside the flood of a memcached");
        println!("{} of the flood", flood.stop());
    } else {
        println!("memcached is not installed (apt-get install memcached): nothing to compare with");
    }

    let section = format!("id = \"flooded\"\nport = {FLOODED_PORT}\nmax_memory_mb = 16\n");
    let (code, said) = node.request(&create_request(&section));
    assert_eq!(code, Code::Ok, "{said}");
    let flood = Flood::start(&node, FLOODED_PORT);
    let taken = measure(&node, "beside the flood of another cache");
    let flooded = flood.stop();

    let longest = taken.last().copied().unwrap_or_default();
    assert!(longest < LONGEST, "{longest:?}");
    assert!(flooded > 1000, "{flooded}: hardly a flood");
    // What the other one did took nothing of this one away, and each kept to its limit.
    for key in 0..KEYS {
        assert_eq!(ask(&client, &format!("get key{key}\r\n")), item(key));
    }
    std::thread::sleep(Duration::from_millis(200));
    let region = node.attach().unwrap();
    let evicted = |place| -> u64 {
        let of = |process| region.cache_metrics(process, place).counter(table::CACHE_EVICTIONS);
        (0..PROCESSES_MAX).map(of).sum()
    };
    assert_eq!(evicted(0), 0);
    assert!(evicted(1) > 0, "the flood never filled its own cache");
    let held_mb = region.metrics(FRONT_PROCESS).gauge(table::FRONT_HELD_BYTES) >> 20;
    let (worker, front) = (own_mb(node.active().unwrap()), own_mb(front_pid(&node).unwrap()));
    println!(
        "{flooded} of the flood; worker {worker} MiB, front {front} MiB, buffers {held_mb} MiB"
    );
    assert!(held_mb <= 16 && worker <= OTHER_MB && front <= 16 + OTHER_MB);
    node.stop();
}
