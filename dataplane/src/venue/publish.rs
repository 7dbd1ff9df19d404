//! The publisher: the day's messages as packets, in time, over all lines.

use super::engine::Tape;
use super::lines::Lines;
use super::shared::Shared;
use crate::feed::pack::{Due, MessageTooLong, Packetiser};
use crate::replay::pace::Schedule;
use std::time::Duration;

/// Shorter waits are not slept: a timer would be later than that anyway.
const SLEEP_MIN: Duration = Duration::from_micros(60);

/// Between two announcements of the end of the session.
const END_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at whether the day is to end now.
const HURRY_INTERVAL: Duration = Duration::from_millis(20);

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishCounts {
    /// Messages.
    pub messages: u64,
    /// Packets that held them, each counted once for all lines.
    pub packets: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Announcements of the end of the session.
    pub ends: u64,
}

/// One day on its way out.
pub struct Publisher<'a> {
    shared: &'a Shared,
    lines: Lines,
    packets: Packetiser,
    counts: PublishCounts,
}

impl<'a> Publisher<'a> {
    /// A publisher that has sent nothing.
    pub fn new(shared: &'a Shared, lines: Lines, packets: Packetiser) -> Self {
        Self { shared, lines, packets, counts: PublishCounts::default() }
    }

    /// Sends heartbeats for a time, in which receivers may join.
    pub fn wait(&mut self, time: Duration) {
        let until_ns = self.shared.now_ns() + time.as_nanos() as u64;
        // One at once: a receiver knows the session before its first message.
        let heartbeat = self.packets.packer().heartbeat();
        self.lines.send(&heartbeat);
        self.counts.heartbeats += 1;
        self.sleep_until(until_ns);
    }

    /// Publishes the day as `schedule` has it, whose start is now.
    pub fn publish(&mut self, mut schedule: Schedule) -> Result<(), MessageTooLong> {
        let start_ns = self.shared.now_ns();
        let mut tape = Tape::default();
        loop {
            let (goes_on, stamp_ns, before) = {
                let mut state = self.shared.write();
                let before = state.day().sent();
                (state.step(&mut tape), state.day().now().0, before)
            };
            if !goes_on || self.shared.is_hurried() {
                break;
            }
            let due = schedule.due(stamp_ns, before);
            self.sleep_until(start_ns + due.as_nanos() as u64);
            for message in tape.messages() {
                let now_ns = self.shared.now_ns();
                if let Some(due) = self.packets.push(message, now_ns)? {
                    send(&mut self.lines, &mut self.counts, due);
                }
            }
            self.poll();
        }
        if let Some(due) = self.packets.flush(self.shared.now_ns()) {
            send(&mut self.lines, &mut self.counts, due);
        }
        Ok(())
    }

    /// Announces the end of the session at once and then every second for `time`, in which the servers
    /// still answer. Returns what was done, and how many packets a line did not take.
    pub fn end(mut self, time: Duration) -> (PublishCounts, u64) {
        let end = self.packets.packer().end_of_session();
        let until_ns = self.shared.now_ns() + time.as_nanos() as u64;
        let mut next_ns = 0;
        loop {
            let now_ns = self.shared.now_ns();
            if now_ns >= next_ns {
                self.lines.send(&end);
                self.counts.ends += 1;
                next_ns = now_ns + END_INTERVAL.as_nanos() as u64;
            }
            if now_ns >= until_ns || self.shared.is_hurried() {
                return (self.counts, self.lines.failures());
            }
            std::thread::sleep(HURRY_INTERVAL.min(Duration::from_nanos(until_ns - now_ns)));
        }
    }

    fn poll(&mut self) {
        if let Some(due) = self.packets.poll(self.shared.now_ns()) {
            send(&mut self.lines, &mut self.counts, due);
        }
    }

    /// Waits, and sends what falls due meanwhile.
    fn sleep_until(&mut self, until_ns: u64) {
        loop {
            let now_ns = self.shared.now_ns();
            if now_ns >= until_ns || self.shared.is_hurried() {
                return;
            }
            self.poll();
            let next_ns = until_ns.min(self.packets.due_ns());
            let rest = Duration::from_nanos(next_ns.saturating_sub(self.shared.now_ns()));
            if rest > SLEEP_MIN {
                std::thread::sleep((rest - SLEEP_MIN).min(HURRY_INTERVAL));
            } else {
                std::thread::yield_now();
            }
        }
    }
}

fn send(lines: &mut Lines, counts: &mut PublishCounts, due: Due<'_>) {
    lines.send(due.payload());
    match due {
        Due::Messages(count, _) => {
            counts.packets += 1;
            counts.messages += u64::from(count);
        }
        Due::Heartbeat(_) => counts.heartbeats += 1,
    }
}
