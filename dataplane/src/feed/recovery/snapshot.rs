//! When a snapshot is asked for, which one it is, and when it is given up.
//!
//! ```text
//!   idle -- wanted --> asked (attempt n) -- begins --> loading -- ends --> idle
//!    ^                      |  silent for too long, failed, malformed          |
//!    +-- after a pause -----+--------------------------------------------------+
//! ```
//!
//! The snapshot itself is fetched by the front and comes in pieces that name their attempt; a piece of
//! another attempt is of an answer that nobody waits for any more. Owned by a channel's recovery.

/// How long a snapshot may be silent. Too low: a busy server is given up. Too high: a dead one is believed.
const SILENCE_NS_MAX: u64 = 5_000_000_000;

/// The first pause after one that failed; it doubles up to the last.
const PAUSE_NS_MIN: u64 = 100_000_000;
const PAUSE_NS_MAX: u64 = 30_000_000_000;

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Asked,
    Loading,
}

/// The attempts of one channel.
#[derive(Debug)]
pub struct Snapshots {
    state: State,
    attempt: u64,
    heard_ns: u64,
    pause_ns: u64,
    not_before_ns: u64,
}

impl Snapshots {
    /// None was asked for. Attempts are numbered so that no worker before, of a lower generation, had one of
    /// the same number.
    pub fn new(generation: u64) -> Self {
        Self {
            state: State::Idle,
            attempt: generation << 32,
            heard_ns: 0,
            pause_ns: PAUSE_NS_MIN,
            not_before_ns: 0,
        }
    }

    /// Whether one is being taken.
    pub fn is_open(&self) -> bool {
        self.state != State::Idle
    }

    /// The attempt that somebody is to fetch, until it begins.
    pub fn wanted(&self) -> Option<u64> {
        (self.state == State::Asked).then_some(self.attempt)
    }

    /// Asks for one, unless the last one failed a short time ago. Returns whether it did.
    pub fn ask(&mut self, now_ns: u64) -> bool {
        if self.is_open() || now_ns < self.not_before_ns {
            return false;
        }
        self.attempt += 1;
        self.state = State::Asked;
        self.heard_ns = now_ns;
        true
    }

    /// A piece of an attempt has come; `false` for one that nobody waits for.
    pub fn hear(&mut self, attempt: u64, now_ns: u64) -> bool {
        let is_ours = self.is_open() && attempt == self.attempt;
        if is_ours {
            self.heard_ns = now_ns;
        }
        is_ours
    }

    /// The first piece has come: from here on the books are being made anew.
    pub fn begin(&mut self) {
        self.state = State::Loading;
    }

    /// Whether [`Self::begin`] was called.
    pub fn is_loading(&self) -> bool {
        self.state == State::Loading
    }

    /// Whether an attempt has been silent for too long.
    pub fn is_silent(&self, now_ns: u64) -> bool {
        self.is_open() && now_ns.saturating_sub(self.heard_ns) > SILENCE_NS_MAX
    }

    /// How long the next one waits after another failure.
    pub fn pause_ns(&self) -> u64 {
        self.pause_ns
    }

    /// The attempt has failed.
    pub fn fail(&mut self, now_ns: u64) {
        self.state = State::Idle;
        self.not_before_ns = now_ns.saturating_add(self.pause_ns);
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_NS_MAX);
    }

    /// The snapshot is in the books. If what follows it is not to be had, the next one waits as after a
    /// failure, but for the first pause.
    pub fn end(&mut self, now_ns: u64) {
        self.state = State::Idle;
        self.not_before_ns = now_ns.saturating_add(PAUSE_NS_MIN);
    }

    /// The channel is exact again: what fails from here on is another matter.
    pub fn settle(&mut self) {
        self.pause_ns = PAUSE_NS_MIN;
    }

    /// What was asked for is wanted no more.
    pub fn forget(&mut self) {
        self.state = State::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_wanted_until_it_begins_and_none_twice() {
        let mut snapshots = Snapshots::new(3);
        assert_eq!(snapshots.wanted(), None);
        assert!(snapshots.ask(10));
        let attempt = snapshots.wanted().unwrap();
        assert_eq!(attempt >> 32, 3, "no worker of another generation has it");
        assert!(!snapshots.ask(11), "one at a time");
        assert!(!snapshots.hear(attempt - 1, 12) && snapshots.hear(attempt, 12));
        snapshots.begin();
        assert_eq!((snapshots.wanted(), snapshots.is_loading()), (None, true));
        snapshots.end(13);
        assert!(!snapshots.is_open() && !snapshots.hear(attempt, 14), "it is over");
        assert!(!snapshots.ask(14), "not at once again");
        assert!(snapshots.ask(13 + PAUSE_NS_MIN));
        assert_eq!(snapshots.wanted(), Some(attempt + 1));
    }

    #[test]
    fn pauses_grow_while_attempts_fail_and_are_short_again_afterwards() {
        let mut snapshots = Snapshots::new(1);
        let (mut now_ns, mut pauses_ns) = (0, Vec::new());
        for _ in 0..12 {
            assert!(snapshots.ask(now_ns));
            snapshots.fail(now_ns);
            let failed_ns = now_ns;
            while !snapshots.ask(now_ns) {
                now_ns += PAUSE_NS_MIN / 2;
            }
            pauses_ns.push(now_ns - failed_ns);
            snapshots.forget();
        }
        assert_eq!(pauses_ns[..3], [1, 2, 4].map(|pauses| pauses * PAUSE_NS_MIN));
        assert_eq!(pauses_ns[11], PAUSE_NS_MAX);
        snapshots.settle();
        snapshots.fail(now_ns);
        assert!(snapshots.ask(now_ns + PAUSE_NS_MIN));
    }

    #[test]
    fn silence_counts_from_what_was_heard_last() {
        let mut snapshots = Snapshots::new(1);
        assert!(!snapshots.is_silent(u64::MAX), "nothing is waited for");
        snapshots.ask(100);
        assert!(!snapshots.is_silent(100 + SILENCE_NS_MAX));
        assert!(snapshots.is_silent(101 + SILENCE_NS_MAX));
        let attempt = snapshots.wanted().unwrap();
        snapshots.hear(attempt, 101 + SILENCE_NS_MAX);
        assert!(!snapshots.is_silent(101 + 2 * SILENCE_NS_MAX));
    }
}
