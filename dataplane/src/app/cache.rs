//! The cache as an application: memcached's classic commands over one table.
//!
//! ```text
//!   burst -> hash first keys, ask for buckets -> ask for cells -> answer in order of arrival
//! ```
//!
//! The first two passes are only hints to the memory system; all effects happen in the third, in the
//! order in which the requests arrived.

use nautilus_shm::metrics::MetricBank;
use nautilus_shm::table::{
    self as shm_table, ApplyError, Guess, Hit, KEY_BYTES_MAX, KeyHash, Mutation, Op, TableWriter,
    Words,
};

use super::keyspace::{ChannelState, Keyspace, PutError};
use super::{App, cache_counts::CacheCounts};
use crate::limits::BURST_DATAGRAMS_MAX;
use crate::memcached::command::{self, Command, Next, Refusal};
use crate::memcached::frame::{FRAME_HEADER_BYTES, FRAME_TEXT_BYTES_MAX, REPLY_FRAMES_MAX};
use crate::memcached::reply::{
    END, KeyHit, ReplyText, text_sum, value_line_bytes, write_value_line,
};
use crate::memcached::{FrameHeader, expiry};
use crate::net::checksum;
use crate::port::{Burst, Filled, Path, Transmit};

pub mod engine;
#[cfg(test)]
mod tests;

/// Hits of one request that are sure not to fit a reply: each takes at least the 15 bytes of
/// `VALUE k 0 0`, an empty value and their line ends.
const HITS_MAX: usize = REPLY_FRAMES_MAX * FRAME_TEXT_BYTES_MAX / 15;

/// Keys of one request that are looked up together. Too low: waits for memory are not overlapped. Too
/// high: the first lines are gone from the cache when they are used.
const LOOKUPS_TOGETHER: usize = 16;

/// Buckets of seven items that one housekeeping looks at for items to expire, ten thousand times a
/// second. Too low: a full table takes long to give memory back. Too high: requests wait behind it.
const SWEEP_BUCKETS: u32 = 2;

const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const REPLY_TOO_LARGE: &[u8] = b"SERVER_ERROR reply exceeds 64 datagrams\r\n";
const FEED_OWNED: &[u8] = b"SERVER_ERROR key belongs to a feed\r\n";
const VERSION: &[u8] = concat!("VERSION ", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// Serves one cache. The only writer of its table.
pub struct CacheApp<W> {
    table: TableWriter<W>,
    realtime_offset_ns: i64,
    counts: CacheCounts,
    hits: Vec<KeyHit>,
}

const GET: &[u8] = b"get ";

/// What the first pass over a burst found in one datagram.
#[derive(Clone, Copy)]
struct First {
    hash: KeyHash,
    guess: Guess,
    /// Length of the key when the datagram is `get <key>` and nothing else: the third pass need not
    /// parse it again.
    only_key_bytes: Option<usize>,
}

/// Where one answer goes.
struct Reply<'a, T> {
    tx: &'a mut T,
    path: Path,
    header: FrameHeader,
}

impl<T: Transmit> Reply<'_, T> {
    /// Sends one datagram. What the port cannot send, it counts.
    #[inline]
    fn frame<F: Into<Filled>>(
        &mut self,
        sequence: u16,
        total: u16,
        write: impl FnOnce(&mut [u8]) -> F,
    ) {
        let header = self.header.reply(sequence, total);
        let _ = self.tx.send(&self.path, |out| {
            out[..FRAME_HEADER_BYTES].copy_from_slice(&header);
            let text = &mut out[FRAME_HEADER_BYTES..][..FRAME_TEXT_BYTES_MAX];
            let Filled { bytes, sum } = write(text).into();
            let with_header = |sum: u16| checksum::fold(checksum::add(sum.into(), &header));
            Filled { bytes: FRAME_HEADER_BYTES + bytes, sum: sum.map(with_header) }
        });
    }

    fn line(&mut self, text: &[u8], no_reply: bool) {
        if !no_reply {
            self.frame(0, 1, |out| {
                out[..text.len()].copy_from_slice(text);
                text.len()
            });
        }
    }
}

impl<W: Words> CacheApp<W> {
    /// An application on a table. `realtime_offset_ns` is `CLOCK_REALTIME - CLOCK_MONOTONIC`.
    pub fn new(table: TableWriter<W>, realtime_offset_ns: i64) -> Self {
        let counts = CacheCounts::default();
        Self { table, realtime_offset_ns, counts, hits: Vec::with_capacity(HITS_MAX) }
    }

    /// Tells the application that the wall clock was set: absolute expiry times of later writes are
    /// converted with it. Call it from housekeeping, a few times a second at most.
    pub fn set_realtime_offset_ns(&mut self, realtime_offset_ns: i64) {
        self.realtime_offset_ns = realtime_offset_ns;
    }

    /// The table.
    pub fn table(&self) -> &TableWriter<W> {
        &self.table
    }

    /// The table, for changes that are no client's: leases, flushes.
    pub fn table_mut(&mut self) -> &mut TableWriter<W> {
        &mut self.table
    }

    /// What was counted since the last [`Self::publish`].
    pub fn counts(&self) -> &CacheCounts {
        &self.counts
    }

    /// Adds what was counted to the process's metrics and starts again at 0.
    pub fn publish(&mut self, bank: &MetricBank<'_>) {
        self.counts.publish(bank, self.table.counts(), &self.table.usage());
    }

    fn datagram(
        &mut self,
        now_ns: u64,
        mut text: &[u8],
        first: Option<(KeyHash, Guess)>,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let mut first = first;
        while let Next::Command(command, rest) = command::next(text) {
            match command {
                Command::Get { keys, with_version } => {
                    self.get(now_ns, keys, with_version, first, reply);
                }
                Command::Set { key, flags, expiry_seconds, value, no_reply } => {
                    let expiry_ns =
                        expiry::deadline_ns(expiry_seconds, now_ns, self.realtime_offset_ns);
                    let answer = self.set(now_ns, key, flags, expiry_ns, value);
                    reply.line(answer, no_reply);
                }
                Command::Delete { key, no_reply } => {
                    self.counts.deletes += 1;
                    let answer: &[u8] = match self.delete(now_ns, key) {
                        Ok(_) => b"DELETED\r\n",
                        Err(ApplyError::FeedOwned) => {
                            self.counts.bad_keys += 1;
                            FEED_OWNED
                        }
                        Err(_) => b"NOT_FOUND\r\n",
                    };
                    reply.line(answer, no_reply);
                }
                Command::Version => {
                    self.counts.versions += 1;
                    reply.line(VERSION, false);
                }
                Command::Refused { refusal, no_reply } => {
                    match refusal {
                        Refusal::Unknown => self.counts.unknown_commands += 1,
                        Refusal::KeyTooLong => self.counts.bad_keys += 1,
                        _ => self.counts.bad_formats += 1,
                    }
                    reply.line(refusal.text(), no_reply);
                }
            }
            first = None;
            text = rest;
        }
    }

    fn set(
        &mut self,
        now_ns: u64,
        key: &[u8],
        flags: u32,
        expiry_ns: u64,
        value: Option<&[u8]>,
    ) -> &'static [u8] {
        self.counts.sets += 1;
        let hash = self.table.hash(key);
        let stored = match value {
            Some(value) => {
                let text_sum = text_sum(key, flags, value);
                let put =
                    Mutation { flags, expiry_ns, text_sum, ..Mutation::new(key, Op::Set(value)) };
                self.table.apply(hash, &put, now_ns)
            }
            None => Err(ApplyError::TooLarge),
        };
        match stored {
            Ok(_) => b"STORED\r\n",
            Err(ApplyError::TooLarge | ApplyError::NotFound) => {
                self.counts.values_too_large += 1;
                // The client wanted the old value gone; as memcached, rather none than a stale one.
                match self.delete(now_ns, key) {
                    Err(ApplyError::FeedOwned) => FEED_OWNED,
                    _ => TOO_LARGE,
                }
            }
            Err(ApplyError::FeedOwned) => {
                self.counts.bad_keys += 1;
                FEED_OWNED
            }
            Err(ApplyError::KeyLength) => {
                self.counts.bad_keys += 1;
                Refusal::KeyTooLong.text()
            }
        }
    }

    fn delete(&mut self, now_ns: u64, key: &[u8]) -> Result<u64, ApplyError> {
        self.table.apply(self.table.hash(key), &Mutation::new(key, Op::Delete), now_ns)
    }

    #[inline]
    fn look_up(
        &mut self,
        now_ns: u64,
        (hash, guess): (KeyHash, Guess),
        key: &[u8],
        with_version: bool,
    ) -> Option<Hit> {
        let hit = self.table.get_near(hash, guess, key, now_ns);
        let requests =
            if with_version { &mut self.counts.gets } else { &mut self.counts.plain_gets };
        *requests += 1;
        let outcome = if hit.is_some() { &mut self.counts.hits } else { &mut self.counts.misses };
        *outcome += 1;
        hit
    }

    #[inline]
    fn get(
        &mut self,
        now_ns: u64,
        keys: &[u8],
        with_version: bool,
        first: Option<(KeyHash, Guess)>,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let key = keys.strip_prefix(b" ").unwrap_or(keys);
        if key.contains(&b' ') {
            return self.get_several(now_ns, keys, with_version, reply);
        }
        let place = first.unwrap_or_else(|| (self.table.hash(key), Guess::default()));
        self.get_one(now_ns, keys, key, with_version, place, reply);
    }

    /// Answers a `get` of one `key`, which lies in `keys`.
    #[inline]
    fn get_one(
        &mut self,
        now_ns: u64,
        keys: &[u8],
        key: &[u8],
        with_version: bool,
        place: (KeyHash, Guess),
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let Some(hit) = self.look_up(now_ns, place, key, with_version) else {
            return reply.line(END, false);
        };
        let line_bytes = value_line_bytes(key, &hit, with_version);
        let bytes = line_bytes + hit.value_bytes as usize + 2 + END.len();
        if bytes <= FRAME_TEXT_BYTES_MAX {
            let table = &self.table;
            reply.frame(0, 1, |out| {
                let line = write_value_line(key, &hit, with_version, out);
                let mut reader = table.value(&hit);
                let end = line + hit.value_bytes as usize;
                table.read(&mut reader, &mut out[line..end]);
                out[end..end + 7].copy_from_slice(b"\r\nEND\r\n");
                Filled { bytes: end + 7, sum: (!with_version).then_some(hit.text_sum) }
            });
            return;
        }
        let key_offset = (key.as_ptr() as usize - keys.as_ptr() as usize) as u32;
        self.hits.clear();
        self.hits.push(KeyHit { hit, key_offset, key_bytes: key.len() as u8 });
        self.answer(keys, with_version, bytes, reply);
    }

    fn get_several(
        &mut self,
        now_ns: u64,
        keys: &[u8],
        with_version: bool,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        self.hits.clear();
        let mut bytes = END.len();
        let mut words = command::words(keys);
        let nothing = (self.table.hash(b""), Guess::default());
        let mut together = [(&b""[..], nothing); LOOKUPS_TOGETHER];
        loop {
            let mut count = 0;
            for (place, key) in together.iter_mut().zip(words.by_ref()) {
                *place = (key, (self.table.hash(key), Guess::default()));
                self.table.prefetch_bucket(place.1.0);
                count += 1;
            }
            if count == 0 {
                break;
            }
            for (_, (hash, guess)) in &mut together[..count] {
                *guess = self.table.prefetch_cell(*hash);
            }
            for &(key, place) in &together[..count] {
                let Some(hit) = self.look_up(now_ns, place, key, with_version) else { continue };
                bytes += value_line_bytes(key, &hit, with_version) + hit.value_bytes as usize + 2;
                if self.hits.len() < HITS_MAX {
                    let key_offset = (key.as_ptr() as usize - keys.as_ptr() as usize) as u32;
                    self.hits.push(KeyHit { hit, key_offset, key_bytes: key.len() as u8 });
                }
            }
        }
        self.answer(keys, with_version, bytes, reply);
    }

    /// Sends the hits in as many datagrams as their `bytes` need, numbered from 0.
    fn answer(
        &mut self,
        keys: &[u8],
        with_version: bool,
        bytes: usize,
        reply: &mut Reply<'_, impl Transmit>,
    ) {
        let total = bytes.div_ceil(FRAME_TEXT_BYTES_MAX);
        if total > REPLY_FRAMES_MAX {
            self.counts.replies_too_large += 1;
            return reply.line(REPLY_TOO_LARGE, false);
        }
        self.counts.split_replies += u64::from(total > 1);
        let mut text = ReplyText::new(keys, &self.hits, with_version);
        for sequence in 0..total {
            reply.frame(sequence as u16, total as u16, |out| text.fill(&self.table, out));
        }
    }
}

impl<W: Words> App for CacheApp<W> {
    fn handle(&mut self, now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        let mut firsts = [None; BURST_DATAGRAMS_MAX];
        for (index, first) in firsts.iter_mut().enumerate().take(burst.len()) {
            let text = burst.get(index).payload.get(FRAME_HEADER_BYTES..);
            let Some(key) = text.and_then(command::first_key) else { continue };
            let hash = self.table.hash(key.key);
            self.table.prefetch_bucket(hash);
            let (guess, only_key_bytes) = (Guess::default(), key.is_all.then_some(key.key.len()));
            *first = Some(First { hash, guess, only_key_bytes });
        }
        for first in firsts.iter_mut().take(burst.len()).flatten() {
            first.guess = self.table.prefetch_cell(first.hash);
        }
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            if datagram.destination.is_multicast() {
                // A reply would have no address of ours to come from.
                self.counts.frame_headers += 1;
                continue;
            }
            let Some((header, text)) = FrameHeader::parse(datagram.payload) else {
                self.counts.frame_headers += 1;
                continue;
            };
            let mut reply = Reply { tx, path: datagram.reply_path(), header };
            let first = firsts.get(index).copied().flatten();
            if let Some(First { hash, guess, only_key_bytes: Some(key_bytes) }) = first {
                let keys = &text[GET.len()..GET.len() + key_bytes];
                self.get_one(now_ns, keys, keys, false, (hash, guess), &mut reply);
                continue;
            }
            let place = first.map(|first| (first.hash, first.guess));
            self.datagram(now_ns, text, place, &mut reply);
        }
    }

    fn housekeeping(&mut self, now_ns: u64, _tx: &mut impl Transmit) {
        self.table.sweep(now_ns, SWEEP_BUCKETS);
    }
}

/// What a feed publishes goes into the same table, under its channel.
impl<W: Words> Keyspace for CacheApp<W> {
    fn begin_channel(&mut self, channel: u8) {
        self.table.begin_channel(channel);
    }

    fn put(&mut self, key: &[u8], value: &[u8], channel: u8) -> Result<(), PutError> {
        let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
        if !fits || key.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(PutError::BadKey);
        }
        let hash = self.table.hash(key);
        let text_sum = text_sum(key, 0, value);
        let put = Mutation { channel, text_sum, ..Mutation::new(key, Op::Set(value)) };
        match self.table.apply(hash, &put, 0) {
            Ok(_) => Ok(()),
            Err(ApplyError::KeyLength) => Err(PutError::BadKey),
            Err(ApplyError::TooLarge) => Err(PutError::TooLong),
            Err(ApplyError::FeedOwned | ApplyError::NotFound) => Err(PutError::NoRoom),
        }
    }

    fn set_channel(&mut self, channel: u8, state: ChannelState) {
        let state = match state {
            ChannelState::Suspect => shm_table::ChannelState::Suspect,
            // The table's deadline is the first instant that is too late.
            ChannelState::LiveUntil(last_ns) => {
                shm_table::ChannelState::Live { valid_until_ns: last_ns.saturating_add(1) }
            }
        };
        self.table.set_channel(channel, state);
    }
}
