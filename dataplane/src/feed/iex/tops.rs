//! Every message of TOPS 1.6 as a view over its bytes.
//!
//! Source: IEX "TOPS Specification", version 1.66. Each view borrows the message and reads a field only when
//! asked. All messages begin with the same ten bytes: type (1), a code or flags of the type's own (1),
//! timestamp (8). The venue may add fields behind those of today: what is longer is read as far as it is
//! known.

use super::wire::{Price, Timestamp, Wire};
use crate::feed::Symbol;
use crate::feed::itch::{Code, DecodeError, Text};
use std::fmt;

/// [`QuoteUpdate::flags`]: halted, paused, or for another reason not to be traded at IEX.
pub const QUOTE_UNAVAILABLE: u8 = 0x80;
/// [`QuoteUpdate::flags`]: before or after the regular market session.
pub const QUOTE_OFF_HOURS: u8 = 0x40;

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
                /// Length in bytes that the message has at least.
                pub const BYTES: usize = $bytes;

                /// A view of `bytes` if they have the type of this message and are long enough for it.
                #[inline(always)]
                pub fn view(bytes: &'a [u8]) -> Option<Self> {
                    let bytes = bytes.first_chunk::<$bytes>()?;
                    (bytes[0] == $code).then_some(Self(bytes))
                }

                $(
                    $(#[$field_doc])*
                    #[inline(always)]
                    pub fn $field(&self) -> $type {
                        <$type as Wire>::get(&self.0[$offset..$offset + <$type as Wire>::BYTES])
                    }
                )*

                /// The bytes of such a message, for tests and tools.
                #[allow(clippy::too_many_arguments)]
                pub fn encode($($field: $type),*) -> [u8; $bytes] {
                    let mut out = [0; $bytes];
                    out[0] = $code;
                    $($field.put(&mut out[$offset..$offset + <$type as Wire>::BYTES]);)*
                    out
                }
            }

            impl fmt::Debug for $name<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($name))
                        $(.field(stringify!($field), &self.$field()))*
                        .finish()
                }
            }

            // The fields tile the message: each begins where the one before it ended.
            const _: () = {
                let mut end = 1;
                $(
                    assert!($offset == end, stringify!($name.$field));
                    end += <$type as Wire>::BYTES;
                )*
                assert!(end == $bytes, stringify!($name));
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

            /// When the exchange made the message.
            #[inline(always)]
            pub fn timestamp(&self) -> Timestamp {
                match self {
                    $(Self::$name(message) => message.timestamp(),)*
                }
            }

            /// The message type byte.
            pub fn code(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $code,)*
                }
            }
        }

        /// Type byte and least length of every message.
        pub const LENGTHS: &[(u8, usize)] = &[$(($code, $bytes)),*];
    };
}

messages! {
    /// System event: where the day stands.
    SystemEvent b'S' 10 {
        /// `O` start of messages, `S` start of system hours, `R` start of regular hours, `M` end of
        /// regular hours, `E` end of system hours, `C` end of messages.
        event: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
    }
    /// Security directory: one per stock listed at IEX, before the start of the day.
    SecurityDirectory b'D' 31 {
        /// 0x80 test security, 0x40 when issued, 0x20 exchange traded product.
        flags: u8 = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Shares in a round lot.
        round_lot: u32 = 18,
        /// Closing price of the day before, adjusted for corporate actions.
        adjusted_close: Price = 22,
        /// Limit up / limit down tier: 0 none, 1 or 2.
        luld_tier: u8 = 30,
    }
    /// Trading status.
    TradingStatus b'H' 22 {
        /// `H` halted on all markets, `O` released into an order acceptance period, `P` paused with one,
        /// `T` trading.
        status: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Reason of a halt or a release.
        reason: Text<4> = 18,
    }
    /// Retail liquidity indicator.
    RetailLiquidity b'I' 18 {
        /// A space for none, `A` buy, `B` sell, `C` both.
        indicator: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
    }
    /// Operational halt status: of IEX alone.
    OperationalHalt b'O' 18 {
        /// `O` halted, `N` not.
        status: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
    }
    /// Short sale price test status (Reg SHO).
    ShortSalePriceTest b'P' 19 {
        /// 0 not in effect, 1 in effect.
        status: u8 = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// A space for no test, `A` activated by an intra-day drop, `C` continued, `D` deactivated, `N` not
        /// available.
        detail: Code = 18,
    }
    /// Security event: of DEEP, and told apart here from what nobody knows.
    SecurityEvent b'E' 18 {
        /// `O` opening process complete, `C` closing process complete.
        event: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
    }
    /// Quote update: the best bid and offer of a stock; 0 for a side without orders.
    QuoteUpdate b'Q' 42 {
        /// [`QUOTE_UNAVAILABLE`], [`QUOTE_OFF_HOURS`].
        flags: u8 = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Shares of all orders at the best bid.
        bid_size: u32 = 18,
        /// Best bid.
        bid_price: Price = 22,
        /// Best offer.
        ask_price: Price = 30,
        /// Shares of all orders at the best offer.
        ask_size: u32 = 38,
    }
    /// Trade report: one for every fill.
    TradeReport b'T' 38 {
        /// 0x80 intermarket sweep, 0x40 extended hours, 0x20 odd lot, 0x10 exempt from the order protection
        /// rule, 0x08 single-price cross.
        conditions: u8 = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Shares.
        size: u32 = 18,
        /// Price.
        price: Price = 22,
        /// Number of the trade, unique in the day.
        trade_id: u64 = 30,
    }
    /// Official price of a stock listed at IEX.
    OfficialPrice b'X' 26 {
        /// `Q` opening, `M` closing.
        kind: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Price.
        price: Price = 18,
    }
    /// Trade break: a trade of the day is undone.
    TradeBreak b'B' 38 {
        /// As in the trade's report.
        conditions: u8 = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Shares of the trade.
        size: u32 = 18,
        /// Price of the trade.
        price: Price = 22,
        /// Number of the trade.
        trade_id: u64 = 30,
    }
    /// Auction information of a stock listed at IEX, about once a second before an auction.
    AuctionInformation b'A' 80 {
        /// `O` opening, `C` closing, `I` IPO, `H` halt, `V` volatility.
        kind: Code = 1,
        /// When.
        timestamp: Timestamp = 2,
        /// Symbol.
        symbol: Symbol = 10,
        /// Shares that can be paired at the reference price.
        paired_shares: u32 = 18,
        /// Price that pairing and imbalance are of.
        reference_price: Price = 22,
        /// Clearing price of all orders that may take part.
        indicative_price: Price = 30,
        /// Shares that cannot be paired.
        imbalance_shares: u32 = 38,
        /// `B`, `S`, `N` none.
        imbalance_side: Code = 42,
        /// Extensions of the auction so far.
        extension: u8 = 43,
        /// When it is to be, seconds since 1970 in UTC.
        scheduled_s: u32 = 44,
        /// Clearing price of orders on the auction book alone.
        book_price: Price = 48,
        /// Price the collar is set from; the three are 0 where there is none.
        collar_reference_price: Price = 56,
        /// Lower threshold.
        collar_lower_price: Price = 64,
        /// Upper threshold.
        collar_upper_price: Price = 72,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_are_refused_and_longer_ones_read_as_far_as_they_are_known() {
        for &(code, least) in LENGTHS {
            for bytes in 1..=90 {
                let mut message = vec![0x20; bytes];
                message[0] = code;
                match Message::decode(&message) {
                    Ok(decoded) => {
                        assert!(bytes >= least, "{code} of {bytes}");
                        assert_eq!(decoded.code(), code);
                    }
                    Err(error) => {
                        assert!(bytes < least, "{code} of {bytes}");
                        assert_eq!(error, DecodeError::WrongLength { code, bytes });
                    }
                }
            }
        }
        assert_eq!(Message::decode(&[]), Err(DecodeError::Empty));
        let known: Vec<u8> = LENGTHS.iter().map(|(code, _)| *code).collect();
        for code in (0..=u8::MAX).filter(|code| !known.contains(code)) {
            let error = Message::decode(&[code; 90]).unwrap_err();
            assert_eq!(error, DecodeError::UnknownType { code });
        }
    }

    /// Types no capture holds: bytes written by hand from the specification's offsets.
    #[test]
    fn fields_of_the_messages_that_no_capture_holds() {
        let bytes = b"B\x20\x08\x07\x06\x05\x04\x03\x02\x01ZIEXT   \x64\0\0\0\x0e\x27\0\0\0\0\0\0\
                      \x12\xd6\x0e\0\0\0\0\0";
        let Message::TradeBreak(broken) = Message::decode(bytes).unwrap() else { panic!() };
        assert_eq!((broken.conditions(), broken.symbol()), (0x20, Symbol(*b"ZIEXT   ")));
        assert_eq!(broken.timestamp(), Timestamp(0x0102_0304_0506_0708));
        assert_eq!((broken.size(), broken.price()), (100, Price(9_998)));
        assert_eq!(broken.trade_id(), 0xe_d612);

        let Message::RetailLiquidity(retail) =
            Message::decode(b"IC\x01\0\0\0\0\0\0\0AAPL    ").unwrap()
        else {
            panic!()
        };
        assert_eq!((retail.indicator(), retail.timestamp()), (Code(b'C'), Timestamp(1)));
        assert_eq!(retail.symbol(), Symbol(*b"AAPL    "));

        let Message::SecurityEvent(event) =
            Message::decode(b"EO\x02\0\0\0\0\0\0\0ZIEXT   ").unwrap()
        else {
            panic!()
        };
        assert_eq!((event.event(), event.timestamp()), (Code(b'O'), Timestamp(2)));
        assert_eq!(event.symbol(), Symbol(*b"ZIEXT   "));
    }

    #[test]
    fn text_shows_every_field() {
        let bytes =
            TradeReport::encode(0x20, Timestamp(1), Symbol(*b"IVOO    "), 100, Price(873_900), 7);
        assert_eq!(
            format!("{:?}", Message::decode(&bytes).unwrap()),
            "TradeReport(TradeReport { conditions: 32, timestamp: Timestamp(1), \
             symbol: Symbol(IVOO), size: 100, price: Price(873900), trade_id: 7 })"
        );
    }
}
