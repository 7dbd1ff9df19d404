//! One owner applies, gives up, rolls sessions over and dies without pause, while packets of two lines are
//! judged on every CPU: none is dropped that was not applied, and each that is dropped is recorded once.
//! `NAUTILUS_RACE_MS` sets for how long.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nautilus_ebpf::intf::HOT_PATH;
use nautilus_ebpf::{Action, FeedSlot, TestContext, Verdict};

use support::feed::{FEED, FROM, SESSION, mold, on_v4, on_v6};
use support::mutate::Random;
use support::{Rig, scale};

const SESSIONS: usize = 1 << 16;
/// Packets are as many messages behind or ahead of what was last applied.
const REACH: u64 = 64;

fn session(number: usize) -> [u8; 10] {
    let mut session = *b"000000....";
    session[6..].copy_from_slice(&(number as u32).to_be_bytes());
    session
}

/// What of each session was applied: a run, which is stored before the owner says it. An owner that dies takes
/// the session with it: its successor goes on in another one.
struct Truth {
    present: AtomicU64,
    from: Vec<AtomicU64>,
    next: Vec<AtomicU64>,
}

/// Tells the others to stop, also when an assertion fails: their scope waits for them.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn nothing_is_dropped_that_was_not_applied() {
    if !HOT_PATH {
        println!("SKIPPED nothing_is_dropped_that_was_not_applied: this build drops nothing");
        return;
    }
    let Some(rig) = Rig::new("nothing_is_dropped_that_was_not_applied") else { return };
    let Rig { steering, feed, .. } = rig;
    let words = || (0..SESSIONS).map(|_| AtomicU64::new(0)).collect();
    let truth = Truth { present: AtomicU64::new(0), from: words(), next: words() };
    let (truth, steering, stop) = (&truth, &steering, &AtomicBool::new(false));
    let run_for = Duration::from_millis(scale("NAUTILUS_RACE_MS", 1_500));

    let (recorded, dropped) = thread::scope(|scope| {
        let _stop = Stop(stop);
        let owner = scope.spawn(move || own(feed.into_inner(), steering.feeds_fd(), truth, stop));
        let judges: Vec<_> =
            (0..2).map(|seed| scope.spawn(move || judge(seed, steering, truth, stop))).collect();
        thread::sleep(run_for);
        stop.store(true, Ordering::Relaxed);
        let mut dropped: HashMap<Dropped, u64> = HashMap::new();
        for judge in judges {
            for one in judge.join().unwrap() {
                *dropped.entry(one).or_default() += 1;
            }
        }
        (owner.join().unwrap(), dropped)
    });
    let total: u64 = dropped.values().sum();
    let sessions = truth.present.load(Ordering::Relaxed);
    println!("{total} dropped in {sessions} sessions, each of them applied and recorded once");
    assert!(total > 1_000 && sessions > 10, "{total} in {sessions}");
    let mut by_packet: HashMap<Dropped, u64> = HashMap::new();
    for one in recorded {
        *by_packet.entry(one).or_default() += 1;
    }
    assert!(by_packet == dropped, "records are not what was dropped");
}

/// The owner says by turns that nothing of one session is applied and all of another, without pause: words of
/// both taken together would have the first dropped.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn words_of_two_publications_are_never_taken_together() {
    if !HOT_PATH {
        println!("SKIPPED words_of_two_publications_...: this build drops nothing");
        return;
    }
    let Some(rig) = Rig::with("words_of_two_publications_are_never_taken_together", false) else {
        return;
    };
    let Rig { steering, feed, .. } = rig;
    let (mut slot, stop) = (feed.into_inner(), &AtomicBool::new(false));
    let (nothing, all) = (session(1), session(2));
    let dropped = || steering.verdicts().unwrap().get(Verdict::FeedApplied).packet_count;
    let run = |session| {
        let packet = on_v4(mold(session, 5, 2)).bytes();
        let end = Instant::now() + Duration::from_millis(scale("NAUTILUS_RACE_MS", 1_500) / 2);
        while Instant::now() < end {
            steering.test_run_repeat(&packet, TestContext::default(), 1_000).unwrap();
        }
        dropped()
    };
    thread::scope(|scope| {
        let _stop = Stop(stop);
        scope.spawn(move || {
            let mut publications = 0u64;
            while !stop.load(Ordering::Relaxed) {
                slot.publish(nothing, 1, 1);
                slot.publish(all, 1, u64::MAX);
                slot.drain(|_| {});
                publications += 2;
            }
            println!("{publications} publications");
        });
        assert_eq!(run(nothing), 0, "dropped, though nothing of it is applied");
        assert!(run(all) > 1_000);
    });
}

/// Two CPUs drop without pause: each record has a place of its own.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn records_of_two_processors_do_not_take_each_others_place() {
    if !HOT_PATH {
        println!("SKIPPED records_of_two_processors_...: this build drops nothing");
        return;
    }
    let Some(rig) = Rig::with("records_of_two_processors_do_not_take_each_others_place", false)
    else {
        return;
    };
    let Rig { steering, feed, .. } = rig;
    let mut slot = feed.into_inner();
    let run_for = Duration::from_millis(scale("NAUTILUS_RACE_MS", 1_500));
    let of_line = thread::scope(|scope| {
        let judges = [on_v4(mold(SESSION, FROM, 2)), on_v6(mold(SESSION, FROM, 2))].map(|frame| {
            let steering = &steering;
            scope.spawn(move || {
                let (packet, end) = (frame.bytes(), Instant::now() + run_for);
                while Instant::now() < end {
                    steering.test_run_repeat(&packet, TestContext::default(), 100).unwrap();
                }
            })
        });
        let mut of_line = [0u64; 3];
        while !judges.iter().all(thread::ScopedJoinHandle::is_finished) {
            slot.drain(|record| of_line[usize::from(record.line)] += 1);
        }
        slot.drain(|record| of_line[usize::from(record.line)] += 1);
        of_line
    });
    let dropped = steering.verdicts().unwrap().get(Verdict::FeedApplied).packet_count;
    println!("{dropped} dropped, of the lines {of_line:?}");
    assert_eq!(of_line.iter().sum::<u64>(), dropped);
    assert!(of_line[0] > 1_000 && of_line[2] > 1_000 && of_line[1] == 0);
}

/// Session, first number, count, line.
type Dropped = (usize, u64, u16, u16);

fn own(
    mut slot: FeedSlot,
    fd: std::os::fd::BorrowedFd<'_>,
    truth: &Truth,
    stop: &AtomicBool,
) -> Vec<Dropped> {
    let (mut random, mut recorded) = (Random::new(7), Vec::new());
    let mut versions: Vec<(u64, usize)> = Vec::new();
    let mut drain = |slot: &mut FeedSlot, versions: &[(u64, usize)]| {
        slot.drain(|record| {
            let place = versions.partition_point(|(version, _)| *version <= record.version);
            let session = versions[place - 1].1;
            recorded.push((session, record.sequence, record.message_count, record.line));
        });
    };
    slot.retract();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) && number + 1 < SESSIONS {
        number += 1;
        let from = 1 + random.below(1_000) as u64;
        truth.from[number].store(from, Ordering::Release);
        truth.next[number].store(from, Ordering::Release);
        truth.present.store(number as u64, Ordering::Release);
        slot.publish(session(number), from, from);
        versions.push((slot.version(), number));
        for _ in 0..random.below(2_000) {
            // Applied first, said after.
            let next = truth.next[number].load(Ordering::Relaxed) + random.below(20) as u64;
            truth.next[number].store(next, Ordering::Release);
            slot.advance(next);
            drain(&mut slot, &versions);
            if random.below(200) == 0 {
                // A gap: the run begins anew beyond it.
                slot.publish(session(number), next + 5, next + 5);
                versions.push((slot.version(), number));
                truth.next[number].store(next + 5, Ordering::Release);
                truth.from[number].store(next + 5, Ordering::Release);
            }
        }
        if random.below(2) == 0 {
            slot = FeedSlot::map(fd, FEED).unwrap();
            slot.retract();
        }
    }
    // Until the judges have returned nothing more may be forgotten.
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        drain(&mut slot, &versions);
    }
    recorded
}

fn judge(
    seed: u64,
    steering: &nautilus_ebpf::Steering,
    truth: &Truth,
    stop: &AtomicBool,
) -> Vec<Dropped> {
    let (mut random, mut dropped) = (Random::new(seed), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let present = truth.present.load(Ordering::Acquire) as usize;
        let number = present.saturating_sub(random.below(2)).max(1);
        let from_before = truth.from[number].load(Ordering::Acquire);
        let about = truth.next[number].load(Ordering::Acquire);
        let sequence = (about + random.below(REACH as usize) as u64).saturating_sub(REACH / 2);
        let count = 1 + random.below(12) as u16;
        let payload = mold(session(number), sequence, count);
        let line = if random.below(2) == 0 { 0 } else { 2 };
        let frame = if line == 0 { on_v4(payload) } else { on_v6(payload) };
        let outcome = steering.test_run(&frame.bytes(), TestContext::default()).unwrap();
        if outcome.action == Action::Drop {
            let next = truth.next[number].load(Ordering::Acquire);
            assert!(sequence + u64::from(count) <= next, "{sequence} + {count} of {next}");
            assert!(sequence >= from_before, "{sequence} lies before {from_before}");
            dropped.push((number, sequence, count, line));
        }
    }
    dropped
}
