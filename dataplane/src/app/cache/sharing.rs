//! A table that several workers write, each its shards: whose a request is, reading what is another's,
//! and what is to be sent on.
//!
//! ```text
//!   request -> key of ours:      executed here
//!           -> only reads:       from shared memory, as a same-host reader does; the owner is told of
//!                                a share of the hits
//!           -> else:             with all that follows it in its datagram to the owner, who answers
//! ```

use nautilus_shm::sampled_hits::{Sampler, WORKER_HIT_RING};
use nautilus_shm::table::{HotSet, TableReader, TableWriter, Words};

use super::table::SharedTable;
use crate::memcached::Request;
use crate::memcached::frame::FRAME_HEADER_BYTES;
use crate::memcached::parse::{MetaVerb, words};
use crate::port::Datagram;
use crate::port::parcel::{self, PARCEL_HEADER_BYTES};

/// Bytes that wait to be sent on after one burst: a burst of the largest frames, or a few of the largest
/// datagrams there are, which only kernel sockets bring. Too low: writes of a burst are dropped. Too high:
/// memory that is never touched.
const OUTBOX_BYTES: usize = 192 << 10;

/// Datagrams that wait: those of a burst, each once.
const OUTBOX_PARCELS: usize = crate::limits::BURST_DATAGRAMS_MAX;

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Executed here.
    Ours,
    /// Read here, of a key of that worker.
    Read(usize),
    /// Executed by that worker.
    Theirs(usize),
    /// It would change keys of several workers.
    Several,
}

/// What a worker has of the shards that are not its own.
pub(super) struct Sharing<W> {
    /// The whole table, to be read.
    pub table: SharedTable<W>,
    /// Datagrams for others.
    pub outbox: Outbox,
    sampler: Sampler,
}

impl<W: Words> Sharing<W> {
    /// `number` is the worker's.
    pub fn new(reader: TableReader<W>, number: u64) -> Self {
        let sampler = Sampler::new(number);
        Self { table: SharedTable::new(reader), outbox: Outbox::default(), sampler }
    }

    /// Tells the owner of a key that it was asked for here, and found.
    #[inline]
    pub fn found(&mut self, now_ns: u64, key: &[u8]) {
        if self.sampler.wants(now_ns) {
            self.table.tell(WORKER_HIT_RING, key);
        }
    }
}

/// Whose a request is, by its keys. A `get` is decided key by key, later.
pub(super) fn whose<W: Words, H: HotSet>(
    table: &TableWriter<W, H>,
    request: &Request<'_>,
) -> Whose {
    let owner = |key: &[u8]| {
        let hash = table.hash(key);
        (!table.owns(hash)).then(|| table.shard_index(hash) as usize)
    };
    let changed = |key: &[u8]| owner(key).map_or(Whose::Ours, Whose::Theirs);
    match request {
        Request::GetAndTouch { keys, .. } => {
            let mut owners = words(keys).map(owner);
            let Some(first) = owners.next() else { return Whose::Ours };
            match owners.all(|owner| owner == first) {
                true => first.map_or(Whose::Ours, Whose::Theirs),
                false => Whose::Several,
            }
        }
        Request::Store(store) => changed(store.key),
        Request::Delete { key, .. }
        | Request::Arithmetic { key, .. }
        | Request::Touch { key, .. } => changed(key),
        Request::Meta(meta) if meta.verb == MetaVerb::Get => {
            owner(meta.key.bytes()).map_or(Whose::Ours, Whose::Read)
        }
        Request::Meta(meta) => changed(meta.key.bytes()),
        Request::MetaDebug { key } => owner(key.bytes()).map_or(Whose::Ours, Whose::Read),
        // The owner of the cache, that is of its first shard. It alone remembers the last `stats reset`.
        Request::FlushAll { .. } | Request::Stats { .. } if !table.owns_first() => Whose::Theirs(0),
        _ => Whose::Ours,
    }
}

/// Datagrams for other workers, until the burst is done. Allocates when it is made.
pub struct Outbox {
    bytes: Vec<u8>,
    parcels: Vec<(usize, std::ops::Range<usize>)>,
    /// Datagrams that found no room and are not counted yet.
    dropped: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(OUTBOX_BYTES),
            parcels: Vec::with_capacity(OUTBOX_PARCELS),
            dropped: 0,
        }
    }
}

impl Outbox {
    /// Adds a datagram that has the same addresses and frame header as this one, and of its text only
    /// what begins at `from`.
    pub(super) fn add(&mut self, to: usize, datagram: &Datagram<'_>, from: usize) {
        let Some((header, text)) = datagram.payload.split_first_chunk::<FRAME_HEADER_BYTES>()
        else {
            return;
        };
        let rest = text.get(from..).unwrap_or_default();
        let bytes = PARCEL_HEADER_BYTES + FRAME_HEADER_BYTES + rest.len();
        if self.bytes.len() + bytes > OUTBOX_BYTES || self.parcels.len() == OUTBOX_PARCELS {
            self.dropped += 1;
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&parcel::header(datagram));
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(rest);
        self.parcels.push((to, start..self.bytes.len()));
    }

    /// Whether there is none, and none was dropped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.dropped == 0
    }

    /// Datagrams that found no room since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Gives every parcel to `send`, with the worker that it is for, in order, and forgets them.
    pub fn drain(&mut self, mut send: impl FnMut(usize, &[u8])) {
        for (to, range) in self.parcels.drain(..) {
            send(to, &self.bytes[range]);
        }
        self.bytes.clear();
    }
}
