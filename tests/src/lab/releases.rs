//! Releases that a lab's nodes may be given, and what asks a control to give them.
//!
//! ```text
//!   this build --> FOLDER/releases/NAME/    <--named by--  EdgeDeploymentConfig  --POST nodes/deploy--> control
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{LabError, at};

/// Programs of a release.
const PROGRAMS: [&str; 4] =
    ["nautilus-supervisor", "nautilus-worker", "nautilus-front", "nautilus-capture"];

/// The region in which a lab's nodes are deployed: any of the catalogue.
const REGION: &str = "equinix_ny4";

/// Nodes that change side by side.
const UNAVAILABLE_MAX: u64 = 2;

/// A budget that no machine misses: a lab shows that things work, not how fast.
const LATENCY_US_MAX: u64 = 1_000_000;

/// Lets every user look into a folder or run a program: workers have users of their own.
pub fn open_to_all(path: &Path) -> Result<(), LabError> {
    at(path, std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
}

/// Makes a release of the programs in `from`; one of that name is an error, since nodes may run it.
pub fn add_release(releases: &Path, name: &str, from: &Path) -> Result<PathBuf, LabError> {
    let release = releases.join(name);
    at(&release, std::fs::create_dir(&release))?;
    open_to_all(&release)?;
    for program in PROGRAMS {
        let (from, to) = (from.join(program), release.join(program));
        // The same file where that can be: a release is several megabytes.
        if std::fs::hard_link(&from, &to).is_err() {
            at(&from, std::fs::copy(&from, &to))?;
        }
        open_to_all(&to)?;
    }
    Ok(release)
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
    if strategy != "all_at_once" {
        document["max_unavailable"] = json!(UNAVAILABLE_MAX.min(nodes.len() as u64));
    }
    if let Some(before) = replaces {
        document["replaces"] = json!(before);
    }
    document
}
