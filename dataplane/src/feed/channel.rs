//! One channel: a line's packets in, its records and its state out.
//!
//! ```text
//!  payload -> framing -> sequencer -> decode -> books -> changed locates -> records -> Keyspace
//!                          |                                                   ^
//!                          +-- gap, late join, session roll ---- LiveUntil / Suspect
//! ```
//!
//! The channel is live only while four things hold: the sequencer has no doubt, no write waits to be
//! tried again, the line has said something current within the silence limit, and its worker runs.
//! Suspect is stored *before* the first record that may be wrong, live *after* the last that makes
//! things right.

use super::Venue;
use super::book::{Bbo, BookLimits, Books};
use super::counters::Counters;
use super::itch::{DecodeError, Message};
use super::moldudp64::{Kind, Packet, Session};
use super::record::{BboRecord, FLAG_PARTIAL, Key, LastRecord, Origin, Value};
use super::session::{Doubt, Sequencer, Start, Step};
use crate::app::{ChannelState, Keyspace};

/// How long keys are believed after their worker last renewed them. Housekeeping must come round in
/// less than half of it. Too low: the keys of a worker that sleeps between packets turn suspect. Too
/// high: the prices of a dead worker are believed so long.
pub const LEASE_NS: u64 = 100_000_000;

/// Failed writes tried again per housekeeping turn. Too low: a channel is suspect longer after the
/// keyspace was full. Too high: one turn delays the packets behind it.
const RETRIES: usize = 16;

/// What a channel is.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSpec {
    /// Venue part of its keys.
    pub venue: Venue,
    /// Channel number in the keyspace, 1 to 255; 0 stands for keys that clients own.
    pub channel: u8,
    /// What to do when a session is first seen in its middle.
    pub start: Start,
    /// Silence after which the channel is suspect. MoldUDP64 sends a heartbeat about once a second.
    /// Too low: a late heartbeat turns the keys suspect. Too high: a dead line is believed so long.
    pub silence_limit_ns: u64,
    /// How much its books may hold.
    pub books: BookLimits,
}

/// What the keyspace holds under one key of this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    /// Nothing.
    #[default]
    Nothing,
    /// What was meant to be there.
    Current,
    /// An older value, because a write failed.
    Older,
}

/// The publishing state of one stock locate.
#[derive(Clone, Copy, Default)]
struct Publication {
    epoch: u32,
    /// Whether the locate is in the list of changes.
    listed: bool,
    /// Whether the locate is in the list of writes to try again.
    retried: bool,
    /// The packet being applied changed the book, or the trade.
    book_changed: bool,
    trade_changed: bool,
    book_sequence: u64,
    book_exchange_ns: u64,
    trade_sequence: u64,
    bbo: Bbo,
    held: [Held; 2],
}

/// One channel. Written by the worker that owns the session.
pub struct Channel {
    spec: ChannelSpec,
    sequencer: Sequencer,
    books: Books,
    publications: Box<[Publication]>,
    epoch: u32,
    /// Locates the present packet changed, and those with a write to try again.
    changed: Vec<u16>,
    retries: Vec<u16>,
    /// Keys that hold an older value than they should.
    older: u32,
    heard_ns: u64,
    live_until_ns: u64,
    begun: bool,
    counters: Counters,
}

impl Channel {
    /// A channel that has heard nothing. Allocates all it will ever need and touches it. Panics on
    /// channel 0 and on capacities that [`Books`] refuses.
    pub fn new(spec: ChannelSpec) -> Self {
        assert!(spec.channel != 0, "channel 0 stands for keys that clients own");
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let publication = Publication { listed: true, ..Publication::default() };
        Self {
            sequencer: Sequencer::new(spec.start),
            books: Books::new(spec.books),
            publications: vec![publication; 1 << 16].into_boxed_slice(),
            epoch: 1,
            changed: Vec::with_capacity(1 << 16),
            retries: Vec::with_capacity(1 << 16),
            older: 0,
            heard_ns: 0,
            live_until_ns: 0,
            begun: false,
            counters: Counters::default(),
            spec,
        }
    }

    /// What it is.
    pub fn spec(&self) -> &ChannelSpec {
        &self.spec
    }

    /// Its books.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Its sequencing state.
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// Its counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether its keys may be believed at this instant.
    pub fn is_live(&self, now_ns: u64) -> bool {
        now_ns <= self.live_until_ns
    }

    /// Takes the channel over: what another worker published on it is forgotten. Must be called before
    /// this worker serves the first read; the first packet does it if nobody has.
    pub fn begin<K: Keyspace>(&mut self, keyspace: &mut K) {
        self.begun = true;
        keyspace.begin_channel(self.spec.channel);
    }

    /// Takes in one datagram's payload, captured at `rx_ns`.
    pub fn handle<K: Keyspace>(&mut self, rx_ns: u64, payload: &[u8], keyspace: &mut K) {
        if !self.begun {
            self.begin(keyspace);
        }
        self.counters.packets += 1;
        let packet = match Packet::parse(payload).and_then(|packet| packet.check().map(|_| packet))
        {
            Ok(packet) => packet,
            Err(error) => {
                self.counters.count_malformed(error);
                return;
            }
        };
        let outcome = self.sequencer.accept(&packet);
        if outcome.stale {
            self.counters.stale_packets += 1;
            return;
        }
        match packet.kind {
            Kind::Heartbeat => self.counters.heartbeats += 1,
            Kind::EndOfSession => self.counters.ends += 1,
            Kind::Messages(_) => {}
        }
        self.counters.duplicate_messages += outcome.duplicate_messages;
        if outcome.duplicate_messages != 0 && outcome.step == Step::Nothing {
            self.counters.duplicate_packets += 1;
        }
        if outcome.gap_messages != 0 {
            self.counters.gaps += 1;
            self.counters.gap_messages += outcome.gap_messages;
        }
        if outcome.new_session {
            self.begin_session(keyspace);
        }
        if let Step::Apply { skip, sequence } = outcome.step {
            self.apply(&packet, skip, sequence);
        }
        if self.sequencer.doubt().is_some() {
            self.set_suspect(keyspace);
        }
        self.publish(rx_ns, packet.session, keyspace);
        // A copy of an old packet says nothing about the present.
        if packet.next_sequence() == self.sequencer.expected() {
            self.heard_ns = rx_ns;
            self.renew(rx_ns, keyspace);
        }
    }

    /// Renews the channel's lease and tries failed writes again.
    pub fn housekeeping<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        let Some(session) = self.sequencer.session() else { return };
        for _ in 0..RETRIES.min(self.retries.len()) {
            let Some(locate) = self.retries.pop() else { break };
            self.publications[usize::from(locate)].retried = false;
            for value in [Value::Bbo, Value::Last] {
                if self.publications[usize::from(locate)].held[value as usize] == Held::Older {
                    self.write(locate, value, now_ns, session, keyspace);
                }
            }
        }
        self.renew(now_ns, keyspace);
    }

    fn begin_session<K: Keyspace>(&mut self, keyspace: &mut K) {
        self.counters.sessions += 1;
        self.set_suspect(keyspace);
        keyspace.begin_channel(self.spec.channel);
        self.books.clear();
        self.epoch += 1;
        self.retries.clear();
        self.older = 0;
    }

    fn publication(&mut self, locate: u16) -> &mut Publication {
        let publication = &mut self.publications[usize::from(locate)];
        if publication.epoch != self.epoch {
            *publication = Publication { epoch: self.epoch, ..Publication::default() };
        }
        publication
    }

    fn apply(&mut self, packet: &Packet<'_>, skip: u16, first_sequence: u64) {
        let blocks = packet.messages().skip(usize::from(skip)).flatten();
        for (sequence, bytes) in (first_sequence..).zip(blocks) {
            self.counters.messages += 1;
            let message = match Message::decode(bytes) {
                Ok(message) => message,
                Err(DecodeError::UnknownType { .. }) => {
                    self.counters.unknown_messages += 1;
                    continue;
                }
                Err(DecodeError::Empty | DecodeError::WrongLength { .. }) => {
                    self.counters.malformed_messages += 1;
                    self.sequencer.distrust(Doubt::Malformed);
                    continue;
                }
            };
            let (effect, problem) = self.books.apply(&message);
            if let Some(problem) = problem {
                self.counters.count(problem);
                if problem.spoils() {
                    self.sequencer.distrust(Doubt::Book(problem));
                }
            }
            if !effect.book && !effect.trade {
                continue;
            }
            let publication = self.publication(effect.locate);
            if effect.book {
                publication.book_changed = true;
                publication.book_sequence = sequence;
                publication.book_exchange_ns = message.common().timestamp.0;
            }
            if effect.trade {
                publication.trade_changed = true;
                publication.trade_sequence = sequence;
            }
            if !publication.listed {
                publication.listed = true;
                // Within capacity: a locate is in the list at most once.
                self.changed.push(effect.locate);
            }
        }
    }

    /// Writes the records of every book that the packet changed.
    fn publish<K: Keyspace>(&mut self, rx_ns: u64, session: Session, keyspace: &mut K) {
        while let Some(locate) = self.changed.pop() {
            let bbo = self.books.bbo(locate);
            let publication = self.publication(locate);
            let trade = publication.trade_changed;
            let moved =
                publication.bbo != bbo || publication.held[Value::Bbo as usize] != Held::Current;
            let book = publication.book_changed && moved;
            publication.listed = false;
            publication.book_changed = false;
            publication.trade_changed = false;
            if book {
                self.write(locate, Value::Bbo, rx_ns, session, keyspace);
            }
            if trade {
                self.write(locate, Value::Last, rx_ns, session, keyspace);
            }
        }
    }

    /// Writes one record as the books stand now.
    fn write<K: Keyspace>(
        &mut self,
        locate: u16,
        value: Value,
        capture_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        let symbol = self.books.symbol(locate);
        let key = symbol.and_then(|symbol| Key::new(&self.spec.venue, symbol, value));
        let (Some(symbol), Some(key)) = (symbol, key) else {
            self.counters.unnamed += 1;
            return;
        };
        let publication = &mut self.publications[usize::from(locate)];
        let mut origin = Origin {
            locate,
            flags: if self.sequencer.is_partial() { FLAG_PARTIAL } else { 0 },
            source_sequence: publication.book_sequence,
            capture_ns,
            exchange_ns: publication.book_exchange_ns,
            symbol,
            session,
        };
        let channel = self.spec.channel;
        let result = match value {
            Value::Bbo => {
                publication.bbo = self.books.bbo(locate);
                let record = BboRecord { origin, bbo: publication.bbo };
                keyspace.put(key.as_bytes(), &record.encode(), channel, capture_ns)
            }
            Value::Last => {
                let trade = self.books.last_trade(locate);
                origin.source_sequence = publication.trade_sequence;
                origin.exchange_ns = trade.map_or(0, |trade| trade.exchange_ns);
                keyspace.put(
                    key.as_bytes(),
                    &LastRecord { origin, trade }.encode(),
                    channel,
                    capture_ns,
                )
            }
        };
        let held = &mut publication.held[value as usize];
        let before = *held;
        *held = match (result, before) {
            (Ok(()), _) => Held::Current,
            // A first write that failed left no key behind: a miss is honest.
            (Err(_), Held::Nothing) => Held::Nothing,
            (Err(_), _) => Held::Older,
        };
        match result {
            Ok(()) => self.counters.published += 1,
            Err(_) => self.counters.publish_failures += 1,
        }
        self.older -= u32::from(before == Held::Older);
        if *held == Held::Older {
            self.older += 1;
            self.set_suspect(keyspace);
            if !std::mem::replace(&mut self.publications[usize::from(locate)].retried, true) {
                self.retries.push(locate);
            }
        }
    }

    fn set_suspect<K: Keyspace>(&mut self, keyspace: &mut K) {
        if self.live_until_ns != 0 {
            self.live_until_ns = 0;
            self.counters.suspects += 1;
            keyspace.set_channel(self.spec.channel, ChannelState::Suspect);
        }
    }

    fn renew<K: Keyspace>(&mut self, now_ns: u64, keyspace: &mut K) {
        if self.sequencer.doubt().is_some() || self.older != 0 {
            return;
        }
        let silent_ns = self.heard_ns.saturating_add(self.spec.silence_limit_ns);
        let until_ns = silent_ns.min(now_ns.saturating_add(LEASE_NS));
        // Half a lease is left: no store yet.
        if until_ns > self.live_until_ns.saturating_add(LEASE_NS / 2) || self.live_until_ns == 0 {
            self.live_until_ns = until_ns;
            keyspace.set_channel(self.spec.channel, ChannelState::LiveUntil(until_ns));
        }
    }
}
