//! What is wrong with a line.

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a command, or with the wrong number of words.
    Unknown,
    /// A number or the length does not parse.
    BadFormat,
    /// A key is longer than 250 bytes.
    KeyTooLong,
    /// `delete` with a word it does not know.
    DeleteUsage,
    /// The data does not end where the line said.
    BadDataChunk,
    /// An expiry time that is no number.
    ExpiryTime,
    /// A delta of `incr` or `decr` that is no number.
    Delta,
    /// `shutdown`, which is the operator's.
    Shutdown,
    /// `mg` with more words than it takes.
    MetaGetWords,
    /// Another meta command with more words than it takes.
    MetaWords,
    /// A meta flag twice.
    DuplicateFlag,
    /// A meta flag that does not exist.
    InvalidFlag,
    /// What is wrong with the flags of `md` and `ma`.
    InvalidOrDuplicateFlag,
    /// A meta flag whose token does not parse.
    Token,
    /// A base64 key that is none.
    KeyDecoding,
    /// A mode of more or less than one character.
    ModeLength,
    /// A mode `ms` does not have.
    StoreMode,
    /// A mode `ma` does not have.
    ArithmeticMode,
    /// An opaque token of more than 31 bytes.
    OpaqueTooLong,
    /// An initial value that is no number.
    InitialValue,
    /// A delta of `ma` that is no number.
    DeltaValue,
    /// `stats cachedump`.
    CacheDump,
}

impl Refusal {
    /// The answer.
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"ERROR\r\n",
            Self::BadFormat | Self::KeyTooLong => b"CLIENT_ERROR bad command line format\r\n",
            Self::DeleteUsage => {
                b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
            }
            Self::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
            Self::ExpiryTime => b"CLIENT_ERROR invalid exptime argument\r\n",
            Self::Delta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
            Self::Shutdown => b"ERROR: shutdown not enabled\r\n",
            Self::MetaGetWords => b"CLIENT_ERROR options flags are too long\r\n",
            Self::MetaWords => b"CLIENT_ERROR options flags too long\r\n",
            Self::DuplicateFlag => b"CLIENT_ERROR duplicate flag\r\n",
            Self::InvalidFlag => b"CLIENT_ERROR invalid flag\r\n",
            Self::InvalidOrDuplicateFlag => b"CLIENT_ERROR invalid or duplicate flag\r\n",
            Self::Token => b"CLIENT_ERROR bad token in command line format\r\n",
            Self::KeyDecoding => b"CLIENT_ERROR error decoding key\r\n",
            Self::ModeLength => b"CLIENT_ERROR incorrect length for M token\r\n",
            Self::StoreMode => b"CLIENT_ERROR invalid mode for ms M token\r\n",
            Self::ArithmeticMode => b"CLIENT_ERROR invalid mode for ma M token\r\n",
            Self::OpaqueTooLong => b"CLIENT_ERROR opaque token too long\r\n",
            Self::InitialValue => b"CLIENT_ERROR invalid numeric initial value\r\n",
            Self::DeltaValue => b"CLIENT_ERROR invalid numeric delta value\r\n",
            Self::CacheDump => b"CLIENT_ERROR stats cachedump not allowed\r\n",
        }
    }
}
