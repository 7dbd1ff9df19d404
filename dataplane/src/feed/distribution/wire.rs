//! What a subscriber and a node say to each other beside MoldUDP64: fixed layouts, little-endian.
//! `README.md` of this folder has the same tables with numpy dtypes; a test holds the two together.
//!
//! Everything read here came from the wire: lengths, counts and codes are bounded before use.

mod reply;

use super::super::Symbol;
use super::super::record::Value;

pub use reply::{Reason, Reply, Verdict};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::moldudp64::Session;

    /// Offset and name of each row of a table of the README, which begins after `heading`.
    fn rows(heading: &str) -> Vec<(usize, &'static str)> {
        let text = include_str!("README.md");
        let table = text.split_once(heading).unwrap().1.split_once("| offset").unwrap().1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        cells.map(|cells| (cells[1].parse().unwrap(), cells[2])).collect()
    }

    /// The bytes of a field by the table.
    fn field<'a>(rows: &[(usize, &str)], bytes: &'a [u8], name: &str) -> &'a [u8] {
        let place = rows.iter().position(|(_, known)| *known == name).unwrap();
        let end = rows.get(place + 1).map_or(bytes.len(), |(offset, _)| *offset);
        &bytes[rows[place].0..end]
    }

    #[test]
    fn requests_have_the_layout_of_the_document() {
        let symbols = ["AAPL", "MSFT"].map(|name| Symbol::new(name).unwrap());
        let mut request = Request::to_all(0x0102, Records(0x11), 5);
        (request.mode, request.verb) = (Mode::Conflated, Verb::Renew);
        (request.cookie, request.next_sequence, request.interval_us) = (0x0304, 0x0506, 0x0708);
        let bytes = request.encode(&symbols);
        let rows = rows("Request, 64 bytes");
        let of = |name| field(&rows, &bytes, name);
        assert_eq!(of("magic"), b"NXD1");
        assert_eq!((of("verb"), of("mode")), (&b"R"[..], &b"C"[..]));
        assert_eq!((of("records"), of("depth")), (&[0x11][..], &[5][..]));
        assert_eq!(of("number"), 0x0102u64.to_le_bytes());
        assert_eq!(of("cookie"), 0x0304u64.to_le_bytes());
        assert_eq!(of("next_sequence"), 0x0506u64.to_le_bytes());
        assert_eq!(of("interval_us"), 0x0708u32.to_le_bytes());
        assert_eq!(of("symbols"), 2u16.to_le_bytes());
        assert_eq!(of("symbol"), b"AAPL    MSFT    ");
        let read = Request::parse(&bytes).unwrap();
        assert_eq!((read.verb, read.mode, read.depth), (Verb::Renew, Mode::Conflated, 5));
        assert!(read.symbols().eq(symbols));
    }

    #[test]
    fn replies_have_the_layout_of_the_document() {
        let reply = Reply {
            mode: Mode::Conflated,
            cookie: 0x0304,
            session: Session(*b"0123456789"),
            lease_ms: 0x0506,
            next_sequence: 0x0708,
            first_sequence: 0x090a,
            image_sequence: 0x0b0c,
            ..Reply::new(0x0102, Verdict::Gone, Reason::Slow)
        };
        let bytes = reply.encode();
        let rows = rows("Reply, 64 bytes");
        let of = |name| field(&rows, &bytes, name);
        assert_eq!((of("magic"), of("verdict"), of("mode")), (&b"NXR1"[..], &b"G"[..], &b"C"[..]));
        assert_eq!(of("reason"), [10]);
        assert_eq!(of("number"), 0x0102u64.to_le_bytes());
        assert_eq!(of("cookie"), 0x0304u64.to_le_bytes());
        assert_eq!(of("session"), b"0123456789");
        assert_eq!(of("lease_ms"), 0x0506u16.to_le_bytes());
        assert_eq!(of("next_sequence"), 0x0708u64.to_le_bytes());
        assert_eq!(of("first_sequence"), 0x090au64.to_le_bytes());
        assert_eq!(of("image_sequence"), 0x0b0cu64.to_le_bytes());
        assert_eq!(Reply::parse(&bytes), Some(reply));
        assert_eq!(Reply::parse(&bytes[..63]), None);
    }

    #[test]
    fn heads_have_the_layout_of_the_document() {
        let bytes = head(Kind::Image, FLAG_IMAGE | FLAG_SUSPECT, 0x0102);
        let rows = rows("## Messages");
        let of = |name| field(&rows, &bytes, name);
        assert_eq!((of("kind"), of("flags")), (&b"I"[..], &[3][..]));
        assert_eq!(of("left_out"), 0x0102u32.to_le_bytes());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = Request::to_all(1, Records(1), 0).encode(&[]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Request::parse(&bytes).err()
        };
        assert_eq!(with(3, b'2'), Some(Reason::Version));
        for (at, byte) in [(0, b'M'), (4, b'X'), (5, b'X'), (36, 1), (37, 1)] {
            assert_eq!(with(at, byte), Some(Reason::Malformed), "{at}");
        }
        assert_eq!(Request::parse(&good[..63]).err(), Some(Reason::Malformed));
        assert_eq!(Request::parse(&[&good[..], &[0]].concat()).err(), Some(Reason::Malformed));
        let many = [Symbol(*b"A       "); SYMBOLS_MAX + 1];
        let request = Request::to_all(1, Records(1), 0);
        assert_eq!(Request::parse(&request.encode(&many)).err(), Some(Reason::Malformed));
        assert!(Request::parse(&request.encode(&many[1..])).is_ok());
    }
}
