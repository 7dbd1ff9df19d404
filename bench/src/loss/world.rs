//! Lines, channel, request server and plain book by one clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::itch::Side;
use nautilus_dataplane::feed::recovery::{Recovery, RecoverySpec};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::random::Random;

use super::day::Day;
use super::shown::Shown;
use super::{DELAY_NS_MAX, DELAYED_PPM, LOST_PPM, PACE_NS, STOCKS};
use crate::itch::plain_book::PlainBook;

/// How long a hole may be open before the channel must be suspect.
const HOLD_LIMIT_NS: u64 = 1_000_000;

/// Between two housekeepings, as in the worker's loop.
const HOUSEKEEPING_NS: u64 = 100_000;

/// A request and its reply on their way.
const ROUND_TRIP_NS: u64 = 200_000;

/// Messages between two comparisons of all books.
const CHECK_MESSAGES: u64 = 20_000;

/// What came of a day.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Messages applied.
    pub messages: u64,
    /// Stocks whose book, or what is published of it, was not the plain one's at a comparison.
    pub wrong_books: u64,
    /// Times at which the channel was live with a hole older than its limit, or with messages left out.
    pub undetected_gaps: u64,
    /// Messages that at least one line lost.
    pub missing: u64,
    /// Messages that had to be asked for.
    pub recovered: u64,
    /// Comparisons.
    pub checks: u64,
}

/// Something that comes at an instant, in the order of instants.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Coming {
    at_ns: u64,
    order: u64,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A packet by its index, on a line.
    Packet(u64, usize),
    Reply(Vec<u8>),
}

/// One day.
pub struct World {
    day: Day,
    random: [Random; 2],
    channel: Channel,
    shown: Shown,
    plain: PlainBook,
    /// The number of the next message that the plain book is told.
    plain_next: u64,
    coming: BinaryHeap<Reverse<Coming>>,
    order: u64,
    now_ns: u64,
    server: Endpoint,
    /// Of the packets from the first one that has not come on: when each came first.
    came: VecDeque<Option<u64>>,
    first_missing: u64,
    found: Found,
}

impl World {
    /// A day of so many messages that has not begun.
    pub fn new(seed: u64, messages: u64) -> anyhow::Result<Self> {
        let server = Endpoint::v4([198, 18, 0, 2], 26_500);
        let spec = ChannelSpec {
            venue: Venue::new("nasdaq").ok_or_else(|| anyhow::anyhow!("a venue's name"))?,
            protocol: Default::default(),
            channel: 1,
            start: Start::Session,
            silence_limit_ns: 3_000_000_000,
            depth: 0,
            hold_limit_ns: HOLD_LIMIT_NS,
            books: BookLimits { orders_max: 1 << 18, levels_max: 1 << 17, hash_seed: seed },
        };
        let recovery = RecoverySpec {
            servers: [Some(server), None, None, None],
            from: Endpoint::v4([198, 18, 0, 1], 26_499),
            interface: 0,
            request_after_ns: 1_500_000,
            timeout_ns: 5_000_000,
            messages_max: u64::MAX,
            queue: HeldLimits { packets_max: 1 << 14, bytes_max: 8 << 20 },
            has_snapshot: false,
        };
        Ok(Self {
            day: Day::new(seed, messages)?,
            random: [1, 2].map(|line| Random::new(seed ^ line << 32)),
            channel: Channel::with_recovery(spec, 2, Some(Recovery::new(recovery, 1))),
            shown: Shown::new(),
            plain: PlainBook::default(),
            plain_next: 1,
            coming: BinaryHeap::new(),
            order: 0,
            now_ns: 1_000_000_000,
            server,
            came: VecDeque::new(),
            first_missing: 0,
            found: Found::default(),
        })
    }

    /// Lets the whole day pass.
    pub fn run(mut self) -> anyhow::Result<Found> {
        let mut sent_ns = self.now_ns;
        let mut housekeeping_ns = self.now_ns;
        let mut check_at = CHECK_MESSAGES;
        let mut is_over = false;
        // Packets are made one ahead of what comes.
        while !is_over || !self.coming.is_empty() {
            if !is_over && self.coming.peek().is_none_or(|Reverse(next)| next.at_ns >= sent_ns) {
                is_over = !self.send(sent_ns);
                sent_ns += PACE_NS;
                continue;
            }
            let next_ns = self.coming.peek().map_or(u64::MAX, |Reverse(next)| next.at_ns);
            self.now_ns = next_ns.min(housekeeping_ns);
            if housekeeping_ns <= next_ns {
                housekeeping_ns += HOUSEKEEPING_NS;
                self.channel.housekeeping(self.now_ns, &mut self.shown);
                self.look_for_gaps();
            } else if let Some(Reverse(coming)) = self.coming.pop() {
                self.take(coming.what);
            }
            while self.channel.turn(self.now_ns, &mut self.shown) {}
            self.answer();
            if self.channel.sequencer().expected() >= check_at {
                check_at = self.channel.sequencer().expected() + CHECK_MESSAGES;
                self.compare()?;
            }
        }
        self.end()
    }

    /// Puts the next packet on both lines; `false` when there is none.
    fn send(&mut self, sent_ns: u64) -> bool {
        let Some(index) = self.day.make() else { return false };
        let messages = self.day.packet(index).map_or(0, |sent| sent.next_sequence - sent.sequence);
        self.came.push_back(None);
        let mut is_missing = false;
        for line in [0, 1] {
            let random = &mut self.random[line];
            if random.below(1_000_000) < LOST_PPM {
                is_missing = true;
                continue;
            }
            let is_delayed = random.below(1_000_000) < DELAYED_PPM;
            let delay_ns =
                if is_delayed { random.below(DELAY_NS_MAX) } else { random.below(20_000) };
            let at_ns = sent_ns + 10_000 * (1 + line as u64) + u64::from(delay_ns);
            self.at(at_ns, What::Packet(index, line));
        }
        self.found.missing += if is_missing { messages } else { 0 };
        true
    }

    fn at(&mut self, at_ns: u64, what: What) {
        self.order += 1;
        self.coming.push(Reverse(Coming { at_ns, order: self.order, what }));
    }

    fn take(&mut self, what: What) {
        let now_ns = self.now_ns;
        match what {
            What::Packet(index, line) => {
                let Some(sent) = self.day.packet(index) else { return };
                self.channel.handle_from(line, now_ns, &sent.bytes, &mut self.shown);
                self.note(index);
            }
            What::Reply(bytes) => {
                self.channel.handle_reply(&self.server, now_ns, &bytes, &mut self.shown);
            }
        }
    }

    /// A packet has come on a line.
    fn note(&mut self, index: u64) {
        if let Some(place) = index.checked_sub(self.first_missing)
            && let Some(came) = self.came.get_mut(place as usize)
        {
            came.get_or_insert(self.now_ns);
        }
    }

    /// Whether the channel is believed although it must not be.
    fn look_for_gaps(&mut self) {
        let expected = self.channel.sequencer().expected();
        // What was applied has come, or was asked for.
        while let Some(sent) = self.day.packet(self.first_missing)
            && (self.came.front().is_some_and(Option::is_some) || sent.next_sequence <= expected)
        {
            self.came.pop_front();
            self.first_missing += 1;
        }
        let since_ns = self.came.iter().flatten().min();
        let is_overdue = since_ns.is_some_and(|since_ns| since_ns + HOLD_LIMIT_NS < self.now_ns);
        let is_whole = self.channel.counters().messages == expected - 1;
        if self.channel.is_live(self.now_ns) && (is_overdue || !is_whole) {
            self.found.undetected_gaps += 1;
        }
    }

    fn answer(&mut self) {
        while let Some((_, _, request)) = self.channel.next_request(self.now_ns) {
            if let Some(reply) = self.day.reply(&request) {
                self.at(self.now_ns + ROUND_TRIP_NS, What::Reply(reply));
            }
        }
    }

    /// Tells the plain book what the channel has applied, and compares every stock.
    fn compare(&mut self) -> anyhow::Result<()> {
        let expected = self.channel.sequencer().expected();
        for (number, message) in self.day.messages_from(self.plain_next) {
            if number >= expected {
                break;
            }
            anyhow::ensure!(number == self.plain_next, "the day is not kept long enough");
            self.plain.apply(message)?;
            self.plain_next += 1;
        }
        self.found.checks += 1;
        if !self.channel.is_live(self.now_ns) {
            return Ok(());
        }
        let books = self.channel.books();
        for locate in 1..=STOCKS {
            let same = [Side::Buy, Side::Sell].into_iter().all(|side| {
                let levels = books.levels(locate, side);
                let levels = levels.map(|level| (level.price, level.orders, level.shares));
                levels.eq(self.plain.levels_of(locate, side == Side::Buy))
            });
            let shown = self.shown.bbo(locate) == books.bbo(locate);
            self.found.wrong_books += u64::from(!same || !shown);
        }
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<Found> {
        // What is missing at the very end is known of by a heartbeat.
        let mut heartbeat = [0; nautilus_dataplane::feed::moldudp64::HEADER_BYTES];
        let next_sequence = self.day.next_sequence();
        nautilus_dataplane::feed::moldudp64::write_header(
            &mut heartbeat,
            super::day::SESSION,
            next_sequence,
            0,
        );
        let until_ns = self.now_ns + 1_000_000_000;
        while self.channel.sequencer().expected() < next_sequence && self.now_ns < until_ns {
            self.channel.handle(self.now_ns, &heartbeat, &mut self.shown);
            self.now_ns += HOUSEKEEPING_NS;
            self.channel.housekeeping(self.now_ns, &mut self.shown);
            self.answer();
            while let Some(Reverse(coming)) = self.coming.pop() {
                self.take(coming.what);
            }
            while self.channel.turn(self.now_ns, &mut self.shown) {}
        }
        anyhow::ensure!(
            self.channel.sequencer().expected() == next_sequence
                && self.channel.is_live(self.now_ns),
            "the channel ends at {} of {next_sequence}, {:?}",
            self.channel.sequencer().expected(),
            self.channel.sequencer().doubt()
        );
        self.compare()?;
        self.found.messages = self.channel.counters().messages;
        let recovery = self.channel.recovery_counts().copied().unwrap_or_default();
        self.found.recovered = recovery.recovered_messages;
        Ok(self.found)
    }
}
