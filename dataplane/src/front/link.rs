//! The way to the worker and back: commands out, answers in.
//!
//! ```text
//!   forward -> request ring          outstanding: sequence, position, connection   (oldest first)
//!   poll    <- answer ring: an answer ends the oldest one; "taken up to here" by a new worker ends
//!              every older one with an unknown outcome, the younger ones are still to be executed
//! ```
//!
//! Nothing is sent twice. Producer of the request ring, consumer of the answer ring, writer and reader of
//! the wake descriptor.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::front_region::{
    ANSWER_BYTES_MAX, ANSWER_HEADER_BYTES, Answer, FRONT_RING_WORDS, FrontRegion, RequestHeader,
    SnapshotMessage, books_wanted, request_tag,
};
use nautilus_shm::message_ring::{MessageConsumer, MessageProducer};
use nix::unistd::{read, write};

use crate::feed::moldudp64::Session;

/// Commands at the worker at once. Too low: connections wait for room. Too high: memory.
const OUTSTANDING_MAX: usize = 8192;

/// Which cache a command is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its place.
    pub place: u32,
    /// Its generation: a place that is used again has another.
    pub generation: u32,
}

/// A snapshot that a worker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Number of the channel.
    pub channel: u8,
    /// Which attempt it is.
    pub attempt: u64,
    /// The session it is to be of.
    pub session: Session,
}

/// What a worker says of its feeds.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// It wants a snapshot.
    Wanted(Wanted),
    /// A piece of the books that it was asked for.
    Books(SnapshotMessage<'a>),
    /// Some of that may be lost: it died, or the ring was damaged.
    BooksLost,
}

/// A command that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    sequence: u64,
    /// Of the request ring, behind the command.
    position: u64,
    connection: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Commands handed over.
    pub forwarded: u64,
    /// Commands whose outcome is unknown.
    pub unknown: u64,
    /// Answers that nobody waits for.
    pub stale: u64,
    /// Times the worker was woken.
    pub wakes: u64,
}

/// The front's ends of both rings.
pub struct Link<'a> {
    region: &'a FrontRegion,
    requests: MessageProducer<'a, FRONT_RING_WORDS>,
    answers: MessageConsumer<'a, FRONT_RING_WORDS>,
    generation: u64,
    outstanding: VecDeque<Outstanding>,
    scratch: Box<[u8]>,
    /// Counts up when the worker is to wake (eventfd); the front itself takes it down again.
    wake: OwnedFd,
    waking: bool,
    pushed: bool,
    counts: LinkCounts,
}

impl<'a> Link<'a> {
    /// Takes both ends over from a dead front of a lower generation.
    pub fn new(region: &'a FrontRegion, wake: OwnedFd, generation: u64) -> Self {
        let mut this = Self {
            region,
            requests: region.requests().producer(generation),
            answers: region.answers().consumer(),
            generation,
            outstanding: VecDeque::new(),
            scratch: vec![0; ANSWER_HEADER_BYTES + ANSWER_BYTES_MAX].into(),
            wake,
            waking: true,
            pushed: false,
            counts: LinkCounts::default(),
        };
        // A front that died may have left the worker unable to sleep.
        this.settle();
        this
    }

    /// What was counted since it was made.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Commands that wait for the worker.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Hands a command over, with what its source may do; `false` when there is no room.
    pub fn forward(
        &mut self,
        target: Target,
        connection: u64,
        permissions: Permissions,
        command: &[u8],
    ) -> bool {
        if self.outstanding.len() >= OUTSTANDING_MAX {
            return false;
        }
        let Target { place, generation } = target;
        let header = RequestHeader { connection, cache: place, cache_generation: generation };
        let tag = request_tag(permissions.0);
        let Ok(sequence) = self.requests.push(tag, &[&header.encode(), command]) else {
            return false;
        };
        let position = self.requests.position();
        self.outstanding.push_back(Outstanding { sequence, position, connection });
        self.counts.forwarded += 1;
        self.pushed = true;
        true
    }

    /// Hands a piece of a snapshot over, which has no answer; `false` when there is no room.
    pub fn push_snapshot(&mut self, piece: &SnapshotMessage<'_>) -> bool {
        let (tag, header, rest) = piece.encode();
        let pushed = self.requests.push(tag, &[&header, rest]).is_ok();
        self.pushed |= pushed;
        pushed
    }

    /// Asks for the books of a channel, if the worker has it; `false` when there is no room.
    pub fn want_books(&mut self, channel: u8, attempt: u64) -> bool {
        let (tag, payload) = books_wanted(channel, attempt);
        let pushed = self.requests.push(tag, &[&payload]).is_ok();
        self.pushed |= pushed;
        pushed
    }

    /// Wakes the worker for what was handed over, if it sleeps; at most one system call.
    pub fn wake(&mut self) {
        if !std::mem::take(&mut self.pushed) || !self.region.sleep().must_wake() || self.waking {
            return;
        }
        self.waking = true;
        self.counts.wakes += 1;
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes the wake-up back once the worker is awake: it makes no system call for that.
    fn settle(&mut self) {
        if self.waking && !self.region.sleep().is_asleep() {
            self.waking = false;
            // Not blocking; nothing to read is fine.
            let _ = read(&self.wake, &mut [0; 8]);
        }
    }

    /// Gives every answer that has come to `deliver`, with its connection, `None` for an unknown outcome; and all
    /// that is said of feeds to `hear`. Returns how many messages there were.
    pub fn poll(
        &mut self,
        mut deliver: impl FnMut(u64, Option<&[u8]>),
        mut hear: impl FnMut(Heard<'_>),
    ) -> usize {
        self.settle();
        let mut count = 0;
        while !self.answers.is_empty() {
            count += 1;
            let Ok(popped) = self.answers.pop(&mut self.scratch) else {
                // What was lost cannot be told apart from what is still to come.
                let all = self.outstanding.len();
                give_up(&mut self.outstanding, &mut self.counts, all, &mut deliver);
                hear(Heard::BooksLost);
                continue;
            };
            let Some(message) = popped else { break };
            match Answer::decode(message.tag, &self.scratch[..message.bytes]) {
                Some(Answer::Taken { position }) => {
                    let taken =
                        self.outstanding.partition_point(|waiting| waiting.position <= position);
                    give_up(&mut self.outstanding, &mut self.counts, taken, &mut deliver);
                    hear(Heard::BooksLost);
                }
                Some(Answer::Answer { connection, front_generation, sequence, text }) => {
                    let older =
                        self.outstanding.partition_point(|waiting| waiting.sequence < sequence);
                    let ours = front_generation == self.generation
                        && self.outstanding.get(older).is_some_and(|waiting| {
                            (waiting.sequence, waiting.connection) == (sequence, connection)
                        });
                    if !ours {
                        self.counts.stale += 1;
                        continue;
                    }
                    // None, unless an answer was lost on the way.
                    give_up(&mut self.outstanding, &mut self.counts, older, &mut deliver);
                    self.outstanding.pop_front();
                    deliver(connection, Some(text));
                }
                Some(Answer::SnapshotWanted { channel, attempt, session }) => {
                    hear(Heard::Wanted(Wanted { channel, attempt, session: Session(session) }));
                }
                Some(Answer::Books(piece)) => hear(Heard::Books(piece)),
                None => self.counts.stale += 1,
            }
        }
        count
    }
}

/// Ends the oldest `count` commands with an unknown outcome.
fn give_up(
    outstanding: &mut VecDeque<Outstanding>,
    counts: &mut LinkCounts,
    count: usize,
    deliver: &mut impl FnMut(u64, Option<&[u8]>),
) {
    for waiting in outstanding.drain(..count) {
        counts.unknown += 1;
        deliver(waiting.connection, None);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use proptest::prelude::*;

    use super::*;

    fn wake() -> OwnedFd {
        EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap().into()
    }

    #[test]
    fn a_sleeping_worker_is_woken_once_and_may_sleep_again() {
        let region = FrontRegion::create(c"nautilus-front").unwrap();
        let wake = wake();
        let other = wake.try_clone().unwrap();
        let readable = || {
            let mut fds = [nix::poll::PollFd::new(
                std::os::fd::AsFd::as_fd(&other),
                nix::poll::PollFlags::POLLIN,
            )];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() == 1
        };
        // As a dead front left it.
        write(&other, &1_u64.to_ne_bytes()).unwrap();
        let mut link = Link::new(&region, wake, region.advance_front());
        assert!(!readable());
        link.forward(Target::default(), 1, Permissions::ALL, b"version\r\n");
        link.wake();
        assert!(!readable(), "it is awake");
        region.sleep().announce(9);
        link.wake();
        assert!(!readable(), "nothing new was handed over");
        link.forward(Target::default(), 1, Permissions::ALL, b"version\r\n");
        link.wake();
        assert!(readable());
        region.sleep().woke();
        link.poll(|_, _| {}, |_| {});
        assert!(!readable());
        assert_eq!((link.counts().wakes, link.counts().forwarded), (1, 2));
    }

    proptest! {
        /// A worker that is killed and replaced at any point between taking a command and answering it:
        /// every command has exactly one outcome, in order, and "unknown" is said only of what was taken.
        #[test]
        fn every_command_has_one_outcome(steps in prop::collection::vec(0..5_u8, 1..200)) {
            let region = FrontRegion::create(c"nautilus-front").unwrap();
            let mut link = Link::new(&region, wake(), region.advance_front());
            let mut requests = region.requests().consumer();
            let mut answers = region.answers().producer(1);
            let (mut sent, mut outcomes, mut taken) = (0_u64, Vec::new(), None);
            let mut unknown = Vec::new();
            let mut out = [0; 64];
            let answer = |answers: &mut MessageProducer<'_, FRONT_RING_WORDS>, taken: (u64, u64)| {
                let (tag, header) = Answer::header(taken.1, 1, taken.0);
                answers.push(tag, &[&header, b"OK"]).unwrap();
            };
            let finish = [3, 1, 2].repeat(steps.len() + 1).into_iter().chain([4]);
            for step in steps.into_iter().chain(finish) {
                match step {
                    0 => {
                        let target = Target::default();
                        prop_assert!(link.forward(target, sent, Permissions::ALL, b"command"));
                        sent += 1;
                    }
                    1 if taken.is_none() => {
                        taken = requests.pop(&mut out).unwrap().map(|message| {
                            let number = u64::from_le_bytes(*out.first_chunk().unwrap());
                            (message.sequence, number)
                        });
                    }
                    2 => if let Some(taken) = taken.take() {
                        answer(&mut answers, taken);
                    },
                    3 => {
                        if let Some((_, number)) = taken.take() {
                            unknown.push(number);
                        }
                        requests = region.requests().consumer();
                        answers = region.answers().producer(2);
                        let (tag, payload) = Answer::taken(requests.position());
                        answers.push(tag, &[&payload]).unwrap();
                    }
                    4 => {
                        link.poll(
                            |connection, text| outcomes.push((connection, text.is_some())),
                            |_| {},
                        );
                    }
                    _ => {}
                }
            }
            let expected: Vec<_> = (0..sent).map(|number| (number, !unknown.contains(&number))).collect();
            prop_assert_eq!(outcomes, expected);
            prop_assert_eq!(link.outstanding(), 0);
        }
    }

    #[test]
    fn answers_to_a_dead_front_are_nobodys() {
        let region = FrontRegion::create(c"nautilus-front").unwrap();
        let mut dead = Link::new(&region, wake(), region.advance_front());
        dead.forward(Target::default(), 7, Permissions::ALL, b"version\r\n");
        let mut answers = region.answers().producer(1);
        let (tag, header) = Answer::header(7, 1, 0);
        answers.push(tag, &[&header, b"VERSION\r\n"]).unwrap();
        let mut link = Link::new(&region, wake(), region.advance_front());
        link.forward(Target::default(), 7, Permissions::ALL, b"version\r\n");
        link.poll(|_, _| panic!("not ours"), |_| {});
        assert_eq!((link.counts().stale, link.outstanding()), (1, 1));
    }
}
