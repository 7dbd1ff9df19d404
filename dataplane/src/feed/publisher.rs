//! The books of one channel and what of them is published.
//!
//! ```text
//!  messages in order -> decode -> books -> changed locates -> records -> Keyspace
//!                                                               |
//!                             LiveUntil / Suspect <-------------+ a refused write
//! ```
//!
//! Which messages those are, and when their sequence leaves a doubt, is [`super::channel`]'s matter.

mod facts;
mod publication;
mod tops;
mod write;

use super::book::{AHEAD_MAX, BookLimits, Books};
use super::channel::{ChannelSpec, LEASE_NS};
use super::counters::Counters;
use super::iex::Quotes;
use super::iex::Tops;
use super::itch::{DecodeError, Itch, Message};
use super::moldudp64::{Packet, Session};
use super::protocol::{Decoder, Protocol};
use super::record::Value;
use super::republish::show::{Show, ShowStanding};
use super::session::Doubt;
use super::statistics::Statistics;
use super::status::{Changed, Statuses};
use super::trades::Counted;
use crate::app::{ChannelState, Keyspace};
use facts::Facts;
use nautilus_shm::front_region::SnapshotMessage;
use publication::{Publication, Stored};
use tops::TopsState;

/// Failed writes tried again per housekeeping turn. Too low: a channel is suspect longer after the
/// keyspace was full. Too high: one turn delays the packets behind it.
const RETRIES: usize = 16;

/// Books and their records. Written by the worker that owns the channel.
pub struct Publisher {
    spec: ChannelSpec,
    books: Books,
    /// In place of books where the protocol says quotes.
    tops: Option<Box<TopsState>>,
    publications: Box<[Publication]>,
    facts: Facts,
    /// Of the venue's records: status, statistics.
    venue_stored: [Stored; 2],
    venue_changed: [bool; 2],
    venue_captured_ns: [u64; 2],
    venue_published_ns: u64,
    venue_statistics: Statistics,
    epoch: u32,
    /// Locates the present packet changed, and those with a write to try again.
    changed: Vec<u16>,
    retries: Vec<u16>,
    /// Locates of a snapshot that are still to be published, and the sequence number it stands for.
    backlog: Vec<u16>,
    snapshot_sequence: u64,
    /// Keys that hold an older value than they should.
    older: u32,
    /// The books hold only what was added since a late join.
    partial: bool,
    live_until_ns: u64,
    /// What shows the books to those who take snapshots of this node.
    pub(super) show: Option<Box<Show>>,
    pub(super) counters: Counters,
}

impl Publisher {
    /// Empty books of a suspect channel. Allocates all it will ever need and touches it.
    pub fn new(spec: ChannelSpec) -> Self {
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let publication = Publication { listed: true, ..Publication::default() };
        let (books, tops) = match spec.protocol {
            Protocol::NasdaqItch50 => (Books::new(spec.books), None),
            Protocol::IexTops16 => {
                (Books::none(), Some(Box::new(TopsState::new(spec.books.hash_seed))))
            }
        };
        Self {
            books,
            tops,
            publications: vec![publication; 1 << 16].into_boxed_slice(),
            facts: Facts::new(),
            venue_stored: [Stored::Nothing; 2],
            venue_changed: [false; 2],
            venue_captured_ns: [0; 2],
            venue_published_ns: 0,
            venue_statistics: Statistics::default(),
            epoch: 1,
            changed: Vec::with_capacity(1 << 16),
            retries: Vec::with_capacity(1 << 16),
            backlog: Vec::with_capacity(1 << 16),
            snapshot_sequence: 0,
            older: 0,
            partial: false,
            live_until_ns: 0,
            show: None,
            counters: Counters::default(),
            spec,
        }
    }

    /// Bytes that it takes of these: books or quotes, and what is published of them.
    pub fn memory_bytes(protocol: Protocol, books: &BookLimits) -> u64 {
        let of_books = match protocol {
            Protocol::NasdaqItch50 => Books::memory_bytes(books),
            Protocol::IexTops16 => Quotes::BYTES,
        };
        let lists = 3 * size_of::<u16>();
        of_books + Facts::BYTES + ((size_of::<Publication>() + lists) << 16) as u64
    }

    /// The books; none where the protocol has no orders.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Stocks of which there is a book, or a quote.
    pub fn stock_count(&self) -> u32 {
        self.tops.as_ref().map_or(self.books.book_count(), |tops| tops.quotes.len())
    }

    /// What is known of stocks and venue beside the books.
    pub fn statuses(&self) -> &Statuses {
        &self.facts.statuses
    }

    /// What was added and traded in the session, over all stocks.
    pub fn statistics(&self) -> &Statistics {
        &self.facts.statistics
    }

    /// The last instant at which the channel's keys may be believed, 0 when it is suspect.
    pub fn live_until_ns(&self) -> u64 {
        self.live_until_ns
    }

    /// Forgets everything of the session before.
    pub fn begin_session<K: Keyspace>(&mut self, partial: bool, keyspace: &mut K) {
        self.counters.sessions += 1;
        self.forget(keyspace);
        self.partial = partial;
    }

    /// Forgets the books, to make them anew from a snapshot.
    pub fn begin_snapshot<K: Keyspace>(&mut self, keyspace: &mut K) {
        self.forget(keyspace);
        self.partial = false;
    }

    /// The snapshot is whole, with every message before `next_sequence` in it. What is not published yet is
    /// published by [`Self::publish_backlog`].
    pub fn end_snapshot(&mut self, next_sequence: u64) {
        std::mem::swap(&mut self.changed, &mut self.backlog);
        self.snapshot_sequence = next_sequence - 1;
        self.facts.statuses.number_venue(self.snapshot_sequence);
    }

    /// Whether symbols of a snapshot wait to be published; the channel is suspect meanwhile.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn forget<K: Keyspace>(&mut self, keyspace: &mut K) {
        self.set_suspect(keyspace);
        keyspace.begin_channel(self.spec.channel);
        self.books.clear();
        if let Some(tops) = &mut self.tops {
            tops.quotes.clear();
        }
        if let Some(show) = &mut self.show {
            show.clear();
        }
        self.facts.clear();
        self.venue_stored = [Stored::Nothing; 2];
        self.venue_changed = [false; 2];
        self.venue_captured_ns = [0; 2];
        self.venue_statistics = Statistics::default();
        self.epoch += 1;
        self.changed.clear();
        self.backlog.clear();
        self.retries.clear();
        self.older = 0;
    }

    /// Shows some more of the books, if somebody wants them; see [`Show::turn`]. Returns whether somebody does.
    #[inline]
    pub fn show(
        &mut self,
        standing: impl FnOnce() -> ShowStanding,
        push: impl FnMut(&SnapshotMessage<'_>) -> bool,
    ) -> bool {
        let Some(show) = self.show.as_mut().filter(|show| show.is_open()) else { return false };
        show.turn(&self.books, &standing(), push);
        true
    }

    /// Tries failed writes again, a bounded number of them.
    pub fn retry<K: Keyspace>(&mut self, now_ns: u64, session: Session, keyspace: &mut K) {
        for _ in 0..RETRIES.min(self.retries.len()) {
            let Some(locate) = self.retries.pop() else { break };
            self.publications[usize::from(locate)].retried = false;
            for value in self.values() {
                if self.publications[usize::from(locate)].stored[value.kind()] == Stored::Older {
                    self.write(locate, value, now_ns, session, keyspace);
                }
            }
        }
        self.publish_venue(now_ns, session, keyspace);
    }

    /// Every value that a stock may have.
    fn values(&self) -> [Value; Value::KINDS] {
        let depth = Value::Depth(self.spec.depth);
        [Value::Bbo, Value::Last, Value::Status, Value::Statistics, depth]
    }

    fn publication(&mut self, locate: u16) -> &mut Publication {
        let publication = &mut self.publications[usize::from(locate)];
        if publication.epoch != self.epoch {
            *publication = Publication { epoch: self.epoch, ..Publication::default() };
        }
        publication
    }

    /// Applies the messages of a packet after the first `skip`, the first of them with number
    /// `first_sequence`. Returns the first reason why the books cannot be believed from now on.
    pub fn apply(&mut self, packet: &Packet<'_>, skip: u16, first_sequence: u64) -> Option<Doubt> {
        match self.spec.protocol {
            Protocol::NasdaqItch50 => self.apply_as::<Itch>(packet, skip, first_sequence),
            Protocol::IexTops16 => self.apply_as::<Tops>(packet, skip, first_sequence),
        }
    }

    fn apply_as<D: Decoder>(
        &mut self,
        packet: &Packet<'_>,
        skip: u16,
        first_sequence: u64,
    ) -> Option<Doubt> {
        let mut doubt = None;
        let mut numbered = (first_sequence..).zip(D::messages(packet, skip));
        let mut looked_at = 0;
        loop {
            if looked_at == 0 {
                D::look_ahead(self, numbered.clone().map(|(_, bytes)| bytes));
                looked_at = AHEAD_MAX;
            }
            looked_at -= 1;
            let Some((sequence, bytes)) = numbered.next() else { break };
            self.counters.messages += 1;
            doubt = doubt.or(self.apply_one_as::<D>(sequence, bytes));
        }
        doubt
    }

    /// Applies one message of a snapshot, which is ITCH. Returns the reason why the books cannot be believed
    /// from now on, if there is one.
    pub fn apply_one(&mut self, sequence: u64, bytes: &[u8]) -> Option<Doubt> {
        self.apply_one_as::<Itch>(sequence, bytes)
    }

    #[inline]
    fn apply_one_as<D: Decoder>(&mut self, sequence: u64, bytes: &[u8]) -> Option<Doubt> {
        match D::decode(bytes) {
            Ok(message) => D::apply(self, &message, bytes, sequence),
            Err(DecodeError::UnknownType { .. }) => {
                self.counters.unknown_messages += 1;
                None
            }
            Err(DecodeError::Empty | DecodeError::WrongLength { .. }) => {
                self.counters.malformed_messages += 1;
                Some(Doubt::Malformed)
            }
        }
    }

    /// Applies one message of ITCH to the books.
    #[inline]
    pub(super) fn apply_itch(
        &mut self,
        message: &Message<'_>,
        bytes: &[u8],
        sequence: u64,
    ) -> Option<Doubt> {
        if let Some(show) = &mut self.show {
            show.note(&self.books, message, bytes);
        }
        let mut doubt = None;
        let (effect, problem) = self.books.apply(message);
        if let Some(problem) = problem {
            self.counters.count(problem);
            if problem.spoils() {
                doubt = Some(Doubt::Book(problem));
            }
        }
        if !effect.book && !effect.trade {
            self.note_fact(message, sequence);
            return doubt;
        }
        if effect.trade {
            self.note_trade(effect.locate, message, sequence);
        }
        let is_new = matches!(message, Message::AddOrder(_) | Message::AddOrderAttributed(_));
        if is_new {
            self.counters.orders_added += 1;
            self.facts.statistics.orders += 1;
        }
        let publication = self.publication(effect.locate);
        if effect.book {
            publication.statistics.orders += u64::from(is_new);
            publication.book_changed = true;
            publication.book_sequence = sequence;
            publication.book_exchange_ns = message.common().timestamp.0;
        }
        if effect.trade {
            publication.trade_changed = true;
        }
        self.list(effect.locate);
        doubt
    }

    /// Something of a stock is to be published.
    #[inline]
    fn list(&mut self, locate: u16) {
        let publication = self.publication(locate);
        if !publication.listed {
            publication.listed = true;
            // Within capacity: a locate is in one list at most once.
            self.changed.push(locate);
        }
    }

    /// The last trade of a stock has changed: there was one, or it was broken.
    fn note_trade(&mut self, locate: u16, message: &Message<'_>, sequence: u64) {
        if let Message::BrokenTrade(broken) = message {
            self.note_broken(broken.match_number(), sequence, message.common().timestamp.0);
        } else if let Some(trade) = self.books.last_trade(locate) {
            let price = u64::from(trade.price);
            let counted = Counted { locate, price, shares: trade.shares };
            self.counters.add_trade(price, trade.shares);
            self.publication(locate);
            let publication = &mut self.publications[usize::from(locate)];
            self.facts.trade(trade.match_number, counted, &mut publication.statistics);
        }
        let publication = self.publication(locate);
        publication.trade_sequence = sequence;
        publication.trade_exchange_ns = message.common().timestamp.0;
    }

    fn note_broken(&mut self, match_number: u64, sequence: u64, exchange_ns: u64) {
        let Some(Counted { locate, price, shares }) = self.facts.take_broken(match_number) else {
            return;
        };
        let publication = self.publication(locate);
        publication.statistics.take_out(price, shares);
        publication.trade_changed = true;
        publication.trade_sequence = sequence;
        publication.trade_exchange_ns = exchange_ns;
        self.list(locate);
    }

    /// A message that changes no book and is no trade.
    fn note_fact(&mut self, message: &Message<'_>, sequence: u64) {
        if let Message::BrokenTrade(broken) = message {
            let exchange_ns = message.common().timestamp.0;
            return self.note_broken(broken.match_number(), sequence, exchange_ns);
        }
        match self.facts.statuses.apply(message, sequence) {
            Changed::Nothing => {}
            Changed::Stock => {
                let locate = message.common().stock_locate;
                self.publication(locate).status_changed = true;
                self.list(locate);
            }
            Changed::Venue => self.venue_changed[0] = true,
            Changed::UnknownMarket => self.counters.invalid_messages += 1,
        }
    }

    /// Writes the records of every book that the packet changed.
    pub fn publish<K: Keyspace>(&mut self, rx_ns: u64, session: Session, keyspace: &mut K) {
        while let Some(locate) = self.changed.pop() {
            self.publish_one(locate, rx_ns, session, keyspace);
        }
        if self.venue_changed[0] {
            self.publish_venue_status(rx_ns, session, keyspace);
        }
    }

    /// Publishes some of what a snapshot left.
    pub fn publish_backlog<K: Keyspace>(
        &mut self,
        count_max: usize,
        now_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        let snapshot_sequence = self.snapshot_sequence;
        for _ in 0..count_max.min(self.backlog.len()) {
            let Some(locate) = self.backlog.pop() else { return };
            let publication = self.publication(locate);
            // A message that came after the snapshot has a number of its own.
            if publication.book_sequence == 0 {
                publication.book_sequence = snapshot_sequence;
            }
            self.facts.statuses.number(locate, snapshot_sequence);
            self.publish_one(locate, now_ns, session, keyspace);
        }
    }

    fn publish_one<K: Keyspace>(
        &mut self,
        locate: u16,
        rx_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        let (bbo, is_quoted) = (self.books.bbo(locate), self.tops.is_some());
        let publication = self.publication(locate);
        let trade = publication.trade_changed;
        // Of quotes there is one update a change.
        let moved = is_quoted
            || publication.bbo != bbo
            || publication.stored[Value::Bbo.kind()] != Stored::Current;
        let (book, status) = (publication.book_changed, publication.status_changed);
        publication.listed = false;
        publication.book_changed = false;
        publication.trade_changed = false;
        publication.status_changed = false;
        if book && moved {
            self.write(locate, Value::Bbo, rx_ns, session, keyspace);
        }
        if book && self.spec.depth > 0 {
            self.write(locate, Value::Depth(self.spec.depth), rx_ns, session, keyspace);
        }
        if trade {
            self.write(locate, Value::Last, rx_ns, session, keyspace);
            self.write(locate, Value::Statistics, rx_ns, session, keyspace);
        }
        if status {
            self.write(locate, Value::Status, rx_ns, session, keyspace);
        }
    }

    /// Says that the keys cannot be believed, unless that was said last.
    pub fn set_suspect<K: Keyspace>(&mut self, keyspace: &mut K) {
        if self.live_until_ns != 0 {
            self.live_until_ns = 0;
            self.counters.suspects += 1;
            keyspace.set_channel(self.spec.channel, ChannelState::Suspect);
        }
    }

    /// Renews the lease of a channel without a doubt. It ends with the silence limit at `silent_ns`, and
    /// while a hole is held open with the limit of that: the keys turn suspect then without a store.
    pub fn renew<K: Keyspace>(
        &mut self,
        now_ns: u64,
        silent_ns: u64,
        hole_deadline_ns: Option<u64>,
        keyspace: &mut K,
    ) {
        if self.older != 0 || self.has_backlog() || self.venue_stored.contains(&Stored::Older) {
            return;
        }
        let lease_ns = hole_deadline_ns.unwrap_or(now_ns.saturating_add(LEASE_NS));
        let until_ns = silent_ns.min(lease_ns);
        let is_due = match hole_deadline_ns {
            Some(_) => until_ns != self.live_until_ns,
            // Half a lease is left: no store yet.
            None => until_ns > self.live_until_ns.saturating_add(LEASE_NS / 2),
        };
        if is_due || self.live_until_ns == 0 {
            self.live_until_ns = until_ns;
            keyspace.set_channel(self.spec.channel, ChannelState::LiveUntil(until_ns));
        }
    }
}
