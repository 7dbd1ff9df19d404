use proptest::prelude::*;

use super::*;
use crate::deploy::tier::EdgeNodeType;

fn spec(number: usize, release: u8) -> EdgeNodeSpec {
    EdgeNodeSpec {
        node_id: format!("node-{number}"),
        region: if number.is_multiple_of(2) { "equinix_ny4" } else { "equinix_ld4" }.into(),
        node_type: EdgeNodeType::UltraEdge,
        cpu_cores: 8,
        memory_gb: 32,
        target_latency_us: 100,
        max_orders_per_second: 100_000,
        kernel_bypass: true,
        cpu_isolation: true,
        numa_optimization: true,
        release: Some(format!("1.{release}")),
    }
}

fn deployment(strategy: DeploymentStrategy, nodes: Vec<EdgeNodeSpec>) -> EdgeDeploymentConfig {
    EdgeDeploymentConfig {
        deployment_id: "d".into(),
        nodes,
        deployment_type: strategy,
        max_unavailable: 1,
        canary_nodes: 1,
        replaces: None,
    }
}

fn closed() -> Circumstances {
    let regions = ["equinix_ny4", "equinix_ld4"];
    let sessions = regions.map(|id| (id.into(), SessionState::Closed.into())).into();
    Circumstances { sessions, ..Circumstances::default() }
}

fn serving_all(count: usize, release: u8) -> Inventory {
    (0..count).map(|n| (format!("node-{n}"), serving("d", &spec(n, release)))).collect()
}

/// How many nodes may be out of service.
fn allowed(deployment: &EdgeDeploymentConfig) -> usize {
    match deployment.deployment_type {
        DeploymentStrategy::Rolling | DeploymentStrategy::Canary => {
            deployment.max_unavailable as usize
        }
        DeploymentStrategy::BlueGreen => 0,
        DeploymentStrategy::AllAtOnce => usize::MAX,
    }
}

/// Some order of the steps that keeps their dependencies, drawn by `picks`.
fn some_order<'a>(plan: &'a Plan, picks: &[usize]) -> Vec<&'a Step> {
    let mut order: Vec<&Step> = Vec::new();
    let mut picks = picks.iter().copied().cycle();
    while order.len() < plan.steps.len() {
        let is_done = |id: &String| order.iter().any(|done| done.id == *id);
        let ready: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|step| !is_done(&step.id) && step.after.iter().all(is_done))
            .collect();
        assert!(!ready.is_empty(), "the steps wait for each other:\n{plan}");
        order.push(ready[picks.next().unwrap_or(0) % ready.len()]);
    }
    order
}

fn any_strategy() -> impl Strategy<Value = DeploymentStrategy> {
    proptest::sample::select(DeploymentStrategy::ALL)
}

/// What there is and what is wanted: each node by itself absent or in some state with some release.
fn any_case() -> impl Strategy<Value = (Inventory, EdgeDeploymentConfig)> {
    let there = proptest::option::weighted(
        0.8,
        (
            prop_oneof![3 => Just(NodeState::Active), 1 => proptest::sample::select(NodeState::ALL)],
            0..2u8,
        ),
    );
    let wanted = proptest::option::weighted(0.8, 0..2u8);
    let nodes = proptest::collection::vec((there, wanted), 1..10);
    (nodes, any_strategy(), 1..4u64, 1..4u64).prop_map(
        |(nodes, strategy, unavailable, canaries)| {
            let mut inventory = Inventory::new();
            let mut specs = Vec::new();
            for (number, (there, wanted)) in nodes.into_iter().enumerate() {
                if let Some((state, release)) = there {
                    let record = NodeRecord { state, ..serving("d", &spec(number, release)) };
                    inventory.insert(format!("node-{number}"), record);
                }
                // A blue/green deployment keeps what serves as it is.
                let active = there.filter(|(state, _)| *state == NodeState::Active);
                let wanted = wanted.map(|release| match (strategy, active) {
                    (DeploymentStrategy::BlueGreen, Some((_, release))) => release,
                    _ => release,
                });
                specs.extend(wanted.map(|release| spec(number, release)));
            }
            let mut config = deployment(strategy, specs);
            (config.max_unavailable, config.canary_nodes) = (unavailable, canaries);
            (inventory, config)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_prefix_of_any_order_takes_more_nodes_out_than_allowed(
        (inventory, config) in any_case(),
        picks in proptest::collection::vec(0..100usize, 1..40),
    ) {
        let made = plan(std::slice::from_ref(&config), &inventory, &closed()).unwrap();
        let order = some_order(&made, &picks);
        // Every node that runs and is wanted, whether or not it has to change.
        let kept: Vec<&String> = config.nodes.iter().map(|spec| &spec.node_id)
            .filter(|id| inventory.get(*id).is_some_and(|record| record.state.is_running()))
            .collect();
        let count_out = |now: &Inventory| {
            kept.iter().filter(|id| now[**id].state != NodeState::Active).count()
        };
        let most = allowed(&config).max(count_out(&inventory));
        for length in 0..=order.len() {
            let now = made.after(&inventory, order[..length].iter().copied())
                .expect("each step is possible where it stands");
            let out = count_out(&now);
            prop_assert!(out <= most, "{} out after {} steps:\n{}", out, length, made);
        }
    }

    #[test]
    fn a_plan_leads_where_it_should_and_the_next_is_empty((inventory, config) in any_case()) {
        let desired = [config.clone()];
        let made = plan(&desired, &inventory, &closed()).unwrap();
        let result = made.after(&inventory, &made.steps).unwrap();
        for spec in &config.nodes {
            prop_assert_eq!(&result[&spec.node_id], &serving("d", spec));
        }
        for (id, record) in &result {
            let is_wanted = config.nodes.iter().any(|spec| spec.node_id == *id);
            prop_assert!(is_wanted || record.state == NodeState::Retired, "{} is {}", id, record.state);
        }
        let again = plan(&desired, &result, &closed()).unwrap();
        prop_assert!(again.is_empty(), "{}", again);
        prop_assert_eq!(plan(&desired, &inventory, &closed()).unwrap(), made, "the same again");
    }

    #[test]
    fn blue_green_takes_no_old_node_out_before_every_new_one_serves(
        old in 1..5usize, new in 1..5usize, picks in proptest::collection::vec(0..100usize, 1..40),
    ) {
        let inventory = serving_all(old, 0);
        let specs = (old..old + new).map(|number| spec(number, 1)).collect();
        let config = deployment(DeploymentStrategy::BlueGreen, specs);
        let made = plan(&[config], &inventory, &closed()).unwrap();
        let order = some_order(&made, &picks);
        let first_drain = order.iter().position(|step| step.action == Action::Drain).unwrap();
        let admitted = order[..first_drain].iter().filter(|step| step.action == Action::Admit);
        prop_assert_eq!(admitted.count(), new);
    }
}

#[test]
fn a_canary_goes_alone_and_is_judged_longer() {
    let specs = (0..4).map(|number| spec(number, 1)).collect();
    let config = deployment(DeploymentStrategy::Canary, specs);
    let made = plan(&[config], &serving_all(4, 0), &closed()).unwrap();
    let judged: Vec<u64> = made.steps.iter().map(|s| s.judge_ms).filter(|ms| *ms > 0).collect();
    assert_eq!(judged, [60_000, 10_000, 10_000, 10_000]);
    let first = &made.steps[0].node_id;
    let admitted = format!("{first}.admit");
    let others = made.steps.iter().filter(|s| s.action == Action::Drain && s.node_id != *first);
    assert_eq!(others.clone().next().unwrap().after, [admitted]);
    assert_eq!(others.count(), 3);
}

#[test]
fn a_session_stops_it_and_force_does_not_care() {
    let config = deployment(DeploymentStrategy::Rolling, vec![spec(0, 1), spec(1, 0)]);
    let desired = [config];
    let inventory = serving_all(2, 0);
    let with = |ny4: Option<SessionState>, is_forced| {
        let mut circumstances = Circumstances { is_forced, ..closed() };
        match ny4 {
            Some(state) => circumstances.sessions.insert("equinix_ny4".into(), state.into()),
            None => circumstances.sessions.remove("equinix_ny4"),
        };
        plan(&desired, &inventory, &circumstances)
    };
    for state in [Some(SessionState::Open), Some(SessionState::Unknown), None] {
        let error = with(state, false).unwrap_err().to_string();
        assert!(error.contains("equinix_ny4") && !error.contains("equinix_ld4"), "{error}");
        assert_eq!(with(state, true).unwrap().steps.len(), 5);
    }
    assert!(with(Some(SessionState::Closed), false).is_ok());
    // Nothing to do needs no permission.
    let open = Circumstances::default();
    let same = deployment(DeploymentStrategy::Rolling, vec![spec(0, 0), spec(1, 0)]);
    assert!(plan(&[same], &inventory, &open).unwrap().is_empty());
}

#[test]
fn what_cannot_be_planned_says_why() {
    let mut other = deployment(DeploymentStrategy::Rolling, vec![spec(1, 0)]);
    other.deployment_id = "e".into();
    let one = deployment(DeploymentStrategy::Rolling, vec![spec(0, 0), spec(1, 0)]);
    let error = plan(&[one, other], &Inventory::new(), &closed()).unwrap_err();
    assert_eq!(error.to_string(), "node node-1 is wanted by d and by e");
    let config = deployment(DeploymentStrategy::BlueGreen, vec![spec(0, 1), spec(1, 0)]);
    let error = plan(&[config], &serving_all(2, 0), &closed()).unwrap_err().to_string();
    assert!(error.contains("give new ids to: node-0"), "{error}");
}

#[test]
fn a_deployment_that_is_gone_is_retired() {
    let made = plan(&[], &serving_all(2, 0), &closed()).unwrap();
    let result = made.after(&serving_all(2, 0), &made.steps).unwrap();
    assert!(result.values().all(|record| record.state == NodeState::Retired));
}

#[test]
fn a_dry_run_prints_each_step_and_the_way_back() {
    let config = deployment(DeploymentStrategy::Rolling, vec![spec(0, 1)]);
    let made = plan(&[config], &serving_all(1, 0), &closed()).unwrap();
    let text = made.to_string();
    for part in ["5 steps on 1 nodes", "judge      node-0 for 10000 ms", "after node-0.drain"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert_eq!(text.lines().count(), 1 + 5 + 1 + 5);
    let json = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), made);
}
