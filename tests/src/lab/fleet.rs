//! A whole lab: nodes with their supervisors, a client, a venue and one control, on one bridge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nautilus_shm::life::NodePhase;

use super::attach;
use super::node_file::ECHO_PORT;
use super::{
    Bridge, CLIENT, CONTROL, Folder, LabError, Member, NODES_MAX, NetNs, NodeFile, RunId, Service,
    VENUE, Wire, WireAt, WireReport, binary, node,
};
use crate::scrape::{self, Samples};
use crate::wait::wait_until;

/// How long a node may take to serve its first packet. Too low: a loaded machine fails; too high: a
/// node that cannot start is reported late.
const READY_MAX: Duration = Duration::from_secs(30);

/// Where the control process listens: without TLS, it serves its own namespace alone.
pub const CONTROL_PORT: u16 = 9477;
const CONTROL_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CONTROL_PORT);

/// A member that serves.
#[derive(Debug)]
pub struct Node {
    /// Runs, and runs again, `nautilus-supervisor`.
    pub supervisor: Service,
    /// Where its sockets are.
    pub run_dir: PathBuf,
    /// Its node file.
    pub file: PathBuf,
    /// Its place on the bridge.
    pub member: Member,
    /// It does not serve before it is told to.
    pub parked: bool,
}

/// A running lab; dropping it ends and deletes everything. The fields' order is the order in which
/// they go.
#[derive(Debug)]
pub struct Lab {
    control: Option<Service>,
    nodes: Vec<Node>,
    client: Member,
    venue: Member,
    operator: Member,
    bridge: Bridge,
    folder: Arc<Folder>,
    run: RunId,
}

impl Lab {
    /// Starts `count` nodes with the lab's usual node file. Before each supervisor starts, `prepare`
    /// is given the node's number, its namespace and its file, and may change both.
    pub fn start(
        folder: Arc<Folder>,
        run: RunId,
        count: usize,
        prepare: impl FnMut(usize, &Arc<NetNs>, &mut NodeFile) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        Self::start_wired(folder, run, count, &[], prepare)
    }

    /// The same with wires between members and the bridge, which harm what passes.
    pub fn start_wired(
        folder: Arc<Folder>,
        run: RunId,
        count: usize,
        wires: &[WireAt],
        mut prepare: impl FnMut(usize, &Arc<NetNs>, &mut NodeFile) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        let is_there = |name: &str| {
            let number = name.strip_prefix("node").and_then(|number| number.parse().ok());
            ["client", "venue", "control"].contains(&name)
                || number.is_some_and(|number: usize| (1..=count).contains(&number))
        };
        if let Some(stranger) = wires.iter().find(|wire| !is_there(&wire.member)) {
            let problem = format!("a lab of {count} nodes has no such member");
            return Err(LabError::Wire { name: stranger.member.clone(), problem });
        }
        if !(1..=NODES_MAX).contains(&count) {
            return Err(LabError::Nodes(count));
        }
        let bridge = Bridge::create(run)?;
        let join = |name: &str, address| match wires.iter().find(|wire| wire.member == name) {
            Some(wire) => Member::join_wired(run, &bridge, (name, address), wire, &folder, false),
            None => Member::join(run, &bridge, name, address),
        };
        let client = join("client", CLIENT)?;
        let venue = join("venue", VENUE)?;
        venue.namespace.ip("route add 224.0.0.0/4 dev eth0")?;
        let operator = join("control", CONTROL)?;
        let mut lab = Self {
            control: None,
            nodes: Vec::with_capacity(count),
            client,
            venue,
            operator,
            bridge,
            folder,
            run,
        };
        for number in 1..=count {
            let node = lab.start_node(number, wires, &mut prepare)?;
            lab.nodes.push(node);
        }
        lab.wait_ready()?;
        Ok(lab)
    }

    fn start_node(
        &self,
        number: usize,
        wires: &[WireAt],
        prepare: &mut impl FnMut(usize, &Arc<NetNs>, &mut NodeFile) -> Result<(), LabError>,
    ) -> Result<Node, LabError> {
        let name = format!("node{number}");
        let (run, bridge, place) = (self.run, &self.bridge, (&*name, node(number)));
        let mut member = match wires.iter().find(|wire| wire.member == name) {
            Some(wire) => Member::join_wired(run, bridge, place, wire, &self.folder, true)?,
            None => Member::join(run, bridge, place.0, place.1)?,
        };
        let run_dir = self.folder.make(&name)?;
        let mut file = NodeFile::new(&name, &run_dir);
        prepare(number, &member.namespace, &mut file)?;
        if file.queues > 1 {
            member.reconnect(&self.bridge, file.queues, Duration::ZERO)?;
        }
        let path = self.folder.write(&format!("{name}.toml"), &file.to_toml())?;
        let supervisor = Service::start(
            self.run,
            Some(&member.namespace),
            binary("nautilus-supervisor"),
            vec!["--config".into(), path.clone().into()],
            self.folder.join(format!("{name}.log")),
        )?;
        Ok(Node { supervisor, run_dir, file: path, member, parked: file.parked })
    }

    /// Starts one control process for all nodes, in a namespace of its own, and waits until it answers.
    pub fn start_control(&mut self) -> Result<(), LabError> {
        let store = self.folder.join("store.redb");
        let mut text = format!(
            "[control]\nlisten = \"{CONTROL_LISTEN}\"\n[control.store]\nfile = {store:?}\n"
        );
        for node in &self.nodes {
            text += &format!(
                "\n[[node]]\nrun_dir = {:?}\nid = {:?}\nregion = \"lab\"\n",
                node.run_dir, node.member.name
            );
        }
        let file = self.folder.write("control.toml", &text)?;
        self.control = Some(Service::start(
            self.run,
            Some(&self.operator.namespace),
            binary("nautilus-control"),
            vec!["--config".into(), file.into()],
            self.folder.join("control.log"),
        )?);
        let what =
            format!("control answers; its log is {}", self.folder.join("control.log").display());
        wait_until(what, READY_MAX, || {
            let alive = || scrape::get(CONTROL_LISTEN, "/livez");
            self.operator.namespace.run(alive).is_ok()
        })?;
        Ok(())
    }

    /// Kills the control process, for good: as after `kill -9` on a host where nothing restarts it.
    pub fn kill_control(&mut self) {
        if let Some(control) = self.control.take() {
            control.kill();
        }
    }

    /// Deletes the interface of node `number` and makes it anew, under its old name, MAC and addresses,
    /// as when a driver is reloaded; `pause` passes between the two. (With another MAC the clients'
    /// kernels would keep sending to the old one for up to 45 s.)
    pub fn recreate_link(&mut self, number: usize, pause: Duration) -> Result<(), LabError> {
        let member = &mut self.nodes[number - 1].member;
        let mac = member.namespace.exec("cat /sys/class/net/eth0/address")?;
        member.reconnect(&self.bridge, 1, pause)?;
        member.namespace.ip(&format!("link set eth0 address {}", mac.trim()))?;
        Ok(())
    }

    /// Waits until every node answers an echo from the client, over both families, or is parked as it should be.
    pub fn wait_ready(&self) -> Result<(), LabError> {
        for node in &self.nodes {
            if node.parked {
                let what = format!("{} is parked", node.member.name);
                let phase = || attach(&node.run_dir).map(|region| region.supervisor().phase());
                wait_until(what, READY_MAX, || matches!(phase(), Ok(NodePhase::Parked)))?;
                continue;
            }
            for address in node.member.address.both() {
                let target = SocketAddr::new(address, ECHO_PORT);
                let what = format!("{} answers an echo at {target}", node.member.name);
                self.client.namespace.run(|| {
                    let socket = echo_socket(target);
                    wait_until(what, READY_MAX, || echo_once(&socket, target))
                })?;
            }
        }
        Ok(())
    }

    /// Its run id.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The nodes, the first being number 1.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where clients run.
    pub fn client(&self) -> &Member {
        &self.client
    }

    /// Cuts the wire of the venue and says what became of the packets on it; None without one. Nothing comes
    /// from the venue any more.
    pub fn cut_venue(&mut self) -> Result<Option<WireReport>, LabError> {
        self.venue.wire_mut().map(Wire::cut).transpose()
    }

    /// Where market data comes from.
    pub fn venue(&self) -> &Member {
        &self.venue
    }

    /// Where the control process listens.
    pub fn operator(&self) -> &Member {
        &self.operator
    }

    /// The control process, once started.
    pub fn control(&self) -> Option<&Service> {
        self.control.as_ref()
    }

    /// One scrape of the control process, which must have been started.
    pub fn metrics(&self) -> std::io::Result<Samples> {
        let text = self.operator.namespace.run(|| scrape::get(CONTROL_LISTEN, "/metrics"))?;
        Samples::parse(&text).map_err(std::io::Error::other)
    }

    /// The bridge.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// Configuration, sockets and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn echo_socket(target: SocketAddr) -> UdpSocket {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a free port in a namespace of our own");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a valid timeout");
    socket
}

/// One echo there and back; false when none came in time.
fn echo_once(socket: &UdpSocket, target: SocketAddr) -> bool {
    let question = b"ready?";
    let mut answer = [0; 16];
    // An error here is the node not being up yet.
    socket.send_to(question, target).is_ok()
        && matches!(socket.recv_from(&mut answer), Ok((length, from))
            if from == target && &answer[..length] == question)
}
