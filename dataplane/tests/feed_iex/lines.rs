//! Sequence, session and lines are judged as those of any other protocol.

use nautilus_dataplane::feed::Protocol;
use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::iex::iextp;
use nautilus_dataplane::feed::iex::tops::{QuoteUpdate, TradeReport};
use nautilus_dataplane::feed::iex::wire::{Price, Timestamp};
use nautilus_dataplane::feed::session::{Doubt, Start};
use nautilus_dataplane::replay::random::Random;

use super::{Bench, NOW_NS, segment};

/// 2018-01-29 14:30 UTC.
const OPEN: i64 = 1_517_236_200_000_000_000;

fn quote(number: u32) -> Vec<u8> {
    let symbol = Symbol(*[b"AAPL    ", b"MSFT    ", b"ZIEXT   "][number as usize % 3]);
    let at = Timestamp(OPEN + i64::from(number));
    let price = Price(i64::from(1_000 + number));
    QuoteUpdate::encode(0, at, symbol, 1 + number, price, Price(price.0 + 5), 2 + number).to_vec()
}

fn message(number: u32) -> Vec<u8> {
    if !number.is_multiple_of(4) {
        return quote(number);
    }
    let at = Timestamp(OPEN + i64::from(number));
    let id = u64::from(number);
    TradeReport::encode(0, at, Symbol(*b"AAPL    "), number + 1, Price(77), id).to_vec()
}

/// The same messages in segments of random length.
fn segments(messages: &[Vec<u8>], random: &mut Random) -> Vec<Vec<u8>> {
    let (mut segments, mut from) = (Vec::new(), 0);
    while from < messages.len() {
        let until = messages.len().min(from + 1 + random.below(9) as usize);
        let blocks: Vec<&[u8]> = messages[from..until].iter().map(Vec::as_slice).collect();
        segments.push(segment(from as u64 + 1, &blocks));
        from = until;
    }
    segments
}

#[test]
fn heartbeats_begin_a_session_and_reveal_what_was_lost_at_its_end() {
    let mut bench = Bench::tops();
    bench.send(&segment(1, &[]));
    assert!(bench.channel.is_live(NOW_NS));
    bench.send(&segment(1, &[&quote(1)]));
    bench.send(&segment(2, &[]));
    assert_eq!((bench.channel.counters().heartbeats, bench.channel.sequencer().doubt()), (2, None));
    bench.send(&segment(4, &[]));
    assert!(bench.channel.is_live(NOW_NS + 1_000_000), "the hole may be filled");
    bench.channel.housekeeping(NOW_NS + 1_000_001, &mut bench.keyspace);
    assert_eq!(bench.channel.sequencer().doubt(), Some(Doubt::Gap));
    assert_eq!(bench.channel.counters().gap_messages, 2);
    assert!(bench.keyspace.get("md:iex:MSFT:bbo", NOW_NS).is_none());
}

#[test]
fn another_session_or_channel_forgets_the_one_before() {
    let mut bench = Bench::tops();
    bench.send(&segment(1, &[&quote(1)]));
    assert_eq!(bench.keys(), ["md:iex:MSFT:bbo"]);
    let mut tuesday = segment(1, &[&quote(0)]);
    tuesday[8] = 1;
    bench.send(&tuesday);
    assert_eq!(bench.keys(), ["md:iex:AAPL:bbo"]);
    assert_eq!(&bench.value("md:iex:AAPL:bbo").unwrap()[40..50], b"4496000101");
    // What was late of the day before is no news.
    bench.send(&segment(2, &[&quote(2)]));
    assert_eq!(
        (bench.keys(), bench.channel.counters().stale_packets),
        (vec!["md:iex:AAPL:bbo"], 1)
    );
    let mut other_channel = segment(1, &[&quote(2)]);
    other_channel[4] = 2;
    bench.send(&other_channel);
    assert_eq!(bench.keys(), ["md:iex:ZIEXT:bbo"]);
    assert_eq!(&bench.value("md:iex:ZIEXT:bbo").unwrap()[40..50], b"4496000002");
    assert_eq!(bench.channel.counters().sessions, 3);
}

/// The venue packs the messages of its lines as it likes: what one loses is taken from the other all the same.
#[test]
fn lines_of_other_segments_fill_each_others_holes() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let messages: Vec<Vec<u8>> = (0..600).map(message).collect();
        let mut whole = Bench::tops();
        for segment in segments(&messages, &mut random) {
            whole.send(&segment);
        }
        let mut bench = Bench::with_lines(Protocol::IexTops16, Start::Session, 2);
        let lines = [0, 1].map(|_| segments(&messages, &mut random));
        let (mut next, mut lost) = ([0, 0], 0);
        while next[0] < lines[0].len() || next[1] < lines[1].len() {
            // B is behind, and comes to its end by itself.
            let is_over = [0, 1].map(|line: usize| next[line] == lines[line].len());
            let is_b = !is_over[1] && next[1] < next[0] && random.below(2) == 0;
            let line = usize::from(is_over[0] || is_b);
            let segment = &lines[line][next[line]];
            next[line] += 1;
            // Of every hundred messages one line may lose what it likes, and of the next the other.
            let packet = iextp::parse(segment, iextp::PROTOCOL_TOPS).unwrap();
            let blocks = [packet.sequence / 100, (packet.next_sequence() - 1) / 100];
            let may_lose = blocks.map(|block| block as usize % 2) == [line; 2];
            if may_lose && random.below(3) == 0 {
                lost += 1;
                continue;
            }
            bench.channel.handle_from(line, NOW_NS, segment, &mut bench.keyspace);
        }
        assert!(lost > 5, "seed {seed}");
        let counters = bench.channel.counters();
        assert_eq!((counters.gaps, counters.messages), (0, 600), "seed {seed}");
        assert!(counters.healed_holes > 2, "seed {seed}");
        assert_eq!(bench.channel.sequencer().doubt(), None);
        let values = |bench: &Bench| bench.keyspace.values.clone();
        assert_eq!(values(&bench), values(&whole), "seed {seed}");
        let counts: Vec<_> = bench.channel.line_counts().copied().collect();
        assert_eq!(counts.iter().map(|line| line.first).sum::<u64>(), 600);
    }
}
