//! An open loop: requests at their due times, whatever happened to the ones before.

use hdrhistogram::Histogram;
use nautilus_tests::wire::Wire;

use super::pacer::Pacer;
use super::packet::{Flow, HEADER_BYTES};
use super::{Outcome, Traffic};
use crate::clock::now_ns;
use crate::probe::Probe;

/// Request numbers that can be outstanding: 16 bits on the wire (the memcached UDP request id).
const SLOTS: u64 = 1 << 16;

/// How long answers are waited for after the last request; what comes later is lost.
const TAIL_NS: u64 = 100_000_000;

/// An open-loop run.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Requests a second.
    pub rate_per_s: u64,
    /// Requests of the run.
    pub count: u64,
    /// The server sends frames back with only the MACs swapped.
    pub mirrored: bool,
}

/// A histogram for latencies: 1 ns to 10 s, three digits.
pub fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 10_000_000_000, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

impl Open {
    /// Runs it. Latencies count from the due time; a lost request is recorded with the time it was
    /// waited for, so that losing requests never makes a percentile better.
    pub fn run(
        &self,
        wire: &mut Wire,
        flow: &Flow,
        traffic: &mut impl Traffic,
    ) -> anyhow::Result<(Outcome, Histogram<u64>)> {
        let mut latency = histogram();
        let mut outcome = Outcome::default();
        let mut probe = Probe::default();
        // Index + 1 of the request whose answer a slot waits for; 0: none.
        let mut waiting = vec![0u64; SLOTS as usize];
        wire.drain();
        let start_ns = now_ns() + 1_000_000;
        let pacer = Pacer::new(start_ns, self.rate_per_s, self.count);
        let end_ns = pacer.due_ns(self.count) + TAIL_NS;
        loop {
            let now = now_ns();
            let due = pacer.due_count(now);
            while outcome.sent < due {
                let index = outcome.sent;
                let slot = (index % SLOTS) as u16;
                if std::mem::take(&mut waiting[usize::from(slot)]) != 0 {
                    outcome.lost += 1;
                    latency.saturating_record(now - pacer.due_ns(index - SLOTS));
                }
                let pushed = wire.push(|frame| {
                    let bytes = traffic.request(index, slot, &mut frame[HEADER_BYTES..]);
                    flow.finish(frame, bytes)
                });
                if !pushed {
                    break;
                }
                waiting[usize::from(slot)] = index + 1;
                outcome.sent += 1;
            }
            probe.turn(now, now_ns());
            if wire.is_sending() {
                wire.flush()?;
            }
            let spin_ns = now_ns();
            wire.receive(|frame| {
                let Some(payload) = flow.payload(frame, self.mirrored) else { return };
                let Some((slot, right)) = traffic.reply(payload) else { return };
                let index = match std::mem::take(&mut waiting[usize::from(slot)]) {
                    0 => return,
                    index => index - 1,
                };
                latency.saturating_record(now_ns().saturating_sub(pacer.due_ns(index)).max(1));
                if right {
                    outcome.right += 1;
                } else {
                    outcome.wrong += 1;
                }
            });
            let now = now_ns();
            probe.turn(spin_ns, now);
            let answered = outcome.right + outcome.wrong + outcome.lost;
            if (outcome.sent == self.count && answered == outcome.sent) || now > end_ns {
                break;
            }
        }
        let now = now_ns();
        for index in waiting.into_iter().filter(|&index| index != 0) {
            outcome.lost += 1;
            latency.saturating_record(now.saturating_sub(pacer.due_ns(index - 1)).max(1));
        }
        outcome.elapsed_ns = now - start_ns;
        outcome.held_share = probe.held_share();
        Ok((outcome, latency))
    }
}
