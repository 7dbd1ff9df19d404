//! Two namespaces, a wire between them, and numbered packets.

use std::sync::Arc;

use nautilus_shm::clock::monotonic_ns;
use nautilus_tests::frames::FrameSocket;
use nautilus_tests::lab::{Folder, NetNs, RunId, Wire};

/// The lines' destinations, by their places.
pub const PORTS: [u16; 2] = [26_477, 26_478];
/// Bytes of a packet: its line, its number, when it was sent, and filling.
pub const PAYLOAD_BYTES: usize = 60;
/// Ethernet, IPv4 and UDP headers.
pub const HEADERS_BYTES: usize = 42;

/// Two namespaces with a wire between them.
pub struct Rig {
    pub wire: Wire,
    from: Arc<NetNs>,
    to: Arc<NetNs>,
    pub folder: Folder,
    pub run: RunId,
}

impl Rig {
    pub fn new(faults: &str) -> Self {
        let run = RunId::draw();
        let folder = Folder::create(run).unwrap();
        let namespace = |part| {
            let namespace = Arc::new(NetNs::create(run, part).unwrap());
            // Nobody says anything by itself.
            namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
            namespace
        };
        let (from, to) = (namespace("from"), namespace("to"));
        let wire = connect(run, &from, &to, &folder, faults);
        Self { wire, from, to, folder, run }
    }

    pub fn sockets(&self) -> (FrameSocket, FrameSocket) {
        let sender = self.from.run(|| FrameSocket::open("left").unwrap());
        let receiver = self.to.run(|| FrameSocket::open("right").unwrap());
        receiver.keep(256 << 20).unwrap();
        (sender, receiver)
    }
}

fn connect(run: RunId, from: &Arc<NetNs>, to: &Arc<NetNs>, folder: &Folder, faults: &str) -> Wire {
    let file = folder.write("faults.toml", faults).unwrap();
    let (a, b) = ((from, "left"), (to, "right"));
    let mut wire = Wire::connect(run, "w", a, b, &file, folder.join("wire.log")).unwrap();
    wire.pass_on_first().unwrap();
    wire.pass_on_second().unwrap();
    wire
}

/// A whole frame of a line.
pub fn packet(line: usize, number: u32) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[0] = line as u8;
    payload[1..5].copy_from_slice(&number.to_be_bytes());
    payload[5..13].copy_from_slice(&monotonic_ns().to_be_bytes());
    for (place, byte) in payload[13..].iter_mut().enumerate() {
        *byte = number as u8 ^ place as u8;
    }
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [1, 0, 0x5e, 0x36, 12, 111])
        .ipv4([198, 18, 0, 3], [233, 54, 12, 111], 8)
        .udp(40_000, PORTS[line])
        .write(&mut frame, &payload)
        .unwrap();
    frame
}
