//! The kernel's links, addresses, routes and neighbours, mirrored for workers.
//!
//! ```text
//!   netlink -> supervisor: Mirror (sorted) -> | version | copy 0 | copy 1 | -> workers: lookup
//! ```
//!
//! Single writer: the supervisor, which publishes the whole mirror at every change. Two copies under
//! one version, so that a supervisor killed while it writes leaves the old table whole and workers
//! serve on. A worker keeps the answers it uses in a [`NextHopCache`] of its own: while the version
//! stands, a lookup is one load and one compare.

use crate::seqlock::{READ_ATTEMPTS_MAX, Version, WriterBusy};
use crate::shared::{Padded, Shared};
use crate::sync::{AtomicU64, Ordering, spin_loop};

mod cache;
mod mirror;

pub use cache::NextHopCache;
pub use mirror::{Address, LinkEntry, LocalAddress, Mirror, Neighbour, Omitted, Route};

/// Links a table holds: the node's interfaces and the VLAN devices on them.
pub const LINKS_MAX: usize = 64;
/// Local addresses a table holds.
pub const ADDRESSES_MAX: usize = 256;
/// Routes a table holds. Too low: a router's full table is cut, and the shortest prefixes go first.
/// Too high: a lookup that misses the worker's cache reads them one after the other.
pub const ROUTES_MAX: usize = 512;
/// Neighbours a table holds; they are found by bisection.
pub const NEIGHBOURS_MAX: usize = 2048;

const LINK_WORDS: usize = 4;
const ADDRESS_WORDS: usize = 3;
const ROUTE_WORDS: usize = 5;
const NEIGHBOUR_WORDS: usize = 4;

/// Where a packet to some destination goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that sends it: the parent when the route names a VLAN device.
    pub ifindex: u32,
    /// Destination MAC.
    pub mac: [u8; 6],
    /// Source MAC.
    pub source_mac: [u8; 6],
    /// VLAN identifiers, outer first, 0 for no tag.
    pub vlans: [u16; 2],
    /// MTU of the link in bytes of IP packet.
    pub mtu_bytes: u32,
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No link that the query allows has a route.
    #[error("no route")]
    NoRoute,
    /// The route is known, its neighbour's MAC is not: ask the supervisor.
    #[error("neighbour {} on ifindex {ifindex} is not known", std::net::Ipv6Addr::from(*address).to_canonical())]
    NoNeighbour {
        /// The link the route names (not its parent).
        ifindex: u32,
        /// The neighbour's address, IPv4 as mapped.
        address: Address,
    },
    /// The supervisor published over and over during the lookup.
    #[error(transparent)]
    Busy(#[from] WriterBusy),
}

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The receiver, IPv4 as mapped.
    pub destination: Address,
    /// Only links that send by this interface; 0 for any.
    pub ifindex: u32,
    /// Only links with exactly these tags; `None` for any.
    pub vlans: Option<[u16; 2]>,
}

/// The table of a node.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct NextHopTable {
    version: Padded<Version>,
    copies: [TableCopy; 2],
}

// SAFETY: repr(C) of shared words only; padding is never read.
unsafe impl Shared for NextHopTable {}

#[repr(C, align(128))]
#[derive(Debug)]
struct TableCopy {
    links_count: AtomicU64,
    addresses_count: AtomicU64,
    routes_count: AtomicU64,
    neighbours_count: AtomicU64,
    links: [[AtomicU64; LINK_WORDS]; LINKS_MAX],
    addresses: [[AtomicU64; ADDRESS_WORDS]; ADDRESSES_MAX],
    /// Longest prefix first, then lowest metric.
    routes: [[AtomicU64; ROUTE_WORDS]; ROUTES_MAX],
    /// By address, then ifindex.
    neighbours: [[AtomicU64; NEIGHBOUR_WORDS]; NEIGHBOURS_MAX],
}

/// Rows written by [`NextHopTable::publish`] are plain numbers; this is the whole of the encoding.
trait Words<const N: usize>: Copy {
    fn words(&self) -> [u64; N];
    fn from_words(words: [u64; N]) -> Self;
}

fn high(address: &Address) -> u64 {
    u64::from_be_bytes(address[..8].try_into().expect("eight bytes"))
}

fn low(address: &Address) -> u64 {
    u64::from_be_bytes(address[8..].try_into().expect("eight bytes"))
}

fn address(high: u64, low: u64) -> Address {
    ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
}

fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn word_mac(word: u64) -> [u8; 6] {
    let [_, _, mac @ ..] = word.to_be_bytes();
    mac
}

impl Words<LINK_WORDS> for LinkEntry {
    fn words(&self) -> [u64; LINK_WORDS] {
        let indices = u64::from(self.ifindex) | u64::from(self.parent) << 32;
        let tags = u64::from(self.vlans[0]) | u64::from(self.vlans[1]) << 16;
        [indices, tags, mac_word(self.mac), self.mtu_bytes.into()]
    }

    fn from_words([indices, tags, mac, mtu]: [u64; LINK_WORDS]) -> Self {
        Self {
            ifindex: indices as u32,
            parent: (indices >> 32) as u32,
            vlans: [tags as u16, (tags >> 16) as u16],
            mac: word_mac(mac),
            mtu_bytes: mtu as u32,
        }
    }
}

impl Words<ADDRESS_WORDS> for LocalAddress {
    fn words(&self) -> [u64; ADDRESS_WORDS] {
        let rest = u64::from(self.ifindex) | u64::from(self.prefix_bits) << 32;
        [high(&self.address), low(&self.address), rest]
    }

    fn from_words([h, l, rest]: [u64; ADDRESS_WORDS]) -> Self {
        Self { address: address(h, l), ifindex: rest as u32, prefix_bits: (rest >> 32) as u8 }
    }
}

impl Words<ROUTE_WORDS> for Route {
    fn words(&self) -> [u64; ROUTE_WORDS] {
        // Metric and prefix length are only needed to sort; the length is kept to match.
        let rest = u64::from(self.ifindex)
            | u64::from(self.prefix_bits) << 32
            | u64::from(self.gateway.is_some()) << 40;
        let gateway = self.gateway.unwrap_or_default();
        [high(&self.prefix), low(&self.prefix), high(&gateway), low(&gateway), rest]
    }

    fn from_words([ph, pl, gh, gl, rest]: [u64; ROUTE_WORDS]) -> Self {
        Self {
            prefix: address(ph, pl),
            prefix_bits: (rest >> 32) as u8,
            gateway: (rest >> 40 & 1 == 1).then(|| address(gh, gl)),
            ifindex: rest as u32,
            metric: 0,
        }
    }
}

impl Words<NEIGHBOUR_WORDS> for Neighbour {
    fn words(&self) -> [u64; NEIGHBOUR_WORDS] {
        [high(&self.address), low(&self.address), self.ifindex.into(), mac_word(self.mac)]
    }

    fn from_words([h, l, ifindex, mac]: [u64; NEIGHBOUR_WORDS]) -> Self {
        Self { address: address(h, l), ifindex: ifindex as u32, mac: word_mac(mac) }
    }
}

fn write<const N: usize, T: Words<N>>(rows: &[[AtomicU64; N]], values: &[T], count: &AtomicU64) {
    let used = values.len().min(rows.len());
    for (row, value) in rows.iter().zip(values) {
        for (to, from) in row.iter().zip(value.words()) {
            to.store(from, Ordering::Relaxed);
        }
    }
    count.store(used as u64, Ordering::Relaxed);
}

fn row<const N: usize, T: Words<N>>(rows: &[[AtomicU64; N]], index: usize) -> T {
    T::from_words(std::array::from_fn(|word| rows[index][word].load(Ordering::Relaxed)))
}

fn rows<'a, const N: usize, T: Words<N>>(
    rows: &'a [[AtomicU64; N]],
    count: &AtomicU64,
) -> impl Iterator<Item = T> + 'a {
    let count = (count.load(Ordering::Relaxed) as usize).min(rows.len());
    (0..count).map(move |index| row(rows, index))
}

impl NextHopTable {
    /// Replaces the table and says what did not fit. Single writer: the supervisor. The mirror is
    /// sorted on the way.
    pub fn publish(&self, mirror: &mut Mirror) -> Omitted {
        mirror.sort();
        let copy = &self.copies[self.version.0.begin_write()];
        write(&copy.links, &mirror.links, &copy.links_count);
        write(&copy.addresses, &mirror.addresses, &copy.addresses_count);
        write(&copy.routes, &mirror.routes, &copy.routes_count);
        // Which neighbours are cut must not break the order that the bisection needs.
        write(&copy.neighbours, &mirror.neighbours, &copy.neighbours_count);
        self.version.0.publish();
        mirror.omitted()
    }

    /// Changes with every [`Self::publish`]; 0 before the first.
    #[inline(always)]
    pub fn version(&self) -> u64 {
        self.version.0.current()
    }

    /// Everything published last, for reports.
    pub fn mirror(&self) -> Result<Mirror, WriterBusy> {
        self.read(|copy| Mirror {
            links: rows(&copy.links, &copy.links_count).collect(),
            addresses: rows(&copy.addresses, &copy.addresses_count).collect(),
            routes: rows(&copy.routes, &copy.routes_count).collect(),
            neighbours: rows(&copy.neighbours, &copy.neighbours_count).collect(),
        })
        .map(|(mirror, _)| mirror)
    }

    /// Longest prefix first, then lowest metric, among the routes whose link the query allows; then
    /// the neighbour. Groups need neither: their MAC follows from the address (RFC 1112, RFC 2464).
    pub fn lookup(&self, query: &Query) -> Result<NextHop, Unresolved> {
        self.lookup_versioned(query)?.0
    }

    /// Also tells the version the answer, or its absence, belongs to.
    fn lookup_versioned(
        &self,
        query: &Query,
    ) -> Result<(Result<NextHop, Unresolved>, u64), WriterBusy> {
        self.read(|copy| copy.lookup(query))
    }

    fn read<T>(&self, what: impl Fn(&TableCopy) -> T) -> Result<(T, u64), WriterBusy> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let version = self.version.0.current();
            let value = what(&self.copies[(version & 1) as usize]);
            if self.version.0.validate(version) {
                return Ok((value, version));
            }
            spin_loop();
        }
        Err(WriterBusy)
    }
}

impl TableCopy {
    fn lookup(&self, query: &Query) -> Result<NextHop, Unresolved> {
        if mirror::is_multicast(&query.destination) {
            let link = self.links().find(|link| link.suits(query)).ok_or(Unresolved::NoRoute)?;
            return Ok(link.hop(mirror::group_mac(&query.destination)));
        }
        let routes = rows::<ROUTE_WORDS, Route>(&self.routes, &self.routes_count);
        for route in routes.filter(|route| route.contains(&query.destination)) {
            let link = self.links().find(|link| link.ifindex == route.ifindex);
            let Some(link) = link.filter(|link| link.suits(query)) else { continue };
            let address = route.gateway.unwrap_or(query.destination);
            return match self.neighbour(&address, route.ifindex) {
                Some(neighbour) => Ok(link.hop(neighbour.mac)),
                None => Err(Unresolved::NoNeighbour { ifindex: route.ifindex, address }),
            };
        }
        Err(Unresolved::NoRoute)
    }

    fn links(&self) -> impl Iterator<Item = LinkEntry> + '_ {
        rows(&self.links, &self.links_count)
    }

    fn neighbour(&self, address: &Address, ifindex: u32) -> Option<Neighbour> {
        let mut from = 0;
        let mut to = (self.neighbours_count.load(Ordering::Relaxed) as usize).min(NEIGHBOURS_MAX);
        while from < to {
            let middle = (from + to) / 2;
            let found: Neighbour = row(&self.neighbours, middle);
            match (found.address, found.ifindex).cmp(&(*address, ifindex)) {
                std::cmp::Ordering::Equal => return Some(found),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
