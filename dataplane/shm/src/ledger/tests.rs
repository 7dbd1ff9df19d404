use proptest::prelude::*;

use super::model::{Kernel, Shared, StopAfter, run_until_stopped};
use super::*;
use crate::sync::Ordering;

/// One step of a worker or of the kernel beside it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Fill(u32),
    Receive(u32),
    /// Sends this many of the held frames, or of fresh ones when none is held.
    Transmit(u32),
    Complete(u32),
    Release,
    KernelTakesFill,
    KernelDelivers,
    KernelTakesTx,
    KernelFinishes,
}

/// Every operation once with every ring in use; each is stopped after each of its stores.
const EVERY_OPERATION: &[Step] = &[
    Step::Fill(3),
    Step::KernelTakesFill,
    Step::KernelTakesFill,
    Step::KernelTakesFill,
    Step::KernelDelivers,
    Step::KernelDelivers,
    Step::Receive(2),
    Step::Transmit(2),
    Step::KernelTakesTx,
    Step::KernelTakesTx,
    Step::KernelFinishes,
    Step::KernelFinishes,
    Step::Complete(2),
    Step::Transmit(3),
    Step::KernelDelivers,
    Step::Receive(4),
    Step::Release,
    Step::Fill(2),
];

/// Stores between two stops. Miri looks for undefined behaviour, not for wrong orders, and is a
/// thousand times slower.
const STRIDE: u32 = if cfg!(miri) { 9 } else { 1 };

const FRAMES: u32 = 6;
const ENTRIES: u32 = 4;

fn run<P: StorePoint>(
    shared: &std::sync::Arc<Shared>,
    kernel: &Kernel,
    ledger: &mut Ledger<std::sync::Arc<Shared>, P>,
    held: &mut Vec<Frame>,
    step: Step,
) {
    match step {
        Step::Fill(count) => {
            shared.fill(ledger, count);
        }
        Step::Receive(count) => held.extend(shared.receive(ledger, count).0),
        Step::Transmit(count) => {
            if held.is_empty() {
                held.extend((0..count).map_while(|_| ledger.hold()));
            }
            let count = (count.min(shared.ring(Ring::Tx).room()) as usize).min(held.len());
            shared.transmit(ledger, held.drain(..count).collect());
        }
        Step::Complete(count) => {
            shared.complete(ledger, count);
        }
        Step::Release => held.drain(..).for_each(|frame| ledger.release(frame)),
        Step::KernelTakesFill => kernel.take_fill(shared),
        Step::KernelDelivers => kernel.deliver(shared),
        Step::KernelTakesTx => kernel.take_tx(shared),
        Step::KernelFinishes => kernel.finish(shared),
    }
}

/// Runs `steps` with a worker that stops after `stores` stores; then recovers, with a successor that
/// itself stops after `recovery_stores`, and checks. Returns whether (worker, recovery) finished.
fn stop_and_recover(first: u32, steps: &[Step], stores: u32, recovery_stores: u32) -> (bool, bool) {
    let shared = Shared::new(FRAMES, ENTRIES, first);
    let kernel = Kernel::default();
    let finished = run_until_stopped(|| {
        let (mut ledger, _) = shared.recover(StopAfter::stores(stores)).unwrap();
        let mut held = Vec::new();
        for step in steps {
            run(&shared, &kernel, &mut ledger, &mut held, *step);
            if !cfg!(miri) {
                kernel.check(&shared, &ledger, &held);
            }
        }
    });
    let recovered = run_until_stopped(|| {
        shared.recover(StopAfter::stores(recovery_stores)).unwrap();
    });
    // The kernel goes on while no worker runs.
    for _ in 0..2 {
        kernel.take_fill(&shared);
        kernel.deliver(&shared);
        kernel.take_tx(&shared);
        kernel.finish(&shared);
    }
    let (mut ledger, outcome) = shared.recover(StopAfter::never()).unwrap();
    assert_eq!(outcome.refused, 0);
    assert_eq!(ledger.counts().held, 0);
    kernel.check(&shared, &ledger, &[]);
    // The successor can use what it took over.
    let mut held = Vec::new();
    for step in EVERY_OPERATION {
        run(&shared, &kernel, &mut ledger, &mut held, *step);
        kernel.check(&shared, &ledger, &held);
    }
    (finished, recovered)
}

#[test]
fn a_stop_after_any_store_of_any_operation_loses_and_doubles_nothing() {
    for first in [0, u32::MAX - 2] {
        let mut stores = 0;
        while !stop_and_recover(first, EVERY_OPERATION, stores, u32::MAX).0 {
            stores += STRIDE;
        }
        assert!(stores > 35, "only {stores} stores were seen");
    }
}

#[test]
fn a_stop_after_any_store_of_a_recovery_is_recovered_from() {
    let mut stores = 0;
    let mut second = 0;
    loop {
        let mut finished = false;
        for recovery_stores in (0..).step_by(STRIDE as usize) {
            let (worker, recovery) =
                stop_and_recover(u32::MAX - 1, EVERY_OPERATION, stores, recovery_stores);
            finished = worker;
            if recovery {
                break;
            }
            second += 1;
        }
        if finished {
            break;
        }
        stores += STRIDE;
    }
    assert!(second > 35 / STRIDE / STRIDE, "only {second} recoveries were cut short");
}

#[test]
fn a_gap_is_closed_to_the_side_the_design_names() {
    // One store is the intent, so a stop after it leaves index and intent apart.
    let shared = Shared::new(FRAMES, ENTRIES, 0);
    let kernel = Kernel::default();
    run_until_stopped(|| {
        let (mut ledger, _) = shared.recover(StopAfter::stores(3)).unwrap();
        shared.fill(&mut ledger, 2); // two descriptors, the intent, one state
    });
    let (mut ledger, outcome) = shared.recover(()).unwrap();
    assert_eq!(outcome.interrupted, Some((Ring::Fill, 2)));
    assert_eq!(ledger.counts(), FrameCounts { free: FRAMES, ..Default::default() });

    shared.fill(&mut ledger, 2);
    kernel.take_fill(&shared);
    kernel.take_fill(&shared);
    kernel.deliver(&shared);
    kernel.deliver(&shared);
    drop(ledger);
    run_until_stopped(|| {
        let (mut ledger, _) = shared.recover(StopAfter::stores(1)).unwrap();
        shared.receive(&mut ledger, 2); // the intent and one state
    });
    let (mut ledger, outcome) = shared.recover(()).unwrap();
    assert_eq!(outcome.interrupted, Some((Ring::Rx, 2)));
    assert_eq!(outcome.held, 0, "what is still in the ring is not the pool's");
    let (frames, refused) = shared.receive(&mut ledger, 2);
    assert_eq!((frames.len(), refused), (2, 0));
    kernel.check(&shared, &ledger, &frames);
}

#[test]
fn a_descriptor_the_kernel_had_no_right_to_is_refused() {
    let shared = Shared::new(FRAMES, ENTRIES, 0);
    let kernel = Kernel::default();
    let (mut ledger, _) = shared.recover(()).unwrap();
    shared.fill(&mut ledger, 1);
    kernel.take_fill(&shared);
    kernel.deliver(&shared);
    let genuine = shared.ring(Ring::Rx).read(0);
    // The same frame again, a free one, and one that does not exist.
    let rx = shared.ring(Ring::Rx);
    rx.write(1, genuine);
    rx.write(2, (genuine + 1) % FRAMES);
    rx.write(3, 4_000_000_000);
    rx.producer.store(4, Ordering::Release);
    let (frames, refused) = shared.receive(&mut ledger, 4);
    assert_eq!(frames.iter().map(Frame::index).collect::<Vec<_>>(), [genuine]);
    assert_eq!(refused, 3);
    assert_eq!(ledger.counts(), ledger.recount());

    let completion = shared.ring(Ring::Completion);
    completion.write(0, genuine);
    completion.producer.store(1, Ordering::Release);
    assert_eq!(shared.complete(&mut ledger, 1), 1, "a held frame is not on its way back");
    kernel.check(&shared, &ledger, &frames);
}

#[test]
fn memory_no_worker_wrote_is_refused() {
    let shared = Shared::new(FRAMES, ENTRIES, 0);
    shared.states()[2].store(7, Ordering::Relaxed);
    let error = shared.recover(()).unwrap_err();
    assert_eq!(error, RecoverError::State { frame: 2, value: 7 });
    shared.states()[2].store(0, Ordering::Relaxed);
    shared.intent(Ring::Tx).store(ENTRIES + 1, Ordering::Relaxed);
    assert!(matches!(
        shared.recover(()).unwrap_err(),
        RecoverError::Intent { ring: Ring::Tx, index: 0, intent: 5, entries: 4 }
    ));
    assert_eq!(Shared::new(0, 4, 0).recover(()).unwrap_err(), RecoverError::Frames { frames: 0 });
}

#[test]
#[should_panic(expected = "another ledger")]
fn a_token_of_another_ledger_is_refused() {
    let (mut one, _) = Shared::new(FRAMES, ENTRIES, 0).recover(()).unwrap();
    let (mut other, _) = Shared::new(FRAMES, ENTRIES, 0).recover(()).unwrap();
    let frame = one.hold().unwrap();
    other.release(frame);
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5u32).prop_map(Step::Fill),
        (1..5u32).prop_map(Step::Receive),
        (1..5u32).prop_map(Step::Transmit),
        (1..5u32).prop_map(Step::Complete),
        Just(Step::Release),
        Just(Step::KernelTakesFill),
        Just(Step::KernelDelivers),
        Just(Step::KernelTakesTx),
        Just(Step::KernelFinishes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 512 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn random_work_stopped_anywhere_recovers(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 80 }),
        first in any::<u32>(),
        stores in 0..400u32,
        recovery_stores in 0..24u32,
    ) {
        stop_and_recover(first, &steps, stores, recovery_stores);
    }
}
