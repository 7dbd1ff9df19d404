//! A range of source addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address prefix, IPv4 or IPv6, with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Why a text is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not `address/bits`.
    #[error("{0:?} is not a prefix; write address/bits, as in 198.18.0.0/15")]
    Form(String),
    /// More bits than the family has.
    #[error("{0:?} has more bits than the address")]
    Bits(String),
    /// Bits below the prefix are set, which is a slip more often than not.
    #[error("{0:?} has host bits set; the prefix is {1}")]
    HostBits(String, Prefix),
}

impl Prefix {
    /// The prefix of `bits` leading bits that `address` lies in; `None` when there are not as many.
    pub fn containing(address: IpAddr, bits: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::from((u32::from(v4) & mask).to_be_bytes())
            }
            IpAddr::V6(v6) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::from((u128::from(v6) & mask).to_be_bytes())
            }
            _ => return None,
        };
        Some(Self { address, bits })
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that count, of 32 or 128.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The form the steering maps are keyed with: an IPv4-mapped address and bits out of 128.
    pub fn mapped(&self) -> ([u8; 16], u8) {
        match self.address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), self.bits + 96),
            IpAddr::V6(v6) => (v6.octets(), self.bits),
        }
    }

    /// Whether `address` lies in it. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_canonical(),
            v4 => v4,
        };
        Self::containing(address, self.bits) == Some(*self)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let form = || PrefixError::Form(text.into());
        let (address, bits) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(form());
        }
        let bits: u8 = bits.parse().map_err(|_| form())?;
        let prefix =
            Self::containing(address, bits).ok_or_else(|| PrefixError::Bits(text.into()))?;
        if prefix.address != address {
            return Err(PrefixError::HostBits(text.into(), prefix));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl serde::Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn prefixes_hold_what_lies_in_them() {
        let lab: Prefix = "198.18.0.0/15".parse().unwrap();
        assert!(lab.contains("198.19.255.255".parse().unwrap()));
        assert!(lab.contains("::ffff:198.18.0.1".parse().unwrap()));
        assert!(!lab.contains("198.20.0.0".parse().unwrap()));
        assert!(!lab.contains("fd00:6e61::1".parse().unwrap()));
        assert_eq!(lab.mapped().1, 111);
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert_eq!(all.mapped(), ("::ffff:0.0.0.0".parse::<Ipv6Addr>().unwrap().octets(), 96));
        let v6: Prefix = "fd00:6e61::/32".parse().unwrap();
        assert!(v6.contains("fd00:6e61:ffff::1".parse().unwrap()));
        assert!(!v6.contains("fd00:6e62::1".parse().unwrap()));
    }

    #[test]
    fn slips_are_refused() {
        for text in ["", "1.2.3.4", "1.2.3/8", "1.2.3.4/x", "::ffff:1.2.3.4/128", "1.2.3.4/-1"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::Form(_))), "{text}");
        }
        assert!(matches!("1.2.3.4/33".parse::<Prefix>(), Err(PrefixError::Bits(_))));
        let error = "198.18.0.1/15".parse::<Prefix>().unwrap_err();
        assert!(error.to_string().ends_with("the prefix is 198.18.0.0/15"));
    }
}
