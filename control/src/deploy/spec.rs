//! What an operator asks for: nodes, and how they are to come about.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{FieldProblem, Fields};
use super::tier::EdgeNodeType;
use crate::catalogue::Catalogue;
use crate::config::NODES_MAX;
use crate::id;
use crate::spelling::spelled_enum;

spelled_enum! {
    /// The order in which nodes change.
    pub enum DeploymentStrategy {
        /// A few at a time, in place; the next when these serve.
        Rolling = "rolling",
        /// A few first, judged; then the others as in `rolling`.
        Canary = "canary",
        /// All new nodes beside the old ones; the old ones go when every new one serves.
        BlueGreen = "blue_green",
        /// All at once.
        AllAtOnce = "all_at_once",
    }
}

/// One node as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeNodeSpec {
    /// Its id, unique.
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$")]
    pub node_id: String,
    /// Id of a trading region, as the catalogue spells it.
    pub region: String,
    /// Its tier.
    pub node_type: EdgeNodeType,
    /// Cores, 1 to 1024.
    #[schema(minimum = 1, maximum = 1024)]
    pub cpu_cores: u64,
    /// Memory, 1 to 65536 GiB.
    #[schema(minimum = 1, maximum = 65536)]
    pub memory_gb: u64,
    /// The p99 it has to stay below; not above its tier's.
    #[schema(minimum = 1, maximum = 10000000)]
    pub target_latency_us: u64,
    /// What it has to be able to serve; not below its tier's.
    #[schema(minimum = 1, maximum = 1000000000)]
    pub max_orders_per_second: u64,
    /// AF_XDP rather than kernel sockets.
    pub kernel_bypass: bool,
    /// Workers on cores that the scheduler leaves alone.
    pub cpu_isolation: bool,
    /// Memory, cores and NIC of one NUMA node.
    pub numa_optimization: bool,
    /// The version it should run; none: whatever its host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[!-~]{1,64}$")]
    pub release: Option<String>,
}

/// Nodes that come about together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeDeploymentConfig {
    /// Its id.
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$")]
    pub deployment_id: String,
    /// The nodes, 1 to 256.
    #[schema(min_items = 1, max_items = 256)]
    pub nodes: Vec<EdgeNodeSpec>,
    /// In which order.
    pub deployment_type: DeploymentStrategy,
    /// Nodes that may be out of service at a time (rolling, and canary after its first); 1 unless said.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 256)]
    pub max_unavailable: u64,
    /// Nodes that go first (canary); 1 unless said.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 256)]
    pub canary_nodes: u64,
    /// The deployment whose place it takes: nodes of that one which are listed here change, the others are
    /// retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$")]
    pub replaces: Option<String>,
}

fn one() -> u64 {
    1
}

/// Everything that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|p| format!("{}: {}", p.path, p.reason)).collect::<Vec<_>>().join("; "))]
pub struct SpecErrors(pub Vec<FieldProblem>);

impl EdgeDeploymentConfig {
    /// Reads a document and checks it against the catalogue. Regions come out as the catalogue spells them.
    pub fn from_json(value: &Value, catalogue: &Catalogue) -> Result<Self, SpecErrors> {
        let mut problems = Vec::new();
        let config = read_config(value, catalogue, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(SpecErrors(problems)),
        }
    }
}

fn read_config(
    value: &Value,
    catalogue: &Catalogue,
    problems: &mut Vec<FieldProblem>,
) -> Option<EdgeDeploymentConfig> {
    let mut fields = Fields::of(value, "", problems)?;
    let deployment_id = read_id(&mut fields, "deployment_id");
    let all = DeploymentStrategy::ALL;
    let strategy = fields.spelled(
        "deployment_type",
        all,
        DeploymentStrategy::spelled,
        DeploymentStrategy::name,
    );
    let replaces = match fields.optional("replaces") {
        None => None,
        Some(_) => read_id(&mut fields, "replaces"),
    };
    if replaces.is_some() && replaces == deployment_id {
        fields.refuse("replaces", "a deployment does not replace itself");
    }
    let max = NODES_MAX as u64;
    let has_canary = fields.optional("canary_nodes").is_some();
    let has_unavailable = fields.optional("max_unavailable").is_some();
    let max_unavailable = fields.number_or("max_unavailable", 1, max, 1);
    let canary_nodes = fields.number_or("canary_nodes", 1, max, 1);
    let nodes = fields.value("nodes").and_then(Value::as_array);
    let Some(values) = nodes else {
        fields.refuse("nodes", "a list of nodes is needed");
        fields.finish();
        return None;
    };
    if values.is_empty() || values.len() > NODES_MAX {
        fields.refuse("nodes", format!("1 to {NODES_MAX} nodes, not {}", values.len()));
    }
    let mut nodes: Vec<EdgeNodeSpec> = Vec::new();
    for (index, value) in values.iter().take(NODES_MAX).enumerate() {
        let path = format!("nodes[{index}]");
        let Some(node) = read_node(value, &path, catalogue, fields.problems()) else { continue };
        if nodes.iter().any(|other| other.node_id == node.node_id) {
            let reason = format!("{} is listed twice", node.node_id);
            fields.refuse(&format!("{path}.node_id"), reason);
        }
        nodes.push(node);
    }
    match strategy {
        Some(DeploymentStrategy::Canary) if canary_nodes >= values.len() as u64 => {
            let reason = format!("{canary_nodes} of {} nodes leave none to follow", values.len());
            fields.refuse("canary_nodes", reason);
        }
        Some(strategy) if has_canary && strategy != DeploymentStrategy::Canary => {
            fields.refuse("canary_nodes", format!("has no meaning in {strategy}"));
        }
        Some(strategy @ (DeploymentStrategy::BlueGreen | DeploymentStrategy::AllAtOnce))
            if has_unavailable =>
        {
            fields.refuse("max_unavailable", format!("has no meaning in {strategy}"));
        }
        _ => {}
    }
    fields.finish();
    Some(EdgeDeploymentConfig {
        deployment_id: deployment_id?,
        nodes,
        deployment_type: strategy?,
        max_unavailable,
        canary_nodes,
        replaces,
    })
}

fn read_id(fields: &mut Fields<'_>, field: &'static str) -> Option<String> {
    let text = fields.text(field)?;
    if !id::is_valid(text) {
        let shown: String = text.chars().take(80).collect();
        fields.refuse(field, format!("{shown:?}: {}", id::RULE));
    }
    Some(text.into())
}

fn read_node(
    value: &Value,
    path: &str,
    catalogue: &Catalogue,
    problems: &mut Vec<FieldProblem>,
) -> Option<EdgeNodeSpec> {
    let mut fields = Fields::of(value, path, problems)?;
    let node_id = read_id(&mut fields, "node_id");
    let region = fields.text("region").and_then(|name| {
        let regions = catalogue.resolve(name);
        match regions.as_slice() {
            [] => {
                let shown: String = name.chars().take(80).collect();
                fields.refuse("region", format!("there is no region {shown:?}"));
                None
            }
            [region] => Some(region.id.clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|region| region.id.as_str()).collect();
                let reason =
                    format!("{name} is a group; a node stands in one of {}", ids.join(", "));
                fields.refuse("region", reason);
                None
            }
        }
    });
    let node_type =
        fields.spelled("node_type", EdgeNodeType::ALL, EdgeNodeType::spelled, EdgeNodeType::name);
    let cpu_cores = fields.number("cpu_cores", 1, 1_024);
    let memory_gb = fields.number("memory_gb", 1, 65_536);
    let target_latency_us = fields.number("target_latency_us", 1, 10_000_000);
    let max_orders_per_second = fields.number("max_orders_per_second", 1, 1_000_000_000);
    let kernel_bypass = fields.boolean("kernel_bypass");
    let cpu_isolation = fields.boolean("cpu_isolation");
    let numa_optimization = fields.boolean("numa_optimization");
    let release = match fields.optional("release") {
        None => None,
        Some(_) => fields.text("release").map(str::to_owned),
    };
    if let Some(text) = &release
        && (text.is_empty() || text.len() > 64 || text.contains(|c: char| !c.is_ascii_graphic()))
    {
        fields.refuse("release", "1 to 64 printable characters without spaces are needed");
    }
    let spec = (|| {
        Some(EdgeNodeSpec {
            node_id: node_id?,
            region: region?,
            node_type: node_type?,
            cpu_cores: cpu_cores?,
            memory_gb: memory_gb?,
            target_latency_us: target_latency_us?,
            max_orders_per_second: max_orders_per_second?,
            kernel_bypass: kernel_bypass?,
            cpu_isolation: cpu_isolation?,
            numa_optimization: numa_optimization?,
            release,
        })
    })();
    if let Some(spec) = &spec {
        for (field, reason) in contradictions(spec) {
            fields.refuse(field, reason);
        }
    }
    fields.finish();
    spec
}

/// What cannot be true together, each by the field that has to give way.
fn contradictions(spec: &EdgeNodeSpec) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let tier = spec.node_type;
    if let Some(budget) = tier.budget() {
        let budget_us = budget.p99_ns / 1_000;
        if spec.target_latency_us > budget_us {
            let reason = format!("{} us, a {tier} node has {budget_us} us", spec.target_latency_us);
            found.push(("target_latency_us", reason));
        }
        let least = budget.operations_per_second;
        if spec.max_orders_per_second < least {
            let asked = spec.max_orders_per_second;
            let reason = format!("{asked} a second, a {tier} node serves at least {least}");
            found.push(("max_orders_per_second", reason));
        }
    }
    if tier == EdgeNodeType::UltraEdge {
        let needs = "is needed for ultra_edge: without it the tail is the kernel's";
        if !spec.kernel_bypass {
            found.push(("kernel_bypass", needs.into()));
        }
        if !spec.cpu_isolation {
            found.push(("cpu_isolation", needs.into()));
        }
    }
    if spec.cpu_isolation && spec.cpu_cores < 2 {
        found.push(("cpu_isolation", "needs a second core: one stays with the system".into()));
    }
    if spec.numa_optimization && spec.cpu_cores < 2 {
        found.push(("numa_optimization", "one core has nothing to arrange".into()));
    }
    found
}

#[cfg(test)]
mod tests;
