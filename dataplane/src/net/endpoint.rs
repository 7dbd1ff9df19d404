//! An address and port in the one form the data plane compares and hashes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A UDP endpoint. IPv4 is held as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), the same form
/// the steering program keys its maps with.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Sixteen bytes in network order.
    pub address: [u8; 16],
    /// UDP port in host order.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint of this address and port.
    pub fn new(address: IpAddr, port: u16) -> Self {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { address, port }
    }

    /// An IPv4 endpoint from four bytes in network order.
    pub const fn v4(octets: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = octets;
        Self { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port }
    }

    /// The address, with the mapping undone.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.address).to_canonical()
    }

    /// Whether this is an IPv4 endpoint.
    pub fn is_v4(&self) -> bool {
        self.address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// The last four bytes: the IPv4 address when [`Self::is_v4`].
    pub fn v4_octets(&self) -> [u8; 4] {
        [self.address[12], self.address[13], self.address[14], self.address[15]]
    }

    /// Whether the address is multicast in its own family.
    pub fn is_multicast(&self) -> bool {
        self.ip().is_multicast()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip(), address.port())
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        SocketAddr::new(endpoint.ip(), endpoint.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_mapping() {
        for text in ["198.18.0.1:11211", "[fd00:6e61::1]:26477", "233.54.12.111:26477"] {
            let address: SocketAddr = text.parse().unwrap();
            let endpoint = Endpoint::from(address);
            assert_eq!(endpoint.is_v4(), address.is_ipv4());
            assert_eq!(SocketAddr::from(endpoint), address);
            assert_eq!(endpoint.is_multicast(), text.starts_with("233"));
        }
        assert_eq!(
            Endpoint::v4([198, 18, 0, 1], 7),
            Endpoint::from("198.18.0.1:7".parse::<SocketAddr>().unwrap())
        );
    }
}
