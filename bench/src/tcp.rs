//! A server that is asked over the kernel's TCP: a namespace and a veth pair without the AF_XDP wire of
//! [`crate::stage`], the process, and the generator's connections to it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_tests::lab::{NetNs, Process, VethPair};
use nix::sys::signal::Signal;

use crate::clock::SERVER_CORE;
use crate::generator::stream::Streams;
use crate::ground::Ground;
use crate::row::Peer;
use crate::stage::signal_all;
use crate::traffic::stores;

const PORT: u16 = 11_211;

/// How long a server may take to answer its first request.
const READY: Duration = Duration::from_secs(20);

/// A program and its arguments.
pub type Words = (OsString, Vec<OsString>);

/// What a side is started with.
pub struct Plan<'a> {
    /// Printed name.
    pub name: &'a str,
    /// Number of its namespace, log and subnet, unique in its row.
    pub number: usize,
    /// Keys it is loaded with.
    pub keys: u64,
    /// Connections to it.
    pub connections: usize,
}

/// One server. Dropping it ends it.
pub struct TcpSide {
    /// As planned.
    pub name: String,
    /// The generator's connections.
    pub streams: Streams,
    process: Process,
    namespace: Arc<NetNs>,
    _link: VethPair,
}

impl TcpSide {
    /// Starts and loads a server; `command` is told its address.
    pub fn start(
        (ground, client): (&Ground, &Arc<NetNs>),
        plan: &Plan<'_>,
        command: impl FnOnce(Ipv4Addr) -> Words,
    ) -> anyhow::Result<Self> {
        let number = plan.number;
        let namespace = Arc::new(NetNs::create(ground.run, &format!("side{number}"))?);
        let near_name = format!("c{number}");
        let link = VethPair::create((&namespace, "eth0"), (client, &near_name))?;
        let net = u8::try_from(number)?;
        let (near, far) = (Ipv4Addr::new(198, 18, net, 1), Ipv4Addr::new(198, 18, net, 2));
        namespace.ip(&format!("address add {far}/24 dev eth0"))?;
        client.ip(&format!("address add {near}/24 dev {near_name}"))?;
        // XDP on the other end sees checksums that are still to be filled in.
        client.exec(&format!("ethtool -K {near_name} tx off"))?;
        let (program, arguments) = command(far);
        let log = ground.folder.join(format!("side{number}.log"));
        let process = Process::start(ground.run, &namespace, program, arguments, &log)?;
        let server = SocketAddr::from((far, PORT));
        client.run(|| load(server, plan.keys)).with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{}; its log: {}", plan.name, log.trim_end())
        })?;
        let streams = client.run(|| Streams::connect(server, plan.connections))?;
        let streams = Streams::new(streams)?;
        Ok(Self { name: plan.name.into(), streams, process, namespace, _link: link })
    }

    /// The command of a peer, pinned.
    pub fn peer_command(peer: &Peer, address: Ipv4Addr) -> Words {
        let command = peer
            .command
            .replace("{address}", &address.to_string())
            .replace("{server_core}", &SERVER_CORE.to_string());
        let mut words = command.split_whitespace().map(OsString::from);
        (words.next().unwrap_or_default(), words.collect())
    }

    /// Signals its processes.
    pub fn signal(&self, signal: Signal) {
        signal_all(&self.namespace, Some(self.process.pid()), signal);
    }
}

impl Drop for TcpSide {
    fn drop(&mut self) {
        // A stopped process does not end by SIGTERM.
        self.signal(Signal::SIGCONT);
    }
}

/// Stores every key and waits for the last.
fn load(server: SocketAddr, keys: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&server, Duration::from_secs(1)) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > READY => return Err(error).context("connect"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(READY))?;
    stream.write_all(&stores(keys)).context("store the keys")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).context("the answer to the last key")?;
    anyhow::ensure!(&answer == b"STORED\r\n", "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
