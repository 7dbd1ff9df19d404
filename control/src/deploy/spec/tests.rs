use serde_json::json;

use super::*;

fn node(id: &str) -> Value {
    json!({
        "node_id": id, "region": "ny4", "node_type": "UltraEdge", "cpu_cores": 8, "memory_gb": 32,
        "target_latency_us": 80, "max_orders_per_second": 100_000, "kernel_bypass": true,
        "cpu_isolation": true, "numa_optimization": true,
    })
}

fn deployment(nodes: Vec<Value>) -> Value {
    json!({ "deployment_id": "d-1", "nodes": nodes, "deployment_type": "CANARY" })
}

fn read(value: &Value) -> Result<EdgeDeploymentConfig, Vec<String>> {
    EdgeDeploymentConfig::from_json(value, Catalogue::built_in()).map_err(|SpecErrors(all)| {
        all.iter().map(|p| format!("{}: {}", p.path, p.reason)).collect()
    })
}

/// The document with one field of its second node, or of itself, set.
fn with(path: &str, field: &str, value: Value) -> Value {
    let mut document = deployment(vec![node("a"), node("b")]);
    let place = document.pointer_mut(path).unwrap();
    place.as_object_mut().unwrap().insert(field.into(), value);
    document
}

#[test]
fn a_whole_document_is_read_and_written_alike() {
    let config = read(&deployment(vec![node("a"), node("b")])).unwrap();
    assert_eq!(config.deployment_type, DeploymentStrategy::Canary);
    assert_eq!((config.max_unavailable, config.canary_nodes), (1, 1));
    assert_eq!(config.nodes[1].region, "equinix_ny4", "as the catalogue spells it");
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["deployment_type"], "canary");
    assert_eq!(written["nodes"][0]["node_type"], "ultra_edge");
    assert_eq!(read(&written), Ok(config.clone()));
    assert_eq!(serde_json::from_value::<EdgeDeploymentConfig>(written).unwrap(), config);
}

#[test]
fn what_is_wrong_is_refused_by_path() {
    for (path, field, value, expected) in [
        ("", "deployment_id", json!("Deploy"), "deployment_id: "),
        ("", "deployment_id", json!("deploy"), "deployment_id: "),
        (
            "",
            "deployment_type",
            json!("big_bang"),
            "deployment_type: \"big_bang\" is none of rolling",
        ),
        ("", "nodes", json!([]), "nodes: 1 to 256"),
        ("", "nodes", json!(3), "nodes: a list"),
        ("", "canary_nodes", json!(2), "canary_nodes: 2 of 2"),
        ("", "max_unavailable", json!(0), "max_unavailable: a whole number"),
        ("", "replaces", json!("d-1"), "replaces: a deployment does not replace itself"),
        ("", "replaces", json!("D"), "replaces: "),
        ("", "speed", json!(1), "speed: is unknown"),
        ("/nodes/1", "node_id", json!("a"), "nodes[1].node_id: a is listed twice"),
        ("/nodes/1", "node_id", json!("a/b"), "nodes[1].node_id: "),
        ("/nodes/1", "region", json!("atlantis"), "nodes[1].region: there is no region"),
        ("/nodes/1", "region", json!("us_east"), "nodes[1].region: us_east is a group"),
        ("/nodes/1", "node_type", json!("ultraEdge"), "nodes[1].node_type: "),
        ("/nodes/1", "cpu_cores", json!(0), "nodes[1].cpu_cores: a whole number from 1 to 1024"),
        ("/nodes/1", "cpu_cores", json!(-1), "nodes[1].cpu_cores: "),
        ("/nodes/1", "cpu_cores", json!(1.5), "nodes[1].cpu_cores: "),
        ("/nodes/1", "cpu_cores", json!("8"), "nodes[1].cpu_cores: "),
        ("/nodes/1", "cpu_cores", json!(1), "nodes[1].cpu_isolation: needs a second core"),
        ("/nodes/1", "memory_gb", json!(1e30), "nodes[1].memory_gb: "),
        ("/nodes/1", "target_latency_us", json!(101), "nodes[1].target_latency_us: 101 us"),
        ("/nodes/1", "max_orders_per_second", json!(99_999), "nodes[1].max_orders_per_second: "),
        ("/nodes/1", "kernel_bypass", json!(false), "nodes[1].kernel_bypass: is needed"),
        ("/nodes/1", "kernel_bypass", json!("yes"), "nodes[1].kernel_bypass: true or false"),
        ("/nodes/1", "cpu_isolation", json!(false), "nodes[1].cpu_isolation: is needed"),
        ("/nodes/1", "release", json!("1 2"), "nodes[1].release: "),
        ("/nodes/1", "cpucores", json!(2), "nodes[1].cpucores: is unknown"),
        ("/nodes/1", "memory_gb", json!(null), "nodes[1].memory_gb: is missing"),
    ] {
        let problems = read(&with(path, field, value.clone())).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.starts_with(expected)),
            "{path} {field} {value}: {problems:?}"
        );
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let mut document = with("/nodes/0", "cpu_cores", json!(0));
    document["nodes"][1]["region"] = json!(7);
    document["nodes"][1]["extra"] = json!({});
    assert_eq!(read(&document).unwrap_err().len(), 3);
    assert_eq!(read(&json!([1])).unwrap_err(), [": an object is needed"]);
}

#[test]
fn fields_without_a_meaning_are_refused() {
    let mut document = deployment(vec![node("a")]);
    document["deployment_type"] = json!("blue_green");
    assert!(read(&document).is_ok());
    document["max_unavailable"] = json!(1);
    document["canary_nodes"] = json!(1);
    assert_eq!(read(&document).unwrap_err().len(), 1, "the first without a meaning is said");
    document["deployment_type"] = json!("rolling");
    assert_eq!(read(&document).unwrap_err(), ["canary_nodes: has no meaning in rolling"]);
}
