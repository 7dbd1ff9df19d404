//! Control killed at every step of a deployment: it always comes to the same end, and nothing is half-done.
//! The child is this very test, started again with a place to die at.

mod fleet;

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet::{BAD_RELEASE, Fleet, closed, deployment, replay, spec};
use nautilus_control::deploy::actuator::{NodeActuator, Order};
use nautilus_control::deploy::plan::Action;
use nautilus_control::deploy::planner::{plan, serving};
use nautilus_control::deploy::reconciler::{Phase, Reconciler, StepState};
use nautilus_control::deploy::{DeploymentStrategy, EdgeDeploymentConfig, EdgeNodeSpec, NodeState};
use nautilus_control::store::embedded::{Embedded, Options};
use nautilus_control::store::{
    Compare, KeyValue, Lease, LeaseId, Listing, Outcome, Revision, Store, StoreError, Transaction,
    Watch,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const FOLDER: &str = "DEPLOY_CRASH_FOLDER";
const KILL_AT: &str = "DEPLOY_CRASH_KILL_AT";
const SCENARIO: &str = "DEPLOY_CRASH_SCENARIO";

/// What is deployed over the nodes that served before; node-9 is in none of them.
fn desired(scenario: &str) -> EdgeDeploymentConfig {
    let all = |release: &str| vec![spec(0, release), spec(1, release), spec(2, release)];
    match scenario {
        "rolling" => deployment(DeploymentStrategy::Rolling, all("2")),
        "blue_green" => deployment(DeploymentStrategy::BlueGreen, vec![spec(3, "2"), spec(4, "2")]),
        "canary" => {
            let changed = vec![spec(0, BAD_RELEASE), spec(1, BAD_RELEASE)];
            deployment(DeploymentStrategy::Canary, changed)
        }
        other => panic!("no scenario is called {other}"),
    }
}

fn served_before() -> Vec<EdgeNodeSpec> {
    vec![spec(0, "1"), spec(1, "1"), spec(9, "1")]
}

static POINTS: AtomicU64 = AtomicU64::new(0);

/// Dies here if this is the place.
fn point() {
    let wanted = std::env::var(KILL_AT).ok().and_then(|text| text.parse::<u64>().ok());
    if Some(POINTS.fetch_add(1, Ordering::SeqCst) + 1) == wanted {
        kill(Pid::this(), Signal::SIGKILL).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// The store, with a place to die before and after each commit.
struct Mortal(Embedded);

impl Store for Mortal {
    fn commit(&self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        point();
        let outcome = self.0.commit(transaction);
        point();
        outcome
    }
    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.0.get(key)
    }
    fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.0.list(prefix)
    }
    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch(prefix, from)
    }
    fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.0.compact(through)
    }
    fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.0.grant(ttl)
    }
    fn keep_alive(&self, lease: LeaseId) -> Result<Lease, StoreError> {
        self.0.keep_alive(lease)
    }
    fn lease(&self, lease: LeaseId) -> Result<Lease, StoreError> {
        self.0.lease(lease)
    }
    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.revoke(lease)
    }
}

/// The child: what control does when it starts, to the end of the deployment.
#[test]
#[ignore = "the child of the tests beside it, not a test"]
fn control() {
    let (Ok(folder), Ok(scenario)) = (std::env::var(FOLDER), std::env::var(SCENARIO)) else {
        return;
    };
    let folder = Path::new(&folder);
    let store = Mortal(Embedded::open(&folder.join("store.redb"), Options::default()).unwrap());
    let fleet = Fleet::open(&folder.join("effects"), point);
    let reconciler = Reconciler::new(&store, &fleet);
    if reconciler.progress().unwrap().is_none() {
        let inventory = reconciler.inventory().unwrap();
        let wanted = plan(&[desired(&scenario)], &inventory, &closed()).unwrap();
        reconciler.submit(&wanted).unwrap();
    }
    reconciler.run().unwrap().unwrap();
    println!("points {}", POINTS.load(Ordering::SeqCst));
}

fn prepare(folder: &Path) {
    let fleet = Fleet::open(&folder.join("effects"), || ());
    for spec in &served_before() {
        for action in [Action::Provision, Action::Tune, Action::Warm, Action::Admit] {
            let node_id = &spec.node_id;
            let (name, is_rollback) = ("before", false);
            fleet.perform(&Order { name, node_id, action, spec, is_rollback }).unwrap();
        }
    }
    let store = Embedded::open(&folder.join("store.redb"), Options::default()).unwrap();
    let mut transaction = Transaction::new().when("deploy/phase", Compare::Absent);
    for spec in &served_before() {
        let record = serde_json::to_vec(&serving("d", spec)).unwrap();
        transaction = transaction.put(format!("deploy/nodes/{}", spec.node_id), record);
    }
    assert!(store.commit(&transaction).unwrap().committed().is_some());
}

/// Runs control, to die at a point or not at all; how it ended, and how many points it passed.
fn run(folder: &Path, scenario: &str, kill_at: Option<u64>) -> (ExitStatus, Option<u64>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["control", "--exact", "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).env(SCENARIO, scenario).stderr(Stdio::inherit());
    if let Some(kill_at) = kill_at {
        command.env(KILL_AT, kill_at.to_string());
    }
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let points = text.split("points ").nth(1).and_then(|rest| rest.split('\n').next());
    (output.status, points.and_then(|number| number.trim().parse().ok()))
}

/// Nodes that served before and should serve on, out of service at the same time.
fn most_out(folder: &Path, kept: &[&str]) -> usize {
    let seeded = served_before().len() * 4;
    let states = replay(&folder.join("effects"));
    let out = states[seeded - 1..]
        .iter()
        .map(|(nodes, _)| kept.iter().filter(|id| !nodes[**id].serves).count());
    out.max().unwrap()
}

/// What must be so at the end, whatever happened on the way.
fn check(folder: &Path, scenario: &str) {
    let store = Embedded::open(&folder.join("store.redb"), Options::default()).unwrap();
    let fleet = Fleet::open(&folder.join("effects"), || ());
    let reconciler = Reconciler::new(&store, &fleet);
    let progress = reconciler.progress().unwrap().unwrap();
    let inventory = reconciler.inventory().unwrap();
    // Store and nodes say the same.
    let nodes = fleet.nodes();
    for (id, record) in &inventory {
        let node = &nodes[id];
        assert_eq!(record.state == NodeState::Active, node.serves, "{id}: {record:?} {node:?}");
        assert_eq!(record.state == NodeState::Retired, node.is_retired, "{id}");
        assert!(matches!(record.state, NodeState::Active | NodeState::Retired), "{id}: half-done");
        assert_eq!(record.spec.release, node.release, "{id}");
    }
    let serving = |release: &str| -> Vec<&str> {
        let of_it = nodes.iter().filter(|(_, n)| n.serves && n.release.as_deref() == Some(release));
        of_it.map(|(id, _)| id.as_str()).collect()
    };
    if scenario == "canary" {
        assert_eq!(progress.phase.phase, Phase::RolledBack, "{:?}", progress.phase);
        assert!(progress.phase.reason.contains("p99 900.0 us"), "{:?}", progress.phase);
        assert_eq!(serving("1"), ["node-0", "node-1", "node-9"], "as it was");
        let failed = progress.steps.values().filter(|step| step.state == StepState::Failed).count();
        assert_eq!(failed, 1, "one canary was enough");
        assert_eq!(most_out(folder, &["node-0", "node-1", "node-9"]), 1);
        return;
    }
    assert_eq!(progress.phase.phase, Phase::Done, "{:?}", progress.phase);
    assert_eq!(progress.count().0, progress.count().1);
    let again = plan(&[desired(scenario)], &inventory, &closed()).unwrap();
    assert!(again.is_empty(), "{again}");
    if scenario == "rolling" {
        assert_eq!(serving("2"), ["node-0", "node-1", "node-2"]);
        assert_eq!(most_out(folder, &["node-0", "node-1"]), 1);
    } else {
        assert_eq!(serving("2"), ["node-3", "node-4"]);
        let states = replay(&folder.join("effects"));
        let drained = states.iter().find(|(_, line)| line.contains(" drain ")).unwrap();
        assert!(drained.0["node-3"].serves && drained.0["node-4"].serves, "green before blue goes");
    }
}

fn killed_everywhere(scenario: &str) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let (status, points) = run(folder.path(), scenario, None);
    assert!(status.success());
    check(folder.path(), scenario);
    let points = points.expect("the child says how many points it passed");
    assert!(points > 40, "{points} points are too few to mean anything");
    let orders = replay(&folder.path().join("effects")).len();
    let (mut kills, mut repeated) = (0, 0);
    for first in 1..=points {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        // Every third one is killed again on its way on.
        let second = (first % 3 == 0).then_some(first % 11 + 1);
        for kill_at in [Some(first), second].into_iter().flatten() {
            let (status, _) = run(folder.path(), scenario, Some(kill_at));
            kills += u32::from(!status.success());
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            assert!(status.success() || signal == Some(9), "{status:?} at {kill_at}");
        }
        let (status, _) = run(folder.path(), scenario, None);
        assert!(status.success(), "after a death at point {first}");
        check(folder.path(), scenario);
        repeated += replay(&folder.path().join("effects")).len() - orders;
    }
    println!("{scenario}: {points} points, {kills} kills, {repeated} orders given again");
    assert!(u64::from(kills) >= points && repeated > 0);
}

#[test]
fn a_rolling_deployment_survives_a_kill_at_every_step() {
    killed_everywhere("rolling");
}

#[test]
fn a_blue_green_deployment_survives_a_kill_at_every_step() {
    killed_everywhere("blue_green");
}

#[test]
fn a_bad_canary_goes_back_whatever_is_killed_when() {
    killed_everywhere("canary");
}
