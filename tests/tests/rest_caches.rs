//! Caches created, shown, configured and removed over REST, on real nodes in a lab: a node that started anew
//! is given its caches again, and control's death changes nothing.

use std::time::Duration;

use nautilus_tests::lab::{RunId, left_behind, status};
use nautilus_tests::rest::RestAnswer;
use nautilus_tests::rest_site::RestSite;
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 11_300;

struct Bench {
    site: RestSite,
}

impl Bench {
    fn start(run: RunId, nodes: usize) -> Self {
        Self { site: RestSite::start(run, nodes, Duration::from_secs(15)) }
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &Value) -> RestAnswer {
        let mut headers: Vec<String> = headers.iter().map(|one| (*one).to_owned()).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            headers.push("Content-Type: application/json".into());
        }
        let path = format!("/api/v1/edge/cache/{path}");
        self.site.client.ask(method, &path, &headers, body.as_bytes()).unwrap()
    }

    fn create(&mut self, body: &Value) -> RestAnswer {
        self.ask("POST", "create", &[], body)
    }

    fn show(&mut self, id: &str) -> RestAnswer {
        self.ask("GET", id, &[], &Value::Null)
    }
}

fn refused(answer: &RestAnswer, status: u16, problem: &str, field: &str) {
    assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{}", answer.text());
    let document = answer.json();
    let fields = document["fields"].as_array().cloned().unwrap_or_default();
    let paths: Vec<&str> = fields.iter().filter_map(|one| one["path"].as_str()).collect();
    assert!(field.is_empty() || paths.contains(&field), "{field}: {}", answer.text());
}

fn wanted() -> Value {
    json!({ "cache_id": "orders", "node_id": "node1", "port": PORT, "max_memory_mb": 16 })
}

fn with(field: &str, value: Value) -> Value {
    let mut document = wanted();
    document[field] = value;
    document
}

#[test]
#[ignore = "privileged: makes network namespaces and two nodes"]
fn a_cache_is_created_shown_and_removed_and_nonsense_is_refused() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 2);
        let would = bench.ask("POST", "create?dry_run=true", &[], &wanted());
        assert_eq!((would.status, would.json()["cache_id"].as_str()), (200, Some("orders")));
        refused(&bench.show("orders"), 404, "cache-not-found", "");

        for (field, value, status, problem) in [
            ("cache_id", json!("Orders"), 400, "invalid-body"),
            ("max_memory_mb", json!(1), 400, "invalid-body"),
            ("what", json!(1), 400, "invalid-body"),
            ("region", json!("ny4"), 400, "invalid-body"),
            ("node_id", json!("node3"), 400, "invalid-body"),
            ("replication_factor", json!(3), 501, "not-available"),
            ("cache_strategy", json!("WriteBehind"), 501, "not-available"),
            ("consistency_level", json!("eventual_consistency"), 501, "not-available"),
            ("port", json!(11_211), 409, "port-taken"),
        ] {
            refused(&bench.create(&with(field, value)), status, problem, field);
        }
        refused(&bench.create(&json!([])), 400, "invalid-body", "");

        let made = bench.create(&wanted());
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.header("location"), Some("/api/v1/edge/cache/orders"));
        assert_eq!(made.json()["state"], "serving", "{}", made.text());
        assert_eq!(
            bench.site.over_tcp(PORT, b"set k 0 0 1\r\nv\r\n").as_deref(),
            Some("STORED\r\n")
        );
        let again = bench.create(&wanted());
        assert_eq!(again.status, 200, "{}", again.text());
        let other = with("max_value_bytes", json!(4_096));
        refused(&bench.create(&other), 409, "cache-exists", "cache_id");

        let item = bench.ask("GET", "orders?key=k", &[], &Value::Null);
        assert_eq!((item.status, item.body.as_slice()), (200, &b"v"[..]));
        let all = bench.ask("GET", "status", &[], &Value::Null).json();
        let rows = all["caches"].as_array().unwrap();
        let ids: Vec<_> = rows.iter().map(|row| (&row["cache_id"], &row["node_id"])).collect();
        assert_eq!(rows.len(), 3, "{ids:?}");
        assert_eq!(
            (&rows[0]["cache_id"], &rows[0]["is_managed"]),
            (&json!("orders"), &json!(true))
        );
        assert_eq!(rows[1]["is_managed"], json!(false));
        wait_until("what is counted is shown", SOON, || {
            let shown = bench.show("orders").json();
            shown["items"] == 1 && shown["hits"].as_u64().is_some()
        })
        .unwrap();

        // A configuration: as it is, and what can be changed of it.
        let shown = bench.show("orders");
        let configuration = shown.json()["configuration"].clone();
        assert_eq!(configuration["consistency_level"], "strong_consistency");
        let tag = format!("If-Match: {}", shown.header("etag").unwrap());
        refused(&bench.ask("PUT", "orders", &[], &configuration), 428, "precondition-required", "");
        let stale = bench.ask("PUT", "orders", &["If-Match: \"999\""], &configuration);
        refused(&stale, 412, "precondition-failed", "");
        let same = bench.ask("PUT", "orders", &[&tag], &configuration);
        assert_eq!((same.status, same.header("etag")), (200, shown.header("etag")));
        let larger = with("max_memory_mb", json!(32));
        refused(
            &bench.ask("PUT", "orders", &[&tag], &larger),
            409,
            "cannot-change",
            "max_memory_mb",
        );
        let renamed = with("cache_id", json!("others"));
        refused(&bench.ask("PUT", "orders", &[&tag], &renamed), 400, "invalid-body", "cache_id");
        let of_file = with("cache_id", json!("quotes"));
        refused(
            &bench.ask("PUT", "quotes", &["If-Match: *"], &of_file),
            409,
            "ambiguous-cache",
            "",
        );

        let wrong = bench.ask("DELETE", "orders", &["If-Match: \"999\""], &Value::Null);
        refused(&wrong, 412, "precondition-failed", "");
        assert_eq!(bench.ask("DELETE", "orders?dry_run=true", &[], &Value::Null).status, 204);
        assert_eq!(bench.show("orders").status, 200);
        assert_eq!(bench.ask("DELETE", "orders", &[&tag], &Value::Null).status, 204);
        refused(&bench.show("orders"), 404, "cache-not-found", "");
        refused(&bench.ask("GET", "orders?key=k", &[], &Value::Null), 404, "cache-not-found", "");
        assert_eq!(bench.site.over_tcp(PORT, b"get k\r\n"), None, "nobody listens");
        let of_file = bench.ask("DELETE", "quotes?node=node1", &[], &Value::Null);
        refused(&of_file, 409, "node-refused", "");
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_is_wanted_outlives_control_and_comes_back_with_its_node() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 1);
        assert_eq!(bench.create(&wanted()).status, 201);
        let set = b"set k 0 0 1\r\nv\r\n";
        assert_eq!(bench.site.over_tcp(PORT, set).as_deref(), Some("STORED\r\n"));

        // Control dies: nothing happens to the cache, and the next one knows it.
        bench.site.lab.control().unwrap().kill();
        let item = "/api/v1/edge/cache/orders?key=k";
        wait_until("control is back", SOON, || {
            bench.site.client.ask("GET", item, &[], b"").is_ok_and(|answer| answer.body == b"v")
        })
        .unwrap();
        assert_eq!(bench.show("orders").json()["is_managed"], true);

        // All of the node dies: the next one lacks the cache, and is given it, empty.
        let node = &bench.site.lab.nodes()[0];
        let all = bench.site.pids(&["front ", "active worker ", "standby worker ", "standby "]);
        assert!(all.len() >= 2, "{all:?}: {:?}", status(&node.run_dir));
        node.supervisor.kill_and_hold();
        for pid in all {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        node.supervisor.release();
        wait_until("the node has the cache again", SOON, || {
            bench.site.over_tcp(PORT, b"get k\r\n").as_deref() == Some("END\r\n")
        })
        .unwrap();
        wait_until("control says so", SOON, || bench.show("orders").json()["state"] == "serving")
            .unwrap();
        let gone = bench.site.client.ask("GET", item, &[], b"").unwrap();
        assert_eq!((gone.status, gone.problem().as_str()), (404, "key-not-found"));
        let put = bench.site.client.ask("PUT", item, &[], b"new").unwrap();
        assert_eq!(put.status, 204, "{}", put.text());

        assert_eq!(bench.ask("DELETE", "orders", &[], &Value::Null).status, 204);
        std::thread::sleep(Duration::from_secs(3));
        refused(&bench.show("orders"), 404, "cache-not-found", "");
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}
