//! A2: GET of a million keys, 64 outstanding: our worker, memcached, and our own code over spinning
//! kernel sockets, each on the same core in turn.

use nautilus_tests::lab::NodeFile;

use crate::clock::{GENERATOR_CORE, pin};
use crate::generator::window::Window;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::stage::{self, PeerSide, Stage};
use crate::traffic::{Get, Load};

/// Keys that are there, and asked for.
pub(super) const KEYS: u64 = 1_000_000;
const OUTSTANDING: u16 = 64;
const PORT: u16 = 11_211;
/// Room for the keys several times over: nothing is evicted.
pub(super) const CACHE_MEMORY_MB: u32 = 512;

/// The row.
pub struct A2 {
    stage: Stage,
    sides: Vec<String>,
    peer: Option<usize>,
    twin: usize,
    missing: Option<String>,
    window: Window,
    seed: u64,
}

impl A2 {
    /// Starts and loads every side.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut sides = vec!["nautilus xdp".to_owned()];
        let node = |file: &mut NodeFile| {
            file.cache_memory_mb = CACHE_MEMORY_MB;
            file.hot_set = false;
            file.to_toml()
        };
        let ours = stage.link(PORT)?;
        stage.start_node(ours, &supervisor, node)?;
        load(&mut stage, ours)?;

        let PeerSide { started: peer, missing } = stage.start_peer(row.peer.as_ref(), PORT)?;
        if let Some((number, name)) = &peer {
            load(&mut stage, *number)?;
            sides.push(name.clone());
        }
        let peer = peer.map(|(number, _)| number);
        let twin = stage.link(PORT)?;
        stage.start_node(twin, &supervisor, |file| {
            file.port_kind = "socket";
            node(file)
        })?;
        load(&mut stage, twin)?;
        sides.push("spinning kernel-socket twin".into());
        let duration_ns = if quick { 2_000_000_000 } else { 5_000_000_000 };
        let window =
            Window { outstanding: OUTSTANDING, duration_ns, count: u64::MAX, mirrored: false };
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        Ok(Self { stage, sides, peer, twin, missing, window, seed: 1 })
    }
}

/// Stores every key; what is lost on the way is stored again, for the whole load is repeated.
pub(super) fn load(stage: &mut Stage, number: usize) -> anyhow::Result<()> {
    stage.only(number);
    stage.wait_ready(number, &mut Load { keys: 1 }, false)?;
    let mut load = Load { keys: KEYS };
    let count = load.datagrams();
    let window = Window { outstanding: 32, duration_ns: 30_000_000_000, count, mirrored: false };
    for _ in 0..3 {
        let side = stage.side(number);
        let outcome = window.run(&mut side.wire, &side.flow, &mut load)?;
        eprintln!("side {number} loaded, {outcome:?}");
        anyhow::ensure!(outcome.wrong == 0, "side {number} refused to store: {outcome:?}");
        if outcome.lost == 0 && outcome.sent == count {
            return Ok(());
        }
    }
    anyhow::bail!("side {number} cannot be loaded with {KEYS} keys: requests are lost each time")
}

impl Bench for A2 {
    fn sides(&self) -> Vec<String> {
        self.sides.clone()
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        if measure == 0 { self.peer } else { Some(self.twin) }
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        self.stage.only(side);
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut get = Get::new(KEYS, self.seed);
        let link = self.stage.side(side);
        let outcome = self.window.run(&mut link.wire, &link.flow, &mut get)?;
        outcome.check(&self.sides[side])?;
        let rate = Some(outcome.rate_per_s());
        let lost = Some((outcome.lost, outcome.sent));
        let held_share = outcome.held_share;
        Ok(Half { values: vec![rate, rate], held_share, lost, ..Half::default() })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}
