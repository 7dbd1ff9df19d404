//! Packets that wait: who leaves when, and behind whom.
//!
//! ```text
//!   accept ──► delayed: due = came + delay + drawn, never before the line's last
//!          └─► reordered: aside, until `distance` later ones of its line are due ── then right behind those
//!   take_due(now) ◄── by due time, then by the order they were given one
//! ```
//!
//! A pure machine: the clock is its caller's, and no packet is looked into. What leaves is counted here.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde::Deserialize;

use super::counts::Held;

/// How the variable part of a delay is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JitterShape {
    /// Any time below the jitter is as likely as any other.
    #[default]
    Uniform,
    /// The jitter is the mean; short ones are more likely, and a few are long.
    Exponential,
}

/// How long a line's packets wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldRules {
    /// Each of them.
    pub delay_ns: u64,
    /// What is drawn on top.
    pub jitter_ns: u64,
    /// How it is drawn.
    pub shape: JitterShape,
    /// Later packets that overtake a reordered one.
    pub distance: u32,
    /// Longest wait for them, beside the delay.
    pub reorder_hold_ns: u64,
}

impl HoldRules {
    /// The whole delay of a packet for which `drawn` was drawn.
    fn delay_ns(&self, drawn: u64) -> u64 {
        let jitter_ns = match self.shape {
            JitterShape::Uniform => ((u128::from(drawn) * u128::from(self.jitter_ns)) >> 64) as u64,
            JitterShape::Exponential => {
                // Never 0, so that the logarithm is a number: 37 times the mean at the most.
                let chance = ((drawn >> 11) + 1) as f64 / (1u64 << 53) as f64;
                (-chance.ln() * self.jitter_ns as f64) as u64
            }
        };
        self.delay_ns + jitter_ns
    }
}

/// A packet that came to be held.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its line.
    pub line: usize,
    /// When it came, nanoseconds of the caller's clock.
    pub rx_ns: u64,
    /// Drawn for its delay.
    pub jitter: u64,
    /// Others are to overtake it.
    pub is_reordered: bool,
    /// It leaves twice.
    pub is_duplicated: bool,
    /// The whole frame.
    pub frame: &'a [u8],
}

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    line: usize,
    rx_ns: u64,
    copies: u32,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Due {
    due_ns: u64,
    /// Given out one after another: who is due at the same time leaves in this order.
    order: u64,
    packet: Packet,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due_ns, self.order).cmp(&(other.due_ns, other.order))
    }
}

/// A reordered packet that waits for others.
#[derive(Debug)]
struct Aside {
    to_pass: u32,
    deadline_ns: u64,
    packet: Packet,
}

#[derive(Debug)]
struct Line {
    rules: HoldRules,
    last_due_ns: u64,
    aside: Vec<Aside>,
    accepted: u64,
    held: Held,
}

/// All packets that wait.
#[derive(Debug)]
pub struct Hold {
    lines: Vec<Line>,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    waiting: usize,
    room: usize,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

impl Hold {
    /// For lines with these rules, and so many packets at a time.
    pub fn new(rules: impl IntoIterator<Item = HoldRules>, room: usize) -> Self {
        let line = |rules| Line {
            rules,
            last_due_ns: 0,
            aside: Vec::new(),
            accepted: 0,
            held: Held::default(),
        };
        Self {
            lines: rules.into_iter().map(line).collect(),
            due: BinaryHeap::new(),
            order: 0,
            waiting: 0,
            room,
            spare: Vec::new(),
        }
    }

    /// Takes a packet in. One that finds no room is dropped and counted, as one of no line is dropped.
    pub fn accept(&mut self, arrival: &Arrival<'_>) {
        let Some(line) = self.lines.get_mut(arrival.line) else { return };
        if self.waiting == self.room {
            line.held.full += 1;
            return;
        }
        self.waiting += 1;
        line.accepted += 1;
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.extend_from_slice(arrival.frame);
        let copies = 1 + u32::from(arrival.is_duplicated);
        let packet = Packet { line: arrival.line, rx_ns: arrival.rx_ns, copies, frame };
        let due_ns = arrival.rx_ns.saturating_add(line.rules.delay_ns(arrival.jitter));
        if arrival.is_reordered {
            let deadline_ns = due_ns.saturating_add(line.rules.reorder_hold_ns);
            line.aside.push(Aside { to_pass: line.rules.distance, deadline_ns, packet });
            return;
        }
        schedule(line, &mut self.due, &mut self.order, due_ns, packet);
        for aside in &mut line.aside {
            aside.to_pass -= 1;
        }
        let passed = line.aside.extract_if(.., |aside| aside.to_pass == 0).collect::<Vec<_>>();
        for Aside { packet, .. } in passed {
            line.held.reordered += 1;
            schedule(line, &mut self.due, &mut self.order, due_ns, packet);
        }
    }

    /// When something has to be done; None while nothing waits.
    pub fn next_ns(&self) -> Option<u64> {
        let due = self.due.peek().map(|Reverse(due)| due.due_ns);
        let aside = self.lines.iter().flat_map(|line| &line.aside).map(|aside| aside.deadline_ns);
        due.into_iter().chain(aside).min()
    }

    /// Hands the packets that are due at `now_ns` to `send`, in order, until it says that it has no room for
    /// one: that one stays the next.
    pub fn release(&mut self, now_ns: u64, mut send: impl FnMut(usize, &[u8]) -> bool) {
        self.expire(now_ns);
        while let Some(mut next) = self.due.peek_mut() {
            let Reverse(Due { due_ns, packet, .. }) = &mut *next;
            if *due_ns > now_ns {
                return;
            }
            let line = packet.line;
            while packet.copies > 0 {
                if !send(line, &packet.frame) {
                    return;
                }
                packet.copies -= 1;
                let held = &mut self.lines[line].held;
                held.copies += 1;
            }
            let Reverse(Due { packet, .. }) = std::collections::binary_heap::PeekMut::pop(next);
            self.lines[line].held.leave(now_ns.saturating_sub(packet.rx_ns));
            self.waiting -= 1;
            let mut frame = packet.frame;
            frame.clear();
            self.spare.push(frame);
        }
    }

    /// Makes everything that waits due at once, in the order it would have left.
    pub fn hurry(&mut self) {
        self.expire(u64::MAX);
        let mut all: Vec<Due> = self.due.drain().map(|Reverse(due)| due).collect();
        all.sort();
        let hurried = all.into_iter().enumerate();
        self.due.extend(
            hurried.map(|(order, due)| Reverse(Due { due_ns: 0, order: order as u64, ..due })),
        );
    }

    /// Packets that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Packets of a line that wait.
    pub fn waiting_of(&self, line: usize) -> u64 {
        let held = self.lines[line].held;
        self.lines[line].accepted - held.left
    }

    /// What became of a line's packets.
    pub fn held(&self, line: usize) -> Held {
        self.lines[line].held
    }

    /// Lets go of reordered packets whose time is over.
    fn expire(&mut self, now_ns: u64) {
        for line in &mut self.lines {
            let over =
                line.aside.extract_if(.., |aside| aside.deadline_ns <= now_ns).collect::<Vec<_>>();
            for Aside { to_pass, deadline_ns, packet } in over {
                line.held.reordered += u64::from(to_pass < line.rules.distance);
                schedule(line, &mut self.due, &mut self.order, deadline_ns, packet);
            }
        }
    }
}

fn schedule(
    line: &mut Line,
    due: &mut BinaryHeap<Reverse<Due>>,
    order: &mut u64,
    due_ns: u64,
    packet: Packet,
) {
    line.last_due_ns = line.last_due_ns.max(due_ns);
    *order += 1;
    due.push(Reverse(Due { due_ns: line.last_due_ns, order: *order, packet }));
}

#[cfg(test)]
mod tests;
