//! What the kernel's network tables say, kept up to date from netlink, and the next hops made of
//! it.
//!
//! ```text
//!   netlink changes --apply--> links, addresses, routes, neighbours
//!                                   |-> served addresses and MACs  -> steering maps
//!                                   `-> published tables           -> next hops in shared memory
//! ```
//!
//! Owned by the supervisor's thread; no locks. The kernel's tables may be large (a full routing
//! table, a busy segment's neighbours): only routes and neighbours that leave by a served
//! interface, or by a VLAN device above one, are kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nautilus_shm::next_hops::{self, LinkEntry, LocalAddress};

use super::netlink::{Address, Change, Link, Neighbour, Route};
use crate::net::Endpoint;

fn mapped(address: IpAddr) -> [u8; 16] {
    Endpoint::new(address, 0).address
}

/// What a change touched, so that only that is published again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// A link came, went or changed.
    pub links: bool,
    /// An address came or went.
    pub addresses: bool,
    /// A route or neighbour came, went or changed.
    pub hops: bool,
}

impl Touched {
    /// Whether anything changed.
    pub fn any(self) -> bool {
        self.links || self.addresses || self.hops
    }

    fn add(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.hops |= other.hops;
    }
}

/// The kernel's tables, as far as this node needs them.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<(u32, IpAddr), Address>,
    routes: Vec<Route>,
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
}

impl Mirror {
    /// A mirror of a whole dump.
    pub fn from_dump(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut mirror = Self::default();
        mirror.apply_all(changes);
        mirror
    }

    /// Applies changes in their order.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            touched.add(self.apply(change));
        }
        touched
    }

    /// Applies one change; says nothing was touched when it tells what is known already.
    pub fn apply(&mut self, change: Change) -> Touched {
        let mut touched = Touched::default();
        match change {
            Change::Link(link) => {
                let known = self.links.insert(link.ifindex, link.clone());
                touched.links = known.as_ref() != Some(&link);
            }
            Change::LinkGone(ifindex) => {
                touched.links = self.links.remove(&ifindex).is_some();
                self.addresses.retain(|(index, _), _| *index != ifindex);
                self.neighbours.retain(|(index, _), _| *index != ifindex);
                self.routes.retain(|route| route.ifindex != ifindex);
                touched.addresses = touched.links;
                touched.hops = touched.links;
            }
            Change::Address(address) => {
                let key = (address.ifindex, address.address);
                touched.addresses = self.addresses.insert(key, address) != Some(address);
            }
            Change::AddressGone(address) => {
                let key = (address.ifindex, address.address);
                touched.addresses = self.addresses.remove(&key).is_some();
            }
            Change::Route(route) => {
                let same = |known: &Route| Self::same_route(known, &route);
                match self.routes.iter_mut().find(|known| same(known)) {
                    Some(known) if *known == route => {}
                    Some(known) => {
                        *known = route;
                        touched.hops = true;
                    }
                    None => {
                        self.routes.push(route);
                        touched.hops = true;
                    }
                }
            }
            Change::RouteGone(route) => {
                let before = self.routes.len();
                self.routes.retain(|known| !Self::same_route(known, &route));
                touched.hops = self.routes.len() != before;
            }
            Change::Neighbour(Neighbour { ifindex, address, mac: Some(mac) }) => {
                touched.hops = self.neighbours.insert((ifindex, address), mac) != Some(mac);
            }
            Change::Neighbour(Neighbour { ifindex, address, mac: None })
            | Change::NeighbourGone(Neighbour { ifindex, address, .. }) => {
                touched.hops = self.neighbours.remove(&(ifindex, address)).is_some();
            }
        }
        touched
    }

    /// The kernel tells routes of one prefix apart by metric and, in IPv6, by interface.
    fn same_route(a: &Route, b: &Route) -> bool {
        a.prefix == b.prefix
            && a.metric == b.metric
            && (a.prefix.address().is_ipv4() || a.ifindex == b.ifindex)
    }

    /// The link of this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link of this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The served interface that carries packets of `ifindex`, and the tag they bear: the interface
    /// itself untagged, or the one below a VLAN device.
    pub fn carrier(&self, ifindex: u32, served: &[u32]) -> Option<(u32, u16)> {
        if served.contains(&ifindex) {
            return Some((ifindex, 0));
        }
        let link = self.links.get(&ifindex)?;
        (link.kind == "vlan" && served.contains(&link.parent)).then_some((link.parent, link.vlan))
    }

    /// Addresses that may be used from elsewhere, of the interface and the VLAN devices above it.
    pub fn global_addresses(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        self.addresses.values().filter(move |address| {
            address.global && self.carrier(address.ifindex, &[ifindex]).is_some()
        })
    }

    /// Every address, link-local ones too.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values()
    }

    /// The rows of the next-hop table: everything that leaves by one of the `served` interfaces or
    /// by a VLAN device on one.
    pub fn next_hops(&self, served: &[u32]) -> next_hops::Mirror {
        let carried = |ifindex: u32| self.carrier(ifindex, served).is_some();
        let links = self.links.values().filter_map(|link| {
            let (parent, vlan) = self.carrier(link.ifindex, served)?;
            let (mac, mtu_bytes) = (link.mac, link.mtu);
            Some(LinkEntry { ifindex: link.ifindex, parent, vlans: [vlan, 0], mac, mtu_bytes })
        });
        let addresses = self.addresses.values().filter(|row| carried(row.ifindex)).map(|row| {
            let prefix_bits = row.bits + if row.address.is_ipv4() { 96 } else { 0 };
            LocalAddress { address: mapped(row.address), ifindex: row.ifindex, prefix_bits }
        });
        let routes = self.routes.iter().filter(|row| carried(row.ifindex)).map(|row| {
            let (prefix, prefix_bits) = row.prefix.mapped();
            let gateway = row.gateway.map(mapped);
            let (ifindex, metric) = (row.ifindex, row.metric);
            next_hops::Route { prefix, prefix_bits, gateway, ifindex, metric }
        });
        let neighbours = self.neighbours.iter().filter(|((ifindex, _), _)| carried(*ifindex)).map(
            |((ifindex, address), mac)| next_hops::Neighbour {
                address: mapped(*address),
                ifindex: *ifindex,
                mac: *mac,
            },
        );
        next_hops::Mirror {
            links: links.collect(),
            addresses: addresses.collect(),
            routes: routes.collect(),
            neighbours: neighbours.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, ifindex: u32, gateway: Option<&str>, metric: u32) -> Route {
        let gateway = gateway.map(|text| text.parse().unwrap());
        Route { prefix: prefix.parse().unwrap(), ifindex, gateway, metric }
    }

    fn mirror() -> Mirror {
        let eth = Link { ifindex: 2, name: "eth0".into(), ..Link::default() };
        let vlan = Link {
            ifindex: 3,
            name: "eth0.7".into(),
            kind: "vlan".into(),
            parent: 2,
            vlan: 7,
            ..Link::default()
        };
        let other = Link { ifindex: 4, name: "eth1".into(), ..Link::default() };
        let mut mirror = Mirror::from_dump([eth, vlan, other].map(Change::Link));
        mirror.apply_all([
            Change::Route(route("198.18.0.0/24", 2, None, 0)),
            Change::Route(route("198.18.0.0/16", 2, Some("198.18.0.254"), 0)),
            Change::Route(route("0.0.0.0/0", 4, Some("198.19.0.1"), 0)),
            Change::Route(route("198.18.7.0/24", 3, None, 0)),
        ]);
        mirror
    }

    #[test]
    fn what_leaves_by_a_served_interface_is_published() {
        let mirror = mirror();
        assert_eq!(mirror.carrier(3, &[2]), Some((2, 7)));
        assert_eq!(mirror.carrier(4, &[2]), None);
        let rows = mirror.next_hops(&[2]);
        let links: Vec<_> =
            rows.links.iter().map(|row| (row.ifindex, row.parent, row.vlans)).collect();
        assert_eq!(links, [(2, 2, [0, 0]), (3, 2, [7, 0])]);
        let routes: Vec<_> = rows.routes.iter().map(|row| (row.ifindex, row.prefix_bits)).collect();
        assert_eq!(routes, [(2, 120), (2, 112), (3, 120)]);
        assert_eq!(rows.routes[1].gateway, Some(mapped("198.18.0.254".parse().unwrap())));
    }

    #[test]
    fn only_news_touches_anything() {
        let mut mirror = mirror();
        let address: IpAddr = "198.18.0.9".parse().unwrap();
        let known = |mac| Change::Neighbour(Neighbour { ifindex: 2, address, mac });
        assert!(mirror.apply(known(Some([1; 6]))).hops);
        assert!(!mirror.apply(known(Some([1; 6]))).any());
        let row = next_hops::Neighbour { address: mapped(address), ifindex: 2, mac: [1; 6] };
        assert_eq!(mirror.next_hops(&[2]).neighbours, [row]);
        assert!(mirror.apply(known(None)).hops, "failed");
        assert!(mirror.next_hops(&[2]).neighbours.is_empty());
        assert!(!mirror.apply(Change::Route(route("198.18.0.0/24", 2, None, 0))).any());
        assert!(mirror.apply(Change::Route(route("198.18.0.0/24", 4, None, 0))).hops, "moved");
        assert!(mirror.apply(Change::LinkGone(2)).links);
        assert!(mirror.apply(Change::LinkGone(3)).links, "the kernel tells it of the device above");
        assert!(mirror.next_hops(&[2]).routes.is_empty());
        assert!(!mirror.apply(Change::LinkGone(2)).any());
    }
}
