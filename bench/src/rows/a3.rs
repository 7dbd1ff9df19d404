//! A3: 32 keys a request. Our worker over UDP, against memcached over UDP and over TCP, each on the same
//! core in turn.

use nautilus_tests::lab::NodeFile;
use nix::sys::signal::Signal;

use super::a2;
use crate::clock::{GENERATOR_CORE, pin};
use crate::generator::window::Window;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::several::{Cut, KEYS_TOGETHER, MultiGet, TextMultiGet};
use crate::stage::{self, PeerSide, Stage};
use crate::tcp::{Plan, TcpSide};

const KEYS: u64 = a2::KEYS;
/// Requests under way, and connections of the peer that has connections. A peer that cuts by key then has
/// as many datagrams under way as the generator has frames for.
const OUTSTANDING: u16 = 64;
const PORT: u16 = 11_211;

/// The row.
pub struct A3 {
    // Before the stage, whose client's namespace and folder it uses.
    tcp: Option<TcpSide>,
    stage: Stage,
    /// Names; which of them is asked over TCP and which over UDP.
    sides: Vec<String>,
    udp: Option<usize>,
    missing: Option<String>,
    window: Window,
    seed: u64,
}

impl A3 {
    /// Starts and loads every side.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut sides = vec!["nautilus xdp".to_owned()];
        let ours = stage.link(PORT)?;
        stage.start_node(ours, &supervisor, |file: &mut NodeFile| {
            file.cache_memory_mb = a2::CACHE_MEMORY_MB;
            file.hot_set = false;
            file.to_toml()
        })?;
        a2::load(&mut stage, ours)?;
        let PeerSide { started, missing } = stage.start_peer(row.peer.as_ref(), PORT)?;
        let udp = started.is_some().then_some(sides.len());
        if let Some((number, name)) = started {
            a2::load(&mut stage, number)?;
            sides.push(name);
        }
        let mut tcp = None;
        if let Some(peer) = row.other_peer.as_ref().filter(|peer| stage::find_peer(peer).is_ok()) {
            stage.stop_all();
            let connections = usize::from(OUTSTANDING);
            let plan = Plan { name: &peer.name, number: 9, keys: KEYS, connections };
            let command = |address| TcpSide::peer_command(peer, address);
            tcp = Some(TcpSide::start((&stage.ground, &stage.client), &plan, command)?);
            sides.push(peer.name.clone());
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        let duration_ns = if quick { 1_000_000_000 } else { 4_000_000_000 };
        let window =
            Window { outstanding: OUTSTANDING, duration_ns, count: u64::MAX, mirrored: false };
        Ok(Self { tcp, stage, sides, udp, missing, window, seed: 1 })
    }
}

impl Bench for A3 {
    fn sides(&self) -> Vec<String> {
        self.sides.clone()
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        let tcp = self.tcp.as_ref().map(|_| self.sides.len() - 1);
        if measure == 0 { self.udp } else { tcp }
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let is_udp = side == 0 || Some(side) == self.udp;
        let outcome = match &mut self.tcp {
            Some(tcp) if !is_udp => {
                self.stage.stop_all();
                tcp.signal(Signal::SIGCONT);
                std::thread::sleep(stage::SETTLES);
                let mut get = TextMultiGet::new(KEYS, self.seed);
                tcp.streams.run(&mut get, self.window.duration_ns)?.0
            }
            tcp => {
                if let Some(tcp) = tcp {
                    tcp.signal(Signal::SIGSTOP);
                }
                self.stage.only(side);
                let cut = if side == 0 { Cut::Numbered } else { Cut::ByKey };
                let mut get = MultiGet::new(KEYS, self.seed, cut, OUTSTANDING);
                let link = self.stage.side(side);
                self.window.run(&mut link.wire, &link.flow, &mut get)?
            }
        };
        outcome.check(&self.sides[side])?;
        let rate = Some(outcome.rate_per_s() * KEYS_TOGETHER as f64);
        Ok(Half {
            values: vec![rate, rate],
            held_share: outcome.held_share,
            lost: Some((outcome.lost, outcome.sent)),
            ..Half::default()
        })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}
