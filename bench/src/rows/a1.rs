//! A1: GET of hot keys at 10,000 a second, open loop: our node answers in XDP, memcached over UDP.
//!
//! On veth XDP runs in the sender's send call, on the generator's core. The row says which share of its
//! requests was answered there, by the steering program's own counters.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nautilus_control::attach;
use nautilus_control::snapshot::Snapshot;
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table::XDP_PACKETS;

use crate::clock::{GENERATOR_CORE, pin};
use crate::generator::Traffic;
use crate::generator::open::Open;
use crate::generator::window::Window;
use crate::row::Row;
use crate::run::{Bench, Half};
use crate::stage::{self, PeerSide, Stage};
use crate::traffic::header;

const PORT: u16 = 11_211;
const RATE_PER_S: u64 = 10_000;
/// Hot keys asked for in turn.
const KEYS: u64 = 16;
const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 64;
/// The supervisor copies the program's counters every 100 ms.
const COUNTED: Duration = Duration::from_millis(300);
/// How long keys may take to become hot.
const WARM: Duration = Duration::from_secs(10);

/// The row.
pub struct A1 {
    stage: Stage,
    sides: Vec<String>,
    run_dir: PathBuf,
    missing: Option<String>,
    quick: bool,
}

impl A1 {
    /// Starts and loads both sides and lets our keys become hot.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut sides = vec!["nautilus xdp".to_owned()];
        let ours = stage.link(PORT)?;
        let run_dir = stage.start_node(ours, &supervisor, |file| file.to_toml())?;
        load(&mut stage, ours)?;
        let PeerSide { started, missing } = stage.start_peer(row.peer.as_ref(), PORT)?;
        if let Some((number, name)) = started {
            load(&mut stage, number)?;
            sides.push(name);
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        let mut this = Self { stage, sides, run_dir, missing, quick };
        this.warm(ours)?;
        Ok(this)
    }

    /// Asks until the worker sees no request any more.
    fn warm(&mut self, ours: usize) -> anyhow::Result<()> {
        self.stage.only(ours);
        let start = Instant::now();
        let ask = Open { rate_per_s: RATE_PER_S, count: 2_000, mirrored: false };
        while start.elapsed() < WARM {
            let before = self.hot_hits()?;
            let side = self.stage.side(ours);
            ask.run(&mut side.wire, &side.flow, &mut HotGet)?.0.check("warming")?;
            if self.hot_hits()? - before == ask.count {
                return Ok(());
            }
        }
        anyhow::bail!("{KEYS} keys did not become hot within {WARM:?}")
    }

    /// Requests answered in XDP since the node started.
    fn hot_hits(&self) -> anyhow::Result<u64> {
        std::thread::sleep(COUNTED);
        let snapshot = Snapshot::take(&attach::attach(&self.run_dir)?.region);
        Ok(snapshot.metrics.counter(XDP_PACKETS.of(XdpVerdict::HotHit)))
    }
}

fn load(stage: &mut Stage, number: usize) -> anyhow::Result<()> {
    stage.only(number);
    stage.wait_ready(number, &mut HotSet, false)?;
    let window =
        Window { outstanding: 1, duration_ns: 5_000_000_000, count: KEYS, mirrored: false };
    let side = stage.side(number);
    let outcome = window.run(&mut side.wire, &side.flow, &mut HotSet)?;
    anyhow::ensure!(outcome.right == KEYS, "side {number} refused to store: {outcome:?}");
    Ok(())
}

fn key(index: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"md:hot:symbol-0000000000000000:b";
    let digits = format!("{:016}", index % KEYS);
    key[14..30].copy_from_slice(digits.as_bytes());
    key
}

fn value(index: u64) -> [u8; VALUE_BYTES] {
    let key = key(index);
    std::array::from_fn(|at| key[at % KEY_BYTES])
}

/// Stores the keys in turn.
struct HotSet;

impl Traffic for HotSet {
    fn request(&mut self, index: u64, slot: u16, payload: &mut [u8]) -> usize {
        header(slot, payload);
        let mut at = 8;
        for part in [b"set ", &key(index)[..], b" 0 0 64\r\n", &value(index), b"\r\n"] {
            payload[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        at
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let slot = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        Some((slot, payload.get(8..) == Some(b"STORED\r\n")))
    }
}

/// Asks for them in turn; which key an answer is for stands in it, and in its slot.
struct HotGet;

impl Traffic for HotGet {
    fn request(&mut self, index: u64, slot: u16, payload: &mut [u8]) -> usize {
        header(slot, payload);
        let text = &mut payload[8..8 + 6 + KEY_BYTES];
        text[..4].copy_from_slice(b"get ");
        text[4..4 + KEY_BYTES].copy_from_slice(&key(index));
        text[4 + KEY_BYTES..].copy_from_slice(b"\r\n");
        8 + 6 + KEY_BYTES
    }

    fn reply(&mut self, payload: &[u8]) -> Option<(u16, bool)> {
        let slot = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        // Slots count requests modulo a multiple of KEYS.
        let index = u64::from(slot);
        let text = payload.get(8..)?;
        let (key, value) = (key(index), value(index));
        let right = text.len() == 6 + KEY_BYTES + 7 + VALUE_BYTES + 7
            && text.starts_with(b"VALUE ")
            && text[6..6 + KEY_BYTES] == key
            && text[6 + KEY_BYTES..].starts_with(b" 0 64\r\n")
            && text[13 + KEY_BYTES..][..VALUE_BYTES] == value
            && text.ends_with(b"\r\nEND\r\n");
        Some((slot, right))
    }
}

impl Bench for A1 {
    fn sides(&self) -> Vec<String> {
        self.sides.clone()
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        (measure < 2 && self.sides.len() > 1).then_some(1)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        self.stage.only(side);
        let count = if self.quick { 15_000 } else { 40_000 };
        let open = Open { rate_per_s: RATE_PER_S, count, mirrored: false };
        let before = if side == 0 { self.hot_hits()? } else { 0 };
        let link = self.stage.side(side);
        let (outcome, latency) = open.run(&mut link.wire, &link.flow, &mut HotGet)?;
        outcome.check(&self.sides[side])?;
        let share = match side {
            0 => {
                let hits = self.hot_hits()? - before;
                let share = hits as f64 * 100.0 / outcome.sent as f64;
                eprintln!("A1: {hits} of {} requests were answered in XDP", outcome.sent);
                Some(share)
            }
            _ => None,
        };
        let at = |quantile: f64| Some(latency.value_at_quantile(quantile) as f64 / 1e3);
        Ok(Half {
            values: vec![at(0.5), at(0.99), share],
            held_share: outcome.held_share,
            lost: Some((outcome.lost, outcome.sent)),
            latency: Some(latency),
        })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_only_for_its_own_key() {
        let mut request = [0; 128];
        let length = HotGet.request(KEYS + 3, 3, &mut request);
        assert_eq!(&request[8..length], b"get md:hot:symbol-0000000000000003:b\r\n");
        let mut reply = vec![0, 3, 0, 0, 0, 1, 0, 0];
        reply.extend(b"VALUE md:hot:symbol-0000000000000003:b 0 64\r\n");
        reply.extend(b"md:hot:symbol-0000000000000003:b".repeat(2));
        reply.extend(b"\r\nEND\r\n");
        assert_eq!(HotGet.reply(&reply), Some((3, true)));
        reply[1] = 4;
        assert_eq!(HotGet.reply(&reply), Some((4, false)));
        let mut set = [0; 256];
        let length = HotSet.request(2, 0, &mut set);
        assert!(set[8..length].starts_with(b"set md:hot:symbol-0000000000000002:b 0 0 64\r\nmd:"));
        assert_eq!(HotSet.reply(b"\0\x05\0\0\0\x01\0\0STORED\r\n"), Some((5, true)));
    }
}
