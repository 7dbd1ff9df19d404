//! The same sum by the peers: `itch5`, whose visitor is called for each message, and `itchy`, which
//! gives one value after the other.

use std::ops::ControlFlow;

use anyhow::Context;
use itch5::messages as m5;
use itchy::Body;

use super::Sum;
use super::day::Day;

/// Decodes a day with `itch5`.
pub fn decode_itch5(day: &Day) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    itch5::Parser::new(&day.file).parse_stream(&mut sum)?;
    Ok(sum)
}

/// Decodes a day with `itchy`.
pub fn decode_itchy(day: &Day) -> anyhow::Result<Sum> {
    let mut sum = Sum::default();
    for message in itchy::MessageStream::from_reader(day.file.as_slice()) {
        read(&message.context("itchy")?, &mut sum);
    }
    Ok(sum)
}

/// The byte of a side; nothing but `B` and `S` is in a generated day.
#[inline(always)]
pub fn side(side: m5::BuySellIndicator) -> u8 {
    match side {
        m5::BuySellIndicator::Buy => b'B',
        m5::BuySellIndicator::Sell => b'S',
        m5::BuySellIndicator::Unknown(other) => other,
    }
}

const NEXT: ControlFlow<()> = ControlFlow::Continue(());

impl itch5::MessageHandler for Sum {
    #[inline(always)]
    fn on_system_event(&mut self, m: &m5::SystemEvent) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        NEXT
    }

    #[inline(always)]
    fn on_stock_directory(&mut self, m: &m5::StockDirectory) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.round_lot_size());
        self.add(m.etp_leverage_factor());
        NEXT
    }

    #[inline(always)]
    fn on_stock_trading_action(&mut self, m: &m5::StockTradingAction) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        NEXT
    }

    #[inline(always)]
    fn on_reg_sho_restriction(&mut self, m: &m5::RegSHORestriction) -> ControlFlow<()> {
        self.add_common(m.locate_code(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        NEXT
    }

    #[inline(always)]
    fn on_market_participant_position(
        &mut self,
        m: &m5::MarketParticipantPosition,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_text4(m.mpid().try_into().unwrap_or_default());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        NEXT
    }

    #[inline(always)]
    fn on_mwcb_decline_level(&mut self, m: &m5::MWCBDeclineLevel) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.level_1().into_u64());
        self.add(m.level_2().into_u64());
        self.add(m.level_3().into_u64());
        NEXT
    }

    #[inline(always)]
    fn on_mwcb_status(&mut self, m: &m5::MWCBStatus) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        NEXT
    }

    #[inline(always)]
    fn on_quoting_period_update(&mut self, m: &m5::QuotingPeriodUpdate) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.ipo_quotation_release_time());
        self.add(m.ipo_price().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_luld_auction_collar(&mut self, m: &m5::LULDAuctionCollar) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.auction_collar_reference_price().into_u32());
        self.add(m.upper_auction_collar_price().into_u32());
        self.add(m.lower_auction_collar_price().into_u32());
        self.add(m.auction_collar_extension().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_operational_halt(&mut self, m: &m5::OperationalHalt) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        NEXT
    }

    #[inline(always)]
    fn on_add_order_no_mpid_attribution(
        &mut self,
        m: &m5::AddOrderNoMPIDAttribution,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(side(m.buy_sell_indicator()));
        self.add(m.shares());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.price().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_add_order_with_mpid_attribution(
        &mut self,
        m: &m5::AddOrderWithMPIDAttribution,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(side(m.buy_sell_indicator()));
        self.add(m.shares());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.price().into_u32());
        self.add_text4(m.attribution().try_into().unwrap_or_default());
        NEXT
    }

    #[inline(always)]
    fn on_order_executed(&mut self, m: &m5::OrderExecuted) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(m.executed_shares());
        self.add(m.match_number());
        NEXT
    }

    #[inline(always)]
    fn on_order_executed_with_price(&mut self, m: &m5::OrderExecutedWithPrice) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(m.executed_shares());
        self.add(m.match_number());
        self.add(match m.printable() {
            m5::Printable::NonPrintable => b'N',
            m5::Printable::Printable => b'Y',
            m5::Printable::Unknown(other) => other,
        });
        self.add(m.execution_price().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_order_cancel(&mut self, m: &m5::OrderCancel) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(m.cancelled_shares());
        NEXT
    }

    #[inline(always)]
    fn on_order_delete(&mut self, m: &m5::OrderDelete) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        NEXT
    }

    #[inline(always)]
    fn on_order_replace(&mut self, m: &m5::OrderReplace) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.original_order_reference_number());
        self.add(m.new_order_reference_number());
        self.add(m.shares());
        self.add(m.price().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_trade(&mut self, m: &m5::Trade) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.order_reference_number());
        self.add(side(m.buy_sell_indicator()));
        self.add(m.shares());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.price().into_u32());
        self.add(m.match_number());
        NEXT
    }

    #[inline(always)]
    fn on_cross_trade(&mut self, m: &m5::CrossTrade) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.shares());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.cross_price().into_u32());
        self.add(m.match_number());
        NEXT
    }

    #[inline(always)]
    fn on_broken_trade(&mut self, m: &m5::BrokenTrade) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.match_number());
        NEXT
    }

    #[inline(always)]
    fn on_net_order_imbalance_indicator(
        &mut self,
        m: &m5::NetOrderImbalanceIndicator,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add(m.paired_shares());
        self.add(m.imbalance_shares());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.far_price().into_u32());
        self.add(m.near_price().into_u32());
        self.add(m.current_reference_price().into_u32());
        NEXT
    }

    #[inline(always)]
    fn on_retail_price_improvement_indicator(
        &mut self,
        m: &m5::RetailPriceImprovementIndicator,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        NEXT
    }

    #[inline(always)]
    fn on_direct_listing_with_capital_raise_price_discovery(
        &mut self,
        m: &m5::DirectListingwithCapitalRaisePriceDiscovery,
    ) -> ControlFlow<()> {
        self.add_common(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64());
        self.add_symbol(m.stock().to_u64().to_be_bytes());
        self.add(m.minimum_allowable_price().into_u32());
        self.add(m.maximum_allowable_price().into_u32());
        self.add(m.near_execution_price().into_u32());
        self.add(m.near_execution_time());
        self.add(m.lower_price_range_collar().into_u32());
        self.add(m.upper_price_range_collar().into_u32());
        NEXT
    }
}

/// `itchy`'s text keeps its padding.
#[inline(always)]
fn symbol(text: &itchy::ArrayString8) -> [u8; 8] {
    text.as_bytes().try_into().unwrap_or_default()
}

#[inline(always)]
fn text4(text: &itchy::ArrayString4) -> [u8; 4] {
    text.as_bytes().try_into().unwrap_or_default()
}

#[inline(always)]
fn side_of(side: itchy::Side) -> u8 {
    match side {
        itchy::Side::Buy => b'B',
        itchy::Side::Sell => b'S',
    }
}

#[inline(always)]
fn read(message: &itchy::Message, sum: &mut Sum) {
    sum.add_common(message.stock_locate, message.tracking_number, message.timestamp);
    match &message.body {
        Body::SystemEvent { .. } | Body::Breach(_) => {}
        Body::StockDirectory(m) => {
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.round_lot_size);
            sum.add(m.etp_leverage_factor);
        }
        Body::TradingAction { stock, .. } | Body::RegShoRestriction { stock, .. } => {
            sum.add_symbol(symbol(stock));
        }
        Body::ParticipantPosition(m) => {
            sum.add_text4(text4(&m.mpid));
            sum.add_symbol(symbol(&m.stock));
        }
        Body::MwcbDeclineLevel { level1, level2, level3 } => {
            sum.add(level1.raw());
            sum.add(level2.raw());
            sum.add(level3.raw());
        }
        Body::IpoQuotingPeriod(m) => {
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.release_time);
            sum.add(m.price.raw());
        }
        Body::LULDAuctionCollar { stock, ref_price, upper_price, lower_price, extension } => {
            sum.add_symbol(symbol(stock));
            sum.add(ref_price.raw());
            sum.add(upper_price.raw());
            sum.add(lower_price.raw());
            sum.add(*extension);
        }
        Body::AddOrder(m) => {
            sum.add(m.reference);
            sum.add(side_of(m.side));
            sum.add(m.shares);
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.price.raw());
            if let Some(mpid) = &m.mpid {
                sum.add_text4(text4(mpid));
            }
        }
        Body::OrderExecuted { reference, executed, match_number } => {
            sum.add(*reference);
            sum.add(*executed);
            sum.add(*match_number);
        }
        Body::OrderExecutedWithPrice { reference, executed, match_number, printable, price } => {
            sum.add(*reference);
            sum.add(*executed);
            sum.add(*match_number);
            sum.add(if *printable { b'Y' } else { b'N' });
            sum.add(price.raw());
        }
        Body::OrderCancelled { reference, cancelled } => {
            sum.add(*reference);
            sum.add(*cancelled);
        }
        Body::DeleteOrder { reference } => sum.add(*reference),
        Body::ReplaceOrder(m) => {
            sum.add(m.old_reference);
            sum.add(m.new_reference);
            sum.add(m.shares);
            sum.add(m.price.raw());
        }
        Body::NonCrossTrade(m) => {
            sum.add(m.reference);
            sum.add(side_of(m.side));
            sum.add(m.shares);
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.price.raw());
            sum.add(m.match_number);
        }
        Body::CrossTrade(m) => {
            sum.add(m.shares);
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.cross_price.raw());
            sum.add(m.match_number);
        }
        Body::BrokenTrade { match_number } => sum.add(*match_number),
        Body::Imbalance(m) => {
            sum.add(m.paired_shares);
            sum.add(m.imbalance_shares);
            sum.add_symbol(symbol(&m.stock));
            sum.add(m.far_price.raw());
            sum.add(m.near_price.raw());
            sum.add(m.current_ref_price.raw());
        }
        Body::RetailPriceImprovementIndicator(m) => sum.add_symbol(symbol(&m.stock)),
    }
}
