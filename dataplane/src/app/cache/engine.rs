//! The cache without a network: frames in memory through the worker's own parsing, checksums,
//! application and frame building. What scoreboard row A6 measures.

use std::time::{Duration, Instant};

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
                payload: &[],
            };
        };
        let payload = &self.frames[index][usize::from(parsed.payload_offset)..]
            [..usize::from(parsed.payload_bytes)];
        let link = Link { interface: 0, vlans: parsed.vlans };
        let (source, destination) = (parsed.source, parsed.destination);
        Datagram { source, destination, link, rx_ns: 0, payload }
    }
}

/// A ring of transmit frames, overwritten in turn.
struct FrameRing {
    frames: Vec<[u8; 2048]>,
    next: usize,
    values: u64,
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
    mut table: TableWriter<W>,
    keys: u64,
    value_bytes: usize,
    bursts: usize,
    seed: u64,
) -> EngineReport {
    let value = vec![b'v'; value_bytes];
    let key_of = |number: u64| format!("key:{number:012}");
    // As a client would: an item that was not used for long costs its first use a cache line more.
    let now_ns = clock::monotonic_ns();
    for number in 0..keys {
        let key = key_of(number).into_bytes();
        let text_sum = text_sum(&key, 0, &value);
        let put = Mutation { text_sum, ..Mutation::new(&key, Op::Set(&value)) };
        table.apply(table.hash(&key), &put, now_ns).expect("the value fits");
    }
    // A few in a hundred thousand find both their buckets full.
    let missing = keys - table.usage().items_count;
    assert!(missing * 1000 <= keys, "the table holds all but {missing} of {keys} keys");
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % keys
    };
    let requests: Vec<Vec<u8>> = (0..bursts * BURST_DATAGRAMS_MAX)
        .map(|number| request(number as u16, &key_of(random())))
        .collect();
    let mut app = CacheApp::new(table, 0);
    let frames = vec![[0; 2048]; 4 * BURST_DATAGRAMS_MAX];
    let mut ring = FrameRing { frames, next: 0, values: 0 };
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

fn request(id: u16, key: &str) -> Vec<u8> {
    let mut frame = vec![0; HEADERS_BYTES];
    frame.extend(FrameHeader { request_id: id }.reply(0, 1));
    frame.extend(format!("get {key}\r\n").bytes());
    build::headers(&mut frame, &LINK, &CLIENT, &SERVER);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use nautilus_shm::table::{TableRegion, heap_words};

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
        for (keys, memory_mb) in [(1_000, 8), (1_000_000, 512)] {
            let region = TableRegion::create(memory_mb, false).unwrap();
            let table = TableWriter::create(region, 1, 3).unwrap();
            let report = run(table, keys, 64, 20_000, 1);
            let ns = report.elapsed.as_nanos() as f64 / report.requests_count as f64;
            let (hits, requests) = (report.hits_count, report.requests_count);
            println!("{keys} keys: {ns:.1} ns a request, {hits} of {requests} hits");
        }
    }
}
