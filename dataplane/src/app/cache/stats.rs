//! `stats`: bounded texts of numbers that are kept anyway.

use nautilus_shm::metrics::labels::{CacheError, CacheOutcome, CacheVerb, HitPath, Label};
use nautilus_shm::metrics::{Counter, table as metrics};
use nautilus_shm::table::{HotSet, KEY_BYTES_MAX, TableWriter, Words};

use super::core::Core;
use super::counts::CELL_BYTES;
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

/// Lines that show one counter each.
fn totals() -> [(&'static [u8], Counter); 17] {
    [
        (b"evictions", metrics::CACHE_EVICTIONS),
        (b"reclaimed", metrics::CACHE_EXPIRATIONS),
        (b"suspect_misses", metrics::CACHE_SUSPECTS),
        (b"sampled_hits_stray", metrics::CACHE_SAMPLED_STRAY),
        (b"sampled_hits_overruns", metrics::CACHE_SAMPLED_OVERRUNS),
        (b"total_items", metrics::CACHE_OUTCOMES.of(CacheOutcome::Stored)),
        (b"delete_hits", metrics::CACHE_OUTCOMES.of(CacheOutcome::DeleteHit)),
        (b"delete_misses", metrics::CACHE_OUTCOMES.of(CacheOutcome::DeleteMiss)),
        (b"incr_hits", metrics::CACHE_OUTCOMES.of(CacheOutcome::IncrHit)),
        (b"incr_misses", metrics::CACHE_OUTCOMES.of(CacheOutcome::IncrMiss)),
        (b"decr_hits", metrics::CACHE_OUTCOMES.of(CacheOutcome::DecrHit)),
        (b"decr_misses", metrics::CACHE_OUTCOMES.of(CacheOutcome::DecrMiss)),
        (b"cas_hits", metrics::CACHE_OUTCOMES.of(CacheOutcome::CasHit)),
        (b"cas_misses", metrics::CACHE_OUTCOMES.of(CacheOutcome::CasMiss)),
        (b"cas_badval", metrics::CACHE_OUTCOMES.of(CacheOutcome::CasBadVersion)),
        (b"touch_hits", metrics::CACHE_OUTCOMES.of(CacheOutcome::TouchHit)),
        (b"touch_misses", metrics::CACHE_OUTCOMES.of(CacheOutcome::TouchMiss)),
    ]
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
                self.publish();
                self.banks.reset();
                return sink.text(b"RESET\r\n");
            }
            _ => {}
        }
        sink.text(END);
    }

    /// Publishes what was counted here and looks at all that was published.
    fn gather(&mut self) {
        self.publish();
        self.banks.gather();
    }

    fn general<S>(&mut self, now_ns: u64, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.gather();
        let started_ns = *self.stats.started_ns.get_or_insert(now_ns);
        let usage = self.table.table_usage();
        let counted = |counter| self.banks.counted(counter);
        let realtime_s =
            (now_ns as i64).saturating_add(self.realtime_offset_ns).max(0) as u64 / 1_000_000_000;
        stat(sink, b"pid", self.stats.process.into());
        stat(sink, b"uptime", (now_ns - started_ns) / 1_000_000_000);
        stat(sink, b"time", realtime_s);
        sink.text(b"STAT version ");
        sink.text(PACKAGE_VERSION);
        sink.text(b"\r\n");
        stat(sink, b"pointer_size", 64);
        stat(sink, b"threads", u64::from(self.table.shards()));
        stat(sink, b"curr_items", usage.items_count);
        stat(sink, b"bytes", usage.used_cells_count * CELL_BYTES);
        stat(sink, b"limit_maxbytes", usage.cells_count * CELL_BYTES);
        for (name, counter) in totals() {
            stat(sink, name, counted(counter));
        }
        let (in_xdp, of_front) = (counted(metrics::CACHE_HOT_HITS), counted(metrics::FRONT_HITS));
        let front_misses = counted(metrics::FRONT_MISSES);
        for &verb in CacheVerb::ALL {
            let mut name = Line::new(b"cmd_");
            name.push(CacheVerb::SET.values[verb.index()][0].as_bytes());
            // What XDP and front answer they do not count by verb: `get` nearly always.
            let elsewhere = match verb {
                CacheVerb::Get => in_xdp + of_front + front_misses,
                _ => 0,
            };
            stat(sink, name.text(), counted(metrics::CACHE_REQUESTS.of(verb)) + elsewhere);
        }
        let hits = counted(metrics::CACHE_HITS);
        stat(sink, b"get_hits", hits + in_xdp + of_front);
        stat(sink, b"get_misses", counted(metrics::CACHE_MISSES) + front_misses);
        stat(sink, b"get_hits_worker", hits);
        stat(sink, b"get_hits_xdp", in_xdp);
        stat(sink, b"get_hits_front", of_front);
        // They tell of a part of their hits only.
        sink.text(b"STAT get_hits_without readers\r\n");
        for &path in HitPath::ALL {
            let mut name = Line::new(b"sampled_hits_");
            name.push(HitPath::SET.values[path.index()][0].as_bytes());
            stat(sink, name.text(), counted(metrics::CACHE_SAMPLED_HITS.of(path)));
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
        stat(sink, b"num_threads", u64::from(self.table.shards()));
        stat(sink, b"reply_datagrams_max", crate::memcached::frame::REPLY_FRAMES_MAX as u64);
        sink.text(b"STAT evictions on\r\nSTAT cas_enabled yes\r\nSTAT flush_enabled yes\r\n");
    }

    /// All cells are of one size: one class.
    fn items<S>(&mut self, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.gather();
        let usage = self.table.table_usage();
        stat(sink, b"items:1:number", usage.items_count);
        stat(sink, b"items:1:mem_requested", usage.payload_bytes);
        stat(sink, b"items:1:evicted", self.banks.counted(metrics::CACHE_EVICTIONS));
        stat(sink, b"items:1:reclaimed", self.banks.counted(metrics::CACHE_EXPIRATIONS));
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
