//! The other end: a subscriber as a state machine, without socket and clock.
//!
//! ```text
//!   datagrams in -> receive -> events in order, each message once
//!                      |
//!   datagrams out <- poll: subscribe, renew, messages again
//! ```
//!
//! Owned by whoever has the socket. May allocate: it is not part of a worker.

use super::wire::{
    FLAG_IMAGE, FLAG_SUSPECT, HEAD_BYTES, Mode, Reason, Records, Reply, Request, State, Verb,
    Verdict,
};
use crate::feed::Symbol;
use crate::feed::moldudp64::{Kind, MessageRequest, Packet, Session};
use std::collections::BTreeMap;

/// Without an answer a request is sent again after so long.
const AGAIN_NS: u64 = 5_000_000;

/// The same of a renewal. Too low: a node that answers late is asked more the later it is. Too high: fewer of
/// them in a lease, all of which a line that loses may lose.
const RENEW_AGAIN_NS: u64 = 50_000_000;

/// Without a packet for so long nothing is to be believed: three heartbeats.
pub const SILENCE_LIMIT_NS: u64 = 3 * super::send::HEARTBEAT_NS;

/// Packets kept that came before their turn.
const HELD_MAX: usize = 1_024;

/// Ranges asked for at once: as many as a node answers.
const ASKED_MAX: usize = 4;

/// Messages asked for in a range: a packet has no room for more.
const MESSAGES_ASKED_MAX: u64 = 128;

/// What a subscriber wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Kinds of records.
    pub records: Records,
    /// Levels a side.
    pub depth: u8,
    /// How it is served.
    pub mode: Mode,
    /// Microseconds of a round, where conflated.
    pub interval_us: u32,
    /// Symbols; none stands for all.
    pub symbols: Vec<Symbol>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A record.
    Record {
        /// Code of its kind.
        kind: u8,
        /// Whether it is a part of an image.
        is_image: bool,
        /// Records of the stock left out before it.
        left_out: u32,
        /// As in the cache.
        record: &'a [u8],
    },
    /// What the node says of everything it sent.
    State(State),
    /// Nothing that was received before holds.
    ImageBegins,
    /// Everything holds that was received since it began.
    ImageEnds,
    /// The node changed the mode.
    Mode(Mode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not subscribed.
    Apart,
    Subscribed(Session),
    /// Not wanted by the node.
    Refused(Reason),
}

/// One subscription from the subscriber's side.
#[derive(Debug)]
pub struct Subscriber {
    wanted: Wanted,
    number: u64,
    cookie: u64,
    stage: Stage,
    expected: u64,
    /// The highest number that the node is known to have sent, and one.
    known_next: u64,
    held: BTreeMap<u64, Vec<u8>>,
    lease_ns: u64,
    /// When ranges were asked for, by their first numbers.
    asked_ns: BTreeMap<u64, u64>,
    renewed_ns: Option<u64>,
    /// Whether the node has answered since.
    is_renewed: bool,
    heard_ns: u64,
    is_live: bool,
    has_image: bool,
    ended: Option<Reason>,
}

impl Subscriber {
    /// A subscription by this name, which is not there yet.
    pub fn new(number: u64, wanted: Wanted) -> Self {
        Self {
            wanted,
            number,
            cookie: 0,
            stage: Stage::Apart,
            expected: 1,
            known_next: 1,
            held: BTreeMap::new(),
            lease_ns: 0,
            asked_ns: BTreeMap::new(),
            renewed_ns: None,
            is_renewed: false,
            heard_ns: 0,
            is_live: false,
            has_image: false,
            ended: None,
        }
    }

    /// The session, once there is one.
    pub fn session(&self) -> Option<Session> {
        match self.stage {
            Stage::Subscribed(session) => Some(session),
            _ => None,
        }
    }

    /// Why the node refuses.
    pub fn refused(&self) -> Option<Reason> {
        match self.stage {
            Stage::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// Why the last subscription ended; the next has been asked for since.
    pub fn ended(&self) -> Option<Reason> {
        self.ended
    }

    /// Number of the next message.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Whether what was received holds true: an image has come whole, nothing is missing, the node says so and
    /// is not silent.
    pub fn is_believable(&self, now_ns: u64) -> bool {
        self.is_live
            && self.has_image
            && self.expected >= self.known_next
            && now_ns.saturating_sub(self.heard_ns) <= SILENCE_LIMIT_NS
    }

    /// The next datagram to send, if one is due. To be called until it is `None`.
    pub fn poll(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        let is_due = |since: Option<u64>, after_ns: u64| {
            since.is_none_or(|since| now_ns.saturating_sub(since) >= after_ns)
        };
        match self.stage {
            Stage::Refused(_) => None,
            Stage::Apart => is_due(self.renewed_ns, AGAIN_NS).then(|| {
                self.renewed_ns = Some(now_ns);
                self.request(Verb::Subscribe, &self.wanted.symbols)
            }),
            Stage::Subscribed(session) => {
                // However short a lease the node says: who polls comes to an end.
                let quarter_ns = (self.lease_ns / 4).max(AGAIN_NS);
                let after_ns =
                    if self.is_renewed { quarter_ns } else { quarter_ns.min(RENEW_AGAIN_NS) };
                if is_due(self.renewed_ns, after_ns) {
                    (self.renewed_ns, self.is_renewed) = (Some(now_ns), false);
                    return Some(self.request(Verb::Renew, &[]));
                }
                let (sequence, end) = self
                    .missing()
                    .into_iter()
                    .flatten()
                    .find(|(first, _)| is_due(self.asked_ns.get(first).copied(), AGAIN_NS))?;
                self.asked_ns.insert(sequence, now_ns);
                let count = (end - sequence).min(MESSAGES_ASKED_MAX) as u16;
                Some(MessageRequest { session, sequence, count }.encode().to_vec())
            }
        }
    }

    /// The first ranges of numbers that are missing.
    fn missing(&self) -> [Option<(u64, u64)>; ASKED_MAX] {
        let mut missing = [None; ASKED_MAX];
        let mut places = missing.iter_mut();
        let mut at = self.expected;
        let held = self.held.iter().map(|(sequence, datagram)| {
            let packet = Packet::parse(datagram);
            (*sequence, packet.map_or(*sequence, |packet| packet.next_sequence()))
        });
        for (sequence, next_sequence) in held.chain([(self.known_next, self.known_next)]) {
            if sequence > at {
                let Some(place) = places.next() else { break };
                *place = Some((at, sequence));
            }
            at = at.max(next_sequence);
        }
        missing
    }

    /// The datagram that ends the subscription.
    pub fn unsubscribe(&self) -> Vec<u8> {
        self.request(Verb::Unsubscribe, &[])
    }

    fn request(&self, verb: Verb, symbols: &[Symbol]) -> Vec<u8> {
        let Wanted { records, depth, mode, interval_us, .. } = self.wanted;
        let mut request = Request::to_all(self.number, records, depth);
        (request.verb, request.mode, request.interval_us) = (verb, mode, interval_us);
        (request.cookie, request.next_sequence) = (self.cookie, self.expected);
        request.encode(symbols)
    }

    /// Takes in a datagram from the node's endpoint; `take` gets what there is of it, in order.
    pub fn receive(&mut self, now_ns: u64, datagram: &[u8], mut take: impl FnMut(Event<'_>)) {
        if let Some(reply) = Reply::parse(datagram) {
            self.hear(now_ns, &reply, &mut take);
            return;
        }
        let Stage::Subscribed(session) = self.stage else { return };
        let packet = Packet::parse(datagram).ok().filter(|packet| {
            packet.check().is_ok() && packet.session == session && packet.sequence > 0
        });
        let Some(packet) = packet else { return };
        self.heard_ns = now_ns;
        self.known_next = self.known_next.max(packet.next_sequence());
        if !matches!(packet.kind, Kind::Messages(_)) {
            return;
        }
        if packet.sequence > self.expected {
            if self.held.len() < HELD_MAX {
                self.held.insert(packet.sequence, datagram.to_vec());
            }
            return;
        }
        self.apply(&packet, &mut take);
        self.take_held(&mut take);
    }

    fn take_held(&mut self, take: &mut impl FnMut(Event<'_>)) {
        while let Some(first) = self.held.first_entry()
            && *first.key() <= self.expected
        {
            let datagram = first.remove();
            if let Ok(packet) = Packet::parse(&datagram) {
                self.apply(&packet, take);
            }
        }
    }

    fn hear(&mut self, now_ns: u64, reply: &Reply, take: &mut impl FnMut(Event<'_>)) {
        if reply.number != self.number {
            return;
        }
        match (reply.verdict, self.stage) {
            (Verdict::Cookie, _) => {
                self.cookie = reply.cookie;
                self.renewed_ns = None;
            }
            (Verdict::Refused, Stage::Apart) => self.stage = Stage::Refused(reply.reason),
            (Verdict::Accepted, Stage::Apart) => {
                self.stage = Stage::Subscribed(reply.session);
                self.lease_ns = u64::from(reply.lease_ms) * 1_000_000;
                self.is_renewed = true;
                (self.expected, self.known_next) = (1, 1);
                self.held.clear();
                self.heard_ns = now_ns;
            }
            (Verdict::Ended, Stage::Subscribed(_)) => {
                self.ended = Some(reply.reason);
                self.leave();
            }
            (Verdict::Accepted | Verdict::Gone, Stage::Subscribed(session))
                if session == reply.session =>
            {
                self.is_renewed |= reply.verdict == Verdict::Accepted;
                self.skip_to(reply.image_sequence, take);
            }
            _ => {}
        }
    }

    /// Subscribes anew.
    fn leave(&mut self) {
        self.stage = Stage::Apart;
        (self.is_live, self.has_image, self.renewed_ns) = (false, false, None);
    }

    /// An image begins at a number: nothing before it is needed.
    fn skip_to(&mut self, image_sequence: u64, take: &mut impl FnMut(Event<'_>)) {
        if image_sequence > self.expected {
            self.expected = image_sequence;
            self.known_next = self.known_next.max(image_sequence);
            self.has_image = false;
            self.take_held(take);
        }
    }

    /// Hands over what is new of a packet that is not ahead.
    fn apply(&mut self, packet: &Packet<'_>, take: &mut impl FnMut(Event<'_>)) {
        for (sequence, message) in (packet.sequence..).zip(packet.messages().flatten()) {
            if sequence != self.expected {
                continue;
            }
            self.expected += 1;
            self.interpret(message, take);
        }
        self.asked_ns = self.asked_ns.split_off(&self.expected);
    }

    fn interpret(&mut self, message: &[u8], take: &mut impl FnMut(Event<'_>)) {
        let Some((head, rest)) = message.split_first_chunk::<HEAD_BYTES>() else { return };
        let [kind, flags, _, _, left_out @ ..] = *head;
        self.is_live = flags & FLAG_SUSPECT == 0;
        match (kind, rest.first()) {
            (b'C', Some(code)) => {
                let states = [State::Suspect, State::Live, State::Session];
                if let Some(state) = states.get(usize::from(*code)) {
                    take(Event::State(*state));
                }
            }
            (b'I', Some(b'B')) => {
                self.has_image = false;
                take(Event::ImageBegins);
            }
            (b'I', Some(b'E')) => {
                self.has_image = true;
                take(Event::ImageEnds);
            }
            (b'M', Some(code)) => {
                let mode = if *code == b'C' { Mode::Conflated } else { Mode::Full };
                self.wanted.mode = mode;
                take(Event::Mode(mode));
            }
            (b'B' | b'L' | b'S' | b'T' | b'D' | b'V' | b'W', Some(_)) => take(Event::Record {
                kind,
                is_image: flags & FLAG_IMAGE != 0,
                left_out: u32::from_le_bytes(left_out),
                record: rest,
            }),
            // A later version may say more.
            _ => {}
        }
    }
}
