//! The one record of a change. Whatever wants to know what happened to a cache (hot set, journal,
//! replication, warming, write-back) is given this, and [`super::TableWriter::apply`] is the only code
//! that carries it out.

/// What a change does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Stores a value of 0 to [`super::VALUE_BYTES_MAX`] bytes, whatever was there.
    Set(&'a [u8]),
    /// Removes the key.
    Delete,
    /// Gives a value that is there another deadline.
    Touch,
    /// Marks a value that is there as stale, under a new version and deadline: it may still be read,
    /// and one reader is told to fetch it anew (memcached's `md ... I`).
    Invalidate,
}

/// What is noted of a value beside its bytes. A `Set` starts with none unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It was asked for since it was stored.
    pub fetched: bool,
    /// It has been invalidated: it may be read, and should be fetched anew.
    pub stale: bool,
    /// A reader has been told to fetch it anew.
    pub won: bool,
}

/// One change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation<'a> {
    /// Which cache of the node, for those who carry records of several.
    pub cache: u16,
    /// 1 to [`super::KEY_BYTES_MAX`] bytes, any content.
    pub key: &'a [u8],
    /// What happens.
    pub op: Op<'a>,
    /// Version of the result; 0: the next of the key's shard. Given where a record is applied a second
    /// time, elsewhere; then it is higher than any version of the shard.
    pub version: u64,
    /// Of the replica group that ordered the change; 0 where there is none.
    pub epoch: u64,
    /// `CLOCK_MONOTONIC` nanoseconds after which the value is a miss; 0 = never. Of no use to `Delete`.
    pub expiry_ns: u64,
    /// The client's; stored and returned.
    pub flags: u32,
    /// 0 for a client, else the feed channel whose state the value depends on.
    pub channel: u8,
    /// 16 bits of the caller's, stored and returned: the ones'-complement sum of the text that the
    /// value is answered with, so that a reply need not be added up.
    pub text_sum: u16,
    /// What a `Set` notes of its value. A value that is stale or won is kept out of the hot set, whose
    /// answers cannot say so.
    pub marks: Marks,
}

impl<'a> Mutation<'a> {
    /// A change of a client's key; fields that matter to `op` are then set by name.
    pub const fn new(key: &'a [u8], op: Op<'a>) -> Self {
        let marks = Marks { fetched: false, stale: false, won: false };
        Self {
            cache: 0,
            key,
            op,
            version: 0,
            epoch: 0,
            expiry_ns: 0,
            flags: 0,
            channel: 0,
            text_sum: 0,
            marks,
        }
    }
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The key is empty or longer than [`super::KEY_BYTES_MAX`].
    #[error("a key has 1 to 250 bytes")]
    KeyLength,
    /// The value is longer than [`super::VALUE_BYTES_MAX`] or than the shard's memory.
    #[error("object too large for cache")]
    TooLarge,
    /// A client may not change a key that a feed publishes.
    #[error("the key belongs to a feed")]
    FeedOwned,
    /// There is no such key, or no value that may still be used.
    #[error("no such key")]
    NotFound,
}
