//! B1: echo. Our worker against DPDK's testpmd on the same driver and core.

use crate::clock::{GENERATOR_CORE, pin};
use crate::generator::open::Open;
use crate::generator::window::Window;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::stage::{self, PeerSide, Stage};
use crate::traffic::Echo;

/// The echo port of a lab's node file.
const PORT: u16 = 7_007;
const PAYLOAD_BYTES: usize = 64;
const OUTSTANDING: u16 = 256;
const RATE_PER_S: u64 = 10_000;

/// The row.
pub struct B1 {
    stage: Stage,
    sides: Vec<String>,
    missing: Option<String>,
    quick: bool,
}

impl B1 {
    /// Starts both sides.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut sides = vec!["nautilus xdp".to_owned()];
        let ours = stage.link(PORT)?;
        stage.start_node(ours, &supervisor, |file| file.to_toml())?;
        stage.wait_ready(ours, &mut Echo { bytes: PAYLOAD_BYTES }, false)?;
        let PeerSide { started, missing } = stage.start_peer(row.peer.as_ref(), PORT)?;
        if let Some((number, name)) = started {
            stage.wait_ready(number, &mut Echo { bytes: PAYLOAD_BYTES }, true)?;
            sides.push(name);
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        Ok(Self { stage, sides, missing, quick })
    }
}

impl Bench for B1 {
    fn sides(&self) -> Vec<String> {
        self.sides.clone()
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        (self.sides.len() > 1).then_some(1)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        self.stage.only(side);
        let mirrored = side == 1;
        let duration_ns = if self.quick { 2_000_000_000 } else { 4_000_000_000 };
        let window = Window { outstanding: OUTSTANDING, duration_ns, count: u64::MAX, mirrored };
        let open = Open {
            rate_per_s: RATE_PER_S,
            // Stalls come in bunches: fewer samples, and a p99 is that of one of them.
            count: if self.quick { 15_000 } else { 100_000 },
            mirrored,
        };
        let mut echo = Echo { bytes: PAYLOAD_BYTES };
        let link = self.stage.side(side);
        let rate = window.run(&mut link.wire, &link.flow, &mut echo)?;
        rate.check(&self.sides[side])?;
        let (paced, latency) = open.run(&mut link.wire, &link.flow, &mut echo)?;
        paced.check(&self.sides[side])?;
        let p99_us = latency.value_at_quantile(0.99) as f64 / 1e3;
        Ok(Half {
            values: vec![Some(rate.rate_per_s()), Some(p99_us)],
            held_share: rate.held_share.max(paced.held_share),
            latency: Some(latency),
            lost: Some((rate.lost + paced.lost, rate.sent + paced.sent)),
        })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}
