//! Nodes of a test and a control that deploys to them.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::sync::Arc;

use nautilus_shm::control_region::ControlRegion;
use serde_json::{Value, json};

use crate::ask::Ask;
use crate::site::{Site, until};
use crate::support::{hand_out, keep_beating, region, reply};

/// A calendar of a venue in `equinix_ny4` whose session goes on whatever the day.
pub const ALWAYS_OPEN: &str = r#"
[[calendar]]
venues = ["bats"]
time_zone = "Etc/UTC"
first = "2020-01-01"
last = "2099-12-31"
weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
hours = [{ open = "00:00", close = "24:00" }]
"#;

/// Nodes `n-0`, `n-1`, ...: regions of this process that somebody hands out.
pub struct Nodes {
    pub folder: tempfile::TempDir,
    pub judge_s: u64,
    regions: Vec<Arc<ControlRegion>>,
}

impl Nodes {
    pub fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let regions = (0..count).map(|number| {
            let run_dir = folder.path().join(format!("n-{number}"));
            std::fs::create_dir(&run_dir).unwrap();
            let region = region(&format!("n-{number}"));
            keep_beating(&region);
            hand_out(&run_dir, region.clone(), || reply(1, &[]));
            region
        });
        let regions = regions.collect();
        Self { folder, judge_s: 0, regions }
    }

    pub fn region(&self, number: usize) -> &ControlRegion {
        &self.regions[number]
    }

    /// Sections of a configuration with these nodes and a store.
    pub fn config(&self) -> String {
        let folder = self.folder.path().display();
        let mut text = format!(
            "[control.store]\nfile = \"{folder}/store.redb\"\n\
             [control.deploy]\njudge_s = {0}\njudge_canary_s = {0}\n",
            self.judge_s
        );
        for number in 0..self.regions.len() {
            text += &format!(
                "[[node]]\nid = \"n-{number}\"\nrun_dir = \"{folder}/n-{number}\"\ntier = \"lab\"\n"
            );
        }
        text
    }

    /// Sections of a configuration with a file of regions and calendars of this text.
    pub fn catalogue(&self, text: &str) -> String {
        let file = self.folder.path().join("regions.toml");
        std::fs::write(&file, text).unwrap();
        format!("[control.catalogue]\nfile = \"{}\"\n", file.display())
    }

    /// A site whose control has them; `more` are lines of `[control.tls]`.
    pub fn site(&self, more: &str) -> Site {
        Site::start(&format!("{more}\n{}", self.config()))
    }

    /// A deployment of all of them.
    pub fn deployment(&self, id: &str, strategy: &str) -> Value {
        let node = |number| {
            json!({
                "node_id": format!("n-{number}"), "region": "equinix_ny4", "node_type": "lab",
                "cpu_cores": 1, "memory_gb": 1, "target_latency_us": 1000,
                "max_orders_per_second": 1000, "kernel_bypass": true, "cpu_isolation": false,
                "numa_optimization": false,
            })
        };
        let nodes: Vec<Value> = (0..self.regions.len()).map(node).collect();
        json!({ "deployment_id": id, "deployment_type": strategy, "nodes": nodes })
    }

    /// An operation once it is over.
    pub fn end(&self, socket: &Ask, operation_id: &str) -> Value {
        until("the end of the operation", || {
            let document = socket.get(&format!("/api/v1/edge/operations/{operation_id}")).1;
            (document["is_over"] == true).then_some(document)
        })
    }
}
