//! A namespace on the bridge, and how it is connected to it.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::link::MEMBER_INTERFACE;
use super::{Address, Bridge, Folder, LabError, NetNs, RunId, VethPair, Wire};

/// Where a lab has a wire that harms packets: between a member and the bridge. Forward is to the bridge, of a
/// node from it: the way that market data goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireAt {
    /// Name of the member.
    pub member: String,
    /// Its fault file.
    pub faults: PathBuf,
}

impl FromStr for WireAt {
    type Err = String;

    /// `FILE` at the venue, or `MEMBER=FILE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (member, file) = text.split_once('=').unwrap_or(("venue", text));
        let faults = std::fs::canonicalize(file).map_err(|error| format!("{file}: {error}"))?;
        Ok(Self { member: member.to_owned(), faults })
    }
}

/// What connects a member with the bridge.
#[derive(Debug)]
enum Connection {
    Direct(VethPair),
    /// Forward is to the member if `inward`.
    Wired {
        wire: Box<Wire>,
        inward: bool,
    },
}

/// A namespace on the bridge.
#[derive(Debug)]
pub struct Member {
    /// Its name within the lab.
    pub name: String,
    /// Its addresses.
    pub address: Address,
    /// Its namespace.
    pub namespace: Arc<NetNs>,
    connection: Connection,
}

impl Member {
    /// Joins it to the bridge by a link of one queue.
    pub(super) fn join(
        run: RunId,
        bridge: &Bridge,
        name: &str,
        address: Address,
    ) -> Result<Self, LabError> {
        let namespace = Arc::new(NetNs::create(run, name)?);
        let connection = Connection::Direct(bridge.join(&namespace, name, address)?);
        Ok(Self { name: name.to_owned(), address, namespace, connection })
    }

    /// Joins it by way of a wire. A member that is `served` by a supervisor gets its own program on `eth0`, and
    /// is what the wire's forward way leads to; any other one gets the passing program.
    pub(super) fn join_wired(
        run: RunId,
        bridge: &Bridge,
        (name, address): (&str, Address),
        wire: &WireAt,
        folder: &Folder,
        served: bool,
    ) -> Result<Self, LabError> {
        let namespace = Arc::new(NetNs::create(run, name)?);
        let own = (&namespace, MEMBER_INTERFACE);
        let port = (bridge.namespace(), name);
        let (first, second) = if served { (port, own) } else { (own, port) };
        let log = folder.join(format!("{name}-wire.log"));
        let mut wire = Wire::connect(run, name, first, second, &wire.faults, log)?;
        if served {
            wire.pass_on_first()?;
            wire.second().address(address)?;
        } else {
            wire.pass_on_first()?;
            wire.pass_on_second()?;
            wire.first().address(address)?;
        }
        bridge.take(name)?;
        let connection = Connection::Wired { wire: Box::new(wire), inward: served };
        Ok(Self { name: name.to_owned(), address, namespace, connection })
    }

    /// Its link to the bridge, or to its wire.
    pub fn link(&self) -> &VethPair {
        match &self.connection {
            Connection::Direct(link) => link,
            Connection::Wired { wire, inward: true } => wire.second(),
            Connection::Wired { wire, inward: false } => wire.first(),
        }
    }

    /// The wire between it and the bridge, if there is one.
    pub fn wire(&self) -> Option<&Wire> {
        match &self.connection {
            Connection::Direct(_) => None,
            Connection::Wired { wire, .. } => Some(wire),
        }
    }

    /// The same, to be cut.
    pub fn wire_mut(&mut self) -> Option<&mut Wire> {
        match &mut self.connection {
            Connection::Direct(_) => None,
            Connection::Wired { wire, .. } => Some(wire),
        }
    }

    /// Deletes its interface, and connects it anew after `pause` by a link of so many queues. Refused with a
    /// wire.
    pub(super) fn reconnect(
        &mut self,
        bridge: &Bridge,
        queues: u32,
        pause: std::time::Duration,
    ) -> Result<(), LabError> {
        if self.wire().is_some() {
            let problem = "a wire's link has one queue and is not made anew".to_owned();
            return Err(LabError::Wire { name: self.name.clone(), problem });
        }
        self.namespace.ip(&format!("link delete {MEMBER_INTERFACE}"))?;
        std::thread::sleep(pause);
        let link = bridge.join_wide(&self.namespace, &self.name, self.address, queues)?;
        self.connection = Connection::Direct(link);
        Ok(())
    }
}
