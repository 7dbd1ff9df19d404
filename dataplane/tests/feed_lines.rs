//! Two lines of one feed: whatever reached us on either in time is applied once and in order, and what
//! did not is never hidden.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::BookLimits;
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec};
use nautilus_dataplane::feed::lines::LineCounts;
use nautilus_dataplane::feed::moldudp64::{COUNT_END_OF_SESSION, Session};
use nautilus_dataplane::feed::record::{BboRecord, LastRecord};
use nautilus_dataplane::feed::session::{Doubt, Start};
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;
use proptest::prelude::*;
use support::{MapKeyspace, mold_packet};

const MONDAY: Session = Session(*b"000000MON1");
const TUESDAY: Session = Session(*b"000000TUE1");
const LIMIT_NS: u64 = 5_000_000;
/// What reorder may take that a hole is to outlive.
const LATE_NS: u32 = LIMIT_NS as u32 / 4;
const SILENCE_NS: u64 = 3_000_000_000;
/// Between two packets of the exchange.
const PACE_NS: u64 = 100_000;
const A: usize = 0;
const B: usize = 1;

fn channel() -> Channel {
    let spec = ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: SILENCE_NS,
        depth: 0,
        hold_limit_ns: LIMIT_NS,
        books: BookLimits { orders_max: 1 << 12, levels_max: 1 << 12, hash_seed: 3 },
    };
    Channel::with_lines(spec, 2)
}

/// One packet of the exchange: the messages `sequence..next`.
#[derive(Clone)]
struct Sent {
    sequence: u64,
    next: u64,
    bytes: Vec<u8>,
}

/// A day of the generator in packets of 1 to 9 messages, with a heartbeat now and then.
fn day(seed: u64, messages: u64) -> Vec<Sent> {
    let spec = GeneratorSpec { seed, symbols: 6, messages, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let mut random = Random::new(seed);
    let (mut sent, mut sequence) = (Vec::new(), 1);
    loop {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for _ in 0..1 + random.below(9) {
            blocks.extend(generator.next_message().map(<[u8]>::to_vec));
        }
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let next = sequence + blocks.len() as u64;
        // Without messages it is a heartbeat, which also ends the day.
        sent.push(Sent { sequence, next, bytes: mold_packet(MONDAY, sequence, &blocks) });
        if blocks.is_empty() {
            return sent;
        }
        if random.below(10) == 0 {
            sent.push(Sent { sequence: next, next, bytes: mold_packet(MONDAY, next, &[]) });
        }
        sequence = next;
    }
}

/// A packet on its way over one line.
struct Arrival<'a> {
    rx_ns: u64,
    line: usize,
    packet: &'a Sent,
}

/// What a line does to packets.
#[derive(Clone, Copy, Debug)]
struct Damage {
    /// Of 1,000 packets.
    lost: u32,
    duplicated: u32,
    delayed: u32,
    /// Longest delay.
    delay_ns: u32,
}

/// How two lines deliver the packets, by time. The first packet comes undisturbed.
fn deliver<'a>(sent: &'a [Sent], seed: u64, damage: Damage) -> Vec<Arrival<'a>> {
    let mut random = Random::new(seed);
    let mut arrivals = Vec::new();
    for line in [A, B] {
        for (place, packet) in sent.iter().enumerate() {
            let sent_ns = 1_000_000 + place as u64 * PACE_NS + line as u64 * 20_000;
            if place == 0 {
                arrivals.push(Arrival { rx_ns: sent_ns, line, packet });
                continue;
            }
            if random.below(1_000) < damage.lost {
                continue;
            }
            let copies = 1 + u64::from(random.below(1_000) < damage.duplicated);
            for _ in 0..copies {
                let delayed = random.below(1_000) < damage.delayed;
                let delay_ns = if delayed { random.below(damage.delay_ns) } else { 0 };
                let delay_ns = u64::from(delay_ns);
                arrivals.push(Arrival { rx_ns: sent_ns + delay_ns, line, packet });
            }
        }
    }
    arrivals.sort_by_key(|arrival| arrival.rx_ns);
    arrivals
}

/// What is published, but for when it was received.
fn published(keyspace: &MapKeyspace) -> BTreeMap<Vec<u8>, String> {
    let record = |(key, (value, _)): (&Vec<u8>, &(Vec<u8>, u8))| {
        let text = if key.ends_with(b":bbo") {
            let mut record = BboRecord::decode(value).unwrap();
            record.origin.capture_ns = 0;
            format!("{record:?}")
        } else if key.ends_with(b":last") {
            let mut record = LastRecord::decode(value).unwrap();
            record.origin.capture_ns = 0;
            format!("{record:?}")
        } else {
            let mut value = value.clone();
            value[16..24].fill(0);
            format!("{value:?}")
        };
        (key.clone(), text)
    };
    // What a venue has traded is written now and then, not with each packet.
    let all = keyspace.values.iter().filter(|(key, _)| *key != b"md:nasdaq:stats");
    all.map(record).collect()
}

/// What an undisturbed channel has published when it has applied all before a number.
fn truth(sent: &[Sent]) -> BTreeMap<u64, BTreeMap<Vec<u8>, String>> {
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    let mut truth = BTreeMap::new();
    for packet in sent {
        channel.handle(1, &packet.bytes, &mut keyspace);
        truth.insert(packet.next, published(&keyspace));
    }
    assert_eq!(channel.sequencer().doubt(), None);
    truth
}

/// The same decisions in sets of numbers, without a store, a sequencer or windows.
#[derive(Default)]
struct Model {
    /// Numbers that were named, with the first instant at which one behind them was.
    here: BTreeSet<u64>,
    named: Vec<(u64, u64)>,
    applied: BTreeSet<u64>,
    next: u64,
    gap: bool,
}

impl Model {
    fn new() -> Self {
        Self { next: 1, ..Self::default() }
    }

    /// Goes on over what is here, and over holes that were known of for longer than the limit.
    fn advance(&mut self, now_ns: u64) {
        loop {
            if self.here.contains(&self.next) {
                self.applied.insert(self.next);
                self.next += 1;
                continue;
            }
            let behind = self.named.iter().filter(|(number, _)| *number > self.next);
            let Some(since_ns) = behind.clone().map(|(_, rx_ns)| *rx_ns).min() else { return };
            if since_ns + LIMIT_NS >= now_ns {
                return;
            }
            self.gap = true;
            self.next = behind.map(|(number, _)| *number).min().unwrap();
        }
    }

    fn take(&mut self, arrival: &Arrival<'_>) {
        self.advance(arrival.rx_ns);
        let Sent { sequence, next, .. } = *arrival.packet;
        self.named.push((sequence, arrival.rx_ns));
        self.here.extend(sequence..next);
        self.advance(arrival.rx_ns);
    }
}

/// Plays arrivals with housekeeping between them; at every step what is live is the truth.
fn play(
    arrivals: &[Arrival<'_>],
    truth: &BTreeMap<u64, BTreeMap<Vec<u8>, String>>,
    mut check: impl FnMut(&Channel, u64, Option<&Arrival<'_>>),
) -> (Channel, MapKeyspace) {
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    let mut now_ns = 0;
    for arrival in arrivals {
        while now_ns + PACE_NS < arrival.rx_ns {
            now_ns += PACE_NS;
            channel.housekeeping(now_ns, &mut keyspace);
            while channel.turn(now_ns, &mut keyspace) {}
            check(&channel, now_ns, None);
        }
        now_ns = now_ns.max(arrival.rx_ns);
        channel.handle_from(arrival.line, arrival.rx_ns, &arrival.packet.bytes, &mut keyspace);
        while channel.turn(now_ns, &mut keyspace) {}
        check(&channel, now_ns, Some(arrival));
        if channel.is_live(now_ns) {
            let expected = &truth[&channel.sequencer().expected()];
            assert_eq!(published(&keyspace), *expected, "live at {now_ns} and not the truth");
        }
    }
    (channel, keyspace)
}

/// Every count of a line, from the arrivals alone. The day is shorter than the window.
fn line_counts(arrivals: &[Arrival<'_>], line: usize) -> LineCounts {
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let mut counts = LineCounts::default();
    for arrival in arrivals {
        for number in arrival.packet.sequence..arrival.packet.next {
            let first = !seen[1 - arrival.line].contains(&number);
            let fresh = seen[arrival.line].insert(number);
            if arrival.line == line {
                counts.received += u64::from(fresh);
                counts.duplicates += u64::from(!fresh);
                counts.first += u64::from(fresh && first);
            }
        }
    }
    counts
}

fn run(seed: u64, damage: Damage) -> Result<bool, TestCaseError> {
    let sent = day(seed, 1_500);
    let truth = truth(&sent);
    let arrivals = deliver(&sent, seed ^ 0x5eed, damage);
    let mut model = Model::new();
    let mut agree = true;
    let (mut channel, mut keyspace) = play(&arrivals, &truth, |channel, now_ns, arrival| {
        match arrival {
            Some(arrival) => model.take(arrival),
            None => model.advance(now_ns),
        }
        let sequencer = channel.sequencer();
        if sequencer.session().is_none() {
            return;
        }
        agree &= sequencer.expected() == model.next;
        agree &= (sequencer.doubt() == Some(Doubt::Gap)) == model.gap;
        agree &= model.gap != channel.is_live(now_ns);
    });
    prop_assert!(agree, "the model differs");
    let end_ns = arrivals.last().unwrap().rx_ns + LIMIT_NS + 1;
    channel.housekeeping(end_ns, &mut keyspace);
    while channel.turn(end_ns, &mut keyspace) {}
    model.advance(end_ns);
    let last = sent.last().unwrap().next;
    let counters = *channel.counters();
    prop_assert_eq!(channel.sequencer().expected(), model.next);
    prop_assert_eq!(counters.messages, model.applied.len() as u64, "each number once");
    prop_assert_eq!(counters.gap_messages + counters.messages, model.next - 1);
    prop_assert_eq!(counters.late_holes + counters.session_holes, counters.gaps);
    for (line, counts) in channel.line_counts().enumerate() {
        prop_assert_eq!(*counts, line_counts(&arrivals, line), "line {}", line);
    }
    prop_assert_eq!(channel.is_live(end_ns), !model.gap);
    if !model.gap {
        prop_assert_eq!(&published(&keyspace), &truth[&model.next]);
    }
    // Another session settles what each line lacks.
    let named = arrivals.iter().map(|arrival| arrival.packet.next).max().unwrap();
    channel.handle(end_ns, &mold_packet(TUESDAY, 1, &[]), &mut keyspace);
    prop_assert!(channel.is_live(end_ns));
    for counts in channel.line_counts() {
        prop_assert_eq!(counts.received + counts.lost, named - 1);
    }
    prop_assert!(named <= last);
    Ok(!model.gap)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Loss, copies and reorder that the limit covers: the model decides what is applied.
    #[test]
    fn what_one_line_brought_in_time_is_applied_once_and_in_order(seed in any::<u64>()) {
        let damage = Damage { lost: 10, duplicated: 20, delayed: 100, delay_ns: LATE_NS };
        run(seed, damage)?;
    }

    /// Delays beyond the limit, and so much loss that both lines lack the same packet.
    #[test]
    fn what_came_too_late_or_never_is_a_gap_and_suspect(seed in any::<u64>()) {
        let damage = Damage { lost: 150, duplicated: 20, delayed: 200, delay_ns: 12 * LATE_NS };
        run(seed, damage)?;
    }

    /// Nothing lost on both: nobody who asks notices anything.
    #[test]
    fn loss_of_either_line_alone_is_not_seen(seed in any::<u64>(), dead in 0usize..2) {
        let sent = day(seed, 1_500);
        let truth = truth(&sent);
        let mut random = Random::new(seed);
        let damage = Damage { lost: 0, duplicated: 0, delayed: 100, delay_ns: LATE_NS };
        let mut arrivals = deliver(&sent, seed, damage);
        // Of every packet one line loses its copy; from the middle on one line is dead.
        let mut losers: BTreeMap<u64, usize> = BTreeMap::new();
        let middle = sent[sent.len() / 2].sequence;
        arrivals.retain(|Arrival { line, packet, .. }| {
            let loser = losers.entry(packet.sequence).or_insert_with(|| match packet.sequence {
                1 => 2,
                _ if packet.sequence >= middle => dead,
                _ => random.below(3) as usize,
            });
            line != loser
        });
        let always_live = |channel: &Channel, now_ns, arrival: Option<&Arrival<'_>>| {
            let begun = channel.sequencer().session().is_some();
            assert!(!begun || channel.is_live(now_ns), "{:?}", arrival.map(|one| one.rx_ns));
        };
        let (channel, keyspace) = play(&arrivals, &truth, always_live);
        let counters = channel.counters();
        prop_assert_eq!((counters.gaps, counters.suspects), (0, 0));
        prop_assert_eq!(counters.messages, 1_500);
        prop_assert_eq!(published(&keyspace), truth[&1_501].clone());
    }
}

#[test]
fn the_properties_meet_both_ends() {
    let mild = Damage { lost: 10, duplicated: 20, delayed: 100, delay_ns: LATE_NS };
    let harsh = Damage { lost: 150, ..mild };
    let whole = |damage| (0..20).filter(|seed| run(*seed, damage).unwrap()).count();
    let (mild, harsh) = (whole(mild), whole(harsh));
    assert!(mild >= 15, "{mild} of 20 days are whole with 1 % lost on each line");
    assert!(harsh <= 5, "{harsh} of 20 days are whole with 15 % lost on each line");
}

/// Packets of one message each, from 1.
fn single(count: u64) -> Vec<Sent> {
    let spec = GeneratorSpec { seed: 4, symbols: 3, messages: count, rate: 1_000 };
    let mut generator = Generator::new(spec).unwrap();
    (1..=count)
        .map(|sequence| {
            let bytes = mold_packet(MONDAY, sequence, &[generator.next_message().unwrap()]);
            Sent { sequence, next: sequence + 1, bytes }
        })
        .collect()
}

#[test]
fn a_hole_that_nobody_fills_times_out_by_housekeeping_alone() {
    let sent = single(60);
    for heartbeat in [false, true] {
        let (mut channel, mut keyspace) = (self::channel(), MapKeyspace::default());
        let mut send = |channel: &mut Channel, rx_ns, bytes: &[u8]| {
            channel.handle(rx_ns, bytes, &mut keyspace);
            published(&keyspace)
        };
        for packet in &sent[..50] {
            send(&mut channel, 1_000, &packet.bytes);
        }
        let before = send(&mut channel, 1_000, &sent[49].bytes);
        let ahead = match heartbeat {
            true => mold_packet(MONDAY, 53, &[]),
            false => sent[52].bytes.clone(),
        };
        let after = send(&mut channel, 2_000, &ahead);
        assert_eq!(before, after, "what is published stands while the hole is open");
        assert_eq!((channel.held_packets(), channel.counters().gaps), (1, 0));
        // Without anybody doing anything, the keys are believed until the limit and no longer.
        let deadline_ns = 2_000 + LIMIT_NS;
        assert!(channel.is_live(deadline_ns) && !channel.is_live(deadline_ns + 1));
        assert!(keyspace.live_until_ns[&1] == deadline_ns, "what a reader sees");
        for at_ns in [3_000, deadline_ns - 1, deadline_ns] {
            channel.housekeeping(at_ns, &mut keyspace);
            assert!(channel.is_live(at_ns), "{at_ns}");
            assert_eq!(channel.held_packets(), 1, "{at_ns}");
        }
        channel.housekeeping(deadline_ns + 1, &mut keyspace);
        assert_eq!(channel.sequencer().doubt(), Some(Doubt::Gap));
        assert_eq!((channel.held_packets(), channel.is_live(deadline_ns)), (0, false));
        let counters = channel.counters();
        assert_eq!((counters.gaps, counters.gap_messages, counters.late_holes), (1, 2, 1));
        assert_eq!(channel.sequencer().expected(), if heartbeat { 53 } else { 54 });
    }
}

#[test]
fn a_healed_hole_gives_the_lease_back() {
    let sent = single(60);
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    channel.handle_from(A, 1_000, &sent[0].bytes, &mut keyspace);
    channel.handle_from(A, 2_000, &sent[2].bytes, &mut keyspace);
    assert_eq!(keyspace.live_until_ns[&1], 2_000 + LIMIT_NS);
    channel.handle_from(B, 3_000, &sent[1].bytes, &mut keyspace);
    assert!(channel.is_live(3_000 + LIMIT_NS + 1));
    assert_eq!((channel.sequencer().expected(), channel.counters().healed_holes), (4, 1));
    assert_eq!((channel.counters().held_packets, channel.counters().suspects), (1, 0));
}

#[test]
fn a_session_rolls_while_the_other_line_sends_the_tail_of_the_one_before() {
    let sent = single(60);
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    for packet in &sent[..10] {
        channel.handle_from(A, 1_000, &packet.bytes, &mut keyspace);
    }
    // Line A has lost 11, says 12 and the end of the session, and goes on with the next one.
    channel.handle_from(A, 2_000, &sent[11].bytes, &mut keyspace);
    let mut end = mold_packet(MONDAY, 13, &[]);
    end[18..20].copy_from_slice(&COUNT_END_OF_SESSION.to_be_bytes());
    channel.handle_from(A, 2_100, &end, &mut keyspace);
    assert!(channel.sequencer().has_ended() && channel.is_live(2_100));
    let first = mold_packet(TUESDAY, 1, &[&sent[0].bytes[22..]]);
    channel.handle_from(A, 2_200, &first, &mut keyspace);
    assert_eq!(channel.sequencer().session(), Some(TUESDAY));
    assert_eq!((channel.counters().session_holes, channel.counters().gap_messages), (1, 1));
    assert!(channel.is_live(2_200), "the new session is whole");
    let before = published(&keyspace);
    for packet in &sent[8..12] {
        channel.handle_from(B, 2_300, &packet.bytes, &mut keyspace);
    }
    channel.handle_from(B, 2_400, &first, &mut keyspace);
    assert_eq!((published(&keyspace), channel.held_packets()), (before, 0));
    assert_eq!((channel.counters().stale_packets, channel.sequencer().expected()), (4, 2));
    // Line B delivered nothing of Monday while it counted.
    let counts: Vec<LineCounts> = channel.line_counts().copied().collect();
    assert_eq!((counts[A].received, counts[A].lost, counts[A].first), (12, 1, 12));
    assert_eq!((counts[B].received, counts[B].lost, counts[B].first), (1, 12, 0));
}

#[test]
fn more_than_can_be_held_is_a_gap_before_the_limit() {
    let big = vec![b'z'; 60_000];
    let (mut channel, mut keyspace) = (channel(), MapKeyspace::default());
    channel.handle(1_000, &mold_packet(MONDAY, 1, &[]), &mut keyspace);
    // 1 MiB in blocks of 256 bytes.
    for sequence in 2..19 {
        channel.handle(1_000, &mold_packet(MONDAY, sequence, &[&big]), &mut keyspace);
        assert!(channel.is_live(1_000), "{sequence}");
    }
    assert_eq!(channel.held_packets(), 17);
    channel.handle(1_000, &mold_packet(MONDAY, 19, &[&big]), &mut keyspace);
    assert_eq!((channel.held_packets(), channel.sequencer().expected()), (0, 20));
    assert_eq!(channel.sequencer().doubt(), Some(Doubt::Gap));
    assert_eq!((channel.counters().full_holes, channel.counters().gap_messages), (1, 1));
}

#[test]
fn a_session_whose_beginning_only_one_line_brings_is_exact() {
    let sent = day(3, 600);
    let truth = truth(&sent);
    // A begins with the fourth packet, and B brings everything a little later.
    let arrival = |line, place: usize| {
        let rx_ns = 1_000_000 + place as u64 * PACE_NS + line as u64 * LIMIT_NS / 2;
        Arrival { rx_ns, line, packet: &sent[place] }
    };
    let mut arrivals: Vec<_> = (3..sent.len()).map(|place| arrival(A, place)).collect();
    arrivals.extend((0..sent.len()).map(|place| arrival(B, place)));
    arrivals.sort_by_key(|arrival| arrival.rx_ns);
    let (mut channel, mut keyspace) = play(&arrivals, &truth, |_, _, _| {});
    let end = sent.last().unwrap().next;
    assert_eq!((channel.sequencer().expected(), channel.sequencer().doubt()), (end, None));
    assert_eq!(channel.counters().gaps, 0);
    assert_eq!(published(&keyspace), truth[&end]);
    channel.handle(u64::MAX / 2, &mold_packet(TUESDAY, 1, &[]), &mut keyspace);
    let counts: Vec<LineCounts> = channel.line_counts().copied().collect();
    let missed = sent[3].sequence - 1;
    assert_eq!((counts[A].lost, counts[A].received), (missed, end - 1 - missed));
    assert_eq!((counts[B].lost, counts[B].received), (0, end - 1));

    // Where nobody brings it, the session is joined late when the limit is over.
    let (mut channel, mut keyspace) = (self::channel(), MapKeyspace::default());
    channel.handle(1_000, &sent[3].bytes, &mut keyspace);
    assert_eq!(channel.sequencer().doubt(), Some(Doubt::Recovering));
    channel.housekeeping(1_000 + LIMIT_NS, &mut keyspace);
    assert_eq!(channel.held_packets(), 1);
    channel.housekeeping(1_001 + LIMIT_NS, &mut keyspace);
    assert_eq!(channel.sequencer().doubt(), Some(Doubt::JoinedLate));
    assert_eq!((channel.held_packets(), channel.sequencer().expected()), (0, sent[3].next));
    assert_eq!(channel.counters().gaps, 0);
}
