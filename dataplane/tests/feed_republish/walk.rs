//! The books of a worker, told in tiny pieces while they go on changing: whoever applies what is told has exactly
//! those books, queues in order, as of the number that the end names.

use std::collections::VecDeque;

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::glimpse::{SnapshotItem, SnapshotReader};
use nautilus_dataplane::feed::itch::messages::{
    AddOrder, Common, OrderDelete, OrderExecuted, OrderReplace,
};
use nautilus_dataplane::feed::itch::{Message, Nanoseconds, Price4, Side};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::republish::shadow::{Shadow, ShadowError, ShadowState, Writing};
use nautilus_dataplane::feed::republish::show::{Show, ShowStanding};
use nautilus_dataplane::feed::soupbintcp::{Frames, ServerPacket};
use nautilus_dataplane::replay::random::Random;
use nautilus_dataplane::venue::day::Day as VenueDay;
use nautilus_dataplane::venue::engine::Tape;
use nautilus_dataplane::venue::flow::FlowSpec;
use nautilus_shm::front_region::{SnapshotContent, SnapshotMessage};
use proptest::prelude::*;

use crate::chain::books_of;
use crate::world::{Day, MONDAY, TUESDAY};

const LIMITS: BookLimits = BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 3 };

/// A worker's books, what shows them, and the front's.
struct Told {
    books: Books,
    show: Show,
    shadow: Shadow,
    next_sequence: u64,
    session: Option<Session>,
    /// Pieces on their way, as in the ring.
    ring: VecDeque<Vec<u8>>,
    /// Of 1,000 pieces that the ring has no room for.
    full: u32,
    random: Random,
}

impl Told {
    fn new(seed: u64, orders_a_turn: usize) -> Self {
        Self {
            books: Books::new(LIMITS),
            show: Show::with_pace(9, orders_a_turn),
            shadow: Shadow::new(LIMITS),
            next_sequence: 1,
            session: Some(MONDAY),
            ring: VecDeque::new(),
            full: 0,
            random: Random::new(seed),
        }
    }

    fn apply(&mut self, bytes: &[u8]) {
        let message = Message::decode(bytes).unwrap();
        self.show.note(&self.books, &message, bytes);
        let problem = self.books.apply(&message).1;
        assert!(problem.is_none_or(|problem| !problem.spoils()), "room for all of it");
        self.next_sequence += 1;
    }

    fn turn(&mut self) {
        let Self { books, show, ring, full, random, .. } = self;
        let standing = ShowStanding { session: self.session, next_sequence: self.next_sequence };
        show.turn(books, &standing, |piece: &SnapshotMessage<'_>| {
            if random.below(1_000) < *full {
                return false;
            }
            assert_eq!(piece.channel, 9);
            let (_, header, rest) = piece.encode();
            ring.push_back([&header[..], rest].concat());
            true
        });
    }

    /// The front takes what is in the ring; whether it has whole books then.
    fn take(&mut self) -> bool {
        while let Some(bytes) = self.ring.pop_front() {
            let piece = SnapshotMessage::decode(&bytes).unwrap();
            assert_eq!(piece.attempt, 77);
            if let Err(error) = self.shadow.take(&piece.content) {
                assert_eq!(error, ShadowError::Void);
            }
        }
        matches!(self.shadow.state(), ShadowState::Whole(..))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn books_told_while_they_change_are_exact(
        seed in any::<u64>(),
        pace in 1usize..5,
        messages_a_turn in 0u32..6,
        full in 0u32..500,
    ) {
        let day = Day::new(seed, 1_500);
        let mut told = Told::new(seed, pace);
        told.full = full;
        let mut messages = day.messages.iter();
        let mut random = Random::new(!seed);
        while messages.len() > 0 {
            // Some of the day, and then somebody wants the books, at its end as well.
            for _ in 0..random.below(300) {
                let Some(message) = messages.next() else { break };
                told.apply(message);
            }
            told.shadow.forget();
            told.show.want(77);
            loop {
                told.turn();
                if told.take() {
                    break;
                }
                for _ in 0..random.below(messages_a_turn + 1) {
                    let Some(message) = messages.next() else { break };
                    told.apply(message);
                }
            }
            // As of the number it names: some may have been applied before there was room for the end.
            let ShadowState::Whole(MONDAY, next_sequence) = told.shadow.state() else { panic!() };
            let lag = told.next_sequence - next_sequence;
            prop_assert!(lag == 0 || full > 0);
            let mut books = Books::new(LIMITS);
            for message in &day.messages[..next_sequence as usize - 1] {
                books.apply(&Message::decode(message).unwrap());
            }
            prop_assert_eq!(books_of(told.shadow.books()), books_of(&books));
            compare_snapshot(&told.shadow, next_sequence, seed);
            prop_assert!(!told.show.is_open());
        }
    }

    /// One stock, few prices and deep queues, all of it around where the walk stands.
    #[test]
    fn changes_around_the_walk_leave_queues_in_order(seed in any::<u64>(), pace in 1usize..4) {
        let mut random = Random::new(seed);
        let mut told = Told::new(seed, pace);
        let mut live: Vec<u64> = Vec::new();
        let mut next = 1;
        let common = Common { stock_locate: 7, tracking_number: 0, timestamp: Nanoseconds(5) };
        let symbol = Symbol(*b"TEST    ");
        for round in 0..30 {
            if round > 0 {
                told.shadow.forget();
                told.show.want(77);
            }
            loop {
                for _ in 0..random.below(8) {
                    let price = Price4(100 + random.below(4));
                    let at = random.below(live.len().max(1) as u32) as usize;
                    let known = live.get(at).copied();
                    // Where there are many, as many go as come.
                    let kind = if live.len() > 60 { 4 + random.below(6) } else { random.below(10) };
                    let shares = random.below(5).min(2) * 100;
                    let bytes = match (kind, known) {
                        (0..4, _) | (_, None) => {
                            // Now and then a reference that is in use.
                            let reference =
                                known.filter(|_| random.below(20) == 0).unwrap_or(next);
                            next += 1;
                            live.push(reference);
                            let side = [Side::Buy, Side::Sell][random.below(2) as usize].code();
                            AddOrder::encode(common, reference, side, shares, symbol, price).to_vec()
                        }
                        (4..7, Some(known)) => {
                            // Others, its own, and those of another live order.
                            let new = match random.below(20) {
                                0 => known,
                                1 => live[random.below(live.len() as u32) as usize],
                                _ => next,
                            };
                            next += 1;
                            live[at] = new;
                            OrderReplace::encode(common, known, new, shares, price).to_vec()
                        }
                        (7, Some(known)) => {
                            OrderExecuted::encode(common, known, 50 + shares / 2, 1).to_vec()
                        }
                        (_, Some(known)) => {
                            live.swap_remove(at);
                            OrderDelete::encode(common, known).to_vec()
                        }
                    };
                    told.apply(&bytes);
                }
                if round == 0 {
                    break;
                }
                told.turn();
                if told.take() {
                    break;
                }
            }
            if round > 0 {
                prop_assert_eq!(books_of(told.shadow.books()), books_of(&told.books));
            }
        }
    }
}

/// The snapshot that is written, read again, makes the same books.
fn compare_snapshot(shadow: &Shadow, next: u64, seed: u64) {
    let (mut writing, mut out) = (Writing::default(), Vec::new());
    let steps = 1 + seed as usize % 1_000;
    while !shadow.write(&mut writing, steps, &mut out) {}
    assert!(out.len() <= Shadow::snapshot_bytes_max(&LIMITS));
    let mut reader = SnapshotReader::new();
    let mut books = Books::new(LIMITS);
    let (mut frames, mut rest, mut kinds) = (Frames::new(100), &out[..], Vec::new());
    while let Some(frame) = frames.next(&mut rest).unwrap() {
        match ServerPacket::parse(frame).unwrap() {
            ServerPacket::Sequenced(bytes) => match reader.read(bytes).unwrap() {
                SnapshotItem::Message(bytes) => {
                    kinds.push(bytes[0]);
                    assert_eq!(books.apply(&Message::decode(bytes).unwrap()).1, None);
                }
                SnapshotItem::End { next_sequence } => {
                    assert_eq!(next_sequence, next);
                }
            },
            ServerPacket::EndOfSession => assert_eq!(rest.len(), 0),
            other => panic!("{other:?}"),
        }
    }
    assert!(reader.next_sequence().is_some());
    assert_eq!(books_of(&books), books_of(shadow.books()));
    // In the order of GLIMPSE.
    let place =
        |kind: &u8| [b"S" as &[u8], b"R", b"HY", b"A"].iter().position(|one| one.contains(kind));
    assert!(kinds.iter().map(|kind| place(kind).unwrap()).is_sorted(), "{kinds:?}");
}

/// A day of the venue's, with every message that it has, at the pace of a node and in its bursts.
#[test]
fn books_of_a_venues_day_are_told_as_they_are() {
    for seed in 0..6 {
        let spec = FlowSpec { seed, symbols: 24, messages: 40_000, rate: 8_000 };
        let (mut day, mut tape) = (VenueDay::new(spec).unwrap(), Tape::default());
        let mut messages: Vec<Vec<u8>> = Vec::new();
        while day.step(&mut tape) {
            messages.extend(tape.messages().map(<[u8]>::to_vec));
        }
        let mut told = Told::new(seed, 64);
        let mut random = Random::new(seed);
        let (mut compared, mut at) = (0, 2_000);
        messages[..at].iter().for_each(|message| told.apply(message));
        while at + 10_000 < messages.len() {
            told.shadow.forget();
            told.show.want(77);
            loop {
                told.turn();
                // The front looks less often than the worker turns.
                if random.below(3) == 0 && told.take() {
                    break;
                }
                for _ in 0..random.below(100) {
                    told.apply(&messages[at]);
                    at += 1;
                }
            }
            let ShadowState::Whole(MONDAY, next_sequence) = told.shadow.state() else { panic!() };
            let mut books = Books::new(LIMITS);
            for message in &messages[..next_sequence as usize - 1] {
                books.apply(&Message::decode(message).unwrap());
            }
            assert_eq!(books_of(told.shadow.books()), books_of(&books), "{seed} {next_sequence}");
            compare_snapshot(&told.shadow, next_sequence, seed);
            compared += 1;
        }
        assert!(compared > 1);
    }
}

#[test]
fn books_that_cannot_be_believed_are_not_shown() {
    let day = Day::new(4, 1_500);
    let mut told = Told::new(1, 1);
    told.session = None;
    day.messages[..500].iter().for_each(|message| told.apply(message));
    told.show.want(77);
    told.turn();
    assert!(!told.take() && told.shadow.state() == ShadowState::Empty, "refused");
    // In the middle: distrusted, another session, forgotten.
    type Spoil = fn(&mut Told);
    let spoils: [Spoil; 3] = [
        |told| told.session = None,
        |told| told.session = Some(TUESDAY),
        |told| {
            told.books.clear();
            told.show.clear();
        },
    ];
    for spoil in spoils {
        told.session = Some(MONDAY);
        told.show.want(77);
        told.turn();
        told.turn();
        told.take();
        assert_eq!(told.shadow.state(), ShadowState::Loading(MONDAY));
        spoil(&mut told);
        told.turn();
        told.take();
        assert_eq!(told.shadow.state(), ShadowState::Empty);
        assert!(!told.show.is_open());
    }
    assert_eq!(told.show.counts().void, 4);
}

#[test]
fn a_reader_that_does_not_take_it_gets_nothing_and_stops_nobody() {
    let day = Day::new(4, 60_000);
    let mut told = Told::new(1, 1);
    let (before, meanwhile) = day.messages.split_at(1_000);
    before.iter().for_each(|message| told.apply(message));
    told.show.want(77);
    told.turn();
    told.full = 1_000;
    for message in meanwhile {
        told.apply(message);
        told.turn();
    }
    // As little as one order a turn and nobody takes it: the walk stands still, what is passed goes on.
    told.full = 0;
    for _ in 0..100_000 {
        told.turn();
        if told.take() || !told.show.is_open() {
            break;
        }
    }
    match told.shadow.state() {
        ShadowState::Whole(_, next) => {
            assert_eq!(next, told.next_sequence);
            assert_eq!(books_of(told.shadow.books()), books_of(&told.books));
        }
        state => assert_eq!(state, ShadowState::Empty),
    }
}

#[test]
fn what_is_told_out_of_turn_or_cut_is_refused() {
    let mut shadow = Shadow::new(LIMITS);
    let begin = SnapshotContent::Begin(MONDAY.0);
    let blocks = [&[0, 19][..], &OrderDelete::encode(Common::default(), 5)].concat();
    assert!(shadow.take(&SnapshotContent::Messages(&blocks)).is_err());
    assert!(shadow.take(&SnapshotContent::End(5)).is_err());
    for bad in [
        SnapshotContent::Messages(&blocks[..20]),
        SnapshotContent::Messages(&[0, 1, b'D']),
        SnapshotContent::End(0),
        SnapshotContent::Failed,
    ] {
        shadow.take(&begin).unwrap();
        shadow.take(&SnapshotContent::Messages(&blocks)).unwrap();
        assert!(shadow.take(&bad).is_err());
        assert_eq!(shadow.state(), ShadowState::Empty);
    }
    // An order that is told twice: something was lost.
    let common = Common { stock_locate: 1, ..Common::default() };
    let symbol = Symbol(*b"TEST    ");
    let add = AddOrder::encode(common, 5, Side::Buy.code(), 100, symbol, Price4(5));
    let twice = [&[0, 36][..], &add, &[0, 36], &add].concat();
    shadow.take(&begin).unwrap();
    assert!(shadow.take(&SnapshotContent::Messages(&twice)).is_err());
}
