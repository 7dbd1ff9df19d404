//! What a client can ask for.

use super::{Key, Meta, Refusal};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `get` or `gets`; at least one key, each of 1 to 250 bytes.
    Get {
        /// The keys, divided by spaces; see [`super::words`].
        keys: &'a [u8],
        /// Whether to return versions.
        with_version: bool,
    },
    /// `gat` or `gats`; keys as in `get`, but there may be none.
    GetAndTouch {
        /// The keys.
        keys: &'a [u8],
        /// memcached's expiry time; see [`crate::memcached::expiry`].
        expiry_seconds: i64,
        /// Whether to return versions.
        with_version: bool,
    },
    /// `set`, `add`, `replace`, `append`, `prepend` or `cas`.
    Store(Store<'a>),
    /// `delete`
    Delete {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `incr` or `decr`
    Arithmetic {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// How much is added or taken away.
        delta: u64,
        /// Whether it is added.
        increments: bool,
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `touch`
    Touch {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// memcached's expiry time.
        expiry_seconds: i64,
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `flush_all`
    FlushAll {
        /// When, as an expiry time; 0 and negative: at once.
        delay_seconds: i64,
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `stats`
    Stats {
        /// What about; empty for the general ones.
        topic: &'a [u8],
    },
    /// `version`
    Version,
    /// `verbosity`; accepted, of no effect.
    Verbosity {
        /// Whether to stay silent.
        no_reply: bool,
    },
    /// `quit`: no answer, nothing more of this text.
    Quit,
    /// `mg`, `ms`, `md` or `ma`.
    Meta(Meta<'a>),
    /// `me`
    MetaDebug {
        /// The key.
        key: Key<'a>,
    },
    /// `mn`
    MetaNoop,
    /// A line that is answered with an error, unless `no_reply`.
    Refused {
        /// The error.
        refusal: Refusal,
        /// Whether to stay silent.
        no_reply: bool,
    },
}

impl Request<'_> {
    pub(super) const fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal, no_reply: false }
    }
}

/// A storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Which.
    pub verb: StoreVerb,
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// memcached's expiry time.
    pub expiry_seconds: i64,
    /// The version that `cas` demands; 0 otherwise.
    pub version: u64,
    /// The value.
    pub data: Data<'a>,
    /// Whether to stay silent.
    pub no_reply: bool,
}

/// The verbs that store a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    /// Whatever is there.
    Set,
    /// Only if nothing is.
    Add,
    /// Only if something is.
    Replace,
    /// Behind what is there.
    Append,
    /// Before what is there.
    Prepend,
    /// Only if what is there has a certain version.
    Cas,
}

/// The data of a storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// All of it, without the line end.
    Whole(&'a [u8]),
    /// More than a value can be.
    TooLarge,
    /// It does not end where the line said. Never in a request: it is refused.
    Unterminated,
}

/// What stands at the front of a text.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and nothing is boxed"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A request and how many bytes it takes, line and data. They can be more than the text has: the
    /// rest is data that is still to come and must be skipped unread.
    Request(Request<'a>, usize),
    /// A request that is not all there.
    Incomplete {
        /// Bytes that are missing at least, 1 or more.
        needed: usize,
    },
    /// A line that no client sends: there is no telling where the next request begins.
    Unreadable,
}

impl<'a> Request<'a> {
    /// The key, or the first of several; `None` for a request without.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get { keys, .. } | Self::GetAndTouch { keys, .. } => super::words(keys).next(),
            Self::Store(store) => Some(store.key),
            Self::Delete { key, .. } | Self::Arithmetic { key, .. } | Self::Touch { key, .. } => {
                Some(key)
            }
            Self::Meta(meta) => Some(meta.key.bytes()),
            Self::MetaDebug { key } => Some(key.bytes()),
            _ => None,
        }
    }
}
