//! The values of `md:{venue}:{symbol}:bbo`, `:last`, `:status`, `:stats` and `:depthN`, and of `md:{venue}:status`
//! and `md:{venue}:stats`: fixed layouts, little-endian, layout version first. `README.md` beside this file has the same tables with numpy
//! dtypes; a test holds the two together.
//!
//! A record describes one symbol after one packet: several changes inside a packet give one record.

pub mod depth;
pub mod statistics;
pub mod status;
pub mod tops;

use super::book::{Bbo, LastTrade, Level};
use super::itch::Side;
use super::moldudp64::Session;
use super::{Symbol, Venue};

/// Version of the layouts.
pub const LAYOUT_VERSION: u16 = 1;

/// Bytes of a best bid/offer record.
pub const BBO_BYTES: usize = 96;

/// Bytes of a last trade record.
pub const LAST_BYTES: usize = 80;

/// Flag: the session was joined after its first message, so the book lacks earlier orders.
pub const FLAG_PARTIAL: u16 = 1;
/// Flag: a size did not fit 32 bits and stands at 4,294,967,295.
pub const FLAG_SATURATED: u16 = 2;
/// Flag: the trade was broken by the venue.
pub const FLAG_BROKEN: u16 = 4;
/// Flag: the best bid is not below the best offer. Books of a replay may be so, and those of a halt.
pub const FLAG_CROSSED: u16 = 8;
/// Flag of a best bid/offer: the venue says that the stock is halted, paused, or for another reason not to be
/// traded there.
pub const FLAG_UNAVAILABLE: u16 = 16;
/// Flag of a best bid/offer: the venue says that it is before or after the regular market session.
pub const FLAG_OFF_HOURS: u16 = 32;

const _: () = assert!(BBO_BYTES <= 128 && LAST_BYTES <= 128, "a record is at most 128 bytes");

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Stock locate of the day; 0 where the venue has none.
    pub locate: u16,
    /// See the flags of this module.
    pub flags: u16,
    /// Sequence number, in `session`, of the message that last touched what the record describes; 0 in
    /// a record that only says that the session has none yet.
    pub source_sequence: u64,
    /// When the packet was captured: `CLOCK_MONOTONIC` nanoseconds of this host.
    pub capture_ns: u64,
    /// When the exchange made that message: nanoseconds since midnight of its own day, in New York for every
    /// protocol there is.
    pub exchange_ns: u64,
    /// Symbol, padded with spaces.
    pub symbol: Symbol,
    /// MoldUDP64 session, or what stands for it.
    pub session: Session,
}

/// Bytes of a record that [`Capture::of`] looks at.
pub const CAPTURE_BYTES: usize = 24;

/// When a record was captured and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// As in [`Origin`].
    pub capture_ns: u64,
    /// As in [`Origin`].
    pub source_sequence: u64,
}

impl Capture {
    /// Reads the front of a value of `value_bytes` bytes; `None` for what is no record.
    pub fn of(front: &[u8; CAPTURE_BYTES], value_bytes: u32) -> Option<Self> {
        let mut reader = Reader { bytes: front, at: 0 };
        let (version, bytes) = (reader.u16(), reader.u16());
        if version != LAYOUT_VERSION || u32::from(bytes) != value_bytes {
            return None;
        }
        let _locate_and_flags = (reader.u16(), reader.u16());
        let source_sequence = reader.u64();
        Some(Self { capture_ns: reader.u64(), source_sequence })
    }
}

/// The best bid/offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BboRecord {
    /// Where it comes from.
    pub origin: Origin,
    /// The prices. A side without orders has price, size and order count 0.
    pub bbo: Bbo,
}

/// The last trade, `None` before the first trade of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Where it comes from.
    pub origin: Origin,
    /// The trade.
    pub trade: Option<LastTrade>,
}

/// Writes fields one after the other.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }
}

/// Reads fields one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn get<const N: usize>(&mut self) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        value
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.get())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.get())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.get())
    }
}

/// A size as the record holds it, and whether it had to be cut.
fn size(shares: u64) -> (u32, bool) {
    match u32::try_from(shares) {
        Ok(shares) => (shares, false),
        Err(_) => (u32::MAX, true),
    }
}

impl Origin {
    fn write(&self, writer: &mut Writer<'_>, bytes: usize, flags: u16) {
        writer.put(LAYOUT_VERSION.to_le_bytes());
        writer.put((bytes as u16).to_le_bytes());
        writer.put(self.locate.to_le_bytes());
        writer.put((self.flags | flags).to_le_bytes());
        writer.put(self.source_sequence.to_le_bytes());
        writer.put(self.capture_ns.to_le_bytes());
        writer.put(self.exchange_ns.to_le_bytes());
        writer.put(self.symbol.0);
        writer.put(self.session.0);
    }

    fn read(reader: &mut Reader<'_>, bytes: usize) -> Option<Self> {
        if reader.bytes.len() != bytes
            || reader.u16() != LAYOUT_VERSION
            || usize::from(reader.u16()) != bytes
        {
            return None;
        }
        Some(Self {
            locate: reader.u16(),
            flags: reader.u16(),
            source_sequence: reader.u64(),
            capture_ns: reader.u64(),
            exchange_ns: reader.u64(),
            symbol: Symbol(reader.get()),
            session: Session(reader.get()),
        })
    }
}

impl BboRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; BBO_BYTES] {
        let mut out = [0; BBO_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let (bid, ask) = (self.bbo.bid.unwrap_or_default(), self.bbo.ask.unwrap_or_default());
        let (bid_size, bid_cut) = size(bid.shares);
        let (ask_size, ask_cut) = size(ask.shares);
        let flags = if bid_cut || ask_cut { FLAG_SATURATED } else { 0 };
        self.origin.write(&mut writer, BBO_BYTES, flags);
        writer.put([0; 6]);
        writer.put(u64::from(bid.price).to_le_bytes());
        writer.put(u64::from(ask.price).to_le_bytes());
        writer.put(bid_size.to_le_bytes());
        writer.put(ask_size.to_le_bytes());
        writer.put(bid.orders.to_le_bytes());
        writer.put(ask.orders.to_le_bytes());
        debug_assert_eq!(writer.at, 88);
        out
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, BBO_BYTES)?;
        reader.get::<6>();
        let (bid_price, ask_price) = (reader.u64() as u32, reader.u64() as u32);
        let (bid_size, ask_size) = (u64::from(reader.u32()), u64::from(reader.u32()));
        let (bid_orders, ask_orders) = (reader.u32(), reader.u32());
        let level =
            |price, shares, orders| (orders != 0).then_some(Level { price, orders, shares });
        let bid = level(bid_price, bid_size, bid_orders);
        let ask = level(ask_price, ask_size, ask_orders);
        Some(Self { origin, bbo: Bbo { bid, ask } })
    }
}

impl LastRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; LAST_BYTES] {
        let mut out = [0; LAST_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let (shares, cut) = size(self.trade.map_or(0, |trade| trade.shares));
        let broken = self.trade.is_some_and(|trade| trade.broken);
        let flags = if cut { FLAG_SATURATED } else { 0 } | if broken { FLAG_BROKEN } else { 0 };
        self.origin.write(&mut writer, LAST_BYTES, flags);
        writer.put([self.trade.map_or(0, |trade| trade.kind)]);
        let side = self.trade.and_then(|trade| trade.side);
        writer.put([side.map_or(b' ', |side| side.code().0)]);
        writer.put(shares.to_le_bytes());
        writer.put(self.trade.map_or(0, |trade| u64::from(trade.price)).to_le_bytes());
        writer.put(self.trade.map_or(0, |trade| trade.match_number).to_le_bytes());
        debug_assert_eq!(writer.at, 72);
        out
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, LAST_BYTES)?;
        let [kind, side] = reader.get();
        let trade = LastTrade {
            kind,
            side: match side {
                b'B' => Some(Side::Buy),
                b'S' => Some(Side::Sell),
                _ => None,
            },
            broken: origin.flags & FLAG_BROKEN != 0,
            shares: u64::from(reader.u32()),
            price: reader.u64() as u32,
            match_number: reader.u64(),
            exchange_ns: origin.exchange_ns,
        };
        Some(Self { origin, trade: (kind != 0).then_some(trade) })
    }
}

/// Which of a symbol's values a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `:bbo`
    Bbo,
    /// `:last`
    Last,
    /// `:status`
    Status,
    /// `:stats`
    Statistics,
    /// `:depth1` to `:depth10`: levels a side.
    Depth(u8),
}

impl Value {
    /// How many kinds there are.
    pub const KINDS: usize = 5;

    /// Which kind it is, below [`Self::KINDS`].
    pub fn kind(self) -> usize {
        match self {
            Self::Bbo => 0,
            Self::Last => 1,
            Self::Status => 2,
            Self::Statistics => 3,
            Self::Depth(_) => 4,
        }
    }

    fn suffix(self) -> &'static [u8] {
        const DEPTHS: [&[u8]; depth::DEPTH_MAX + 1] = [
            b":depth0",
            b":depth1",
            b":depth2",
            b":depth3",
            b":depth4",
            b":depth5",
            b":depth6",
            b":depth7",
            b":depth8",
            b":depth9",
            b":depth10",
        ];
        match self {
            Self::Bbo => b":bbo",
            Self::Last => b":last",
            Self::Status => b":status",
            Self::Statistics => b":stats",
            Self::Depth(levels) => DEPTHS[usize::from(levels).min(depth::DEPTH_MAX)],
        }
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Locate and symbol of a stock; `None`: the venue itself.
    pub stock: Option<(u16, Symbol)>,
    /// What of it.
    pub value: Value,
}

/// Longest key: `md:` venue `:` symbol `:depth10`.
const KEY_BYTES_MAX: usize = 3 + super::symbol::VENUE_BYTES_MAX + 1 + 8 + 8;

/// One key, built on the stack.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
}

impl Key {
    /// `md:{venue}:{symbol}:{value}`, or `None` when the symbol cannot stand in a key.
    pub fn new(venue: &Venue, symbol: Symbol, value: Value) -> Option<Self> {
        let parts = [b"md:", venue.as_bytes(), b":", symbol.name()?, value.suffix()];
        Some(Self::of_parts(&parts))
    }

    /// `md:{venue}:status` or `md:{venue}:stats`.
    pub fn of_venue(venue: &Venue, value: Value) -> Self {
        Self::of_parts(&[b"md:", venue.as_bytes(), value.suffix()])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut key = Self { bytes: [0; KEY_BYTES_MAX], length: 0 };
        for part in parts {
            key.bytes[key.length..key.length + part.len()].copy_from_slice(part);
            key.length += part.len();
        }
        key
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(flags: u16) -> Origin {
        Origin {
            locate: 0x0102,
            flags,
            source_sequence: 3,
            capture_ns: 4,
            exchange_ns: 5,
            symbol: Symbol(*b"AAPL    "),
            session: Session(*b"000010059B"),
        }
    }

    #[test]
    fn a_best_bid_and_offer_lies_where_the_table_says() {
        let bid = Level { price: 1_509_400, orders: 7, shares: 100 };
        let ask = Level { price: 1_509_500, orders: 8, shares: 1 << 33 };
        let record =
            BboRecord { origin: origin(FLAG_PARTIAL), bbo: Bbo { bid: Some(bid), ask: Some(ask) } };
        let bytes = record.encode();
        assert_eq!(bytes[..8], [1, 0, 96, 0, 2, 1, 3, 0]);
        assert_eq!(
            bytes[8..32],
            [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(&bytes[32..50], b"AAPL    000010059B");
        assert_eq!(bytes[56..64], 1_509_400u64.to_le_bytes());
        assert_eq!(bytes[64..72], 1_509_500u64.to_le_bytes());
        assert_eq!(bytes[72..80], [100, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(bytes[80..88], [7, 0, 0, 0, 8, 0, 0, 0]);
        let read = BboRecord::decode(&bytes).unwrap();
        assert_eq!(read.bbo.bid, Some(bid));
        assert_eq!(read.bbo.ask.unwrap().shares, u64::from(u32::MAX));
        assert_eq!(read.origin, origin(FLAG_PARTIAL | FLAG_SATURATED));
    }

    #[test]
    fn a_last_trade_lies_where_the_table_says() {
        let trade = LastTrade {
            kind: b'C',
            side: Some(Side::Sell),
            broken: true,
            price: 21_200,
            shares: 90,
            match_number: 27_129,
            exchange_ns: 5,
        };
        let record = LastRecord { origin: origin(FLAG_BROKEN), trade: Some(trade) };
        let bytes = record.encode();
        assert_eq!(bytes[..8], [1, 0, 80, 0, 2, 1, 4, 0]);
        assert_eq!(bytes[50..56], [b'C', b'S', 90, 0, 0, 0]);
        assert_eq!(bytes[56..64], 21_200u64.to_le_bytes());
        assert_eq!(bytes[64..72], 27_129u64.to_le_bytes());
        assert_eq!(LastRecord::decode(&bytes), Some(record));
    }

    #[test]
    fn empty_records_say_so_and_other_layouts_are_refused() {
        let empty = BboRecord { origin: origin(0), bbo: Bbo::default() };
        assert_eq!(BboRecord::decode(&empty.encode()), Some(empty));
        let none = LastRecord { origin: origin(0), trade: None };
        assert_eq!(LastRecord::decode(&none.encode()), Some(none));

        let mut bytes = empty.encode();
        assert_eq!(BboRecord::decode(&bytes[1..]), None);
        assert_eq!(LastRecord::decode(&bytes), None);
        bytes[0] = 2;
        assert_eq!(BboRecord::decode(&bytes), None);
    }

    /// The tables of the README tile their records, and agree on the offsets tested above.
    #[test]
    fn the_readme_has_the_same_tables() {
        let readme = include_str!("README.md");
        for (title, bytes, offsets) in [
            ("`md:{venue}:{symbol}:bbo`, 96", BBO_BYTES, &[("bid_price", 56), ("ask_orders", 84)]),
            ("`md:{venue}:{symbol}:last`, 80", LAST_BYTES, &[("kind", 50), ("match_number", 64)]),
            (
                "`md:{venue}:{symbol}:status`, 272",
                status::STATUS_BYTES,
                &[("halts", 56), ("imbalance_shares", 240)],
            ),
            (
                "`md:{venue}:status`, 128",
                status::VENUE_STATUS_BYTES,
                &[("breach", 51), ("level_3", 120)],
            ),
            (
                "`md:{venue}:{symbol}:stats`, 104",
                statistics::STATISTICS_BYTES,
                &[("orders", 56), ("unknown_breaks", 96)],
            ),
            ("For N = 1, 88 bytes", depth::depth_bytes(1), &[("levels", 50), ("ask_orders", 84)]),
        ] {
            let section = &readme[readme.find(title).expect(title)..];
            let mut end = 0;
            let mut rows = Vec::new();
            for line in section.lines().skip_while(|line| !line.starts_with("| 0 ")) {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let [_, offset, name, numpy, _] = cells[..] else { break };
                assert_eq!(offset, end.to_string(), "{name}");
                let size =
                    numpy.trim_matches('`').trim_start_matches(|c: char| !c.is_ascii_digit());
                end += size.parse::<usize>().expect(numpy);
                rows.push((name, offset.parse::<usize>().expect(offset)));
            }
            assert_eq!(end, bytes, "{title}");
            for row in offsets {
                assert!(rows.contains(row), "{row:?}");
            }
        }
    }

    #[test]
    fn keys_follow_the_schema() {
        let venue = Venue::new("nasdaq").unwrap();
        let key = Key::new(&venue, Symbol(*b"YCBD-A  "), Value::Bbo).unwrap();
        assert_eq!(key.as_bytes(), b"md:nasdaq:YCBD-A:bbo");
        let longest = Venue::new(&"v".repeat(63)).unwrap();
        let key = Key::new(&longest, Symbol(*b"ABCDEFGH"), Value::Depth(10)).unwrap();
        assert_eq!(key.as_bytes().len(), KEY_BYTES_MAX);
        let key = Key::new(&venue, Symbol(*b"AAPL    "), Value::Depth(5)).unwrap();
        assert_eq!(key.as_bytes(), b"md:nasdaq:AAPL:depth5");
        assert_eq!(Key::of_venue(&venue, Value::Status).as_bytes(), b"md:nasdaq:status");
        assert!(Key::new(&venue, Symbol(*b"        "), Value::Bbo).is_none());
    }
}
