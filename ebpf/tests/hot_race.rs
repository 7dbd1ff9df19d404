//! One writer publishes a slot over and over while the program answers from it: no answer may be
//! torn, older than what was acknowledged before the request, or older than the answer before. The same
//! where the key is shown in the second of two areas, while its slot in the first changes as often.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nautilus_ebpf::intf::{HOT_PATH, HOT_SLOTS};
use nautilus_ebpf::{Action, HotArea, HotSlots, HotValue, TestContext};

use support::frame::Frame;
use support::hot::{HOT_CACHE, get, read_answer, value};
use support::{CACHE_PORT, HOT_SERVICE, Rig, checksum, scale};

const KEY: &[u8] = b"hot:key";

/// The number of a publication, 2 to 26 times over: every length, and every word tells its number.
/// Cheap to make, so that publications follow each other closely.
struct Reply {
    text: [u8; 208],
    bytes: usize,
    sum: u16,
}

impl Reply {
    fn new(number: u64) -> Self {
        let word = number.to_be_bytes();
        let count = 2 + number % 25;
        let mut text = [0; 208];
        for place in text.chunks_exact_mut(8) {
            place.copy_from_slice(&word);
        }
        let sum = u64::from(checksum::sum(&[&word])) * count;
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        Self { text, bytes: count as usize * 8, sum: (sum as u16).to_be() }
    }

    fn publish(&self, slots: &mut HotSlots, slot: u32) {
        let reply_text = &self.text[..self.bytes];
        let value = HotValue { reply_text, reply_sum: self.sum, ..value(KEY, b"") };
        slots.publish(slot, &value).unwrap();
    }
}

fn number_of(text: &[u8]) -> u64 {
    let number = u64::from_be_bytes(text[..8].try_into().unwrap());
    let whole = Reply::new(number);
    assert_eq!(text, &whole.text[..whole.bytes], "torn");
    number
}

/// Tells the writer to stop, also when an assertion fails: its scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn answers_are_whole_and_never_go_back() {
    if !HOT_PATH {
        println!("SKIPPED answers_are_whole_and_never_go_back: this build has no hot path");
        return;
    }
    let Some(rig) = Rig::new("answers_are_whole_and_never_go_back") else { return };
    let Rig { steering, mut slots, words: _words, .. } = rig;
    let request = get(Frame::v4(CACHE_PORT), 7, KEY).bytes();
    let run_for = Duration::from_millis(scale("NAUTILUS_RACE_MS", 1_500));
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));

    let pauses = [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(10)];
    let runs = pauses.map(|pause| (1, pause)).into_iter().chain([(2, pauses[1])]);
    for (workers, pause) in runs {
        steering.set_service(CACHE_PORT, HOT_SERVICE.of_workers(workers)).unwrap();
        let of_worker = |number| HotArea::new(number, workers)?.slot_of(HOT_CACHE, KEY);
        let slot = of_worker(workers - 1).unwrap();
        let rival = of_worker(0).filter(|rival| *rival != slot);
        // What the run before published, in the slot that is another worker's now.
        (0..HOT_SLOTS).for_each(|slot| slots.empty(slot));
        stop.store(false, Ordering::Relaxed);
        let first = acknowledged.load(Ordering::Relaxed) + 1;
        Reply::new(first).publish(&mut slots, slot);
        acknowledged.store(first, Ordering::Release);
        let (answers, missed) = thread::scope(|scope| {
            let (slots, acknowledged, stop) = (&mut slots, &acknowledged, &stop);
            scope.spawn(move || {
                for number in first + 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    Reply::new(number).publish(slots, slot);
                    acknowledged.store(number, Ordering::Release);
                    if let Some(rival) = rival {
                        slots.publish(rival, &value(b"another", b"of another worker")).unwrap();
                    }
                    let until = Instant::now() + pause;
                    while !pause.is_zero() && Instant::now() < until {
                        std::hint::spin_loop();
                    }
                }
            });
            let _stop = Stop(stop);
            let (mut answers, mut missed, mut last) = (0u64, 0u64, 0);
            let end = Instant::now() + run_for;
            while Instant::now() < end {
                let known = acknowledged.load(Ordering::Acquire);
                let outcome = steering.test_run(&request, TestContext::default()).unwrap();
                if outcome.action != Action::Tx {
                    assert_eq!(
                        outcome.packet, request,
                        "a request left to the worker is as it was"
                    );
                    missed += 1;
                    continue;
                }
                let number = number_of(&read_answer("raced", &request, &outcome.packet));
                assert!(number >= known, "{number} after {known} was acknowledged");
                assert!(number >= last, "{number} after {last} was answered");
                (answers, last) = (answers + 1, number);
            }
            (answers, missed)
        });
        let published = acknowledged.load(Ordering::Relaxed) - first;
        println!(
            "{workers} areas, {pause:?} between publications: {published} published, {answers} answers, none torn or \
             old, {missed} left to the worker"
        );
        assert!(answers > 1_000 && published > 1_000);
    }
}
