//! `mg`: finding a value, and the flags of its answer.

use nautilus_shm::table::ReadError;

use super::reads::write_echo;
use super::sink::Line;
use super::table::{Item, Look, ReadTable, Wants};
use crate::feed::record;
use crate::memcached::expiry::deadline_ns;
use crate::memcached::parse::{self, Meta};

/// What an answer needs to know beside the value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub now_ns: u64,
    /// `CLOCK_REALTIME - CLOCK_MONOTONIC`; of no use to requests without effects.
    pub realtime_offset_ns: i64,
    /// Capture time (`CLOCK_MONOTONIC` nanoseconds) and source sequence of a feed's record.
    pub origin: Option<record::Capture>,
    pub is_suspect: bool,
    /// Made by this request.
    pub is_new: bool,
    /// This client is told to fetch the value anew.
    pub wins: bool,
}

/// What `mg` has to answer from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<V> {
    Value(Item, V),
    Nothing,
}

/// Looks the key of a `mg` up and judges what it finds by our own flags.
pub(super) fn find<T: ReadTable>(
    table: &mut T,
    now_ns: u64,
    meta: &Meta<'_>,
) -> Result<(Found<T::Value>, Facts), ReadError> {
    let wants =
        Wants { use_counts: !meta.is_no_use, last_access: meta.wants_last_access, suspect: true };
    let mut facts = Facts { now_ns, ..Facts::default() };
    let (item, value) = match table.look(meta.key.bytes(), now_ns, wants) {
        Look::Hit(item, value) => (item, value),
        Look::Suspect(item, value) => {
            facts.is_suspect = true;
            (item, value)
        }
        Look::Miss => return Ok((Found::Nothing, facts)),
        Look::Unavailable(error) => return Err(error),
    };
    if item.channel != 0 {
        let mut front = [0; record::CAPTURE_BYTES];
        let mut reader = table.reader(&value);
        if table.read(&mut reader, &mut front) == front.len() {
            facts.origin = record::Capture::of(&front, item.value_bytes);
        }
    }
    let too_old = meta.own.age_us_max.is_some_and(|bound| age_us(&item, &facts) > bound);
    if too_old || (facts.is_suspect && !meta.own.wants_suspect) {
        return Ok((Found::Nothing, facts));
    }
    Ok((Found::Value(item, value), facts))
}

/// Age of a value: since its capture if it is a feed's record, else since it was stored.
fn age_us(item: &Item, facts: &Facts) -> u64 {
    let since_us = facts.origin.map_or(item.written_us, |origin| origin.capture_ns / 1_000);
    (facts.now_ns / 1_000).saturating_sub(since_us)
}

/// What the flags do to a value that is there or was made, in their order.
pub(super) struct Effects {
    /// The deadline afterwards.
    pub expiry_ns: u64,
    /// Whether this client is told to fetch it anew.
    pub wins: bool,
}

impl Effects {
    /// `item` is the value before, `None` if it is made by this request.
    pub fn of(meta: &Meta<'_>, item: Option<&Item>, now_ns: u64, realtime_offset_ns: i64) -> Self {
        let deadline =
            |seconds: Option<i64>| deadline_ns(seconds.unwrap_or(0), now_ns, realtime_offset_ns);
        let is_won = item.is_some_and(|item| item.is_won);
        let mut expiry_ns = item.map_or(0, |item| item.expiry_ns);
        let mut wins = item.is_none() || item.is_some_and(|item| item.is_stale && !item.is_won);
        for (flag, _) in parse::flags(meta.flags) {
            match flag {
                b'T' => expiry_ns = deadline(meta.expiry_seconds),
                b'N' if item.is_none() => expiry_ns = deadline(meta.vivify_seconds),
                b'R' if item.is_some() && !is_won && expiry_ns != 0 => {
                    // Compared as `t` shows them, in whole seconds.
                    let bound_ns = deadline(meta.recache_seconds);
                    let left_s = super::left_seconds(expiry_ns, now_ns);
                    wins |= left_s < super::left_seconds(bound_ns, now_ns);
                }
                _ => {}
            }
        }
        Self { expiry_ns, wins }
    }
}

/// The flags of an answer with a value, in the order in which they were asked for.
pub(super) fn write_line(line: &mut Line, meta: &Meta<'_>, item: &Item, facts: &Facts) {
    let deadline = |seconds: Option<i64>| {
        deadline_ns(seconds.unwrap_or(0), facts.now_ns, facts.realtime_offset_ns)
    };
    let mut expiry_ns = item.expiry_ns;
    for (flag, token) in parse::flags(meta.flags) {
        if write_echo(line, meta, flag, token) {
            continue;
        }
        match flag {
            b'T' => expiry_ns = deadline(meta.expiry_seconds),
            b'N' if facts.is_new => expiry_ns = deadline(meta.vivify_seconds),
            b's' => line.flag(b" s", item.value_bytes.into()),
            b't' => write_left(line, expiry_ns, facts.now_ns),
            b'c' => line.flag(b" c", item.version),
            b'f' => line.flag(b" f", item.flags.into()),
            b'h' => line.flag(b" h", item.was_fetched.into()),
            b'l' => {
                let now_s = facts.now_ns / 1_000_000_000;
                line.flag(b" l", now_s.saturating_sub(item.last_access_s.into()));
            }
            b'@' => write_own(line, token, item, facts),
            _ => {}
        }
    }
    if item.is_won {
        line.push(b" Z");
    }
    if item.is_stale {
        line.push(b" X");
    }
    if facts.wins {
        line.push(b" W");
    }
    if facts.is_suspect {
        line.push(b" @s");
    }
}

/// The time a value has left.
pub(super) fn write_left(line: &mut Line, expiry_ns: u64, now_ns: u64) {
    match expiry_ns {
        0 => line.push(b" t-1"),
        _ => line.flag(b" t", super::left_seconds(expiry_ns, now_ns)),
    }
}

fn write_own(line: &mut Line, token: &[u8], item: &Item, facts: &Facts) {
    match (token, facts.origin) {
        (b"v", _) => line.flag(b" @v", item.version),
        (b"a", _) => line.flag(b" @a", age_us(item, facts)),
        (b"c", Some(origin)) => line.flag(b" @c", origin.capture_ns),
        (b"n", Some(origin)) => line.flag(b" @n", origin.source_sequence),
        _ => {}
    }
}
