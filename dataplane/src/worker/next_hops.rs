//! The worker's side of the next-hop table: lookups through a private cache, and requests for
//! neighbours that are missing.

use nautilus_shm::control_region::{ControlRegion, NEIGHBOUR_REQUESTS_MAX, NeighbourRequest};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::next_hops::{NextHopCache, Query, Unresolved};
use nautilus_shm::spsc::{Producer, RingError};

use crate::net::Endpoint;
use crate::port::xdp::{NextHop, NextHops};

/// Next hops from the control region.
pub struct RegionNextHops<'a> {
    cache: NextHopCache<'a>,
    requests: Producer<'a, NEIGHBOUR_REQUESTS_MAX, 3>,
    /// The worker's; only the three counters of next hops are written from here.
    bank: MetricBank<'a>,
}

impl<'a> RegionNextHops<'a> {
    /// For worker `index` in its `generation`, which is greater than its predecessor's.
    pub fn new(
        region: &'a ControlRegion,
        index: usize,
        generation: u64,
    ) -> Result<Self, RingError> {
        Ok(Self {
            cache: NextHopCache::new(region.next_hops()),
            requests: region.neighbour_requests(index).producer(generation)?,
            bank: region.metrics(index),
        })
    }
}

impl NextHops for RegionNextHops<'_> {
    #[inline]
    fn lookup(&mut self, ifindex: u32, vlans: [u16; 2], destination: &Endpoint) -> Option<NextHop> {
        let query = |vlans| Query { destination: destination.address, ifindex, vlans };
        // A tag may belong to a VLAN device; where the host has none the reply keeps the request's
        // tags on the untagged interface's neighbour.
        let found = match self.cache.lookup(&query(Some(vlans))) {
            Err(Unresolved::NoRoute) => self.cache.lookup(&query(None)),
            found => found,
        };
        match found {
            Ok(hop) => {
                Some(NextHop { mac: hop.mac, source_mac: hop.source_mac, mtu_bytes: hop.mtu_bytes })
            }
            Err(Unresolved::NoNeighbour { ifindex, address }) => {
                let request = NeighbourRequest { address, ifindex };
                // A full ring means that the supervisor has plenty to ask already.
                let counter = match self.requests.push(&request.to_words()) {
                    Ok(_) => table::NEIGHBOUR_REQUESTS,
                    Err(_) => table::NEIGHBOUR_REQUESTS_FULL,
                };
                self.bank.add(counter, 1);
                None
            }
            Err(Unresolved::Busy(_)) => {
                self.bank.add(table::NEXT_HOP_BUSY, 1);
                None
            }
            Err(Unresolved::NoRoute) => None,
        }
    }
}
