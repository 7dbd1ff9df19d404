//! From a promotion to the run loop: sockets taken over, applications made, loop entered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicBool;

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::ControlRegion;

use super::StandbyError;
use crate::config::{self, Feed, FeedLine, FeedRepublish, NodeConfig, PortKind};
use crate::kill_point::{self, EveryStore};
use crate::net::{Endpoint, RxChecksum};
use crate::port::socket::{SocketPort, SocketSpec};
use crate::port::xdp::{XdpPort, XdpPortSocket};
use crate::supervisor::handover::{Assignment, Fds};
use crate::supervisor::workers::poll_policy;
use crate::worker::{Apps, RegionNextHops, RegionReport, Worker, run};
use crate::xsk::{self, XskFds};

/// What a standby maps before it is promoted.
pub(super) enum Mapped {
    /// The sockets of this worker's queues, in the order of the assignment.
    Xdp(Vec<xsk::Mapped>),
    /// Nothing: a kernel socket is opened when the one before is closed.
    Socket,
}

impl Mapped {
    pub fn map(
        assignment: &Assignment,
        config: &NodeConfig,
        fds: &mut Fds,
    ) -> Result<Self, StandbyError> {
        if config.port.kind == PortKind::Socket {
            return Ok(Self::Socket);
        }
        let mut mapped = Vec::new();
        let queues = assignment.queues.iter().enumerate();
        for (place, _) in queues.filter(|(_, row)| row.worker == assignment.worker) {
            let socket = fds.take(&format!("xsk.{place}"))?;
            let umem = fds.take(&format!("umem.{place}"))?;
            let pair = XskFds { socket, umem };
            let failed = |source| StandbyError::Socket { place, source };
            mapped.push(xsk::Mapped::map(pair).map_err(failed)?);
        }
        Ok(Self::Xdp(mapped))
    }
}

/// A promoted worker's job.
pub(super) struct Job<'a, A> {
    /// What it mapped as a standby.
    pub mapped: Mapped,
    /// Who handles its datagrams.
    pub apps: A,
    /// Where the feeds are received that this worker applies.
    pub applied: Vec<Endpoint>,
    /// As assigned.
    pub assignment: &'a Assignment,
    /// The node file.
    pub config: &'a NodeConfig,
    /// Where it reports to and finds next hops.
    pub region: &'a ControlRegion,
    /// As promoted.
    pub generation: u64,
}

/// Takes the sockets over and serves until `stop`. `serving` is called with the time just before
/// the first turn.
pub(super) fn serve(
    job: Job<'_, impl Apps>,
    stop: &AtomicBool,
    serving: impl FnOnce(u64),
) -> Result<(), StandbyError> {
    let Job { mapped, apps, applied, assignment, config, region, generation } = job;
    let index = assignment.worker_index as usize;
    let report = RegionReport::new(region, index);
    let policy = poll_policy(config.worker.poll);
    match mapped {
        Mapped::Xdp(mapped) => {
            let mut sockets = Vec::new();
            let own = assignment.queues.iter().filter(|row| row.worker == assignment.worker);
            for (place, (mapped, row)) in mapped.into_iter().zip(own).enumerate() {
                let ifindex = mapped.ifindex();
                let failed = |source| StandbyError::Socket { place, source };
                let (socket, found) = mapped.take_over_observed(EveryStore).map_err(failed)?;
                kill_point::recovered(&found);
                sockets.push(XdpPortSocket { socket, interface: row.interface, ifindex });
            }
            let next_hops =
                RegionNextHops::new(region, index, generation).map_err(StandbyError::Requests)?;
            let checksums = match config.port.rx_checksum {
                config::RxChecksum::Verify => RxChecksum::Verify,
                config::RxChecksum::Trust => RxChecksum::Trust,
            };
            let port = XdpPort::new(sockets, next_hops, checksums);
            let mut worker = Worker::new(port, apps, report, policy);
            serving(monotonic_ns());
            run(&mut worker, stop);
        }
        Mapped::Socket => {
            let port = SocketPort::open(&kernel_sockets(config, &applied))?;
            let mut worker = Worker::new(port, apps, report, policy);
            serving(monotonic_ns());
            run(&mut worker, stop);
        }
    }
    Ok(())
}

/// The sockets of the `socket` port: one per service and address. Interfaces without addresses in
/// the node file are served on every address of the host.
fn kernel_sockets(config: &NodeConfig, applied: &[Endpoint]) -> Vec<SocketSpec> {
    let shared = config.worker.count > 1;
    let mut ports: Vec<u16> = Vec::new();
    ports.extend(config.echo.map(|echo| echo.port));
    ports.extend(config.cache.iter().map(|cache| cache.port));
    let mut specs = Vec::new();
    for (index, interface) in config.interface.iter().enumerate() {
        let addresses: Vec<IpAddr> = match interface.addresses.value() {
            Some(addresses) => addresses.clone(),
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        };
        for address in addresses {
            for port in &ports {
                let bind = SocketAddr::new(address, *port);
                let interface = index as u16;
                specs.push(SocketSpec {
                    bind,
                    groups: Vec::new(),
                    interface,
                    shared,
                    sends_to_groups_by: 0,
                });
            }
        }
    }
    let own = config.feed.iter().flat_map(Feed::own_endpoints);
    for bind in own.filter(|own| applied.contains(&Endpoint::from(*own))) {
        specs.push(SocketSpec {
            bind,
            groups: Vec::new(),
            interface: 0,
            shared,
            sends_to_groups_by: 0,
        });
    }
    for republish in config.feed.iter().filter_map(|feed| feed.republish.as_ref()) {
        specs.extend(sockets_of(republish, config, applied, shared));
    }
    // A group's datagrams come to every socket that is a member.
    let is_ours = |line: &FeedLine| applied.contains(&Endpoint::new(line.group, line.port));
    for line in config.feed.iter().flat_map(Feed::every_line).filter(is_ours) {
        let any: IpAddr = match line.group {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bind = SocketAddr::new(any, line.port);
        // An interface that is missing is left out; the supervisor has said so.
        let indices = config.interface.iter().map(|interface| interface.name.as_str());
        let indices = indices.filter_map(|name| nix::net::if_::if_nametoindex(name).ok());
        let groups = indices.map(|ifindex| (line.group, ifindex));
        // Lines on one port share a socket: two would each be given what either is a member of.
        let is_same = |spec: &&mut SocketSpec| spec.bind == bind && !spec.groups.is_empty();
        match specs.iter_mut().find(is_same) {
            Some(spec) => spec.groups.extend(groups),
            None => {
                specs.push(SocketSpec {
                    bind,
                    groups: groups.collect(),
                    interface: 0,
                    shared,
                    sends_to_groups_by: 0,
                });
            }
        }
    }
    specs
}

/// What a feed is given out again by: a socket to send from, one that requests come to, or one for both.
fn sockets_of(
    republish: &FeedRepublish,
    config: &NodeConfig,
    applied: &[Endpoint],
    shared: bool,
) -> Vec<SocketSpec> {
    let name = &config.interface[republish.interface_index(config)].name;
    // An interface that is missing sends nothing; the supervisor has said so.
    let ifindex = nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0);
    let spec = |bind: SocketAddr| SocketSpec {
        bind,
        groups: Vec::new(),
        interface: republish.interface_index(config) as u16,
        shared,
        sends_to_groups_by: if bind == republish.from { ifindex } else { 0 },
    };
    let requests = republish.requests.filter(|requests| *requests != republish.from);
    let binds = [republish.from].into_iter().chain(requests);
    binds.filter(|bind| applied.contains(&Endpoint::from(*bind))).map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_on_one_port_share_a_socket_and_others_do_not() {
        let text = "[[interface]]\nname = \"lo\"\naddresses = [\"127.0.0.1\"]\n[cache]\nid = \"q\"\n\
            [[feed]]\nvenue = \"nasdaq\"\nchannel = 1\ngroup = \"233.54.12.111\"\nport = 26477\n\
            lines = [{ group = \"233.54.12.112\", port = 26477 }, \
            { group = \"233.54.12.112\", port = 26478 }]\n";
        let config = config::parse(text, "n.toml").unwrap();
        let lines = config.feed[0].every_line();
        let applied: Vec<_> = lines.map(|line| Endpoint::new(line.group, line.port)).collect();
        let groups = |applied: &[Endpoint]| -> Vec<(u16, Vec<String>)> {
            let specs = kernel_sockets(&config, applied).into_iter().filter(|spec| {
                let is_cache = spec.groups.is_empty();
                assert_eq!(is_cache, spec.bind.port() == 11_211);
                !is_cache
            });
            let name = |(group, _): &(IpAddr, u32)| group.to_string();
            specs.map(|spec| (spec.bind.port(), spec.groups.iter().map(name).collect())).collect()
        };
        let [first, second] = ["233.54.12.111", "233.54.12.112"].map(String::from);
        let both = (26_477, vec![first, second.clone()]);
        assert_eq!(groups(&applied), [both, (26_478, vec![second])]);
        assert_eq!(groups(&[]), []);
    }
}
