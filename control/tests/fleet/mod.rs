//! A fleet that lives in a file: each order's effect is one line, on disk before the order returns, and an
//! order that a real node could not stand is refused loudly. Time does not pass in it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nautilus_control::deploy::actuator::{ActuatorError, NodeActuator, Order};
use nautilus_control::deploy::plan::Action;
use nautilus_control::deploy::planner::{Circumstances, SessionState};
use nautilus_control::deploy::tier::Measurement;
use nautilus_control::deploy::{
    DeploymentStrategy, EdgeDeploymentConfig, EdgeNodeSpec, EdgeNodeType,
};
use nautilus_host::order::Shortfall;

/// A release whose tail is too long.
pub const BAD_RELEASE: &str = "bad";

/// Memory of each node's host.
pub const HOST_GB: u64 = 512;

/// A node of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub release: Option<String>,
    pub is_warm: bool,
    pub serves: bool,
    pub is_retired: bool,
}

/// All nodes of a file, and called by whoever wants to die between two orders.
pub struct Fleet {
    file: Mutex<(File, BTreeMap<String, Node>)>,
    point: fn(),
}

impl Fleet {
    pub fn open(path: &Path, point: fn()) -> Self {
        let nodes = replay(path).pop().map_or_else(BTreeMap::new, |(nodes, _)| nodes);
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Self { file: Mutex::new((file, nodes)), point }
    }

    pub fn nodes(&self) -> BTreeMap<String, Node> {
        self.file.lock().unwrap().1.clone()
    }
}

impl NodeActuator for Fleet {
    fn perform(&self, order: &Order<'_>) -> Result<(), ActuatorError> {
        (self.point)();
        let release = order.spec.release.as_deref().unwrap_or("none");
        let line = format!("{} {} {release}\n", order.node_id, order.action);
        let mut place = self.file.lock().unwrap();
        let (file, nodes) = &mut *place;
        apply(nodes, line.trim_end());
        // One write: a step beside this one may die at any moment, and a line is there or is not.
        file.write_all(line.as_bytes()).unwrap();
        file.sync_data().unwrap();
        drop(place);
        (self.point)();
        Ok(())
    }

    fn lacks(&self, node_id: &str, spec: &EdgeNodeSpec) -> Result<Vec<Shortfall>, ActuatorError> {
        let is_lacking = spec.memory_gb > HOST_GB;
        let reason = format!("{node_id} has {HOST_GB} GiB");
        let lacking = Shortfall { field: "memory_gb".into(), reason, by_init: false };
        Ok(is_lacking.then_some(lacking).into_iter().collect())
    }

    fn measure(&self, node_id: &str, _: Duration) -> Result<Measurement, ActuatorError> {
        (self.point)();
        let node = self.nodes().get(node_id).cloned().unwrap_or_default();
        assert!(node.is_warm && !node.serves, "{node_id} was measured as {node:?}");
        let is_bad = node.release.as_deref() == Some(BAD_RELEASE);
        let p99_ns = if is_bad { 900_000 } else { 50_000 };
        Ok(Measurement { samples: 10_000, p50_ns: 20_000, p99_ns, p999_ns: p99_ns + 10_000 })
    }
}

/// One line's effect. An order that makes no sense for the node as it is ends the process.
fn apply(nodes: &mut BTreeMap<String, Node>, line: &str) {
    let [node_id, action, release] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("not a line of a fleet: {line:?}");
    };
    let node = nodes.entry(node_id.into()).or_default();
    match Action::spelled(action).unwrap() {
        Action::Provision => {
            assert!(!node.serves, "{node_id} was provisioned while it served");
            node.is_retired = false;
        }
        Action::Drain => node.serves = false,
        Action::Tune => {
            assert!(!node.serves, "{node_id} was tuned while it served");
            assert!(!node.is_retired, "{node_id} was tuned after its end");
            (node.release, node.is_warm) = (Some(release.into()), false);
        }
        Action::Warm => {
            assert!(!node.serves && node.release.is_some(), "{node_id} was warmed as {node:?}");
            node.is_warm = true;
        }
        Action::Admit => {
            assert!(node.is_warm, "{node_id} was admitted cold");
            node.serves = true;
        }
        Action::Retire => {
            assert!(!node.serves, "{node_id} was retired while it served");
            (node.is_retired, node.is_warm) = (true, false);
        }
        Action::Judge => panic!("a judgement is a measurement"),
    }
}

/// The fleet after each line of a file.
pub fn replay(path: &Path) -> Vec<(BTreeMap<String, Node>, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut nodes = BTreeMap::new();
    let mut states = Vec::new();
    for line in text.lines() {
        apply(&mut nodes, line);
        states.push((nodes.clone(), line.to_owned()));
    }
    states
}

pub fn spec(number: usize, release: &str) -> EdgeNodeSpec {
    EdgeNodeSpec {
        node_id: format!("node-{number}"),
        region: "equinix_ny4".into(),
        node_type: EdgeNodeType::HighPerformance,
        cpu_cores: 4,
        memory_gb: 16,
        target_latency_us: 500,
        max_orders_per_second: 50_000,
        kernel_bypass: true,
        cpu_isolation: false,
        numa_optimization: false,
        release: Some(release.into()),
    }
}

pub fn deployment(strategy: DeploymentStrategy, nodes: Vec<EdgeNodeSpec>) -> EdgeDeploymentConfig {
    EdgeDeploymentConfig {
        deployment_id: "d".into(),
        nodes,
        deployment_type: strategy,
        max_unavailable: 1,
        canary_nodes: 1,
        replaces: None,
    }
}

pub fn closed() -> Circumstances {
    let sessions = [("equinix_ny4".into(), SessionState::Closed.into())].into();
    Circumstances { sessions, ..Circumstances::default() }
}
