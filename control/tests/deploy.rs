//! Deployments carried out by a simulated fleet.

mod fleet;

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use fleet::{BAD_RELEASE, Fleet, closed, deployment, spec};
use nautilus_control::deploy::actuator::{ActuatorError, NodeActuator, Order};
use nautilus_control::deploy::plan::Action;
use nautilus_control::deploy::planner::plan;
use nautilus_control::deploy::reconciler::{Phase, ReconcileError, Reconciler};
use nautilus_control::deploy::tier::Measurement;
use nautilus_control::deploy::{DeploymentStrategy, EdgeDeploymentConfig, EdgeNodeSpec, NodeState};
use nautilus_control::store::embedded::{Embedded, Options};
use nautilus_control::store::{Compare, Condition, Revision, Store, Transaction, Watched};
use nautilus_host::order::Shortfall;

fn store(folder: &tempfile::TempDir) -> Embedded {
    Embedded::open(&folder.path().join("store.redb"), Options::default()).unwrap()
}

fn fleet(folder: &tempfile::TempDir) -> Fleet {
    Fleet::open(&folder.path().join("effects"), || ())
}

/// Plans and carries out; where it ended.
fn deploy(reconciler: &Reconciler<'_>, config: &EdgeDeploymentConfig) -> Phase {
    let inventory = reconciler.inventory().unwrap();
    let made = plan(std::slice::from_ref(config), &inventory, &closed()).unwrap();
    reconciler.submit(&made).unwrap();
    reconciler.run().unwrap().unwrap().phase
}

#[test]
fn ten_nodes_are_deployed_in_seconds_and_rolled() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let nodes = |release: &str| (0..10).map(|number| spec(number, release)).collect();
    let begun = Instant::now();
    let config = deployment(DeploymentStrategy::AllAtOnce, nodes("1"));
    assert_eq!(deploy(&reconciler, &config), Phase::Done);
    println!("ten nodes, without what the nodes themselves take: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(fleet.nodes().values().all(|node| node.serves));
    let config = deployment(DeploymentStrategy::Rolling, nodes("2"));
    let mut watch = store.watch("deploy/phase", Revision(1)).unwrap();
    assert_eq!(deploy(&reconciler, &config), Phase::Done);
    assert!(fleet.nodes().values().all(|node| node.serves && node.release.as_deref() == Some("2")));
    // A reader of progress sees each phase of both plans.
    let mut phases = 0;
    while let Watched::Changes(_) = watch.next(Duration::ZERO).unwrap() {
        phases += 1;
    }
    assert_eq!(phases, 4);
    assert_eq!(deploy(&reconciler, &config), Phase::Done, "nothing to do is done at once");
}

#[test]
fn a_plan_whose_steps_wait_for_each_other_is_turned_back_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let nodes = (0..2).map(|number| spec(number, "1")).collect();
    let config = deployment(DeploymentStrategy::AllAtOnce, nodes);
    let inventory = reconciler.inventory().unwrap();
    let mut made = plan(&[config], &inventory, &closed()).unwrap();
    // One node's steps go on until the one that waits for its own successor.
    let last = made.steps.iter().rposition(|step| step.node_id == "node-1").unwrap();
    let (judge, admit) = (made.steps[last - 1].id.clone(), made.steps[last].id.clone());
    made.steps[last - 1].after.push(admit);
    reconciler.submit(&made).unwrap();
    let ended = std::thread::scope(|scope| {
        let run = scope.spawn(|| reconciler.run());
        let end = Instant::now() + Duration::from_secs(20);
        while !run.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !run.is_finished() {
            // One that goes round and round ends like this, and for another reason.
            let _ = reconciler.abort("it went on for ever");
        }
        run.join().unwrap().unwrap().unwrap()
    });
    assert_eq!(ended.phase, Phase::RolledBack, "{ended:?}");
    assert_eq!(ended.reason, format!("{judge}: it waits for a step that never ends"));
    assert!(fleet.nodes().values().all(|node| !node.serves), "{:?}", fleet.nodes());
}

#[test]
fn a_bad_canary_takes_only_itself_out_and_the_reason_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let nodes = |release: &str| (0..4).map(|number| spec(number, release)).collect();
    deploy(&reconciler, &deployment(DeploymentStrategy::AllAtOnce, nodes("1")));
    let config = deployment(DeploymentStrategy::Canary, nodes(BAD_RELEASE));
    assert_eq!(deploy(&reconciler, &config), Phase::RolledBack);
    let progress = reconciler.progress().unwrap().unwrap();
    assert!(progress.phase.reason.starts_with("node-0.judge: p99 900.0 us"), "{progress:?}");
    assert!(fleet.nodes().values().all(|node| node.serves && node.release.as_deref() == Some("1")));
    let tuned = fleet::replay(&folder.path().join("effects"));
    let tuned = tuned.iter().filter(|(_, line)| line.contains(&format!("tune {BAD_RELEASE}")));
    assert_eq!(tuned.count(), 1, "no other node was touched");
}

#[test]
fn new_nodes_that_fail_are_retired_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let config =
        deployment(DeploymentStrategy::AllAtOnce, vec![spec(0, "1"), spec(1, BAD_RELEASE)]);
    assert_eq!(deploy(&reconciler, &config), Phase::RolledBack);
    let inventory = reconciler.inventory().unwrap();
    assert!(inventory.values().all(|record| record.state == NodeState::Retired), "{inventory:?}");
    assert!(fleet.nodes().values().all(|node| node.is_retired));
}

/// A fleet in which some orders fail: always, or so many times.
struct Failing<'a> {
    fleet: &'a Fleet,
    action: Action,
    error: ActuatorError,
    left: Mutex<u32>,
}

impl NodeActuator for Failing<'_> {
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let mut left = self.left.lock().unwrap();
        if order.action == self.action && *left > 0 {
            *left -= 1;
            return Err(self.error.clone());
        }
        drop(left);
        self.fleet.perform(order)
    }

    fn lacks(&self, node_id: &str, spec: &EdgeNodeSpec) -> Result<Vec<Shortfall>, ActuatorError> {
        self.fleet.lacks(node_id, spec)
    }

    fn measure(&self, node_id: &str, period: Duration) -> Result<Measurement, ActuatorError> {
        self.fleet.measure(node_id, period)
    }
}

#[test]
fn what_is_worth_a_try_is_tried_again_and_the_rest_turns_back() {
    let away = ActuatorError::NotNow("away".into());
    let no = ActuatorError::Refused("no".into());
    for (action, error, times, expected) in [
        (Action::Warm, away.clone(), 2, Phase::Done),
        (Action::Warm, away, 3, Phase::RolledBack),
        (Action::Warm, no.clone(), 1, Phase::RolledBack),
        // Neither forward nor back: somebody has to look.
        (Action::Tune, no, 99, Phase::RollbackIncomplete),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (store, fleet) = (store(&folder), fleet(&folder));
        let first = Reconciler::new(&store, &fleet);
        deploy(&first, &deployment(DeploymentStrategy::AllAtOnce, vec![spec(0, "1")]));
        let failing = Failing { fleet: &fleet, action, error, left: Mutex::new(times) };
        let pause = Duration::from_millis(1);
        let reconciler = Reconciler { pause, ..Reconciler::new(&store, &failing) };
        let config = deployment(DeploymentStrategy::Rolling, vec![spec(0, "2")]);
        assert_eq!(deploy(&reconciler, &config), expected, "{action} {times}");
        let state = reconciler.inventory().unwrap()["node-0"].state;
        let is_left = expected == Phase::RollbackIncomplete;
        assert_eq!(state, if is_left { NodeState::Failed } else { NodeState::Active });
        // The next plan brings up what was left.
        assert_eq!(deploy(&first, &config), Phase::Done);
        assert_eq!(fleet.nodes()["node-0"].release.as_deref(), Some("2"));
    }
}

/// A fleet in which one node's order is carried out only after another node's, which nothing makes wait.
struct Late<'a> {
    fleet: &'a Fleet,
    other_is_done: (Mutex<mpsc::Sender<()>>, Mutex<mpsc::Receiver<()>>),
}

impl NodeActuator for Late<'_> {
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        let (done, other) = &self.other_is_done;
        if (order.node_id, order.action) == ("node-0", Action::Tune) {
            let other = other.lock().unwrap().recv_timeout(Duration::from_secs(30));
            other
                .map_err(|_| ActuatorError::Refused("the other node waited for this one".into()))?;
        }
        self.fleet.perform(order)?;
        if (order.node_id, order.action) == ("node-1", Action::Admit) {
            done.lock().unwrap().send(()).unwrap();
        }
        Ok(())
    }

    fn lacks(&self, node_id: &str, spec: &EdgeNodeSpec) -> Result<Vec<Shortfall>, ActuatorError> {
        self.fleet.lacks(node_id, spec)
    }

    fn measure(&self, node_id: &str, period: Duration) -> Result<Measurement, ActuatorError> {
        self.fleet.measure(node_id, period)
    }
}

#[test]
fn a_slow_node_holds_up_none_that_need_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let (done, other) = mpsc::channel();
    let late = Late { fleet: &fleet, other_is_done: (Mutex::new(done), Mutex::new(other)) };
    let reconciler = Reconciler::new(&store, &late);
    let config = deployment(DeploymentStrategy::AllAtOnce, vec![spec(0, "1"), spec(1, "1")]);
    let end = deploy(&reconciler, &config);
    let reason = reconciler.progress().unwrap().unwrap().phase.reason;
    assert_eq!(end, Phase::Done, "{reason}");
}

#[test]
fn one_plan_at_a_time_and_only_for_the_nodes_it_was_made_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let of = |release: &str| {
        let config = deployment(DeploymentStrategy::AllAtOnce, vec![spec(0, release)]);
        plan(&[config], &reconciler.inventory().unwrap(), &closed()).unwrap()
    };
    let (first, second) = (of("1"), of("2"));
    reconciler.submit(&first).unwrap();
    reconciler.submit(&first).expect("again is fine");
    assert!(matches!(reconciler.submit(&second), Err(ReconcileError::Busy { .. })));
    reconciler.abort("an operator asked").unwrap();
    assert_eq!(reconciler.run().unwrap().unwrap().phase, Phase::RolledBack);
    assert!(fleet.nodes().is_empty(), "nothing was begun");
    reconciler.submit(&first).unwrap();
    assert_eq!(reconciler.run().unwrap().unwrap().phase, Phase::Done);
    assert!(
        matches!(reconciler.submit(&second), Err(ReconcileError::Stale(node)) if node == "node-0")
    );
    assert!(matches!(reconciler.abort("late"), Err(ReconcileError::Superseded)));
}

#[test]
fn a_control_that_leads_no_more_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let lease = store.grant(Duration::from_secs(60)).unwrap().id;
    store.commit(&Transaction::new().put_under(lease, "leader", "a")).unwrap();
    let at = store.get("leader").unwrap().unwrap().create_revision;
    let fence = vec![Condition { key: "leader".into(), compare: Compare::CreatedAt(at) }];
    let reconciler = Reconciler { fence, ..Reconciler::new(&store, &fleet) };
    let config = deployment(DeploymentStrategy::AllAtOnce, vec![spec(0, "1")]);
    let made = plan(&[config], &reconciler.inventory().unwrap(), &closed()).unwrap();
    reconciler.submit(&made).unwrap();
    store.revoke(lease).unwrap();
    store.commit(&Transaction::new().put("leader", "b")).unwrap();
    let before = store.list("").unwrap();
    assert!(matches!(reconciler.run(), Err(ReconcileError::Superseded)));
    assert_eq!(store.list("").unwrap(), before);
    assert!(fleet.nodes().is_empty());
}

#[test]
fn those_that_served_and_do_not_are_brought_back_first() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fleet) = (store(&folder), fleet(&folder));
    let reconciler = Reconciler::new(&store, &fleet);
    let nodes = |last: &str| vec![spec(0, "2"), spec(1, last)];
    let first = vec![spec(0, "1"), spec(1, "1")];
    deploy(&reconciler, &deployment(DeploymentStrategy::AllAtOnce, first));
    let config = deployment(DeploymentStrategy::Rolling, nodes(BAD_RELEASE));
    assert_eq!(deploy(&reconciler, &config), Phase::RolledBack);
    let states = fleet::replay(&folder.path().join("effects"));
    let bad = format!("node-1 tune {BAD_RELEASE}");
    let from = states.iter().position(|(_, line)| *line == bad).unwrap();
    // While one is out the other serves.
    for (nodes, line) in &states[from..] {
        assert!(nodes.values().any(|node| node.serves), "{line}: {nodes:?}");
    }
    assert!(fleet.nodes().values().all(|node| node.serves && node.release.as_deref() == Some("1")));
}
