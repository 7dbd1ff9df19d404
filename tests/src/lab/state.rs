//! What a running lab tells the commands that come after it: one JSON file in its folder, written by
//! the process that keeps the lab, read by everyone else.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::node_file::{CACHE_PORT, ECHO_PORT};
use super::{CONTROL_PORT, Lab, LabError, Member, RunId, Service, at};

/// Name of the file.
const STATE_FILE: &str = "lab.json";

/// A lab as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its name, chosen by the operator.
    pub name: String,
    /// Its run id, part of every namespace's name.
    pub run: String,
    /// The process that keeps it.
    pub keeper: Pid,
    /// Whether every node has answered.
    pub ready: bool,
    /// Its members: nodes, client, venue, control.
    pub members: Vec<MemberState>,
}

/// A process id that cannot be mistaken for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// The id.
    pub pid: i32,
    /// When it started, clock ticks after boot (field 22 of /proc/pid/stat).
    pub started_ticks: u64,
}

/// One namespace of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// `node1`, `client`, `venue`, `control`.
    pub name: String,
    /// What `ip netns` lists.
    pub namespace: String,
    /// IPv4 address of its `eth0`.
    pub v4: String,
    /// IPv6 address of its `eth0`.
    pub v6: String,
    /// The process that is started again when it dies, None for members without one.
    pub service: Option<ServiceState>,
    /// The wire between it and the bridge, None for members without one.
    pub wire: Option<WireState>,
}

/// A wire that harms packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireState {
    /// The namespace it is in.
    pub namespace: String,
    /// Its process.
    pub pid: i32,
    /// What it does to which packets.
    pub faults: PathBuf,
}

/// The process a member runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its program.
    pub program: String,
    /// Process id, None between a death and the next start.
    pub pid: Option<i32>,
    /// Starts after the first.
    pub restarts: u32,
    /// Ports it serves, by name.
    pub ports: Vec<(String, u16)>,
    /// Folder of its sockets.
    pub run_dir: Option<PathBuf>,
}

impl Pid {
    /// The calling process.
    pub fn own() -> Self {
        let pid = std::process::id() as i32;
        Self { pid, started_ticks: started_ticks(pid).unwrap_or(0) }
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        started_ticks(self.pid) == Some(self.started_ticks)
    }
}

fn started_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command, field 2, may hold blanks and parentheses; nothing after it does.
    let fields = stat.rsplit_once(')')?.1;
    if fields.split_whitespace().next() == Some("Z") {
        return None;
    }
    fields.split_whitespace().nth(19)?.parse().ok()
}

impl State {
    /// A lab that is about to be made.
    pub fn starting(name: &str, run: RunId) -> Self {
        Self {
            name: name.into(),
            run: run.to_string(),
            keeper: Pid::own(),
            ready: false,
            members: Vec::new(),
        }
    }

    /// The lab as it is now.
    pub fn of(name: &str, lab: &Lab) -> Self {
        let member = |member: &Member, service: Option<ServiceState>| MemberState {
            name: member.name.clone(),
            namespace: member.namespace.name().to_owned(),
            v4: member.address.v4().to_string(),
            v6: member.address.v6().to_string(),
            service,
            wire: member.wire().map(|wire| WireState {
                namespace: wire.namespace().name().to_owned(),
                pid: wire.pid(),
                faults: wire.faults().to_owned(),
            }),
        };
        let mut members: Vec<MemberState> = lab
            .nodes()
            .iter()
            .map(|node| {
                let ports = vec![("echo".into(), ECHO_PORT), ("cache".into(), CACHE_PORT)];
                let mut service = service("nautilus-supervisor", &node.supervisor, ports);
                service.run_dir = Some(node.run_dir.clone());
                member(&node.member, Some(service))
            })
            .collect();
        members.push(member(lab.client(), None));
        members.push(member(lab.venue(), None));
        let control = lab.control().map(|control| {
            service("nautilus-control", control, vec![("http".into(), CONTROL_PORT)])
        });
        members.push(member(lab.operator(), control));
        Self { members, ready: true, ..Self::starting(name, lab.run()) }
    }

    /// Replaces the file in `folder`; readers see the old or the new one.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        let fresh = folder.join(format!("{STATE_FILE}.new"));
        at(&fresh, std::fs::write(&fresh, text))?;
        at(&fresh, std::fs::rename(&fresh, folder.join(STATE_FILE)))
    }

    /// The state in `folder`, None when there is no lab.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(STATE_FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

fn service(program: &str, service: &Service, ports: Vec<(String, u16)>) -> ServiceState {
    let status = service.status();
    ServiceState {
        program: program.into(),
        pid: status.pid,
        restarts: status.restarts,
        ports,
        run_dir: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_successor() {
        let own = Pid::own();
        assert!(own.is_alive());
        assert!(!Pid { started_ticks: own.started_ticks + 1, ..own }.is_alive());
    }

    #[test]
    fn the_file_survives_the_way() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::read(folder.path()), None);
        let state = State::starting("lab", RunId::draw());
        state.write(folder.path()).unwrap();
        assert_eq!(State::read(folder.path()), Some(state));
    }
}
