//! What a subscriber and a node say to each other beside MoldUDP64: fixed layouts, little-endian.
//! `README.md` of this folder has the same tables with numpy dtypes; a test holds the two together.
//!
//! Everything read here came from the wire: lengths, counts and codes are bounded before use.

use super::super::Symbol;
use super::super::moldudp64::Session;
use super::super::record::Value;

/// What a request begins with: protocol and version.
pub const REQUEST_MAGIC: [u8; 4] = *b"NXD1";

/// What a reply begins with.
pub const REPLY_MAGIC: [u8; 4] = *b"NXR1";

/// Bytes of a request without symbols. No reply is longer, so that a forged source is sent no more than
/// was sent in its name.
pub const REQUEST_BYTES: usize = 64;

/// Bytes of a reply.
pub const REPLY_BYTES: usize = 64;

/// Symbols of one subscription. Who wants more subscribes more than once, or to all.
pub const SYMBOLS_MAX: usize = 128;

/// Bytes before the record in each message.
pub const HEAD_BYTES: usize = 8;

/// Bytes of the longest message.
pub const MESSAGE_BYTES_MAX: usize = HEAD_BYTES + super::super::record::depth::DEPTH_BYTES_MAX;

/// Kinds of records, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records(pub u8);

impl Records {
    /// Best bid and offer, last trade, status, statistics and depth of stocks; status and statistics of
    /// the venue.
    pub const ALL: Self = Self(0x7f);

    /// The names that a node file has for them, by bit.
    pub const NAMES: [&str; 7] =
        ["bbo", "last", "status", "stats", "depth", "venue_status", "venue_stats"];

    /// The set of one kind.
    pub fn of(value: Value, is_of_venue: bool) -> Self {
        match (value, is_of_venue) {
            (Value::Status, true) => Self(1 << 5),
            (Value::Statistics, true) => Self(1 << 6),
            _ => Self(1 << value.kind()),
        }
    }

    /// Whether all of `other` are in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record of a stock or of the venue.
    Record(Value, bool),
    /// Whether what was sent may be believed has changed.
    State,
    /// An image begins or ends.
    Image,
    /// The subscription is conflated from here on.
    Mode,
}

impl Kind {
    /// Its code.
    pub fn code(self) -> u8 {
        match self {
            Self::Record(Value::Bbo, _) => b'B',
            Self::Record(Value::Last, _) => b'L',
            Self::Record(Value::Status, false) => b'S',
            Self::Record(Value::Statistics, false) => b'T',
            Self::Record(Value::Depth(_), _) => b'D',
            Self::Record(Value::Status, true) => b'V',
            Self::Record(Value::Statistics, true) => b'W',
            Self::State => b'C',
            Self::Image => b'I',
            Self::Mode => b'M',
        }
    }
}

/// Flag of a message: it belongs to an image, and says nothing new.
pub const FLAG_IMAGE: u8 = 1;
/// Flag of a message: nothing that was sent is to be believed at this time.
pub const FLAG_SUSPECT: u8 = 2;

/// What every message begins with.
pub fn head(kind: Kind, flags: u8, left_out: u32) -> [u8; HEAD_BYTES] {
    let mut head = [kind.code(), flags, 0, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&left_out.to_le_bytes());
    head
}

/// State of what was sent: in a message of 24 bytes, with the time it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is to be believed.
    Suspect = 0,
    /// Everything holds true, until further notice or silence.
    Live = 1,
    /// A session of the venue begins: what was sent of the one before is over.
    Session = 2,
}

/// How a subscription is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every record.
    Full,
    /// The newest record of each kind, once an interval.
    Conflated,
}

impl Mode {
    /// Its code.
    pub fn code(self) -> u8 {
        match self {
            Self::Full => b'F',
            Self::Conflated => b'C',
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        [Self::Full, Self::Conflated].into_iter().find(|mode| mode.code() == code)
    }
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A subscription; renews one that is there.
    Subscribe,
    /// That it goes on.
    Renew,
    /// Its end.
    Unsubscribe,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is wanted.
    pub verb: Verb,
    /// How it is served.
    pub mode: Mode,
    /// Kinds of records.
    pub records: Records,
    /// Levels a side of the depth records, 0 where those are not wanted.
    pub depth: u8,
    /// The subscriber's name for the subscription, its own among those of one address and port.
    pub number: u64,
    /// What the node said to prove that the source is where it says.
    pub cookie: u64,
    /// Number of the next message that the subscriber waits for.
    pub next_sequence: u64,
    /// Microseconds between two records of a kind and stock, where conflated.
    pub interval_us: u32,
    symbols: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request; why it is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reason> {
        let front: &[u8; REQUEST_BYTES] = bytes.first_chunk().ok_or(Reason::Malformed)?;
        if front[..3] != REQUEST_MAGIC[..3] {
            return Err(Reason::Malformed);
        }
        if front[3] != REQUEST_MAGIC[3] {
            return Err(Reason::Version);
        }
        let verb = match front[4] {
            b'S' => Verb::Subscribe,
            b'R' => Verb::Renew,
            b'U' => Verb::Unsubscribe,
            _ => return Err(Reason::Malformed),
        };
        let u64_at = |at: usize| u64::from_le_bytes(front[at..at + 8].try_into().unwrap_or([0; 8]));
        let u32_at = |at: usize| u32::from_le_bytes(front[at..at + 4].try_into().unwrap_or([0; 4]));
        let symbols = usize::from(u16::from_le_bytes([front[36], front[37]]));
        let rest = &bytes[REQUEST_BYTES..];
        if symbols > SYMBOLS_MAX || rest.len() != 8 * symbols {
            return Err(Reason::Malformed);
        }
        Ok(Self {
            verb,
            mode: Mode::of_code(front[5]).ok_or(Reason::Malformed)?,
            records: Records(front[6]),
            depth: front[7],
            number: u64_at(8),
            cookie: u64_at(16),
            next_sequence: u64_at(24),
            interval_us: u32_at(32),
            symbols: rest,
        })
    }

    /// The symbols wanted; none stands for all.
    pub fn symbols(&self) -> impl ExactSizeIterator<Item = Symbol> + 'a {
        let eights = self.symbols.chunks_exact(8);
        eights.map(|bytes| Symbol(bytes.try_into().unwrap_or([b' '; 8])))
    }

    /// Writes a request and returns its bytes: the subscriber's side.
    pub fn encode(&self, symbols: &[Symbol]) -> Vec<u8> {
        let mut out = vec![0; REQUEST_BYTES];
        out[..4].copy_from_slice(&REQUEST_MAGIC);
        out[4] = match self.verb {
            Verb::Subscribe => b'S',
            Verb::Renew => b'R',
            Verb::Unsubscribe => b'U',
        };
        (out[5], out[6], out[7]) = (self.mode.code(), self.records.0, self.depth);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.cookie.to_le_bytes());
        out[24..32].copy_from_slice(&self.next_sequence.to_le_bytes());
        out[32..36].copy_from_slice(&self.interval_us.to_le_bytes());
        out[36..38].copy_from_slice(&(symbols.len() as u16).to_le_bytes());
        out.extend(symbols.iter().flat_map(|symbol| symbol.0));
        out
    }

    /// A request for a subscription to everything, in full.
    pub fn to_all(number: u64, records: Records, depth: u8) -> Self {
        Self {
            verb: Verb::Subscribe,
            mode: Mode::Full,
            records,
            depth,
            number,
            cookie: 0,
            next_sequence: 0,
            interval_us: 0,
            symbols: &[],
        }
    }
}

/// What a node says to a request, or of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is to be sent again with the cookie of this reply.
    Cookie,
    /// The subscription is there.
    Accepted,
    /// It is not, and will not be.
    Refused,
    /// It was, and is over.
    Ended,
    /// What was asked for again is not there any more; an image is on its way.
    Gone,
}

impl Verdict {
    /// Its code.
    pub fn code(self) -> u8 {
        match self {
            Self::Cookie => b'K',
            Self::Accepted => b'A',
            Self::Refused => b'X',
            Self::Ended => b'E',
            Self::Gone => b'G',
        }
    }
}

/// Why a subscription is refused or over. The number is the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// There is nothing to say.
    #[default]
    None = 0,
    /// The request has another layout.
    Malformed = 1,
    /// The request is of another version.
    Version = 2,
    /// No prefix of the source may have anything.
    NotEntitled = 3,
    /// The source may not have records of a kind that is wanted, or none is.
    Records = 4,
    /// More levels than the source may have, or than are published; or none.
    Depth = 5,
    /// The source may not have one of the symbols.
    Symbols = 6,
    /// The node has no room for another subscriber.
    Full = 7,
    /// The source has as many as it may have.
    TooMany = 8,
    /// There is no such subscription, perhaps no more.
    Unknown = 9,
    /// The subscriber did not keep up.
    Slow = 10,
    /// It was not renewed in time.
    Lease = 11,
    /// It was asked for.
    Unsubscribed = 12,
    /// Another subscription has its name.
    Other = 13,
}

impl Reason {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 14] = [
        Self::None,
        Self::Malformed,
        Self::Version,
        Self::NotEntitled,
        Self::Records,
        Self::Depth,
        Self::Symbols,
        Self::Full,
        Self::TooMany,
        Self::Unknown,
        Self::Slow,
        Self::Lease,
        Self::Unsubscribed,
        Self::Other,
    ];
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How the subscription is served.
    pub mode: Mode,
    /// The request's number.
    pub number: u64,
    /// For [`Verdict::Cookie`].
    pub cookie: u64,
    /// MoldUDP64 session of the subscription.
    pub session: Session,
    /// Milliseconds in which it is to be renewed.
    pub lease_ms: u16,
    /// Number of the next message that will be sent.
    pub next_sequence: u64,
    /// Number of the oldest message that can be asked for again.
    pub first_sequence: u64,
    /// Number of the message that began the last image: nothing before it is needed.
    pub image_sequence: u64,
}

impl Reply {
    /// A reply that says no more than this.
    pub fn new(number: u64, verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            mode: Mode::Full,
            number,
            cookie: 0,
            session: Session([0; 10]),
            lease_ms: 0,
            next_sequence: 0,
            first_sequence: 0,
            image_sequence: 0,
        }
    }

    /// The bytes of the reply.
    pub fn encode(&self) -> [u8; REPLY_BYTES] {
        let mut out = [0; REPLY_BYTES];
        out[..4].copy_from_slice(&REPLY_MAGIC);
        (out[4], out[5], out[6]) = (self.verdict.code(), self.reason as u8, self.mode.code());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.cookie.to_le_bytes());
        out[24..34].copy_from_slice(&self.session.0);
        out[34..36].copy_from_slice(&self.lease_ms.to_le_bytes());
        out[40..48].copy_from_slice(&self.next_sequence.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[56..64].copy_from_slice(&self.image_sequence.to_le_bytes());
        out
    }

    /// Reads a reply; `None` when it is none: the subscriber's side.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPLY_BYTES] = bytes.try_into().ok()?;
        if bytes[..4] != REPLY_MAGIC {
            return None;
        }
        let verdicts =
            [Verdict::Cookie, Verdict::Accepted, Verdict::Refused, Verdict::Ended, Verdict::Gone];
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or([0; 8]));
        let mut session = [0; 10];
        session.copy_from_slice(&bytes[24..34]);
        Some(Self {
            verdict: verdicts.into_iter().find(|verdict| verdict.code() == bytes[4])?,
            reason: *Reason::ALL.get(usize::from(bytes[5]))?,
            mode: Mode::of_code(bytes[6])?,
            number: u64_at(8),
            cookie: u64_at(16),
            session: Session(session),
            lease_ms: u16::from_le_bytes([bytes[34], bytes[35]]),
            next_sequence: u64_at(40),
            first_sequence: u64_at(48),
            image_sequence: u64_at(56),
        })
    }
}
