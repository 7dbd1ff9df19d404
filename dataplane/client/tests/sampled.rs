//! What only readers read is not evicted as unused: they tell the worker of a sample of their hits.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nautilus_client::{CacheReader, Read};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::WORKERS_MAX;
use nautilus_shm::metrics::labels::HitPath;
use nautilus_shm::metrics::table::{CACHE_HITS, CACHE_SAMPLED_HITS};
use nautilus_tests::lab::node_file::{CACHE_ID, CACHE_PORT};
use nautilus_tests::lab::{Folder, Lab, RunId, attach};
use nautilus_tests::wait::wait_until;
use support::{CACHE, Host};

const VALUE: &[u8] = b"a value of one cell, with its key";
const KEYS: usize = 100;

fn key(group: &str, number: usize) -> String {
    format!("{group}:{number:010}")
}

fn left(reader: &mut CacheReader, group: &str) -> usize {
    let mut out = [0; 64];
    (0..KEYS).filter(|&number| reader.get(key(group, number).as_bytes(), &mut out).is_ok()).count()
}

/// How many of a hundred keys outlive a storm of writes beside which a reader reads them, by whether the
/// worker does what it does between bursts.
fn outlive(folds: bool, mut read: impl FnMut(&mut CacheReader)) -> usize {
    let mut host = Host::start(1);
    for number in 0..KEYS {
        host.put(key("read", number).as_bytes(), VALUE);
    }
    let mut reader = CacheReader::attach(host.run_dir(), CACHE).unwrap();
    for number in 0..30_000 {
        if number % 50 == 0 {
            read(&mut reader);
            // Windows of samples are of time.
            std::thread::sleep(Duration::from_micros(100));
            if folds {
                host.table.fold_sampled(monotonic_ns());
            }
        }
        host.put(key("storm", number).as_bytes(), VALUE);
    }
    left(&mut reader, "read")
}

#[test]
fn keys_that_only_a_reader_reads_outlive_a_storm_of_writes() {
    let mut next = 0;
    let mut one_by_one = |reader: &mut CacheReader| {
        for _ in 0..10 {
            next = (next + 1) % KEYS;
            let _ = reader.get(key("read", next).as_bytes(), &mut [0; 64]);
        }
    };
    let told = outlive(true, &mut one_by_one);
    assert!(told >= 95, "{told} of {KEYS} are left");
    let untold = outlive(false, &mut one_by_one);
    assert!(untold <= 5, "{untold} of {KEYS} are left though nobody listened");
    let told = outlive(true, |reader| {
        let keys: Vec<String> = (0..KEYS).map(|number| key("read", number)).collect();
        let mut outs = [[0; 64]; KEYS];
        let mut reads: Vec<Read<'_>> =
            keys.iter().zip(&mut outs).map(|(key, out)| Read::new(key.as_bytes(), out)).collect();
        reader.get_many(&mut reads);
    });
    assert!(told >= 95, "{told} of {KEYS} are left, read together");
}

/// A memcached client over TCP: its reads are executed by the front.
struct Tcp(TcpStream);

impl Tcp {
    fn ask(&mut self, text: &[u8], end: &[u8]) -> String {
        self.0.write_all(text).unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while !heard.ends_with(end) {
            let bytes = self.0.read(&mut buffer).unwrap();
            assert!(bytes > 0, "closed after {:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&buffer[..bytes]);
        }
        String::from_utf8(heard).unwrap()
    }

    fn set_all(&mut self, group: &str, count: usize) {
        let mut text = Vec::new();
        for number in 0..count {
            let silent = if number + 1 == count { "" } else { " noreply" };
            let line = format!("set {} 0 0 {}{silent}\r\n", key(group, number), VALUE.len());
            text.extend([line.as_bytes(), VALUE, b"\r\n"].concat());
        }
        self.ask(&text, b"STORED\r\n");
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_node_keeps_what_its_front_and_its_readers_read() {
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    let lab = Lab::start(folder, run, 1, |_, _, file| {
        file.cache_memory_mb = 8;
        Ok(())
    })
    .unwrap();
    let node = &lab.nodes()[0];
    let server = SocketAddr::new(node.member.address.v4().into(), CACHE_PORT);
    let mut stream = None;
    wait_until("the front listens", Duration::from_secs(20), || {
        stream = lab.client().namespace.run(|| TcpStream::connect(server)).ok();
        stream.is_some()
    })
    .unwrap();
    let mut tcp = Tcp(stream.unwrap());
    let mut reader = CacheReader::attach(&node.run_dir, CACHE_ID).unwrap();
    for group in ["reader", "front", "nobody"] {
        tcp.set_all(group, KEYS);
    }
    let region = attach(&node.run_dir).unwrap();
    let count = |counter: nautilus_shm::metrics::Counter| -> u64 {
        (0..WORKERS_MAX).map(|worker| region.cache_metrics(worker, 0).counter(counter)).sum()
    };
    let told = |path| count(CACHE_SAMPLED_HITS.of(path));
    // Of a hundred keys in a random order of telling, none is left out of twenty times as many.
    let (from_reader, from_front) = (told(HitPath::Reader), told(HitPath::Front));
    let of_worker = count(CACHE_HITS);
    wait_until("the worker was told", Duration::from_secs(30), || {
        assert_eq!(left(&mut reader, "reader"), KEYS);
        for number in 0..KEYS {
            tcp.ask(format!("get {}\r\n", key("front", number)).as_bytes(), b"END\r\n");
        }
        told(HitPath::Reader) - from_reader > 2_000 && told(HitPath::Front) - from_front > 2_000
    })
    .unwrap();
    assert_eq!(count(CACHE_HITS), of_worker, "the worker executed none of these reads");
    tcp.set_all("storm", 200_000);
    let left = ["reader", "front", "nobody"].map(|group| left(&mut reader, group));
    println!("left of {KEYS} read by a reader, by the front, by nobody: {left:?}");
    assert!(left[0] >= 95 && left[1] >= 95 && left[2] <= 5, "{left:?}");
    let stats = tcp.ask(b"stats\r\n", b"END\r\n");
    let stat = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {stats}")).to_owned()
    };
    assert!(stat("sampled_hits_front").parse::<u64>().unwrap() > 2_000);
    assert!(stat("sampled_hits_reader").parse::<u64>().unwrap() > 2_000);
    assert_eq!(stat("get_hits_without"), "readers");
    let of_front: u64 = stat("get_hits_front").parse().unwrap();
    let all: u64 = stat("get_hits").parse().unwrap();
    assert!((2_000..=all).contains(&of_front), "{of_front} of {all} by the front");
}
