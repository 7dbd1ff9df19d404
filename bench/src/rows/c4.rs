//! C4: a hole of 100,000 messages on both lines, asked for and filled while the lines go on at 200,000
//! messages a second.

use nautilus_dataplane::feed::moldudp64::{REQUEST_BYTES, Session};

use crate::clock::{GENERATOR_CORE, now_ns, pin};
use crate::generator::pacer::Pacer;
use crate::generator::packet::{Flow, HEADER_BYTES};
use crate::lines::packets::Packets;
use crate::lines::{Lines, PACKETS_PER_S};
use crate::probe::Probe;
use crate::run::{Bench, Half};
use crate::stage::{self, Stage};

/// Messages that no line brings.
const HOLE_MESSAGES: u64 = 100_000;

/// Packets before the hole, and after it.
const BEFORE: u64 = PACKETS_PER_S / 2;
const AFTER: u64 = 3 * PACKETS_PER_S;

/// Requests that are answered between two looks at the clock.
const ANSWERS: usize = 64;

/// The row.
pub struct C4 {
    stage: Stage,
    node: Lines,
    packets: Packets,
    session: u64,
}

/// What came of one hole.
struct Healed {
    /// From the first packet behind the hole until the record is that of the present again.
    healed_ns: u64,
    requests: u64,
    probe: Probe,
}

impl C4 {
    /// Starts the node.
    pub fn set_up() -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let node = Lines::start(&mut stage, &supervisor, |_| {})?;
        let hole_packets = HOLE_MESSAGES / 8;
        let packets = Packets::generate(0xc4, (BEFORE + hole_packets + AFTER) as usize)?;
        pin(GENERATOR_CORE)?;
        Ok(Self { stage, node, packets, session: 0 })
    }

    fn heal(&mut self) -> anyhow::Result<Healed> {
        let Self { stage, node, packets, session } = self;
        *session += 1;
        let mut name = *b"C400000000";
        name[2..].copy_from_slice(format!("{session:08}").as_bytes());
        let name = Session(name);
        stage.only(node.side);
        node.await_attached()?;
        let link = stage.side(node.side);
        link.wire.drain();
        // The first packet behind the hole.
        let hole_end = packets.sequence(BEFORE) + HOLE_MESSAGES;
        let behind = (BEFORE..packets.count()).find(|index| packets.sequence(*index) >= hole_end);
        let behind = behind.ok_or_else(|| anyhow::anyhow!("the session ends inside the hole"))?;
        let skipped = behind - BEFORE;
        let count = packets.count() - skipped;
        let pacer = Pacer::new(now_ns() + 1_000_000, PACKETS_PER_S, count);
        let (mut sent, mut line, mut requests) = (0, 0, 0);
        let (mut before, mut since_ns) = (false, None);
        let mut probe = Probe::default();
        let mut wanted: Vec<(u64, u16)> = Vec::new();
        loop {
            let now = now_ns();
            let due = pacer.due_count(now);
            while sent < due {
                let index = if sent < BEFORE { sent } else { sent + skipped };
                let flow = &node.flows[line];
                let pushed = link.wire.push(|frame| {
                    let bytes = packets.write(name, index, &mut frame[HEADER_BYTES..]);
                    flow.finish(frame, bytes)
                });
                if !pushed {
                    break;
                }
                if sent == BEFORE {
                    since_ns.get_or_insert(now);
                }
                line ^= 1;
                sent += u64::from(line == 0);
            }
            let replies = &node.replies;
            link.wire.receive(|frame| wanted.extend(request(replies, name, frame)));
            requests += wanted.len() as u64;
            for (sequence, asked) in wanted.drain(..).take(ANSWERS) {
                link.wire.push(|frame| {
                    let bytes = packets.answer(name, sequence, asked, &mut frame[HEADER_BYTES..]);
                    replies.finish(frame, bytes)
                });
            }
            if link.wire.is_sending() {
                link.wire.flush()?;
            }
            let spin_ns = now_ns();
            let seen = node.seen();
            let after_ns = now_ns();
            probe.turn(spin_ns, after_ns);
            match (seen, since_ns) {
                (Some(number), None) => before |= number < packets.sequence(BEFORE + 1),
                (Some(number), Some(since_ns)) if number >= packets.sequence(behind + 1) - 1 => {
                    anyhow::ensure!(before, "the session was not believed before the hole");
                    return Ok(Healed { healed_ns: after_ns - since_ns, requests, probe });
                }
                _ => {}
            }
            anyhow::ensure!(sent < count, "the hole was still open after {requests} requests");
        }
    }
}

/// What a frame asks for, if it is a request of this session.
fn request(replies: &Flow, session: Session, frame: &[u8]) -> Option<(u64, u16)> {
    let payload: &[u8; REQUEST_BYTES] = replies.payload(frame, false)?.try_into().ok()?;
    let (name, rest) = payload.split_first_chunk::<10>()?;
    let (sequence, count) = rest.split_first_chunk::<8>()?;
    let count = u16::from_be_bytes(*count.first_chunk()?);
    (*name == session.0).then_some((u64::from_be_bytes(*sequence), count))
}

impl Bench for C4 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus xdp".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        let Healed { healed_ns, requests, probe } = self.heal()?;
        let values = vec![Some(healed_ns as f64 / 1_000_000.0), Some(requests as f64)];
        Ok(Half { values, held_share: probe.held_share(), ..Half::default() })
    }
}
