//! Where rows on the network run: one client namespace, one namespace and one veth pair a side.
//!
//! ```text
//!   ne<run>-client            c0 ------ eth0   ne<run>-side0   ours
//!   (generator, core 0)       c1 ------ eth0   ne<run>-side1   the peer
//!                             c2 ------ eth0   ne<run>-side2   the twin
//! ```
//!
//! All sides are started and loaded once, on the same core; the ones not being measured are stopped
//! (SIGSTOP), so that a half has the core to itself.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_tests::lab::{NetNs, NodeFile, Process, VethPair, binary};
use nautilus_tests::wire::Wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{GENERATOR_CORE, SERVER_CORE};
use crate::generator::Traffic;
use crate::generator::packet::Flow;
use crate::generator::window::Window;
use crate::ground::Ground;
use crate::row::Peer;

/// How long a side may take to answer its first request.
const READY: Duration = Duration::from_secs(20);

/// What a side that goes on is given to find its core, and its supervisor its workers.
pub const SETTLES: Duration = Duration::from_millis(100);

/// The namespaces of one row. Sides go before the namespaces they are in.
pub struct Stage {
    sides: Vec<Side>,
    /// Where the generator's sockets are.
    pub client: Arc<NetNs>,
    /// Run id and folder.
    pub ground: Ground,
}

/// One server and the generator's end of the link to it.
pub struct Side {
    /// Its processes; dropping ends them.
    processes: Vec<Process>,
    /// The generator's socket on the link.
    pub wire: Wire,
    /// Addresses of the link.
    pub flow: Flow,
    /// The server's namespace.
    pub namespace: Arc<NetNs>,
    _link: VethPair,
}

/// What became of a row's peer.
#[derive(Debug, Default)]
pub struct PeerSide {
    /// The number of its side, and its name.
    pub started: Option<(usize, String)>,
    /// Why it was not started.
    pub missing: Option<String>,
}

impl Stage {
    /// An empty stage. Needs root.
    pub fn new() -> anyhow::Result<Self> {
        anyhow::ensure!(
            nix::unistd::geteuid().is_root(),
            "this row needs root, for network namespaces and AF_XDP"
        );
        let ground = Ground::new()?;
        let client = Arc::new(NetNs::create(ground.run, "client")?);
        Ok(Self { sides: Vec::new(), client, ground })
    }

    /// Adds a link with nobody behind it, for a server on `port`, and returns its number.
    pub fn link(&mut self, port: u16) -> anyhow::Result<usize> {
        let number = self.sides.len();
        let namespace = Arc::new(NetNs::create(self.ground.run, &format!("side{number}"))?);
        let name = format!("c{number}");
        let link = VethPair::create((&namespace, "eth0"), (&self.client, &name))?;
        let net = u8::try_from(number)?;
        let (near, far) = (Ipv4Addr::new(198, 18, net, 1), Ipv4Addr::new(198, 18, net, 2));
        namespace.ip(&format!("address add {far}/24 dev eth0"))?;
        self.client.ip(&format!("address add {near}/24 dev {name}"))?;
        let client_mac = mac(&self.client, &name)?;
        let server_mac = mac(&namespace, "eth0")?;
        // The generator takes every frame, so nobody would answer ARP for it.
        namespace
            .ip(&format!("neigh replace {near} lladdr {client_mac} dev eth0 nud permanent"))?;
        let flow = Flow {
            client_mac: bytes(&client_mac)?,
            server_mac: bytes(&server_mac)?,
            client: SocketAddrV4::new(near, 40_000),
            server: SocketAddrV4::new(far, port),
        };
        let wire = self.client.run(|| Wire::open(&name))?;
        self.sides.push(Side { processes: Vec::new(), wire, flow, namespace, _link: link });
        Ok(number)
    }

    /// A side by its number.
    pub fn side(&mut self, number: usize) -> &mut Side {
        &mut self.sides[number]
    }

    /// Starts one of our nodes on a link and returns its run directory.
    pub fn start_node(
        &mut self,
        number: usize,
        supervisor: &std::path::Path,
        edit: impl FnOnce(&mut NodeFile) -> String,
    ) -> anyhow::Result<std::path::PathBuf> {
        let name = format!("side{number}");
        let run_dir = self.ground.folder.make(&name)?;
        let mut file = NodeFile::new(&name, &run_dir);
        file.sources = vec![format!("198.18.{number}.0/24")];
        file.core = Some(u32::try_from(SERVER_CORE)?);
        file.poll = "busy";
        let text = edit(&mut file);
        let path = self.ground.folder.write(&format!("{name}.toml"), &text)?;
        let arguments = ["--config".into(), path.into_os_string()];
        self.start(number, supervisor.as_os_str().to_owned(), arguments)?;
        Ok(run_dir)
    }

    /// Starts a program on a link; its output goes to `side<number>.log`.
    pub fn start(
        &mut self,
        number: usize,
        program: OsString,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<()> {
        let log = self.log(number);
        let namespace = self.sides[number].namespace.clone();
        let process = Process::start(self.ground.run, &namespace, program, arguments, &log)?;
        self.sides[number].processes.push(process);
        Ok(())
    }

    /// Starts a row's peer, if it has one, on a link of its own and as the only one that runs.
    pub fn start_peer(&mut self, peer: Option<&Peer>, port: u16) -> anyhow::Result<PeerSide> {
        let Some(peer) = peer else { return Ok(PeerSide::default()) };
        if let Err(why) = find_peer(peer) {
            return Ok(PeerSide { started: None, missing: Some(why) });
        }
        let number = self.link(port)?;
        self.only(number);
        let command = peer
            .command
            .replace("{address}", &self.side(number).flow.server.ip().to_string())
            .replace("{interface}", "eth0")
            .replace("{generator_core}", &GENERATOR_CORE.to_string())
            .replace("{server_core}", &SERVER_CORE.to_string());
        let mut words = command.split_whitespace().map(OsString::from);
        let program = words.next().context("a peer's command is not empty")?;
        self.start(number, program, words)?;
        Ok(PeerSide { started: Some((number, peer.name.clone())), missing: None })
    }

    /// The log of a side.
    pub fn log(&self, number: usize) -> std::path::PathBuf {
        self.ground.folder.join(format!("side{number}.log"))
    }

    /// Waits until a side answers; on failure quotes the end of its log.
    pub fn wait_ready(
        &mut self,
        number: usize,
        traffic: &mut impl Traffic,
        mirrored: bool,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let once = Window { outstanding: 1, duration_ns: 50_000_000, count: 1, mirrored };
        while start.elapsed() < READY {
            let side = &mut self.sides[number];
            if once.run(&mut side.wire, &side.flow, traffic)?.right > 0 {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
        let log = log.split("Stack backtrace").next().unwrap_or_default();
        let end: Vec<&str> = log.trim_end().lines().rev().take(8).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        Err(anyhow::anyhow!("{}", end.join("\n")))
            .with_context(|| format!("side {number} did not answer within {READY:?}; its log ends"))
    }

    /// Lets only this side run.
    pub fn only(&self, number: usize) {
        for (index, side) in self.sides.iter().enumerate() {
            if index != number {
                side.signal(Signal::SIGSTOP);
            }
        }
        self.sides[number].signal(Signal::SIGCONT);
        std::thread::sleep(SETTLES);
    }

    /// Lets no side run.
    pub fn stop_all(&self) {
        for side in &self.sides {
            side.signal(Signal::SIGSTOP);
        }
    }
}

impl Side {
    fn signal(&self, signal: Signal) {
        signal_all(&self.namespace, self.processes.first().map(Process::pid), signal);
    }
}

/// Signals everything in a namespace: its supervisor first when stopping, last when going on, so that it
/// never sees a worker that was stopped and is not.
pub fn signal_all(namespace: &NetNs, parent: Option<i32>, signal: Signal) {
    let mut pids = namespace.processes();
    pids.retain(|pid| Some(*pid) != parent);
    match signal {
        Signal::SIGSTOP => pids.splice(0..0, parent).for_each(drop),
        _ => pids.extend(parent),
    }
    for pid in pids {
        // It may have ended by itself; the next half notices.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A stopped process does not end by SIGTERM.
        for side in &self.sides {
            side.signal(Signal::SIGCONT);
        }
    }
}

/// Our supervisor, which lies beside this program.
pub fn supervisor() -> anyhow::Result<std::path::PathBuf> {
    let path = binary("nautilus-supervisor");
    anyhow::ensure!(
        path.exists() && binary("nautilus-worker").exists(),
        "{} or nautilus-worker beside it is not built: scripts/bench.sh builds both",
        path.display()
    );
    Ok(path)
}

/// Looks for a program on the path.
pub fn find_peer(peer: &Peer) -> Result<std::path::PathBuf, String> {
    let look = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(&peer.program)).find(|p| p.exists())
    };
    look().ok_or_else(|| {
        format!("{} is not installed (Debian: {})", peer.program, peer.packages.join(" "))
    })
}

fn mac(namespace: &NetNs, interface: &str) -> anyhow::Result<String> {
    Ok(namespace.exec(&format!("cat /sys/class/net/{interface}/address"))?.trim().to_owned())
}

fn bytes(mac: &str) -> anyhow::Result<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = mac.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next().context("a MAC address has six bytes")?, 16)?;
    }
    Ok(bytes)
}
