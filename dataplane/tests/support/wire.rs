//! `nautilus-fault` between a supervised node and its client, in a namespace of its own.
#![allow(dead_code)]

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_ebpf::{PassProgram, XdpLink};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::supervised::{Supervised, ip, wait_until};

/// Dropping it cuts the wire.
pub struct Wire {
    namespace: String,
    process: Child,
    log: PathBuf,
    /// The client's end has a program, or nothing redirected would come back to it.
    _pass: XdpLink,
}

impl Wire {
    /// Takes the link of a node that does not run yet away and puts a wire in its place, which harms what goes
    /// to the node as `faults` says.
    pub fn insert(node: &Supervised, faults: &str, queues: u32) -> Self {
        let (server, client) = (&node.server_ns, &node.client_ns);
        let namespace = format!("{client}w");
        ip(&format!("-n {server} link del s0"));
        ip(&format!("netns add {namespace}"));
        for (end, of, name, host) in [("in", client, "c0", 2), ("out", server, "s0", 1)] {
            let width = format!("numrxqueues {queues} numtxqueues {queues}");
            ip(&format!(
                "link add {end} netns {namespace} {width} type veth peer name {name} netns {of} {width}"
            ));
            ip(&format!("-n {of} addr add 198.18.0.{host}/24 dev {name}"));
            ip(&format!("-n {of} addr add fd00:6e61::{host}/64 dev {name} nodad"));
            for (namespace, name) in [(of, name), (&namespace, end)] {
                ip(&format!("-n {namespace} link set {name} up"));
                ip(&format!(
                    "netns exec {namespace} ethtool -K {name} tx off tso off gso off gro off"
                ));
            }
        }
        let pass = Supervised::inside(client, || {
            PassProgram::load().unwrap().attach(if_nametoindex("c0").unwrap()).unwrap()
        });
        let file = node.dir.path().join("faults.toml");
        std::fs::write(&file, faults).unwrap();
        let log = node.dir.path().join("wire.log");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &namespace, env!("CARGO_BIN_EXE_nautilus-fault")])
            .args(["--in", "in", "--out", "out", "--json", "--file"])
            .arg(file)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let process = command.spawn().unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        wait_until("the wire is connected", Duration::from_secs(20), || {
            said().contains("are connected")
        });
        Self { namespace, process, log, _pass: pass }
    }

    /// Cuts it; what it counted, in its own words.
    pub fn cut(&mut self) -> String {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        let said = std::io::read_to_string(self.process.stdout.take().unwrap()).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(&self.log).unwrap());
        said
    }
}

/// All numbers of a name in the counts, in the order of the lines.
pub fn numbers(said: &str, name: &str) -> Vec<u64> {
    let key = format!("\"{name}\":");
    let digits = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    said.split(&key).skip(1).filter_map(digits).collect()
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}
