//! The messages that orders and trades are made of, read without a branch on their type.
//!
//! On a busy day nineteen of twenty messages are of eight types in an order nobody can foresee, and a `match`
//! on the type is one branch in two that the processor predicts wrongly: that is most of what decoding costs.
//! Here the type chooses a row of offsets and masks, and every field is read at its offset whatever the type
//! is. A field that a type does not have is 0.
//!
//! ```text
//!   type --> row: length, offset and mask of each field
//!   0      1        3          5           11      19
//!   | type | locate | tracking | timestamp | order | flag, shares, linked, stock, price, attribution at offsets
//! ```
//!
//! Source: NASDAQ "TotalView-ITCH 5.0", sections 1.3 to 1.5.1. [`super::Message`] reads the same bytes type by
//! type, and a test holds the two against each other.

use super::messages::{
    AddOrder, AddOrderAttributed, Common, OrderCancel, OrderDelete, OrderExecuted,
    OrderExecutedWithPrice, OrderReplace, Trade, common,
};
use super::wire::{Code, Price4, Text, Wire};
use crate::feed::Symbol;

/// Bytes that all of them have: to the end of the reference.
const FRONT_BYTES: usize = 19;

/// Where a field is that is not there: in the front, under a mask of 0.
const NOWHERE: u8 = 0;

/// Where the fields of one type are.
#[derive(Clone, Copy)]
struct Row {
    linked_mask: u64,
    stock_mask: u64,
    shares_mask: u32,
    price_mask: u32,
    attribution_mask: u32,
    flag_mask: u8,
    /// 0 of a type that is none of these.
    bytes: u8,
    linked: u8,
    stock: u8,
    shares: u8,
    price: u8,
    attribution: u8,
    flag: u8,
}

impl Row {
    const NONE: Self = Self {
        linked_mask: 0,
        stock_mask: 0,
        shares_mask: 0,
        price_mask: 0,
        attribution_mask: 0,
        flag_mask: 0,
        bytes: 0,
        linked: NOWHERE,
        stock: NOWHERE,
        shares: NOWHERE,
        price: NOWHERE,
        attribution: NOWHERE,
        flag: NOWHERE,
    };

    const fn of(bytes: usize) -> Self {
        Self { bytes: bytes as u8, ..Self::NONE }
    }

    const fn shares(self, at: u8) -> Self {
        assert!(at + 4 <= self.bytes);
        Self { shares: at, shares_mask: u32::MAX, ..self }
    }

    const fn price(self, at: u8) -> Self {
        assert!(at + 4 <= self.bytes);
        Self { price: at, price_mask: u32::MAX, ..self }
    }

    const fn linked(self, at: u8) -> Self {
        assert!(at + 8 <= self.bytes);
        Self { linked: at, linked_mask: u64::MAX, ..self }
    }

    const fn stock(self, at: u8) -> Self {
        assert!(at + 8 <= self.bytes);
        Self { stock: at, stock_mask: u64::MAX, ..self }
    }

    const fn attribution(self, at: u8) -> Self {
        assert!(at + 4 <= self.bytes);
        Self { attribution: at, attribution_mask: u32::MAX, ..self }
    }

    const fn flag(self, at: u8) -> Self {
        assert!(at < self.bytes);
        Self { flag: at, flag_mask: u8::MAX, ..self }
    }
}

/// By type byte.
static ROWS: [Row; 256] = {
    let mut rows = [Row::NONE; 256];
    let add = Row::of(AddOrder::BYTES).flag(19).shares(20).stock(24).price(32);
    rows[AddOrder::TYPE as usize] = add;
    rows[AddOrderAttributed::TYPE as usize] =
        Row { bytes: AddOrderAttributed::BYTES as u8, ..add }.attribution(36);
    rows[OrderExecuted::TYPE as usize] = Row::of(OrderExecuted::BYTES).shares(19).linked(23);
    rows[OrderExecutedWithPrice::TYPE as usize] =
        Row::of(OrderExecutedWithPrice::BYTES).shares(19).linked(23).flag(31).price(32);
    rows[OrderCancel::TYPE as usize] = Row::of(OrderCancel::BYTES).shares(19);
    rows[OrderDelete::TYPE as usize] = Row::of(OrderDelete::BYTES);
    rows[OrderReplace::TYPE as usize] =
        Row::of(OrderReplace::BYTES).linked(19).shares(27).price(31);
    rows[Trade::TYPE as usize] = Row { bytes: Trade::BYTES as u8, ..add }.linked(36);
    rows
};

/// A message about an order: `A`, `F`, `E`, `C`, `X`, `D`, `U` or `P`.
#[derive(Clone, Copy)]
pub struct OrderMessage<'a> {
    front: &'a [u8; FRONT_BYTES],
    bytes: &'a [u8],
    row: &'static Row,
}

impl<'a> OrderMessage<'a> {
    /// A view of `bytes` if they have one of these types and its length.
    #[inline(always)]
    pub fn view(bytes: &'a [u8]) -> Option<Self> {
        let front: &[u8; FRONT_BYTES] = bytes.first_chunk()?;
        let row = &ROWS[usize::from(front[0])];
        (usize::from(row.bytes) == bytes.len()).then_some(Self { front, bytes, row })
    }

    /// The message type byte.
    #[inline(always)]
    pub fn code(&self) -> u8 {
        self.front[0]
    }

    /// Whether it is an order that was not there before: `A` or `F`.
    #[inline(always)]
    pub fn adds(&self) -> bool {
        matches!(self.code(), AddOrder::TYPE | AddOrderAttributed::TYPE)
    }

    /// Fields that all messages share.
    #[inline(always)]
    pub fn common(&self) -> Common {
        common(self.front)
    }

    /// Reference of the order.
    #[inline(always)]
    pub fn order(&self) -> u64 {
        word(self.front, 11)
    }

    /// What it goes on as or is known by: the new reference of a replacement, the match number of an execution
    /// or a trade.
    #[inline(always)]
    pub fn linked(&self) -> u64 {
        word(self.bytes, self.row.linked) & self.row.linked_mask
    }

    /// Shares added, executed, cancelled, replaced or traded. A deletion names none: it is for all.
    #[inline(always)]
    pub fn shares(&self) -> u32 {
        half(self.bytes, self.row.shares) & self.row.shares_mask
    }

    /// Limit price of an order, price of an execution or trade.
    #[inline(always)]
    pub fn price(&self) -> Price4 {
        Price4(half(self.bytes, self.row.price) & self.row.price_mask)
    }

    /// Symbol, of an addition or a trade; else all zero.
    #[inline(always)]
    pub fn stock(&self) -> Symbol {
        Symbol((word(self.bytes, self.row.stock) & self.row.stock_mask).to_be_bytes())
    }

    /// Participant, of an attributed order; else all zero.
    #[inline(always)]
    pub fn attribution(&self) -> Text<4> {
        Text((half(self.bytes, self.row.attribution) & self.row.attribution_mask).to_be_bytes())
    }

    /// Side of an addition or a trade, whether an execution at another price is printable; else 0.
    #[inline(always)]
    pub fn flag(&self) -> Code {
        Code(self.bytes[usize::from(self.row.flag)] & self.row.flag_mask)
    }
}

/// The eight bytes at `at`, which a row has inside the length that the message has.
#[inline(always)]
fn word(bytes: &[u8], at: u8) -> u64 {
    let at = usize::from(at);
    u64::get(&bytes[at..at + 8])
}

/// Likewise four.
#[inline(always)]
fn half(bytes: &[u8], at: u8) -> u32 {
    let at = usize::from(at);
    u32::get(&bytes[at..at + 4])
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::super::messages::CODES;
    use super::*;

    /// Order, linked, shares, price, stock, attribution, flag.
    type Fields = (u64, u64, u32, u32, [u8; 8], [u8; 4], u8);

    /// By the views of each type.
    fn by_type(message: &Message<'_>) -> Option<Fields> {
        Some(match message {
            Message::AddOrder(m) => {
                (m.order(), 0, m.shares(), m.price().0, m.stock().0, [0; 4], m.side().0)
            }
            Message::AddOrderAttributed(m) => {
                let attribution = m.attribution().0;
                (m.order(), 0, m.shares(), m.price().0, m.stock().0, attribution, m.side().0)
            }
            Message::OrderExecuted(m) => {
                (m.order(), m.match_number(), m.shares(), 0, [0; 8], [0; 4], 0)
            }
            Message::OrderExecutedWithPrice(m) => {
                let (price, printable) = (m.price().0, m.printable().0);
                (m.order(), m.match_number(), m.shares(), price, [0; 8], [0; 4], printable)
            }
            Message::OrderCancel(m) => (m.order(), 0, m.shares(), 0, [0; 8], [0; 4], 0),
            Message::OrderDelete(m) => (m.order(), 0, 0, 0, [0; 8], [0; 4], 0),
            Message::OrderReplace(m) => {
                (m.order(), m.new_order(), m.shares(), m.price().0, [0; 8], [0; 4], 0)
            }
            Message::Trade(m) => {
                let (price, stock, side) = (m.price().0, m.stock().0, m.side().0);
                (m.order(), m.match_number(), m.shares(), price, stock, [0; 4], side)
            }
            _ => return None,
        })
    }

    proptest::proptest! {
        #[test]
        fn every_field_is_what_the_views_of_its_type_read(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            code in proptest::sample::select(CODES),
            is_cut in proptest::bool::weighted(0.3),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = code;
            }
            if !is_cut {
                bytes.resize(super::super::length_of(code).unwrap(), 0x5a);
                bytes[0] = code;
            }
            let read = OrderMessage::view(&bytes);
            let known = Message::decode(&bytes).ok();
            let fields = known.as_ref().and_then(by_type);
            let found = read.map(|m| {
                let (stock, attribution) = (m.stock().0, m.attribution().0);
                (m.order(), m.linked(), m.shares(), m.price().0, stock, attribution, m.flag().0)
            });
            proptest::prop_assert_eq!(found, fields);
            if let (Some(read), Some(known)) = (read, known) {
                proptest::prop_assert_eq!(read.common(), known.common());
                proptest::prop_assert_eq!(read.code(), known.code());
                let adds = matches!(known, Message::AddOrder(_) | Message::AddOrderAttributed(_));
                proptest::prop_assert_eq!(read.adds(), adds);
            }
        }
    }
}
