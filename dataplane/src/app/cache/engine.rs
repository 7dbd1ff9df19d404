//! The cache without a network: frames in memory through the worker's own parsing, checksums,
//! application and frame building. What scoreboard row A6 measures.

use std::time::{Duration, Instant};

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::clock;
use nautilus_shm::table::{Mutation, Op, TableWriter, Words};

use super::CacheApp;
use crate::app::App;
use crate::limits::{BURST_DATAGRAMS_MAX, REPLY_PAYLOAD_BYTES_MAX};
use crate::memcached::FrameHeader;
use crate::memcached::reply::text_sum;
use crate::net::build::{self, LinkAddress};
use crate::net::{Endpoint, parse};
use crate::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};

const CLIENT: Endpoint = Endpoint::v4([198, 18, 0, 2], 40_000);
const SERVER: Endpoint = Endpoint::v4([198, 18, 0, 1], 11_211);
const LINK: LinkAddress =
    LinkAddress { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2], vlans: [0, 0] };
const HEADERS_BYTES: usize = 42;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineReport {
    /// Requests answered with a value.
    pub hits_count: u64,
    /// Requests made.
    pub requests_count: u64,
    /// Frames that the parser discarded; 0 unless something is broken.
    pub discarded_count: u64,
    /// Time in parse, checksum, lookup and reply.
    pub elapsed: Duration,
}

/// Received frames, parsed.
struct Frames<'a> {
    frames: &'a [Vec<u8>],
    parsed: [Option<parse::Parsed>; BURST_DATAGRAMS_MAX],
}

impl Burst for Frames<'_> {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        let Some(parsed) = self.parsed[index] else {
            return Datagram {
                source: CLIENT,
                destination: SERVER,
                link: Link::default(),
                rx_ns: 0,
                permissions: Some(Permissions::ALL),
                payload: &[],
            };
        };
        let payload = &self.frames[index][usize::from(parsed.payload_offset)..]
            [..usize::from(parsed.payload_bytes)];
        let link = Link { interface: 0, vlans: parsed.vlans };
        let (source, destination) = (parsed.source, parsed.destination);
        let permissions = Some(Permissions::ALL);
        Datagram { source, destination, link, rx_ns: 0, permissions, payload }
    }
}

/// A ring of transmit frames, overwritten in turn.
struct FrameRing {
    frames: Vec<[u8; 2048]>,
    next: usize,
    values: u64,
}

impl FrameRing {
    fn new() -> Self {
        Self { frames: vec![[0; 2048]; 4 * BURST_DATAGRAMS_MAX], next: 0, values: 0 }
    }
}

impl Transmit for FrameRing {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let frame = &mut self.frames[self.next];
        let payload = &mut frame[HEADERS_BYTES..HEADERS_BYTES + REPLY_PAYLOAD_BYTES_MAX];
        let Filled { bytes, sum } = write(payload).into();
        self.values += u64::from(payload[8] == b'V');
        let frame = &mut frame[..HEADERS_BYTES + bytes];
        match sum {
            Some(sum) => build::headers_summed(frame, &LINK, &path.from, &path.to, sum),
            None => build::headers(frame, &LINK, &path.from, &path.to),
        }
        self.next = (self.next + 1) % self.frames.len();
        Ok(())
    }
}

/// Fills a table with `keys` keys and answers `bursts` bursts of 32 `get` requests for uniformly
/// random ones. The requests of all bursts are made before the clock starts.
///
/// # Panics
/// When the table does not hold 99.9 % of the keys.
pub fn run<W: Words>(
    table: TableWriter<W>,
    keys: u64,
    value_bytes: usize,
    bursts: usize,
    seed: u64,
) -> EngineReport {
    run_after(Duration::ZERO, table, (keys, value_bytes), bursts, seed)
}

/// The same when the keys were stored so long ago and not asked for since.
fn run_after<W: Words>(
    idle: Duration,
    mut table: TableWriter<W>,
    (keys, value_bytes): (u64, usize),
    bursts: usize,
    seed: u64,
) -> EngineReport {
    fill(&mut table, keys, value_bytes, idle);
    let requests = requests(keys, bursts, seed);
    let mut app = CacheApp::new(table, 0);
    let mut ring = FrameRing::new();
    let mut report = EngineReport::default();
    let start = Instant::now();
    for frames in requests.chunks_exact(BURST_DATAGRAMS_MAX) {
        let mut burst = Frames { frames, parsed: [None; BURST_DATAGRAMS_MAX] };
        for (frame, parsed) in frames.iter().zip(&mut burst.parsed) {
            *parsed = parse::parse(frame, parse::RxChecksum::Verify).ok();
            report.discarded_count += u64::from(parsed.is_none());
        }
        app.handle(clock::monotonic_ns(), &burst, &mut ring);
    }
    report.elapsed = start.elapsed();
    report.requests_count = requests.len() as u64;
    report.hits_count = ring.values;
    report
}

fn key_of(number: u64) -> String {
    format!("key:{number:012}")
}

fn fill<W: Words>(table: &mut TableWriter<W>, keys: u64, value_bytes: usize, idle: Duration) {
    let value = vec![b'v'; value_bytes];
    let now_ns = clock::monotonic_ns().saturating_sub(idle.as_nanos() as u64);
    for number in 0..keys {
        let key = key_of(number).into_bytes();
        let text_sum = text_sum(&key, 0, &value);
        let put = Mutation { text_sum, ..Mutation::new(&key, Op::Set(&value)) };
        table.apply(table.hash(&key), &put, now_ns).expect("the value fits");
    }
    // A few in a hundred thousand find both their buckets full.
    let missing = keys - table.usage().items_count;
    assert!(missing * 1000 <= keys, "the table holds all but {missing} of {keys} keys");
}

/// Frames of that many bursts, each a `get` of a uniformly random key.
fn requests(keys: u64, bursts: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % keys
    };
    (0..bursts * BURST_DATAGRAMS_MAX)
        .map(|number| request(number as u16, &key_of(random())))
        .collect()
}

fn request(id: u16, key: &str) -> Vec<u8> {
    let mut frame = vec![0; HEADERS_BYTES];
    frame.extend(FrameHeader { request_id: id }.reply(0, 1));
    frame.extend(format!("get {key}\r\n").bytes());
    build::headers(&mut frame, &LINK, &CLIENT, &SERVER);
    frame
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use nautilus_shm::table::{Guess, TableRegion, heap_words};

    use super::*;
    use crate::memcached::parse::first_key;

    #[test]
    fn every_request_of_a_run_is_answered_with_its_value() {
        let table = TableWriter::create(heap_words(8 << 20), 1, 3).unwrap();
        let report = run(table, 20_000, 64, 50, 1);
        assert_eq!(report.discarded_count, 0);
        assert!(report.hits_count >= report.requests_count - 2);
        assert_eq!(report.requests_count, 1600);
    }

    /// `cargo test --release -p nautilus-dataplane engine_speed -- --ignored --nocapture`
    #[test]
    #[ignore = "prints a time; the scoreboard judges it"]
    fn engine_speed() {
        for (keys, memory_mb, idle_s) in [
            (1_000, 8, 0),
            (1_000_000, 512, 0),
            (1_000_000, 512, 60),
            (1_000_000, 512, 0),
            (1_000_000, 512, 60),
        ] {
            let region = TableRegion::create(memory_mb, false).unwrap();
            let table = TableWriter::create(region, 1, 3).unwrap();
            let idle = Duration::from_secs(idle_s);
            let report = run_after(idle, table, (keys, 64), 20_000, 1);
            let ns = report.elapsed.as_nanos() as f64 / report.requests_count as f64;
            let (hits, requests) = (report.hits_count, report.requests_count);
            println!(
                "{keys} keys, idle for {idle_s} s: {ns:.1} ns a request, {hits} of {requests} hits"
            );
        }
    }

    /// The way of a request cut off after each of its stages: what a stage adds is its time.
    ///
    /// `cargo test --release -p nautilus-dataplane engine_stages -- --ignored --nocapture`
    #[test]
    #[ignore = "prints times; the scoreboard judges their sum"]
    fn engine_stages() {
        const KEYS: u64 = 1_000_000;
        const BURSTS: usize = 16_384;
        let region = TableRegion::create(512, false).unwrap();
        let mut table = TableWriter::create(region, 1, 3).unwrap();
        fill(&mut table, KEYS, 64, Duration::ZERO);
        let requests = requests(KEYS, BURSTS, 1);
        let timed = |stage: &mut dyn FnMut(&[Vec<u8>])| {
            let start = Instant::now();
            requests.chunks_exact(BURST_DATAGRAMS_MAX).for_each(|burst| stage(black_box(burst)));
            start.elapsed().as_nanos() as f64 / requests.len() as f64
        };
        let text = |frame: &[u8]| HEADERS_BYTES + 8..frame.len();
        let mut best = [f64::INFINITY; 6];
        for _ in 0..5 {
            let mut stages = Vec::new();
            for checksums in [parse::RxChecksum::Trust, parse::RxChecksum::Verify] {
                stages.push(timed(&mut |burst| {
                    for frame in burst {
                        black_box(parse::parse(frame, checksums).ok());
                    }
                }));
            }
            // How far the table's part goes: hash, bucket, cell.
            for depth in 0..3 {
                stages.push(timed(&mut |burst| {
                    let now_ns = clock::monotonic_ns();
                    let mut places = [None; BURST_DATAGRAMS_MAX];
                    for (frame, place) in burst.iter().zip(&mut places) {
                        black_box(parse::parse(frame, parse::RxChecksum::Verify).ok());
                        let key = first_key(&frame[text(frame)]).unwrap().key;
                        let hash = table.hash(key);
                        if depth > 0 {
                            table.prefetch_bucket(hash);
                        }
                        *place = Some((hash, Guess::default(), key));
                    }
                    for (hash, guess, _) in places.iter_mut().flatten().filter(|_| depth > 0) {
                        *guess = table.prefetch_cell(*hash);
                    }
                    for (hash, guess, key) in places.iter().flatten().filter(|_| depth > 1) {
                        black_box(table.get_near(*hash, *guess, key, now_ns));
                    }
                    black_box(&places);
                }));
            }
            let mut app = CacheApp::new(table, 0);
            let mut ring = FrameRing::new();
            stages.push(timed(&mut |frames| {
                let mut burst = Frames { frames, parsed: [None; BURST_DATAGRAMS_MAX] };
                for (frame, parsed) in frames.iter().zip(&mut burst.parsed) {
                    *parsed = parse::parse(frame, parse::RxChecksum::Verify).ok();
                }
                app.handle(clock::monotonic_ns(), &burst, &mut ring);
            }));
            table = app.core.table;
            for (best, stage) in best.iter_mut().zip(stages) {
                *best = best.min(stage);
            }
        }
        let names = ["parse", "checksum", "key, hash", "bucket", "cell", "reply"];
        let mut before = 0.0;
        for (name, until) in names.into_iter().zip(best) {
            println!("{name}: {:.1} ns ({until:.1})", until - before);
            before = until;
        }
    }
}
