//! What others are told: next hops and interfaces in the control region, the status in words.

use nautilus_shm::attach::CACHES_MAX;
use nautilus_shm::cache_cell::CacheIdentity;
use nautilus_shm::cells::{InterfaceState, XdpMode};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::SUPERVISOR_PROCESS;
use nautilus_shm::metrics::table as metrics;

use super::caches::OpenCache;
use super::fill::has_hot_set;
use super::front::Front;
use super::journal::milliseconds;
use super::mirror::Mirror;
use super::resources::Resources;
use super::workers::{Workers, xdp_mode};
use crate::config::{Cache, PortKind, Resolved};

/// Writes the next-hop table from the kernel's; what does not fit is counted.
pub fn publish_next_hops(resolved: &Resolved, mirror: &Mirror, resources: &Resources) {
    let served: Vec<u32> = match resolved.config.port.kind {
        PortKind::Socket => Vec::new(),
        PortKind::Xdp => {
            resources.interfaces.iter().map(|opened| opened.interface.ifindex).collect()
        }
    };
    let mut rows = mirror.next_hops(&served);
    let omitted = resources.control.next_hops().publish(&mut rows).total();
    let bank = resources.control.metrics(SUPERVISOR_PROCESS);
    bank.add(metrics::NEXT_HOP_UPDATES, 1);
    bank.set(metrics::NEXT_HOPS_OMITTED, omitted as u64);
}

/// Writes the state of every interface of the node file into the supervisor's cell.
pub fn publish_interfaces(resolved: &Resolved, mirror: &Mirror, resources: &Resources) {
    for (index, wanted) in resolved.config.interface.iter().enumerate() {
        let link = mirror.link_named(&wanted.name);
        let opened = resources.interfaces.get(index);
        let state = InterfaceState {
            name: wanted.name.clone(),
            ifindex: link.map_or(0, |link| link.ifindex),
            up: link.is_some_and(|link| link.up && link.carrier),
            xdp_mode: match (resolved.config.port.kind, opened) {
                (PortKind::Xdp, None) => XdpMode::None,
                (kind, _) => xdp_mode(kind),
            },
            zero_copy: resolved.config.port.zero_copy,
            queues: opened.map_or(0, |opened| opened.queues.len() as u16),
            mtu_bytes: link.map_or(0, |link| link.mtu),
        };
        resources.control.supervisor().set_interface(index, &state);
    }
}

/// Writes which caches there are.
pub fn publish_caches(resolved: &Resolved, mirror: &Mirror, resources: &Resources) {
    for place in 0..CACHES_MAX {
        let cell = resources.control.cache(place);
        let cache = resources.caches.iter().find(|cache| usize::from(cache.opened.place) == place);
        let identity = match cache {
            Some(OpenCache { opened, state, .. }) => {
                let is_hot = has_hot_set(&resolved.config, &opened.section, mirror);
                opened.identity(*state, is_hot)
            }
            // Its generation must not come again.
            None => CacheIdentity {
                generation: cell.own_identity().generation,
                ..CacheIdentity::default()
            },
        };
        cell.set_identity(&identity);
    }
}

/// What the verb `status` answers, for people.
pub fn status(
    (resolved, mirror, resources): (&Resolved, &Mirror, &Resources),
    workers: &[Workers],
    started_ns: u64,
) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let now_ns = monotonic_ns();
    let seconds = now_ns.saturating_sub(started_ns) / 1_000_000_000;
    let _ = writeln!(
        text,
        "node {} supervisor {} up {seconds} s, {} port",
        resolved.config.node.id,
        std::process::id(),
        resolved.config.port.kind.name()
    );
    let life = resources.control.supervisor().life();
    let _ = writeln!(text, "phase {}", life.phase().name());
    if life.drain_until_ns() > 0 {
        let _ = writeln!(text, "drains: no new client is taken");
    }
    for workers in workers {
        let core = resolved.cores[workers.number as usize];
        for (role, seat) in [("active", &workers.active), ("standby", &workers.standby)] {
            let _ = match seat {
                Some(seat) => writeln!(
                    text,
                    "{role} worker {} generation {} {:?} core {core}",
                    seat.pid, seat.generation, seat.phase
                ),
                None => writeln!(text, "{role} worker none"),
            };
        }
    }
    for wanted in &resolved.config.interface {
        let link = mirror.link_named(&wanted.name);
        let state = match link {
            None => "missing",
            Some(link) if link.up && link.carrier => "up",
            Some(_) => "down",
        };
        let _ = writeln!(text, "interface {} {state}", wanted.name);
    }
    for OpenCache { opened, state, .. } in &resources.caches {
        let Cache { id, port, max_memory_mb, .. } = &opened.section;
        let _ =
            writeln!(text, "cache {id} port {port} memory {max_memory_mb} MiB {}", state.name());
    }
    let switch = resources.control.kill_switch();
    if switch.is_on() {
        let state = switch.state().unwrap_or_default();
        let seconds = now_ns.saturating_sub(state.since_ns) / 1_000_000_000;
        let _ =
            writeln!(text, "kill switch on for {seconds} s by uid {}: {}", state.uid, state.reason);
    }
    let gap_ns = resources.control.supervisor().last_gap_ns();
    let _ = writeln!(text, "last gap {}", milliseconds(gap_ns));
    text
}

/// The same with a line about the front.
pub fn front_status(text: String, front: &Front) -> String {
    match front.seat() {
        Some(seat) => format!("{text}front {} generation {}\n", seat.pid, seat.generation),
        None => format!("{text}front none\n"),
    }
}
