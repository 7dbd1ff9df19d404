//! GLIMPSE: the present state of a venue as messages, and the number live data goes on with.
//!
//! Source: Nasdaq "GLIMPSE 5.0". After a SoupBinTCP login for number 1 the server sends the state of
//! its books as sequenced ITCH 5.0 messages and then one Snapshot message:
//!
//! ```text
//!   S                 the last system event
//!   R H Y per stock   directory, trading action, Reg SHO
//!   A | F per order   bids best first, then offers, each price in the order of time
//!   G                 0 'G', 1 sequence number: 20 ASCII characters
//! ```
//!
//! The specification says that the Snapshot message denotes where to begin with the updates of the
//! live feed: its number is that of the first MoldUDP64 message that is *not* in the snapshot. The
//! numbers of the SoupBinTCP session are the snapshot's own and start at 1.
//!
//! [`write_snapshot`] is the server's half, [`SnapshotReader`] the client's.

use super::itch::messages::*;
use super::itch::{Code, Nanoseconds, Price4, Side, Text};
use super::soupbintcp::packet::{NUMBER_BYTES, parse_number};
use super::{Symbol, itch};

/// Type of the message that ends a snapshot.
pub const END_TYPE: u8 = b'G';

/// Its length.
pub const END_BYTES: usize = 1 + NUMBER_BYTES;

/// What one sequenced message of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotItem<'a> {
    /// An ITCH message to apply. Its type may be one that this version of ITCH does not have.
    Message(&'a [u8]),
    /// The snapshot is complete.
    End {
        /// Number of the first live message to apply behind it, at least 1.
        next_sequence: u64,
    },
}

/// Why a snapshot cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A message that is none.
    #[error("snapshot with a message that is none: {0}")]
    Message(#[from] itch::DecodeError),
    /// A message that says what happened, not what is.
    #[error("snapshot with an event of type {:?}", char::from(*.code))]
    Event {
        /// The type byte.
        code: u8,
    },
    /// An end of another length.
    #[error("end of snapshot of {bytes} bytes instead of {END_BYTES}")]
    EndLength {
        /// The length found.
        bytes: usize,
    },
    /// An end without a number from 1 to 2^64 - 1.
    #[error("end of snapshot without a sequence number")]
    EndNumber,
    /// A message behind the end.
    #[error("message behind the end of the snapshot")]
    AfterEnd,
}

/// The client's half: judges the sequenced messages of one snapshot in turn.
#[derive(Clone, Debug, Default)]
pub struct SnapshotReader {
    messages: u64,
    next_sequence: Option<u64>,
}

impl SnapshotReader {
    /// A reader of a snapshot from its first message.
    pub fn new() -> Self {
        Self::default()
    }

    /// ITCH messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Number of the first live message to apply, once the end has come.
    pub fn next_sequence(&self) -> Option<u64> {
        self.next_sequence
    }

    /// What the next sequenced message is. After an error the snapshot is of no use.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<SnapshotItem<'a>, SnapshotError> {
        if self.next_sequence.is_some() {
            return Err(SnapshotError::AfterEnd);
        }
        if let [END_TYPE, number @ ..] = bytes {
            if number.len() != NUMBER_BYTES {
                return Err(SnapshotError::EndLength { bytes: bytes.len() });
            }
            let next_sequence = parse_number(number)
                .filter(|sequence| *sequence != 0)
                .ok_or(SnapshotError::EndNumber)?;
            self.next_sequence = Some(next_sequence);
            return Ok(SnapshotItem::End { next_sequence });
        }
        match Message::decode(bytes) {
            Ok(message) if is_event(&message) => {
                return Err(SnapshotError::Event { code: message.code() });
            }
            // A type that is not known says nothing about the books, as in the live feed.
            Ok(_) | Err(itch::DecodeError::UnknownType { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.messages += 1;
        Ok(SnapshotItem::Message(bytes))
    }
}

/// Whether a message changes orders or reports a trade, which no state consists of.
fn is_event(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::OrderExecuted(_)
            | Message::OrderExecutedWithPrice(_)
            | Message::OrderCancel(_)
            | Message::OrderDelete(_)
            | Message::OrderReplace(_)
            | Message::Trade(_)
            | Message::CrossTrade(_)
            | Message::BrokenTrade(_)
    )
}

/// The message that ends a snapshot. The number is an alphanumeric field: left-justified.
pub fn end_message(next_sequence: u64) -> [u8; END_BYTES] {
    let mut message = [b' '; END_BYTES];
    message[0] = END_TYPE;
    let digits = super::soupbintcp::packet::number(next_sequence);
    let digits = digits.trim_ascii();
    message[1..=digits.len()].copy_from_slice(digits);
    message
}

/// What is known of one stock besides its orders: the last message of each kind, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockState {
    /// The symbol of its orders.
    pub symbol: Symbol,
    /// Stock directory.
    pub directory: [u8; StockDirectory::BYTES],
    /// Trading action.
    pub trading_action: [u8; StockTradingAction::BYTES],
    /// Reg SHO restriction.
    pub reg_sho: [u8; RegShoRestriction::BYTES],
}

/// One resting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingOrder {
    /// Reference number.
    pub reference: u64,
    /// Side.
    pub side: Side,
    /// Shares left.
    pub shares: u32,
    /// Limit price.
    pub price: Price4,
    /// Participant, if the order shows one.
    pub attribution: Option<Text<4>>,
    /// When it took its place.
    pub timestamp: Nanoseconds,
}

/// A venue as a snapshot sees it: standing still after one message and before the next.
pub trait VenueState {
    /// Number the next live message will have.
    fn next_sequence(&self) -> u64;
    /// The last system event, as it was sent.
    fn system_event(&self) -> Option<[u8; SystemEvent::BYTES]>;
    /// The stocks, in the order of their directory messages.
    fn locates(&self) -> impl Iterator<Item = u16>;
    /// What is known of the stock of one of [`Self::locates`].
    fn stock(&self, locate: u16) -> StockState;
    /// Shows its orders: bids best first, then offers best first, of a price the earliest first.
    fn visit_orders(&self, locate: u16, visit: impl FnMut(RestingOrder));
}

/// Gives the messages of the snapshot in order, the end of it last.
pub fn write_snapshot(state: &impl VenueState, mut give: impl FnMut(&[u8])) {
    if let Some(event) = state.system_event() {
        give(&event);
    }
    for locate in state.locates() {
        give(&state.stock(locate).directory);
    }
    for locate in state.locates() {
        let stock = state.stock(locate);
        give(&stock.trading_action);
        give(&stock.reg_sho);
    }
    for locate in state.locates() {
        let symbol = state.stock(locate).symbol;
        state.visit_orders(locate, |order| give_order(locate, symbol, &order, &mut give));
    }
    give(&end_message(state.next_sequence()));
}

fn give_order(locate: u16, symbol: Symbol, order: &RestingOrder, give: &mut impl FnMut(&[u8])) {
    let RestingOrder { reference, side, shares, price, attribution, timestamp } = *order;
    let common = Common { stock_locate: locate, tracking_number: 0, timestamp };
    let side: Code = side.code();
    match attribution {
        None => give(&AddOrder::encode(common, reference, side, shares, symbol, price)),
        Some(mpid) => {
            give(&AddOrderAttributed::encode(common, reference, side, shares, symbol, price, mpid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::book::{BookLimits, Books};

    const SYMBOL: Symbol = Symbol(*b"NAUT    ");

    struct Venue(Vec<RestingOrder>);

    fn common() -> Common {
        Common { stock_locate: 3, tracking_number: 0, timestamp: Nanoseconds(5) }
    }

    impl VenueState for Venue {
        fn next_sequence(&self) -> u64 {
            1_234
        }
        fn system_event(&self) -> Option<[u8; SystemEvent::BYTES]> {
            Some(SystemEvent::encode(common(), Code(b'Q')))
        }
        fn locates(&self) -> impl Iterator<Item = u16> {
            [3].into_iter()
        }
        fn stock(&self, locate: u16) -> StockState {
            assert_eq!(locate, 3);
            let code = Code(b'N');
            StockState {
                symbol: SYMBOL,
                directory: StockDirectory::encode(
                    common(),
                    SYMBOL,
                    code,
                    code,
                    100,
                    code,
                    code,
                    Text(*b"Z "),
                    code,
                    code,
                    code,
                    code,
                    code,
                    0,
                    code,
                ),
                trading_action: StockTradingAction::encode(
                    common(),
                    SYMBOL,
                    Code(b'T'),
                    Code(b' '),
                    Text(*b"    "),
                ),
                reg_sho: RegShoRestriction::encode(common(), SYMBOL, Code(b'0')),
            }
        }
        fn visit_orders(&self, _: u16, visit: impl FnMut(RestingOrder)) {
            self.0.iter().copied().for_each(visit);
        }
    }

    fn order(reference: u64, side: Side, shares: u32, price: u32) -> RestingOrder {
        let attribution = reference.is_multiple_of(2).then_some(Text(*b"NAUT"));
        let (price, timestamp) = (Price4(price), Nanoseconds(reference));
        RestingOrder { reference, side, shares, price, attribution, timestamp }
    }

    #[test]
    fn a_snapshot_gives_the_books_and_where_to_go_on() {
        let venue = Venue(vec![
            order(9, Side::Buy, 100, 500_000),
            order(2, Side::Buy, 50, 500_000),
            order(4, Side::Buy, 10, 490_000),
            order(5, Side::Sell, 70, 510_000),
        ]);
        let mut books = Books::new(BookLimits { orders_max: 8, levels_max: 8, hash_seed: 1 });
        let (mut reader, mut types, mut end) = (SnapshotReader::new(), Vec::new(), None);
        write_snapshot(&venue, |bytes| {
            types.push(bytes[0]);
            match reader.read(bytes).unwrap() {
                SnapshotItem::Message(bytes) => {
                    assert_eq!(books.apply(&Message::decode(bytes).unwrap()).1, None);
                }
                SnapshotItem::End { next_sequence } => end = Some(next_sequence),
            }
        });
        assert_eq!(types, b"SRHYAFFAG");
        assert_eq!((end, reader.next_sequence(), reader.messages()), (Some(1_234), end, 8));
        let bids = books.levels(3, Side::Buy).map(|level| (level.price, level.shares));
        let bids: Vec<_> = bids.collect();
        assert_eq!(bids, [(500_000, 150), (490_000, 10)]);
        assert_eq!(books.bbo(3).ask.map(|level| level.shares), Some(70));
        assert_eq!(books.symbol(3), Some(SYMBOL));
    }

    #[test]
    fn the_end_is_the_specifications_bytes() {
        assert_eq!(end_message(1_234), *b"G1234                ");
        assert_eq!(end_message(u64::MAX), *b"G18446744073709551615");
        let end = SnapshotItem::End { next_sequence: 7 };
        for text in [b"G7                   ", b"G                   7", b"G00000000000000000007"] {
            assert_eq!(SnapshotReader::new().read(text), Ok(end));
        }
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let refused = |bytes: &[u8]| SnapshotReader::new().read(bytes).unwrap_err();
        assert_eq!(refused(b""), SnapshotError::Message(itch::DecodeError::Empty));
        assert!(matches!(refused(b"A1"), SnapshotError::Message(_)));
        assert_eq!(refused(b"G12"), SnapshotError::EndLength { bytes: 3 });
        for text in [b"G                    ", b"G0                   ", b"G12x                 "] {
            assert_eq!(refused(text), SnapshotError::EndNumber);
        }
        for code in *b"ECXDUPQB" {
            let mut message = vec![0; length_of(code).unwrap()];
            message[0] = code;
            assert_eq!(refused(&message), SnapshotError::Event { code });
        }
        assert_eq!(SnapshotReader::new().read(b"znew"), Ok(SnapshotItem::Message(b"znew")));
        let mut reader = SnapshotReader::new();
        reader.read(&end_message(1)).unwrap();
        assert_eq!(reader.read(&end_message(1)), Err(SnapshotError::AfterEnd));
    }
}
