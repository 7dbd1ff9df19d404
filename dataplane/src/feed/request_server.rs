//! Answers to requests for messages that were lost: the MoldUDP64 request server.
//!
//! Source: NASDAQ "MoldUDP64 Protocol Specification" 1.00.
//!
//! A request is answered with one downstream packet of as many of the messages as fit it, from the
//! first on; who wants the rest asks again. What cannot be answered is not: the requester hears
//! nothing, and a [`Refusal`] is counted. An answer is longer than its request, so that a forged
//! source could be flooded with them; requests are limited by source and in all.
//!
//! Written by the thread that owns the request socket.

use super::history::{History, Missing};
use super::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, MessageRequest, Session, write_header};
use super::pack::BLOCK_OVERHEAD_BYTES;
use std::net::IpAddr;

/// Sources whose rate is remembered. Too low: many honest requesters share their limits with others.
/// Too high: memory, 32 bytes each.
const SOURCES: usize = 1_024;

/// Sources that share one place of the table's hash.
const WAYS: usize = 4;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not 20 bytes.
    Length,
    /// Of another session.
    Session,
    /// No message was asked for.
    ZeroCount,
    /// The first message is older than the history reaches.
    Gone,
    /// The first message has not been published.
    NotYet,
    /// The first message does not fit a packet.
    TooLong,
    /// The source, or all sources together, ask too often.
    Flood,
}

impl Refusal {
    /// All of them, in the order they are counted in.
    pub const ALL: [Self; 7] = [
        Self::Length,
        Self::Session,
        Self::ZeroCount,
        Self::Gone,
        Self::NotYet,
        Self::TooLong,
        Self::Flood,
    ];

    /// Its name in counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Session => "session",
            Self::ZeroCount => "zero_count",
            Self::Gone => "gone",
            Self::NotYet => "not_yet",
            Self::TooLong => "too_long",
            Self::Flood => "flood",
        }
    }
}

/// What a request server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests answered.
    pub answered: u64,
    /// Messages in the answers.
    pub messages: u64,
    /// Requests refused, by [`Refusal`] in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
}

impl RequestCounts {
    /// Adds another server's counts.
    pub fn add(&mut self, other: &Self) {
        let Self { answered, messages, refused } = other;
        self.answered += answered;
        self.messages += messages;
        for (own, more) in self.refused.iter_mut().zip(refused) {
            *own += more;
        }
    }

    /// Requests refused for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// How often requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests of one source a second, in the long run; 1 or more. Too low: a receiver with large
    /// gaps is not healed. Too high: one receiver takes the server from the others.
    pub source_per_s: u32,
    /// The same of all sources together.
    pub total_per_s: u32,
    /// Requests at once above the rate, by each source and in all; 1 or more.
    pub burst: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { source_per_s: 10_000, total_per_s: 50_000, burst: 1_000 }
    }
}

/// A token bucket as one instant: when it will be full again. Each token moves that on by the time a
/// token takes to come; there is one as long as it lies less than a burst ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_ns: u64,
}

impl Bucket {
    fn take(&mut self, now_ns: u64, per_s: u32, burst: u32) -> bool {
        let token_ns = 1_000_000_000 / u64::from(per_s.max(1));
        let full_ns = self.full_ns.max(now_ns) + token_ns;
        let is_there = full_ns - now_ns <= token_ns.max(1) * u64::from(burst.max(1));
        if is_there {
            self.full_ns = full_ns;
        }
        is_there
    }
}

#[derive(Clone, Copy, Default)]
struct Source {
    /// The address as IPv6, 0 where nobody is.
    address: u128,
    bucket: Bucket,
}

/// Answers requests from a [`History`].
pub struct RequestServer {
    session: Session,
    payload_bytes_max: usize,
    limits: RequestLimits,
    sources: Box<[[Source; WAYS]]>,
    total: Bucket,
    hash_seed: u64,
    counts: RequestCounts,
}

impl RequestServer {
    /// A server of `session` whose answers have at most `payload_bytes_max` bytes, header included.
    /// `hash_seed` makes it unpredictable which sources share a place; any value.
    pub fn new(
        session: Session,
        payload_bytes_max: usize,
        limits: RequestLimits,
        hash_seed: u64,
    ) -> Self {
        assert!(payload_bytes_max > HEADER_BYTES + BLOCK_OVERHEAD_BYTES, "{payload_bytes_max}");
        let sources = vec![[Source::default(); WAYS]; SOURCES / WAYS].into_boxed_slice();
        let (total, counts) = (Bucket::default(), RequestCounts::default());
        Self { session, payload_bytes_max, limits, sources, total, hash_seed, counts }
    }

    /// Answers for another session from here on.
    pub fn begin(&mut self, session: Session) {
        self.session = session;
    }

    /// Makes answers no longer than this, header included.
    pub fn limit(&mut self, payload_bytes_max: usize) {
        self.payload_bytes_max = payload_bytes_max.max(HEADER_BYTES + BLOCK_OVERHEAD_BYTES + 1);
    }

    /// What was done so far.
    pub fn counts(&self) -> RequestCounts {
        self.counts
    }

    /// Puts the answer to one datagram from `from` into `out` and returns how many messages it holds,
    /// or counts why there is none. `out` is emptied in any case.
    pub fn answer(
        &mut self,
        datagram: &[u8],
        from: IpAddr,
        now_ns: u64,
        history: &History,
        out: &mut Vec<u8>,
    ) -> Result<u16, Refusal> {
        out.clear();
        let answered = self.try_answer(datagram, from, now_ns, history, out);
        match answered {
            Ok(count) => {
                self.counts.answered += 1;
                self.counts.messages += u64::from(count);
            }
            Err(refusal) => {
                out.clear();
                self.counts.refused[refusal as usize] += 1;
            }
        }
        answered
    }

    fn try_answer(
        &mut self,
        datagram: &[u8],
        from: IpAddr,
        now_ns: u64,
        history: &History,
        out: &mut Vec<u8>,
    ) -> Result<u16, Refusal> {
        let request = MessageRequest::parse(datagram).ok_or(Refusal::Length)?;
        if !request.session.is_same(&self.session) {
            return Err(Refusal::Session);
        }
        if request.count == 0 {
            return Err(Refusal::ZeroCount);
        }
        match history.get(request.sequence) {
            Err(Missing::Gone) => return Err(Refusal::Gone),
            Err(Missing::NotYet) => return Err(Refusal::NotYet),
            Ok(_) => {}
        }
        if !self.admits(from, now_ns) {
            return Err(Refusal::Flood);
        }
        out.resize(self.payload_bytes_max, 0);
        // A count of 0xFFFF would say that the session is over.
        let count_max = request.count.min(COUNT_END_OF_SESSION - 1);
        let (count, bytes) = history.fill(request.sequence, count_max, &mut out[HEADER_BYTES..]);
        if count == 0 {
            return Err(Refusal::TooLong);
        }
        out.truncate(HEADER_BYTES + bytes);
        if let Some(header) = out.first_chunk_mut::<HEADER_BYTES>() {
            write_header(header, self.session, request.sequence, count);
        }
        Ok(count)
    }

    /// Whether `from` may be answered now. A source that is not remembered takes the place of the one
    /// whose bucket is fullest, which loses least by being forgotten.
    fn admits(&mut self, from: IpAddr, now_ns: u64) -> bool {
        let address = match from {
            IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
            IpAddr::V6(address) => u128::from(address),
        };
        let mix = (address as u64 ^ (address >> 64) as u64 ^ self.hash_seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = &mut self.sources[(mix >> 32) as usize % (SOURCES / WAYS)];
        let known = set.iter().position(|source| source.address == address);
        let way = known.unwrap_or_else(|| {
            let fullest = (0..WAYS).min_by_key(|way| set[*way].bucket.full_ns).unwrap_or(0);
            set[fullest] = Source { address, bucket: Bucket::default() };
            fullest
        });
        let limits = self.limits;
        set[way].bucket.take(now_ns, limits.source_per_s, limits.burst)
            && self.total.take(now_ns, limits.total_per_s, limits.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::moldudp64::{Kind, Packet, REQUEST_BYTES};
    use std::net::Ipv4Addr;

    const SESSION: Session = Session(*b"0123456789");
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 7));

    /// Messages 101 to 200, each of 30 bytes of its number.
    fn history() -> History {
        let mut history = History::new(1 << 16, 101);
        for number in 101..=200u8 {
            history.append(&[number; 30]);
        }
        history
    }

    fn server(limits: RequestLimits) -> RequestServer {
        RequestServer::new(SESSION, 200, limits, 5)
    }

    fn ask(sequence: u64, count: u16) -> [u8; REQUEST_BYTES] {
        MessageRequest { session: SESSION, sequence, count }.encode()
    }

    fn numbers(payload: &[u8]) -> Vec<u8> {
        let packet = Packet::parse(payload).unwrap();
        assert_eq!(packet.check(), Ok(payload.len() - HEADER_BYTES));
        let numbers: Vec<u8> = packet.messages().map(|message| message.unwrap()[0]).collect();
        assert_eq!(packet.kind, Kind::Messages(numbers.len() as u16));
        assert_eq!(packet.sequence, u64::from(numbers[0]));
        numbers
    }

    #[test]
    fn an_answer_holds_what_fits_from_the_first_on() {
        let (history, mut server) = (history(), server(RequestLimits::default()));
        let mut out = Vec::new();
        for (sequence, count, expected) in [
            (101, 1, 101..=101u8),
            (150, 3, 150..=152),
            // 20 + 5 * 32 bytes of 200.
            (150, 5, 150..=154),
            (150, 6, 150..=154),
            (150, u16::MAX, 150..=154),
            (199, 9, 199..=200),
        ] {
            let asked = server.answer(&ask(sequence, count), HERE, 0, &history, &mut out);
            assert_eq!(numbers(&out), expected.clone().collect::<Vec<_>>());
            assert_eq!(asked, Ok(expected.len() as u16));
        }
        let counts = server.counts();
        assert_eq!((counts.answered, counts.messages, counts.refused_total()), (6, 21, 0));
    }

    #[test]
    fn what_cannot_be_answered_is_refused_and_counted() {
        let (mut history, mut server) = (history(), server(RequestLimits::default()));
        history.append(&[0; 179]);
        let other =
            MessageRequest { session: Session(*b"012345678X"), sequence: 150, count: 1 }.encode();
        let mut out = vec![1];
        for (datagram, refusal) in [
            (&b""[..], Refusal::Length),
            (&ask(150, 1)[..19], Refusal::Length),
            (&[&ask(150, 1)[..], b"x"].concat(), Refusal::Length),
            (&other, Refusal::Session),
            (&ask(150, 0), Refusal::ZeroCount),
            (&ask(0, 1), Refusal::Gone),
            (&ask(100, 1), Refusal::Gone),
            (&ask(202, 1), Refusal::NotYet),
            (&ask(u64::MAX, u16::MAX), Refusal::NotYet),
            (&ask(201, 1), Refusal::TooLong),
        ] {
            assert_eq!(server.answer(datagram, HERE, 0, &history, &mut out), Err(refusal));
            assert!(out.is_empty(), "{refusal:?}");
        }
        assert_eq!(server.counts().refused, [3, 1, 1, 2, 2, 1, 0]);
        assert_eq!((server.counts().answered, server.counts().messages), (0, 0));
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }

    #[test]
    fn a_flood_is_refused_by_source_and_in_all() {
        let limits = RequestLimits { source_per_s: 10, total_per_s: 20, burst: 5 };
        let (history, mut server) = (history(), server(limits));
        let mut out = Vec::new();
        let mut answered = |server: &mut RequestServer, last: u8, now_ns: u64| {
            let from = IpAddr::V4(Ipv4Addr::new(198, 18, 0, last));
            (0..100)
                .filter(|_| server.answer(&ask(150, 1), from, now_ns, &history, &mut out).is_ok())
                .count()
        };
        let second = 1_000_000_000;
        assert_eq!(answered(&mut server, 1, second), 5, "the burst of one source");
        assert_eq!(answered(&mut server, 2, second), 0, "and that of all");
        assert_eq!(answered(&mut server, 1, second + second / 10), 1);
        assert_eq!(answered(&mut server, 2, second + second / 10), 1);
        // A place in all is not given to who is refused by source: 2 of 20 a second were taken.
        assert_eq!(answered(&mut server, 3, second + second / 2), 5);
        assert_eq!(answered(&mut server, 1, 9 * second), 5);
        let flood = Refusal::ALL.iter().position(|refusal| *refusal == Refusal::Flood).unwrap();
        assert_eq!(server.counts().refused[flood], 600 - 17);
    }

    #[test]
    fn any_bytes_are_safe() {
        use crate::replay::random::Random;
        let (history, mut server) = (history(), server(RequestLimits::default()));
        let (mut random, mut out) = (Random::new(3), Vec::new());
        for _ in 0..20_000 {
            let mut datagram = ask(95 + random.next_u64() % 120, random.next_u64() as u16);
            if random.below(4) == 0 {
                datagram[random.below(20) as usize] = random.next_u64() as u8;
            }
            let length = if random.below(8) == 0 { random.below(21) as usize } else { 20 };
            let answer = server.answer(&datagram[..length], HERE, 0, &history, &mut out);
            assert_eq!(answer.is_ok(), !out.is_empty());
            if let Ok(count) = answer {
                assert_eq!(numbers(&out).len(), usize::from(count));
            }
        }
    }
}
