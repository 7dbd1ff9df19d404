//! The address plan of a lab: 198.18.0.0/24 (RFC 2544 benchmarking range) and fd00:6e61::/64.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Nodes one lab has room for; [`node`] numbers them from 1.
pub const NODES_MAX: usize = 200;

/// The prefixes every member of a lab is in, as an access list names them.
pub const SUBNETS: [&str; 2] = ["198.18.0.0/24", "fd00:6e61::/64"];

/// Where clients run.
pub const CLIENT: Address = Address { host: 2 };
/// Where the market data comes from.
pub const VENUE: Address = Address { host: 3 };
/// Where the control process listens.
pub const CONTROL: Address = Address { host: 4 };

/// The address pair of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    host: u8,
}

/// The addresses of node `number`, 1..=[`NODES_MAX`].
pub fn node(number: usize) -> Address {
    assert!((1..=NODES_MAX).contains(&number), "node {number}: 1..={NODES_MAX}");
    Address { host: 10 + number as u8 }
}

impl Address {
    /// Bits of the IPv4 prefix.
    pub const V4_PREFIX_BITS: u8 = 24;
    /// Bits of the IPv6 prefix.
    pub const V6_PREFIX_BITS: u8 = 64;

    /// The IPv4 address.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.host)
    }

    /// The IPv6 address.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x6e61, 0, 0, 0, 0, 0, self.host.into())
    }

    /// Both, each with its prefix length, as `ip address add` takes them.
    pub fn with_prefixes(self) -> [String; 2] {
        [
            format!("{}/{}", self.v4(), Self::V4_PREFIX_BITS),
            format!("{}/{}", self.v6(), Self::V6_PREFIX_BITS),
        ]
    }

    /// Both addresses.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shares_an_address() {
        let mut all = vec![CLIENT, VENUE, CONTROL];
        all.extend((1..=NODES_MAX).map(node));
        let distinct: std::collections::HashSet<Ipv4Addr> = all.iter().map(|a| a.v4()).collect();
        assert_eq!(distinct.len(), all.len());
        assert!(distinct.iter().all(|a| a.octets()[..3] == [198, 18, 0] && a.octets()[3] < 255));
        assert_eq!(node(1).with_prefixes(), ["198.18.0.11/24", "fd00:6e61::b/64"]);
    }
}
