//! Copies of applied feed messages: what is dropped, how it is recorded, and all that is the worker's.

mod support;

use nautilus_ebpf::Verdict::{FeedApplied, Redirected};
use nautilus_ebpf::intf::{FEED_RECORDS, HOT_PATH, Service};
use nautilus_ebpf::{FeedLineAt, FeedRecord, FeedSlot, SteeringError};

use support::feed::{FEED, FROM, NEXT, SESSION, lines, mold, on_v4, on_v6};
use support::frame::{DESTINATION, Frame};
use support::{FEED_PORT, OUR_V4, Rig};

/// None with a printed `SKIPPED` line without the right to load programs, or where nothing is dropped.
fn rig(test: &str) -> Option<Rig> {
    if !HOT_PATH {
        println!("SKIPPED {test}: this build drops nothing of a feed");
        return None;
    }
    Rig::new(test)
}

fn copy(sequence: u64, count: u16) -> Frame {
    on_v4(mold(SESSION, sequence, count))
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn copies_of_what_was_applied_are_dropped_and_recorded() {
    let Some(rig) = rig("copies_of_what_was_applied_are_dropped_and_recorded") else { return };
    let version = rig.feed.borrow().version();
    for (sequence, count) in
        [(FROM, 1), (NEXT - 1, 1), (NEXT - 400, 400), (FROM, 2), (FROM + 77, 450)]
    {
        let payload = mold(SESSION, sequence, count);
        // A tail behind the messages: every remainder of the sum's steps.
        for tail in 0..70 {
            let payload = [payload.clone(), vec![0xa5; tail]].concat();
            for (line, frame) in [(0, on_v4(payload.clone())), (2, on_v6(payload))] {
                for tags in [vec![], vec![0x8100], vec![0x88a8, 0x8100]] {
                    let name = format!("{sequence} + {count}, {tail} behind, tags {tags:04x?}");
                    rig.expect(&name, &frame.clone().with(|f| f.tags = tags).bytes(), FeedApplied);
                    let record = FeedRecord { version, sequence, message_count: count, line };
                    assert_eq!(rig.recorded.get(), Some(record), "{name}");
                }
            }
        }
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn everything_else_is_the_workers() {
    let Some(rig) = rig("everything_else_is_the_workers") else { return };
    let mut other = SESSION;
    other[9] ^= 1;
    let mut another = SESSION;
    another[0] ^= 0x80;
    let wrong = |frame: Frame, at_end: usize| {
        let mut bytes = frame.bytes();
        let at = bytes.len() - at_end;
        bytes[at] ^= 4;
        bytes
    };
    let short = |bytes: usize| {
        let mut payload = mold(SESSION, FROM, 9);
        payload.truncate(bytes);
        on_v4(payload).bytes()
    };
    for (name, frame) in [
        ("one that is new", copy(NEXT, 1).bytes()),
        ("the last of it new", copy(NEXT - 1, 2).bytes()),
        ("all before the run", copy(FROM - 1, 1).bytes()),
        ("the first before the run", copy(FROM - 1, 2).bytes()),
        ("number 0", copy(0, 1).bytes()),
        ("the last number", copy(u64::MAX, 1).bytes()),
        ("a sum that runs over", copy(u64::MAX - 1, 400).bytes()),
        ("heartbeat", copy(FROM, 0).bytes()),
        ("end of session", copy(FROM, 0xffff).bytes()),
        ("more messages than are applied", copy(FROM, 0xfffe).bytes()),
        ("another session, last byte", on_v4(mold(other, FROM, 1)).bytes()),
        ("another session, first byte", on_v6(mold(another, FROM, 1)).bytes()),
        ("cut in its header", short(19)),
        ("more messages than have room", short(20 + 17)),
        ("wrong UDP checksum in the last byte", wrong(copy(FROM, 3), 1)),
        ("wrong in the messages", wrong(on_v6(mold(SESSION, FROM, 300)), 450)),
        (
            "IPv6 without a UDP checksum",
            on_v6(mold(SESSION, FROM, 1)).with(|f| f.checksums = false).bytes(),
        ),
        ("wrong IPv4 checksum", copy(FROM, 1).with(|f| f.checksums = false).bytes()),
        ("IPv4 options", copy(FROM, 1).with(|f| f.options = vec![1; 4]).bytes()),
        (
            "IPv6 extension header",
            on_v6(mold(SESSION, FROM, 1))
                .with(|f| f.extensions = vec![(DESTINATION, vec![0; 8])])
                .bytes(),
        ),
        (
            "our unicast address",
            Frame::v4(FEED_PORT)
                .with(|f| (f.payload, f.checksums) = (mold(SESSION, FROM, 1), true))
                .bytes(),
        ),
    ] {
        rig.expect(name, &frame, Redirected);
        assert_eq!(rig.recorded.get(), None, "{name}");
    }

    let known = copy(FROM, 5).bytes();
    rig.expect("before", &known, FeedApplied);
    let mut udp_sum_less = known.clone();
    udp_sum_less[14 + 20 + 6..][..2].fill(0);
    rig.expect("IPv4 without a UDP checksum", &udp_sum_less, FeedApplied);
    rig.steering.set_service(FEED_PORT, Service::listening(3)).unwrap();
    rig.expect("a service of no feeds", &known, Redirected);
    rig.steering.set_service(FEED_PORT, Service::listening(3).of_feeds()).unwrap();
    rig.expect("after", &known, FeedApplied);
    let moved = lines().map(|at| FeedLineAt { feed: FEED + 1, ..at });
    rig.steering.replace_feed_lines(&moved).unwrap();
    rig.expect("a feed of which nothing is known", &known, Redirected);
    rig.steering.replace_feed_lines(&lines()[1..]).unwrap();
    rig.expect("no line", &known, Redirected);
    rig.expect("the other line", &on_v6(mold(SESSION, FROM, 5)).bytes(), FeedApplied);
    let mut found = rig.steering.feed_lines().unwrap();
    assert_eq!(found.pop(), Some(lines()[1]));
    assert!(found.is_empty());
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn nothing_is_dropped_that_its_owner_does_not_say() {
    let Some(rig) = rig("nothing_is_dropped_that_its_owner_does_not_say") else { return };
    let known = copy(FROM, 5).bytes();
    rig.expect("said", &known, FeedApplied);
    let version = rig.feed.borrow().version();

    // A successor maps the slot that its predecessor left.
    let mut heir = FeedSlot::map(rig.steering.feeds_fd(), FEED).unwrap();
    assert_eq!(heir.version(), version);
    heir.retract();
    rig.expect("the predecessor's is nothing any more", &known, Redirected);
    heir.retract();
    rig.expect("nor is it after a second death", &known, Redirected);
    heir.publish(SESSION, FROM + 5, FROM + 5);
    rig.expect("an empty run", &known, Redirected);
    heir.advance(FROM + 10);
    rig.expect("before its run", &known, Redirected);
    rig.expect("its run", &copy(FROM + 5, 5).bytes(), FeedApplied);
    assert!(rig.recorded.get().unwrap().version > version);
    rig.expect("beyond its run", &copy(FROM + 6, 5).bytes(), Redirected);
    heir.publish(*b"000000TUE1", 1, u64::MAX);
    rig.expect("another session", &copy(FROM + 5, 5).bytes(), Redirected);
    rig.expect("all of it", &on_v4(mold(*b"000000TUE1", u64::MAX - 7, 7)).bytes(), FeedApplied);
    rig.expect("the end", &on_v4(mold(*b"000000TUE1", u64::MAX - 7, 8)).bytes(), Redirected);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn what_finds_no_room_for_its_record_is_the_workers() {
    let Some(rig) = rig("what_finds_no_room_for_its_record_is_the_workers") else { return };
    let run = |sequence| {
        let packet = copy(sequence, 1).bytes();
        rig.steering.test_run(&packet, Default::default()).unwrap().action
    };
    let applied = |number: u32| FROM + u64::from(number) % (NEXT - FROM);
    // Twice round, with the end of the ring at another place each time.
    for round in 0..2u32 {
        let held = 700 * round;
        for number in 0..held {
            assert_eq!(run(applied(number)), nautilus_ebpf::Action::Drop);
        }
        let mut drained = 0;
        rig.feed.borrow_mut().drain(|_| drained += 1);
        assert_eq!(drained, held);
        for number in 0..FEED_RECORDS {
            assert_eq!(run(applied(number)), nautilus_ebpf::Action::Drop, "{number}");
        }
        assert_eq!(run(FROM), nautilus_ebpf::Action::Redirect, "round {round}");
        let mut records = Vec::new();
        rig.feed.borrow_mut().drain(|record| records.push(record.sequence));
        let expected: Vec<u64> = (0..FEED_RECORDS).map(applied).collect();
        assert_eq!(records, expected, "round {round}");
        rig.feed.borrow_mut().drain(|record| panic!("{record:?} twice"));
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn lines_that_cannot_be_are_refused() {
    let Some(rig) = rig("lines_that_cannot_be_are_refused") else { return };
    let [at, _] = lines();
    for wrong in [
        vec![FeedLineAt { feed: 16, ..at }],
        vec![FeedLineAt { line: 3, ..at }],
        vec![FeedLineAt { port: 0, ..at }],
        vec![at, FeedLineAt { line: 1, ..at }],
    ] {
        let error = rig.steering.replace_feed_lines(&wrong).unwrap_err();
        assert!(matches!(error, SteeringError::Refused(_)), "{error}");
    }
    assert_eq!(rig.steering.feed_lines().unwrap().len(), 2, "nothing was changed");
    assert!(FeedSlot::map(rig.steering.feeds_fd(), 16).is_err());
    assert!(FeedSlot::map(rig.steering.hot_fds()[0], 0).is_err());
    let unicast = FeedLineAt { group: support::ip(OUR_V4), ..at };
    rig.steering.replace_feed_lines(&[unicast]).unwrap();
    assert_eq!(rig.steering.feed_lines().unwrap(), [unicast]);
}
