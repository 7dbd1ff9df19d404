//! The executor: one request on the worker's table, its answer into a sink. Knows nothing of datagrams.

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::metrics::labels::{CacheError, CacheVerb};
use nautilus_shm::table::{
    ApplyError, Hit, HotSet, KeyHash, Mutation, Op, TableWriter, VALUE_BYTES_MAX, Words,
};

use super::counts::{CacheCounts, Outcome};
use super::reads::{self, Lookups};
use super::sink::Sink;
use super::stats::Stats;
use super::table::{Look, ReadTable, Wants};
use super::totals::Banks;
use super::{END, META_NOOP, OK, VERSION, rights};
use crate::memcached::parse::words;
use crate::memcached::{Refusal, Request, expiry};

/// What a key of a client's request holds.
pub(super) type Held = Result<Option<Hit>, FeedOwned>;

/// The key is a feed's: no client may change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeedOwned;

/// The table and what belongs to executing requests on it.
pub(super) struct Core<W, H> {
    pub table: TableWriter<W, H>,
    pub counts: CacheCounts,
    pub banks: Banks,
    pub realtime_offset_ns: i64,
    /// Where values are put together, as long as the longest. Touched when it is made, so that the loop
    /// faults no page in.
    pub scratch: Box<[u8]>,
    /// Longest value a client may store.
    pub value_bytes_max: usize,
    /// When everything is to be forgotten.
    pub flush_at_ns: Option<u64>,
    pub stats: Stats,
}

impl<W: Words, H: HotSet> Core<W, H> {
    pub fn new(table: TableWriter<W, H>, realtime_offset_ns: i64) -> Self {
        Self {
            table,
            counts: CacheCounts::default(),
            banks: Banks::alone(),
            realtime_offset_ns,
            scratch: vec![1; VALUE_BYTES_MAX].into(),
            value_bytes_max: VALUE_BYTES_MAX,
            flush_at_ns: None,
            stats: Stats::default(),
        }
    }

    /// Adds what is new to this process's bank.
    pub fn publish(&mut self) {
        let table = &self.table;
        self.counts.publish(&self.banks.own(), table.counts(), &table.usage());
    }

    pub fn deadline_ns(&self, seconds: i64, now_ns: u64) -> u64 {
        expiry::deadline_ns(seconds, now_ns, self.realtime_offset_ns)
    }

    /// What is said to a source that may not make this request, which is counted.
    pub fn refusal(
        &mut self,
        permissions: Permissions,
        request: &Request<'_>,
    ) -> Option<&'static [u8]> {
        if permissions == Permissions::ALL {
            return None;
        }
        let refusal = rights::refusal(permissions, rights::needed(request))?;
        self.counts.error(CacheError::Forbidden);
        Some(refusal)
    }

    /// Executes any request that a source with these permissions may make, and refuses the others;
    /// `quit` is its caller's.
    pub fn execute<S>(
        &mut self,
        now_ns: u64,
        permissions: Permissions,
        request: &Request<'_>,
        sink: &mut S,
    ) where
        S: Sink<TableWriter<W, H>>,
    {
        if let Some(text) = self.refusal(permissions, request) {
            return say(sink, text, rights::is_silent(request));
        }
        match request {
            Request::Get { keys, with_version } => self.get(now_ns, keys, *with_version, sink),
            Request::GetAndTouch { keys, expiry_seconds, with_version } => {
                self.get_and_touch(now_ns, keys, *expiry_seconds, *with_version, sink);
            }
            Request::Store(store) => self.classic_store(now_ns, store, sink),
            Request::Delete { key, no_reply } => {
                self.counts.verb(CacheVerb::Delete);
                let text: &[u8] = match self.delete(now_ns, key) {
                    Ok(()) => b"DELETED\r\n",
                    Err(Some(FeedOwned)) => self.feed_owned(),
                    Err(None) => b"NOT_FOUND\r\n",
                };
                say(sink, text, *no_reply);
            }
            Request::Arithmetic { key, delta, increments, no_reply } => {
                self.classic_arithmetic(now_ns, key, *delta, *increments, *no_reply, sink);
            }
            Request::Touch { key, expiry_seconds, no_reply } => {
                self.counts.verb(CacheVerb::Touch);
                let text: &[u8] = match self.touch(now_ns, key, *expiry_seconds) {
                    Ok(Some(_)) => b"TOUCHED\r\n",
                    Ok(None) => b"NOT_FOUND\r\n",
                    Err(FeedOwned) => self.feed_owned(),
                };
                say(sink, text, *no_reply);
            }
            Request::FlushAll { delay_seconds, no_reply } => {
                self.flush_all(now_ns, *delay_seconds);
                say(sink, OK, *no_reply);
            }
            Request::Stats { topic } => self.stats(now_ns, topic, sink),
            Request::Version => {
                self.counts.verb(CacheVerb::Version);
                sink.text(VERSION);
            }
            Request::Verbosity { no_reply } => {
                self.counts.verb(CacheVerb::Verbosity);
                say(sink, OK, *no_reply);
            }
            Request::Meta(meta) => self.meta(now_ns, permissions, meta, sink),
            Request::MetaDebug { .. } => {
                self.counts.verb(CacheVerb::Me);
                // The worker's own table can always be read.
                let _ = reads::answer(&mut self.table, now_ns, request, sink);
            }
            Request::MetaNoop => {
                self.counts.verb(CacheVerb::Mn);
                sink.text(META_NOOP);
            }
            Request::Refused { refusal, no_reply } => {
                self.refused(*refusal);
                say(sink, refusal.text(), *no_reply);
            }
            Request::Quit => {}
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        self.counts.error(match refusal {
            Refusal::Unknown | Refusal::Shutdown | Refusal::CacheDump => CacheError::UnknownCommand,
            Refusal::KeyTooLong | Refusal::KeyDecoding => CacheError::BadKey,
            _ => CacheError::BadFormat,
        });
    }

    pub fn feed_owned(&mut self) -> &'static [u8] {
        self.counts.error(CacheError::FeedOwned);
        super::FEED_OWNED
    }

    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.table.hash(key)
    }

    /// Looks a key up that a client wants to change, without counting that as a use.
    pub fn held(&self, now_ns: u64, key: &[u8]) -> Held {
        let hash = self.hash(key);
        match self.table.peek(hash, key, now_ns) {
            Some(hit) if hit.channel != 0 => Err(FeedOwned),
            Some(hit) => Ok(Some(hit)),
            None if self.table.suspect(hash, key, now_ns).is_some() => Err(FeedOwned),
            None => Ok(None),
        }
    }

    /// `get` for a sink that takes any length; datagrams have a way of their own.
    fn get<S>(&mut self, now_ns: u64, keys: &[u8], with_version: bool, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        let wants = Wants { use_counts: true, ..Wants::default() };
        for key in words(keys) {
            let look = self.table.look(key, now_ns, wants);
            self.count_look_up(matches!(look, Look::Hit(..)), with_version);
            if let Look::Hit(item, value) = look {
                reads::write_value(&self.table, key, &item, &value, with_version, sink);
            }
        }
        sink.text(END);
    }

    #[inline]
    pub fn count_look_up(&mut self, is_hit: bool, with_version: bool) {
        self.counts.verb(if with_version { CacheVerb::Gets } else { CacheVerb::Get });
        self.counts.outcome(if is_hit { Outcome::Hit } else { Outcome::Miss });
    }

    /// Counts a request that was answered from another worker's shard.
    pub fn count_meta_read(&mut self, request: &Request<'_>, lookups: Lookups) {
        match request {
            Request::MetaDebug { .. } => self.counts.verb(CacheVerb::Me),
            _ => {
                self.counts.verb(CacheVerb::Mg);
                let is_hit = lookups.hits_count > 0;
                self.counts.outcome(if is_hit { Outcome::Hit } else { Outcome::Miss });
            }
        }
    }

    fn get_and_touch<S>(
        &mut self,
        now_ns: u64,
        keys: &[u8],
        expiry_seconds: i64,
        with_version: bool,
        sink: &mut S,
    ) where
        S: Sink<TableWriter<W, H>>,
    {
        // Before anything is said: an answer is either values or an error.
        if words(keys).any(|key| self.held(now_ns, key).is_err()) {
            let text = self.feed_owned();
            return sink.text(text);
        }
        for key in words(keys) {
            self.counts.verb(if with_version { CacheVerb::Gats } else { CacheVerb::Gat });
            let touched = self.touch(now_ns, key, expiry_seconds).unwrap_or(None);
            self.counts.outcome(if touched.is_some() { Outcome::Hit } else { Outcome::Miss });
            if let Some(hit) = touched {
                reads::write_value(&self.table, key, &(&hit).into(), &hit, with_version, sink);
            }
        }
        sink.text(END);
    }

    /// Gives a value another deadline, which counts as a use. The value as it was before; its bytes
    /// stay good.
    pub fn touch(&mut self, now_ns: u64, key: &[u8], expiry_seconds: i64) -> Held {
        let held = self.held(now_ns, key)?;
        self.counts.outcome(match held {
            Some(_) => Outcome::TouchHit,
            None => Outcome::TouchMiss,
        });
        if held.is_none() {
            return Ok(None);
        }
        let hash = self.hash(key);
        let hit = self.table.get(hash, key, now_ns);
        let expiry_ns = self.deadline_ns(expiry_seconds, now_ns);
        let touch = Mutation { expiry_ns, ..Mutation::new(key, Op::Touch) };
        match self.table.apply(hash, &touch, now_ns) {
            Ok(_) => Ok(hit),
            Err(ApplyError::FeedOwned) => Err(FeedOwned),
            Err(_) => Ok(None),
        }
    }

    /// Removes a key. `None`: there was nothing.
    pub fn delete(&mut self, now_ns: u64, key: &[u8]) -> Result<(), Option<FeedOwned>> {
        let delete = Mutation::new(key, Op::Delete);
        let result = self.table.apply(self.hash(key), &delete, now_ns);
        self.counts.outcome(match result {
            Ok(_) => Outcome::DeleteHit,
            Err(_) => Outcome::DeleteMiss,
        });
        match result {
            Ok(_) => Ok(()),
            Err(ApplyError::FeedOwned) => Err(Some(FeedOwned)),
            Err(_) => Err(None),
        }
    }

    /// What feeds publish is not the clients' to forget.
    fn flush_all(&mut self, now_ns: u64, delay_seconds: i64) {
        self.counts.verb(CacheVerb::FlushAll);
        // As memcached has it: another flush takes the place of one that is still to come.
        self.flush_at_ns = None;
        match delay_seconds {
            ..=0 => self.table.flush_clients(),
            _ => match self.deadline_ns(delay_seconds, now_ns) {
                at_ns if at_ns > now_ns => self.flush_at_ns = Some(at_ns),
                _ => self.table.flush_clients(),
            },
        }
    }

    /// Bounded work between bursts.
    pub fn housekeeping(&mut self, now_ns: u64) {
        if self.flush_at_ns.is_some_and(|at_ns| now_ns >= at_ns) {
            self.flush_at_ns = None;
            self.table.flush_clients();
        }
        self.table.sweep(now_ns, super::SWEEP_BUCKETS);
        self.table.keep_hot(now_ns, super::HOT_SLOTS_KEPT);
        self.table.fold_sampled(now_ns);
        self.stats.replenish();
    }
}

pub(super) fn say<T: ReadTable>(sink: &mut impl Sink<T>, text: &[u8], no_reply: bool) {
    if !no_reply {
        sink.text(text);
    }
}
