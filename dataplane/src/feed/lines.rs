//! What each line of a channel delivered, by message sequence number.
//!
//! ```text
//!             low                         high
//!   A  ...lost | 1 1 1 0 1 1 1 1 1 1 1 1 |        1: came on this line
//!   B  ...lost | 1 1 1 1 1 1 1 1 1 0 0 0 |
//!               at most WINDOW_MESSAGES
//! ```
//!
//! One bit a message and line. The window ends behind the highest number that any line has named and is
//! moved by that; a message is lost on a line when the window leaves it behind unseen, so one that
//! comes late is none. Owned by a channel, which feeds it the packets of its present session. No I/O, no
//! clock, nothing allocated after it was made.

/// Lines of one channel: A, B and C.
pub const LINES_MAX: usize = 3;

/// Message numbers in the window. Too low: what comes late counts as lost. Too high: memory, and a loss
/// is counted later. More than one packet can carry.
pub const WINDOW_MESSAGES: u64 = 1 << 16;

const WORDS: usize = (WINDOW_MESSAGES / 64) as usize;

/// What one line delivered. None is ever reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Messages received, each number once.
    pub received: u64,
    /// Messages that the window left behind without them, or that the session ended without. Wraps, as its
    /// metric does: two jumps of a peer that lies are more than a number holds.
    pub lost: u64,
    /// Messages received again on the same line.
    pub duplicates: u64,
    /// Messages that no other line had delivered before.
    pub first: u64,
    /// Packets that XDP dropped because all of their messages had been applied.
    pub dropped_packets: u64,
    /// Messages of those. They are counted above like all others.
    pub dropped_messages: u64,
}

impl LineCounts {
    /// Adds another channel's counts.
    pub fn add(&mut self, other: &Self) {
        // Without `..`: a new count cannot be forgotten here.
        let Self { received, lost, duplicates, first, dropped_packets, dropped_messages } = *other;
        self.received += received;
        self.lost = self.lost.wrapping_add(lost);
        self.duplicates += duplicates;
        self.first += first;
        self.dropped_packets += dropped_packets;
        self.dropped_messages += dropped_messages;
    }
}

struct Line {
    bits: Box<[u64; WORDS]>,
    counts: LineCounts,
}

/// The windows of all lines of one channel. Written by the worker that owns it.
pub struct LineWindows {
    lines: Vec<Line>,
    low: u64,
    high: u64,
    /// Where the session began to be judged.
    begun: u64,
}

impl LineWindows {
    /// Windows for so many lines, 1..=[`LINES_MAX`]. Panics on others.
    pub fn new(lines: usize) -> Self {
        assert!((1..=LINES_MAX).contains(&lines), "{lines} lines");
        let line = || Line { bits: Box::new([0; WORDS]), counts: LineCounts::default() };
        Self { lines: (0..lines).map(|_| line()).collect(), low: 1, high: 1, begun: 1 }
    }

    /// What each line delivered, in the order of the lines.
    pub fn counts(&self) -> impl Iterator<Item = &LineCounts> {
        self.lines.iter().map(|line| &line.counts)
    }

    /// A session begins whose first number of interest is `sequence`. What the lines still lack of the
    /// one before is lost: its packets count no more.
    pub fn begin(&mut self, sequence: u64) {
        self.leave_behind(self.high);
        (self.low, self.high, self.begun) = (sequence, sequence, sequence);
    }

    /// The session's first message has come on some line after later ones had on another: from there on
    /// every line is judged, unless that is further back than a window.
    fn begin_at_first(&mut self) {
        if self.low == self.begun && self.high - 1 <= WINDOW_MESSAGES {
            (self.low, self.begun) = (1, 1);
        }
    }

    /// A line has brought `sequence..next_sequence`, at most [`WINDOW_MESSAGES`]; a heartbeat brings
    /// nothing and names the next number. What lies before the window counts as nothing.
    pub fn note(&mut self, line: usize, sequence: u64, next_sequence: u64) {
        if sequence == 1 && self.begun != 1 && next_sequence > 1 {
            self.begin_at_first();
        }
        if next_sequence > self.high {
            self.leave_behind(next_sequence.saturating_sub(WINDOW_MESSAGES));
            self.high = next_sequence;
        }
        for (word, mask) in words(sequence.max(self.low), next_sequence) {
            let others = self.lines.iter().enumerate().filter(|(other, _)| *other != line);
            let others = others.fold(0, |seen, (_, other)| seen | other.bits[word]);
            let Some(Line { bits, counts }) = self.lines.get_mut(line) else { return };
            let fresh = mask & !bits[word];
            bits[word] |= mask;
            counts.received += u64::from(fresh.count_ones());
            counts.duplicates += u64::from((mask & !fresh).count_ones());
            counts.first += u64::from((fresh & !others).count_ones());
        }
    }

    /// The same of a packet that came no further than XDP.
    pub fn note_dropped(&mut self, line: usize, sequence: u64, next_sequence: u64) {
        self.note(line, sequence, next_sequence);
        let Some(Line { counts, .. }) = self.lines.get_mut(line) else { return };
        counts.dropped_packets += 1;
        counts.dropped_messages += next_sequence.saturating_sub(sequence);
    }

    /// Moves the lower end up. Bits outside the window are 0.
    fn leave_behind(&mut self, low: u64) {
        if low <= self.low {
            return;
        }
        let seen_end = low.min(self.high);
        for Line { bits, counts } in &mut self.lines {
            for (word, mask) in words(self.low, seen_end) {
                counts.lost = counts.lost.wrapping_add((mask & !bits[word]).count_ones().into());
                bits[word] &= !mask;
            }
            // A jump further than the window: numbers that were never in it.
            counts.lost = counts.lost.wrapping_add(low - seen_end);
        }
        self.low = low;
    }
}

/// The words of the numbers `from..to`, each with the bits that are meant.
fn words(from: u64, to: u64) -> impl Iterator<Item = (usize, u64)> {
    let mut next = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(next).filter(|left| *left > 0)?;
        let bit = next % 64;
        let bits = left.min(64 - bit);
        let word = (next / 64) as usize % WORDS;
        next += bits;
        Some((word, (u64::MAX >> (64 - bits)) << bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: usize = 0;
    const B: usize = 1;

    fn counts(windows: &LineWindows, line: usize) -> (u64, u64, u64, u64) {
        let counts = windows.counts().nth(line).unwrap();
        (counts.received, counts.lost, counts.duplicates, counts.first)
    }

    #[test]
    fn who_is_first_who_repeats_and_who_is_late() {
        let mut windows = LineWindows::new(2);
        windows.begin(1);
        windows.note(A, 1, 11);
        windows.note(B, 1, 6);
        windows.note(B, 1, 6);
        windows.note(B, 11, 13);
        windows.note(A, 11, 12);
        assert_eq!(counts(&windows, A), (11, 0, 0, 10));
        assert_eq!(counts(&windows, B), (7, 0, 5, 2));
        windows.note(B, 6, 11);
        assert_eq!(counts(&windows, B), (12, 0, 5, 2), "late is not lost");
        windows.begin(1);
        assert_eq!(counts(&windows, A), (11, 1, 0, 10), "12 came on B alone");
        assert_eq!(counts(&windows, B), (12, 0, 5, 2));
    }

    #[test]
    fn what_a_line_lost_of_the_beginning_counts_once_another_brings_it() {
        let mut windows = LineWindows::new(2);
        windows.begin(14);
        windows.note(A, 14, 20);
        windows.note(B, 1, 14);
        windows.note(B, 14, 20);
        windows.begin(1);
        assert_eq!(counts(&windows, A), (6, 13, 0, 6));
        assert_eq!(counts(&windows, B), (19, 0, 0, 13));
        // Not when it is too far back, or when the window has moved on.
        windows.begin(2 + WINDOW_MESSAGES);
        windows.note(B, 1, 14);
        windows.begin(2);
        windows.note(A, 3 + WINDOW_MESSAGES, 3 + WINDOW_MESSAGES);
        windows.note(B, 1, 3);
        assert_eq!(counts(&windows, B).0, 19);
    }

    #[test]
    fn a_message_is_lost_when_the_window_has_passed_it() {
        let mut windows = LineWindows::new(2);
        windows.begin(5);
        windows.note(A, 5, 6);
        windows.note(A, 7, 8);
        windows.note(A, 6 + WINDOW_MESSAGES, 6 + WINDOW_MESSAGES);
        assert_eq!((counts(&windows, A).1, counts(&windows, B).1), (0, 1), "5 is left behind");
        windows.note(A, 7 + WINDOW_MESSAGES, 7 + WINDOW_MESSAGES);
        assert_eq!((counts(&windows, A).1, counts(&windows, B).1), (1, 2), "6 is left behind");
        windows.note(B, 5, 8);
        assert_eq!(counts(&windows, B), (1, 2, 0, 0), "only 7 is in the window");
    }

    #[test]
    fn numbers_next_to_the_last_and_jumps_cost_no_loop() {
        let mut windows = LineWindows::new(3);
        windows.begin(1);
        windows.note(A, 1, 2);
        windows.note(B, u64::MAX - 3, u64::MAX);
        let behind = u64::MAX - WINDOW_MESSAGES - 1;
        assert_eq!(counts(&windows, A), (1, behind - 1, 0, 1));
        assert_eq!(counts(&windows, B), (3, behind, 0, 3));
        windows.begin(u64::MAX);
        assert_eq!(counts(&windows, B).1, u64::MAX - 1 - 3);
        windows.note(B, u64::MAX, u64::MAX);
        assert_eq!(counts(&windows, B).0, 3);
    }

    /// The same in sets of numbers.
    #[derive(Default)]
    struct Model {
        seen: Vec<BTreeSet<u64>>,
        counts: Vec<LineCounts>,
        base: u64,
        high: u64,
    }

    impl Model {
        fn low(&self) -> u64 {
            self.base.max(self.high.saturating_sub(WINDOW_MESSAGES))
        }

        fn note(&mut self, line: usize, numbers: std::ops::Range<u64>) {
            self.high = self.high.max(numbers.end);
            for number in numbers.start.max(self.low())..numbers.end {
                let elsewhere = self.seen.iter().any(|seen| seen.contains(&number));
                let counts = &mut self.counts[line];
                if self.seen[line].insert(number) {
                    counts.received += 1;
                    counts.first += u64::from(!elsewhere);
                } else {
                    counts.duplicates += 1;
                }
            }
        }

        fn lost(&self, line: usize) -> u64 {
            let behind = self.base..self.low();
            let width = behind.end - behind.start;
            width - self.seen[line].range(behind).count() as u64
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_bits_agree_with_sets_of_numbers(
            base in prop_oneof![Just(1u64), Just(1 << 40)],
            steps in prop::collection::vec((0usize..3, 0u64..200_000, 0u64..2_000), 1..60),
        ) {
            let mut windows = LineWindows::new(3);
            windows.begin(base);
            let mut model = Model { base, high: base, ..Model::default() };
            model.seen.resize_with(3, BTreeSet::new);
            model.counts.resize(3, LineCounts::default());
            // Mostly forwards, with looks back over more than a window.
            let mut at = base;
            for (line, jump, count) in steps {
                at = match jump % 4 {
                    0 => at.saturating_sub(jump).max(base),
                    1 => at + jump / 8,
                    _ => at + jump % 64,
                };
                windows.note(line, at, at + count);
                model.note(line, at..at + count);
                for (line, counts) in windows.counts().enumerate() {
                    let expected = LineCounts { lost: model.lost(line), ..model.counts[line] };
                    prop_assert_eq!(*counts, expected, "line {}", line);
                }
                at += count;
            }
            windows.begin(1);
            for counts in windows.counts() {
                // What lies before the window when it comes is lost already.
                prop_assert_eq!(counts.received + counts.lost, model.high - base);
            }
        }
    }
}
