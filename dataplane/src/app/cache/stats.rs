//! `stats`: bounded texts of numbers that are kept anyway.

use nautilus_shm::metrics::labels::{CacheError, CacheVerb, Label};
use nautilus_shm::table::{HotSet, KEY_BYTES_MAX, TableWriter, Words};

use super::core::Core;
use super::counts::{CELL_BYTES, Outcome};
use super::sink::{Line, Sink};
use super::table::ReadTable;
use super::{END, PACKAGE_VERSION};

/// Answers to `stats` between two housekeepings, of which there are ten thousand a second when there
/// is work. Too low: monitors are refused. Too high: a flood of 15-byte requests, answered with 1.6
/// kB each, takes the worker's time and the link's.
const ANSWERS_MAX: u32 = 4;

const REFUSED: &[u8] = b"SERVER_ERROR too many stats requests\r\n";

/// What `stats` needs beside the counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    answers_left: u32,
    started_ns: Option<u64>,
    process: u32,
}

impl Default for Stats {
    fn default() -> Self {
        Self { answers_left: ANSWERS_MAX, started_ns: None, process: std::process::id() }
    }
}

impl Stats {
    pub fn replenish(&mut self) {
        self.answers_left = ANSWERS_MAX;
    }
}

/// Writes one line.
fn stat<T: ReadTable>(sink: &mut impl Sink<T>, name: &[u8], value: u64) {
    let mut line = Line::new(b"STAT ");
    line.push(name);
    line.push(b" ");
    line.number(value);
    line.push(b"\r\n");
    sink.text(line.text());
}

impl<W: Words, H: HotSet> Core<W, H> {
    pub(super) fn stats<S>(&mut self, now_ns: u64, topic: &[u8], sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(CacheVerb::Stats);
        let Some(left) = self.stats.answers_left.checked_sub(1) else {
            self.counts.error(CacheError::Throttled);
            return sink.text(REFUSED);
        };
        self.stats.answers_left = left;
        match topic {
            b"" => self.general(now_ns, sink),
            b"settings" => self.settings(sink),
            b"items" => self.items(sink),
            b"slabs" => self.slabs(sink),
            b"reset" => {
                self.counts.reset(self.table.counts());
                return sink.text(b"RESET\r\n");
            }
            _ => {}
        }
        sink.text(END);
    }

    fn general<S>(&mut self, now_ns: u64, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let started_ns = *self.stats.started_ns.get_or_insert(now_ns);
        let usage = self.table.table_usage();
        let writer = self.counts.writer(self.table.counts());
        let realtime_s =
            (now_ns as i64).saturating_add(self.realtime_offset_ns).max(0) as u64 / 1_000_000_000;
        stat(sink, b"pid", self.stats.process.into());
        stat(sink, b"uptime", (now_ns - started_ns) / 1_000_000_000);
        stat(sink, b"time", realtime_s);
        sink.text(b"STAT version ");
        sink.text(PACKAGE_VERSION);
        sink.text(b"\r\n");
        stat(sink, b"pointer_size", 64);
        stat(sink, b"threads", 1);
        stat(sink, b"curr_items", usage.items_count);
        stat(sink, b"bytes", usage.used_cells_count * CELL_BYTES);
        stat(sink, b"limit_maxbytes", usage.cells_count * CELL_BYTES);
        stat(sink, b"evictions", writer.evictions_count);
        stat(sink, b"reclaimed", writer.expirations_count);
        stat(sink, b"suspect_misses", writer.suspects_count);
        // What `get_hits` and `cmd_get` lack: these paths tell of a part of their hits only.
        sink.text(b"STAT get_hits_without xdp,front,readers\r\n");
        stat(sink, b"sampled_hits_front", writer.sampled_front_count);
        stat(sink, b"sampled_hits_readers", writer.sampled_readers_count);
        stat(sink, b"sampled_hits_stray", writer.sampled_stray_count);
        stat(sink, b"sampled_hits_overruns", writer.sampled_overruns_count);
        for &verb in CacheVerb::ALL {
            let mut name = Line::new(b"cmd_");
            name.push(CacheVerb::SET.values[verb.index()][0].as_bytes());
            stat(sink, name.text(), self.counts.requests(verb));
        }
        let outcomes: [(&[u8], Outcome); 14] = [
            (b"total_items", Outcome::Stored),
            (b"get_hits", Outcome::Hit),
            (b"get_misses", Outcome::Miss),
            (b"delete_hits", Outcome::DeleteHit),
            (b"delete_misses", Outcome::DeleteMiss),
            (b"incr_hits", Outcome::IncrHit),
            (b"incr_misses", Outcome::IncrMiss),
            (b"decr_hits", Outcome::DecrHit),
            (b"decr_misses", Outcome::DecrMiss),
            (b"cas_hits", Outcome::CasHit),
            (b"cas_misses", Outcome::CasMiss),
            (b"cas_badval", Outcome::CasBadVersion),
            (b"touch_hits", Outcome::TouchHit),
            (b"touch_misses", Outcome::TouchMiss),
        ];
        for (name, outcome) in outcomes {
            stat(sink, name, self.counts.outcomes(outcome));
        }
    }

    fn settings<S>(&mut self, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let usage = self.table.table_usage();
        stat(sink, b"maxbytes", usage.cells_count * CELL_BYTES);
        stat(sink, b"item_size_max", self.value_bytes_max as u64);
        stat(sink, b"key_size_max", KEY_BYTES_MAX as u64);
        stat(sink, b"num_threads", 1);
        stat(sink, b"reply_datagrams_max", crate::memcached::frame::REPLY_FRAMES_MAX as u64);
        sink.text(b"STAT evictions on\r\nSTAT cas_enabled yes\r\nSTAT flush_enabled yes\r\n");
    }

    /// All cells are of one size: one class.
    fn items<S>(&mut self, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let usage = self.table.table_usage();
        let writer = self.counts.writer(self.table.counts());
        stat(sink, b"items:1:number", usage.items_count);
        stat(sink, b"items:1:mem_requested", usage.payload_bytes);
        stat(sink, b"items:1:evicted", writer.evictions_count);
        stat(sink, b"items:1:reclaimed", writer.expirations_count);
    }

    fn slabs<S>(&mut self, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let usage = self.table.table_usage();
        stat(sink, b"1:chunk_size", CELL_BYTES);
        stat(sink, b"1:total_chunks", usage.cells_count);
        stat(sink, b"1:used_chunks", usage.used_cells_count);
        stat(sink, b"1:free_chunks", usage.cells_count - usage.used_cells_count);
        stat(sink, b"active_slabs", 1);
        stat(sink, b"total_malloced", usage.cells_count * CELL_BYTES);
    }
}
