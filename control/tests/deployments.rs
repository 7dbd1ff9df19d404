//! Deployments over REST: the real daemon with a real store, over nodes that are regions of this process.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/site.rs"]
mod site;
mod support;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use ask::{Ask, Stream};
use nautilus_control::roles::Role;
use nodes::Nodes;
use serde_json::{Value, json};
use site::{DAY, until};

const DEPLOY: &str = "/api/v1/edge/nodes/deploy?force=true";

fn field_paths(problem: &Value) -> Vec<String> {
    let fields = problem["fields"].as_array().unwrap_or_else(|| panic!("{problem}"));
    fields.iter().map(|field| field["path"].as_str().unwrap().to_owned()).collect()
}

fn kind(problem: &Value) -> &str {
    problem["type"].as_str().unwrap().trim_start_matches("urn:nautilus:problem:")
}

#[test]
fn a_deployment_is_tried_taken_once_and_seen() {
    let nodes = Nodes::new(2);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let body = nodes.deployment("one", "rolling");

    let (status, dry) = socket.post(&format!("{DEPLOY}&dry_run=true"), &body);
    assert_eq!(status, 200, "{dry}");
    assert!(dry["text"].as_str().unwrap().contains("provision  n-0"), "{dry}");
    assert_eq!(dry["plan"]["steps"].as_array().unwrap().len(), 10);
    assert_eq!(socket.get("/api/v1/edge/operations").1["operations"], json!([]), "only tried");

    let plan = json!({ "plan_id": dry["plan_id"] });
    let taken = socket.whole("POST", DEPLOY, &[], plan.to_string().as_bytes());
    assert_eq!(taken.status, 202, "{}", taken.text());
    assert_eq!(taken.header("location"), Some("/api/v1/edge/operations/op-1"));
    assert_eq!(taken.json()["kind"], "deploy");
    // The same again, by plan and by body, is the same operation, while it goes and after.
    for again in [&plan, &body] {
        let (status, document) = socket.post(DEPLOY, again);
        assert_eq!(document["operation_id"], "op-1", "{status} {document}");
    }
    let done = nodes.end(&socket, "op-1");
    assert_eq!((&done["phase"], &done["steps_done"]), (&json!("done"), &json!(10)), "{done}");
    let (status, document) = socket.post(DEPLOY, &body);
    assert_eq!((status, &document["operation_id"]), (200, &json!("op-1")), "{document}");

    let (status, problem) = socket.post(DEPLOY, &nodes.deployment("one", "all_at_once"));
    assert_eq!((status, kind(&problem)), (409, "deployment-exists"), "{problem}");
    assert_eq!(field_paths(&problem), ["deployment_id"]);
    let (status, problem) = socket.post(DEPLOY, &nodes.deployment("two", "rolling"));
    assert_eq!((status, kind(&problem)), (409, "node-taken"), "{problem}");

    let status = socket.get("/api/v1/edge/nodes/status").1;
    assert_eq!(status["drift"], json!([]), "{status}");
    assert_eq!(status["nodes"][0]["deployment_id"], "one");
    assert_eq!(status["nodes"][0]["lifecycle"], "active");
    let (_, wanted) = socket.get("/api/v1/edge/deployments/one");
    assert_eq!(wanted["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(socket.get("/api/v1/edge/deployments/two").0, 404);

    // On record: what was asked of whom, and by which operation.
    let records = site.records();
    let said = "status 202 op-1: deploy one";
    assert!(records.iter().any(|record| record["outcome"] == "done" && record["reason"] == said));
}

/// London's would be judged by New York's sessions.
#[test]
fn a_node_is_where_the_configuration_has_it() {
    let londoner = Nodes::new(1);
    let config = londoner.config().replace("tier = \"lab\"", "tier = \"lab\"\nregion = \"ld4\"");
    let site = site::Site::start(&config);
    let socket = Ask::of(&site);
    let (status, problem) = socket.post(DEPLOY, &londoner.deployment("one", "rolling"));
    assert_eq!((status, kind(&problem)), (422, "wrong-region"), "{problem}");
    assert_eq!(field_paths(&problem), ["nodes[0].region"]);
    let mut at_home = londoner.deployment("one", "rolling");
    at_home["nodes"][0]["region"] = json!("LD4");
    let (status, plan) = socket.post(&format!("{DEPLOY}&dry_run=true"), &at_home);
    assert_eq!(status, 200, "{plan}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let nodes = Nodes::new(1);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let mut body = nodes.deployment("one", "rolling");
    body["nodes"][0]["cpu_cores"] = json!(0);
    body["nodes"][0]["region"] = json!("atlantis");
    body["nodes"][0]["colour"] = json!("red");
    body["deployment_type"] = json!("slowly");
    let (status, problem) = socket.post(DEPLOY, &body);
    assert_eq!((status, kind(&problem)), (400, "invalid-body"), "{problem}");
    let paths: BTreeSet<String> = field_paths(&problem).into_iter().collect();
    let expected = ["deployment_type", "nodes[0].colour", "nodes[0].cpu_cores", "nodes[0].region"];
    assert_eq!(paths, expected.map(str::to_owned).into());

    let mut stranger = nodes.deployment("one", "rolling");
    stranger["nodes"][0]["node_id"] = json!("nobody");
    let (status, problem) = socket.post(DEPLOY, &stranger);
    assert_eq!((status, kind(&problem)), (422, "unknown-node"), "{problem}");
    assert_eq!(field_paths(&problem), ["nodes[0].node_id"]);

    let text = nodes.deployment("one", "rolling").to_string();
    let deploy = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = socket.whole("POST", path, headers, body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        (answer.status, kind(&answer.json()).to_owned())
    };
    let plain = [("Content-Type", "text/plain")];
    assert_eq!(deploy(DEPLOY, &plain, text.as_bytes()), (415, "wrong-media-type".into()));
    assert_eq!(deploy(DEPLOY, &[], b"{\"deployment_id\": "), (400, "invalid-body".into()));
    assert_eq!(deploy(DEPLOY, &[], b"[]"), (400, "invalid-body".into()));
    assert_eq!(deploy(DEPLOY, &[], &vec![b' '; (1 << 20) + 1]), (413, "too-large".into()));
    let plan = br#"{"plan_id": "plan-0000000000000000"}"#;
    assert_eq!(deploy(DEPLOY, &[], plan), (404, "plan-not-found".into()));
    assert_eq!(deploy(DEPLOY, &[], br#"{"plan_id": 1}"#), (400, "invalid-body".into()));
    let query = "/api/v1/edge/nodes/deploy?forse=true&dry_run=yes";
    assert_eq!(deploy(query, &[], text.as_bytes()), (400, "invalid-parameter".into()));
    let query = "/api/v1/edge/nodes/deploy?dry_run=yes";
    assert_eq!(deploy(query, &[], text.as_bytes()), (400, "invalid-parameter".into()));
    let matched = [("If-Match", "\"r1\"")];
    assert_eq!(deploy(DEPLOY, &matched, text.as_bytes()), (412, "changed".into()));

    for (method, path, allow) in
        [("PUT", "/api/v1/edge/nodes/deploy", "POST"), ("POST", "/metrics", "GET,HEAD")]
    {
        let answer = socket.whole(method, path, &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    for (path, name) in [
        ("/api/v1/edge/operations/op-9", "operation-not-found"),
        ("/api/v1/edge/operations/NO", "invalid-id"),
        ("/api/v1/edge/operations/%ff", "invalid-id"),
        ("/api/v1/edge/nodes/nobody/health", "node-not-found"),
    ] {
        assert_eq!(kind(&socket.get(path).1), name, "{path}");
    }
    for verb in ["drain", "resume", "retire"] {
        let (status, problem) =
            socket.post(&format!("/api/v1/edge/nodes/n-0/{verb}?force=true"), &json!({}));
        assert_eq!((status, kind(&problem)), (404, "node-not-found"), "{verb}");
    }
    assert_eq!(socket.get("/api/v1/edge/operations").1["operations"], json!([]));
}

#[test]
fn ids_of_requests_and_tags_of_documents_come_back() {
    let nodes = Nodes::new(1);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let ours = [("x-request-id", "trace-0123.A")];
    let answer = socket.whole("POST", DEPLOY, &ours, b"[]");
    assert_eq!(answer.header("x-request-id"), Some("trace-0123.A"));
    assert!(site.records().iter().any(|record| record["request_id"] == "trace-0123.A"));
    for strange in ["short", "with space in", "ü23456789", &"a".repeat(65)] {
        let answer = socket.whole("GET", "/livez", &[("x-request-id", strange)], b"");
        let made = answer.header("x-request-id").unwrap();
        assert!(made != strange && made.len() == 24, "{strange}: {made}");
    }
    for path in ["/api/v1/edge/operations", "/api/v1/edge/version", "/api/v1/edge/openapi.json"] {
        let first = socket.whole("GET", path, &[], b"");
        let tag = first.header("etag").unwrap_or_else(|| panic!("{path}")).to_owned();
        let again = socket.whole("GET", path, &[("If-None-Match", &tag)], b"");
        assert_eq!((again.status, again.text().as_str()), (304, ""), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        let other = socket.whole("GET", path, &[("If-None-Match", "\"x\"")], b"");
        assert_eq!(other.status, 200, "{path}");
    }
    socket.post(DEPLOY, &nodes.deployment("one", "all_at_once"));
    nodes.end(&socket, "op-1");
    let one = socket.whole("GET", "/api/v1/edge/deployments/one", &[], b"");
    let tag = one.header("etag").unwrap().to_owned();
    let mut next = nodes.deployment("two", "all_at_once");
    next["replaces"] = json!("one");
    let matched = |tag: &str| {
        let body = next.to_string();
        socket.whole("POST", DEPLOY, &[("If-Match", tag)], body.as_bytes())
    };
    let refused = matched("\"r0\"");
    assert_eq!((refused.status, kind(&refused.json())), (412, "changed"));
    // A weak tag is none of what may be changed.
    assert_eq!(matched(&format!("W/{tag}")).status, 412);
    assert_eq!(matched("r0").status, 400);
    assert_eq!(matched(&tag).status, 202);
}

#[test]
fn events_go_on_where_they_were_left() {
    let nodes = Nodes::new(2);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    socket.post(DEPLOY, &nodes.deployment("one", "all_at_once"));
    let path = "/api/v1/edge/operations/op-1/events";
    let all = Stream::open(&site, path, None).rest();
    assert_eq!(all[0].name, "operation");
    let last = all.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["is_over"]), ("operation", &json!(true)));
    let done: Vec<String> = all
        .iter()
        .filter(|event| event.name == "step" && event.data["state"] == "done")
        .map(|event| event.data["step"].as_str().unwrap().to_owned())
        .collect();
    let steps: BTreeSet<String> = last.data["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap().to_owned())
        .collect();
    // Those that were done before the stream began stand in its first event.
    let before = all[0].data["steps"].as_array().unwrap().iter();
    let before = before.filter(|step| step["state"] == "done");
    let before = before.map(|step| step["step"].as_str().unwrap().to_owned());
    assert_eq!(before.chain(done).collect::<BTreeSet<_>>(), steps);

    // From any event on the rest comes, the same.
    for (place, event) in all.iter().enumerate().filter(|(_, event)| !event.id.is_empty()) {
        let answer = Stream::open(&site, path, Some(&event.id));
        if place + 1 == all.len() {
            assert_eq!(answer.status, 204, "all was seen");
            continue;
        }
        let rest = answer.rest();
        let names = |events: &[ask::Event]| -> Vec<(String, Value)> {
            events.iter().map(|e| (e.id.clone(), e.data["step"].clone())).collect()
        };
        assert_eq!(names(&rest), names(&all[place + 1..]), "after event {}", event.id);
    }
    let whole = Stream::open(&site, path, None).rest();
    assert_eq!(whole.len(), 1, "one that is over is told in one event");
    let beyond = Stream::open(&site, path, Some("99999999")).rest();
    assert_eq!(beyond.len(), 1, "an id that never was");
}

#[test]
fn a_control_that_is_killed_goes_on_where_it_was() {
    for death in 0..8 {
        // Measured for a second, so that there is time to die.
        let mut nodes = Nodes::new(3);
        nodes.judge_s = 1;
        let mut site = nodes.site("");
        let body = nodes.deployment("one", "rolling");
        Ask::of(&site).post(DEPLOY, &body);
        {
            let mut events = Stream::open(&site, "/api/v1/edge/operations/op-1/events", None);
            for _ in 0..1 + death * 4 {
                events.next();
            }
        }
        site.kill();
        site.start_again(&[]);
        let socket = Ask::of(&site);
        // Nobody asked again: it goes on by itself.
        let done = nodes.end(&socket, "op-1");
        assert_eq!(done["phase"], "done", "death {death}: {done}");
        let status = socket.get("/api/v1/edge/nodes/status").1;
        assert_eq!(status["drift"], json!([]), "{status}");
        let (status, again) = socket.post(DEPLOY, &body);
        assert_eq!((status, &again["operation_id"]), (200, &json!("op-1")));
    }
}

#[test]
fn an_operation_is_turned_back_and_says_so() {
    let nodes = Nodes::new(1);
    nodes.region(0).supervisor().set_serving(false);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let body = nodes.deployment("one", "rolling");
    socket.post(DEPLOY, &body);
    let (status, problem) = socket.post("/api/v1/edge/nodes/n-0/drain?force=true", &json!({}));
    assert!(matches!((status, kind(&problem)), (409, "busy") | (404, _)), "{problem}");
    let (status, document) = socket.post("/api/v1/edge/operations/op-1/abort", &json!({}));
    assert!(status == 202 || kind(&document) == "operation-over", "{status} {document}");
    let end = nodes.end(&socket, "op-1");
    assert!(end["phase"].as_str().unwrap().starts_with("roll"), "{end}");
    assert!(!end["reason"].as_str().unwrap().is_empty(), "{end}");
    let (status, problem) = socket.post("/api/v1/edge/operations/op-1/abort", &json!({}));
    assert_eq!((status, kind(&problem)), (409, "operation-over"));
    assert_eq!(socket.get("/api/v1/edge/deployments").1["deployments"], json!([]));
}

#[test]
fn a_second_control_on_a_store_or_a_node_does_not_start() {
    let nodes = Nodes::new(1);
    let site = nodes.site("");
    let start = |config: &str| {
        let path = nodes.folder.path().join("second.toml");
        std::fs::write(&path, config).unwrap();
        // One that starts would never end.
        let output = Command::new("timeout")
            .args(["20", env!("CARGO_BIN_EXE_nautilus-control"), "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let listen = "[control]\nlisten = \"127.0.0.1:0\"\n";
    let (code, said) = start(&format!("{listen}{}", nodes.config()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another process has this store open"), "{said}");
    let other = nodes.config().replace("store.redb", "other.redb");
    let (code, said) = start(&format!("{listen}{other}"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another control on this host deploys to this node"), "{said}");
    assert_eq!(Ask::of(&site).get("/livez").0, 200, "and the first goes on");
}

#[test]
fn a_full_disk_is_said_and_nothing_is_half_done() {
    let nodes = Nodes::new(1);
    let mut site = nodes.site("");
    site.start_again(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    let socket = Ask::of(&site);
    let limit = |bytes: &str| {
        let pid = site.pid().to_string();
        let limit = format!("--fsize={bytes}");
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(status.unwrap().success());
    };
    // The trail has room, the store has not.
    limit("32768:");
    let body = nodes.deployment("one", "all_at_once");
    let answer = socket.whole("POST", DEPLOY, &[], body.to_string().as_bytes());
    assert_eq!((answer.status, kind(&answer.json())), (503, "store"), "{}", answer.text());
    assert!(answer.text().contains("no space left"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(socket.get("/api/v1/edge/nodes/status").0, 200, "looking goes on");
    limit("unlimited:");
    assert_eq!(socket.get("/api/v1/edge/operations").1["operations"], json!([]));
    assert_eq!(socket.post(DEPLOY, &body).0, 202, "without a restart");
    assert_eq!(nodes.end(&socket, "op-1")["phase"], "done");
}

#[test]
fn certificates_decide_over_tls_too() {
    let nodes = Nodes::new(1);
    let site = nodes.site("");
    let body = nodes.deployment("one", "all_at_once").to_string();
    for (role, expected) in [(Role::Viewer, 403), (Role::Operator, 403), (Role::Admin, 202)] {
        let certificate = site.certificate(role, "somebody", DAY);
        let mut connection = site.connect(Some(&certificate)).unwrap();
        let (status, answer) = connection.ask("POST", DEPLOY, body.as_bytes()).unwrap();
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&answer));
    }
    until("the end", || {
        let document = Ask::of(&site).get("/api/v1/edge/operations/op-1").1;
        (document["is_over"] == true).then_some(())
    });
}

/// A deployment of the first node alone.
fn only(nodes: &Nodes, id: &str) -> Value {
    let mut body = nodes.deployment(id, "all_at_once");
    body["nodes"].as_array_mut().unwrap().truncate(1);
    body
}

#[test]
fn a_dry_run_is_only_tried_and_its_plan_is_of_its_moment() {
    let mut nodes = Nodes::new(2);
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let count = || socket.get("/api/v1/edge/operations").1["operations"].as_array().unwrap().len();
    let (status, dry) = socket.post(&format!("{DEPLOY}&dry_run=true"), &only(&nodes, "one"));
    assert_eq!((status, count()), (200, 0), "{dry}");
    // The node has had a life since.
    socket.post(DEPLOY, &only(&nodes, "zero"));
    nodes.end(&socket, "op-1");
    for verb in ["drain", "retire"] {
        let path = format!("/api/v1/edge/nodes/n-0/{verb}?force=true&dry_run=true");
        let (status, dry) = socket.post(&path, &json!({}));
        assert!(status == 200 && dry["plan_id"].is_string(), "{dry}");
        let status = socket.get("/api/v1/edge/nodes/status").1;
        let mut lives = status["nodes"].as_array().unwrap().iter().map(|node| &node["lifecycle"]);
        assert!(lives.any(|life| life == "active"), "{status}");
    }
    assert_eq!(count(), 1);
    socket.post("/api/v1/edge/nodes/n-0/retire?force=true", &json!({}));
    nodes.end(&socket, "op-2");
    let (status, problem) = socket.post(DEPLOY, &json!({ "plan_id": dry["plan_id"] }));
    assert_eq!((status, kind(&problem)), (409, "plan-stale"), "{problem}");
    drop(site);

    nodes.judge_s = 60;
    let site = nodes.site("");
    let socket = Ask::of(&site);
    let (status, taken) = socket.post(DEPLOY, &only(&nodes, "one"));
    assert_eq!(status, 202, "{taken}");
    let path = format!("/api/v1/edge/operations/{}", taken["operation_id"].as_str().unwrap());
    let (status, document) = socket.post(&format!("{path}/abort?dry_run=true"), &json!({}));
    assert_eq!((status, &document["phase"]), (200, &json!("forward")), "{document}");
    assert_eq!(socket.get(&path).1["phase"], "forward");

    // So long as it takes, so many may watch, and no more.
    let events = format!("{path}/events");
    let mut streams: Vec<Stream> = (0..64).map(|_| Stream::open(&site, &events, None)).collect();
    assert!(streams.iter().all(|stream| stream.status == 200));
    let (status, problem) = socket.get(&events);
    assert_eq!((status, kind(&problem)), (503, "overloaded"), "{problem}");
    assert_eq!(socket.get("/api/v1/edge/operations").0, 200, "and all else is answered");
    streams.pop();
    until("a place", || (Stream::open(&site, &events, None).status == 200).then_some(()));
}
