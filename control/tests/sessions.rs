//! Market sessions refuse deployments: by a clock that the test turns, and by the real daemon over calendars that do
//! not depend on the day.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/site.rs"]
mod site;
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ask::Ask;
use nautilus_control::catalogue::Catalogue;
use nautilus_control::config::Config;
use nautilus_control::deploy::planner::PlanError;
use nautilus_control::deploy::runner::Deployments;
use nautilus_control::deploy::{EdgeDeploymentConfig, ManagerError, OperationKind};
use nodes::{ALWAYS_OPEN, Nodes};
use serde_json::{Value, json};
use site::until;

const S: u64 = 1_000_000_000;

/// Monday 2026-11-30 in New York: open at 14:30 UTC, closed at 21:00.
const OPEN_NS: u64 = 1_796_049_000 * S;
const CLOSE_NS: u64 = 1_796_072_400 * S;

static NOW_NS: AtomicU64 = AtomicU64::new(0);

fn set(now_ns: u64) {
    // The thread of the test alone asks.
    NOW_NS.store(now_ns, Ordering::Relaxed);
}

fn deployments(nodes: &Nodes, more: &str) -> Arc<Deployments> {
    let text = nodes.config().replace("[control.deploy]\n", &format!("[control.deploy]\n{more}"));
    let config = Config::parse(&PathBuf::from("control.toml"), &text).unwrap();
    let clock = || NOW_NS.load(Ordering::Relaxed);
    Deployments::open(&config.deploy, &config.nodes, clock, |_| ()).unwrap().unwrap()
}

/// What the regions say that a refusal names.
fn refusal<T>(answer: Result<T, ManagerError>) -> String {
    match answer.map(|_| ()).unwrap_err() {
        ManagerError::Plan(PlanError::Session { regions }) => regions,
        other => panic!("{other}"),
    }
}

#[test]
fn a_plan_is_refused_while_a_session_is_open_and_taken_while_it_is_closed() {
    let nodes = Nodes::new(1);
    let deployments = deployments(&nodes, "");
    let config = |id: &str| {
        let document = nodes.deployment(id, "rolling");
        EdgeDeploymentConfig::from_json(&document, Catalogue::built_in()).unwrap()
    };
    let one = config("one");
    let dry_run = || deployments.dry_run(&one, &deployments.circumstances(false));
    let deploy = |is_forced| deployments.deploy(&one, None, is_forced, None);
    let margin_ns = 900 * S;
    for (now_ns, reason) in [
        (OPEN_NS - margin_ns + 1, "opens at 2026-11-30T14:30:00Z"),
        (OPEN_NS - 10 * S, "opens at 2026-11-30T14:30:00Z"),
        (OPEN_NS, "is open until 2026-11-30T21:00:00Z"),
        (CLOSE_NS - 1, "is open until 2026-11-30T21:00:00Z"),
        (CLOSE_NS + margin_ns - 1, "closed at 2026-11-30T21:00:00Z"),
    ] {
        set(now_ns);
        for said in [refusal(dry_run()), refusal(deploy(false))] {
            assert!(said.starts_with("equinix_ny4 (open: ") && said.contains(reason), "{said}");
        }
    }
    // What a calendar does not cover.
    set(0);
    assert!(refusal(dry_run()).starts_with("equinix_ny4 (unknown: "), "{}", refusal(dry_run()));

    let end = |operation_id: &str| {
        until("the end of the operation", || {
            let known = deployments.look(|manager| manager.operations()).unwrap();
            let found = known.into_iter().find(|known| known.operation_id == operation_id)?;
            found.end.is_some().then_some(found)
        })
    };
    let drain = || {
        let how = deployments.circumstances(false);
        deployments.ask(|manager| manager.drain("n-0", &how))
    };
    set(OPEN_NS - margin_ns);
    assert!(dry_run().unwrap().is_some());
    assert_eq!(deploy(false).unwrap().unwrap().operation.operation_id, "op-1");
    assert!(end("op-1").is_done());
    set(OPEN_NS);
    // The same wish again is no new plan; another is.
    assert_eq!(deploy(false).unwrap().unwrap().operation.operation_id, "op-1");
    assert!(refusal(drain()).contains("is open until"));
    set(CLOSE_NS + margin_ns);
    assert_eq!(drain().unwrap().operation.operation_id, "op-2");
    assert!(end("op-2").is_done());
    set(OPEN_NS);
    let resume = |is_forced| {
        let how = deployments.circumstances(is_forced);
        deployments.ask(|m| m.take(OperationKind::Resume, "n-0", &how))
    };
    assert!(refusal(resume(false)).contains("is open until"));
    resume(true).unwrap();
    assert!(end("op-3").is_done());
}

/// And one that never trades.
const NEVER_OPEN: &str = "[[calendar]]\nvenues = [\"xoff\"]\nlike = \"bats\"\nweekdays = []\n";

fn region(id: &str, venues: &str) -> String {
    format!(
        "[[region]]\nid = \"{id}\"\nname = \"X\"\nkind = \"colocation\"\nprovider = \"p\"\n\
         latitude_deg = 1\nlongitude_deg = 2\naccuracy_km = 9\ntime_zone = \"Etc/UTC\"\nvenues = [{venues}]\n"
    )
}

#[test]
fn the_daemon_says_which_venue_and_until_when() {
    let nodes = Nodes::new(1);
    let regions = [
        ("always", "\"xoff\", \"bats\""),
        ("never", "\"xoff\""),
        ("unknown", "\"xoff\", \"xxxx\""),
        ("cloud", ""),
    ];
    let text: String = regions.iter().map(|(id, venues)| region(id, venues)).collect();
    let site = nodes.site(&nodes.catalogue(&format!("{text}{ALWAYS_OPEN}{NEVER_OPEN}")));
    let socket = Ask::of(&site);
    let deployment = |region: &str| {
        let mut document = nodes.deployment("one", "rolling");
        document["nodes"][0]["region"] = json!(region);
        document
    };
    const DEPLOY: &str = "/api/v1/edge/nodes/deploy";
    let end = "2100-01-01T00:00:00Z";
    let open = format!("bats is open until {end}");
    let closed = format!("xoff is closed until {end}");
    let unknown = "xxxx has no calendar".to_owned();
    for (region, state, reason) in [("always", "open", &open), ("unknown", "unknown", &unknown)] {
        for query in ["", "?dry_run=true"] {
            let (status, problem) = socket.post(&format!("{DEPLOY}{query}"), &deployment(region));
            assert_eq!(
                (status, &problem["type"]),
                (409, &json!("urn:nautilus:problem:session-open"))
            );
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("in {region} ({state}: {reason}): wait")), "{detail}");
        }
    }
    let tried = |region: &str, query: &str| -> Value {
        let (status, dry) =
            socket.post(&format!("{DEPLOY}?dry_run=true{query}"), &deployment(region));
        assert_eq!(status, 200, "{dry}");
        dry
    };
    for (region, query, state, reason) in [
        ("always", "&force=true", "open", open.as_str()),
        ("never", "", "closed", closed.as_str()),
        ("cloud", "", "closed", "it has no venues"),
    ] {
        let dry = tried(region, query);
        let expected = json!({ region: { "state": state, "reason": reason } });
        assert_eq!(dry["sessions"], expected, "{dry}");
        let line = format!("session of {region}: {state}, {reason}\n");
        assert!(dry["text"].as_str().unwrap().ends_with(&line), "{dry}");
    }
    let (status, taken) = socket.post(DEPLOY, &deployment("never"));
    assert_eq!(status, 202, "{taken}");
    assert_eq!(nodes.end(&socket, "op-1")["phase"], "done");
}
