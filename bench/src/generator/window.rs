//! A fixed number of requests outstanding: each answer is replaced by the next request.

use nautilus_tests::wire::Wire;

use super::packet::{Flow, HEADER_BYTES};
use super::{Outcome, Traffic};
use crate::clock::now_ns;
use crate::probe::Probe;

/// Requests go out in batches: one send call carries what one turn of the loop has freed.
const LOST_NS: u64 = 100_000_000;

/// A closed-loop run.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Requests outstanding, 1 to 1,024.
    pub outstanding: u16,
    /// Ends after this time ...
    pub duration_ns: u64,
    /// ... or after this many requests, whichever is first.
    pub count: u64,
    /// The server sends frames back with only the MACs swapped.
    pub mirrored: bool,
}

impl Window {
    /// Runs it. A request unanswered for 100 ms is lost; its slot is used again under the same
    /// number, so an answer later than that is counted for its successor.
    pub fn run(
        &self,
        wire: &mut Wire,
        flow: &Flow,
        traffic: &mut impl Traffic,
    ) -> anyhow::Result<Outcome> {
        let slots = usize::from(self.outstanding.clamp(1, 1_024));
        let mut sent_ns = vec![0u64; slots];
        let mut idle: Vec<u16> = (0..slots as u16).rev().collect();
        let mut outcome = Outcome::default();
        let mut probe = Probe::default();
        wire.drain();
        let start_ns = now_ns();
        let mut last_ns = start_ns;
        let mut look_ns = start_ns;
        loop {
            let before_ns = now_ns();
            let over = before_ns - start_ns >= self.duration_ns || outcome.sent >= self.count;
            while !over && outcome.sent < self.count {
                let Some(&slot) = idle.last() else { break };
                let pushed = wire.push(|frame| {
                    let bytes = traffic.request(outcome.sent, slot, &mut frame[HEADER_BYTES..]);
                    flow.finish(frame, bytes)
                });
                if !pushed {
                    break;
                }
                idle.pop();
                sent_ns[usize::from(slot)] = before_ns;
                outcome.sent += 1;
            }
            probe.turn(before_ns, now_ns());
            if wire.is_sending() {
                wire.flush()?;
            }
            let after_send_ns = now_ns();
            wire.receive(|frame| {
                let Some(payload) = flow.payload(frame, self.mirrored) else { return };
                let Some((slot, right)) = traffic.reply(payload) else { return };
                let Some(sent) = sent_ns.get_mut(usize::from(slot)) else { return };
                if std::mem::take(sent) == 0 {
                    return;
                }
                idle.push(slot);
                if right {
                    outcome.right += 1;
                } else {
                    outcome.wrong += 1;
                }
                last_ns = after_send_ns;
            });
            if after_send_ns - look_ns > LOST_NS / 4 {
                look_ns = after_send_ns;
                for (slot, sent) in sent_ns.iter_mut().enumerate() {
                    if *sent != 0 && after_send_ns.saturating_sub(*sent) > LOST_NS {
                        *sent = 0;
                        outcome.lost += 1;
                        idle.push(slot as u16);
                    }
                }
            }
            probe.turn(after_send_ns, now_ns());
            if over && idle.len() == slots {
                break;
            }
        }
        outcome.elapsed_ns = last_ns - start_ns;
        outcome.held_share = probe.held_share();
        Ok(outcome)
    }
}
