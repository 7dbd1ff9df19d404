//! The daemon and the command as an operator meets them: real processes, real sockets.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::{hand_out, keep_beating, region, reply};

struct Daemon {
    child: Child,
    address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(run_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nautilus-control"))
            .args(["--listen", "127.0.0.1:0", "--node"])
            .arg(run_dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address }
    }

    /// Status, content type and body.
    fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        (status, kind.unwrap_or_default().to_owned(), body.to_owned())
    }

    fn wait_ready(&self) {
        for _ in 0..200 {
            if self.ask("GET", "/readyz").0 == 200 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("never ready: {:?}", self.ask("GET", "/readyz"));
    }
}

fn serving(folder: &Path) -> Daemon {
    let region = region("node-1");
    keep_beating(&region);
    hand_out(folder, region, || reply(1, &[]));
    let daemon = Daemon::start(folder);
    daemon.wait_ready();
    daemon
}

#[test]
fn documents_and_errors_are_what_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = serving(folder.path());
    assert_eq!(daemon.ask("GET", "/livez").0, 200);

    let (status, kind, body) = daemon.ask("GET", "/api/v1/edge/nodes/status");
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    let document: Value = serde_json::from_str(&body).unwrap();
    let node = &document["nodes"][0];
    assert_eq!((&node["node_id"], &node["state"]), (&"node-1".into(), &"active".into()));
    assert_eq!(node["workers"][0]["state"], "active");
    assert_eq!(node["interfaces"][0]["xdp_mode"], "native");
    let cache = &node["caches"][1];
    assert_eq!((&cache["cache_id"], &cache["port"]), (&"orders".into(), &11_214.into()));
    assert_eq!((&cache["hits"], &cache["misses"]), (&133.into(), &10.into()));
    assert_eq!((&cache["items"], &cache["state"]), (&5.into(), &"serving".into()));

    let (status, _, body) = daemon.ask("GET", "/api/v1/edge/nodes/node-1/health");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &document["health"]), (200, &"healthy".into()), "{body}");

    for (method, path, expected, kind) in [
        ("GET", "/api/v1/edge/nodes/node-9/health", 404, "node-not-found"),
        ("GET", "/api/v1/edge/nodes/Node/health", 400, "invalid-id"),
        ("POST", "/api/v1/edge/nodes/deploy", 501, "not-available"),
        // What comes is no connection.
        ("PUT", "/api/v1/edge/cache/quotes?key=k", 503, "not-done"),
        ("GET", "/api/v1/edge/cache/quotes?key=k", 503, "cache-detached"),
        ("GET", "/api/v1/edge/monitoring/dashboards/edge-overview", 501, "not-available"),
        ("POST", "/api/v1/edge/failover/manual/node-1", 501, "not-available"),
        ("DELETE", "/api/v1/edge/nodes/deploy", 405, "wrong-method"),
        ("POST", "/metrics", 405, "wrong-method"),
        ("GET", "/nothing", 404, "not-found"),
    ] {
        let (status, content, body) = daemon.ask(method, path);
        assert_eq!((status, content.as_str()), (expected, "application/problem+json"), "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["type"], format!("urn:nautilus:problem:{kind}"));
        assert_eq!(problem["status"], expected);
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{body}");
    }
}

#[test]
fn metrics_are_clean_by_promtools_own_judgement() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = serving(folder.path());
    let (status, kind, text) = daemon.ask("GET", "/metrics");
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "nautilus_node_attached{node=\"node-1\"} 1",
        "nautilus_worker_rx_packets_total{node=\"node-1\",worker=\"0\"} 1000",
        "nautilus_worker_rx_dropped_packets_total{node=\"node-1\",worker=\"0\",reason=\"udp_checksum\"} 3",
        "nautilus_cache_hits_total{node=\"node-1\",worker=\"0\",cache=\"quotes\"} 30",
        "nautilus_cache_hits_total{node=\"node-1\",worker=\"0\",cache=\"orders\"} 33",
        "nautilus_cache_requests_total{node=\"node-1\",worker=\"0\",cache=\"orders\",verb=\"set\"} 7",
        "nautilus_front_hits_total{node=\"node-1\",cache=\"orders\"} 100",
        "nautilus_cache_serving{node=\"node-1\",cache=\"quotes\"} 1",
        "nautilus_worker_busy_seconds_total{node=\"node-1\",worker=\"0\"} 0.25",
        "nautilus_worker_xdp_to_tx_seconds_bucket{node=\"node-1\",worker=\"0\",le=\"0.000005\"} 1",
        "nautilus_worker_xdp_to_tx_seconds_bucket{node=\"node-1\",worker=\"0\",le=\"+Inf\"} 3",
        "nautilus_worker_xdp_to_tx_seconds_count{node=\"node-1\",worker=\"0\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn nautilus(arguments: &[&str], run_dir: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
    command.args(arguments).env_remove("NAUTILUS_CONTROL_CONFIG");
    if let Some(run_dir) = run_dir {
        command.arg("--node").arg(run_dir);
    }
    command.output().unwrap()
}

#[test]
fn the_command_needs_no_daemon_and_its_exit_codes_mean_something() {
    let folder = tempfile::tempdir().unwrap();
    let output = nautilus(&["status"], Some(folder.path()));
    assert_eq!(output.status.code(), Some(3), "{output:?}");

    let region = region("node-1");
    keep_beating(&region);
    hand_out(folder.path(), region.clone(), || reply(1, &[]));
    let output = nautilus(&["status"], Some(folder.path()));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text.contains("node-1") && text.contains("eth0:native"), "{text}");
    assert!(text.contains("orders  serving  11214  64"), "{text}");
    let output = nautilus(&["top", "--once", "--json", "--interval-ms", "60"], Some(folder.path()));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &line["node_id"]), (Some(0), &"node-1".into()));
    assert!(line["interval_s"].as_f64().unwrap() >= 0.06, "{line}");
    let output = nautilus(&["top", "--once", "--interval-ms", "60"], Some(folder.path()));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("udp_checksum") && text.contains("core 1 worker 0"), "{text}");
    assert!(text.contains("node-1 cache orders 0 lookups/s, hits -, 5 items"), "{text}");

    region.supervisor().set_serving(false);
    assert_eq!(nautilus(&["status"], Some(folder.path())).status.code(), Some(1));

    let file = folder.path().join("control.toml");
    std::fs::write(&file, "[[node]]\nrundir = \"/x\"\n").unwrap();
    let output = nautilus(&["status", "--config", file.to_str().unwrap()], None);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text.contains("unknown key node[0].rundir"), "{text}");
    assert_eq!(nautilus(&["status", "--strange"], None).status.code(), Some(2));
}
