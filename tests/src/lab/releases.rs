//! Releases that a lab's nodes may be given, and what asks a control to give them.
//!
//! ```text
//!   this build --> FOLDER/releases/NAME/    <--named by--  EdgeDeploymentConfig  --POST nodes/deploy--> control
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nautilus_dataplane::supervisor::releases::known_name;
use serde_json::{Value, json};

use super::{LabError, at};

/// Programs of a release.
const PROGRAMS: [&str; 4] =
    ["nautilus-supervisor", "nautilus-worker", "nautilus-front", "nautilus-capture"];

/// The region in which a lab's nodes are deployed: any of the catalogue.
const REGION: &str = "equinix_ny4";

/// Of so many nodes two change side by side. Too low: a bad release is on many nodes before the first of them has
/// been measured; too high: a roll takes a period of measuring for each few.
const NODES_FOR_TWO: usize = 5;

/// A budget that no machine misses: a lab shows that things work, not how fast.
const LATENCY_US_MAX: u64 = 1_000_000;

/// Orders in which nodes may change, as a control calls them.
pub const STRATEGIES: [&str; 4] = ["rolling", "canary", "blue_green", "all_at_once"];

/// Those that have some nodes out of service at a time.
const IN_PLACE: [&str; 2] = ["rolling", "canary"];

/// A name of a release, as a supervisor takes it.
pub fn release_name(text: &str) -> Result<String, String> {
    match known_name(text) {
        Ok(Some(name)) => Ok(name.to_owned()),
        Ok(None) => Err(format!("{text} is what nodes are started with, no release")),
        Err(error) => Err(error.to_string()),
    }
}

/// That there is a release of this name.
pub fn find_release(releases: &Path, name: &str) -> Result<(), LabError> {
    let release = releases.join(name);
    at(&release, release.metadata()).map(drop)
}

/// Lets every user look into a folder or run a program: workers have users of their own.
pub fn open_to_all(path: &Path) -> Result<(), LabError> {
    at(path, std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
}

/// Makes a release of the programs in `from`, whole or not at all; one of that name is an error, since nodes may run
/// it.
pub fn add_release(releases: &Path, name: &str, from: &Path) -> Result<PathBuf, LabError> {
    let release = releases.join(name);
    at(&release, std::fs::create_dir(&release))?;
    fill(&release, from).inspect_err(|_| drop(std::fs::remove_dir_all(&release)))?;
    Ok(release)
}

fn fill(release: &Path, from: &Path) -> Result<(), LabError> {
    open_to_all(release)?;
    for program in PROGRAMS {
        let (from, to) = (from.join(program), release.join(program));
        // The same file where that can be: a release is several megabytes.
        if std::fs::hard_link(&from, &to).is_err() {
            at(&from, std::fs::copy(&from, &to))?;
        }
        open_to_all(&to)?;
    }
    Ok(())
}

/// An `EdgeDeploymentConfig` of a lab's nodes.
pub fn deployment<'a>(
    id: &str,
    strategy: &str,
    nodes: impl Iterator<Item = &'a str>,
    release: &str,
    replaces: Option<&str>,
) -> Value {
    let node = |node_id| {
        json!({
            "node_id": node_id, "region": REGION, "node_type": "lab", "cpu_cores": 1, "memory_gb": 1,
            "target_latency_us": LATENCY_US_MAX, "max_orders_per_second": 1, "kernel_bypass": true,
            "cpu_isolation": false, "numa_optimization": false, "release": release,
        })
    };
    let nodes: Vec<Value> = nodes.map(node).collect();
    let mut document = json!({ "deployment_id": id, "deployment_type": strategy, "nodes": nodes });
    if IN_PLACE.contains(&strategy) {
        document["max_unavailable"] = json!((2 * nodes.len() / NODES_FOR_TWO).max(1));
    }
    if let Some(before) = replaces {
        document["replaces"] = json!(before);
    }
    document
}

#[cfg(test)]
mod tests {
    use nautilus_control::catalogue::Catalogue;
    use nautilus_control::deploy::{DeploymentStrategy, EdgeDeploymentConfig};

    use super::*;

    #[test]
    fn a_release_is_one_folder_with_all_programs_under_a_name_that_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let (releases, from) = (folder.path().join("releases"), folder.path().join("from"));
        for made in [&releases, &from] {
            std::fs::create_dir(made).unwrap();
        }
        for name in ["", ".", "..", "../r1", "/r1", "a/b", "-r", "R1", "@host", &"r".repeat(64)] {
            assert!(release_name(name).is_err(), "{name:?}");
        }
        assert_eq!(release_name("r1.2_b-3"), Ok("r1.2_b-3".into()));

        // Not even half of one that lacks a program.
        for program in &PROGRAMS[1..] {
            std::fs::write(from.join(program), program).unwrap();
        }
        let error = add_release(&releases, "r1", &from).unwrap_err().to_string();
        assert!(error.contains(PROGRAMS[0]), "{error}");
        let error = find_release(&releases, "r1").unwrap_err().to_string();
        assert!(error.contains("releases/r1: No such file"), "{error}");

        std::fs::write(from.join(PROGRAMS[0]), "it is there now").unwrap();
        let made = add_release(&releases, "r1", &from).unwrap();
        find_release(&releases, "r1").unwrap();
        for path in PROGRAMS.map(|program| made.join(program)).iter().chain([&made]) {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{}", path.display());
        }
        assert!(add_release(&releases, "r1", &from).is_err(), "nodes may run it");
        let program = std::fs::read_to_string(made.join(PROGRAMS[0])).unwrap();
        assert_eq!(program, "it is there now");
    }

    #[test]
    fn two_nodes_in_five_change_side_by_side_and_one_at_least() {
        for (nodes, expected) in [(1, 1), (3, 1), (5, 2), (10, 4)] {
            let names: Vec<String> = (0..nodes).map(|number| format!("node{number}")).collect();
            let names = names.iter().map(String::as_str);
            let document = deployment("one", "rolling", names, "r1", None);
            assert_eq!(document["max_unavailable"], expected, "{nodes}");
        }
    }

    #[test]
    fn a_control_takes_every_deployment() {
        let known = DeploymentStrategy::ALL.iter().map(|strategy| strategy.name());
        assert!(known.eq(STRATEGIES));
        for strategy in STRATEGIES {
            for replaces in [None, Some("before")] {
                let nodes = ["node1", "node2", "node3"].into_iter();
                let document = deployment("one", strategy, nodes, "r1", replaces);
                let config = EdgeDeploymentConfig::from_json(&document, Catalogue::built_in());
                let config = config.unwrap_or_else(|error| panic!("{strategy}: {error}"));
                assert_eq!(config.deployment_type.name(), strategy);
                assert_eq!(config.replaces.as_deref(), replaces);
                let ids = config.nodes.iter().map(|node| node.node_id.as_str());
                assert!(ids.eq(["node1", "node2", "node3"]));
                assert!(config.nodes.iter().all(|node| node.release.as_deref() == Some("r1")));
            }
        }
    }
}
