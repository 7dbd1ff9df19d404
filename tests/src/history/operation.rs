//! One operation of a history: what was asked, what was answered, and when.

/// What a client asked of one key, or (`Flush`) of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `get`, `gets`, `mg`, a read of shared memory, a REST read.
    Get,
    /// `set`, with the value's id.
    Set {
        /// Id of the whole value.
        value: u64,
    },
    /// `add`.
    Add {
        /// Id of the whole value.
        value: u64,
    },
    /// `replace`.
    Replace {
        /// Id of the whole value.
        value: u64,
    },
    /// `append` of one piece; see [`value_id`].
    Append {
        /// Id of the piece.
        piece: u64,
    },
    /// `prepend` of one piece.
    Prepend {
        /// Id of the piece.
        piece: u64,
    },
    /// `cas`.
    Cas {
        /// Id of the whole value.
        value: u64,
        /// The version the client had read.
        version: u64,
    },
    /// `incr`. The id of a number is the number.
    Incr {
        /// What is added; wraps at 2^64.
        delta: u64,
    },
    /// `decr`.
    Decr {
        /// What is taken off; stops at 0.
        delta: u64,
    },
    /// `touch` to a deadline beyond the end of the history. One in the past is a `Delete`.
    Touch,
    /// `delete`.
    Delete,
    /// `flush_all` without a delay. Its key is not looked at.
    Flush,
}

/// What the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A value was there.
    Value {
        /// Its id, see [`value_id`].
        value: u64,
        /// Its version, where the path tells.
        version: Option<u64>,
    },
    /// No value was there (to a `Get`).
    Miss,
    /// The value is stored.
    Stored {
        /// Its version, where the path tells.
        version: Option<u64>,
    },
    /// `add`: the key is there; `replace`, `append`, `prepend`: it is not.
    NotStored,
    /// `cas`: the value has another version.
    Exists,
    /// `cas`, `incr`, `decr`, `touch`, `delete`: no such key.
    NotFound,
    /// `incr`, `decr`: the new number.
    Number {
        /// Its id.
        value: u64,
    },
    /// `touch`: the deadline is set.
    Touched,
    /// `delete`: the key is gone.
    Deleted,
    /// `flush_all`: every key is gone.
    Flushed,
    /// An error after which the store is known to be as it was.
    Refused,
}

/// An answer and when it had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The answer.
    pub output: Output,
    /// `CLOCK_MONOTONIC` nanoseconds, read after the answer had arrived.
    pub at_ns: u64,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked; printed.
    pub client: u32,
    /// By which path, a number of the recording test's choice; printed.
    pub path: u8,
    /// Which key.
    pub key: u64,
    /// What was asked.
    pub input: Input,
    /// `CLOCK_MONOTONIC` nanoseconds, read before the request was sent.
    pub invoke_ns: u64,
    /// `None`: no answer. It may have taken effect, or may at any later time, or never.
    pub returned: Option<Returned>,
}

/// What the id of a value is multiplied with before a piece is added.
const PIECE_BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The id of a value made of these pieces, so that ids can follow `append` and `prepend`. The id of a
/// single piece is the piece.
pub fn value_id(pieces: &[u64]) -> u64 {
    pieces.iter().fold(0, |id: u64, &piece| id.wrapping_mul(PIECE_BASE).wrapping_add(piece))
}

/// The id of a value with one more piece behind it.
pub(super) fn appended(id: u64, piece: u64) -> u64 {
    id.wrapping_mul(PIECE_BASE).wrapping_add(piece)
}

/// The id of a value of `pieces` pieces with one more piece before it.
pub(super) fn prepended(id: u64, pieces: u32, piece: u64) -> u64 {
    piece.wrapping_mul(PIECE_BASE.wrapping_pow(pieces)).wrapping_add(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_pieces_at_either_end() {
        assert_eq!(value_id(&[7]), 7);
        assert_eq!(appended(value_id(&[1, 2]), 3), value_id(&[1, 2, 3]));
        assert_eq!(prepended(value_id(&[1, 2]), 2, 3), value_id(&[3, 1, 2]));
        assert_ne!(value_id(&[1, 2]), value_id(&[2, 1]));
    }
}
