//! The product's own framing, decoder and books.

use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::itch::{Message, OrderMessage, Side};
use nautilus_dataplane::feed::moldudp64::Packet;

use super::day::{Day, STOCKS};
use super::{BookSum, Sum};

/// What the books may hold, as a node file of `max_orders = 2097152` says it.
pub const LIMITS: BookLimits =
    BookLimits { orders_max: 1 << 21, levels_max: 1 << 19, hash_seed: 0x6e61_7574 };

/// Decodes a day.
pub fn decode(day: &Day) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    for payload in day.packets() {
        for message in Packet::parse(payload)?.messages() {
            let message = message?;
            match OrderMessage::view(message) {
                Some(order) => read_order(&order, &mut sum),
                None => read(&Message::decode(message)?, &mut sum),
            }
        }
    }
    Ok(sum)
}

/// Empty books; made before the clock runs, as a worker makes them at start.
pub fn books() -> Books {
    Books::new(LIMITS)
}

/// Decodes a day and keeps its books. Returns how many messages had a problem.
pub fn keep(day: &Day, books: &mut Books) -> anyhow::Result<u64> {
    let mut problems = 0;
    for payload in day.packets() {
        let packet = Packet::parse(payload)?;
        books.look_ahead(packet.messages().flatten());
        for message in packet.messages() {
            let (_, problem) = books.apply(&Message::decode(message?)?);
            problems += u64::from(problem.is_some());
        }
    }
    Ok(problems)
}

/// What the books hold at the end.
pub fn sum(books: &Books) -> BookSum {
    let (orders, levels) = (books.order_count().into(), books.level_count().into());
    let mut sum = BookSum { orders, levels, ..BookSum::default() };
    for locate in 0..=STOCKS {
        for side in [Side::Buy, Side::Sell] {
            if let Some(best) = books.levels(locate, side).next() {
                sum.add_best(locate, best.price, best.orders, best.shares);
            }
        }
    }
    sum
}

/// What a type does not have is 0.
#[inline(always)]
fn read_order(message: &OrderMessage<'_>, sum: &mut Sum) {
    let common = message.common();
    sum.add_common(common.stock_locate, common.tracking_number, common.timestamp.0);
    sum.add(message.order());
    sum.add(message.linked());
    sum.add(message.shares());
    sum.add(message.price().0);
    sum.add_symbol(message.stock().0);
    sum.add_text4(message.attribution().0);
    sum.add(message.flag().0);
}

#[cold]
fn read(message: &Message<'_>, sum: &mut Sum) {
    let common = message.common();
    sum.add_common(common.stock_locate, common.tracking_number, common.timestamp.0);
    match message {
        Message::SystemEvent(_) | Message::MwcbStatus(_) => {}
        // Read as orders.
        Message::AddOrder(_)
        | Message::AddOrderAttributed(_)
        | Message::OrderExecuted(_)
        | Message::OrderExecutedWithPrice(_)
        | Message::OrderCancel(_)
        | Message::OrderDelete(_)
        | Message::OrderReplace(_)
        | Message::Trade(_) => {}
        Message::StockDirectory(m) => {
            sum.add_symbol(m.stock().0);
            sum.add(m.round_lot_size());
            sum.add(m.etp_leverage_factor());
        }
        Message::StockTradingAction(m) => sum.add_symbol(m.stock().0),
        Message::RegShoRestriction(m) => sum.add_symbol(m.stock().0),
        Message::MarketParticipantPosition(m) => {
            sum.add_text4(m.mpid().0);
            sum.add_symbol(m.stock().0);
        }
        Message::MwcbDeclineLevel(m) => {
            sum.add(m.level_1().0);
            sum.add(m.level_2().0);
            sum.add(m.level_3().0);
        }
        Message::IpoQuotingPeriod(m) => {
            sum.add_symbol(m.stock().0);
            sum.add(m.quotation_release_time());
            sum.add(m.ipo_price().0);
        }
        Message::LuldAuctionCollar(m) => {
            sum.add_symbol(m.stock().0);
            sum.add(m.reference_price().0);
            sum.add(m.upper_price().0);
            sum.add(m.lower_price().0);
            sum.add(m.extension());
        }
        Message::OperationalHalt(m) => sum.add_symbol(m.stock().0),
        Message::CrossTrade(m) => {
            sum.add(m.shares());
            sum.add_symbol(m.stock().0);
            sum.add(m.price().0);
            sum.add(m.match_number());
        }
        Message::BrokenTrade(m) => sum.add(m.match_number()),
        Message::NetOrderImbalance(m) => {
            sum.add(m.paired_shares());
            sum.add(m.imbalance_shares());
            sum.add_symbol(m.stock().0);
            sum.add(m.far_price().0);
            sum.add(m.near_price().0);
            sum.add(m.reference_price().0);
        }
        Message::RetailInterest(m) => sum.add_symbol(m.stock().0),
        Message::DirectListing(m) => {
            sum.add_symbol(m.stock().0);
            sum.add(m.minimum_price().0);
            sum.add(m.maximum_price().0);
            sum.add(m.near_execution_price().0);
            sum.add(m.near_execution_time_ns());
            sum.add(m.lower_collar().0);
            sum.add(m.upper_collar().0);
        }
    }
}
