//! C3: from the instant a packet of the venue is due to the instant its best bid can be read in shared
//! memory, 200,000 messages a second on both lines; ours, and our own code over spinning kernel sockets.

use hdrhistogram::Histogram;
use nautilus_dataplane::feed::moldudp64::Session;

use crate::clock::{GENERATOR_CORE, now_ns, pin};
use crate::generator::open::histogram;
use crate::generator::pacer::Pacer;
use crate::generator::packet::HEADER_BYTES;
use crate::lines::packets::Packets;
use crate::lines::waits::{Waits, p99_ns};
use crate::lines::{Lines, PACKETS_PER_S};
use crate::run::{Bench, Half};
use crate::stage::{self, Stage};

/// Packets before those that are timed: the books and the caches fill.
const WARM: u64 = 2_000;

/// How long what was sent may take to be seen after the last packet.
const TAIL_NS: u64 = 500_000_000;

/// The row.
pub struct C3 {
    stage: Stage,
    nodes: Vec<Lines>,
    packets: Packets,
    session: u64,
}

impl C3 {
    /// Starts both sides.
    pub fn set_up(quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut nodes = Vec::new();
        for kind in ["xdp", "socket"] {
            nodes.push(Lines::start(&mut stage, &supervisor, |file| file.port_kind = kind)?);
        }
        let seconds = if quick { 3 } else { 6 };
        let packets = Packets::generate(0xc3, (WARM + PACKETS_PER_S * seconds) as usize)?;
        pin(GENERATOR_CORE)?;
        Ok(Self { stage, nodes, packets, session: 0 })
    }

    /// Sends a session and times every packet of it.
    fn send(&mut self, side: usize) -> anyhow::Result<(Histogram<u64>, [Waits; 2], u64)> {
        let Self { stage, nodes, packets, session } = self;
        *session += 1;
        let mut name = *b"C300000000";
        name[2..].copy_from_slice(format!("{session:08}").as_bytes());
        let name = Session(name);
        let node = &mut nodes[side];
        stage.only(node.side);
        node.await_attached()?;
        let link = stage.side(node.side);
        link.wire.drain();
        let before = node.idle();
        let (mut latency, mut waits) = (histogram(), Waits::default());
        let pacer = Pacer::new(now_ns() + 1_000_000, PACKETS_PER_S, packets.count());
        let end_ns = pacer.due_ns(packets.count()) + TAIL_NS;
        // Packets sent, on the line that is next, and seen.
        let (mut sent, mut line, mut seen) = (0, 0, 0);
        while seen < packets.count() {
            let now = now_ns();
            if now > end_ns {
                break;
            }
            let due = pacer.due_count(now);
            while sent < due {
                let flow = &node.flows[line];
                let pushed = link.wire.push(|frame| {
                    let bytes = packets.write(name, sent, &mut frame[HEADER_BYTES..]);
                    flow.finish(frame, bytes)
                });
                if !pushed {
                    break;
                }
                line ^= 1;
                sent += u64::from(line == 0);
            }
            if link.wire.is_sending() {
                link.wire.flush()?;
            }
            let spin_ns = now_ns();
            if let Some(number) = node.seen() {
                let read_ns = now_ns();
                // A record of the session before is of a number that was not sent yet.
                while seen < sent && packets.sequence(seen + 1) <= number + 1 {
                    if seen >= WARM {
                        latency
                            .saturating_record(read_ns.saturating_sub(pacer.due_ns(seen)).max(1));
                    }
                    seen += 1;
                }
            }
            waits.turn(spin_ns, now_ns());
        }
        let waits = [waits, node.waits_since(&before)];
        Ok((latency, waits, packets.count() - seen))
    }
}

impl Bench for C3 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus xdp".into(), "spinning kernel-socket twin".into()]
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        (measure == 0).then_some(1)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        let (latency, [generator, worker], lost) = self.send(side)?;
        anyhow::ensure!(
            latency.len() > 10_000,
            "{} packets were seen, {lost} never were: the channel is not believed",
            latency.len()
        );
        let seen_ns = latency.value_at_quantile(0.99);
        let machine_ns = p99_ns(&[&generator, &worker]);
        let us = |ns: u64| Some(ns as f64 / 1_000.0);
        let values = match side {
            0 => vec![
                us(seen_ns),
                us(seen_ns.saturating_sub(machine_ns)),
                us(latency.value_at_quantile(0.5)),
                us(machine_ns),
            ],
            _ => vec![us(seen_ns)],
        };
        Ok(Half {
            values,
            held_share: generator.held_share() + worker.held_share(),
            latency: Some(latency),
            lost: Some((lost, self.packets.count())),
        })
    }
}
