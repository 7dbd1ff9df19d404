//! C3 and C4: a venue's two lines as a generator sends them, whose every packet moves one best bid, and the
//! reader that waits for it in shared memory.
//!
//! ```text
//!   packets.rs --> wire: line A, line B --> node --> md:nasdaq:PROBE:bbo --> reader, on the generator's core
//!       ^ messages by number                 |
//!       +------------------------------------+ requests (C4)
//! ```

pub mod packets;
pub mod waits;

use std::net::{Ipv4Addr, SocketAddrV4};

use nautilus_client::{CacheReader, ReadError};
use nautilus_shm::control_region::{ControlReader, HistogramId, WORKERS_MAX};
use nautilus_shm::histogram::HistogramSnapshot;
use nautilus_shm::metrics::table::IDLE_NS;
use nautilus_tests::lab::NodeFile;
use nautilus_tests::lab::node_file::{CACHE_ID, FEED_GROUP};

use crate::clock::now_ns;
use crate::generator::packet::Flow;
use crate::lines::waits::Waits;
use crate::stage::Stage;

/// Group and port of line B; A is the lab's.
const LINE_B: (Ipv4Addr, u16) = (Ipv4Addr::new(233, 54, 12, 112), 26_478);

/// Ports of the venue's request server, and of the node that asks it.
const SERVER_PORT: u16 = 26_500;
const ASKS_FROM_PORT: u16 = 26_499;

/// Key of the record that every packet moves.
const KEY: &[u8] = b"md:nasdaq:PROBE:bbo";

/// Bytes of a record, and where its source sequence stands.
const RECORD_BYTES: usize = 96;
const SEQUENCE_AT: std::ops::Range<usize> = 8..16;

/// How long every read must have been quick before a node counts as heard.
const QUIET_NS: u64 = 300_000_000;
const SLOW_READ_NS: u64 = 1_000_000;

/// Packets a second: at 10.25 messages on average, 200,000 messages.
pub const PACKETS_PER_S: u64 = 19_512;

/// One node, the lines that lead to it, and what is seen of it.
pub struct Lines {
    /// Number of its side.
    pub side: usize,
    /// Addressing of line A and line B.
    pub flows: [Flow; 2],
    /// Addressing of replies to its requests.
    pub replies: Flow,
    reader: CacheReader,
    region: ControlReader,
}

/// What a node's workers said of their idle turns so far.
pub struct Idle {
    stalls: HistogramSnapshot,
    idle_ns: u64,
}

impl Lines {
    /// Starts a node on a link of its own. `edit` may change its file.
    pub fn start(
        stage: &mut Stage,
        supervisor: &std::path::Path,
        edit: impl FnOnce(&mut NodeFile),
    ) -> anyhow::Result<Self> {
        let side = stage.link(ASKS_FROM_PORT)?;
        stage.only(side);
        let link = stage.side(side).flow;
        let run_dir = stage.start_node(side, supervisor, |file| {
            file.hot_set = false;
            file.addresses = vec![(*link.server.ip()).into()];
            edit(file);
            let (group, port) = LINE_B;
            format!(
                "{}lines = [{{ group = \"{group}\", port = {port} }}]\nhold_limit_us = 50000\n\
                 [feed.recovery]\nservers = [\"{}:{SERVER_PORT}\"]\nfrom = \"{}:{ASKS_FROM_PORT}\"\n",
                file.to_toml(),
                link.client.ip(),
                link.server.ip(),
            )
        })?;
        let line = |(group, port): (Ipv4Addr, u16)| {
            let [_, b, c, d] = group.octets();
            Flow {
                server_mac: [0x01, 0x00, 0x5e, b & 0x7f, c, d],
                server: SocketAddrV4::new(group, port),
                ..link
            }
        };
        let client = SocketAddrV4::new(*link.client.ip(), SERVER_PORT);
        let flows = [FEED_GROUP, LINE_B].map(line);
        let reader = attach(&run_dir)?;
        let region = nautilus_tests::lab::attach(&run_dir)?;
        Ok(Self { side, flows, replies: Flow { client, ..link }, reader, region })
    }

    /// Waits until the node, which may have been stopped, is heard again by its reader: that attaches anew,
    /// which takes milliseconds, and what a generator then sends in one go finds no room in a veth.
    pub fn await_attached(&mut self) -> anyhow::Result<()> {
        let start_ns = now_ns();
        let mut since_ns = start_ns;
        while now_ns() - since_ns < QUIET_NS {
            let before_ns = now_ns();
            anyhow::ensure!(before_ns - start_ns < 20_000_000_000, "the node does not come back");
            let is_detached =
                self.reader.get(KEY, &mut [0; RECORD_BYTES]) == Err(ReadError::Detached);
            if is_detached || now_ns() - before_ns > SLOW_READ_NS {
                since_ns = now_ns();
            }
        }
        Ok(())
    }

    /// What its workers say of their idle turns; once it is awake, for being stopped is a stall as well.
    pub fn idle(&self) -> Idle {
        let mut idle = Idle { stalls: HistogramSnapshot::default(), idle_ns: 0 };
        for worker in 0..WORKERS_MAX {
            idle.stalls.merge(&self.region.histogram(worker, HistogramId::Stall));
            idle.idle_ns += self.region.metrics(worker).counter(IDLE_NS);
        }
        idle
    }

    /// What an arrival waited for the worker's core since then.
    pub fn waits_since(&self, before: &Idle) -> Waits {
        let now = self.idle();
        let stalls = now.stalls.since(&before.stalls);
        Waits::of_worker(stalls.buckets(), now.idle_ns.saturating_sub(before.idle_ns))
    }

    /// The number of the last message in the record, if the record may be believed.
    #[inline]
    pub fn seen(&mut self) -> Option<u64> {
        let mut record = [0; RECORD_BYTES];
        self.reader.get(KEY, &mut record).ok()?;
        let bytes = record[SEQUENCE_AT].first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// A reader of the node's cache, once there is one.
fn attach(run_dir: &std::path::Path) -> anyhow::Result<CacheReader> {
    let start = std::time::Instant::now();
    loop {
        match CacheReader::attach(run_dir, CACHE_ID) {
            Ok(reader) => return Ok(reader),
            Err(error) if start.elapsed().as_secs() >= 20 => return Err(error.into()),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
}
