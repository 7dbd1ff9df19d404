//! Neighbours a worker asks for.
//!
//! The worker drops the datagram, counts it and puts the address into its request ring; the
//! supervisor has the kernel resolve it, and the answer comes back through the next-hop table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use nautilus_shm::control_region::{NeighbourRequest, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::NeighbourOutcome;
use nautilus_shm::metrics::table as metrics;

use super::mirror::Mirror;
use super::netlink::NetlinkSocket;
use super::resources::Resources;

/// A neighbour is not asked for again sooner; the kernel's own probes are a second apart.
const AGAIN_NS: u64 = 200_000_000;

/// Neighbours remembered for that; more at once are suppressed.
const ASKED_MAX: usize = 1024;

/// Requests served a turn: a worker that floods its ring takes no more of it.
const REQUESTS_MAX: usize = 64;

/// Who was asked for, and when.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<(u32, Ipv6Addr), u64>);

impl Neighbours {
    /// Serves the request ring of worker slot `index`.
    pub fn serve(
        &mut self,
        index: usize,
        now_ns: u64,
        mirror: &Mirror,
        resources: &Resources,
        kernel: &mut NetlinkSocket,
    ) {
        let bank = resources.control.metrics(SUPERVISOR_PROCESS);
        let count = |outcome| bank.add(metrics::NEIGHBOURS_REQUESTED.of(outcome), 1);
        let served: Vec<u32> =
            resources.interfaces.iter().map(|opened| opened.interface.ifindex).collect();
        let mut ring = resources.control.neighbour_requests(index).consumer();
        for _ in 0..REQUESTS_MAX {
            let entry = match ring.pop() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(_) => {
                    count(NeighbourOutcome::Invalid);
                    ring.resync();
                    break;
                }
            };
            let NeighbourRequest { address, ifindex } = NeighbourRequest::from_words(entry.words);
            let address = Ipv6Addr::from(address);
            if mirror.carrier(ifindex, &served).is_none() || address.is_multicast() {
                count(NeighbourOutcome::Invalid);
                continue;
            }
            self.0.retain(|_, asked_ns| now_ns.saturating_sub(*asked_ns) < AGAIN_NS);
            if self.0.contains_key(&(ifindex, address)) || self.0.len() >= ASKED_MAX {
                count(NeighbourOutcome::Suppressed);
                continue;
            }
            self.0.insert((ifindex, address), now_ns);
            let target: IpAddr = address.to_canonical();
            // A refusal (the interface has just gone) shows up as no neighbour: the worker asks on.
            let _ = kernel.resolve(ifindex, target);
            count(NeighbourOutcome::Asked);
        }
    }
}
