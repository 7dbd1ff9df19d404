//! The other workers of the node: datagrams sent on to them, and what they send.
//!
//! ```text
//!   datagram for another's key or feed -> ring -> that worker's apps -> answers -> ring back -> port
//! ```
//!
//! Producer of this worker's rings, consumer of those that lead to it, writer of its announcement in the
//! region. An answer leaves by the worker at which its request arrived: only that one has a socket of the
//! interface for certain. A datagram is taken before it is handled, so it is handled at most once; what
//! finds no room is dropped and counted, as a full socket would. Buffers are made at start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_shm::message_ring::{MessageConsumer, MessageProducer};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::worker_rings::{WORKER_RING_WORDS, WorkerRing, WorkerRings};
use nix::unistd::{read, write};

use crate::app::cache::Outbox;
use crate::limits::REPLY_PAYLOAD_BYTES_MAX;
use crate::port::parcel::{self, PARCEL_HEADER_BYTES};
use crate::port::{Datagram, Filled, Path, SendError, Transmit};

/// A datagram to be handled.
const TAG_DATAGRAM: u32 = 1;
/// An answer to be sent.
const TAG_ANSWER: u32 = 2;

/// Messages taken in one turn. Too low: other workers' clients wait while this one looks for packets. Too
/// high: packets wait.
const MESSAGES_A_TURN: usize = 16;

/// Age from which a datagram is not handled any more: its worker was away, its client has given up and
/// may have asked somebody else since.
const AGE_NS_MAX: u64 = 1_000_000_000;

/// Longest message: the largest datagram there is, which only a kernel socket brings.
const MESSAGE_BYTES_MAX: usize = PARCEL_HEADER_BYTES + 65_507;

const _: () = assert!(MESSAGE_BYTES_MAX <= WorkerRing::MESSAGE_BYTES_MAX, "it fits a ring");

/// What was taken from a ring.
#[derive(Clone, Copy, Debug)]
pub enum Received<'a> {
    /// To be handled, and answered to the worker of this number.
    Datagram(Datagram<'a>, usize),
    /// To be sent.
    Answer(Path, &'a [u8]),
}

/// This worker's ends of all rings.
pub struct Peers {
    rings: &'static WorkerRings,
    me: usize,
    outgoing: Vec<MessageProducer<'static, WORKER_RING_WORDS>>,
    incoming: Vec<MessageConsumer<'static, WORKER_RING_WORDS>>,
    /// Become readable for a sleeping worker, one each.
    wakes: Vec<OwnedFd>,
    /// The ring that is looked at first.
    next: usize,
    /// Workers that were sent something since the last [`Self::wake`].
    sent_to: u32,
    answer: Box<[u8]>,
    sent: u64,
    dropped: u64,
    taken: u64,
    refused: u64,
    woken: u64,
}

impl Peers {
    /// Worker `me` among those of the region; takes nothing yet. `wakes` has an eventfd for each.
    pub fn new(rings: &'static WorkerRings, me: usize, wakes: Vec<OwnedFd>) -> Self {
        let all = 0..rings.workers();
        Self {
            rings,
            me,
            outgoing: all.clone().map(|to| rings.ring(me, to).producer(0)).collect(),
            incoming: all.map(|from| rings.ring(from, me).consumer()).collect(),
            wakes,
            next: 0,
            sent_to: 0,
            answer: vec![1; REPLY_PAYLOAD_BYTES_MAX].into(),
            sent: 0,
            dropped: 0,
            taken: 0,
            refused: 0,
            woken: 0,
        }
    }

    /// Bytes of a buffer for [`Self::take`].
    pub const BUFFER_BYTES: usize = MESSAGE_BYTES_MAX;

    /// Goes on where the worker before stopped, which is dead. `generation` is greater than its.
    pub fn take_over(&mut self, generation: u64) {
        let (rings, me) = (self.rings, self.me);
        for (other, outgoing) in self.outgoing.iter_mut().enumerate() {
            *outgoing = rings.ring(me, other).producer(generation);
            self.incoming[other] = rings.ring(other, me).consumer();
        }
        self.woke();
    }

    /// Sends on what an application has for others.
    #[inline]
    pub fn send_all(&mut self, outbox: &mut Outbox) {
        self.dropped += outbox.take_dropped();
        outbox.drain(|to, parcel| self.send_on(to, parcel));
    }

    /// Sends a parcel on to be handled.
    fn send_on(&mut self, to: usize, parcel: &[u8]) {
        self.push(to, TAG_DATAGRAM, &[parcel]);
    }

    /// Sends a datagram on as it came.
    pub fn send_on_whole(&mut self, to: usize, datagram: &Datagram<'_>) {
        self.push(to, TAG_DATAGRAM, &[&parcel::header(datagram), datagram.payload]);
    }

    fn push(&mut self, to: usize, tag: u32, parts: &[&[u8]]) -> bool {
        let pushed = match self.outgoing.get_mut(to) {
            Some(ring) if to != self.me => ring.push(tag, parts).is_ok(),
            _ => false,
        };
        if pushed {
            self.sent += 1;
            self.sent_to |= 1 << to;
        } else {
            self.dropped += 1;
        }
        pushed
    }

    /// Whether nothing has come.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.incoming.iter().all(MessageConsumer::is_empty)
    }

    /// Takes at most [`MESSAGES_A_TURN`] messages, in turns from all rings, and gives each to `handle`
    /// with this; returns how many. `now_ns` is asked for the age of each.
    pub fn take(
        &mut self,
        buffer: &mut [u8],
        now_ns: impl Fn() -> u64,
        mut handle: impl FnMut(&mut Self, Received<'_>),
    ) -> usize {
        let (mut count, mut silent) = (0, 0);
        while count < MESSAGES_A_TURN && silent < self.incoming.len() {
            let from = self.next;
            self.next = (from + 1) % self.incoming.len();
            let message = match self.incoming[from].pop(buffer) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    silent += 1;
                    continue;
                }
                Err(_) => {
                    (count, self.refused) = (count + 1, self.refused + 1);
                    continue;
                }
            };
            (count, silent) = (count + 1, 0);
            let datagram = parcel::read(&buffer[..message.bytes]);
            match (message.tag, datagram) {
                (TAG_DATAGRAM, Some(datagram))
                    if now_ns().saturating_sub(datagram.rx_ns) < AGE_NS_MAX =>
                {
                    handle(self, Received::Datagram(datagram, from));
                }
                (TAG_ANSWER, Some(answer)) => {
                    let path = answer.reply_path();
                    handle(self, Received::Answer(path, answer.payload));
                }
                _ => self.refused += 1,
            }
        }
        self.taken += count as u64;
        count
    }

    /// Where answers to worker `to` go.
    pub fn answers(&mut self, to: usize) -> Answers<'_> {
        Answers { peers: self, to }
    }

    /// Wakes who sleeps of those that were sent something; one system call for each that does.
    #[inline]
    pub fn wake(&mut self) {
        while self.sent_to != 0 {
            let to = self.sent_to.trailing_zeros() as usize;
            self.sent_to &= self.sent_to - 1;
            if self.rings.sleep(to).must_wake()
                && let Some(wake) = self.wakes.get(to)
            {
                self.woken += 1;
                let _ = write(wake, &1_u64.to_ne_bytes());
            }
        }
    }

    /// Announces a sleep; `false` when something has come.
    #[inline]
    pub fn sleeps(&mut self, until_ns: u64) -> bool {
        self.rings.sleep(self.me).announce(until_ns);
        self.is_empty()
    }

    /// Awake again; one system call, which takes a wake-up back.
    #[inline]
    pub fn woke(&mut self) {
        self.rings.sleep(self.me).woke();
        // Not blocking; mostly there is nothing.
        let _ = read(&self.wakes[self.me], &mut [0; 8]);
    }

    /// Becomes readable when another worker wants this one while it sleeps.
    pub fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wakes[self.me].as_fd()
    }

    /// Adds what was counted to the worker's bank and starts again at 0.
    pub fn publish(&mut self, bank: &MetricBank<'_>) {
        bank.add(table::SENT_ON, std::mem::take(&mut self.sent));
        bank.add(table::SENT_ON_DROPPED, std::mem::take(&mut self.dropped));
        bank.add(table::TAKEN_ON, std::mem::take(&mut self.taken));
        bank.add(table::TAKEN_ON_DROPPED, std::mem::take(&mut self.refused));
        bank.add(table::WORKER_WAKES, std::mem::take(&mut self.woken));
    }
}

/// Answers on their way to the worker that sends them.
pub struct Answers<'a> {
    peers: &'a mut Peers,
    to: usize,
}

impl Transmit for Answers<'_> {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let mut buffer = std::mem::take(&mut self.peers.answer);
        let Filled { bytes, .. } = write(&mut buffer).into();
        let payload = buffer.get(..bytes).unwrap_or_default();
        let header = parcel::answer_header(path);
        let is_pushed = self.peers.push(self.to, TAG_ANSWER, &[&header, payload]);
        self.peers.answer = buffer;
        if is_pushed { Ok(()) } else { Err(SendError::NoFrame) }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;
    use crate::net::Endpoint;
    use crate::port::Link;

    fn wakes() -> Vec<OwnedFd> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        (0..2).map(|_| EventFd::from_flags(flags).unwrap().into()).collect()
    }

    /// The ends of both workers of a node, and those of their standbys.
    fn workers_and_standbys() -> ([Peers; 2], [Peers; 2]) {
        let rings = WorkerRings::create(c"nautilus-workers", 2).unwrap();
        let rings: &WorkerRings = Box::leak(Box::new(rings));
        let wakes = wakes();
        let ends = |me| {
            Peers::new(rings, me, wakes.iter().map(|wake| wake.try_clone().unwrap()).collect())
        };
        let mut workers = [0, 1].map(ends);
        workers.iter_mut().for_each(|peers| peers.take_over(1));
        (workers, [0, 1].map(ends))
    }

    fn pair() -> [Peers; 2] {
        workers_and_standbys().0
    }

    fn datagram(rx_ns: u64, payload: &[u8]) -> Datagram<'_> {
        Datagram {
            source: Endpoint::v4([198, 18, 0, 2], 4000),
            destination: Endpoint::v4([198, 18, 0, 1], 11211),
            link: Link { interface: 1, vlans: [5, 0] },
            rx_ns,
            permissions: None,
            payload,
        }
    }

    #[test]
    fn a_datagram_goes_there_and_its_answer_comes_back() {
        let [mut zero, mut one] = pair();
        let mut buffer = vec![0; Peers::BUFFER_BYTES];
        zero.send_on_whole(1, &datagram(7, b"set"));
        assert!(!one.is_empty());
        let taken = one.take(
            &mut buffer,
            || 8,
            |peers, received| {
                let Received::Datagram(datagram, from) = received else { panic!("{received:?}") };
                assert_eq!((datagram.payload, datagram.rx_ns, from), (&b"set"[..], 7, 0));
                let path = datagram.reply_path();
                peers
                    .answers(from)
                    .send(&path, |out| {
                        out[..6].copy_from_slice(b"STORED");
                        6
                    })
                    .unwrap();
            },
        );
        assert_eq!(taken, 1);
        let mut answers = 0;
        zero.take(
            &mut buffer,
            || 8,
            |_, received| {
                let Received::Answer(path, payload) = received else { panic!("{received:?}") };
                assert_eq!((path, payload), (datagram(0, b"").reply_path(), &b"STORED"[..]));
                answers += 1;
            },
        );
        assert_eq!((answers, zero.is_empty(), one.is_empty()), (1, true, true));
    }

    #[test]
    fn what_is_too_old_or_finds_no_room_is_counted() {
        let [mut zero, mut one] = pair();
        let mut buffer = vec![0; Peers::BUFFER_BYTES];
        zero.send_on_whole(1, &datagram(0, b"old"));
        let never = |_: &mut Peers, received: Received<'_>| panic!("{received:?}");
        assert_eq!(one.take(&mut buffer, || AGE_NS_MAX, never), 1);
        assert_eq!((one.taken, one.refused), (1, 1));
        let payload = [0; 4000];
        while zero.dropped == 0 {
            zero.send_on_whole(1, &datagram(0, &payload));
        }
        zero.send_on_whole(0, &datagram(0, b"to itself"));
        zero.send_on_whole(2, &datagram(0, b"to nobody"));
        assert_eq!(zero.dropped, 3);
        let mut whole = 0;
        while !one.is_empty() {
            one.take(
                &mut buffer,
                || 1,
                |_, received| {
                    let Received::Datagram(datagram, 0) = received else { panic!("{received:?}") };
                    assert_eq!(datagram.payload, payload);
                    whole += 1;
                },
            );
        }
        assert_eq!(whole + 1, zero.sent);
    }

    #[test]
    fn a_sleeper_is_woken_once_and_may_sleep_again() {
        let [mut zero, mut one] = pair();
        let readable = |peers: &Peers| {
            let mut fds =
                [nix::poll::PollFd::new(peers.wake_descriptor(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() == 1
        };
        zero.send_on_whole(1, &datagram(0, b"a"));
        zero.wake();
        assert!(!readable(&one), "it is awake");
        assert!(!one.sleeps(9), "something has come");
        let mut buffer = vec![0; Peers::BUFFER_BYTES];
        one.take(&mut buffer, || 1, |_, _| {});
        assert!(one.sleeps(9));
        zero.wake();
        assert!(!readable(&one), "nothing was sent since");
        zero.send_on_whole(1, &datagram(0, b"b"));
        zero.send_on_whole(1, &datagram(0, b"c"));
        zero.wake();
        assert!(readable(&one));
        one.woke();
        assert!(!readable(&one));
        assert_eq!(zero.woken, 1);
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_stopped() {
        // Standbys map the rings long before they take over.
        let ([mut zero, mut one], [mut next_zero, mut next_one]) = workers_and_standbys();
        let mut buffer = vec![0; Peers::BUFFER_BYTES];
        for payload in [b"a", b"b", b"c"] {
            zero.send_on_whole(1, &datagram(0, payload));
        }
        let mut first = Vec::new();
        one.take(
            &mut buffer,
            || 1,
            |_, received| {
                if let Received::Datagram(datagram, _) = received {
                    first.push(datagram.payload.to_vec());
                }
            },
        );
        next_zero.take_over(2);
        next_zero.send_on_whole(1, &datagram(0, b"d"));
        next_one.take_over(2);
        next_one.take(
            &mut buffer,
            || 1,
            |_, received| {
                if let Received::Datagram(datagram, _) = received {
                    first.push(datagram.payload.to_vec());
                }
            },
        );
        assert_eq!(first, [b"a", b"b", b"c", b"d"]);
    }
}
