//! Nodes that order something of their host, deployed by the real daemon over real supervisors: refused with the
//! doctor's reasons where the host is not so, and brought to serve where it is.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/site.rs"]
mod site;
#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/trees.rs"]
mod trees;

use std::path::Path;

use ask::Ask;
use nautilus_control::host::value::{core_list, core_list_text};
use serde_json::{Value, json};
use site::{Site, until};
use supervised::{Node, program};
use trees::write;

const DEPLOY: &str = "/api/v1/edge/nodes/deploy?force=true";

/// A daemon over one node.
fn site(node: &Node, id: &str) -> Site {
    let at = node.folder.path().display();
    Site::start(&format!(
        "[control.store]\nfile = \"{at}/store.redb\"\n[control.deploy]\njudge_s = 0\n\
         [[node]]\nid = \"{id}\"\nrun_dir = \"{at}/run\"\ntier = \"lab\"\n"
    ))
}

fn deployment(id: &str) -> Value {
    json!({
        "deployment_id": "one", "deployment_type": "rolling",
        "nodes": [{
            "node_id": id, "region": "equinix_ny4", "node_type": "lab", "cpu_cores": 2,
            "memory_gb": 1, "target_latency_us": 1000, "max_orders_per_second": 1000,
            "kernel_bypass": false, "cpu_isolation": true, "numa_optimization": true,
        }],
    })
}

/// Fields of a refusal, with its reasons.
fn refused(answer: (u16, Value)) -> Vec<(String, String)> {
    let (status, problem) = answer;
    let kind = problem["type"].as_str().unwrap_or_default();
    assert_eq!((status, kind), (422, "urn:nautilus:problem:host-unfit"), "{problem}");
    let text = |field: &Value, name: &str| field[name].as_str().unwrap().to_owned();
    let fields = problem["fields"].as_array().unwrap();
    fields.iter().map(|field| (text(field, "path"), text(field, "reason"))).collect()
}

fn operation_end(socket: &Ask, operation_id: &Value) -> Value {
    let path = format!("/api/v1/edge/operations/{}", operation_id.as_str().unwrap());
    until("the end of the operation", || {
        let document = socket.get(&path).1;
        (document["is_over"] == true).then_some(document)
    })
}

fn wanted(socket: &Ask) -> Value {
    socket.get("/api/v1/edge/deployments").1["deployments"].clone()
}

#[test]
fn a_host_that_is_not_isolated_is_refused_with_its_reasons_and_left_as_it_is() {
    let Some(program) = program() else { return };
    let isolated = std::fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap();
    if !isolated.trim().is_empty() {
        println!("SKIPPED: this host has isolated cores: {}", isolated.trim());
        return;
    }
    let node = Node::start(&program, "shared", None, "[supervisor]\nstart = \"parked\"");
    let site = site(&node, "shared");
    let socket = Ask::of(&site);
    let body = deployment("shared");
    for path in [format!("{DEPLOY}&dry_run=true"), DEPLOY.to_owned()] {
        let fields = refused(socket.post(&path, &body));
        for (path, reason) in &fields {
            println!("{path}: {reason}");
        }
        let isolation = fields.iter().find(|(path, _)| path == "nodes[0].cpu_isolation");
        let (_, reason) = isolation.expect("isolation is what is missing");
        assert!(reason.contains("cores_isolated is nothing, wanted all worker cores"), "{reason}");
        assert!(reason.contains("boot parameter isolcpus="), "{reason}");
    }
    assert_eq!(socket.get("/api/v1/edge/operations").1["operations"], json!([]), "none was taken");
    // The tier is the doctor's word for word.
    let mut ultra = body.clone();
    let spec = &mut ultra["nodes"][0];
    (spec["node_type"], spec["kernel_bypass"]) = (json!("ultra_edge"), json!(true));
    (spec["target_latency_us"], spec["max_orders_per_second"]) = (json!(90), json!(100_000));
    let (_, problem) = socket.post(DEPLOY, &ultra);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`nautilus host init` would change"), "{detail}");
    let fields = refused(socket.post(DEPLOY, &ultra));
    let of = |path: &str| fields.iter().filter(|(found, _)| found == path).count();
    assert!(of("nodes[0].node_type") > 5, "{fields:?}");
    assert_eq!((of("nodes[0].kernel_bypass"), of("nodes[0].cpu_isolation")), (1, 1), "{fields:?}");
    // What it does not order is no reason.
    let mut plain = body;
    plain["nodes"][0]["cpu_isolation"] = json!(false);
    let (status, document) = socket.post(DEPLOY, &plain);
    assert_eq!(status, 202, "{document}");
    let end = operation_end(&socket, &document["operation_id"]);
    assert_eq!(end["phase"], "done", "{end}");
}

/// Makes of a recorded machine one whose isolated core is the worker's on this one.
fn isolate(tree: &Path, core: u32) {
    write(tree, "sys/devices/system/cpu/isolated", &format!("{core}\n"));
    write(tree, "sys/devices/system/cpu/online", &format!("0-{}\n", core.max(3)));
    write(tree, "proc/meminfo", "MemTotal: 1048576 kB\n");
}

/// The last core that this process may use, which the supervisor chooses too.
fn last_core() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let cores = core_list(list.trim()).unwrap();
    println!("this process may use {}", core_list_text(&cores));
    *cores.last().unwrap()
}

#[test]
fn a_host_that_is_so_serves_and_one_that_no_longer_is_shows_as_drift() {
    let Some(program) = program() else { return };
    let more =
        "[supervisor]\nstart = \"parked\"\n[host]\nroot = \"{at}/tree\"\nstate = \"{at}/state\"";
    let node = Node::start(&program, "kept", Some("guest_virtio_queues"), more);
    isolate(&node.tree(), last_core());
    let site = site(&node, "kept");
    let socket = Ask::of(&site);
    let body = deployment("kept");
    let mut greedy = body.clone();
    greedy["nodes"][0]["memory_gb"] = json!(2);
    let fields = refused(socket.post(DEPLOY, &greedy));
    assert_eq!(
        fields.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["nodes[0].memory_gb"]
    );

    let (status, document) = socket.post(DEPLOY, &body);
    assert_eq!(status, 202, "{document}");
    let end = operation_end(&socket, &document["operation_id"]);
    assert_eq!(end["phase"], "done", "{end}");
    assert_eq!(wanted(&socket).as_array().unwrap().len(), 1);
    let drift = || socket.get("/api/v1/edge/nodes/status").1["drift"].clone();
    assert_eq!(drift(), json!([]));

    // Somebody starts the host without its boot parameter.
    write(&node.tree(), "sys/devices/system/cpu/isolated", "\n");
    let gone = until("drift tells of it", || {
        let drift = drift();
        (drift != json!([])).then_some(drift)
    });
    println!("{gone}");
    assert_eq!((&gone[0]["kind"], &gone[0]["wanted"]), (&json!("host"), &json!("cpu_isolation")));
    assert!(gone[0]["reason"].as_str().unwrap().contains("cores_isolated is nothing"), "{gone}");

    // A node that is drained does not come back to it, and its operation says why.
    let drained = socket.post("/api/v1/edge/nodes/kept/drain?force=true", &json!({})).1;
    assert_eq!(operation_end(&socket, &drained["operation_id"])["phase"], "done");
    let resumed = socket.post("/api/v1/edge/nodes/kept/resume?force=true", &json!({})).1;
    let end = operation_end(&socket, &resumed["operation_id"]);
    assert_eq!(end["phase"], "rolled_back", "{end}");
    let reason = end["reason"].as_str().unwrap();
    println!("{reason}");
    assert!(reason.starts_with("kept.tune: kept: its host is not what is ordered"), "{reason}");
    assert!(reason.contains("cpu_isolation: cores_isolated is nothing"), "{reason}");
    assert!(reason.contains("`nautilus host init --tier lab` would change 0 of these"), "{reason}");
}
