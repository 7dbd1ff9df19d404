//! The cache as an application: memcached's commands over one table.
//!
//! ```text
//!   burst -> hash first keys, ask for buckets -> for cells -> for second cells -> answer in order
//!   line of a stream ------------------------------------------> core.rs -> Sink
//! ```
//!
//! The passes before the last are only hints to the memory system; all effects happen in that, in the
//! order in which the requests arrived.
//!
//! | file | owns |
//! | --- | --- |
//! | `core.rs` | executing a request; `store.rs`, `arithmetic.rs`, `meta.rs`, `stats.rs` are its parts |
//! | `table.rs`, `reads.rs`, `meta_get.rs` | requests that only read, over any table |
//! | `several.rs` | a `get` of several keys, or of another worker's |
//! | `sharing.rs` | a table that several workers write |
//! | `rights.rs` | what a request needs its source to be allowed |
//! | `sink.rs`, `datagrams.rs` | where an answer goes: a stream, datagrams |
//! | `counts.rs`, `totals.rs` | what is counted here, and by the whole node |
//! | `feed_keys.rs` | what feeds publish |
//! | `engine.rs` | the way of a request without a network, to be measured |

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::metrics::labels::CacheError;
use nautilus_shm::table::{
    Guess, Hit, HotSet, KeyHash, TableReader, TableWriter, VALUE_BYTES_MAX, Words,
};

use super::App;
use crate::access::AccessList;
use crate::limits::BURST_DATAGRAMS_MAX;
use crate::memcached::FrameHeader;
use crate::memcached::frame::{FRAME_HEADER_BYTES, FRAME_TEXT_BYTES_MAX, REPLY_FRAMES_MAX};
use crate::memcached::parse::{self, Next, Request};
use crate::memcached::reply::{value_line_bytes, write_value_line};
use crate::net::Endpoint;
use crate::port::{Burst, Datagram, Filled, Transmit};

mod arithmetic;
mod core;
mod counts;
mod datagrams;
pub mod engine;
mod feed_keys;
mod meta;
mod meta_get;
pub mod reads;
pub mod rights;
mod several;
pub mod sharing;
pub mod sink;
mod stats;
mod store;
pub mod table;
#[cfg(test)]
mod tests;
mod totals;

use core::Core;
pub use counts::{CacheCounts, Outcome};
use datagrams::{Pieces, Reply};
pub use sharing::Outbox;
use sharing::{Sharing, Whose, whose};
use sink::{Sink, Stream};
pub use totals::Banks;

/// Buckets of seven items that one housekeeping looks at for items to expire, ten thousand times a
/// second. Too low: a full table takes long to give memory back. Too high: requests wait behind it.
const SWEEP_BUCKETS: u32 = 2;

/// Slots of the hot set that one housekeeping looks at for keys answered there. Too low: the eviction
/// takes a hot key for a cold one. Too high: requests wait behind it.
const HOT_SLOTS_KEPT: u32 = 8;

const END: &[u8] = b"END\r\n";
const OK: &[u8] = b"OK\r\n";
const META_MISS: &[u8] = b"EN";
const META_NOOP: &[u8] = b"MN\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const REPLY_TOO_LARGE: &[u8] = b"SERVER_ERROR reply exceeds 64 datagrams\r\n";
/// What the front sent to a worker that does not own the key, or a `gat` of keys of several.
const NOT_OURS: &[u8] = b"SERVER_ERROR keys of several workers, ask for one key at a time\r\n";
const FEED_OWNED: &[u8] = b"SERVER_ERROR key belongs to a feed\r\n";
/// Clients of libmemcached take no server below 1.0 for one: the version whose protocol is spoken stands
/// first.
const PACKAGE_VERSION: &[u8] = concat!("1.6.18-nautilus-", env!("CARGO_PKG_VERSION")).as_bytes();
const VERSION: &[u8] =
    concat!("VERSION 1.6.18-nautilus-", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// Whole seconds until a deadline, a begun one counted; 0 once it has passed.
fn left_seconds(deadline_ns: u64, now_ns: u64) -> u64 {
    deadline_ns.saturating_sub(now_ns).div_ceil(1_000_000_000)
}

/// Serves one cache. The only writer of its table, or of its share of it.
pub struct CacheApp<W, H = ()> {
    core: Core<W, H>,
    pieces: Pieces,
    /// Where the table has other writers, too.
    sharing: Option<Sharing<W>>,
    access: AccessList,
    /// The source whose permissions were looked up last.
    asked: Option<(Endpoint, Permissions)>,
}

const GET: &[u8] = b"get ";

/// What the first pass over a burst found in one datagram.
#[derive(Clone, Copy)]
struct First {
    hash: KeyHash,
    guess: Guess,
    /// Length of the key when the datagram is `get <key>` and nothing else: the last pass need not
    /// parse it again.
    only_key_bytes: Option<usize>,
}

impl<W: Words, H: HotSet> CacheApp<W, H> {
    /// An application on a table. `realtime_offset_ns` is `CLOCK_REALTIME - CLOCK_MONOTONIC`.
    pub fn new(table: TableWriter<W, H>, realtime_offset_ns: i64) -> Self {
        Self {
            core: Core::new(table, realtime_offset_ns),
            pieces: Pieces::new(),
            sharing: None,
            access: AccessList::everybody(),
            asked: None,
        }
    }

    /// The same on a part of a table, that of worker `number`, the rest of which `reader` reads.
    pub fn with_others(mut self, reader: TableReader<W>, number: u32) -> Self {
        self.sharing = Some(Sharing::new(reader, number.into()));
        self
    }

    /// The same for the sources of a list, where the port does not know what they may do.
    pub fn with_access(self, access: AccessList) -> Self {
        Self { access, ..self }
    }

    /// The same, counting where the whole node does.
    pub fn with_banks(mut self, banks: Banks) -> Self {
        self.core.banks = banks;
        self
    }

    /// Datagrams for other workers, to be sent on after each burst; none where there are no others.
    #[inline]
    pub fn outbox(&mut self) -> Option<&mut Outbox> {
        self.sharing.as_mut().map(|sharing| &mut sharing.outbox).filter(|outbox| !outbox.is_empty())
    }

    /// Tells the application that the wall clock was set: absolute expiry times of later writes are
    /// converted with it. Call it from housekeeping, a few times a second at most.
    pub fn set_realtime_offset_ns(&mut self, realtime_offset_ns: i64) {
        self.core.realtime_offset_ns = realtime_offset_ns;
    }

    /// Bounds the values that clients may store, beyond the table's own bound; feeds are not bound.
    pub fn set_value_bytes_max(&mut self, value_bytes_max: u32) {
        self.core.value_bytes_max = VALUE_BYTES_MAX.min(value_bytes_max as usize);
    }

    /// The table.
    pub fn table(&self) -> &TableWriter<W, H> {
        &self.core.table
    }

    /// The table, for changes that are no client's: leases, flushes.
    pub fn table_mut(&mut self) -> &mut TableWriter<W, H> {
        &mut self.core.table
    }

    /// What was counted.
    pub fn counts(&self) -> &CacheCounts {
        &self.core.counts
    }

    /// Adds what was counted since the last call to this process's bank.
    pub fn publish(&mut self) {
        self.core.publish();
    }

    /// Executes one request of a stream from a source with these permissions and gives the pieces of its
    /// answer, of any length, to `out`; none: no answer. `quit` is the stream's own.
    /// A change of a key that is another worker's is refused: who sends it here knows better.
    pub fn execute(
        &mut self,
        now_ns: u64,
        permissions: Permissions,
        request: &Request<'_>,
        mut out: impl FnMut(&[u8]),
    ) {
        if self.sharing.is_some() && whose(&self.core.table, request) != Whose::Ours {
            self.core.counts.error(CacheError::NotOurs);
            return out(NOT_OURS);
        }
        self.core.execute(now_ns, permissions, request, &mut Stream(out));
    }

    /// By the steering program, or by the list where it was not asked.
    #[inline]
    fn permissions(&mut self, datagram: &Datagram<'_>) -> Permissions {
        match datagram.permissions {
            Some(permissions) => permissions,
            None => self.look_up_permissions(datagram.source),
        }
    }

    fn look_up_permissions(&mut self, source: Endpoint) -> Permissions {
        match self.asked {
            Some((asked, permissions)) if asked == source => permissions,
            _ => {
                let permissions = self.access.permissions_of(source.ip());
                self.asked = Some((source, permissions));
                permissions
            }
        }
    }

    fn datagram(
        &mut self,
        now_ns: u64,
        permissions: Permissions,
        datagram: &Datagram<'_>,
        whole: &[u8],
        first: Option<(KeyHash, Guess)>,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let mut text = whole;
        let mut first = first;
        // What all the split replies of a datagram may take, so that it cannot ask for more than one
        // request could.
        let mut datagrams_left = REPLY_FRAMES_MAX;
        while !text.is_empty() {
            let Next::Request(request, taken) = parse::next(text) else { return };
            let first = first.take();
            self.pieces.clear();
            if let Some(refusal) = self.core.refusal(permissions, &request) {
                if !rights::is_silent(&request) {
                    reply.line(refusal);
                }
                text = text.get(taken..).unwrap_or_default();
                continue;
            }
            if let Some(sharing) = &mut self.sharing {
                match whose(&self.core.table, &request) {
                    Whose::Ours => {}
                    Whose::Read(owner) => {
                        let (table, pieces) = (&mut sharing.table, &mut self.pieces);
                        if let Ok(lookups) = reads::answer(table, now_ns, &request, pieces) {
                            if let Request::Meta(meta) = &request
                                && lookups.hits_count > 0
                                && !meta.is_no_use
                            {
                                sharing.found(now_ns, meta.key.bytes());
                            }
                            self.core.count_meta_read(&request, lookups);
                            self.send(&mut datagrams_left, reply);
                            text = text.get(taken..).unwrap_or_default();
                            continue;
                        }
                        return sharing.outbox.add(owner, datagram, whole.len() - text.len());
                    }
                    Whose::Theirs(owner) => {
                        return sharing.outbox.add(owner, datagram, whole.len() - text.len());
                    }
                    Whose::Several => {
                        self.core.counts.error(CacheError::NotOurs);
                        reply.line(NOT_OURS);
                        text = text.get(taken..).unwrap_or_default();
                        continue;
                    }
                }
            }
            match &request {
                Request::Quit => return,
                Request::Get { keys, with_version } => {
                    let key = keys.strip_prefix(b" ").unwrap_or(keys);
                    if key.contains(&b' ') || self.is_anothers(key) {
                        if let Some(owner) = self.get_several(now_ns, keys, *with_version) {
                            let Some(sharing) = &mut self.sharing else { return };
                            return sharing.outbox.add(owner, datagram, whole.len() - text.len());
                        }
                    } else {
                        let place =
                            first.unwrap_or_else(|| (self.core.hash(key), Guess::default()));
                        if let Some(hit) = self.get_one(now_ns, key, *with_version, place, reply) {
                            self.get_long(key, &hit, *with_version);
                        }
                    }
                }
                _ => self.core.execute(now_ns, permissions, &request, &mut self.pieces),
            }
            self.send(&mut datagrams_left, reply);
            text = text.get(taken..).unwrap_or_default();
        }
    }

    /// Sends the pieces.
    fn send(&mut self, datagrams_left: &mut usize, reply: &mut Reply<'_, impl Transmit>) {
        let datagrams = self.pieces.datagrams();
        if datagrams > 1 {
            let Some(left) = datagrams_left.checked_sub(datagrams) else {
                self.core.counts.error(CacheError::ReplyTooLarge);
                return reply.line(REPLY_TOO_LARGE);
            };
            *datagrams_left = left;
            self.core.counts.outcome(Outcome::SplitReply);
        }
        self.pieces.send(&self.core.table, reply);
    }

    #[inline]
    fn look_up(
        &mut self,
        now_ns: u64,
        (hash, guess): (KeyHash, Guess),
        key: &[u8],
        with_version: bool,
    ) -> Option<Hit> {
        let hit = self.core.table.get_near(hash, guess, key, now_ns);
        self.core.count_look_up(hit.is_some(), with_version);
        hit
    }

    /// Answers a `get` of one key if that takes one datagram; else what [`Self::get_long`] must answer.
    #[inline(always)]
    fn get_one(
        &mut self,
        now_ns: u64,
        key: &[u8],
        with_version: bool,
        place: (KeyHash, Guess),
        reply: &mut Reply<'_, impl Transmit>,
    ) -> Option<Hit> {
        let Some(hit) = self.look_up(now_ns, place, key, with_version) else {
            reply.line(END);
            return None;
        };
        let line_bytes = value_line_bytes(key, &hit, with_version);
        let bytes = line_bytes + hit.value_bytes as usize + 2 + END.len();
        if bytes > FRAME_TEXT_BYTES_MAX {
            return Some(hit);
        }
        let table = &self.core.table;
        reply.frame(0, 1, |out| {
            let version = with_version.then_some(hit.version);
            let line = write_value_line(key, hit.flags, hit.value_bytes, version, out);
            let mut reader = table.value(&hit);
            let end = line + hit.value_bytes as usize;
            table.read(&mut reader, &mut out[line..end]);
            out[end..end + 7].copy_from_slice(b"\r\nEND\r\n");
            Filled { bytes: end + 7, sum: (!with_version).then_some(hit.text_sum) }
        });
        if H::IS_THERE && !with_version {
            let table = &mut self.core.table;
            if table.hot_mut().asked(place.0.bits(), key, &hit) {
                table.show(key, &hit);
            }
        }
        None
    }

    /// Whether the key is in a shard of another worker.
    #[inline(always)]
    fn is_anothers(&self, key: &[u8]) -> bool {
        self.sharing.is_some() && !self.core.table.owns(self.core.hash(key))
    }

    #[cold]
    fn get_long(&mut self, key: &[u8], hit: &Hit, with_version: bool) {
        let (table, pieces) = (&self.core.table, &mut self.pieces);
        reads::write_value(table, key, &hit.into(), hit, with_version, pieces);
        Sink::<TableWriter<W, H>>::text(pieces, END);
    }
}

impl<W: Words, H: HotSet> App for CacheApp<W, H> {
    fn handle(&mut self, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        let mut firsts = [None; BURST_DATAGRAMS_MAX];
        let table = &self.core.table;
        for (index, first) in firsts.iter_mut().enumerate().take(burst.len()) {
            let text = burst.get(index).payload.get(FRAME_HEADER_BYTES..);
            let Some(key) = text.and_then(parse::first_key) else { continue };
            let hash = table.hash(key.key);
            table.prefetch_bucket(hash);
            let (guess, only_key_bytes) = (Guess::default(), key.is_all.then_some(key.key.len()));
            *first = Some(First { hash, guess, only_key_bytes });
        }
        for first in firsts.iter_mut().take(burst.len()).flatten() {
            first.guess = table.prefetch_cell(first.hash);
        }
        for first in firsts.iter().take(burst.len()).flatten() {
            table.prefetch_rest(first.hash, first.guess);
        }
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            if datagram.destination.is_multicast() {
                // A reply would have no address of ours to come from.
                self.core.counts.error(CacheError::FrameHeader);
                continue;
            }
            let Some((header, text)) = FrameHeader::parse(datagram.payload) else {
                self.core.counts.error(CacheError::FrameHeader);
                continue;
            };
            let permissions = self.permissions(&datagram);
            // Whoever it is sent on to need not look again.
            let datagram = Datagram { permissions: Some(permissions), ..datagram };
            if permissions == Permissions::NONE {
                // As the steering program does it: who is not listed is not answered.
                self.core.counts.error(CacheError::Forbidden);
                continue;
            }
            let mut reply = Reply { tx, path: datagram.reply_path(), header };
            let first = firsts.get(index).copied().flatten();
            if permissions.allows(Permissions::READ)
                && let Some(First { hash, guess, only_key_bytes: Some(key_bytes) }) = first
            {
                let key = &text[GET.len()..GET.len() + key_bytes];
                if self.sharing.is_some() && !self.core.table.owns(hash) {
                    self.datagram(now_ns, permissions, &datagram, text, None, &mut reply);
                    continue;
                }
                if let Some(hit) = self.get_one(now_ns, key, false, (hash, guess), &mut reply) {
                    self.pieces.clear();
                    self.get_long(key, &hit, false);
                    self.send(&mut { REPLY_FRAMES_MAX }, &mut reply);
                }
                continue;
            }
            let place = first.map(|first| (first.hash, first.guess));
            self.datagram(now_ns, permissions, &datagram, text, place, &mut reply);
        }
    }

    fn housekeeping(&mut self, now_ns: u64, _tx: &mut impl Transmit) {
        self.core.housekeeping(now_ns);
    }
}
