//! What the supervisor writes into the steering program's maps, and the verdicts it reads back.
//!
//! Every method is one or a few system calls; none may be called from the run loop. Writers replace
//! lists by adding first and removing after, so that what stays on a list never loses a packet.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::intf::{
    Address, HOT_CACHES, Interface, LIMITS_MAX, LISTS_MAX, PORTS_MAX, Plain, SOCKETS_MAX, Served,
    Service, Source, SourcePrefixKey, Tally,
};
use crate::prefix::SourcePrefix;
use crate::rights::Rights;
use crate::steering::{STEERING_FD_NAMES, Steering, SteeringError};
use crate::sys;
use crate::verdict::{VERDICT_COUNT, Verdict};

/// Places in `Steering::maps`.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Xsks,
    SourcesExact,
    Sources,
    Ports,
    Served,
    Interfaces,
    Verdicts,
    ListEpoch,
    Limits,
    Buckets,
    FeedLines,
    Feeds,
}

/// The counters of every verdict, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictTallies([Tally; VERDICT_COUNT]);

impl VerdictTallies {
    /// The counters of one verdict since the program was loaded.
    pub fn get(&self, verdict: Verdict) -> Tally {
        self.0[verdict as usize]
    }

    /// All of them, in the order of [`crate::VERDICTS`].
    pub fn as_slice(&self) -> &[Tally] {
        &self.0
    }

    /// Every packet the program has seen.
    pub fn total(&self) -> Tally {
        self.0.iter().fold(Tally::default(), |sum, one| Tally {
            packet_count: sum.packet_count + one.packet_count,
            byte_count: sum.byte_count + one.byte_count,
        })
    }
}

impl Steering {
    pub(crate) fn map(&self, map: Map) -> BorrowedFd<'_> {
        self.maps[map as usize].as_fd()
    }

    pub(crate) fn put<K: Plain, V: Plain>(
        &self,
        map: Map,
        key: &K,
        value: &V,
        subject: impl ToString,
    ) -> Result<(), SteeringError> {
        sys::map_update(self.map(map), key, value)
            .map_err(|source| failed(map, "write", subject, source))
    }

    pub(crate) fn take<K: Plain>(
        &self,
        map: Map,
        key: &K,
        subject: impl ToString,
    ) -> Result<bool, SteeringError> {
        sys::map_delete(self.map(map), key).map_err(|source| failed(map, "remove", subject, source))
    }

    pub(crate) fn list<K: Plain + Default, V: Plain + Default>(
        &self,
        map: Map,
    ) -> Result<Vec<(K, V)>, SteeringError> {
        let keys: Vec<K> = sys::map_keys(self.map(map))
            .map_err(|source| failed(map, "list", "the entries", source))?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let mut value = [V::default()];
            if sys::map_lookup(self.map(map), &key, &mut value)
                .map_err(|source| failed(map, "read", "an entry", source))?
            {
                entries.push((key, value[0]));
            }
        }
        Ok(entries)
    }

    /// Lists a source, or changes what it may do; [`Permissions::NONE`](crate::intf::Permissions::NONE) denies it although a shorter
    /// prefix may allow it. Permissions alone are those of list 0.
    pub fn set_source(
        &self,
        prefix: SourcePrefix,
        rights: impl Into<Rights>,
    ) -> Result<(), SteeringError> {
        let Rights { permissions, limit } = rights.into();
        if limit >= LIMITS_MAX {
            return Err(SteeringError::Refused(format!("{prefix}: there is no limit {limit}")));
        }
        let source = Source { permissions, limit, family: prefix.family() };
        if prefix.is_exact() {
            self.put(Map::SourcesExact, &prefix.key().address, &source, prefix)?;
        } else {
            self.put(Map::Sources, &prefix.key(), &source, prefix)?;
        }
        self.lists_changed()
    }

    /// Takes a source off the list; whether it was on it.
    pub fn remove_source(&self, prefix: SourcePrefix) -> Result<bool, SteeringError> {
        let was_listed = if prefix.is_exact() {
            self.take(Map::SourcesExact, &prefix.key().address, prefix)?
        } else {
            self.take(Map::Sources, &prefix.key(), prefix)?
        };
        self.lists_changed()?;
        Ok(was_listed)
    }

    /// Lets the program forget what it remembers of the lists. Follows every change of one: until it
    /// has returned, packets may still be judged by the list before.
    fn lists_changed(&self) -> Result<(), SteeringError> {
        let mut epoch = [0u64];
        sys::map_lookup(self.map(Map::ListEpoch), &0u32, &mut epoch)
            .map_err(|source| failed(Map::ListEpoch, "read", 0, source))?;
        self.put(Map::ListEpoch, &0u32, &(epoch[0] + 1), "the epoch")
    }

    /// The source list, in no order.
    pub fn sources(&self) -> Result<Vec<(SourcePrefix, Rights)>, SteeringError> {
        let exact = self.list::<Address, Source>(Map::SourcesExact)?;
        let exact = exact
            .into_iter()
            .map(|(address, source)| (SourcePrefixKey { bits: 128, address }, source));
        let prefixes = self.list::<SourcePrefixKey, Source>(Map::Sources)?;
        Ok(exact
            .chain(prefixes)
            .filter_map(|(key, source)| {
                let prefix = SourcePrefix::from_key(key, source.family)?;
                let Source { permissions, limit, .. } = source;
                Some((prefix, Rights { permissions, limit }))
            })
            .collect())
    }

    /// Makes the source list exactly this; what was and stays listed is never refused meanwhile.
    pub fn replace_sources(&self, list: &[(SourcePrefix, Rights)]) -> Result<(), SteeringError> {
        for (prefix, rights) in list {
            self.set_source(*prefix, *rights)?;
        }
        let kept: HashSet<SourcePrefix> = list.iter().map(|(prefix, _)| *prefix).collect();
        for (prefix, _) in self.sources()? {
            if !kept.contains(&prefix) {
                self.remove_source(prefix)?;
            }
        }
        Ok(())
    }

    /// Serves a destination address, unicast or multicast group.
    pub fn serve_address(&self, address: IpAddr) -> Result<(), SteeringError> {
        let address = address.to_canonical();
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_loopback() || broadcast {
            return Err(SteeringError::Refused(format!(
                "{address} cannot be served by a network port"
            )));
        }
        self.put(Map::Served, &Address::from(address), &Served::default(), address)?;
        self.lists_changed()
    }

    /// Stops serving an address; whether it was served.
    pub fn withdraw_address(&self, address: IpAddr) -> Result<bool, SteeringError> {
        let was_served = self.take(Map::Served, &Address::from(address.to_canonical()), address)?;
        self.lists_changed()?;
        Ok(was_served)
    }

    /// The addresses served, in no order.
    pub fn served_addresses(&self) -> Result<Vec<IpAddr>, SteeringError> {
        let entries = self.list::<Address, Served>(Map::Served)?;
        Ok(entries.into_iter().map(|(address, _)| address.into()).collect())
    }

    /// Makes the served addresses exactly these.
    pub fn replace_served_addresses(&self, addresses: &[IpAddr]) -> Result<(), SteeringError> {
        for address in addresses {
            self.serve_address(*address)?;
        }
        for address in self.served_addresses()? {
            if !addresses.iter().any(|kept| kept.to_canonical() == address) {
                self.withdraw_address(address)?;
            }
        }
        Ok(())
    }

    /// Puts a service on a port, for every address served; refused are port 0, a list there cannot be,
    /// and a `HOT` service that is not UDP, unicast and replying, or whose cache has an index the hot set
    /// does not know.
    pub fn set_service(&self, port: u16, service: Service) -> Result<(), SteeringError> {
        if port == 0 {
            return Err(SteeringError::Refused("port 0 cannot have a service".into()));
        }
        if service.list >= LISTS_MAX {
            let problem = format!("port {port}: there is no list {}", service.list);
            return Err(SteeringError::Refused(problem));
        }
        let needed = Service::UDP | Service::UNICAST | Service::REPLIES;
        let hot = service.flags & Service::HOT != 0;
        if hot && (service.flags & needed != needed || service.cache >= HOT_CACHES) {
            return Err(SteeringError::Refused(format!(
                "port {port}: the hot set answers for UDP caches 0 to {} only, not for {service:?}",
                HOT_CACHES - 1
            )));
        }
        self.put(Map::Ports, &u32::from(port), &service, port)
    }

    /// Takes the service off a port.
    pub fn remove_service(&self, port: u16) -> Result<(), SteeringError> {
        self.put(Map::Ports, &u32::from(port), &Service::default(), port)
    }

    /// The service of a port, if any.
    pub fn service(&self, port: u16) -> Result<Option<Service>, SteeringError> {
        let mut service = [Service::default()];
        sys::map_lookup(self.map(Map::Ports), &u32::from(port), &mut service)
            .map_err(|source| failed(Map::Ports, "read", port, source))?;
        Ok((service[0].flags != 0).then_some(service[0]))
    }

    /// Makes the services exactly these. Looks at all 65,536 ports: some 20 ms.
    pub fn replace_services(&self, services: &[(u16, Service)]) -> Result<(), SteeringError> {
        let wanted: HashMap<u16, Service> = services.iter().copied().collect();
        for (port, service) in &wanted {
            self.set_service(*port, *service)?;
        }
        for port in (0..PORTS_MAX).filter_map(|port| u16::try_from(port).ok()) {
            if !wanted.contains_key(&port) && self.service(port)?.is_some() {
                self.remove_service(port)?;
            }
        }
        Ok(())
    }

    /// Says what an interface's MAC is and where its sockets are; replaces what was said before.
    pub fn set_interface(&self, ifindex: u32, interface: Interface) -> Result<(), SteeringError> {
        let sockets = interface.first_socket.saturating_add(interface.queue_count.into());
        if sockets > SOCKETS_MAX {
            return Err(SteeringError::Refused(format!(
                "interface {ifindex}: {} queues from socket {} are more than the {SOCKETS_MAX} sockets",
                interface.queue_count, interface.first_socket
            )));
        }
        if interface.mac[0] & 1 != 0 || interface.mac == [0; 6] {
            return Err(SteeringError::Refused(format!(
                "interface {ifindex}: {:02x?} is not a unicast MAC",
                interface.mac
            )));
        }
        self.put(Map::Interfaces, &ifindex, &interface, ifindex)
    }

    /// Forgets an interface: everything on it passes to the kernel. Whether it was known.
    pub fn remove_interface(&self, ifindex: u32) -> Result<bool, SteeringError> {
        self.take(Map::Interfaces, &ifindex, ifindex)
    }

    /// The interfaces by ifindex, in no order.
    pub fn interfaces(&self) -> Result<Vec<(u32, Interface)>, SteeringError> {
        self.list(Map::Interfaces)
    }

    /// Puts an AF_XDP socket with a fill and an RX ring at `index` below [`SOCKETS_MAX`]. The kernel
    /// takes it out again when the socket is closed for good.
    pub fn set_socket(&self, index: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        let fd = u32::try_from(socket.as_raw_fd()).expect("an open descriptor is not negative");
        self.put(Map::Xsks, &index, &fd, index)
    }

    /// Takes the socket at `index` out, if there is one.
    pub fn remove_socket(&self, index: u32) -> Result<(), SteeringError> {
        self.take(Map::Xsks, &index, index).map(drop)
    }

    /// The verdict counters, of no single moment: packets go on being counted meanwhile.
    pub fn verdicts(&self) -> Result<VerdictTallies, SteeringError> {
        let map = Map::Verdicts;
        let cpus = libbpf_rs::num_possible_cpus()
            .map_err(|error| failed(map, "read", "the CPUs", io::Error::other(error)))?;
        let mut per_cpu = vec![Tally::default(); cpus * VERDICT_COUNT];
        sys::map_lookup_all(self.map(map), &mut [0; VERDICT_COUNT], &mut per_cpu)
            .map_err(|source| failed(map, "read", "all entries", source))?;
        let mut tallies = VerdictTallies::default();
        for (sum, per_cpu) in tallies.0.iter_mut().zip(per_cpu.chunks_exact(cpus)) {
            for one in per_cpu {
                sum.packet_count += one.packet_count;
                sum.byte_count += one.byte_count;
            }
        }
        Ok(tallies)
    }
}

/// Of a map that has no place in [`Map`].
pub(crate) fn failed_named(
    map: &'static str,
    subject: impl ToString,
    source: io::Error,
) -> SteeringError {
    SteeringError::Map { map, verb: "read", subject: subject.to_string(), source }
}

pub(crate) fn failed(
    map: Map,
    verb: &'static str,
    subject: impl ToString,
    source: io::Error,
) -> SteeringError {
    let map = STEERING_FD_NAMES[map as usize + 1];
    SteeringError::Map { map, verb, subject: subject.to_string(), source }
}
