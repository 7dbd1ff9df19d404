//! `nautilus-coherence` catches a node that publishes in a wrong order. Needs root and programs that can
//! be wrong: `cargo build -p nautilus-dataplane --bins --features kill-points`, then
//! `cargo test -p nautilus-tests --features kill-points --test misorder -- --ignored`.

use std::process::Command;

use nautilus_shm::misorder::Misorder;

/// Longest a run may take to see it. It ends at the first one that does.
const RUNS_MAX: u64 = 3;

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_node_that_publishes_in_a_wrong_order_is_caught() {
    // `Unrecorded` takes a death between two stores of one change: `simulated_history.rs`.
    for wrong in [Misorder::TableFirst, Misorder::Unmarked, Misorder::AcknowledgedFirst] {
        let name = wrong.name();
        let caught = (1..=RUNS_MAX).any(|seed| {
            let output = Command::new(env!("CARGO_BIN_EXE_nautilus-coherence"))
                .args(["--seconds=4", &format!("--seed={seed}")])
                .env("NAUTILUS_MISORDER", name)
                .output()
                .expect("the command runs");
            let said = String::from_utf8_lossy(&output.stdout);
            let about = said.lines().find(|line| line.contains("keys without an order"));
            println!("{name}: {}", about.unwrap_or_default());
            let code = output.status.code();
            assert!(
                matches!(code, Some(0 | 1 | 3)),
                "{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            code == Some(1) && said.contains("none of these can be next")
        });
        assert!(caught, "{name} was not seen; were the programs built with kill-points?");
    }
}
