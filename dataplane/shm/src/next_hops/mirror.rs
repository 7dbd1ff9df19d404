//! The rows of the next-hop table as the supervisor collects them.

use super::{ADDRESSES_MAX, LINKS_MAX, NEIGHBOURS_MAX, NextHop, Query, ROUTES_MAX};

/// An address in network order, IPv4 as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
pub type Address = [u8; 16];

const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// An interface, or a VLAN device on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEntry {
    /// The kernel's index.
    pub ifindex: u32,
    /// The interface that sends for it: itself, or a VLAN device's lowest parent.
    pub parent: u32,
    /// VLAN identifiers its packets carry on the parent, outer first, 0 for no tag.
    pub vlans: [u16; 2],
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its MTU in bytes of IP packet.
    pub mtu_bytes: u32,
}

impl LinkEntry {
    pub(super) fn suits(&self, query: &Query) -> bool {
        (query.ifindex == 0 || query.ifindex == self.parent)
            && query.vlans.is_none_or(|vlans| vlans == self.vlans)
    }

    pub(super) fn hop(&self, mac: [u8; 6]) -> NextHop {
        NextHop {
            ifindex: self.parent,
            mac,
            source_mac: self.mac,
            vlans: self.vlans,
            mtu_bytes: self.mtu_bytes,
        }
    }
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: Address,
    /// The link it is on.
    pub ifindex: u32,
    /// Prefix length in bits of the mapped form: 96 more than an IPv4 prefix.
    pub prefix_bits: u8,
}

/// A unicast route, connected ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Bits beyond `prefix_bits` are ignored.
    pub prefix: Address,
    /// 0 to 128, in the mapped form: IPv4's default route has 96.
    pub prefix_bits: u8,
    /// `None`: the destination is itself the neighbour.
    pub gateway: Option<Address>,
    /// The link to leave by.
    pub ifindex: u32,
    /// Lower wins among equal prefixes. Not kept in the table, which is sorted by it.
    pub metric: u32,
}

impl Route {
    pub(super) fn contains(&self, destination: &Address) -> bool {
        let difference = u128::from_be_bytes(self.prefix) ^ u128::from_be_bytes(*destination);
        self.prefix_bits == 0 || difference.leading_zeros() >= u32::from(self.prefix_bits.min(128))
    }
}

/// A neighbour whose MAC may be used (any state but INCOMPLETE and FAILED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Address,
    /// The link it is on.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: [u8; 6],
}

/// Everything a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Interfaces and VLAN devices; at most [`LINKS_MAX`] are kept.
    pub links: Vec<LinkEntry>,
    /// Local addresses; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<LocalAddress>,
    /// Routes; at most [`ROUTES_MAX`], the longest prefixes.
    pub routes: Vec<Route>,
    /// Neighbours; at most [`NEIGHBOURS_MAX`], the lowest addresses.
    pub neighbours: Vec<Neighbour>,
}

/// Rows of a mirror that the table has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Links left out.
    pub links: usize,
    /// Addresses left out.
    pub addresses: usize,
    /// Routes left out.
    pub routes: usize,
    /// Neighbours left out.
    pub neighbours: usize,
}

impl Omitted {
    /// All rows left out.
    pub fn total(&self) -> usize {
        self.links + self.addresses + self.routes + self.neighbours
    }
}

impl Mirror {
    /// The order that lookups rely on: links by index, routes by longest prefix and lowest metric,
    /// neighbours by address and link.
    pub(super) fn sort(&mut self) {
        self.links.sort_unstable_by_key(|link| link.ifindex);
        self.routes.sort_by_key(|route| (128 - route.prefix_bits.min(128), route.metric));
        self.neighbours.sort_by_key(|neighbour| (neighbour.address, neighbour.ifindex));
    }

    pub(super) fn omitted(&self) -> Omitted {
        Omitted {
            links: self.links.len().saturating_sub(LINKS_MAX),
            addresses: self.addresses.len().saturating_sub(ADDRESSES_MAX),
            routes: self.routes.len().saturating_sub(ROUTES_MAX),
            neighbours: self.neighbours.len().saturating_sub(NEIGHBOURS_MAX),
        }
    }
}

pub(super) fn is_multicast(address: &Address) -> bool {
    if address[..12] == V4_MAPPED { address[12] & 0xf0 == 0xe0 } else { address[0] == 0xff }
}

/// The group's MAC: RFC 1112 6.4 for IPv4, RFC 2464 7 for IPv6.
pub(super) fn group_mac(address: &Address) -> [u8; 6] {
    let [.., a, b, c, d] = *address;
    if address[..12] == V4_MAPPED {
        [0x01, 0x00, 0x5e, b & 0x7f, c, d]
    } else {
        [0x33, 0x33, a, b, c, d]
    }
}
