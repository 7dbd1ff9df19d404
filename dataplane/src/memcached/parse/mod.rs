//! Text to requests. Words are divided by spaces only, lines end with a line feed that a carriage
//! return may precede; the data of a storage command ends with both. What is wrong with a line is said
//! as memcached 1.6.18 says it, including which refusals `noreply` silences.
//!
//! Requests borrow from the text and nothing is kept between calls, so a datagram and the front part of
//! a stream are parsed by the same code. Work is bounded by the length of the line: data is never
//! looked at but for its last two bytes.

mod classic;
mod first_key;
mod meta;
mod refusal;
mod request;

pub use first_key::{FirstKey, first_key};
pub use meta::{Key, Meta, MetaVerb, Own, flags};
pub use refusal::Refusal;
pub use request::{Data, Next, Request, Store, StoreVerb};

use super::number;
use super::scan::{Words, find};

/// Longest line that may be unfinished, unless it begins with `get` or `gets`. Above it a stream is no
/// memcached client's (2,048 in memcached, too). Too low: long `gat` lines are refused. Too high: noise
/// fills buffers.
pub const LINE_BYTES_MAX: usize = 2_048;

/// Longest unfinished line of a `get` or `gets`. Too low: large multigets are refused. Too high: a
/// connection holds that much memory.
pub const GET_LINE_BYTES_MAX: usize = 65_536;

/// The largest length a storage command may announce (`INT_MAX - 2` in memcached).
const ANNOUNCED_BYTES_MAX: i64 = i32::MAX as i64 - 2;

/// The words of a line.
#[inline]
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    Words::of(line)
}

/// Takes the next request off a text that is not empty.
#[inline]
pub fn next(text: &[u8]) -> Next<'_> {
    next_after(text, 0)
}

/// [`next`] of a text whose first `scanned` bytes are known to hold no line feed: a stream that comes
/// byte by byte is looked at once.
#[inline]
pub fn next_after(text: &[u8], scanned: usize) -> Next<'_> {
    let scanned = scanned.min(text.len());
    let Some(end) = find(&text[scanned..], b'\n') else {
        return unfinished(text);
    };
    let end = scanned + end;
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    line_request(line, &text[end + 1..])
}

fn unfinished(text: &[u8]) -> Next<'_> {
    let start = text.iter().take(100).take_while(|&&byte| byte == b' ').count();
    let command = &text[start..];
    let is_get = command.starts_with(b"get ") || command.starts_with(b"gets ");
    let bytes_max = if is_get { GET_LINE_BYTES_MAX } else { LINE_BYTES_MAX };
    if text.len() > bytes_max { Next::Unreadable } else { Next::Incomplete { needed: 1 } }
}

/// The request of a line and of the data behind it.
#[inline]
fn line_request<'a>(line: &'a [u8], rest: &'a [u8]) -> Next<'a> {
    let mut arguments = line;
    let word = take_word(&mut arguments);
    let alone = |request| Next::Request(request, 0);
    let next = match word {
        b"get" => alone(classic::get(arguments, false)),
        b"gets" => alone(classic::get(arguments, true)),
        b"gat" => alone(classic::get_and_touch(arguments, false)),
        b"gats" => alone(classic::get_and_touch(arguments, true)),
        b"set" => classic::store(StoreVerb::Set, arguments, rest),
        b"add" => classic::store(StoreVerb::Add, arguments, rest),
        b"replace" => classic::store(StoreVerb::Replace, arguments, rest),
        b"append" => classic::store(StoreVerb::Append, arguments, rest),
        b"prepend" => classic::store(StoreVerb::Prepend, arguments, rest),
        b"cas" => classic::store(StoreVerb::Cas, arguments, rest),
        b"delete" => alone(classic::delete(arguments)),
        b"incr" => alone(classic::arithmetic(arguments, true)),
        b"decr" => alone(classic::arithmetic(arguments, false)),
        b"touch" => alone(classic::touch(arguments)),
        b"flush_all" => alone(classic::flush_all(arguments)),
        b"stats" => alone(classic::stats(arguments)),
        b"version" => alone(Request::Version),
        b"verbosity" => alone(classic::verbosity(arguments)),
        b"quit" => alone(Request::Quit),
        b"mg" => alone(meta::request(MetaVerb::Get, arguments)),
        b"md" => alone(meta::request(MetaVerb::Delete, arguments)),
        b"ma" => alone(meta::request(MetaVerb::Arithmetic, arguments)),
        b"ms" => meta::store(arguments, rest),
        b"me" => alone(meta::debug(arguments)),
        b"mn" => alone(Request::MetaNoop),
        b"shutdown" => alone(Request::refused(Refusal::Shutdown)),
        // A browser, or something that looks for one: it is not talked to.
        _ if words(line).last().is_some_and(|word| word.starts_with(b"HTTP/")) => {
            alone(Request::Quit)
        }
        _ => alone(Request::refused(Refusal::Unknown)),
    };
    let line_bytes = rest.as_ptr() as usize - line.as_ptr() as usize;
    match next {
        Next::Request(request, data_bytes) => Next::Request(request, line_bytes + data_bytes),
        other => other,
    }
}

fn take_word<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    let start = line.iter().position(|&byte| byte != b' ').unwrap_or(line.len());
    let text = &line[start..];
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    *line = &text[end..];
    &text[..end]
}

/// The first `N` words of a line and how many there are in all.
fn arguments<const N: usize>(line: &[u8]) -> ([&[u8]; N], usize) {
    let mut arguments = [&b""[..]; N];
    let mut count = 0;
    for word in words(line) {
        if let Some(argument) = arguments.get_mut(count) {
            *argument = word;
        }
        count += 1;
    }
    (arguments, count)
}

/// A length that a storage command may announce.
fn length(word: &[u8]) -> Option<usize> {
    let length = number::signed(word)?;
    (0..=ANNOUNCED_BYTES_MAX).contains(&length).then_some(length as usize)
}

/// The data of an announced length and its line end, or how many bytes of them are missing.
fn data(length: usize, rest: &[u8]) -> Result<Data<'_>, usize> {
    if length > nautilus_shm::table::VALUE_BYTES_MAX {
        return Ok(Data::TooLarge);
    }
    let whole = rest.get(..length + 2).ok_or(length + 2 - rest.len().min(length + 2))?;
    Ok(whole.strip_suffix(b"\r\n").map_or(Data::Unterminated, Data::Whole))
}

#[cfg(test)]
mod tests;
