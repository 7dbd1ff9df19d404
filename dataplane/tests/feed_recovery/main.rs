//! What no line brought comes back from a request server or a snapshot: the channel is suspect meanwhile and
//! exact afterwards, whatever the servers do.

#[path = "../support/mod.rs"]
mod support;
mod world;

use nautilus_dataplane::feed::channel::SnapshotPiece;
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::recovery::requests::TRIES_MAX;
use nautilus_dataplane::feed::session::Doubt;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::random::Random;
use proptest::prelude::*;
use support::mold_packet;
use world::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Both lines lose, requests and replies are lost as well, and nothing is missing in the end.
    #[test]
    fn nothing_stays_missing_while_a_server_answers(seed in any::<u64>(), first in 0_usize..40) {
        let day = Day::new(seed, 1_500);
        let truth = truth(&day);
        let mut world = World::new(&day, &truth, Setting::default());
        world.request_loss = 250;
        let mut random = Random::new(seed ^ 0x5eed);
        // The session may be joined late, too.
        world.send(&day.packets[first..], |_, _| random.below(1_000) < 200);
        world.run(day.packets.len() as u64 * PACE_NS + 2_000_000_000);
        let end = mold_packet(MONDAY, day.end(), &[]);
        world.at(world.now_ns, Arrival::Line(0, end));
        world.run(1_000_000_000);
        prop_assert_eq!(world.channel.sequencer().expected(), day.end());
        prop_assert_eq!(world.channel.sequencer().doubt(), None);
        prop_assert!(world.is_live());
        prop_assert_eq!(world.channel.counters().gaps, 0);
        prop_assert_eq!(world.channel.counters().messages, day.end() - 1, "each number once");
        prop_assert_eq!(&published(&world.keyspace), &truth[&day.end()]);
        let counts = world.counts();
        prop_assert!(counts.recovered_messages > 0 && counts.timeouts > 0 && counts.exhausted == 0);
    }
}

/// 1,500 messages, of which the numbers of some packets in the middle come on no line.
fn with_a_hole(setting: Setting, hole: std::ops::Range<usize>, run: impl FnOnce(&mut World<'_>)) {
    let day = Day::new(7, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    let lost: Vec<(u64, u64)> = day.packets[hole].to_vec();
    world.send(&day.packets, |_, packet| lost.contains(&packet));
    run(&mut world);
}

#[test]
fn what_the_other_line_is_about_to_bring_is_not_asked_for() {
    let day = Day::new(7, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, Setting::default());
    world.send(&day.packets, |line, (sequence, _)| (sequence % 2 == 0) == (line == 0));
    world.run(day.packets.len() as u64 * PACE_NS + 1_000_000);
    assert_eq!((world.asked.len(), world.channel.sequencer().expected()), (0, day.end()));
}

#[test]
fn a_hole_is_suspect_from_its_limit_on_and_exact_once_it_is_filled() {
    with_a_hole(Setting::default(), 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(50 * PACE_NS - 1);
        assert!(world.is_live());
        world.was_suspect = false;
        world.run(40 * PACE_NS + HOLD_NS / 2);
        assert!(world.is_live() && !world.was_suspect, "the hole is young");
        world.run(HOLD_NS);
        assert!(!world.is_live());
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Recovering));
        world.deaf_servers.remove(&server(1));
        world.run(100_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(world.channel.counters().gaps, 0);
        let (first, last) = (world.day.packets[50].0, world.day.packets[89].1);
        assert_eq!(world.counts().recovered_messages, last - first);
        assert!(world.asked.iter().any(|(to, _)| *to == server(0)), "in turns");
    });
}

#[test]
fn servers_that_never_answer_leave_a_gap_where_there_is_no_snapshot() {
    with_a_hole(Setting::default(), 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(2_000_000_000);
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Gap));
        assert_eq!(world.channel.sequencer().expected(), world.day.end(), "it goes on");
        assert_eq!((world.counts().exhausted, world.channel.counters().gaps), (1, 1));
        let tries =
            world.asked.iter().filter(|(_, asked)| asked.sequence == world.day.packets[50].0);
        assert_eq!(tries.count() as u32, TRIES_MAX);
        assert!(!world.is_live());
    });
}

#[test]
fn servers_that_never_answer_make_a_snapshot_necessary() {
    let setting = Setting { has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(100 * PACE_NS + 200_000_000);
        let (attempt, session) = world.channel.snapshot_wanted().expect("wanted");
        assert_eq!(session, MONDAY);
        assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Recovering));
        assert_eq!(world.channel.snapshot_wanted(), Some((attempt, session)), "the same attempt");
        // It was made while packets behind the hole were being sent; what follows it was held.
        let next = world.day.packets[95].0 + 1;
        world.piece(attempt, SnapshotPiece::Begin(MONDAY));
        assert_eq!(world.channel.snapshot_wanted(), None);
        world.piece(attempt, SnapshotPiece::Failed);
        assert_eq!(world.counts().snapshots_failed, 1);
        world.run(90_000_000);
        assert_eq!(world.channel.snapshot_wanted(), None, "not at once again");
        world.run(20_000_000);
        let (again, _) = world.channel.snapshot_wanted().expect("wanted again");
        assert!(again > attempt);
        load_as(world, again, MONDAY, next);
        world.run(1_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(published(&world.keyspace), world.truth[&world.day.end()]);
        assert_eq!((world.counts().snapshots_loaded, world.channel.counters().gaps), (1, 0));
    });
}

/// Hands a snapshot over; `next` is what it says that all before is included of.
fn load_as(world: &mut World<'_>, attempt: u64, session: Session, next: u64) {
    let messages = world.day.snapshot(next);
    world.piece(attempt, SnapshotPiece::Begin(session));
    for message in &messages {
        let block = [&(message.len() as u16).to_be_bytes()[..], message].concat();
        world.piece(attempt, SnapshotPiece::Messages(&block));
        assert!(!world.is_live(), "in its middle");
    }
    world.piece(attempt, SnapshotPiece::End(next));
}

#[test]
fn a_hole_larger_than_is_asked_for_is_a_matter_for_a_snapshot() {
    let setting = Setting { has_snapshot: true, messages_max: 20, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(90 * PACE_NS + 2 * HOLD_NS);
        assert_eq!(world.asked.len(), 0);
        assert!(world.channel.snapshot_wanted().is_some());
    });
}

#[test]
fn a_node_that_comes_late_takes_a_snapshot() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    let day = Day::new(9, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    world.send(&day.packets[100..], |_, _| false);
    world.run(10_000_000);
    let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
    // As the server had it before the first packet that we heard: it is too old.
    load_as(&mut world, attempt, MONDAY, day.packets[90].0);
    world.run(1_000_000);
    assert!(!world.is_live(), "ten packets are missing between");
    world.run(200_000_000);
    let (attempt, _) = world.channel.snapshot_wanted().expect("another");
    load_as(&mut world, attempt, MONDAY, day.packets[120].0);
    world.run(1_000_000);
    assert!(world.is_live());
    assert_eq!(world.channel.sequencer().expected(), day.end());
    assert_eq!((world.counts().snapshots_loaded, world.channel.counters().gaps), (2, 0));
}

#[test]
fn a_message_that_cannot_be_read_is_healed_by_a_snapshot() {
    let setting = Setting { has_snapshot: true, ..Setting::default() };
    let day = Day::new(9, 1_500);
    let truth = truth(&day);
    let mut world = World::new(&day, &truth, setting);
    world.send(&day.packets[..100], |_, _| false);
    world.run(100 * PACE_NS);
    assert!(world.is_live());
    // Messages in a wrong length, on the line that is first.
    let (sequence, next) = day.packets[100];
    let bad = vec![b"A".as_slice(); (next - sequence) as usize];
    world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, sequence, &bad)));
    world.send(&day.packets[100..], |_, _| false);
    world.run(10_000_000);
    assert_eq!(world.channel.sequencer().doubt(), Some(Doubt::Malformed));
    let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
    load_as(&mut world, attempt, MONDAY, day.packets[130].0);
    world.run(day.packets.len() as u64 * PACE_NS);
    assert!(world.is_live());
    assert_eq!(published(&world.keyspace), truth[&day.end()]);
}

#[test]
fn snapshots_that_lie_stall_or_break_off_are_never_believed() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(100 * PACE_NS + 10_000_000);
        let end = world.day.end();
        let wanted = |world: &mut World<'_>| {
            for _ in 0..700 {
                if let Some((attempt, _)) = world.channel.snapshot_wanted() {
                    return attempt;
                }
                world.run(50_000_000);
            }
            panic!("never wanted again");
        };
        type Lie = fn(&mut World<'_>, u64);
        let lies: [Lie; 6] = [
            |world, attempt| world.piece(attempt, SnapshotPiece::Begin(TUESDAY)),
            |world, attempt| world.piece(attempt, SnapshotPiece::End(9)),
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::Messages(&[0, 9, b'A']));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::Messages(&[0, 1, b'A']));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.piece(attempt, SnapshotPiece::End(0));
            },
            |world, attempt| {
                world.piece(attempt, SnapshotPiece::Begin(MONDAY));
                world.run(6_000_000_000);
            },
        ];
        for (index, lie) in lies.into_iter().enumerate() {
            let attempt = wanted(world);
            lie(world, attempt);
            assert_eq!(world.counts().snapshots_failed, index as u64 + 1);
            // Of an attempt that is over nothing is taken in.
            load_as(world, attempt, MONDAY, end);
            world.run(1_000_000);
            assert!(!world.is_live(), "{index}");
        }
        let attempt = wanted(world);
        load_as(world, attempt, MONDAY, end);
        // The line has been silent meanwhile, which is another reason.
        world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, end, &[])));
        world.run(1_000_000);
        assert!(world.is_live());
        assert_eq!(world.counts().snapshots_loaded, 1);
    });
}

#[test]
fn replies_that_nobody_asked_for_are_refused_and_begin_no_session() {
    with_a_hole(Setting::default(), 50..60, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        world.run(70 * PACE_NS);
        let asked = world.asked[0].1;
        let good = world.day.reply(MONDAY, &asked);
        let expected = world.channel.sequencer().expected();
        let refused = [
            (Endpoint::v4([198, 18, 0, 99], 26_500), good.clone()),
            (server(0), world.day.reply(TUESDAY, &asked)),
            (server(0), world.day.packet(MONDAY, (1, 5))),
            (server(0), mold_packet(MONDAY, asked.sequence, &[])),
            (server(0), good[..good.len() - 1].to_vec()),
            (server(0), world.day.packet(MONDAY, (asked.sequence, asked.sequence + 33))),
            (server(0), Vec::new()),
        ];
        let count = refused.len() as u64;
        for (from, bytes) in refused {
            world.channel.handle_reply(&from, world.now_ns, &bytes, &mut world.keyspace);
        }
        assert_eq!((world.counts().refused_replies, world.counts().replies), (count, 0));
        assert_eq!(world.channel.sequencer().expected(), expected);
        assert_eq!(world.channel.sequencer().session(), Some(MONDAY));
        world.channel.handle_reply(&server(1), world.now_ns, &good, &mut world.keyspace);
        assert_eq!(world.counts().replies, 1);
        world.channel.handle_reply(&server(1), world.now_ns, &good, &mut world.keyspace);
        assert_eq!(world.counts().refused_replies, count + 1, "once is enough");
    });
}

#[test]
fn what_finds_no_room_meanwhile_is_asked_for_later() {
    let queue = HeldLimits { packets_max: 64, bytes_max: 1 << 17 };
    let setting = Setting { queue, ..Setting::default() };
    with_a_hole(setting, 50..55, |world| {
        world.deaf_servers.extend([server(0), server(1)]);
        // A hundred packets and more come behind the hole, within what a request may take.
        world.run(200 * PACE_NS);
        assert!(world.counts().queue_dropped > 0);
        assert!(!world.is_live());
        world.deaf_servers.clear();
        world.run(world.day.packets.len() as u64 * PACE_NS + 500_000_000);
        world.at(world.now_ns, Arrival::Line(0, mold_packet(MONDAY, world.day.end(), &[])));
        world.run(1_000_000_000);
        assert!(world.is_live());
        assert_eq!(world.channel.sequencer().expected(), world.day.end());
        assert_eq!(world.channel.counters().gaps, 0);
    });
}

#[test]
fn another_session_makes_an_end_of_recovery() {
    let setting = Setting { servers: 0, has_snapshot: true, ..Setting::default() };
    with_a_hole(setting, 50..90, |world| {
        world.run(100 * PACE_NS + 10_000_000);
        let (attempt, _) = world.channel.snapshot_wanted().expect("wanted");
        world.piece(attempt, SnapshotPiece::Begin(MONDAY));
        let first = world.day.packet(TUESDAY, (1, 5));
        world.channel.handle(world.now_ns, &first, &mut world.keyspace);
        assert!(world.channel.is_live(world.now_ns));
        assert_eq!(world.channel.sequencer().expected(), 5);
        world.channel.take_snapshot(
            attempt,
            world.now_ns,
            SnapshotPiece::End(900),
            &mut world.keyspace,
        );
        assert_eq!(world.channel.sequencer().expected(), 5, "of the session before");
    });
}
