//! A7: GET over TCP. Our front, with its worker asleep beside it, against memcached on the same core.
//!
//! The generator is a kernel TCP client, so the sides are those of [`crate::tcp`], without the AF_XDP wire
//! of other rows.

use std::sync::Arc;

use nautilus_tests::lab::{NetNs, NodeFile};
use nix::sys::signal::Signal;

use crate::clock::{GENERATOR_CORE, SERVER_CORE, pin};
use crate::ground::Ground;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::stage::{SETTLES, find_peer, supervisor};
use crate::tcp::{Plan, TcpSide};
use crate::traffic::TextGet;

const KEYS: u64 = 100_000;
const CONNECTIONS: usize = 64;
const CACHE_MEMORY_MB: u32 = 256;

/// The row.
pub struct A7 {
    sides: Vec<TcpSide>,
    missing: Option<String>,
    duration_ns: u64,
    seed: u64,
    _client: Arc<NetNs>,
    _ground: Ground,
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
        let client = Arc::new(NetNs::create(ground.run, "client")?);
        let run_dir = ground.folder.make("side0")?;
        let mut file = NodeFile::new("side0", &run_dir);
        file.core = Some(u32::try_from(SERVER_CORE)?);
        file.poll = "interrupt";
        file.cache_memory_mb = CACHE_MEMORY_MB;
        // No feed: its books are not what is measured.
        let text = file.to_toml();
        let text = text.split("[[feed]]").next().unwrap_or_default();
        let text = format!("{text}[front]\ncore = {SERVER_CORE}\n");
        let config = ground.folder.write("side0.toml", &text)?;
        let plan = |number, name| Plan { name, number, keys: KEYS, connections: CONNECTIONS };
        let arguments = vec!["--config".into(), config.into_os_string()];
        let mut sides =
            vec![TcpSide::start((&ground, &client), &plan(0, "nautilus front"), |_| {
                (supervisor.into(), arguments)
            })?];
        let mut missing = None;
        if let Some(peer) = &row.peer {
            match find_peer(peer) {
                Err(why) => missing = Some(why),
                Ok(_) => {
                    let plan = plan(1, &peer.name);
                    let command = |address| TcpSide::peer_command(peer, address);
                    sides.push(TcpSide::start((&ground, &client), &plan, command)?);
                }
            }
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        let duration_ns = if quick { 2_000_000_000 } else { 4_000_000_000 };
        Ok(Self { sides, missing, duration_ns, seed: 1, _client: client, _ground: ground })
    }

    fn only(&self, number: usize) {
        for (index, side) in self.sides.iter().enumerate() {
            if index != number {
                side.signal(Signal::SIGSTOP);
            }
        }
        self.sides[number].signal(Signal::SIGCONT);
        std::thread::sleep(SETTLES);
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
        let (outcome, latency) = side.streams.run(&mut get, duration_ns)?;
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
