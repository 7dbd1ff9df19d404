//! How ITCH encodes a field: big-endian integers of 1, 2, 4, 6 and 8 bytes, and padded text.

use crate::feed::Symbol;
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
                <$type>::from_be_bytes(value)
            }
            fn put(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}
integer!(u16, u32, u64);

/// Nanoseconds since midnight of the exchange's own day, 48 bits on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanoseconds(pub u64);

impl Wire for Nanoseconds {
    const BYTES: usize = 6;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        let mut value = [0; 8];
        value[2..].copy_from_slice(bytes);
        Self(u64::from_be_bytes(value))
    }
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.to_be_bytes()[2..]);
    }
}

/// One ASCII character of a code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_ascii())
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

/// Text of `N` bytes, left-justified and padded with spaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>(pub [u8; N]);

impl<const N: usize> Text<N> {
    /// The bytes without trailing spaces.
    pub fn trimmed(&self) -> &[u8] {
        self.0.trim_ascii_end()
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.trimmed().escape_ascii())
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

/// A price in 1e-4 of the currency unit, "Price (4)" of the specification. $150.94 is 1,509,400.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Price4(pub u32);

impl fmt::Display for Price4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04}", self.0 / 10_000, self.0 % 10_000)
    }
}

impl fmt::Debug for Price4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Wire for Price4 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        Self(u32::get(bytes))
    }
    fn put(self, out: &mut [u8]) {
        self.0.put(out);
    }
}

/// A price in 1e-8 of the currency unit, "Price (8)" of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Price8(pub u64);

impl Wire for Price8 {
    const BYTES: usize = 8;
    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        Self(u64::get(bytes))
    }
    fn put(self, out: &mut [u8]) {
        self.0.put(out);
    }
}

/// Side of an order. The wire has `B` and `S`; anything else is refused when a message is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// To buy: a bid.
    Buy,
    /// To sell: an offer.
    Sell,
}

impl Side {
    /// The side a code stands for.
    #[inline(always)]
    pub fn from_code(code: Code) -> Option<Self> {
        match code.0 {
            b'B' => Some(Self::Buy),
            b'S' => Some(Self::Sell),
            _ => None,
        }
    }

    /// The code on the wire.
    pub fn code(self) -> Code {
        match self {
            Self::Buy => Code(b'B'),
            Self::Sell => Code(b'S'),
        }
    }
}
