//! What a record says, and the line it becomes. `README.md` beside this file has the format.

use aws_lc_rs::digest::{self, SHA256};
use serde::Serialize;

use super::clock::Moment;
use super::json;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Longest text of one field, in bytes. Too low: an object is cut before it is recognised; too high:
/// who sends long paths fills the disk.
const TEXT_BYTES_MAX: usize = 1024;

/// Who did something, or wanted to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// How this is known: `certificate`, `local` (uid by the kernel), `control` or `unknown`.
    pub kind: &'static str,
    /// The certificate's name, `uid 1000`, or what could be learnt.
    pub name: String,
    /// The role it had; empty for none.
    pub role: String,
    /// Where it came from.
    pub address: String,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is allowed and about to be done; a record with the same request id follows.
    Begun,
    /// It was done.
    Done,
    /// It was allowed and did not come to be.
    Failed,
    /// It was not allowed.
    Denied,
}

/// Something that was done, or was to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Who.
    pub actor: Actor,
    /// What: an HTTP method or the name of an action.
    pub verb: String,
    /// To what: a path or a name.
    pub object: String,
    /// How it went.
    pub outcome: Outcome,
    /// Joins the records of one request.
    pub request_id: String,
    /// Why, where there is more to say.
    pub reason: String,
}

impl Entry {
    /// The same with no text longer than the limit.
    pub(super) fn bounded(mut self) -> Self {
        for text in [
            &mut self.actor.name,
            &mut self.actor.address,
            &mut self.verb,
            &mut self.object,
            &mut self.request_id,
            &mut self.reason,
        ] {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self
    }
}

/// What kinds of records there are.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Body<'a> {
    /// The first of each file: which trail this is, the hash before it, and the key of its signatures.
    File { format: u32, trail: &'a str, previous: String, key: &'a str },
    /// A process began to write.
    Start { boot_id: String, pid: u32, version: &'static str },
    /// Somebody did something.
    Action(&'a Entry),
    /// A signature over all so far.
    Checkpoint { head: String, signature: String },
    /// A write was cut short by a crash; what was left of it is gone.
    Repair { file: &'a str, at_bytes: u64, cut_bytes: u64, cut_sha256: String },
    /// The wall clock was moved against the one since boot.
    Clock { step_ns: i64 },
    /// Actions were refused since they could not be recorded.
    Unrecorded { count: u64, reason: &'a str },
    /// The oldest file went; it had been exported.
    Pruned { file: &'a str, next_sequence: u64, last_hash: String },
}

/// What every record of one moment says of it, as it stands behind the number.
pub(super) struct When(String);

impl When {
    /// Of a moment: written once, however many records share it.
    pub fn of(moment: Moment) -> Self {
        Self(format!(r#","time":"{}","boot_ns":{}"#, moment.text(), moment.boot_ns))
    }
}

/// Appends the line of a record; returns its hash.
pub(super) fn push_line(
    line: &mut Vec<u8>,
    previous: &Hash,
    sequence: u64,
    when: &When,
    body: &Body<'_>,
) -> Hash {
    let start = line.len();
    line.resize(start + HASH_DIGITS, b' ');
    line.push(b' ');
    let json_at = line.len();
    line.extend_from_slice(br#"{"sequence":"#);
    // Strings and numbers of ours always serialize, and memory takes every write.
    let _ = serde_json::to_writer(&mut *line, &sequence);
    line.extend_from_slice(when.0.as_bytes());
    // The body goes on with the object that was begun.
    if let Body::Action(entry) = body {
        line.push(b',');
        json::push_action(line, entry);
    } else {
        let body_at = line.len();
        let _ = serde_json::to_writer(&mut *line, body);
        line[body_at] = b',';
    }
    let hash = chained(previous, &line[json_at..]);
    line.push(b'\n');
    for (digits, byte) in line[start..start + HASH_DIGITS].chunks_exact_mut(2).zip(hash) {
        digits.copy_from_slice(&digits_of(byte));
    }
    hash
}

/// Digits of a hash.
const HASH_DIGITS: usize = 2 * size_of::<Hash>();

/// A byte as two lower-case hexadecimal digits.
fn digits_of(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// SHA-256 over the hash before and the bytes of a record.
pub(super) fn chained(previous: &Hash, json: &[u8]) -> Hash {
    let mut context = digest::Context::new(&SHA256);
    context.update(previous);
    context.update(json);
    to_hash(context.finish().as_ref())
}

/// SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> Hash {
    to_hash(digest::digest(&SHA256, bytes).as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(bytes);
    hash
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits_of(*byte)).map(char::from).collect()
}

/// The bytes of hexadecimal text of exactly `N` bytes.
pub(super) fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
