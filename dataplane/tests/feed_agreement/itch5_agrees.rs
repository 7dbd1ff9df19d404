//! `itch5` against ours: each of the 23 callbacks asserts every field.
//!
//! Differences, none of them in a value:
//! - `itch5` names codes by enums. A code of ours is turned into that enum by `itch5` itself and compared
//!   by its text, which tells every byte apart, known or not. Two of the enums have no text; theirs are
//!   compared by variant, which tells the known ones apart.
//! - It types the number of extensions of an auction collar as a price; the four bytes are the same.
//! - It calls the locate of a Reg SHO message `locate_code`.
//! - The reason of a trading action depends on the state before it: halt reasons under `H` and `P`,
//!   resumption reasons under `Q` and `T`.

use itch5::messages as m5;
use nautilus_dataplane::feed::itch::{Code, Message};
use std::fmt::Debug;
use std::ops::ControlFlow;

/// Feeds one message to `itch5`, framed with its length.
pub fn agree(bytes: &[u8]) {
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    let mut ours = Ours { message: Message::decode(bytes).unwrap(), called: 0 };
    itch5::Parser::new(&framed).parse_stream(&mut ours).unwrap();
    assert_eq!(ours.called, 1, "{:?}", ours.message);
}

struct Ours<'a> {
    message: Message<'a>,
    called: u32,
}

impl Ours<'_> {
    fn common(&mut self, locate: u16, tracking: u16, timestamp: &m5::Timestamp) {
        self.called += 1;
        let common = self.message.common();
        assert_eq!((common.stock_locate, common.tracking_number), (locate, tracking));
        assert_eq!(common.timestamp.0, timestamp.to_u64());
    }
}

/// A code of ours under the enum of `itch5`.
fn code<T: From<u8> + Debug>(ours: Code, theirs: T) {
    assert_eq!(format!("{:?}", T::from(ours.0)), format!("{theirs:?}"));
}

fn symbol(ours: nautilus_dataplane::feed::Symbol, theirs: &m5::Symbol) {
    assert_eq!(u64::from_be_bytes(ours.0), theirs.to_u64());
}

const NEXT: ControlFlow<()> = ControlFlow::Continue(());

impl itch5::MessageHandler for Ours<'_> {
    fn on_system_event(&mut self, t: &m5::SystemEvent) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::SystemEvent(m) = self.message else { panic!("{:?}", self.message) };
        code(m.event_code(), t.event_code());
        NEXT
    }

    fn on_stock_directory(&mut self, t: &m5::StockDirectory) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::StockDirectory(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.market_category(), t.market_category());
        code(m.financial_status_indicator(), t.financial_status_indicator());
        assert_eq!(m.round_lot_size(), t.round_lot_size());
        code(m.round_lots_only(), t.round_lots_only());
        code(m.issue_classification(), t.issue_classification());
        let sub_type = m5::IssueSubTypeCode::from_bytes(m.issue_sub_type().0);
        assert_eq!(format!("{sub_type:?}"), format!("{:?}", t.issue_sub_type()));
        let kind = std::mem::discriminant(&m5::Authenticity::from(m.authenticity().0));
        assert_eq!(kind, std::mem::discriminant(&t.authenticity()));
        code(m.short_sale_threshold_indicator(), t.short_sale_threshold_indicator());
        code(m.ipo_flag(), t.ipo_flag());
        code(m.luld_reference_price_tier(), t.luld_reference_price_tier());
        code(m.etp_flag(), t.etp_flag());
        assert_eq!(m.etp_leverage_factor(), t.etp_leverage_factor());
        code(m.inverse_indicator(), t.inverse_indicator());
        NEXT
    }

    fn on_stock_trading_action(&mut self, t: &m5::StockTradingAction) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::StockTradingAction(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.trading_state(), t.trading_state());
        assert_eq!(m.reserved().0, t.reserved());
        assert_eq!(reason(m.trading_state(), m.reason().0), t.reason());
        NEXT
    }

    fn on_reg_sho_restriction(&mut self, t: &m5::RegSHORestriction) -> ControlFlow<()> {
        self.common(t.locate_code(), t.tracking_number(), t.timestamp());
        let Message::RegShoRestriction(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.reg_sho_action(), t.reg_sho_action());
        NEXT
    }

    fn on_market_participant_position(
        &mut self,
        t: &m5::MarketParticipantPosition,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::MarketParticipantPosition(m) = self.message else {
            panic!("{:?}", self.message)
        };
        assert_eq!(m.mpid().0, t.mpid());
        symbol(m.stock(), t.stock());
        code(m.primary_market_maker(), t.primary_market_maker());
        let kind = std::mem::discriminant(&m5::MarketMakerMode::from(m.market_maker_mode().0));
        assert_eq!(kind, std::mem::discriminant(&t.market_maker_mode()));
        code(m.market_participant_state(), t.market_participant_state());
        NEXT
    }

    fn on_mwcb_decline_level(&mut self, t: &m5::MWCBDeclineLevel) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::MwcbDeclineLevel(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.level_1().0, t.level_1().into_u64());
        assert_eq!(m.level_2().0, t.level_2().into_u64());
        assert_eq!(m.level_3().0, t.level_3().into_u64());
        NEXT
    }

    fn on_mwcb_status(&mut self, t: &m5::MWCBStatus) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::MwcbStatus(m) = self.message else { panic!("{:?}", self.message) };
        code(m.breached_level(), t.breached_level());
        NEXT
    }

    fn on_quoting_period_update(&mut self, t: &m5::QuotingPeriodUpdate) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::IpoQuotingPeriod(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        assert_eq!(m.quotation_release_time(), t.ipo_quotation_release_time());
        code(m.quotation_release_qualifier(), t.ipo_quotation_release_qualifier());
        assert_eq!(m.ipo_price().0, t.ipo_price().into_u32());
        NEXT
    }

    fn on_luld_auction_collar(&mut self, t: &m5::LULDAuctionCollar) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::LuldAuctionCollar(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        assert_eq!(m.reference_price().0, t.auction_collar_reference_price().into_u32());
        assert_eq!(m.upper_price().0, t.upper_auction_collar_price().into_u32());
        assert_eq!(m.lower_price().0, t.lower_auction_collar_price().into_u32());
        assert_eq!(m.extension(), t.auction_collar_extension().into_u32());
        NEXT
    }

    fn on_operational_halt(&mut self, t: &m5::OperationalHalt) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OperationalHalt(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.market_code(), t.market_code());
        code(m.action(), t.operational_halt_action());
        NEXT
    }

    fn on_add_order_no_mpid_attribution(
        &mut self,
        t: &m5::AddOrderNoMPIDAttribution,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::AddOrder(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        code(m.side(), t.buy_sell_indicator());
        assert_eq!(m.shares(), t.shares());
        symbol(m.stock(), t.stock());
        assert_eq!(m.price().0, t.price().into_u32());
        NEXT
    }

    fn on_add_order_with_mpid_attribution(
        &mut self,
        t: &m5::AddOrderWithMPIDAttribution,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::AddOrderAttributed(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        code(m.side(), t.buy_sell_indicator());
        assert_eq!(m.shares(), t.shares());
        symbol(m.stock(), t.stock());
        assert_eq!(m.price().0, t.price().into_u32());
        assert_eq!(m.attribution().0, t.attribution());
        NEXT
    }

    fn on_order_executed(&mut self, t: &m5::OrderExecuted) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OrderExecuted(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        assert_eq!(m.shares(), t.executed_shares());
        assert_eq!(m.match_number(), t.match_number());
        NEXT
    }

    fn on_order_executed_with_price(&mut self, t: &m5::OrderExecutedWithPrice) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OrderExecutedWithPrice(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        assert_eq!(m.shares(), t.executed_shares());
        assert_eq!(m.match_number(), t.match_number());
        code(m.printable(), t.printable());
        assert_eq!(m.price().0, t.execution_price().into_u32());
        NEXT
    }

    fn on_order_cancel(&mut self, t: &m5::OrderCancel) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OrderCancel(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        assert_eq!(m.shares(), t.cancelled_shares());
        NEXT
    }

    fn on_order_delete(&mut self, t: &m5::OrderDelete) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OrderDelete(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        NEXT
    }

    fn on_order_replace(&mut self, t: &m5::OrderReplace) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::OrderReplace(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.original_order_reference_number());
        assert_eq!(m.new_order(), t.new_order_reference_number());
        assert_eq!(m.shares(), t.shares());
        assert_eq!(m.price().0, t.price().into_u32());
        NEXT
    }

    fn on_trade(&mut self, t: &m5::Trade) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::Trade(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.order(), t.order_reference_number());
        code(m.side(), t.buy_sell_indicator());
        assert_eq!(m.shares(), t.shares());
        symbol(m.stock(), t.stock());
        assert_eq!(m.price().0, t.price().into_u32());
        assert_eq!(m.match_number(), t.match_number());
        NEXT
    }

    fn on_cross_trade(&mut self, t: &m5::CrossTrade) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::CrossTrade(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.shares(), t.shares());
        symbol(m.stock(), t.stock());
        assert_eq!(m.price().0, t.cross_price().into_u32());
        assert_eq!(m.match_number(), t.match_number());
        code(m.cross_type(), t.cross_type());
        NEXT
    }

    fn on_broken_trade(&mut self, t: &m5::BrokenTrade) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::BrokenTrade(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.match_number(), t.match_number());
        NEXT
    }

    fn on_net_order_imbalance_indicator(
        &mut self,
        t: &m5::NetOrderImbalanceIndicator,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::NetOrderImbalance(m) = self.message else { panic!("{:?}", self.message) };
        assert_eq!(m.paired_shares(), t.paired_shares());
        assert_eq!(m.imbalance_shares(), t.imbalance_shares());
        code(m.imbalance_direction(), t.imbalance_direction());
        symbol(m.stock(), t.stock());
        assert_eq!(m.far_price().0, t.far_price().into_u32());
        assert_eq!(m.near_price().0, t.near_price().into_u32());
        assert_eq!(m.reference_price().0, t.current_reference_price().into_u32());
        code(m.cross_type(), t.cross_type());
        code(m.price_variation_indicator(), t.price_variation_indicator());
        NEXT
    }

    fn on_retail_price_improvement_indicator(
        &mut self,
        t: &m5::RetailPriceImprovementIndicator,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::RetailInterest(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.interest_flag(), t.interest_flag());
        NEXT
    }

    fn on_direct_listing_with_capital_raise_price_discovery(
        &mut self,
        t: &m5::DirectListingwithCapitalRaisePriceDiscovery,
    ) -> ControlFlow<()> {
        self.common(t.stock_locate(), t.tracking_number(), t.timestamp());
        let Message::DirectListing(m) = self.message else { panic!("{:?}", self.message) };
        symbol(m.stock(), t.stock());
        code(m.open_eligibility_status(), t.open_eligibility_status());
        assert_eq!(m.minimum_price().0, t.minimum_allowable_price().into_u32());
        assert_eq!(m.maximum_price().0, t.maximum_allowable_price().into_u32());
        assert_eq!(m.near_execution_price().0, t.near_execution_price().into_u32());
        assert_eq!(m.near_execution_time_ns(), t.near_execution_time());
        assert_eq!(m.lower_collar().0, t.lower_price_range_collar().into_u32());
        assert_eq!(m.upper_collar().0, t.upper_price_range_collar().into_u32());
        NEXT
    }
}

fn reason(state: Code, reason: [u8; 4]) -> m5::TradingActionReason {
    use m5::{TradingActionReason, TradingHaltReason, TradingResumptionReason};
    match state.0 {
        b'H' => TradingActionReason::Halted(TradingHaltReason::from_bytes(&reason)),
        b'P' => TradingActionReason::Paused(TradingHaltReason::from_bytes(&reason)),
        b'Q' => TradingActionReason::QuotationOnly(TradingResumptionReason::from_bytes(&reason)),
        b'T' => TradingActionReason::Trading(TradingResumptionReason::from_bytes(&reason)),
        state => TradingActionReason::Unknown { state, reason_bytes: reason },
    }
}
