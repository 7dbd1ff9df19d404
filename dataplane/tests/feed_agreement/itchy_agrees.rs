//! `itchy` against ours: every field of every type it knows.
//!
//! Differences:
//! - It does not know the operational halt (`h`) and the direct listing (`O`), and panics. See
//!   [`is_known`].
//! - It takes codes for values of a closed set and refuses a message with any other. The sets are older
//!   than the specification's: no paused imbalance (`P`), for one. What it refuses is counted, and allowed
//!   only where a code of ours is outside its sets; see [`refuses`].
//! - It skips the reserved byte of a trading action.
//! - `Y` and `M` of the flag for exchange traded products are one to it.
//! - Messages with an attribution and without are one type; text keeps its padding, as ours does.

use itchy::*;
use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::itch::{Code, Message as Ours};

/// Whether `itchy` has the type.
pub fn is_known(code: u8) -> bool {
    !matches!(code, b'h' | b'O')
}

/// What `itchy` makes of one message, framed with its length; `None` when it refuses it.
fn parse(bytes: &[u8]) -> Option<itchy::Message> {
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    // An error quotes twenty bytes of its buffer, which must be there.
    let message = MessageStream::from_reader(framed.as_slice()).next()?;
    message.ok()
}

/// Compares one message of a type it knows. Returns whether `itchy` took it.
pub fn agree(bytes: &[u8]) -> bool {
    let ours = Ours::decode(bytes).unwrap();
    let Some(theirs) = parse(bytes) else {
        assert!(refuses(&ours), "refused by itchy alone: {ours:?}");
        return false;
    };
    let common = ours.common();
    assert_eq!(theirs.tag, ours.code());
    assert_eq!(theirs.stock_locate, common.stock_locate);
    assert_eq!(theirs.tracking_number, common.tracking_number);
    assert_eq!(theirs.timestamp, common.timestamp.0);
    compare(&ours, &theirs.body);
    true
}

/// Whether a code is outside the closed sets of `itchy`: the ones the captures have.
fn refuses(ours: &Ours<'_>) -> bool {
    match ours {
        Ours::NetOrderImbalance(m) => !b"BSNO".contains(&m.imbalance_direction().0),
        Ours::StockDirectory(m) => {
            !b"QGSNAPZV ".contains(&m.market_category().0)
                || !b"YN".contains(&m.inverse_indicator().0)
        }
        _ => false,
    }
}

fn symbol(ours: Symbol, theirs: &ArrayString8) {
    assert_eq!(ours.0, theirs.as_bytes());
}

fn flag(code: Code) -> Option<bool> {
    match code.0 {
        b'Y' => Some(true),
        b'N' => Some(false),
        _ => None,
    }
}

/// The value of `itchy` at the place of a code.
fn nth<T: Copy>(code: Code, codes: &[u8], values: &[T]) -> T {
    assert_eq!(codes.len(), values.len());
    let at = codes.iter().position(|&known| known == code.0);
    values[at.unwrap_or_else(|| panic!("{code:?} taken by itchy"))]
}

fn side(code: Code) -> Side {
    nth(code, b"BS", &[Side::Buy, Side::Sell])
}

fn compare(ours: &Ours<'_>, theirs: &Body) {
    match (ours, theirs) {
        (Ours::SystemEvent(m), Body::SystemEvent { event }) => {
            use EventCode::*;
            let events = [
                StartOfMessages,
                StartOfSystemHours,
                StartOfMarketHours,
                EndOfMarketHours,
                EndOfSystemHours,
                EndOfMessages,
            ];
            assert_eq!(*event, nth(m.event_code(), b"OSQMEC", &events));
        }
        (Ours::StockDirectory(m), Body::StockDirectory(t)) => directory(m, t),
        (Ours::StockTradingAction(m), Body::TradingAction { stock, trading_state, reason }) => {
            use TradingState::*;
            symbol(m.stock(), stock);
            let states = [Halted, Paused, QuotationOnly, Trading];
            assert_eq!(*trading_state, nth(m.trading_state(), b"HPQT", &states));
            assert_eq!(m.reason().0, reason.as_bytes());
        }
        (Ours::RegShoRestriction(m), Body::RegShoRestriction { stock, action }) => {
            use RegShoAction::*;
            symbol(m.stock(), stock);
            assert_eq!(*action, nth(m.reg_sho_action(), b"012", &[None, Intraday, Extant]));
        }
        (Ours::MarketParticipantPosition(m), Body::ParticipantPosition(t)) => {
            assert_eq!(m.mpid().0, t.mpid.as_bytes());
            symbol(m.stock(), &t.stock);
            assert_eq!(flag(m.primary_market_maker()), Some(t.primary_market_maker));
            use MarketMakerMode::*;
            let modes = [Normal, Passive, Syndicate, Presyndicate, Penalty];
            assert_eq!(t.market_maker_mode, nth(m.market_maker_mode(), b"NPSRL", &modes));
            use MarketParticipantState::*;
            let states = [Active, Excused, Withdrawn, Suspended, Deleted];
            let state = nth(m.market_participant_state(), b"AEWSD", &states);
            assert_eq!(t.market_participant_state, state);
        }
        (Ours::MwcbDeclineLevel(m), Body::MwcbDeclineLevel { level1, level2, level3 }) => {
            assert_eq!(m.level_1().0, level1.raw());
            assert_eq!(m.level_2().0, level2.raw());
            assert_eq!(m.level_3().0, level3.raw());
        }
        (Ours::MwcbStatus(m), Body::Breach(level)) => {
            use LevelBreached::*;
            assert_eq!(*level, nth(m.breached_level(), b"123", &[L1, L2, L3]));
        }
        (Ours::IpoQuotingPeriod(m), Body::IpoQuotingPeriod(t)) => {
            use IpoReleaseQualifier::*;
            symbol(m.stock(), &t.stock);
            assert_eq!(m.quotation_release_time(), t.release_time);
            let qualifier = nth(m.quotation_release_qualifier(), b"AC", &[Anticipated, Cancelled]);
            assert_eq!(t.release_qualifier, qualifier);
            assert_eq!(m.ipo_price().0, t.price.raw());
        }
        (
            Ours::LuldAuctionCollar(m),
            Body::LULDAuctionCollar { stock, ref_price, upper_price, lower_price, extension },
        ) => {
            symbol(m.stock(), stock);
            assert_eq!(m.reference_price().0, ref_price.raw());
            assert_eq!(m.upper_price().0, upper_price.raw());
            assert_eq!(m.lower_price().0, lower_price.raw());
            assert_eq!(m.extension(), *extension);
        }
        _ => orders_and_trades(ours, theirs),
    }
}

fn directory(m: &nautilus_dataplane::feed::itch::messages::StockDirectory<'_>, t: &StockDirectory) {
    symbol(m.stock(), &t.stock);
    use MarketCategory as Market;
    let markets = [
        Market::NasdaqGlobalSelect,
        Market::NasdaqGlobalMarket,
        Market::NasdaqCapitalMarket,
        Market::Nyse,
        Market::NyseMkt,
        Market::NyseArca,
        Market::BatsZExchange,
        Market::InvestorsExchange,
        Market::Unavailable,
    ];
    assert_eq!(t.market_category, nth(m.market_category(), b"QGSNAPZV ", &markets));
    use FinancialStatus as Status;
    let statuses = [
        Status::Normal,
        Status::Deficient,
        Status::Delinquent,
        Status::Bankrupt,
        Status::Suspended,
        Status::DeficientBankrupt,
        Status::DelinquentBankrupt,
        Status::DeficientDelinquentBankrupt,
        Status::EtpSuspended,
        Status::Unavailable,
    ];
    let status = nth(m.financial_status_indicator(), b"NDEQSGJKC ", &statuses);
    assert_eq!(t.financial_status, status);
    assert_eq!(t.round_lot_size, m.round_lot_size());
    assert_eq!(Some(t.round_lots_only), flag(m.round_lots_only()));
    use IssueClassification as Class;
    let classes = [
        Class::AmericanDepositaryShare,
        Class::Bond,
        Class::CommonStock,
        Class::DepositoryReceipt,
        Class::A144,
        Class::LimitedPartnership,
        Class::Notes,
        Class::OrdinaryShare,
        Class::PreferredStock,
        Class::OtherSecurities,
        Class::Right,
        Class::SharesOfBeneficialInterest,
        Class::ConvertibleDebenture,
        Class::Unit,
        Class::UnitsPerBenifInt,
        Class::Warrant,
    ];
    let class = nth(m.issue_classification(), b"ABCFILNOPQRSTUVW", &classes);
    assert_eq!(t.issue_classification, class);
    // Of its 58 sub-types those that occur in the captures and in a generated day.
    let sub_type = match &m.issue_sub_type().0 {
        b"Z " => IssueSubType::NotApplicable,
        b"C " => IssueSubType::CommonShares,
        b"E " => IssueSubType::ETFPortfolioDepositaryReceipt,
        b"I " => IssueSubType::ETFIndexFundShares,
        b"Q " => IssueSubType::ClosedEndFunds,
        other => panic!("{other:?}: name its variant here"),
    };
    assert_eq!(t.issue_subtype, sub_type);
    assert_eq!(t.authenticity, nth(m.authenticity(), b"PT", &[true, false]));
    assert_eq!(t.short_sale_threshold, flag(m.short_sale_threshold_indicator()));
    assert_eq!(t.ipo_flag, flag(m.ipo_flag()));
    use LuldRefPriceTier::{Na, Tier1, Tier2};
    let tier = nth(m.luld_reference_price_tier(), b" 12", &[Na, Tier1, Tier2]);
    assert_eq!(t.luld_ref_price_tier, tier);
    let etp = nth(m.etp_flag(), b"YNM ", &[Some(true), Some(false), Some(true), None]);
    assert_eq!(t.etp_flag, etp);
    assert_eq!(t.etp_leverage_factor, m.etp_leverage_factor());
    assert_eq!(Some(t.inverse_indicator), flag(m.inverse_indicator()));
}

fn orders_and_trades(ours: &Ours<'_>, theirs: &Body) {
    match (ours, theirs) {
        (Ours::AddOrder(m), Body::AddOrder(t)) => {
            assert_eq!((m.order(), m.shares()), (t.reference, t.shares));
            assert_eq!(side(m.side()), t.side);
            symbol(m.stock(), &t.stock);
            assert_eq!(m.price().0, t.price.raw());
            assert_eq!(t.mpid, None);
        }
        (Ours::AddOrderAttributed(m), Body::AddOrder(t)) => {
            assert_eq!((m.order(), m.shares()), (t.reference, t.shares));
            assert_eq!(side(m.side()), t.side);
            symbol(m.stock(), &t.stock);
            assert_eq!(m.price().0, t.price.raw());
            assert_eq!(m.attribution().0, t.mpid.unwrap().as_bytes());
        }
        (Ours::OrderExecuted(m), Body::OrderExecuted { reference, executed, match_number }) => {
            assert_eq!((m.order(), m.shares()), (*reference, *executed));
            assert_eq!(m.match_number(), *match_number);
        }
        (
            Ours::OrderExecutedWithPrice(m),
            Body::OrderExecutedWithPrice { reference, executed, match_number, printable, price },
        ) => {
            assert_eq!((m.order(), m.shares()), (*reference, *executed));
            assert_eq!(m.match_number(), *match_number);
            assert_eq!(flag(m.printable()), Some(*printable));
            assert_eq!(m.price().0, price.raw());
        }
        (Ours::OrderCancel(m), Body::OrderCancelled { reference, cancelled }) => {
            assert_eq!((m.order(), m.shares()), (*reference, *cancelled));
        }
        (Ours::OrderDelete(m), Body::DeleteOrder { reference }) => {
            assert_eq!(m.order(), *reference);
        }
        (Ours::OrderReplace(m), Body::ReplaceOrder(t)) => {
            assert_eq!((m.order(), m.new_order()), (t.old_reference, t.new_reference));
            assert_eq!((m.shares(), m.price().0), (t.shares, t.price.raw()));
        }
        (Ours::Trade(m), Body::NonCrossTrade(t)) => {
            assert_eq!((m.order(), m.shares()), (t.reference, t.shares));
            assert_eq!(side(m.side()), t.side);
            symbol(m.stock(), &t.stock);
            assert_eq!((m.price().0, m.match_number()), (t.price.raw(), t.match_number));
        }
        (Ours::CrossTrade(m), Body::CrossTrade(t)) => {
            assert_eq!((m.shares(), m.match_number()), (t.shares, t.match_number));
            symbol(m.stock(), &t.stock);
            assert_eq!(m.price().0, t.cross_price.raw());
            assert_eq!(t.cross_type, cross(m.cross_type()));
        }
        (Ours::BrokenTrade(m), Body::BrokenTrade { match_number }) => {
            assert_eq!(m.match_number(), *match_number);
        }
        (Ours::NetOrderImbalance(m), Body::Imbalance(t)) => {
            assert_eq!(m.paired_shares(), t.paired_shares);
            assert_eq!(m.imbalance_shares(), t.imbalance_shares);
            use ImbalanceDirection::*;
            let directions = [Buy, Sell, NoImbalance, InsufficientOrders];
            assert_eq!(t.imbalance_direction, nth(m.imbalance_direction(), b"BSNO", &directions));
            symbol(m.stock(), &t.stock);
            assert_eq!(m.far_price().0, t.far_price.raw());
            assert_eq!(m.near_price().0, t.near_price.raw());
            assert_eq!(m.reference_price().0, t.current_ref_price.raw());
            assert_eq!(t.cross_type, cross(m.cross_type()));
            assert_eq!(char::from(m.price_variation_indicator().0), t.price_variation_indicator);
        }
        (Ours::RetailInterest(m), Body::RetailPriceImprovementIndicator(t)) => {
            symbol(m.stock(), &t.stock);
            use InterestFlag::*;
            let flags = [
                RPIAvailableBuySide,
                RPIAvailableSellSide,
                RPIAvailableBothSides,
                RPINoneAvailable,
            ];
            assert_eq!(t.interest_flag, nth(m.interest_flag(), b"BSAN", &flags));
        }
        _ => panic!("{ours:?} is {theirs:?} to itchy"),
    }
}

fn cross(code: Code) -> CrossType {
    use CrossType::*;
    nth(code, b"OCHIA", &[Opening, Closing, IpoOrHalted, Intraday, ExtendedTradingClose])
}
