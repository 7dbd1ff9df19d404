//! Every message of ITCH 5.0 as a view over its bytes.
//!
//! Source: NASDAQ "TotalView-ITCH 5.0" specification; section numbers are its own. Each view borrows
//! the message and reads a field only when asked. All messages begin with the same eleven bytes:
//! type (1), stock locate (2), tracking number (2), timestamp (6).

use super::wire::{Code, Nanoseconds, Price4, Price8, Text, Wire};
use crate::feed::Symbol;
use std::fmt;

/// Bytes every message begins with.
pub const COMMON_BYTES: usize = 11;

/// The longest message of the protocol.
pub const MESSAGE_BYTES_MAX: usize = 50;

/// The fields every message begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Number of the stock for this day, 0 where a message concerns none.
    pub stock_locate: u16,
    /// The exchange's internal tracking number.
    pub tracking_number: u16,
    /// When the exchange made the message.
    pub timestamp: Nanoseconds,
}

macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $name:ident $code:literal $bytes:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $offset:literal,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq)]
            pub struct $name<'a>(&'a [u8; $bytes]);

            impl<'a> $name<'a> {
                /// Message type byte.
                pub const TYPE: u8 = $code;
                /// Length of the message in bytes.
                pub const BYTES: usize = $bytes;

                /// A view of `bytes` if they have the type and the length of this message.
                #[inline(always)]
                pub fn view(bytes: &'a [u8]) -> Option<Self> {
                    let bytes: &[u8; $bytes] = bytes.try_into().ok()?;
                    (bytes[0] == $code).then_some(Self(bytes))
                }

                /// Fields that all messages share.
                #[inline(always)]
                pub fn common(&self) -> Common {
                    common(self.0)
                }

                $(
                    $(#[$field_doc])*
                    #[inline(always)]
                    pub fn $field(&self) -> $type {
                        <$type as Wire>::get(&self.0[$offset..$offset + <$type as Wire>::BYTES])
                    }
                )*

                /// The bytes of such a message, for replay tools and tests.
                #[allow(clippy::too_many_arguments)]
                pub fn encode(common: Common, $($field: $type),*) -> [u8; $bytes] {
                    let mut out = [0; $bytes];
                    out[0] = $code;
                    common.stock_locate.put(&mut out[1..3]);
                    common.tracking_number.put(&mut out[3..5]);
                    common.timestamp.put(&mut out[5..COMMON_BYTES]);
                    $($field.put(&mut out[$offset..$offset + <$type as Wire>::BYTES]);)*
                    out
                }
            }

            impl fmt::Debug for $name<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let common = self.common();
                    f.debug_struct(stringify!($name))
                        .field("stock_locate", &common.stock_locate)
                        .field("tracking_number", &common.tracking_number)
                        .field("timestamp", &common.timestamp.0)
                        $(.field(stringify!($field), &self.$field()))*
                        .finish()
                }
            }

            // The fields tile the message: each begins where the one before it ended.
            const _: () = {
                let mut end = COMMON_BYTES;
                $(
                    assert!($offset == end, stringify!($name.$field));
                    end += <$type as Wire>::BYTES;
                )*
                assert!(end == $bytes, stringify!($name));
                assert!($bytes <= MESSAGE_BYTES_MAX);
            };
        )*

        /// One decoded message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $($(#[$doc])* $name($name<'a>),)*
        }

        impl<'a> Message<'a> {
            /// A view of `bytes`, which must be one whole message.
            #[inline(always)]
            pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
                let code = *bytes.first().ok_or(DecodeError::Empty)?;
                match code {
                    $($code => $name::view(bytes).map(Self::$name),)*
                    _ => return Err(DecodeError::UnknownType { code }),
                }
                .ok_or(DecodeError::WrongLength { code, bytes: bytes.len() })
            }

            /// Fields that all messages share.
            #[inline(always)]
            pub fn common(&self) -> Common {
                match self {
                    $(Self::$name(message) => message.common(),)*
                }
            }

            /// The message type byte.
            pub fn code(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $code,)*
                }
            }
        }

        /// Length in bytes of the message whose type byte is `code`; `None` when there is none.
        pub const fn length_of(code: u8) -> Option<usize> {
            match code {
                $($code => Some($bytes),)*
                _ => None,
            }
        }

        /// Every message type byte, in the order of the specification.
        pub const CODES: &[u8] = &[$($code),*];
    };
}

/// Tracking number and timestamp stand in one word of eight bytes and are read as one.
#[inline(always)]
pub(super) fn common<const N: usize>(bytes: &[u8; N]) -> Common {
    let word = u64::get(&bytes[3..COMMON_BYTES]);
    Common {
        stock_locate: u16::get(&bytes[1..3]),
        tracking_number: (word >> 48) as u16,
        timestamp: Nanoseconds(word & ((1 << 48) - 1)),
    }
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No byte at all.
    #[error("empty message")]
    Empty,
    /// A type this version of the protocol does not have.
    #[error("unknown message type {:?}", char::from(*.code))]
    UnknownType {
        /// The type byte.
        code: u8,
    },
    /// A known type with another length than the specification gives it.
    #[error("message type {:?} with {bytes} bytes", char::from(*.code))]
    WrongLength {
        /// The type byte.
        code: u8,
        /// The length found.
        bytes: usize,
    },
}

messages! {
    /// System event (1.1): start and end of messages, system hours and market hours.
    SystemEvent b'S' 12 {
        /// `O S Q M E C`, in the order of the day.
        event_code: Code = 11,
    }
    /// Stock directory (1.2.1): one per stock before the start of the day.
    StockDirectory b'R' 39 {
        /// Symbol.
        stock: Symbol = 11,
        /// Listing market and tier.
        market_category: Code = 19,
        /// Financial status of the issuer.
        financial_status_indicator: Code = 20,
        /// Shares in a round lot.
        round_lot_size: u32 = 21,
        /// `Y` when only round lots are accepted.
        round_lots_only: Code = 25,
        /// Security class.
        issue_classification: Code = 26,
        /// Security sub-type.
        issue_sub_type: Text<2> = 27,
        /// `P` production, `T` test.
        authenticity: Code = 29,
        /// Reg SHO threshold security.
        short_sale_threshold_indicator: Code = 30,
        /// Whether the security is set up for an IPO release.
        ipo_flag: Code = 31,
        /// Limit up / limit down tier.
        luld_reference_price_tier: Code = 32,
        /// Exchange traded product.
        etp_flag: Code = 33,
        /// Leverage of the product, as an integer.
        etp_leverage_factor: u32 = 34,
        /// `Y` for an inverse product.
        inverse_indicator: Code = 38,
    }
    /// Stock trading action (1.2.2): halts, pauses, quotation only, trading.
    StockTradingAction b'H' 25 {
        /// Symbol.
        stock: Symbol = 11,
        /// `H` halted, `P` paused, `Q` quotation only, `T` trading.
        trading_state: Code = 19,
        /// Reserved.
        reserved: Code = 20,
        /// Reason.
        reason: Text<4> = 21,
    }
    /// Reg SHO short sale price test restricted indicator (1.2.3).
    RegShoRestriction b'Y' 20 {
        /// Symbol.
        stock: Symbol = 11,
        /// `0` no test, `1` in effect after an intra-day drop, `2` remains in effect.
        reg_sho_action: Code = 19,
    }
    /// Market participant position (1.2.4).
    MarketParticipantPosition b'L' 26 {
        /// Participant.
        mpid: Text<4> = 11,
        /// Symbol.
        stock: Symbol = 15,
        /// `Y` for a primary market maker.
        primary_market_maker: Code = 23,
        /// Mode of the market maker.
        market_maker_mode: Code = 24,
        /// State of the participant.
        market_participant_state: Code = 25,
    }
    /// Market-wide circuit breaker decline levels (1.2.5.1), in index points times 1e8.
    MwcbDeclineLevel b'V' 35 {
        /// Level 1.
        level_1: Price8 = 11,
        /// Level 2.
        level_2: Price8 = 19,
        /// Level 3.
        level_3: Price8 = 27,
    }
    /// Market-wide circuit breaker status (1.2.5.2).
    MwcbStatus b'W' 12 {
        /// `1`, `2` or `3`.
        breached_level: Code = 11,
    }
    /// Quoting period update for an IPO (1.2.6).
    IpoQuotingPeriod b'K' 28 {
        /// Symbol.
        stock: Symbol = 11,
        /// Expected release, in seconds since midnight.
        quotation_release_time: u32 = 19,
        /// `A` anticipated, `C` cancelled or postponed.
        quotation_release_qualifier: Code = 23,
        /// IPO price.
        ipo_price: Price4 = 24,
    }
    /// Limit up / limit down auction collar (1.2.7).
    LuldAuctionCollar b'J' 35 {
        /// Symbol.
        stock: Symbol = 11,
        /// Reference price the collars are set from.
        reference_price: Price4 = 19,
        /// Upper threshold.
        upper_price: Price4 = 23,
        /// Lower threshold.
        lower_price: Price4 = 27,
        /// Number of extensions of the auction so far.
        extension: u32 = 31,
    }
    /// Operational halt (1.2.8), of one market centre only.
    OperationalHalt b'h' 21 {
        /// Symbol.
        stock: Symbol = 11,
        /// `Q` Nasdaq, `B` BX, `X` PSX.
        market_code: Code = 19,
        /// `H` halted, `T` trading resumed.
        action: Code = 20,
    }
    /// Add order without attribution (1.3.1).
    AddOrder b'A' 36 {
        /// Reference of the order, unique in the day.
        order: u64 = 11,
        /// `B` buy, `S` sell.
        side: Code = 19,
        /// Shares displayed.
        shares: u32 = 20,
        /// Symbol.
        stock: Symbol = 24,
        /// Limit price.
        price: Price4 = 32,
    }
    /// Add order with attribution (1.3.2).
    AddOrderAttributed b'F' 40 {
        /// Reference of the order, unique in the day.
        order: u64 = 11,
        /// `B` buy, `S` sell.
        side: Code = 19,
        /// Shares displayed.
        shares: u32 = 20,
        /// Symbol.
        stock: Symbol = 24,
        /// Limit price.
        price: Price4 = 32,
        /// Participant that entered the order.
        attribution: Text<4> = 36,
    }
    /// Order executed at its own price, in whole or in part (1.4.1).
    OrderExecuted b'E' 31 {
        /// Reference of the order.
        order: u64 = 11,
        /// Shares executed.
        shares: u32 = 19,
        /// Match number of the day.
        match_number: u64 = 23,
    }
    /// Order executed at another price than its own (1.4.2).
    OrderExecutedWithPrice b'C' 36 {
        /// Reference of the order.
        order: u64 = 11,
        /// Shares executed.
        shares: u32 = 19,
        /// Match number of the day.
        match_number: u64 = 23,
        /// `Y` counts in time and sales, `N` is reported in bulk by a cross message.
        printable: Code = 31,
        /// Price of the execution.
        price: Price4 = 32,
    }
    /// Order cancelled in part (1.4.3).
    OrderCancel b'X' 23 {
        /// Reference of the order.
        order: u64 = 11,
        /// Shares taken off the order.
        shares: u32 = 19,
    }
    /// Order deleted (1.4.4).
    OrderDelete b'D' 19 {
        /// Reference of the order.
        order: u64 = 11,
    }
    /// Order replaced (1.4.5): side, stock and attribution carry over, time priority does not.
    OrderReplace b'U' 35 {
        /// Reference of the order that is gone.
        order: u64 = 11,
        /// Reference of the order that stands in its place.
        new_order: u64 = 19,
        /// Shares displayed from now on.
        shares: u32 = 27,
        /// Limit price from now on.
        price: Price4 = 31,
    }
    /// Trade against an order that was not displayed (1.5.1); no book changes.
    Trade b'P' 44 {
        /// Always 0 since 2010 on Nasdaq; other venues may fill it.
        order: u64 = 11,
        /// Side of the order that was not displayed; always `B` since 2014.
        side: Code = 19,
        /// Shares traded.
        shares: u32 = 20,
        /// Symbol.
        stock: Symbol = 24,
        /// Price of the trade.
        price: Price4 = 32,
        /// Match number of the day.
        match_number: u64 = 36,
    }
    /// Cross trade (1.5.2): opening, closing, halt and IPO auctions in bulk.
    CrossTrade b'Q' 40 {
        /// Shares matched, possibly 0.
        shares: u64 = 11,
        /// Symbol.
        stock: Symbol = 19,
        /// Price of the cross.
        price: Price4 = 27,
        /// Match number of the day.
        match_number: u64 = 31,
        /// `O` opening, `C` closing, `H` halt or IPO.
        cross_type: Code = 39,
    }
    /// Broken trade or execution (1.5.3); no book changes.
    BrokenTrade b'B' 19 {
        /// Match number of the execution that was broken.
        match_number: u64 = 11,
    }
    /// Net order imbalance indicator (1.6).
    NetOrderImbalance b'I' 50 {
        /// Shares that can be paired at the reference price.
        paired_shares: u64 = 11,
        /// Shares that cannot.
        imbalance_shares: u64 = 19,
        /// `B`, `S`, `N` none, `O` not enough orders, `P` paused.
        imbalance_direction: Code = 27,
        /// Symbol.
        stock: Symbol = 28,
        /// Clearing price of cross orders only.
        far_price: Price4 = 36,
        /// Clearing price of cross and continuous orders.
        near_price: Price4 = 40,
        /// Price at which the imbalance is calculated.
        reference_price: Price4 = 44,
        /// `O` opening, `C` closing, `H` halt or IPO, `A` extended trading close.
        cross_type: Code = 48,
        /// Deviation of the near price from the reference, as a class.
        price_variation_indicator: Code = 49,
    }
    /// Retail price improvement interest (1.7).
    RetailInterest b'N' 20 {
        /// Symbol.
        stock: Symbol = 11,
        /// `B`, `S`, `A` both, `N` none.
        interest_flag: Code = 19,
    }
    /// Direct listing with capital raise price discovery (1.8).
    DirectListing b'O' 48 {
        /// Symbol.
        stock: Symbol = 11,
        /// `Y` when the security is eligible to be released.
        open_eligibility_status: Code = 19,
        /// 20 % below the lowest price of the registration range.
        minimum_price: Price4 = 20,
        /// 80 % above the highest price of the registration range.
        maximum_price: Price4 = 24,
        /// Reference price if the security opened now.
        near_execution_price: Price4 = 28,
        /// When the near execution price was set, in nanoseconds since midnight.
        near_execution_time_ns: u64 = 32,
        /// Lower collar, 10 % below the near execution price.
        lower_collar: Price4 = 40,
        /// Upper collar, 10 % above the near execution price.
        upper_collar: Price4 = 44,
    }
}
