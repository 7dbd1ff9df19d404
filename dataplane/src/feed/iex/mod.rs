//! IEX TOPS 1.6 over IEX-TP: framing ([`iextp`]), message views ([`tops`]), field encodings ([`wire`]), what is
//! kept of each stock ([`quotes`]) and the exchange's day ([`new_york`]).
//!
//! TOPS has no orders: a quote update says the whole best bid and offer of its stock.

mod decoder;
pub mod iextp;
pub mod new_york;
pub mod quotes;
pub mod tops;
pub mod wire;

pub use decoder::Tops;
pub use quotes::{Quote, Quotes, TopsTrade};
