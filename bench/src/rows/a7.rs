//! A7: GET over TCP. Our front, with its worker asleep beside it, against memcached on the same core.
//!
//! The generator is a kernel TCP client, so this row has a stage of its own: a namespace and a veth pair a
//! side, without the AF_XDP wire of the others.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_tests::lab::{NetNs, NodeFile, Process, VethPair};
use nix::sys::signal::Signal;

use crate::clock::{GENERATOR_CORE, SERVER_CORE, pin};
use crate::generator::stream::Streams;
use crate::ground::Ground;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::stage::{find_peer, signal_all, supervisor};
use crate::traffic::{TextGet, stores};

const KEYS: u64 = 100_000;
const CONNECTIONS: usize = 64;
const PORT: u16 = 11_211;
const CACHE_MEMORY_MB: u32 = 256;

/// How long a side may take to answer its first request.
const READY: Duration = Duration::from_secs(20);

/// The row.
pub struct A7 {
    sides: Vec<Side>,
    client: Arc<NetNs>,
    missing: Option<String>,
    duration_ns: u64,
    seed: u64,
    ground: Ground,
}

struct Side {
    name: String,
    process: Process,
    namespace: Arc<NetNs>,
    _link: VethPair,
    streams: Option<Streams>,
}

impl A7 {
    /// Starts and loads both sides.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        anyhow::ensure!(
            nix::unistd::geteuid().is_root(),
            "this row needs root, for network namespaces and AF_XDP"
        );
        let supervisor = supervisor()?;
        let ground = Ground::new()?;
        let mut this = Self {
            sides: Vec::new(),
            client: Arc::new(NetNs::create(ground.run, "client")?),
            missing: None,
            duration_ns: if quick { 2_000_000_000 } else { 4_000_000_000 },
            seed: 1,
            ground,
        };
        let run_dir = this.ground.folder.make("side0")?;
        let mut file = NodeFile::new("side0", &run_dir);
        file.core = Some(u32::try_from(SERVER_CORE)?);
        file.poll = "interrupt";
        file.cache_memory_mb = CACHE_MEMORY_MB;
        // No feed: its books are not what is measured.
        let text = file.to_toml();
        let text = text.split("[[feed]]").next().unwrap_or_default();
        let text = format!("{text}[front]\ncore = {SERVER_CORE}\n");
        let config = this.ground.folder.write("side0.toml", &text)?;
        let arguments = vec!["--config".into(), config.into_os_string()];
        this.add("nautilus front".into(), |_| (supervisor.into(), arguments))?;
        if let Some(spec) = &row.peer {
            match find_peer(spec) {
                Err(why) => this.missing = Some(why),
                Ok(_) => this.add(spec.name.clone(), |address| {
                    let command = spec.command.replace("{address}", &address.to_string());
                    let words = format!("-c {SERVER_CORE} {command}");
                    ("taskset".into(), words.split_whitespace().map(OsString::from).collect())
                })?,
            }
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        Ok(this)
    }

    fn add(
        &mut self,
        name: String,
        command: impl FnOnce(Ipv4Addr) -> (OsString, Vec<OsString>),
    ) -> anyhow::Result<()> {
        let number = self.sides.len();
        let namespace = Arc::new(NetNs::create(self.ground.run, &format!("side{number}"))?);
        let near_name = format!("c{number}");
        let link = VethPair::create((&namespace, "eth0"), (&self.client, &near_name))?;
        let net = u8::try_from(number)?;
        let (near, far) = (Ipv4Addr::new(198, 18, net, 1), Ipv4Addr::new(198, 18, net, 2));
        namespace.ip(&format!("address add {far}/24 dev eth0"))?;
        self.client.ip(&format!("address add {near}/24 dev {near_name}"))?;
        // XDP on the other end sees checksums that are still to be filled in.
        self.client.exec(&format!("ethtool -K {near_name} tx off"))?;
        let (program, arguments) = command(far);
        let log = self.ground.folder.join(format!("side{number}.log"));
        let process = Process::start(self.ground.run, &namespace, program, arguments, &log)?;
        let mut side = Side { name, process, namespace, _link: link, streams: None };
        let server = SocketAddr::from((far, PORT));
        let opened = self.client.run(|| load(server));
        opened.with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{}; its log: {}", side.name, log.trim_end())
        })?;
        let streams = self.client.run(|| Streams::connect(server, CONNECTIONS))?;
        side.streams = Some(Streams::new(streams)?);
        self.sides.push(side);
        Ok(())
    }

    fn only(&self, number: usize) {
        for (index, side) in self.sides.iter().enumerate() {
            if index != number {
                side.signal(Signal::SIGSTOP);
            }
        }
        self.sides[number].signal(Signal::SIGCONT);
        // Let it find its core, and its supervisor its workers.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Stores every key and waits for the last.
fn load(server: SocketAddr) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&server, Duration::from_secs(1)) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > READY => return Err(error).context("connect"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(READY))?;
    stream.write_all(&stores(KEYS)).context("store the keys")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).context("the answer to the last key")?;
    anyhow::ensure!(&answer == b"STORED\r\n", "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

impl Side {
    fn signal(&self, signal: Signal) {
        signal_all(&self.namespace, Some(self.process.pid()), signal);
    }
}

impl Bench for A7 {
    fn sides(&self) -> Vec<String> {
        self.sides.iter().map(|side| side.name.clone()).collect()
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        (self.sides.len() > 1).then_some(1)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        self.only(side);
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut get = TextGet::new(KEYS, self.seed);
        let duration_ns = self.duration_ns;
        let side = &mut self.sides[side];
        let streams = side.streams.as_mut().context("a side has its connections")?;
        let (outcome, latency) = streams.run(&mut get, duration_ns)?;
        outcome.check(&side.name)?;
        let p99_us = latency.value_at_quantile(0.99) as f64 / 1e3;
        Ok(Half {
            values: vec![Some(outcome.rate_per_s()), Some(p99_us)],
            held_share: outcome.held_share,
            latency: Some(latency),
            lost: None,
        })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}

impl Drop for A7 {
    fn drop(&mut self) {
        // A stopped process does not end by SIGTERM.
        for side in &self.sides {
            side.signal(Signal::SIGCONT);
        }
    }
}
