//! Which interfaces a node may open, judged before anything is attached.

use super::netlink::Link;
use crate::config::{Auto, Interface};
use crate::limits::{CHUNK_BYTES_LARGE, LINK_HEADER_BYTES_MAX, QUEUES_MAX, XDP_HEADROOM_BYTES};

/// Largest MTU one chunk carries.
pub const MTU_MAX: u32 = CHUNK_BYTES_LARGE - XDP_HEADROOM_BYTES - LINK_HEADER_BYTES_MAX;

/// Why an interface was refused, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such interface.
    #[error("interface {0}: does not exist in this network namespace; see `ip link`")]
    Missing(String),
    /// A bond master.
    #[error(
        "interface {0}: is a bond, and AF_XDP cannot bind to its members' queues through it; take \
         one member out (`ip link set dev MEMBER nomaster`) and name that"
    )]
    Bond(String),
    /// A bond's member.
    #[error(
        "interface {0}: is a member of a bond; its frames belong to the bond. Take it out \
         (`ip link set dev {0} nomaster`) or name another interface"
    )]
    BondMember(String),
    /// A VLAN device.
    #[error(
        "interface {name}: is a VLAN device; XDP sees tagged frames on the interface below it \
         (ifindex {parent}): name that, tag {vlan} is handled in band"
    )]
    Vlan {
        /// Interface named in the node file.
        name: String,
        /// Interface below.
        parent: u32,
        /// Its tag.
        vlan: u16,
    },
    /// Somebody else's program.
    #[error(
        "interface {name}: XDP program {program} ({mode}) is attached already; remove it \
         (`ip link set dev {name} xdp off`, or stop the program that owns it) or name another \
         interface"
    )]
    Occupied {
        /// Interface named in the node file.
        name: String,
        /// Kernel id of the program.
        program: u32,
        /// Where it runs.
        mode: &'static str,
    },
    /// A packet would not fit one frame.
    #[error(
        "interface {name}: MTU {mtu} does not fit one frame (multi-buffer is not built); lower it \
         (`ip link set dev {name} mtu {max}`)",
        max = MTU_MAX
    )]
    Mtu {
        /// Interface named in the node file.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// Native XDP on loopback does not exist.
    #[error(
        "interface {0}: the loopback has no native XDP; write port.kind = \"socket\" to serve on it"
    )]
    Loopback(String),
    /// No Ethernet address.
    #[error("interface {0}: has no Ethernet address; only Ethernet links are served")]
    NotEthernet(String),
    /// A queue it does not have.
    #[error("interface {name}: has queues 0..={last}, the node file names queue {queue}")]
    Queue {
        /// Interface named in the node file.
        name: String,
        /// Queue named in the node file.
        queue: u32,
        /// Last queue there is.
        last: u32,
    },
}

/// The queues to open on an interface, or why not. `ours` is the id of a program that this node
/// attached earlier (a take-back), 0 for none.
pub fn inspect(wanted: &Interface, link: Option<&Link>, ours: u32) -> Result<Vec<u32>, Refusal> {
    let name = wanted.name.clone();
    let Some(link) = link else { return Err(Refusal::Missing(name)) };
    if link.kind == "bond" {
        return Err(Refusal::Bond(name));
    }
    if link.slave_kind == "bond" {
        return Err(Refusal::BondMember(name));
    }
    if link.kind == "vlan" {
        return Err(Refusal::Vlan { name, parent: link.parent, vlan: link.vlan });
    }
    if link.loopback {
        return Err(Refusal::Loopback(name));
    }
    if link.mac == [0; 6] && !link.loopback {
        return Err(Refusal::NotEthernet(name));
    }
    if link.xdp_mode != 0 && link.xdp_program != ours {
        let mode = match link.xdp_mode {
            1 => "native",
            2 => "generic",
            3 => "offloaded",
            _ => "several modes",
        };
        return Err(Refusal::Occupied { name, program: link.xdp_program, mode });
    }
    // The loopback's MTU of 65,536 is no promise that such packets come.
    if link.mtu > MTU_MAX && !link.loopback {
        return Err(Refusal::Mtu { name, mtu: link.mtu });
    }
    let last = link.rx_queues.clamp(1, QUEUES_MAX as u32) - 1;
    let queues = match &wanted.queues {
        Auto::Auto => (0..=last).collect(),
        Auto::Is(queues) => queues.clone(),
    };
    match queues.iter().find(|queue| **queue > last) {
        Some(queue) => Err(Refusal::Queue { name, queue: *queue, last }),
        None => Ok(queues),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            ifindex: 3,
            name: "eth0".into(),
            mtu: 1500,
            mac: [2, 0, 0, 0, 0, 1],
            rx_queues: 2,
            ..Link::default()
        }
    }

    fn wanted(queues: Auto<Vec<u32>>) -> Interface {
        Interface { name: "eth0".into(), queues, addresses: Auto::Auto }
    }

    fn judged(link: &Link) -> Result<Vec<u32>, Refusal> {
        inspect(&wanted(Auto::Auto), Some(link), 0)
    }

    #[test]
    fn an_ordinary_interface_is_opened() {
        assert_eq!(judged(&link()), Ok(vec![0, 1]));
        let one = inspect(&wanted(Auto::Is(vec![1])), Some(&link()), 0);
        assert_eq!(one, Ok(vec![1]));
        let ours = Link { xdp_mode: 1, xdp_program: 9, ..link() };
        assert!(inspect(&wanted(Auto::Auto), Some(&ours), 9).is_ok());
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_what_to_do() {
        let says = |link: &Link, text: &str| {
            let message = judged(link).expect_err(text).to_string();
            assert!(message.starts_with("interface eth0: "), "{message}");
            assert!(message.contains(text), "{message}");
        };
        says(&Link { kind: "bond".into(), ..link() }, "take one member out");
        says(&Link { slave_kind: "bond".into(), ..link() }, "`ip link set dev eth0 nomaster`");
        says(&Link { kind: "vlan".into(), parent: 2, vlan: 7, ..link() }, "(ifindex 2)");
        says(&Link { xdp_mode: 2, xdp_program: 9, ..link() }, "program 9 (generic)");
        says(&Link { mtu: 9000, ..link() }, "`ip link set dev eth0 mtu 3802`");
        says(&Link { mac: [0; 6], ..link() }, "no Ethernet address");
        says(&Link { loopback: true, ..link() }, "port.kind = \"socket\"");
        let missing = inspect(&wanted(Auto::Auto), None, 0).unwrap_err();
        assert_eq!(missing, Refusal::Missing("eth0".into()));
        let queue = inspect(&wanted(Auto::Is(vec![2])), Some(&link()), 0);
        assert_eq!(queue, Err(Refusal::Queue { name: "eth0".into(), queue: 2, last: 1 }));
    }
}
