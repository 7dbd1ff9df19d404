//! What a node gives out again is as good as the venue's own line: a receiver that is fed by nothing else, loses
//! some of it and asks the node, has the node's books, and never believes wrong ones.

mod chain;
#[path = "../support/mod.rs"]
mod support;
mod walk;
#[allow(dead_code)]
#[path = "../feed_recovery/world.rs"]
mod world;

use chain::*;
use nautilus_dataplane::feed::channel::SnapshotPiece;
use nautilus_dataplane::feed::moldudp64::Kind;
use nautilus_dataplane::feed::request_server::Refusal;
use nautilus_dataplane::feed::session::Doubt;
use proptest::prelude::*;
use support::mold_packet;
use world::{Day, MONDAY, Setting, TUESDAY, truth};

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines, requests and replies lose on both ways, the port is full now and then, a session follows another.
    #[test]
    fn a_receiver_of_the_node_alone_has_its_books(seed in any::<u64>(), flush_us in 0u64..300) {
        let days = [(MONDAY, Day::new(seed, 1_200)), (TUESDAY, Day::new(!seed, 800))];
        let truths = days.each_ref().map(|(_, day)| truth(day));
        let setting = Setting { servers: 1, ..Setting::default() };
        let mut chain = Chain::new(seed, setting, setting, flush_us * 1_000);
        chain.loss = 150;
        chain.full_port = 100;
        for ((session, day), truth) in days.iter().zip(&truths) {
            chain.begin(*session, day, truth);
            for packet in &day.packets {
                chain.venue_sends(*packet);
                chain.pass(PACE_NS);
            }
            // Repeated until both have everything.
            for _ in 0..100 {
                chain.venue_ends();
                chain.pass(50_000_000);
            }
            for node in [&chain.node, &chain.receiver] {
                prop_assert_eq!(node.channel.sequencer().expected(), day.end());
                prop_assert_eq!(node.channel.sequencer().doubt(), None);
                prop_assert_eq!(node.channel.counters().gaps, 0);
                prop_assert!(node.channel.sequencer().has_ended(), "{:?}", chain.node.channel.republish_counts());
            }
            prop_assert_eq!(books(&chain.receiver.channel), books(&chain.node.channel));
            prop_assert!(chain.was_live > 100, "{}", chain.was_live);
        }
        let counts = chain.node.channel.republish_counts().unwrap();
        let all = days.iter().map(|(_, day)| day.end() - 1).sum::<u64>();
        prop_assert_eq!(counts.messages + counts.unsent, all, "each number once");
        prop_assert_eq!(counts.unsent, 0);
        prop_assert!(counts.refused_packets > 0 && counts.requests.answered > 10 && counts.ends > 0);
        let recovered = chain.receiver.channel.recovery_counts().unwrap().recovered_messages;
        prop_assert!(recovered > 50, "{}", recovered);
    }
}

/// A node that did not get some packets, a receiver that loses nothing, and what the latter was sent.
fn with_a_gap(run: impl FnOnce(&mut Chain<'_>, &Day)) {
    let day = Day::new(3, 1_500);
    let truth = truth(&day);
    let alone = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    let receiver = Setting { servers: 1, has_snapshot: true, ..Setting::default() };
    let mut chain = Chain::new(5, alone, receiver, 0);
    chain.begin(MONDAY, &day, &truth);
    for packet in &day.packets[..100] {
        if !(50..60).contains(&day.packets.iter().position(|one| one == packet).unwrap()) {
            chain.venue_sends(*packet);
        }
        chain.pass(PACE_NS);
    }
    run(&mut chain, &day);
}

#[test]
fn what_the_node_never_got_is_a_hole_on_its_line_too() {
    with_a_gap(|chain, day| {
        chain.pass(20_000_000);
        // It waits for a snapshot and has said nothing from behind the hole.
        let hole = day.packets[50].0;
        assert_eq!(chain.node.channel.sequencer().expected(), hole);
        assert_eq!(chain.receiver.channel.sequencer().expected(), hole);
        let (attempt, _) = chain.node.channel.snapshot_wanted().expect("wanted");
        let next = day.packets[70].0 + 1;
        load(&mut chain.node, attempt, &day.snapshot(next), next);
        chain.pass(5_000_000);
        assert!(chain.node.channel.is_live(chain.now_ns));
        assert_eq!(chain.receiver.channel.sequencer().doubt(), Some(Doubt::Recovering));
        assert_eq!(chain.numbers_sent(), (1..hole).chain(next..day.packets[100].0).collect());
        // Whoever asks for the hole hears nothing, and takes a snapshot of the node in the end.
        chain.pass(500_000_000);
        let refused = chain.node.channel.republish_counts().unwrap().requests.refused;
        assert!(refused[Refusal::Gone as usize] > 3, "{refused:?}");
        let (attempt, _) = chain.receiver.channel.snapshot_wanted().expect("wanted");
        let next = chain.node.channel.sequencer().expected();
        load(&mut chain.receiver, attempt, &day.snapshot(next), next);
        for packet in &day.packets[100..] {
            chain.venue_sends(*packet);
            chain.pass(PACE_NS);
        }
        chain.pass(5_000_000);
        assert!(chain.receiver.channel.is_live(chain.now_ns));
        assert_eq!(books(&chain.receiver.channel), books(&chain.node.channel));
        assert_eq!(chain.receiver.channel.counters().gaps, 0);
    });
}

#[test]
fn a_snapshot_older_than_what_was_applied_gives_nothing_out_twice() {
    with_a_gap(|chain, day| {
        chain.pass(20_000_000);
        let (attempt, _) = chain.node.channel.snapshot_wanted().expect("wanted");
        let next = day.packets[40].0;
        load(&mut chain.node, attempt, &day.snapshot(next), next);
        for packet in &day.packets[40..] {
            chain.venue_sends(*packet);
            chain.pass(PACE_NS);
        }
        chain.pass(20_000_000);
        assert_eq!(chain.numbers_sent(), (1..day.end()).collect());
        assert!(chain.receiver.channel.is_live(chain.now_ns));
        assert_eq!(books(&chain.receiver.channel), books(&chain.node.channel));
    });
}

#[test]
fn a_node_in_trouble_does_not_say_that_all_is_well() {
    with_a_gap(|chain, day| {
        let heartbeats = |chain: &Chain<'_>| {
            let packets = chain.sent.iter().map(|packet| packet_of(packet));
            packets.filter(|packet| packet.kind == Kind::Heartbeat).count()
        };
        chain.pass(4_000_000_000);
        assert_eq!(heartbeats(chain), 0, "something is missing");
        assert!(!chain.receiver.channel.is_live(chain.now_ns), "and nothing is said");
        for _ in 0..300 {
            let Some((attempt, _)) = chain.node.channel.snapshot_wanted() else {
                chain.pass(100_000_000);
                continue;
            };
            let next = day.packets[90].0;
            load(&mut chain.node, attempt, &day.snapshot(next), next);
            break;
        }
        // Silent as well, until the venue is heard again.
        chain.pass(2_000_000_000);
        assert_eq!(heartbeats(chain), 0, "the venue is not heard");
        for _ in 0..30 {
            let next = day.packets[100].0;
            chain.venue_says(mold_packet(MONDAY, next, &[]));
            chain.pass(100_000_000);
        }
        assert_eq!(heartbeats(chain), 4, "one at once, then one a second");
        let last = packet_of(chain.sent.last().unwrap());
        assert_eq!(last.sequence, chain.node.channel.sequencer().expected());
        // And silent again 3 s after its last word.
        chain.pass(10_000_000_000);
        assert!((6..=7).contains(&heartbeats(chain)), "{}", heartbeats(chain));
    });
}

#[test]
fn what_the_port_takes_too_late_is_lost_on_the_line_and_can_be_asked_for() {
    let day = Day::new(3, 30_000);
    let mut chain = Chain::new(5, Setting::default(), Setting::default(), 0);
    let truth = Default::default();
    chain.begin(MONDAY, &day, &truth);
    chain.full_port = 1_000;
    for packet in &day.packets {
        chain.venue_sends(*packet);
        chain.pass(1_000);
    }
    assert!(chain.sent.is_empty());
    chain.full_port = 0;
    chain.pass(10_000_000);
    let counts = chain.node.channel.republish_counts().unwrap();
    let numbers = chain.numbers_sent();
    assert_eq!(counts.messages, numbers.len() as u64);
    assert_eq!(counts.unsent + counts.messages, day.end() - 1);
    assert!((8_192..=16_384).contains(&numbers.len()), "{}", numbers.len());
    assert_eq!(numbers.last(), Some(&(day.end() - 1)), "the youngest are sent");
    // The receiver knows the session from its number 1 on, and asks for the rest.
    chain.pass(1_000_000_000);
    assert_eq!(books(&chain.receiver.channel), books(&chain.node.channel));
    assert_eq!(chain.receiver.channel.sequencer().expected(), day.end());
}

fn load(node: &mut Node, attempt: u64, messages: &[Vec<u8>], next: u64) {
    node.piece(attempt, SnapshotPiece::Begin(MONDAY));
    for message in messages {
        let block = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        node.piece(attempt, SnapshotPiece::Messages(&block));
    }
    node.piece(attempt, SnapshotPiece::End(next));
}
