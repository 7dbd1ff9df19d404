//! Lines of the classic protocol: the words behind the verb to a request.

use nautilus_shm::table::KEY_BYTES_MAX;

use super::{Data, Next, Refusal, Request, Store, StoreVerb, arguments, data, length, words};
use crate::memcached::number;

const NO_REPLY: &[u8] = b"noreply";

pub(super) fn get(keys: &[u8], with_version: bool) -> Request<'_> {
    match keys_of(keys) {
        (0, _) => Request::refused(Refusal::Unknown),
        (_, true) => Request::refused(Refusal::KeyTooLong),
        (_, false) => Request::Get { keys, with_version },
    }
}

/// How many keys there are, and whether one is too long.
fn keys_of(keys: &[u8]) -> (usize, bool) {
    words(keys).fold((0, false), |(count, too_long), key| {
        (count + 1, too_long | (key.len() > KEY_BYTES_MAX))
    })
}

pub(super) fn get_and_touch(line: &[u8], with_version: bool) -> Request<'_> {
    let mut keys = line;
    let time = super::take_word(&mut keys);
    if time.is_empty() {
        return Request::refused(Refusal::Unknown);
    }
    let Some(expiry_seconds) = number::signed(time) else {
        return Request::refused(Refusal::ExpiryTime);
    };
    match keys_of(keys) {
        (_, true) => Request::refused(Refusal::KeyTooLong),
        (_, false) => Request::GetAndTouch { keys, expiry_seconds, with_version },
    }
}

pub(super) fn store<'a>(verb: StoreVerb, line: &'a [u8], rest: &'a [u8]) -> Next<'a> {
    let (words, count) = arguments::<6>(line);
    let least = if verb == StoreVerb::Cas { 5 } else { 4 };
    let refused = |refusal, no_reply| Next::Request(Request::Refused { refusal, no_reply }, 0);
    if count != least && count != least + 1 {
        return refused(Refusal::Unknown, false);
    }
    let no_reply = words[count - 1] == NO_REPLY;
    let [key, flags, expiry, bytes, version, _] = words;
    if key.len() > KEY_BYTES_MAX {
        return refused(Refusal::KeyTooLong, no_reply);
    }
    let numbers = (number::unsigned(flags), number::signed(expiry), length(bytes));
    let (Some(flags), Some(expiry_seconds), Some(length)) = numbers else {
        return refused(Refusal::BadFormat, no_reply);
    };
    // memcached keeps the low 32 bits of larger flags.
    let flags = flags as u32;
    let version = match verb {
        StoreVerb::Cas => match number::unsigned(version) {
            Some(version) => version,
            None => return refused(Refusal::BadFormat, no_reply),
        },
        _ => 0,
    };
    match data(length, rest) {
        Ok(Data::Unterminated) => {
            let refusal = Refusal::BadDataChunk;
            Next::Request(Request::Refused { refusal, no_reply }, length + 2)
        }
        Ok(data) => {
            let store = Store { verb, key, flags, expiry_seconds, version, data, no_reply };
            Next::Request(Request::Store(store), length + 2)
        }
        Err(needed) => Next::Incomplete { needed },
    }
}

pub(super) fn delete(line: &[u8]) -> Request<'_> {
    let (words, count) = arguments::<3>(line);
    if !(1..=3).contains(&count) {
        return Request::refused(Refusal::Unknown);
    }
    let key = words[0];
    let no_reply = count > 1 && words[count - 1] == NO_REPLY;
    // A time of 0 is a leftover that clients still send.
    let zero = words[1] == b"0";
    let valid = match count {
        1 => true,
        2 => zero || no_reply,
        _ => zero && no_reply,
    };
    if !valid {
        return Request::Refused { refusal: Refusal::DeleteUsage, no_reply };
    }
    if key.len() > KEY_BYTES_MAX {
        return Request::Refused { refusal: Refusal::KeyTooLong, no_reply };
    }
    Request::Delete { key, no_reply }
}

pub(super) fn arithmetic(line: &[u8], increments: bool) -> Request<'_> {
    let ([key, delta, last], count) = arguments::<3>(line);
    if !(2..=3).contains(&count) {
        return Request::refused(Refusal::Unknown);
    }
    let no_reply = last == NO_REPLY || (count == 2 && delta == NO_REPLY);
    if key.len() > KEY_BYTES_MAX {
        return Request::Refused { refusal: Refusal::KeyTooLong, no_reply };
    }
    match number::unsigned(delta) {
        Some(delta) => Request::Arithmetic { key, delta, increments, no_reply },
        None => Request::Refused { refusal: Refusal::Delta, no_reply },
    }
}

pub(super) fn touch(line: &[u8]) -> Request<'_> {
    let ([key, time, last], count) = arguments::<3>(line);
    if !(2..=3).contains(&count) {
        return Request::refused(Refusal::Unknown);
    }
    let no_reply = last == NO_REPLY || (count == 2 && time == NO_REPLY);
    if key.len() > KEY_BYTES_MAX {
        return Request::Refused { refusal: Refusal::KeyTooLong, no_reply };
    }
    match number::signed(time) {
        Some(expiry_seconds) => Request::Touch { key, expiry_seconds, no_reply },
        None => Request::Refused { refusal: Refusal::ExpiryTime, no_reply },
    }
}

pub(super) fn flush_all(line: &[u8]) -> Request<'_> {
    let (words, count) = arguments::<2>(line);
    if count > 2 {
        return Request::refused(Refusal::Unknown);
    }
    let no_reply = count > 0 && words[count - 1] == NO_REPLY;
    if count == usize::from(no_reply) {
        return Request::FlushAll { delay_seconds: 0, no_reply };
    }
    match number::signed(words[0]) {
        Some(delay_seconds) => Request::FlushAll { delay_seconds, no_reply },
        None => Request::Refused { refusal: Refusal::ExpiryTime, no_reply },
    }
}

pub(super) fn stats(line: &[u8]) -> Request<'_> {
    let topic = words(line).next().unwrap_or_default();
    match topic {
        b"" | b"reset" | b"settings" | b"items" | b"slabs" | b"sizes" => Request::Stats { topic },
        b"cachedump" => Request::refused(Refusal::CacheDump),
        _ => Request::refused(Refusal::Unknown),
    }
}

pub(super) fn verbosity(line: &[u8]) -> Request<'_> {
    let (words, count) = arguments::<2>(line);
    if !(1..=2).contains(&count) {
        return Request::refused(Refusal::Unknown);
    }
    let no_reply = words[count - 1] == NO_REPLY;
    match number::unsigned(words[0]) {
        Some(_) => Request::Verbosity { no_reply },
        None => Request::Refused { refusal: Refusal::BadFormat, no_reply },
    }
}
