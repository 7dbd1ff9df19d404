//! Deployments on real nodes: what the edge node manager plans is done by supervisors, while clients read and
//! write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_control::catalogue::Catalogue;
use nautilus_control::deploy::planner::Circumstances;
use nautilus_control::deploy::reconciler::{Phase, PhaseRecord, Reconciler};
use nautilus_control::deploy::supervisors::Supervisors;
use nautilus_control::deploy::{EdgeNodeManager, NodeState};
use nautilus_control::store::embedded::{Embedded, Options};
use nautilus_shm::life::NodePhase;
use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::{Folder, Lab, RunId, active_worker, attach, binary};
use nautilus_tests::memcached::Client;
use nautilus_tests::steady::{Steady, nobody_noticed, over_tcp, over_udp};
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const NODES: usize = 3;

struct Site {
    lab: Lab,
    store: Embedded,
    supervisors: Supervisors,
    releases: PathBuf,
}

impl Site {
    fn start() -> Self {
        let run = RunId::draw();
        let folder = Arc::new(Folder::create(run).unwrap());
        let releases = folder.make("releases").unwrap();
        set_mode(&releases);
        for name in ["r1", "r2", "bad"] {
            add_release(&releases, name);
        }
        // The workers of this one end at once.
        let worker = releases.join("bad/nautilus-worker");
        std::fs::remove_file(&worker).unwrap();
        std::fs::write(&worker, "#!/bin/sh\nexit 1\n").unwrap();
        set_mode(&worker);
        let store = Embedded::open(&folder.path().join("store.redb"), Options::default()).unwrap();
        let below = releases.clone();
        let lab = Lab::start(folder, run, NODES, |_, _, file| {
            file.parked = true;
            file.releases = Some(below.clone());
            file.cache_memory_mb = 16;
            Ok(())
        })
        .unwrap();
        let of =
            |node: &nautilus_tests::lab::Node| (node.member.name.clone(), node.run_dir.clone());
        let run_dirs: BTreeMap<String, PathBuf> = lab.nodes().iter().map(of).collect();
        Self {
            lab,
            store,
            supervisors: Supervisors { run_dirs, ..Supervisors::default() },
            releases,
        }
    }

    fn manager(&self) -> EdgeNodeManager<'_> {
        let reconciler = Reconciler::new(&self.store, &self.supervisors);
        EdgeNodeManager { reconciler, catalogue: Catalogue::built_in() }
    }

    fn deploy(&self, document: &Value) -> PhaseRecord {
        let manager = self.manager();
        let config = manager.read(document).unwrap();
        manager.deploy(&config, &soon_judged()).unwrap();
        manager.run().unwrap().unwrap()
    }

    fn retire(&self, node: &str) -> PhaseRecord {
        let manager = self.manager();
        manager.retire(node, &soon_judged()).unwrap();
        manager.run().unwrap().unwrap()
    }

    fn state(&self, node: &str) -> Option<NodeState> {
        self.manager().nodes().unwrap().get(node).map(|record| record.state)
    }

    fn cache(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.lab.nodes()[node].member.address.v4().into(), CACHE_PORT)
    }

    fn phases(&self) -> Vec<NodePhase> {
        let phase =
            |node: &nautilus_tests::lab::Node| attach(&node.run_dir).unwrap().supervisor().phase();
        self.lab.nodes().iter().map(phase).collect()
    }

    /// The program of each node's worker.
    fn workers(&self) -> Vec<PathBuf> {
        let program = |node: &nautilus_tests::lab::Node| {
            let pid = active_worker(&attach(&node.run_dir).unwrap()).unwrap().pid;
            std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
        };
        self.lab.nodes().iter().map(program).collect()
    }

    /// Whether every node's worker is of this release.
    fn all_run(&self, release: &str) -> bool {
        let worker = self.releases.join(release).join("nautilus-worker");
        self.workers().iter().all(|program| *program == worker)
    }

    /// Clients of all nodes read and write while something happens.
    fn under_load<T: Send>(&self, happens: impl FnOnce() -> T + Send) -> (Steady, T) {
        let stop = AtomicBool::new(false);
        let namespace = &self.lab.client().namespace;
        let caches: Vec<SocketAddr> = (0..NODES).map(|node| self.cache(node)).collect();
        std::thread::scope(|scope| {
            let (stop, caches) = (&stop, &caches);
            let mut clients = Vec::new();
            for cache in caches {
                clients.push(scope.spawn(move || namespace.run(|| over_udp(*cache, "udp", stop))));
            }
            clients.push(scope.spawn(move || namespace.run(|| over_tcp(caches, "tcp", stop))));
            std::thread::sleep(Duration::from_millis(300));
            let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happens));
            stop.store(true, Ordering::Relaxed);
            let all = clients.into_iter().map(|client| client.join().unwrap());
            let steady = all.fold(Steady::default(), Steady::and);
            (steady, happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn client(&self, node: usize) -> Client {
        let client = |timeout| {
            let connect = || Client::connect(self.cache(node), timeout);
            self.lab.client().namespace.run(connect).unwrap()
        };
        // The link may have been ready later than the node.
        let mut first = client(Duration::from_millis(100));
        wait_until("the node answers", SOON, || first.get("absent").is_ok()).unwrap();
        client(Duration::from_secs(2))
    }
}

fn set_mode(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn add_release(releases: &Path, name: &str) {
    let release = releases.join(name);
    std::fs::create_dir(&release).unwrap();
    set_mode(&release);
    for program in ["nautilus-supervisor", "nautilus-worker", "nautilus-front", "nautilus-capture"]
    {
        let (from, to) = (binary(program), release.join(program));
        let is_told = ["nautilus-worker", "nautilus-front"].contains(&program);
        if is_told || std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).unwrap();
        }
        set_mode(&to);
    }
}

fn soon_judged() -> Circumstances {
    let (judge_ms, judge_canary_ms) = (300, 600);
    Circumstances { is_forced: true, judge_ms, judge_canary_ms, ..Circumstances::default() }
}

fn document(id: &str, strategy: &str, release: &str, nodes: &[usize], replaces: &str) -> Value {
    let node = |number: &usize| {
        json!({
            "node_id": format!("node{number}"), "region": "equinix_ny4", "node_type": "lab",
            "cpu_cores": 1, "memory_gb": 1, "target_latency_us": 1_000_000,
            "max_orders_per_second": 1, "kernel_bypass": true, "cpu_isolation": false,
            "numa_optimization": false, "release": release,
        })
    };
    let mut document = json!({
        "deployment_id": id,
        "deployment_type": strategy,
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    });
    if !replaces.is_empty() {
        document["replaces"] = json!(replaces);
    }
    document
}

#[test]
#[ignore = "privileged: makes network namespaces and three nodes"]
fn nodes_are_deployed_rolled_turned_back_retired_and_deployed_again() {
    let site = Site::start();
    assert_eq!(site.phases(), [NodePhase::Parked; NODES]);
    let all = [1, 2, 3];
    let end = site.deploy(&document("one", "all_at_once", "r1", &all, ""));
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    assert!(site.all_run("r1"));
    for node in 0..NODES {
        site.client(node).set("kept", 0, b"v1").unwrap();
    }

    // In place, one after the other.
    let (steady, end) =
        site.under_load(|| site.deploy(&document("two", "rolling", "r2", &all, "one")));
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    nobody_noticed("rolled", &steady);
    assert!(steady.moved > 0, "clients were led away");
    assert!(site.all_run("r2"));

    // A canary that cannot start goes back by itself.
    let (steady, end) =
        site.under_load(|| site.deploy(&document("three", "canary", "bad", &all, "two")));
    println!("{:?}: {}", end.phase, end.reason);
    assert_eq!(end.phase, Phase::RolledBack);
    assert!(end.reason.contains("went back"), "{}", end.reason);
    nobody_noticed("a bad canary", &steady);
    assert!(site.all_run("r2"));
    for node in 0..NODES {
        let kept = site.client(node).get("kept").unwrap();
        assert_eq!(kept.map(|value| value.bytes), Some(b"v1".to_vec()), "node {node}");
    }

    // A supervisor dies while its node is rolled.
    let (steady, end) = site.under_load(|| {
        std::thread::scope(|scope| {
            let site = &site;
            let rolled =
                scope.spawn(|| site.deploy(&document("four", "rolling", "r1", &all, "two")));
            let node = &site.lab.nodes()[0];
            let swaps = || {
                std::fs::read_to_string(node.run_dir.join("remembered.toml"))
                    .is_ok_and(|text| text.contains("[swap]"))
            };
            wait_until("the first node is swapped", SOON, swaps).unwrap();
            node.supervisor.kill();
            rolled.join().unwrap()
        })
    });
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    nobody_noticed("a supervisor's death in it", &steady);
    assert!(site.all_run("r1"));

    // A worker of the new release ends while its node is judged: that one goes back by itself.
    let (steady, end) = site.under_load(|| {
        std::thread::scope(|scope| {
            let site = &site;
            let rolled =
                scope.spawn(|| site.deploy(&document("late", "rolling", "r2", &all, "four")));
            let bad = site.releases.join("r2/nautilus-worker");
            let program = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            let is_bad = || {
                let worker = active_worker(&attach(&site.lab.nodes()[0].run_dir).ok()?)?;
                (program(worker.pid).as_ref() == Some(&bad)).then_some(worker.pid)
            };
            wait_until("the first node is exchanged", SOON, || is_bad().is_some()).unwrap();
            kill(Pid::from_raw(is_bad().unwrap() as i32), Signal::SIGKILL).unwrap();
            rolled.join().unwrap()
        })
    });
    println!("{:?}: {}", end.phase, end.reason);
    assert_eq!(end.phase, Phase::RolledBack);
    assert!(end.reason.contains("went back"), "{}", end.reason);
    nobody_noticed("a worker's death in it", &steady);
    assert!(site.all_run("r1"));

    // One goes, and comes again.
    let end = site.retire("node3");
    assert_eq!((end.phase, site.state("node3")), (Phase::Done, Some(NodeState::Retired)));
    assert_eq!(site.phases()[2], NodePhase::Parked);
    let end = site.deploy(&document("five", "rolling", "r1", &all, "four"));
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    assert_eq!(site.client(2).get("kept").unwrap(), None, "it begins empty");
    assert_eq!(site.client(0).get("kept").unwrap().map(|value| value.bytes), Some(b"v1".to_vec()));
}

#[test]
#[ignore = "privileged: makes network namespaces and three nodes"]
fn new_nodes_take_the_place_of_old_ones() {
    let site = Site::start();
    let end = site.deploy(&document("blue", "all_at_once", "r1", &[1], ""));
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    let end = site.deploy(&document("green", "blue_green", "r2", &[2, 3], "blue"));
    assert_eq!(end.phase, Phase::Done, "{}", end.reason);
    assert_eq!(site.phases(), [NodePhase::Parked, NodePhase::Running, NodePhase::Running]);
    assert_eq!(site.state("node1"), Some(NodeState::Retired));
}
