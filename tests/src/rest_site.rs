//! A lab whose control is asked over REST.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::coherence::Connection;
use crate::lab::{Folder, Lab, RunId, status};
use crate::rest::RestClient;
use crate::wait::wait_until;

/// How long a control may take until it is ready.
const SOON: Duration = Duration::from_secs(20);

/// Nodes, their control, and a client of it.
pub struct RestSite {
    /// The lab.
    pub lab: Lab,
    /// Asks its control.
    pub client: RestClient,
}

impl RestSite {
    /// A lab of so many nodes whose control is ready. An answer that takes longer than `patience` is none.
    ///
    /// # Panics
    ///
    /// If it cannot be set up.
    pub fn start(run: RunId, nodes: usize, patience: Duration) -> Self {
        let folder = Arc::new(Folder::create(run).unwrap());
        let mut lab = Lab::start(folder, run, nodes, |_, _, _| Ok(())).unwrap();
        lab.start_control().unwrap();
        let client = RestClient::new(&lab.control_socket(), patience);
        let mut site = Self { lab, client };
        wait_until("control is ready", SOON, || {
            site.client.ask("GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
        site
    }

    /// What the cache at `port` of the first node answers a client of memcached's protocol; none where nobody
    /// listens.
    pub fn over_tcp(&self, port: u16, command: &[u8]) -> Option<String> {
        let node = self.lab.nodes()[0].member.address.v4();
        let server = SocketAddr::new(node.into(), port);
        let mut tcp = self.lab.client().namespace.run(|| Connection::open(server)).ok()?;
        tcp.ask(command).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// Processes that the first node's supervisor names in lines that begin so, in its order.
    pub fn pids(&self, lines: &[&str]) -> Vec<i32> {
        let text = status(&self.lab.nodes()[0].run_dir).unwrap_or_default();
        let words = text.lines().filter_map(|said| {
            let rest = lines.iter().find_map(|line| said.strip_prefix(line))?;
            rest.split(' ').next()?.parse().ok()
        });
        words.collect()
    }
}
