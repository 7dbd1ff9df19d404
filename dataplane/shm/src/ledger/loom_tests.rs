//! The worker and the kernel as two threads, the worker stopped after each of its stores, under
//! every interleaving loom finds.

use loom::thread;

use super::Ring;
use super::model::{Kernel, Shared, StopAfter, run_until_stopped};

/// Two frames, rings of two: fill, receive, answer, complete.
fn worker_stopped_after(stores: u32) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let shared = Shared::new(2, 2, u32::MAX);
        let kernel_side = shared.clone();
        let kernel = thread::spawn(move || {
            let kernel = Kernel::default();
            kernel.take_fill(&kernel_side);
            kernel.deliver(&kernel_side);
            kernel.take_tx(&kernel_side);
            kernel.finish(&kernel_side);
            kernel
        });
        run_until_stopped(|| {
            let (mut ledger, _) = shared.recover(StopAfter::stores(stores)).unwrap();
            shared.fill(&mut ledger, 1);
            let (mut frames, refused) = shared.receive(&mut ledger, 1);
            assert_eq!(refused, 0);
            frames.extend(ledger.hold());
            frames.truncate(1);
            shared.transmit(&mut ledger, frames);
            shared.complete(&mut ledger, 1);
        });
        // Joining stands for the death that every takeover waits for.
        let kernel = kernel.join().unwrap();
        let (ledger, outcome) = shared.recover(()).unwrap();
        assert_eq!(outcome.refused, 0);
        kernel.check(&shared, &ledger, &[]);
        assert!(shared.ring(Ring::Rx).pending() <= 1);
    });
}

#[test]
fn the_kernel_beside_a_worker_stopped_after_any_store() {
    for stores in 0..16 {
        worker_stopped_after(stores);
    }
}
