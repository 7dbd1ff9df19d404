//! The edge node manager: from documents to nodes that serve, with what is stored of it.

mod fleet;

use fleet::{BAD_RELEASE, Fleet, closed};
use nautilus_control::catalogue::Catalogue;
use nautilus_control::deploy::operations::KEPT_MAX;
use nautilus_control::deploy::planner::Circumstances;
use nautilus_control::deploy::reconciler::{Phase, ReconcileError, Reconciler};
use nautilus_control::deploy::{DeploymentStrategy, EdgeNodeManager, ManagerError, NodeState};
use nautilus_control::store::Store;
use nautilus_control::store::embedded::{Embedded, Options};
use serde_json::{Value, json};

fn document(id: &str, strategy: &str, release: &str, numbers: &[usize], replaces: &str) -> Value {
    let nodes = numbers.iter().map(|number| fleet::spec(*number, release)).collect();
    let config = fleet::deployment(DeploymentStrategy::Rolling, nodes);
    let mut document = serde_json::to_value(config).unwrap();
    let fields = document.as_object_mut().unwrap();
    // Not every strategy has them.
    fields.retain(|field, _| field != "max_unavailable" && field != "canary_nodes");
    fields.insert("deployment_id".into(), json!(id));
    fields.insert("deployment_type".into(), json!(strategy));
    if !replaces.is_empty() {
        fields.insert("replaces".into(), json!(replaces));
    }
    document
}

/// A manager over a fleet in a folder.
struct Site {
    store: Embedded,
    fleet: Fleet,
}

impl Site {
    fn open(folder: &tempfile::TempDir) -> Self {
        let store = Embedded::open(&folder.path().join("store.redb"), Options::default()).unwrap();
        Self { store, fleet: Fleet::open(&folder.path().join("effects"), || ()) }
    }

    fn manager(&self) -> EdgeNodeManager<'_> {
        let reconciler = Reconciler::new(&self.store, &self.fleet);
        EdgeNodeManager { reconciler, catalogue: Catalogue::built_in() }
    }

    /// Deploys a document to its end.
    fn deploy(&self, document: &Value) -> Result<Phase, ManagerError> {
        let manager = self.manager();
        manager.deploy(&manager.read(document).unwrap(), &closed())?;
        Ok(manager.run()?.unwrap().phase)
    }

    fn deployments(&self) -> Vec<String> {
        let all = self.manager().deployments().unwrap();
        all.into_iter().map(|known| known.deployment_id).collect()
    }

    fn serving(&self) -> Vec<String> {
        let nodes = self.fleet.nodes();
        nodes.into_iter().filter(|(_, node)| node.serves).map(|(id, _)| id).collect()
    }
}

#[test]
fn a_deployment_is_made_replaced_and_retired() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    let first = document("one", "AllAtOnce", "1", &[0, 1], "");
    assert_eq!(site.deploy(&first).unwrap(), Phase::Done);
    assert_eq!((site.deployments(), site.serving().len()), (vec!["one".into()], 2));

    // The same again is fine, another body under its id is not.
    let manager = site.manager();
    let again = manager.deploy(&manager.read(&first).unwrap(), &closed()).unwrap();
    assert!(again.plan.is_none() && again.operation.is_done(), "{again:?}");
    let other = document("one", "rolling", "2", &[0, 1], "");
    assert!(matches!(site.deploy(&other), Err(ManagerError::Conflict(id)) if id == "one"));
    let stranger = document("two", "rolling", "2", &[0], "");
    assert!(
        matches!(site.deploy(&stranger), Err(ManagerError::Plan(_))),
        "node-0 is wanted by both"
    );
    let lost = document("two", "rolling", "2", &[5], "nobody");
    assert!(matches!(site.deploy(&lost), Err(ManagerError::NoDeployment(id)) if id == "nobody"));

    // node-0 changes in place, node-1 goes, node-2 comes.
    let second = document("two", "ROLLING", "2", &[0, 2], "one");
    assert_eq!(site.deploy(&second).unwrap(), Phase::Done);
    assert_eq!(
        (site.deployments(), site.serving()),
        (vec!["two".into()], vec!["node-0".into(), "node-2".into()])
    );

    // Blue/green: all new.
    let third = document("three", "blue_green", "3", &[3, 4], "two");
    assert_eq!(site.deploy(&third).unwrap(), Phase::Done);
    assert_eq!(site.serving(), ["node-3", "node-4"]);

    for (node, left) in [("node-3", 1), ("node-4", 0)] {
        manager.retire(node, &closed()).unwrap();
        assert_eq!(manager.run().unwrap().unwrap().phase, Phase::Done);
        assert_eq!((site.deployments().len(), site.serving().len()), (left, left));
    }
    // Again is fine, of a stranger not.
    assert!(manager.retire("node-4", &closed()).unwrap().operation.is_done());
    assert!(matches!(manager.retire("node-9", &closed()), Err(ManagerError::NoNode(_))));
}

#[test]
fn what_is_turned_back_changes_no_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    site.deploy(&document("one", "all_at_once", "1", &[0, 1, 2], "")).unwrap();
    let bad = document("two", "canary", BAD_RELEASE, &[0, 1, 2], "one");
    assert_eq!(site.deploy(&bad).unwrap(), Phase::RolledBack);
    assert_eq!(site.deployments(), ["one"]);
    assert!(site.manager().nodes().unwrap().values().all(|n| n.deployment_id == "one"));
    assert_eq!(
        site.deploy(&document("two", "canary", "2", &[0, 1, 2], "one")).unwrap(),
        Phase::Done
    );
    assert_eq!(site.deployments(), ["two"]);
}

#[test]
fn a_dry_run_and_a_refusal_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    let manager = site.manager();
    let config = manager.read(&document("one", "rolling", "1", &[0], "")).unwrap();
    let made = manager.plan(&config, &closed()).unwrap().unwrap();
    assert!(made.to_string().contains("provision  node-0"), "{made}");
    assert!(matches!(
        manager.deploy(&config, &Circumstances::default()),
        Err(ManagerError::Plan(_))
    ));
    assert!(site.fleet.nodes().is_empty() && manager.progress().unwrap().is_none());
    let forced = Circumstances { is_forced: true, ..Circumstances::default() };
    assert!(manager.deploy(&config, &forced).unwrap().plan.is_some());
}

#[test]
fn what_a_host_lacks_is_said_by_field_before_anything_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    assert_eq!(site.deploy(&document("one", "all_at_once", "1", &[0], "")).unwrap(), Phase::Done);
    let before = site.store.list("").unwrap();
    let mut greedy = document("two", "rolling", "2", &[0, 1, 2], "one");
    for node in [1, 2] {
        greedy["nodes"][node]["memory_gb"] = json!(fleet::HOST_GB + 1);
    }
    let Err(ManagerError::Unfit { nodes, lacking, by_init }) = site.deploy(&greedy) else {
        panic!("it was taken");
    };
    let paths: Vec<&str> = lacking.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["nodes[1].memory_gb", "nodes[2].memory_gb"]);
    assert_eq!((nodes.as_str(), by_init), ("node-1, node-2", 0));
    assert!(lacking[0].reason.contains("node-1 has 512 GiB"), "{lacking:?}");
    assert_eq!(site.store.list("").unwrap(), before, "nothing was taken");
    // Without them it goes.
    greedy["nodes"].as_array_mut().unwrap().truncate(1);
    assert_eq!(site.deploy(&greedy).unwrap(), Phase::Done);
}

#[test]
fn a_death_between_the_plans_end_and_the_books_is_made_good() {
    let folder = tempfile::tempdir().unwrap();
    {
        let site = Site::open(&folder);
        let manager = site.manager();
        let config = manager.read(&document("one", "rolling", "1", &[0], "")).unwrap();
        manager.deploy(&config, &closed()).unwrap();
        // The reconciler alone: the manager died before it settled.
        assert_eq!(manager.reconciler.run().unwrap().unwrap().phase, Phase::Done);
        assert_eq!(site.deployments(), Vec::<String>::new());
    }
    let site = Site::open(&folder);
    assert_eq!(site.manager().run().unwrap().unwrap().phase, Phase::Done);
    assert_eq!(site.deployments(), ["one"]);
    assert_eq!(site.manager().nodes().unwrap()["node-0"].state, NodeState::Active);
}

#[test]
fn a_drained_node_is_left_alone_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    let manager = site.manager();
    site.deploy(&document("one", "all_at_once", "1", &[0, 1], "")).unwrap();
    let state = |node| site.manager().nodes().unwrap()[node].state;
    let taken = manager.drain("node-0", &closed()).unwrap();
    assert_eq!(manager.drain("node-0", &closed()).unwrap().operation, taken.operation, "under way");
    assert!(matches!(
        manager.drain("node-1", &closed()),
        Err(ManagerError::Reconcile(ReconcileError::Busy { .. }))
    ));
    manager.run().unwrap();
    assert_eq!((state("node-0"), site.serving()), (NodeState::Draining, vec!["node-1".into()]));
    let again = manager.drain("node-0", &closed()).unwrap();
    assert!(again.plan.is_none() && again.operation.is_done(), "it is drained");

    // Another deployment goes its way past it; one that would change it is refused.
    assert_eq!(site.deploy(&document("two", "rolling", "1", &[2], "")).unwrap(), Phase::Done);
    assert_eq!(state("node-0"), NodeState::Draining);
    let over = document("three", "rolling", "2", &[1], "one");
    assert!(matches!(site.deploy(&over), Err(ManagerError::Held(id)) if id == "node-0"));

    manager.resume("node-0", &closed()).unwrap();
    manager.run().unwrap();
    assert_eq!((state("node-0"), site.serving().len()), (NodeState::Active, 3));
    assert!(manager.resume("node-0", &closed()).unwrap().operation.is_done(), "again is fine");
    assert!(matches!(
        manager.resume("node-1", &closed()),
        Err(ManagerError::WrongState { state: NodeState::Active, .. })
    ));
    assert_eq!(site.deploy(&over).unwrap(), Phase::Done);

    // Each was remembered with its steps, the latest first.
    let operations = manager.operations().unwrap();
    let kinds: Vec<&str> = operations.iter().map(|operation| operation.kind.name()).collect();
    assert_eq!(kinds, ["deploy", "resume", "deploy", "drain", "deploy"]);
    assert_eq!(operations[0].operation_id, "op-5");
    assert!(operations.iter().all(|operation| !operation.end.as_ref().unwrap().steps.is_empty()));
}

#[test]
fn old_operations_are_forgotten_but_those_that_made_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::open(&folder);
    let manager = site.manager();
    site.deploy(&document("one", "all_at_once", "1", &[0], "")).unwrap();
    for _ in 0..KEPT_MAX / 2 + 10 {
        manager.drain("node-0", &closed()).unwrap();
        manager.run().unwrap();
        manager.resume("node-0", &closed()).unwrap();
        manager.run().unwrap();
    }
    let operations = manager.operations().unwrap();
    assert_eq!(operations.len(), KEPT_MAX + 1);
    let last = operations.last().unwrap();
    assert_eq!((last.operation_id.as_str(), last.subject.as_str()), ("op-1", "one"));
    let config = manager.read(&document("one", "all_at_once", "1", &[0], "")).unwrap();
    assert_eq!(manager.deploy(&config, &closed()).unwrap().operation, *last);
}
