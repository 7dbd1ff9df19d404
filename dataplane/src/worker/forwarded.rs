//! Commands of the front, executed by the worker between bursts.
//!
//! ```text
//!   request ring -> command -> application of its cache -> answer -> answer ring
//!                -> piece of a snapshot -> channel of a feed
//!                -> books wanted        -> channel of a feed -> its books, in pieces -> answer ring
//! ```
//!
//! Consumer of the request ring, producer of the answer ring, writer of the worker's announcement in the
//! front region. A command is taken from the ring before it is executed and only when its answer has room,
//! so it is executed at most once and never without its answer. Buffers are made at start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::front_region::{
    ANSWER_BYTES_MAX, ANSWER_HEADER_BYTES, Answer, COMMAND_BYTES_MAX, FRONT_RING_WORDS,
    FrontRegion, REQUEST_HEADER_BYTES, RequestHeader, SNAPSHOT_HEADER_BYTES, SnapshotContent,
    SnapshotMessage, is_books_wanted, is_snapshot, read_books_wanted, request_permissions,
};
use nautilus_shm::message_ring::{MessageConsumer, MessageProducer};
use nautilus_shm::metrics::{MetricBank, table};
use nautilus_shm::misorder::{self, Misorder};
use nautilus_shm::table::{HotSet, Words};

use super::run_loop::Clock;
use crate::app::CacheApp;
use crate::app::feed::SnapshotWanted;
use crate::feed::channel::SnapshotPiece;
use crate::feed::moldudp64::Session;
use crate::memcached::parse;

/// Commands executed in one turn. Too low: the front waits while the worker looks for packets. Too high:
/// packets wait.
const COMMANDS_A_TURN: usize = 8;

/// Bytes of commands after which a turn's share is over: a value of 1 MiB takes some 100 us.
const COMMAND_BYTES_A_TURN: usize = 64 << 10;

/// The caches of a worker, as commands name them.
pub trait Caches {
    /// Where their tables are.
    type Memory: Words;
    /// What shows their hot keys.
    type Hot: HotSet;
    /// The cache of a place, if it is still the one of this generation.
    fn cache(
        &mut self,
        place: u32,
        generation: u32,
    ) -> Option<&mut CacheApp<Self::Memory, Self::Hot>>;
}

/// Who takes in the snapshots of feeds that the front fetches.
pub trait Snapshots {
    /// A piece of an attempt for the channel of this number.
    fn take_snapshot(&mut self, channel: u8, attempt: u64, now_ns: u64, piece: SnapshotPiece<'_>);
    /// The front wants the books of the channel of this number, if there is one here.
    fn want_books(&mut self, channel: u8, attempt: u64);
}

/// The worker's ends of both rings.
pub struct Forwarded {
    region: &'static FrontRegion,
    requests: MessageConsumer<'static, FRONT_RING_WORDS>,
    answers: MessageProducer<'static, FRONT_RING_WORDS>,
    wake: OwnedFd,
    /// Position of the request ring at the take-over; still to be told to the front.
    taken: Option<u64>,
    command: Box<[u8]>,
    text: Vec<u8>,
    /// The attempt last asked for, by channel.
    wanted: Box<[u64; 256]>,
    executed: u64,
    damaged: u64,
    dropped: u64,
}

/// The end of an answer that would be longer than [`ANSWER_BYTES_MAX`].
const ANSWER_TOO_LARGE: &[u8] = b"SERVER_ERROR out of memory writing get response\r\n";

/// The answer to a command for a cache that is gone.
const NO_CACHE: &[u8] = b"SERVER_ERROR no such cache\r\n";

/// Executes one command and leaves its answer in `text`, which has room for the longest. Nothing in
/// `command` but the one: the front cut it out.
fn execute<W: Words, H: HotSet>(
    cache: &mut CacheApp<W, H>,
    now_ns: u64,
    permissions: Permissions,
    command: &[u8],
    text: &mut Vec<u8>,
) {
    text.clear();
    let parse::Next::Request(request, _) = parse::next(command) else { return };
    let mut fits = true;
    cache.execute(now_ns, permissions, &request, |piece| {
        fits &= text.len() + piece.len() <= ANSWER_BYTES_MAX;
        if fits {
            text.extend_from_slice(piece);
        }
    });
    if !fits {
        text.clear();
        text.extend_from_slice(ANSWER_TOO_LARGE);
    }
}

impl Forwarded {
    /// Makes the buffers; takes nothing yet. `wake` becomes readable when the front wants a sleeping
    /// worker.
    pub fn new(region: &'static FrontRegion, wake: OwnedFd) -> Self {
        let mut bytes = Vec::with_capacity(ANSWER_BYTES_MAX);
        // Written once, so that no page of it is missing when it is needed.
        bytes.resize(ANSWER_BYTES_MAX, 1);
        bytes.clear();
        Self {
            region,
            requests: region.requests().consumer(),
            answers: region.answers().producer(0),
            wake,
            taken: None,
            command: vec![1; REQUEST_HEADER_BYTES + COMMAND_BYTES_MAX].into(),
            text: bytes,
            wanted: Box::new([0; 256]),
            executed: 0,
            damaged: 0,
            dropped: 0,
        }
    }

    /// Goes on where the worker before stopped, which is dead. `generation` is greater than its.
    pub fn take_over(&mut self, generation: u64) {
        self.requests = self.region.requests().consumer();
        self.answers = self.region.answers().producer(generation);
        self.taken = Some(self.requests.position());
        self.region.sleep().woke();
    }

    /// Executes some of what waits; returns how many commands that were.
    #[inline]
    pub fn serve<C: Caches + Snapshots>(&mut self, caches: &mut C, clock: &impl Clock) -> usize {
        if self.taken.is_none() && self.requests.is_empty() {
            return 0;
        }
        self.serve_waiting(caches, clock)
    }

    fn serve_waiting<C: Caches + Snapshots>(
        &mut self,
        caches: &mut C,
        clock: &impl Clock,
    ) -> usize {
        if let Some(position) = self.taken {
            let (tag, payload) = Answer::taken(position);
            if self.answers.push(tag, &[&payload]).is_err() {
                // The front does not take its answers.
                return 0;
            }
            self.taken = None;
        }
        let (mut count, mut bytes) = (0, 0);
        while count < COMMANDS_A_TURN
            && bytes < COMMAND_BYTES_A_TURN
            && self.answers.has_room(ANSWER_HEADER_BYTES + ANSWER_BYTES_MAX)
        {
            let Ok(popped) = self.requests.pop(&mut self.command) else {
                self.damaged += 1;
                count += 1;
                continue;
            };
            let Some(message) = popped else { break };
            count += 1;
            bytes += message.bytes;
            if is_snapshot(message.tag) {
                self.take_snapshot(message.bytes, message.generation, caches, clock.now_ns());
                continue;
            }
            if is_books_wanted(message.tag) {
                let wanted = read_books_wanted(&self.command[..message.bytes]);
                self.damaged += u64::from(wanted.is_none());
                // A front that is gone wants nothing.
                if let Some((channel, attempt)) = wanted
                    && message.generation == self.region.front_generation()
                {
                    caches.want_books(channel, attempt);
                }
                continue;
            }
            let Some((header, command)) = RequestHeader::decode(&self.command[..message.bytes])
            else {
                self.damaged += 1;
                continue;
            };
            let is_acknowledged =
                Misorder::AcknowledgedFirst.is_wanted() && command.starts_with(b"set ");
            if is_acknowledged {
                let (connection, sequence) = (header.connection, message.sequence);
                let (tag, header) = Answer::header(connection, message.generation, sequence);
                let _ = self.answers.push(tag, &[&header, b"STORED\r\n"]);
                misorder::rest();
            }
            // After the command has arrived.
            let now_ns = clock.now_ns();
            let permissions = Permissions::masked(request_permissions(message.tag));
            match caches.cache(header.cache, header.cache_generation) {
                Some(cache) => execute(cache, now_ns, permissions, command, &mut self.text),
                None => {
                    self.text.clear();
                    self.text.extend_from_slice(NO_CACHE);
                }
            }
            self.executed += 1;
            if is_acknowledged || message.generation != self.region.front_generation() {
                self.dropped += 1;
                continue;
            }
            let (connection, sequence) = (header.connection, message.sequence);
            let (tag, header) = Answer::header(connection, message.generation, sequence);
            if self.answers.push(tag, &[&header, &self.text]).is_err() {
                self.damaged += 1;
            }
        }
        count
    }

    fn take_snapshot(
        &mut self,
        bytes: usize,
        generation: u64,
        snapshots: &mut impl Snapshots,
        now_ns: u64,
    ) {
        let Some(piece) = SnapshotMessage::decode(&self.command[..bytes]) else {
            self.damaged += 1;
            return;
        };
        let SnapshotMessage { channel, attempt, content } = piece;
        if generation != self.region.front_generation() {
            // Of a front that is gone: the rest of it will not come.
            snapshots.take_snapshot(channel, attempt, now_ns, SnapshotPiece::Failed);
            return;
        }
        let piece = match content {
            SnapshotContent::Begin(session) => SnapshotPiece::Begin(Session(session)),
            SnapshotContent::Messages(blocks) => SnapshotPiece::Messages(blocks),
            SnapshotContent::End(next_sequence) => SnapshotPiece::End(next_sequence),
            SnapshotContent::Failed => SnapshotPiece::Failed,
        };
        snapshots.take_snapshot(channel, attempt, now_ns, piece);
    }

    /// Tells the front that a snapshot is wanted, once an attempt; again while its ring has no room.
    pub fn want_snapshot(&mut self, wanted: &SnapshotWanted) {
        let asked = &mut self.wanted[usize::from(wanted.channel)];
        if *asked == wanted.attempt || self.taken.is_some() {
            return;
        }
        let (tag, payload) =
            Answer::snapshot_wanted(wanted.channel, wanted.attempt, wanted.session.0);
        if self.answers.push(tag, &[&payload]).is_ok() {
            *asked = wanted.attempt;
        }
    }

    /// Hands a piece of a channel's books to the front; `false` when there is no room for it beside an answer, so
    /// that commands never wait for it.
    pub fn push_books(&mut self, piece: &SnapshotMessage<'_>) -> bool {
        let (tag, header, rest) = Answer::books(piece);
        let bytes = SNAPSHOT_HEADER_BYTES + rest.len();
        self.taken.is_none()
            && self.answers.has_room(2 * (ANSWER_HEADER_BYTES + ANSWER_BYTES_MAX) + bytes)
            && self.answers.push(tag, &[&header, rest]).is_ok()
    }

    /// Announces a sleep; `false` when there is work.
    #[inline]
    pub fn sleeps(&mut self, until_ns: u64) -> bool {
        self.region.sleep().announce(until_ns);
        self.taken.is_none() && self.requests.is_empty()
    }

    /// Awake again.
    #[inline]
    pub fn woke(&mut self) {
        self.region.sleep().woke();
    }

    /// Becomes readable when the front wants a sleeping worker.
    pub fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Adds what was counted to the worker's bank and starts again at 0.
    pub fn publish(&mut self, bank: &MetricBank<'_>) {
        bank.add(table::FORWARDED_COMMANDS, std::mem::take(&mut self.executed));
        bank.add(table::FORWARDED_DAMAGED, std::mem::take(&mut self.damaged));
        bank.add(table::ANSWERS_DROPPED, std::mem::take(&mut self.dropped));
    }
}

#[cfg(test)]
mod tests {
    use nautilus_shm::sync::AtomicU64;
    use nautilus_shm::table::{TableWriter, heap_words};
    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::worker::Monotonic;

    /// The cache of place 3 and generation 2.
    struct Only(CacheApp<Box<[AtomicU64]>>, Vec<String>);

    impl Only {
        fn new() -> Self {
            let table = TableWriter::create(heap_words(8 << 20), 1, 3).unwrap();
            Self(CacheApp::new(table, 0), Vec::new())
        }

        fn header(connection: u64) -> [u8; REQUEST_HEADER_BYTES] {
            RequestHeader { connection, cache: 3, cache_generation: 2 }.encode()
        }
    }

    impl Snapshots for Only {
        fn take_snapshot(&mut self, channel: u8, attempt: u64, _: u64, piece: SnapshotPiece<'_>) {
            self.1.push(format!("{channel} {attempt} {piece:?}"));
        }

        fn want_books(&mut self, channel: u8, attempt: u64) {
            self.1.push(format!("books of {channel} {attempt}"));
        }
    }

    impl Caches for Only {
        type Memory = Box<[AtomicU64]>;
        type Hot = ();

        fn cache(&mut self, place: u32, generation: u32) -> Option<&mut CacheApp<Self::Memory>> {
            ((place, generation) == (3, 2)).then_some(&mut self.0)
        }
    }

    fn forwarded() -> (&'static FrontRegion, Forwarded) {
        let region = Box::leak(Box::new(FrontRegion::create(c"nautilus-front").unwrap()));
        (region, Forwarded::new(region, EventFd::new().unwrap().into()))
    }

    fn answers(region: &FrontRegion) -> Vec<(u64, String)> {
        let mut consumer = region.answers().consumer();
        let mut out = vec![0; ANSWER_HEADER_BYTES + ANSWER_BYTES_MAX];
        let mut answers = Vec::new();
        while let Some(message) = consumer.pop(&mut out).unwrap() {
            match Answer::decode(message.tag, &out[..message.bytes]).unwrap() {
                Answer::Answer { connection, text, .. } => {
                    answers.push((connection, String::from_utf8_lossy(text).into_owned()));
                }
                Answer::Taken { position } => answers.push((position, "taken".into())),
                Answer::SnapshotWanted { channel, attempt, session } => {
                    let session = session.escape_ascii();
                    answers.push((attempt, format!("snapshot of {channel}, {session}")));
                }
                Answer::Books(piece) => answers.push((piece.attempt, "books".into())),
            }
        }
        answers
    }

    #[test]
    fn snapshots_are_asked_for_once_an_attempt_and_their_pieces_taken_in() {
        let (region, mut forwarded) = forwarded();
        let mut cache = Only::new();
        let (dead, front) = (region.advance_front(), region.advance_front());
        forwarded.take_over(5);
        let session = Session(*b"000000MON1");
        let wanted = |attempt| SnapshotWanted { channel: 3, attempt, session };
        forwarded.want_snapshot(&wanted(7));
        assert_eq!(answers(region), [], "the front is told first how far its ring was taken");
        forwarded.serve(&mut cache, &Monotonic);
        for attempt in [7, 7, 8] {
            forwarded.want_snapshot(&wanted(attempt));
        }
        let asked = |attempt| (attempt, "snapshot of 3, 000000MON1".to_owned());
        assert_eq!(answers(region), [(0, "taken".into()), asked(7), asked(8)]);

        let push = |generation, content| {
            let mut requests = region.requests().producer(generation);
            let piece = SnapshotMessage { channel: 3, attempt: 8, content };
            let (tag, header, rest) = piece.encode();
            requests.push(tag, &[&header, rest]).unwrap();
        };
        push(front, SnapshotContent::Begin(session.0));
        push(front, SnapshotContent::Messages(b"\0\x01x"));
        push(dead, SnapshotContent::End(9));
        push(front, SnapshotContent::End(9));
        forwarded.serve(&mut cache, &Monotonic);
        let expected = [
            "3 8 Begin(Session(000000MON1))",
            "3 8 Messages([0, 1, 120])",
            "3 8 Failed",
            "3 8 End(9)",
        ];
        assert_eq!(cache.1, expected);
    }

    #[test]
    fn books_are_told_to_a_front_that_lives_and_leave_room_for_answers() {
        let (region, mut forwarded) = forwarded();
        let mut cache = Only::new();
        let (dead, front) = (region.advance_front(), region.advance_front());
        forwarded.take_over(5);
        let content = SnapshotContent::Messages(&[7; 16 << 10]);
        let piece = SnapshotMessage { channel: 3, attempt: 8, content };
        assert!(!forwarded.push_books(&piece), "the front is told first who speaks");
        for (generation, attempt) in [(dead, 6), (front, 8)] {
            let (tag, payload) = nautilus_shm::front_region::books_wanted(3, attempt);
            region.requests().producer(generation).push(tag, &[&payload]).unwrap();
        }
        forwarded.serve(&mut cache, &Monotonic);
        assert_eq!(cache.1, ["books of 3 8"]);
        let mut pieces = 0;
        while forwarded.push_books(&piece) {
            pieces += 1;
        }
        assert!(pieces > 50, "{pieces}");
        // A command is executed all the same, whatever its answer is.
        let mut requests = region.requests().producer(front);
        requests.push(0, &[&Only::header(4), b"version\r\n"]).unwrap();
        assert_eq!(forwarded.serve(&mut cache, &Monotonic), 1);
        let all = answers(region);
        assert_eq!(all.len(), 2 + pieces);
        assert_eq!((all[1].0, all.last().unwrap().0), (8, 4));
    }

    #[test]
    fn commands_are_executed_in_order_and_answered_or_acknowledged() {
        let (region, mut forwarded) = forwarded();
        let mut cache = Only::new();
        let mut requests = region.requests().producer(region.advance_front());
        let value = vec![b'v'; 1 << 20];
        let large = [b"set k 7 0 1048576\r\n", &value[..], b"\r\n"].concat();
        let commands: [&[u8]; 5] = [
            &large,
            b"set k 0 0 1 noreply\r\n1\r\n",
            b"get k\r\n",
            b"delete k\r\n",
            b"nonsense\r\n",
        ];
        for (number, command) in commands.iter().enumerate() {
            requests.push(0, &[&Only::header(number as u64), command]).unwrap();
        }
        for (cache, cache_generation) in [(3, 1), (2, 2), (u32::MAX, 2)] {
            let header = RequestHeader { connection: 9, cache, cache_generation };
            requests.push(0, &[&header.encode(), b"get k\r\n"]).unwrap();
        }
        forwarded.take_over(1);
        assert!(!forwarded.sleeps(1), "there is work");
        while forwarded.serve(&mut cache, &Monotonic) > 0 {}
        assert!(forwarded.sleeps(1));
        let expected = [
            (0, "taken"),
            (0, "STORED\r\n"),
            (1, ""),
            (2, "VALUE k 0 1\r\n1\r\nEND\r\n"),
            (3, "DELETED\r\n"),
            (4, "ERROR\r\n"),
            (9, "SERVER_ERROR no such cache\r\n"),
            (9, "SERVER_ERROR no such cache\r\n"),
            (9, "SERVER_ERROR no such cache\r\n"),
        ];
        assert_eq!(answers(region), expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn a_dead_front_gets_no_answer_and_a_full_ring_takes_no_command() {
        let (region, mut forwarded) = forwarded();
        let mut cache = Only::new();
        let mut requests = region.requests().producer(region.advance_front());
        requests.push(0, &[&Only::header(0), b"set k 0 0 1\r\n1\r\n"]).unwrap();
        region.advance_front();
        forwarded.take_over(1);
        assert_eq!(forwarded.serve(&mut cache, &Monotonic), 1);
        assert_eq!(answers(region), [(0, "taken".into())]);
        assert_eq!((forwarded.executed, forwarded.dropped), (1, 1), "but it was executed");

        let mut filler = region.answers().producer(1);
        let piece = vec![0; 1 << 19];
        while filler.has_room(ANSWER_HEADER_BYTES + ANSWER_BYTES_MAX) {
            filler.push(9, &[&piece]).unwrap();
        }
        forwarded.take_over(2);
        let mut requests = region.requests().producer(2);
        requests.push(0, &[&Only::header(0), b"version\r\n"]).unwrap();
        assert_eq!(forwarded.serve(&mut cache, &Monotonic), 0);
        assert_eq!(forwarded.executed, 1);
    }
}
