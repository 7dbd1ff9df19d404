//! `incr decr` and `ma`. A number that has not become longer is changed in its place: padded with
//! spaces to the old length, what is noted of the value stays. That is how memcached does it, and
//! clients that read the value with `get` see the spaces.

use nautilus_shm::metrics::labels::CacheVerb;
use nautilus_shm::table::{Hit, HotSet, Marks, Mutation, Op, TableWriter, Words};

use super::core::{Core, FeedOwned, say};
use super::counts::Outcome;
use super::meta_get::write_left;
use super::reads::{write_echo, write_echoes};
use super::sink::{Line, Sink};
use crate::memcached::number;
use crate::memcached::parse::{self, Meta};
use crate::memcached::reply::text_sum;

const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
const NO_ROOM: &[u8] = b"SERVER_ERROR out of memory\r\n";

/// Bytes of a value in which a number is looked for, white space and zeroes before it included. It has
/// 20 digits at most.
const NUMBER_BYTES_MAX: usize = 4096;

/// A change by a number.
struct Step<'a> {
    key: &'a [u8],
    delta: u64,
    increments: bool,
    /// The version that must be there; 0 demands none.
    version: u64,
    /// A new deadline, if one is wanted.
    expiry_ns: Option<u64>,
}

/// What came of it.
enum Stepped {
    To { value: u64, version: u64, before: Hit },
    NotFound,
    NonNumeric,
    Exists,
    FeedOwned,
    NoRoom,
}

impl<W: Words, H: HotSet> Core<W, H> {
    pub(super) fn classic_arithmetic<S>(
        &mut self,
        now_ns: u64,
        key: &[u8],
        delta: u64,
        increments: bool,
        no_reply: bool,
        sink: &mut S,
    ) where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(if increments { CacheVerb::Incr } else { CacheVerb::Decr });
        let step = Step { key, delta, increments, version: 0, expiry_ns: None };
        let text: &[u8] = match self.step(now_ns, &step) {
            Stepped::To { value, .. } => {
                let mut line = Line::new(b"");
                line.number(value);
                line.push(b"\r\n");
                return say(sink, line.text(), no_reply);
            }
            Stepped::NotFound => b"NOT_FOUND\r\n",
            Stepped::NonNumeric => NON_NUMERIC,
            Stepped::FeedOwned => self.feed_owned(),
            Stepped::Exists | Stepped::NoRoom => NO_ROOM,
        };
        say(sink, text, no_reply);
    }

    pub(super) fn meta_arithmetic<S>(&mut self, now_ns: u64, meta: &Meta<'_>, sink: &mut S)
    where
        S: Sink<TableWriter<W, H>>,
    {
        self.counts.verb(CacheVerb::Ma);
        let step = Step {
            key: meta.key.bytes(),
            delta: meta.delta,
            increments: !matches!(meta.mode, b'D' | b'-'),
            version: meta.version.unwrap_or(0),
            expiry_ns: meta.expiry_seconds.map(|seconds| self.deadline_ns(seconds, now_ns)),
        };
        let (code, value, version, before): (&[u8], _, _, _) = match self.step(now_ns, &step) {
            Stepped::To { .. } if meta.quiet => return,
            Stepped::To { value, version, before } => (b"HD", value, version, Some(before)),
            Stepped::NotFound if meta.vivify_seconds.is_some() => {
                match self.vivify(now_ns, meta, &step) {
                    Some(version) => (b"HD", meta.initial, version, None),
                    None => return sink.text(NO_ROOM),
                }
            }
            Stepped::NotFound => (b"NF", 0, 0, None),
            Stepped::Exists => (b"EX", 0, 0, None),
            Stepped::NonNumeric => return sink.text(NON_NUMERIC),
            Stepped::NoRoom => return sink.text(NO_ROOM),
            Stepped::FeedOwned => {
                let text = self.feed_owned();
                return sink.text(text);
            }
        };
        let mut line = Line::new(code);
        if code != b"HD" {
            write_echoes(&mut line, meta);
        } else {
            if meta.wants_value {
                line = Line::new(b"VA ");
                line.number(number::digits(value) as u64);
            }
            self.write_flags(&mut line, now_ns, meta, version, before.as_ref());
            if meta.wants_value {
                line.push(b"\r\n");
                line.number(value);
            }
        }
        line.push(b"\r\n");
        sink.text(line.text());
    }

    fn write_flags(
        &self,
        line: &mut Line,
        now_ns: u64,
        meta: &Meta<'_>,
        version: u64,
        before: Option<&Hit>,
    ) {
        let deadline = |seconds: Option<i64>| self.deadline_ns(seconds.unwrap_or(0), now_ns);
        let mut expiry_ns = before.map_or(0, |hit| hit.expiry_ns);
        for (flag, token) in parse::flags(meta.flags) {
            match flag {
                b'c' => line.flag(b" c", version),
                b't' => write_left(line, expiry_ns, now_ns),
                b'T' => expiry_ns = deadline(meta.expiry_seconds),
                b'N' if before.is_none() => expiry_ns = deadline(meta.vivify_seconds),
                _ => _ = write_echo(line, meta, flag, token),
            }
        }
    }

    /// Makes the value that is missing.
    fn vivify(&mut self, now_ns: u64, meta: &Meta<'_>, step: &Step<'_>) -> Option<u64> {
        let mut expiry_ns = 0;
        for (flag, _) in parse::flags(meta.flags) {
            match flag {
                b'T' => expiry_ns = step.expiry_ns.unwrap_or(0),
                b'N' => expiry_ns = self.deadline_ns(meta.vivify_seconds.unwrap_or(0), now_ns),
                _ => {}
            }
        }
        let mut digits = [0; number::DIGITS_MAX];
        let count = number::write(meta.initial, &mut digits);
        let value = &digits[..count];
        let text_sum = text_sum(step.key, 0, value);
        let put = Mutation { expiry_ns, text_sum, ..Mutation::new(step.key, Op::Set(value)) };
        self.table.apply(self.hash(step.key), &put, now_ns).ok()
    }

    fn step(&mut self, now_ns: u64, step: &Step<'_>) -> Stepped {
        let hit = match self.held(now_ns, step.key) {
            Ok(Some(hit)) => hit,
            Ok(None) => {
                let missed = if step.increments { Outcome::IncrMiss } else { Outcome::DecrMiss };
                self.counts.outcome(missed);
                return Stepped::NotFound;
            }
            Err(FeedOwned) => return Stepped::FeedOwned,
        };
        let old_bytes = hit.value_bytes as usize;
        if old_bytes == 0 {
            return Stepped::NonNumeric;
        }
        if step.version != 0 && step.version != hit.version {
            return Stepped::Exists;
        }
        let mut reader = self.table.value(&hit);
        let front = &mut self.scratch[..old_bytes.min(NUMBER_BYTES_MAX)];
        self.table.read(&mut reader, front);
        let Some(old) = number::unsigned(front) else {
            return Stepped::NonNumeric;
        };
        let value = match step.increments {
            true => old.wrapping_add(step.delta),
            false => old.saturating_sub(step.delta),
        };
        let mut digits = [0; number::DIGITS_MAX];
        let count = number::write(value, &mut digits);
        let in_place = count <= old_bytes;
        let bytes = count.max(old_bytes);
        self.scratch[..bytes].fill(b' ');
        self.scratch[..count].copy_from_slice(&digits[..count]);
        let whole = &self.scratch[..bytes];
        let marks = match in_place {
            true => Marks { fetched: hit.was_fetched, stale: hit.is_stale, won: hit.is_won },
            false => Marks::default(),
        };
        let put = Mutation {
            flags: hit.flags,
            expiry_ns: step.expiry_ns.unwrap_or(hit.expiry_ns),
            text_sum: text_sum(step.key, hit.flags, whole),
            marks,
            ..Mutation::new(step.key, Op::Set(whole))
        };
        match self.table.apply(self.table.hash(step.key), &put, now_ns) {
            Ok(version) => {
                let outcome = if step.increments { Outcome::IncrHit } else { Outcome::DecrHit };
                self.counts.outcome(outcome);
                Stepped::To { value, version, before: hit }
            }
            Err(_) => Stepped::NoRoom,
        }
    }
}
