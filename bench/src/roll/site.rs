//! Ten nodes that wait to be deployed, their releases, and a control that is asked by the operator's command.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::releases::{add_release, deployment, open_to_all};
use nautilus_tests::lab::{Lab, NetNs, Node, bin_dir, binary};
use serde_json::Value;

use super::steps::Steps;
use crate::ground::Ground;

/// Nodes of the site.
pub const NODES: usize = 10;

const CACHE_MEMORY_MB: u32 = 16;

/// The nodes and their control.
pub struct Site {
    // Before the ground it stands on.
    lab: Lab,
    deployed: Option<String>,
    count: u64,
    ground: Ground,
}

/// How a deployment went.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// From the request until it was over.
    pub whole: Duration,
    /// From the moment it was turned back until it was over.
    pub back: Option<Duration>,
    /// The phase it ended in.
    pub phase: String,
    /// Why it did not go forward.
    pub reason: String,
    /// What it spent the time with.
    pub steps: Steps,
}

impl Site {
    /// Starts the nodes, parked, and the control.
    pub fn start() -> anyhow::Result<Self> {
        let ground = Ground::new()?;
        let releases = ground.folder.make("releases")?;
        open_to_all(&releases)?;
        for name in ["r1", "r2", "bad"] {
            add_release(&releases, name, &bin_dir())?;
        }
        // Its workers end at once.
        let worker = releases.join("bad/nautilus-worker");
        std::fs::remove_file(&worker)?;
        std::fs::write(&worker, "#!/bin/sh\nexit 1\n")?;
        open_to_all(&worker)?;
        let mut lab = Lab::start(Arc::clone(&ground.folder), ground.run, NODES, |_, _, file| {
            file.parked = true;
            file.releases = Some(releases.clone());
            file.cache_memory_mb = CACHE_MEMORY_MB;
            // Two cores for ten workers: each sleeps when it has nothing to do.
            file.poll = "interrupt";
            Ok(())
        })?;
        lab.start_control()?;
        Ok(Self { lab, deployed: None, count: 0, ground })
    }

    /// Where the clients are.
    pub fn client(&self) -> &Arc<NetNs> {
        &self.lab.client().namespace
    }

    /// The caches of all nodes.
    pub fn caches(&self) -> Vec<SocketAddr> {
        let cache = |node: &Node| SocketAddr::new(node.member.address.v4().into(), CACHE_PORT);
        self.lab.nodes().iter().map(cache).collect()
    }

    /// Deploys all nodes on a release, in place of what was deployed, by one call of the operator's command.
    pub fn deploy(&mut self, strategy: &str, release: &str) -> anyhow::Result<Deployed> {
        self.count += 1;
        let id = format!("h1-{}", self.count);
        let names: Vec<String> = (1..=NODES).map(|number| format!("node{number}")).collect();
        let names = names.iter().map(String::as_str);
        let document = deployment(&id, strategy, names, release, self.deployed.as_deref());
        let file = self.ground.folder.write(&format!("{id}.json"), &document.to_string())?;
        let begun = Instant::now();
        let mut child = Command::new(binary("nautilus"))
            .args(["nodes", "deploy", "--force", "--events", "--control"])
            .arg(format!("unix:{}", self.lab.control_socket().display()))
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting nautilus: scripts/bench.sh builds it")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (mut turned, mut last, mut steps) = (None, Value::Null, Steps::default());
        for line in BufReader::new(stdout).lines() {
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            if event["phase"] == "rolling_back" {
                turned.get_or_insert_with(Instant::now);
            }
            steps.hear(&event);
            if event["phase"].is_string() {
                last = event;
            }
        }
        let ended = Instant::now();
        let output = child.wait_with_output()?;
        let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
        let deployed = Deployed {
            whole: ended - begun,
            back: turned.map(|turned| ended - turned),
            phase: text("phase"),
            reason: text("reason"),
            steps,
        };
        anyhow::ensure!(
            !deployed.phase.is_empty(),
            "nautilus nodes deploy: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if deployed.phase == "done" {
            self.deployed = Some(id);
        }
        Ok(deployed)
    }
}
