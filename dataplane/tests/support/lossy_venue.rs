//! A venue in a node's client namespace, and two lines from it to the node that lose packets.
#![allow(dead_code)]

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nautilus_dataplane::replay::random::Random;

use super::supervised::{CLIENT, Supervised};

pub const REQUESTS: u16 = 26_500;
pub const SNAPSHOTS: u16 = 26_600;
/// What the venue sends to, inside its own namespace, and what the node receives on.
pub const SENT: [&str; 2] = ["239.255.71.1:26481", "239.255.71.2:26482"];
pub const RECEIVED: [&str; 2] = ["233.54.12.111:26477", "233.54.12.112:26478"];

/// The venue in the client's namespace; what it prints is shown when it fails.
pub struct Venue(Child);

impl Venue {
    /// It begins its day after a time, and stays for another when that is over.
    pub fn start(node: &Supervised, messages: u32, begin_after_ms: u32, linger_ms: u32) -> Self {
        let books = node.dir.path().join("books");
        let password = node.dir.path().join("venue-password");
        std::fs::write(&password, "secret\n").unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node.client_ns, env!("CARGO_BIN_EXE_nautilus-venue")]);
        for line in SENT {
            command.args(["--line", line, "--interface-address", "127.0.0.1"]);
        }
        let options = format!(
            "--seed 5 --symbols 24 --rate 8000 --session VENUE --messages {messages} \
             --begin-after-ms {begin_after_ms} --linger-ms {linger_ms} --user NODE \
             --request {CLIENT}:{REQUESTS} --snapshot {CLIENT}:{SNAPSHOTS}"
        );
        command.args(options.split(' ')).arg("--password-file").arg(password);
        command.arg("--write-books").arg(books);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Whether it is gone.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is known of the relay between venue and node.
#[derive(Default)]
pub struct Relay {
    pub over: AtomicBool,
    pub passed: AtomicU64,
    pub lost: AtomicU64,
}

impl Relay {
    /// Takes the lines of the venue to the node. Each loses one packet of twenty, and both the same one of
    /// forty.
    pub fn run(&self, node: &Supervised) {
        let ends: Vec<(UdpSocket, UdpSocket)> = SENT
            .into_iter()
            .zip(RECEIVED)
            .map(|(from, to)| {
                let from: SocketAddr = from.parse().unwrap();
                let socket = Supervised::udp(&node.client_ns, from);
                let std::net::IpAddr::V4(group) = from.ip() else { unreachable!() };
                Supervised::inside(&node.client_ns, || {
                    socket.join_multicast_v4(&group, &std::net::Ipv4Addr::LOCALHOST).unwrap();
                });
                socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let out =
                    Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
                out.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
                (socket, out)
            })
            .collect();
        let mut random = [1, 2].map(Random::new);
        // The fate that both lines share, by sequence number.
        let shared = |packet: &[u8]| {
            let sequence =
                packet.get(10..18).map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
            Random::new(sequence).below(40) == 0
        };
        let mut bytes = [0; 2_048];
        while !self.over.load(Ordering::Relaxed) {
            for ((from, to), random) in ends.iter().zip(&mut random) {
                while let Ok(length) = from.recv(&mut bytes) {
                    if shared(&bytes[..length]) || random.below(20) == 0 {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    to.send(&bytes[..length]).unwrap();
                    self.passed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
