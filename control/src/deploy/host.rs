//! What a node's spec orders of its host, and saying what that host lacks.

use nautilus_host::knob::{TIERS, name_of};
use nautilus_host::order::Shortfall;
use nautilus_host::tier::Tier;
use nautilus_shm::attach::{HOST_CORES_MAX, HOST_MEMORY_GB_MAX, HostOrder};

use super::fields::FieldProblem;
use super::manager::{EdgeNodeManager, ManagerError};
use super::plan::Plan;
use super::reconciler::PARALLEL_MAX;
use super::spec::{EdgeDeploymentConfig, EdgeNodeSpec};
use super::tier::EdgeNodeType;

/// Reasons that are told of one node in a sentence; the doctor has them all.
const TOLD_MAX: usize = 6;

impl EdgeNodeType {
    /// The same for the host doctor.
    pub const fn host_tier(self) -> Tier {
        match self {
            Self::UltraEdge => Tier::Ultra,
            Self::HighPerformance => Tier::High,
            Self::StandardEdge => Tier::Standard,
            Self::Lab => Tier::Lab,
        }
    }
}

/// What a spec orders of the host.
pub fn order(spec: &EdgeNodeSpec) -> HostOrder {
    let tier = TIERS.iter().position(|tier| *tier == spec.node_type.host_tier());
    let bounded = |number: u64, max| u32::try_from(number).unwrap_or(max).clamp(1, max);
    HostOrder {
        tier: tier.unwrap_or_default() as u8,
        kernel_bypass: spec.kernel_bypass,
        cpu_isolation: spec.cpu_isolation,
        numa_optimization: spec.numa_optimization,
        cpu_cores: bounded(spec.cpu_cores, HOST_CORES_MAX),
        memory_gb: bounded(spec.memory_gb, HOST_MEMORY_GB_MAX),
    }
}

/// Whether a spec orders what only the host can have, by name.
pub fn names_host(spec: &EdgeNodeSpec) -> bool {
    spec.cpu_isolation || spec.numa_optimization
}

/// What a host lacks, in one sentence, and how to come by it.
pub fn in_words(spec: &EdgeNodeSpec, lacking: &[Shortfall]) -> String {
    let told: Vec<String> =
        lacking.iter().take(TOLD_MAX).map(|one| format!("{}: {}", one.field, one.reason)).collect();
    let more = match lacking.len() - told.len() {
        0 => String::new(),
        more => format!("; and {more} more, which `nautilus host check` tells"),
    };
    let (tier, by_init) = (name_of(&spec.node_type.host_tier()), by_init(lacking));
    format!(
        "{}: its host is not what is ordered: {}{more}. `nautilus host init --tier {tier}` would change \
         {by_init} of these {}, an operator the others; nothing was changed on the host",
        spec.node_id,
        told.join("; "),
        lacking.len(),
    )
}

/// How much of it `nautilus host init` would change.
pub fn by_init(lacking: &[Shortfall]) -> usize {
    lacking.iter().filter(|one| one.by_init).count()
}

impl EdgeNodeManager<'_> {
    /// That the hosts of the nodes which a plan would bring up are what their settings order, as far as their
    /// supervisors answer now: the steps of the plan ask again.
    pub fn check_hosts(
        &self,
        config: &EdgeDeploymentConfig,
        plan: &Plan,
    ) -> Result<(), ManagerError> {
        let concerned: Vec<(usize, &EdgeNodeSpec)> = config
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| plan.nodes.contains_key(&node.node_id))
            .collect();
        let (mut nodes, mut lacking, mut changes) = (Vec::new(), Vec::new(), 0);
        for (index, found) in self.look_at(&concerned) {
            let spec = &config.nodes[index];
            if !found.is_empty() {
                nodes.push(spec.node_id.as_str());
            }
            changes += by_init(&found);
            lacking.extend(found.into_iter().map(|one| FieldProblem {
                path: format!("nodes[{index}].{}", one.field),
                reason: one.reason,
            }));
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let nodes = nodes.join(", ");
        Err(ManagerError::Unfit { nodes, lacking, by_init: changes })
    }

    /// What the hosts of nodes lack, side by side; nothing of those that do not answer.
    pub fn look_at(&self, nodes: &[(usize, &EdgeNodeSpec)]) -> Vec<(usize, Vec<Shortfall>)> {
        let actuator = self.reconciler.actuator;
        let mut found = Vec::new();
        for some in nodes.chunks(PARALLEL_MAX) {
            std::thread::scope(|scope| {
                let asked: Vec<_> = some
                    .iter()
                    .map(|(_, spec)| scope.spawn(move || actuator.lacks(&spec.node_id, spec)))
                    .collect();
                for ((index, _), asked) in some.iter().zip(asked) {
                    // One that cannot be asked now is judged when its turn comes.
                    if let Ok(Ok(lacking)) = asked.join() {
                        found.push((*index, lacking));
                    }
                }
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_sentence_names_the_worst_and_counts_the_rest() {
        let spec = EdgeNodeSpec {
            node_id: "n".into(),
            region: "equinix_ny4".into(),
            node_type: EdgeNodeType::UltraEdge,
            cpu_cores: 8,
            memory_gb: 32,
            target_latency_us: 100,
            max_orders_per_second: 100_000,
            kernel_bypass: true,
            cpu_isolation: true,
            numa_optimization: false,
            release: None,
        };
        let ordered = order(&spec);
        assert_eq!((ordered.tier, ordered.cpu_cores, ordered.memory_gb), (0, 8, 32));
        assert_eq!((ordered.cpu_isolation, ordered.numa_optimization), (true, false));
        let one = |number: usize| Shortfall {
            field: "node_type".into(),
            reason: format!("knob {number}"),
            by_init: number.is_multiple_of(2),
        };
        let lacking: Vec<Shortfall> = (0..9).map(one).collect();
        let said = in_words(&spec, &lacking);
        assert!(said.contains("node_type: knob 5; and 3 more"), "{said}");
        assert!(said.contains("would change 5 of these 9"), "{said}");
        assert!(!in_words(&spec, &lacking[..6]).contains("more"), "all are told");
    }
}
