//! One entry of the source list: an address prefix of either family.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::intf::{Address, SourcePrefixKey};

/// `198.18.0.0/15`, `fd00:6e61::/32`, or a whole address.
///
/// Never an IPv4-mapped IPv6 prefix: such packets are refused whatever the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePrefix {
    address: IpAddr,
    bits: u8,
}

/// Why a text or a pair is not a source prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrefixError {
    /// The address does not parse.
    #[error("{0:?} is not an IP address or prefix (as in 198.18.0.0/15 or fd00:6e61::/32)")]
    Syntax(String),
    /// The length exceeds the family's 32 or 128.
    #[error("a prefix of {address} has at most {bits_max} bits, not {bits}")]
    TooLong {
        /// The address given.
        address: IpAddr,
        /// The length given.
        bits: u8,
        /// The length of the family's addresses.
        bits_max: u8,
    },
    /// Bits are set that the prefix does not cover; the author meant another length or address.
    #[error("{address}/{bits} has bits set beyond its {bits} bits")]
    HostBits {
        /// The address given.
        address: IpAddr,
        /// The length given.
        bits: u8,
    },
    /// An IPv4-mapped IPv6 prefix.
    #[error("{0} is an IPv4-mapped prefix: write the IPv4 one")]
    Mapped(IpAddr),
}

impl SourcePrefix {
    /// A prefix of `bits` bits, 0..=32 or 0..=128 by the address's family.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, PrefixError> {
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if bits > bits_max {
            return Err(PrefixError::TooLong { address, bits, bits_max });
        }
        if bits >= 96 && address.is_ipv6() && address.to_canonical().is_ipv4() {
            return Err(PrefixError::Mapped(address));
        }
        let prefix = Self { address, bits };
        let value = u128::from_be_bytes(Address::from(address).0);
        let host_bits = 128 - prefix.mapped_bits();
        if value & !u128::MAX.checked_shl(host_bits).unwrap_or(0) != 0 {
            return Err(PrefixError::HostBits { address, bits });
        }
        Ok(prefix)
    }

    /// The address, bits beyond the prefix 0.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length in the address's own family.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it is one address, which goes to the exact-match map.
    pub fn is_exact(&self) -> bool {
        self.mapped_bits() == 128
    }

    /// Whether every address of `other` is one of this prefix.
    pub fn covers(&self, other: &Self) -> bool {
        let number = |prefix: &Self| u128::from_be_bytes(Address::from(prefix.address).0);
        self.family() == other.family()
            && self.bits <= other.bits
            && (number(self) ^ number(other)).leading_zeros() >= self.mapped_bits()
    }

    /// 4 or 6.
    pub(crate) fn family(&self) -> u32 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }

    pub(crate) fn key(&self) -> SourcePrefixKey {
        SourcePrefixKey { bits: self.mapped_bits(), address: self.address.into() }
    }

    /// From the maps' form; `None` when another writer put in what this crate never would.
    pub(crate) fn from_key(key: SourcePrefixKey, family: u32) -> Option<Self> {
        let address = IpAddr::from(key.address.0);
        let (address, bits) = match family {
            4 => (address.to_canonical(), key.bits.checked_sub(96)?),
            _ => (address, key.bits),
        };
        Self::new(address, bits.try_into().ok()?).ok()
    }

    fn mapped_bits(&self) -> u32 {
        u32::from(self.bits) + if self.address.is_ipv4() { 96 } else { 0 }
    }
}

impl From<IpAddr> for SourcePrefix {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for SourcePrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| syntax())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        Self::new(address, bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
    }
}

impl fmt::Display for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_survive_the_map_form() {
        for text in ["0.0.0.0/0", "198.18.0.0/15", "198.18.0.7/32", "::/0", "fd00:6e61::/32"] {
            let prefix: SourcePrefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
            assert_eq!(SourcePrefix::from_key(prefix.key(), prefix.family()), Some(prefix));
        }
        assert!("198.18.0.7".parse::<SourcePrefix>().unwrap().is_exact());
        assert!("fd00::1".parse::<SourcePrefix>().unwrap().is_exact());
        assert!(!"::/0".parse::<SourcePrefix>().unwrap().is_exact());
    }

    #[test]
    fn prefixes_cover_what_lies_in_them() {
        let covers = |wide: &str, narrow: &str| {
            wide.parse::<SourcePrefix>().unwrap().covers(&narrow.parse().unwrap())
        };
        assert!(covers("198.18.0.0/15", "198.19.255.255") && covers("0.0.0.0/0", "0.0.0.0/0"));
        assert!(covers("::/0", "fd00::/8") && covers("198.18.0.7", "198.18.0.7"));
        assert!(
            !covers("198.18.0.0/16", "198.18.0.0/15") && !covers("198.18.0.0/15", "198.20.0.0/16")
        );
        assert!(!covers("::/0", "198.18.0.0/15") && !covers("0.0.0.0/0", "::/0"));
    }

    #[test]
    fn what_is_not_a_prefix_says_why() {
        for (text, part) in [
            ("", "not an IP address"),
            ("198.18.0.0/x", "not an IP address"),
            ("198.18.0.0/33", "at most 32 bits"),
            ("::/129", "at most 128 bits"),
            ("198.18.0.1/15", "bits set beyond"),
            ("::1/0", "bits set beyond"),
            ("::ffff:198.18.0.1", "IPv4-mapped"),
            ("::ffff:0:0/96", "IPv4-mapped"),
        ] {
            let error = text.parse::<SourcePrefix>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
