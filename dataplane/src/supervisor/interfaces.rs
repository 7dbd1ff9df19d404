//! What happens to the served interfaces while the node runs.
//!
//! Link down and up need nothing: sockets and program stay. A changed MAC is written into the
//! steering program. An interface that was deleted and made again under its name gets new sockets
//! and the program again: the one case that rebinds. Each prints an event; the last one with the
//! gap.

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::event_log::EventKind;

use super::inspect::{MTU_MAX, inspect};
use super::journal::{Event, milliseconds};
use super::mirror::{Mirror, Touched};
use super::resources::{HugePages, Opened, Resources};
use crate::config::{PortKind, Resolved};
use crate::limits::QUEUES_MAX;

/// One interface as it was last seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    ifindex: u32,
    up: bool,
    mac: [u8; 6],
    mtu: u32,
    /// When it went down or away; 0 while it is up.
    lost_ns: u64,
    /// New sockets wait for a worker that uses them.
    rebinding: bool,
    /// What was last said about a failed rebind, so that it is said once.
    said: String,
}

/// All served interfaces.
#[derive(Debug, Default)]
pub struct Interfaces(Vec<Seen>);

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    /// To be published.
    pub events: Vec<Event>,
    /// New sockets were bound: workers must be replaced.
    pub rebound: bool,
}

impl Interfaces {
    /// As they are at the start.
    pub fn new(resolved: &Resolved, mirror: &Mirror) -> Self {
        let seen = |wanted: &crate::config::Interface| {
            let name = wanted.name.clone();
            let Some(link) = mirror.link_named(&name) else {
                return Seen { name, lost_ns: monotonic_ns(), ..Seen::default() };
            };
            let up = link.up && link.carrier;
            let lost_ns = if up { 0 } else { monotonic_ns() };
            let (ifindex, mac, mtu) = (link.ifindex, link.mac, link.mtu);
            Seen { name, ifindex, up, mac, mtu, lost_ns, ..Seen::default() }
        };
        Self(resolved.config.interface.iter().map(seen).collect())
    }

    /// Whether new sockets wait for a worker.
    pub fn awaiting_service(&self) -> bool {
        self.0.iter().any(|seen| seen.rebinding)
    }

    /// A worker serves the new sockets.
    pub fn served_again(&mut self, now_ns: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for seen in self.0.iter_mut().filter(|seen| seen.rebinding) {
            let gap_ns = now_ns.saturating_sub(seen.lost_ns);
            seen.rebinding = false;
            seen.lost_ns = 0;
            let text =
                format!("interface {} is served again, gap {}", seen.name, milliseconds(gap_ns));
            events.push(Event::new(EventKind::SocketRebound, (seen.ifindex.into(), gap_ns), text));
        }
        events
    }

    /// Compares what is there with what was; called on changes and every 100 ms.
    pub fn look(
        &mut self,
        resolved: &Resolved,
        mirror: &Mirror,
        resources: &mut Resources,
        touched: Touched,
    ) -> Found {
        let mut found = Found::default();
        let now_ns = monotonic_ns();
        for (index, seen) in self.0.iter_mut().enumerate() {
            let Some(link) = mirror.link_named(&seen.name) else {
                found.events.extend(seen.went("has gone; waiting for it", now_ns));
                continue;
            };
            if resolved.config.port.kind == PortKind::Socket {
                seen.ifindex = link.ifindex;
            }
            if link.ifindex != resources_ifindex(resources, index, link.ifindex) {
                // Deleted and made again. Sockets bind to an interface that is up.
                found.events.extend(seen.went("was replaced by another", now_ns));
                if link.up {
                    match rebind(resolved, mirror, resources, index) {
                        Ok(notes) => {
                            let numbers = (link.ifindex.into(), 0);
                            let told = |note| Event::new(EventKind::Notice, numbers, note);
                            found.events.extend(notes.into_iter().map(told));
                            *seen = Seen {
                                name: seen.name.clone(),
                                ifindex: link.ifindex,
                                up: link.carrier,
                                mac: link.mac,
                                mtu: link.mtu,
                                lost_ns: seen.lost_ns,
                                rebinding: true,
                                said: String::new(),
                            };
                            found.rebound = true;
                        }
                        Err(text) if text != seen.said => {
                            let numbers = (link.ifindex.into(), 0);
                            found.events.push(Event::new(EventKind::Refused, numbers, &text));
                            seen.said = text;
                        }
                        Err(_) => {}
                    }
                }
                continue;
            }
            if !touched.links {
                continue;
            }
            let up = link.up && link.carrier;
            if up != seen.up {
                found.events.push(seen.turned(up, now_ns));
            }
            if link.mac != seen.mac {
                seen.mac = link.mac;
                found.events.push(follow_mac(resources, index, link.mac, &seen.name));
            }
            if link.mtu != seen.mtu {
                seen.mtu = link.mtu;
                found.events.push(mtu_event(&seen.name, link.ifindex, link.mtu, resolved));
            }
        }
        found
    }
}

impl Seen {
    /// The interface that was there is no more; told once.
    fn went(&mut self, how: &str, now_ns: u64) -> Option<Event> {
        let ifindex = std::mem::take(&mut self.ifindex);
        if ifindex == 0 {
            return None;
        }
        self.up = false;
        if self.lost_ns == 0 {
            self.lost_ns = now_ns;
        }
        let text = format!("interface {} {how}", self.name);
        Some(Event::new(EventKind::InterfaceGone, (ifindex.into(), 0), text))
    }

    fn turned(&mut self, up: bool, now_ns: u64) -> Event {
        self.up = up;
        let number = self.ifindex.into();
        if !up {
            if self.lost_ns == 0 {
                self.lost_ns = now_ns;
            }
            let text = format!("interface {} is down", self.name);
            return Event::new(EventKind::InterfaceDown, (number, 0), text);
        }
        let gap_ns = now_ns.saturating_sub(self.lost_ns);
        if !self.rebinding {
            self.lost_ns = 0;
        }
        let text = format!("interface {} is up, gap {}", self.name, milliseconds(gap_ns));
        Event::new(EventKind::InterfaceUp, (number, gap_ns), text)
    }
}

/// The ifindex the sockets of interface `index` are bound to; with the socket port there are none
/// and any will do.
fn resources_ifindex(resources: &Resources, index: usize, any: u32) -> u32 {
    resources.interfaces.get(index).map_or(any, |opened| opened.interface.ifindex)
}

fn rebind(
    resolved: &Resolved,
    mirror: &Mirror,
    resources: &mut Resources,
    index: usize,
) -> Result<Vec<String>, String> {
    let Some(steering) = &resources.steering else { return Ok(Vec::new()) };
    let (Some(wanted), Some(old)) =
        (resolved.config.interface.get(index), resources.interfaces.get(index))
    else {
        return Ok(Vec::new());
    };
    let (first_socket, old_ifindex) = (old.first_socket, old.interface.ifindex);
    let link = mirror.link_named(&wanted.name);
    // Its places end where those of the next interface begin. Judged before anything is opened: a
    // socket put into a place beyond would take it from an interface that serves.
    let next = resources.interfaces.get(index + 1);
    let end = next.map_or(QUEUES_MAX as u32, |next| next.first_socket);
    let queues = inspect(wanted, link, 0).map_err(|error| error.to_string())?;
    if queues.iter().any(|queue| first_socket + queue >= end) {
        return Err(format!(
            "interface {}: has more queues than before; restart the node to serve them",
            wanted.name
        ));
    }
    let preferred = HugePages::Preferred;
    let (opened, notes) = Opened::open(steering, resolved, wanted, link, first_socket, preferred)
        .map_err(|error| error.to_string())?;
    let _ = steering.remove_interface(old_ifindex);
    resources.interfaces[index] = opened;
    resources.fresh = None;
    resources.serial += 1;
    resources.join(&resolved.config).map_err(|error| error.to_string())?;
    Ok(notes)
}

fn follow_mac(resources: &Resources, index: usize, mac: [u8; 6], name: &str) -> Event {
    let mut text = format!("interface {name} has a new MAC");
    let mut number = 0;
    if let (Some(steering), Some(opened)) = (&resources.steering, resources.interfaces.get(index)) {
        number = opened.interface.ifindex.into();
        let entry = nautilus_ebpf::intf::Interface {
            mac,
            queue_count: opened.places() as u16,
            first_socket: opened.first_socket,
        };
        if let Err(error) = steering.set_interface(opened.interface.ifindex, entry) {
            text += &format!(", which cannot be served: {error}");
        }
    }
    Event::new(EventKind::Notice, (number, 0), text)
}

fn mtu_event(name: &str, ifindex: u32, mtu: u32, resolved: &Resolved) -> Event {
    let fits = resolved.chunk_bytes + MTU_MAX - crate::limits::CHUNK_BYTES_LARGE;
    let text = if mtu > fits {
        format!("interface {name}: MTU {mtu} exceeds a frame's {fits}; longer go to the kernel")
    } else {
        format!("interface {name}: MTU is {mtu} now")
    };
    Event::new(EventKind::Notice, (ifindex.into(), mtu.into()), text)
}
