//! Links between namespaces: veth pairs and a bridge, with the settings AF_XDP needs on them.

use std::sync::Arc;

use nautilus_ebpf::{PassProgram, XdpLink};
use nix::net::if_::if_nametoindex;

use super::{Address, LabError, NetNs, RunId};

/// MTU of every link of a lab.
pub const LINK_MTU_BYTES: u32 = 1500;

/// Settings every end of a lab's links has.
///
/// - `tx off`: a kernel peer would leave UDP checksums to a device that has none, and the data plane
///   verifies them.
/// - `rxvlan off txvlan off`: else a tag leaves the packet on its way through a bridge, and the
///   answer goes to the wrong VLAN.
/// - `gro off`, `tso off`, `gso off`: a frame is what a frame was when it was sent.
const OFFLOADS: &str = "tx off rxvlan off txvlan off gro off tso off gso off";

/// Two connected interfaces, each in its own namespace.
///
/// One queue each unless more are asked for, because an XDP_TX reply on veth lands on the peer's queue
/// `cpu % queues`, where an AF_XDP client of one queue does not look.
#[derive(Debug)]
pub struct VethPair {
    ends: [(Arc<NetNs>, String); 2],
    /// A program stays attached for as long as its link is held.
    programs: Vec<XdpLink>,
}

/// One end of a [`VethPair`], in the order [`VethPair::create`] was given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first.
    First = 0,
    /// The second.
    Second = 1,
}

impl VethPair {
    /// Connects `a.1` in namespace `a.0` with `b.1` in `b.0`; both ends are up.
    pub fn create(a: (&Arc<NetNs>, &str), b: (&Arc<NetNs>, &str)) -> Result<Self, LabError> {
        Self::create_wide(a, b, 1)
    }

    /// [`Self::create`] with so many queues at each end.
    pub fn create_wide(
        a: (&Arc<NetNs>, &str),
        b: (&Arc<NetNs>, &str),
        queues: u32,
    ) -> Result<Self, LabError> {
        let width = format!("numrxqueues {queues} numtxqueues {queues} mtu {LINK_MTU_BYTES}");
        a.0.ip(&format!(
            "link add {} {width} type veth peer name {} {width} netns {}",
            a.1,
            b.1,
            b.0.name()
        ))?;
        let ends = [(a.0.clone(), a.1.to_owned()), (b.0.clone(), b.1.to_owned())];
        let pair = Self { ends, programs: Vec::new() };
        for (namespace, interface) in &pair.ends {
            namespace.exec(&format!("ethtool -K {interface} {OFFLOADS}"))?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        Ok(pair)
    }

    /// Attaches a program that passes everything to one end. The end opposite a node needs it: a veth
    /// drops what its peer transmits or redirects from XDP while it has no program itself.
    pub fn pass_on(&mut self, end: End) -> Result<(), LabError> {
        let (namespace, interface) = &self.ends[end as usize];
        let link = namespace.run(|| {
            let ifindex = if_nametoindex(interface.as_str())?;
            PassProgram::load()?.attach(ifindex)
        });
        self.programs.push(link.map_err(|source| LabError::Program {
            interface: interface.clone(),
            namespace: namespace.name().to_owned(),
            source,
        })?);
        Ok(())
    }

    /// Takes the link down, or up again, at one end.
    pub fn set_up(&self, end: End, up: bool) -> Result<(), LabError> {
        let (namespace, interface) = &self.ends[end as usize];
        namespace.ip(&format!("link set {interface} {}", if up { "up" } else { "down" }))?;
        Ok(())
    }

    /// Gives the first end both addresses.
    pub fn address(&self, address: Address) -> Result<(), LabError> {
        let (namespace, interface) = &self.ends[0];
        for prefix in address.with_prefixes() {
            namespace.ip(&format!("address add {prefix} dev {interface}"))?;
        }
        Ok(())
    }
}

/// A bridge in a namespace of its own.
#[derive(Debug)]
pub struct Bridge {
    namespace: Arc<NetNs>,
}

/// The bridge's name in its namespace.
const BRIDGE: &str = "br0";

/// A member's interface inside its own namespace.
pub(super) const MEMBER_INTERFACE: &str = "eth0";

impl Bridge {
    /// Makes it, with multicast flooded: the lab has no querier, and a snooping bridge without one
    /// forgets its members.
    pub fn create(run: RunId) -> Result<Self, LabError> {
        let namespace = Arc::new(NetNs::create(run, "bridge")?);
        namespace.ip(&format!(
            "link add {BRIDGE} type bridge stp_state 0 mcast_snooping 0 forward_delay 0"
        ))?;
        namespace.ip(&format!("link set {BRIDGE} up"))?;
        Ok(Self { namespace })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Arc<NetNs> {
        &self.namespace
    }

    /// Joins a member: `eth0` in its namespace with these addresses, and a bridge port named
    /// `port` with an XDP program that passes everything (without one, XDP_TX replies are lost on
    /// the port).
    pub fn join(
        &self,
        member: &Arc<NetNs>,
        port: &str,
        address: Address,
    ) -> Result<VethPair, LabError> {
        self.join_wide(member, port, address, 1)
    }

    /// [`Self::join`] with so many queues at each end.
    pub fn join_wide(
        &self,
        member: &Arc<NetNs>,
        port: &str,
        address: Address,
        queues: u32,
    ) -> Result<VethPair, LabError> {
        let ends = ((member, MEMBER_INTERFACE), (&self.namespace, port));
        let mut pair = VethPair::create_wide(ends.0, ends.1, queues)?;
        pair.pass_on(End::Second)?;
        self.take(port)?;
        pair.address(address)?;
        Ok(pair)
    }

    /// Makes an interface of its namespace one of its ports.
    pub fn take(&self, port: &str) -> Result<(), LabError> {
        self.namespace.ip(&format!("link set {port} master {BRIDGE}"))?;
        Ok(())
    }
}
