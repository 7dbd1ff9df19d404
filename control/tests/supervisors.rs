//! Steps as a node's supervisor is given them, by its region and as far as it has verbs: what is looked at before a node
//! is as wanted, and what it is told.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nautilus_control::deploy::actuator::{ActuatorError, NodeActuator, Order};
use nautilus_control::deploy::plan::Action;
use nautilus_control::deploy::supervisors::Supervisors;
use nautilus_control::deploy::{EdgeNodeSpec, EdgeNodeType};
use nautilus_shm::attach::Verb;
use nautilus_shm::cells::{WorkerIdentity, WorkerState};
use nautilus_shm::control_region::HistogramId;
use nautilus_shm::life::NodePhase;
use support::{
    hand_out, hand_out_by_verb, hand_out_of_host, keep_beating, not_understood, region, reply,
};

fn of_node(node_id: &str, folder: &tempfile::TempDir) -> Supervisors {
    let run_dirs = [(node_id.into(), folder.path().into())].into();
    Supervisors { run_dirs, ..Supervisors::default() }
}

/// A node that orders nothing of its host.
fn lab() -> EdgeNodeSpec {
    EdgeNodeSpec {
        node_id: "node-0".into(),
        region: "equinix_ny4".into(),
        node_type: EdgeNodeType::Lab,
        cpu_cores: 1,
        memory_gb: 1,
        target_latency_us: 1_000,
        max_orders_per_second: 1,
        kernel_bypass: true,
        cpu_isolation: false,
        numa_optimization: false,
        release: None,
    }
}

#[test]
fn supervisors_look_at_a_node_before_they_say_that_it_is_as_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let node = region("node-0");
    let supervisors = of_node("node-0", &folder);
    let lab = lab();
    let of = |action, spec| {
        let (name, node_id, is_rollback) = ("n", "node-0", false);
        supervisors.perform(&Order { name, node_id, action, spec, is_rollback })
    };
    let perform = |action| of(action, &lab);
    assert!(perform(Action::Provision).unwrap_err().is_worth_a_try(), "nobody listens yet");
    hand_out(folder.path(), node.clone(), || reply(1, &[]));
    keep_beating(&node);
    for action in [Action::Provision, Action::Tune, Action::Warm, Action::Admit] {
        assert_eq!(perform(action), Ok(()), "{action}");
    }
    let unlike = EdgeNodeSpec { kernel_bypass: false, ..lab.clone() };
    let error = of(Action::Tune, &unlike).unwrap_err();
    assert!(error.to_string().contains("kernel_bypass is port.kind"), "{error}");
    assert!(!error.is_worth_a_try());
    let period = Duration::from_millis(500);
    // While it does so much a millisecond: of which kind, how long each took, how many.
    let measured = |work: &[(HistogramId, u64, u64)]| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for (kind, took_ns, count) in work {
                        node.histogram(0, *kind).record_many(*took_ns, *count);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let measured = supervisors.measure("node-0", period);
            is_over.store(true, Ordering::Relaxed);
            measured.unwrap()
        })
    };
    let (answers, records) = (HistogramId::XdpToTx, HistogramId::XdpToBook);
    let asked = measured(&[(answers, 30_000, 5_000)]);
    assert!(asked.samples > 0 && asked.samples.is_multiple_of(5_000), "{asked:?}");
    assert!((29_000..31_000).contains(&asked.p99_ns), "what came before is not counted");
    // What comes of a feed is the node's work as well, and the slower kind counts.
    let hears = measured(&[(records, 70_000, 5_000)]);
    assert!((69_000..71_000).contains(&hears.p99_ns), "{hears:?}");
    let both = measured(&[(answers, 30_000, 50_000), (records, 70_000, 100)]);
    assert!((69_000..71_000).contains(&both.p99_ns), "{both:?}");
    // One that nobody asks measures itself, within the same time.
    let measured = supervisors.measure("node-0", period).unwrap();
    let probed_ms = u128::from(measured.samples - support::PROBED_MIN);
    assert!(probed_ms > 0 && probed_ms < period.as_millis(), "{measured:?}");
    node.supervisor().set_serving(false);
    assert!(matches!(perform(Action::Provision), Err(ActuatorError::NotNow(_))));
}

#[test]
fn each_step_that_needs_its_host_asks_for_it_and_the_way_back_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let node = region("node-0");
    let host = Arc::new(Mutex::new(Some("[]".to_owned())));
    let lacking = Arc::clone(&host);
    let lacking = move || lacking.lock().unwrap().clone();
    hand_out_of_host(folder.path(), node.clone(), |_| reply(1, &[]), lacking);
    keep_beating(&node);
    let supervisors = of_node("node-0", &folder);
    let spec = lab();
    let isolated = EdgeNodeSpec { cpu_isolation: true, ..spec.clone() };
    let of = |action, spec, is_rollback| {
        supervisors.perform(&Order { name: "n", node_id: "node-0", action, spec, is_rollback })
    };
    let steps = [Action::Provision, Action::Tune, Action::Warm];
    let is_refused = |action, why: &str| {
        let error = of(action, &isolated, false).unwrap_err();
        assert!(matches!(&error, ActuatorError::Refused(said) if said.contains(why)), "{error}");
    };
    for action in steps {
        assert_eq!(of(action, &isolated, false), Ok(()), "{action}: it lacks nothing");
    }
    let lacks = r#"[{"field": "cpu_isolation", "reason": "shared", "by_init": false}]"#;
    *host.lock().unwrap() = Some(lacks.into());
    for action in steps {
        is_refused(action, "cpu_isolation: shared");
        assert_eq!(of(action, &isolated, true), Ok(()), "{action}: it served there before");
    }
    // One too old to judge it.
    *host.lock().unwrap() = None;
    for action in steps {
        is_refused(action, "cannot judge its host");
        assert_eq!(of(action, &spec, false), Ok(()), "{action}: nothing is asked of the host");
    }
}

#[test]
fn supervisors_are_not_taken_for_another_nodes_nor_for_alive() {
    let folder = tempfile::tempdir().unwrap();
    let node = region("node-7");
    hand_out(folder.path(), node.clone(), || reply(1, &[]));
    let of = |node_id: &str| of_node(node_id, &folder);
    let lab = lab();
    let order =
        |node_id, action| Order { name: "n", node_id, action, spec: &lab, is_rollback: false };
    support::beat(&node);
    assert_eq!(of("node-7").perform(&order("node-7", Action::Provision)), Ok(()));
    for action in [Action::Provision, Action::Drain, Action::Tune, Action::Retire] {
        let error = of("node-0").perform(&order("node-0", action)).unwrap_err();
        let said = "the node there is \"node-7\"";
        assert!(matches!(&error, ActuatorError::Refused(why) if why.contains(said)), "{error}");
    }
    // It has stopped beating.
    let end = Instant::now() + Duration::from_secs(10);
    let silent = loop {
        match of("node-7").perform(&order("node-7", Action::Provision)) {
            Ok(()) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => break error,
        }
        assert!(Instant::now() < end, "it is dead");
    };
    assert!(silent.is_worth_a_try() && silent.to_string().contains("silent for"), "{silent}");
    // Another supervisor comes while the node is measured: its figures are of two lives.
    keep_beating(&node);
    let measured = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            let mut identity = node.supervisor().identity().unwrap();
            identity.generation += 1;
            node.supervisor().set_identity(&identity);
            node.histogram(0, HistogramId::XdpToTx).record_many(30_000, 5_000);
        });
        of("node-7").measure("node-7", Duration::from_millis(400))
    });
    let error = measured.unwrap_err();
    assert!(error.is_worth_a_try() && error.to_string().contains("was replaced"), "{error}");
}

#[test]
fn a_node_older_than_its_control_swaps_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = region("node-0");
    let (ask, asked) = mpsc::channel();
    hand_out_by_verb(folder.path(), node.clone(), move |verb| {
        ask.send(verb).unwrap();
        match verb {
            Verb::Exchange | Verb::Settle => not_understood(),
            _ => reply(1, &[]),
        }
    });
    keep_beating(&node);
    let supervisors = of_node("node-0", &folder);
    let spec = lab();
    for action in [Action::Tune, Action::Admit] {
        let (name, node_id, is_rollback) = ("n", "node-0", false);
        let order = Order { name, node_id, action, spec: &spec, is_rollback };
        assert_eq!(supervisors.perform(&order), Ok(()), "{action}");
    }
    let told: Vec<Verb> = asked.try_iter().filter(|verb| *verb != Verb::Attach).collect();
    assert_eq!(told, [Verb::Exchange, Verb::Swap, Verb::Settle, Verb::Resume]);
}

#[test]
fn a_parked_node_is_started_without_clients_and_serves_once_its_standby_does() {
    let folder = tempfile::tempdir().unwrap();
    let node = region("node-0");
    node.supervisor().life().set_phase(NodePhase::Parked);
    let standby = node.worker(1).own_identity();
    let with = |state| node.worker(1).set_identity(&WorkerIdentity { state, ..standby });
    with(WorkerState::Dead);
    let (ask, asked) = mpsc::channel();
    let started = node.clone();
    hand_out_by_verb(folder.path(), node.clone(), move |verb| {
        if verb == Verb::Start {
            started.supervisor().life().set_phase(NodePhase::Running);
        }
        // The test may be over.
        let _ = ask.send(verb);
        reply(1, &[])
    });
    keep_beating(&node);
    let supervisors = of_node("node-0", &folder);
    let spec = lab();
    let action = Action::Warm;
    let order = Order { name: "n", node_id: "node-0", action, spec: &spec, is_rollback: false };
    let told = std::thread::scope(|scope| {
        let warmed = scope.spawn(|| supervisors.perform(&order));
        // It looks again and again, and is not content with less.
        let (mut looks, mut told) = (0, Vec::new());
        while looks < 20 && !warmed.is_finished() {
            match asked.recv_timeout(Duration::from_millis(20)) {
                Ok(Verb::Attach) => looks += 1,
                Ok(verb) => told.push(verb),
                Err(_) => {}
            }
        }
        assert!(!warmed.is_finished(), "there is no standby");
        with(WorkerState::Standby);
        assert_eq!(warmed.join().unwrap(), Ok(()));
        told
    });
    assert_eq!(told, [Verb::Start, Verb::Drain], "nobody is let in before it is admitted");
}
