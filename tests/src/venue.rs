//! A venue in a lab: its process, what its lines suffer on their way, and how a node recovers from it.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use nautilus_dataplane::feed::Venue as VenueName;
use nautilus_dataplane::feed::record::{Key, Value};
use nautilus_dataplane::venue::flow;

use crate::lab::node_file::{FEED_GROUP, FEED_VENUE};
use crate::lab::{Folder, NetNs, Process, RunId, VENUE, WireAt, binary};

/// Group and port of the second line; the first is the lab's feed.
const LINE_B: (Ipv4Addr, u16) = (Ipv4Addr::new(233, 54, 12, 112), 26_478);

/// Where a node's subscribers ask for records.
pub const DISTRIBUTES_AT_PORT: u16 = 26_700;

/// Ports of the venue's servers, and of a node that asks for what it lacks.
const REQUESTS_PORT: u16 = 26_500;
const SNAPSHOTS_PORT: u16 = 26_600;
const ASKS_FROM_PORT: u16 = 26_499;

/// Who a node is at the snapshot server, and the file its password is in.
const USER: &str = "NODE";
const PASSWORD: &str = "password";

/// What is traded, and how.
#[derive(Clone, Copy, Debug)]
pub struct VenueSpec {
    /// Seed of the order flow and of what its lines lose.
    pub seed: u64,
    /// Stocks.
    pub symbols: u16,
    /// Messages a second.
    pub rate: u32,
    /// Seconds of the day.
    pub seconds: u64,
    /// Of a million packets, how many each line loses.
    pub lost_ppm: u32,
}

/// A running venue. Dropping it ends it.
#[derive(Debug)]
pub struct RunningVenue {
    _process: Process,
}

/// Name of the venue's fault file in the folder of a lab.
const FAULTS: &str = "venue-faults.toml";

impl VenueSpec {
    /// Keys of the best bids and offers of its stocks.
    pub fn bbo_keys(&self) -> anyhow::Result<Vec<String>> {
        let venue = VenueName::new(FEED_VENUE).context("a venue is lower-case letters")?;
        let key = |index: u16| Key::new(&venue, flow::symbol(index), Value::Bbo);
        let keys = (0..self.symbols).filter_map(key);
        let texts = keys.map(|key| String::from_utf8(key.as_bytes().to_vec()));
        Ok(texts.collect::<Result<_, _>>()?)
    }

    /// What a node file says behind its feed, so that the node takes both lines, recovers from the venue at
    /// `venue` and distributes its records.
    pub fn of_node(
        &self,
        folder: &Folder,
        node: Ipv4Addr,
        venue: Ipv4Addr,
    ) -> anyhow::Result<String> {
        let (group, port) = LINE_B;
        // The node's unprivileged processes may read what is in a lab's folder.
        let password = folder.write(PASSWORD, "secret\n")?;
        Ok(format!(
            "lines = [{{ group = \"{group}\", port = {port} }}]\ndepth = 5\n\
             [feed.recovery]\nservers = [\"{venue}:{REQUESTS_PORT}\"]\n\
             from = \"{node}:{ASKS_FROM_PORT}\"\nrequest_messages_max = 2000\n\
             [feed.recovery.snapshot]\nserver = \"{venue}:{SNAPSHOTS_PORT}\"\nuser = \"{USER}\"\n\
             password_file = {password:?}\n\
             [feed.distribution]\nendpoint = \"{node}:{DISTRIBUTES_AT_PORT}\"\n\
             entitled = [{{ prefix = \"198.18.0.0/15\" }}]\n"
        ))
    }

    /// The wire on which its lines lose packets, each by itself.
    pub fn wire(&self, folder: &Folder) -> anyhow::Result<WireAt> {
        let mut text = format!("seed = {}\n", self.seed);
        for (name, (group, port)) in ["A", "B"].into_iter().zip([FEED_GROUP, LINE_B]) {
            text += &format!(
                "[[line]]\nname = \"{name}\"\nto = \"{group}:{port}\"\nloss_ppm = {}\n",
                self.lost_ppm
            );
        }
        Ok(WireAt { member: "venue".into(), faults: folder.write(FAULTS, &text)? })
    }

    /// Starts the venue in the namespace of a lab's venue.
    pub fn start(
        &self,
        run: RunId,
        namespace: &Arc<NetNs>,
        folder: &Folder,
    ) -> anyhow::Result<RunningVenue> {
        let own = VENUE.v4();
        let mut arguments: Vec<OsString> = Vec::new();
        for (group, port) in [FEED_GROUP, LINE_B] {
            arguments.extend(["--line".into(), format!("{group}:{port}").into()]);
        }
        let options = format!(
            "--source {own} --seed {} --symbols {} --rate {} --seconds {} --linger-ms 600000 \
             --user {USER} --request {own}:{REQUESTS_PORT} --snapshot {own}:{SNAPSHOTS_PORT} \
             --password-file",
            self.seed, self.symbols, self.rate, self.seconds
        );
        arguments.extend(options.split_whitespace().map(OsString::from));
        arguments.push(folder.join(PASSWORD).into());
        let log = folder.join("venue.log");
        let program = binary("nautilus-venue").into_os_string();
        let process = Process::start(run, namespace, program, arguments, &log)?;
        Ok(RunningVenue { _process: process })
    }
}
