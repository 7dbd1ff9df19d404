//! `:bbo` and `:last` of a venue that says its quotes itself: the layouts of [`BboRecord`](super::BboRecord) and
//! [`LastRecord`](super::LastRecord), with prices of 64 bits and no orders.

use super::{
    BBO_BYTES, FLAG_BROKEN, FLAG_CROSSED, FLAG_OFF_HOURS, FLAG_UNAVAILABLE, LAST_BYTES, Origin,
    Reader, Writer,
};
use crate::feed::iex::{Quote, TopsTrade};

/// What `kind` of a last trade says.
pub const KIND_TRADE: u8 = b'T';

/// The best bid/offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteRecord {
    /// Where it comes from. Its flags are those of the session; the quote's own are added.
    pub origin: Origin,
    /// The quote.
    pub quote: Quote,
}

/// The last trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeRecord {
    /// Where it comes from.
    pub origin: Origin,
    /// The trade; its time is the origin's.
    pub trade: TopsTrade,
}

impl QuoteRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; BBO_BYTES] {
        let mut out = [0; BBO_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let quote = self.quote;
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        let flags = flag(quote.is_crossed(), FLAG_CROSSED)
            | flag(quote.is_unavailable, FLAG_UNAVAILABLE)
            | flag(quote.is_off_hours, FLAG_OFF_HOURS);
        self.origin.write(&mut writer, BBO_BYTES, flags);
        writer.put([0; 6]);
        writer.put(quote.bid_price.to_le_bytes());
        writer.put(quote.ask_price.to_le_bytes());
        writer.put(quote.bid_size.to_le_bytes());
        writer.put(quote.ask_size.to_le_bytes());
        // How many orders that are is not said.
        writer.put([0; 8]);
        debug_assert_eq!(writer.at, 88);
        out
    }

    /// Reads a record of any protocol; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, BBO_BYTES)?;
        reader.get::<6>();
        let quote = Quote {
            bid_price: reader.u64(),
            ask_price: reader.u64(),
            bid_size: reader.u32(),
            ask_size: reader.u32(),
            is_unavailable: origin.flags & FLAG_UNAVAILABLE != 0,
            is_off_hours: origin.flags & FLAG_OFF_HOURS != 0,
        };
        Some(Self { origin, quote })
    }
}

impl TradeRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; LAST_BYTES] {
        let mut out = [0; LAST_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let TopsTrade { price, size, conditions, broken, trade_id, .. } = self.trade;
        self.origin.write(&mut writer, LAST_BYTES, if broken { FLAG_BROKEN } else { 0 });
        // The side of the resting order is not said.
        writer.put([KIND_TRADE, b' ']);
        writer.put(size.to_le_bytes());
        writer.put(price.to_le_bytes());
        writer.put(trade_id.to_le_bytes());
        writer.put([conditions]);
        debug_assert_eq!(writer.at, 73);
        out
    }

    /// Reads a record of this venue; `None` when length, layout version or kind are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, LAST_BYTES)?;
        let [kind, _] = reader.get();
        let trade = TopsTrade {
            size: reader.u32(),
            price: reader.u64(),
            trade_id: reader.u64(),
            conditions: reader.get::<1>()[0],
            broken: origin.flags & FLAG_BROKEN != 0,
            exchange_ns: origin.exchange_ns,
        };
        (kind == KIND_TRADE).then_some(Self { origin, trade })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Symbol;
    use crate::feed::moldudp64::Session;

    fn origin(flags: u16) -> Origin {
        Origin {
            locate: 0,
            flags,
            source_sequence: 3,
            capture_ns: 4,
            exchange_ns: 5,
            symbol: Symbol(*b"ATSG    "),
            session: Session(*b"4496000001"),
        }
    }

    #[test]
    fn quote_and_trade_lie_where_the_table_says_and_prices_have_64_bits() {
        let quote = Quote {
            bid_price: 7_400_000_000,
            ask_price: 7_300_000_000,
            bid_size: 100,
            ask_size: u32::MAX,
            is_unavailable: true,
            is_off_hours: true,
        };
        let bytes = QuoteRecord { origin: origin(1), quote }.encode();
        assert_eq!(bytes[..8], [1, 0, 96, 0, 0, 0, 1 + 8 + 16 + 32, 0]);
        assert_eq!(&bytes[32..50], b"ATSG    4496000001");
        assert_eq!(bytes[56..64], 7_400_000_000u64.to_le_bytes());
        assert_eq!(bytes[64..72], 7_300_000_000u64.to_le_bytes());
        assert_eq!(bytes[72..88], [100, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        let read = QuoteRecord::decode(&bytes).unwrap();
        assert_eq!((read.quote, read.origin.flags), (quote, 57));

        let trade = TopsTrade {
            price: 7_400_000_000,
            size: 90,
            conditions: 0xa8,
            broken: true,
            trade_id: 27_129,
            exchange_ns: 5,
        };
        let bytes = TradeRecord { origin: origin(FLAG_BROKEN), trade }.encode();
        assert_eq!(bytes[..8], [1, 0, 80, 0, 0, 0, 4, 0]);
        assert_eq!(bytes[50..56], [b'T', b' ', 90, 0, 0, 0]);
        assert_eq!(bytes[56..64], 7_400_000_000u64.to_le_bytes());
        assert_eq!(bytes[64..72], 27_129u64.to_le_bytes());
        assert_eq!(bytes[72..], [0xa8, 0, 0, 0, 0, 0, 0, 0]);
        let read = TradeRecord::decode(&bytes).unwrap();
        assert_eq!(read, TradeRecord { origin: origin(FLAG_BROKEN), trade });
    }
}
