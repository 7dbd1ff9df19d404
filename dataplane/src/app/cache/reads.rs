//! Requests that change nothing, over any table: what the front answers from shared memory. Everything
//! else, and what the table cannot say at this moment, is forwarded to the worker as it came.

use nautilus_shm::table::ReadError;

use super::meta_get::{Facts, Found, find, write_line};
use super::sink::{Line, Sink};
use super::table::{Item, Look, ReadTable, Wants};
use super::{END, META_MISS, META_NOOP, VERSION};
use crate::memcached::parse::{Key, Meta, MetaVerb, words};
use crate::memcached::reply::{VALUE_LINE_BYTES_MAX, write_value_line};
use crate::memcached::{Request, base64};

/// Keys that were found and not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Found.
    pub hits_count: u64,
    /// Not found, or not to be used.
    pub misses_count: u64,
}

/// Why a request must be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// It may change something, or is none that reads.
    Request,
    /// The table cannot be read at this moment. Pieces of an answer may have been given already: they
    /// must be thrown away.
    Table(ReadError),
}

/// Answers `get`, `gets`, `me`, `mn`, `version` and `mg` without side effects.
pub fn answer<T: ReadTable>(
    table: &mut T,
    now_ns: u64,
    request: &Request<'_>,
    sink: &mut impl Sink<T>,
) -> Result<Lookups, Forward> {
    match request {
        Request::Get { keys, with_version } => get(table, now_ns, keys, *with_version, sink),
        Request::Meta(meta) if meta.verb == MetaVerb::Get => meta_get(table, now_ns, meta, sink),
        Request::MetaDebug { key } => meta_debug(table, now_ns, key, sink),
        Request::MetaNoop => {
            sink.text(META_NOOP);
            Ok(Lookups::default())
        }
        Request::Version => {
            sink.text(VERSION);
            Ok(Lookups::default())
        }
        _ => Err(Forward::Request),
    }
}

fn get<T: ReadTable>(
    table: &mut T,
    now_ns: u64,
    keys: &[u8],
    with_version: bool,
    sink: &mut impl Sink<T>,
) -> Result<Lookups, Forward> {
    let mut lookups = Lookups::default();
    let wants = Wants { use_counts: true, ..Wants::default() };
    for key in words(keys) {
        match table.look(key, now_ns, wants) {
            Look::Hit(item, value) => {
                lookups.hits_count += 1;
                write_value(table, key, &item, &value, with_version, sink);
            }
            Look::Miss | Look::Suspect(..) => lookups.misses_count += 1,
            Look::Unavailable(error) => return Err(Forward::Table(error)),
        }
    }
    sink.text(END);
    Ok(lookups)
}

/// One value of an answer to `get`.
pub(super) fn write_value<T: ReadTable>(
    table: &T,
    key: &[u8],
    item: &Item,
    value: &T::Value,
    with_version: bool,
    sink: &mut impl Sink<T>,
) {
    let mut line = [0; VALUE_LINE_BYTES_MAX];
    let version = with_version.then_some(item.version);
    let bytes = write_value_line(key, item.flags, item.value_bytes, version, &mut line);
    sink.text(&line[..bytes]);
    sink.value(table, value);
    sink.text(b"\r\n");
}

fn meta_get<T: ReadTable>(
    table: &mut T,
    now_ns: u64,
    meta: &Meta<'_>,
    sink: &mut impl Sink<T>,
) -> Result<Lookups, Forward> {
    let effects = [meta.expiry_seconds, meta.vivify_seconds, meta.recache_seconds];
    if effects.iter().any(Option::is_some) {
        return Err(Forward::Request);
    }
    let (found, facts) = find(table, now_ns, meta).map_err(Forward::Table)?;
    match found {
        // Somebody must be told to fetch it anew, and that is a change.
        Found::Value(item, _) if item.is_stale && !item.is_won => return Err(Forward::Request),
        Found::Value(item, value) => write_meta_value(table, meta, &item, &value, &facts, sink),
        Found::Nothing => write_meta_miss(meta, &facts, sink),
    }
    let hit = u64::from(matches!(found, Found::Value(..)));
    Ok(Lookups { hits_count: hit, misses_count: 1 - hit })
}

pub(super) fn write_meta_value<T: ReadTable>(
    table: &T,
    meta: &Meta<'_>,
    item: &Item,
    value: &T::Value,
    facts: &Facts,
    sink: &mut impl Sink<T>,
) {
    write_meta_head(meta, item, facts, sink);
    if meta.wants_value {
        sink.value(table, value);
        sink.text(b"\r\n");
    }
}

/// The first line of an answer with a value.
pub(super) fn write_meta_head<T: ReadTable>(
    meta: &Meta<'_>,
    item: &Item,
    facts: &Facts,
    sink: &mut impl Sink<T>,
) {
    let mut line = Line::new(b"HD");
    if meta.wants_value {
        line = Line::new(b"VA ");
        line.number(item.value_bytes.into());
    }
    write_line(&mut line, meta, item, facts);
    line.push(b"\r\n");
    sink.text(line.text());
}

pub(super) fn write_meta_miss<T: ReadTable>(
    meta: &Meta<'_>,
    facts: &Facts,
    sink: &mut impl Sink<T>,
) {
    if meta.quiet {
        return;
    }
    let mut line = Line::new(META_MISS);
    write_echoes(&mut line, meta);
    if facts.is_suspect {
        line.push(b" @s");
    }
    line.push(b"\r\n");
    sink.text(line.text());
}

/// The flags that only repeat what the client said.
pub(super) fn write_echoes(line: &mut Line, meta: &Meta<'_>) {
    for (flag, token) in crate::memcached::parse::flags(meta.flags) {
        write_echo(line, meta, flag, token);
    }
}

/// One of them; whether it was one.
pub(super) fn write_echo(line: &mut Line, meta: &Meta<'_>, flag: u8, token: &[u8]) -> bool {
    match flag {
        b'O' => {
            line.push(b" O");
            line.push(token);
        }
        b'k' => {
            line.push(b" k");
            write_key(line, &meta.key);
            if matches!(meta.key, Key::Binary { .. }) {
                line.push(b" b");
            }
        }
        _ => return false,
    }
    true
}

fn write_key(line: &mut Line, key: &Key<'_>) {
    match key {
        Key::Text(text) => line.push(text),
        Key::Binary { .. } => {
            let mut text = [0; base64::ENCODED_BYTES_MAX];
            let bytes = base64::encode(key.bytes(), &mut text);
            line.push(&text[..bytes]);
        }
    }
}

fn meta_debug<T: ReadTable>(
    table: &mut T,
    now_ns: u64,
    key: &Key<'_>,
    sink: &mut impl Sink<T>,
) -> Result<Lookups, Forward> {
    let wants = Wants { last_access: true, ..Wants::default() };
    let item = match table.look(key.bytes(), now_ns, wants) {
        Look::Hit(item, _) => item,
        Look::Miss | Look::Suspect(..) => {
            sink.text(b"EN\r\n");
            return Ok(Lookups::default());
        }
        Look::Unavailable(error) => return Err(Forward::Table(error)),
    };
    let mut line = Line::new(b"ME ");
    write_key(&mut line, key);
    // memcached 1.6.18 has the sign of a time that is still to come the wrong way round.
    line.push(b" exp=-");
    line.number(if item.expiry_ns == 0 { 1 } else { super::left_seconds(item.expiry_ns, now_ns) });
    line.push(b" la=");
    line.number((now_ns / 1_000_000_000).saturating_sub(item.last_access_s.into()));
    line.push(b" cas=");
    line.number(item.version);
    line.push(if item.was_fetched { b" fetch=yes" } else { b" fetch=no" });
    let cells = nautilus_shm::table::cells_for(key.bytes().len(), item.value_bytes as usize);
    line.push(b" cls=1 size=");
    line.number(u64::from(cells) * super::counts::CELL_BYTES);
    line.push(b"\r\n");
    sink.text(line.text());
    Ok(Lookups::default())
}
