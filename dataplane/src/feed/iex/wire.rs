//! How TOPS encodes a field: little-endian integers, and text padded with spaces.

use crate::feed::Symbol;
use crate::feed::itch::{Code, Text};
use std::fmt;

/// A type that occupies a fixed number of bytes of a message.
pub trait Wire: Copy + fmt::Debug {
    /// Bytes on the wire.
    const BYTES: usize;
    /// Reads the value from exactly [`Self::BYTES`] bytes.
    fn get(bytes: &[u8]) -> Self;
    /// Writes the value to exactly [`Self::BYTES`] bytes.
    fn put(self, out: &mut [u8]);
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            const BYTES: usize = size_of::<$type>();
            #[inline(always)]
            fn get(bytes: &[u8]) -> Self {
                let mut value = [0; size_of::<$type>()];
                value.copy_from_slice(bytes);
                <$type>::from_le_bytes(value)
            }
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
integer!(u8, u32, u64, i64);

impl Wire for Symbol {
    const BYTES: usize = 8;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        let mut value = [0; 8];
        value.copy_from_slice(bytes);
        Self(value)
    }
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

impl<const N: usize> Wire for Text<N> {
    const BYTES: usize = N;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        let mut value = [0; N];
        value.copy_from_slice(bytes);
        Self(value)
    }
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

impl Wire for Code {
    const BYTES: usize = 1;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        Self(bytes[0])
    }
    fn put(self, out: &mut [u8]) {
        out[0] = self.0;
    }
}

/// Nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Wire for Timestamp {
    const BYTES: usize = 8;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        Self(i64::get(bytes))
    }
    fn put(self, out: &mut [u8]) {
        self.0.put(out);
    }
}

/// Highest price that is believed: a billion dollars. Too low: a stock that is worth so much is suspect. Too
/// high: a field that is no price is published as one.
pub const PRICE_MAX: u64 = 1_000_000_000 * 10_000;

/// A price in 1e-4 dollars, signed on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price(pub i64);

impl Price {
    /// The price; `None` where it can be none: below 0 or above [`PRICE_MAX`].
    #[inline(always)]
    pub fn checked(self) -> Option<u64> {
        u64::try_from(self.0).ok().filter(|price| *price <= PRICE_MAX)
    }
}

impl Wire for Price {
    const BYTES: usize = 8;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        Self(i64::get(bytes))
    }
    fn put(self, out: &mut [u8]) {
        self.0.put(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_below_nothing_or_beyond_reason_is_none() {
        assert_eq!(Price(0).checked(), Some(0));
        assert_eq!(Price(PRICE_MAX as i64).checked(), Some(PRICE_MAX));
        for bad in [-1, i64::MIN, PRICE_MAX as i64 + 1, i64::MAX] {
            assert_eq!(Price(bad).checked(), None, "{bad}");
        }
    }
}
