//! What `nautilus explain` says of a frame is what a real node then does with it. Needs root, and the
//! `nautilus` program beside the supervisor's.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nautilus_ebpf::{PassProgram, VERDICTS};
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::{Label, XdpVerdict};
use nautilus_shm::metrics::table;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};

use supervised::{Supervised, ask, ip, privileged, wait_until};

const NODE: &str = "[[access.limit]]\nprefix = \"198.18.0.66/32\"\npackets_per_s = 1\npacket_burst = 1\n\
    [cache]\nid = \"quotes\"\nmax_memory_mb = 8\nhot_set = true\nsources = [\n\
    { prefix = \"198.18.0.0/16\", allow = [\"read\"] },\n\
    { prefix = \"198.18.0.2/32\", allow = [\"read\", \"write\", \"admin\"] },\n\
    { prefix = \"198.18.0.68/32\", allow = [] } ]\n";

/// The operator's program, if it was built.
fn program(test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_nautilus-supervisor")).with_file_name("nautilus");
    if !path.exists() {
        println!("SKIPPED {test}: {} is not built", path.display());
        return None;
    }
    Some(path)
}

/// A field of the printed document; `steps` are told apart by name.
struct Told(String);

impl Told {
    fn by(program: &Path, arguments: &[&str]) -> Result<Self, String> {
        let output =
            Command::new(program).args(["explain", "--json"]).args(arguments).output().unwrap();
        if output.status.success() {
            return Ok(Self(String::from_utf8(output.stdout).unwrap()));
        }
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    fn verdict(&self) -> &str {
        let line = self.0.lines().find(|line| line.contains("\"verdict\"")).unwrap();
        line.split('"').nth(3).unwrap()
    }

    fn says(&self, part: &str) -> bool {
        self.0.contains(part)
    }
}

/// Counters of every verdict, by name.
fn counts(region: &ControlReader) -> Vec<u64> {
    let bank = region.metrics(SUPERVISOR_PROCESS);
    XdpVerdict::ALL.iter().map(|one| bank.counter(table::XDP_PACKETS.of(*one))).collect()
}

/// A raw socket on the client's end.
fn sender(node: &Supervised) -> impl Fn(&[u8]) + use<> {
    let (socket, address) = Supervised::inside(&node.client_ns, || {
        let address: LinkAddr = getifaddrs()
            .unwrap()
            .filter(|one| one.interface_name == "c0")
            .find_map(|one| one.address?.as_link_addr().copied())
            .unwrap();
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        );
        (socket.unwrap(), address)
    });
    move |frame| {
        sendto(socket.as_raw_fd(), frame, &address, MsgFlags::empty()).unwrap();
    }
}

fn mac(namespace: &str, interface: &'static str) -> [u8; 6] {
    Supervised::inside(namespace, move || {
        let mut all = getifaddrs().unwrap().filter(|one| one.interface_name == interface);
        all.find_map(|one| one.address?.as_link_addr()?.addr()).unwrap()
    })
}

/// A sound UDP datagram or TCP segment.
struct Shape {
    to: [u8; 6],
    ethertype: u16,
    from: [u8; 4],
    address: [u8; 4],
    protocol: u8,
    fragment: u16,
    ports: (u16, u16),
    payload: &'static [u8],
    udp_bytes: Option<u16>,
    cut: usize,
}

impl Shape {
    fn bytes(&self) -> Vec<u8> {
        let mut transport = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        if self.protocol == 6 {
            transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            let length = self.udp_bytes.unwrap_or(8 + self.payload.len() as u16);
            transport.extend(length.to_be_bytes());
            transport.extend([0, 0]);
            transport.extend(self.payload);
        }
        let mut header = vec![0x45, 0];
        header.extend((20 + transport.len() as u16).to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(self.from);
        header.extend(self.address);
        let sum = header.as_chunks::<2>().0.iter().fold(0_u32, |sum, pair| {
            let sum = sum + u32::from(u16::from_be_bytes(*pair));
            (sum & 0xffff) + (sum >> 16)
        });
        header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        let mut frame = self.to.to_vec();
        frame.extend([2, 0, 0, 0, 0, 0x77]);
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(header);
        frame.extend(transport);
        frame.truncate(frame.len() - self.cut);
        frame
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_frame_goes_where_it_was_said_to_go() {
    let test = "a_frame_goes_where_it_was_said_to_go";
    let (true, Some(program)) = (privileged(test), program(test)) else { return };
    let mut node = Supervised::new(NODE);
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    // Nothing on the link but what is sent here: no neighbour discovery, nothing the client's kernel
    // would object to.
    let (ours, theirs) = (mac(&node.server_ns, "s0"), mac(&node.client_ns, "c0"));
    for (namespace, end, peer, known) in
        [(&node.client_ns, "c0", "198.18.0.1", ours), (&node.server_ns, "s0", "198.18.0.2", theirs)]
    {
        let known = known.map(|byte| format!("{byte:02x}")).join(":");
        Supervised::inside(namespace, || {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        });
        ip(&format!("-n {namespace} neigh replace {peer} lladdr {known} dev {end} nud permanent"));
    }
    let _hears = Supervised::udp(&node.client_ns, "0.0.0.0:4000".parse().unwrap());
    node.start();
    let region = node.attach().unwrap();
    let run_dir = node.run_dir().display().to_string();
    let client = Supervised::udp(&node.client_ns, "198.18.0.2:0".parse().unwrap());
    client.connect((supervised::SERVER, supervised::CACHE_PORT)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(ask(&client, "set key 0 0 3\r\nabc\r\n"), "STORED\r\n");
    let hot = || counts(&region)[XdpVerdict::HotHit as usize];
    wait_until("the key is hot", Duration::from_secs(10), || {
        (0..50).for_each(|_| assert!(ask(&client, "get key\r\n").starts_with("VALUE")));
        hot() > 20
    });

    let send = sender(&node);
    let get = b"\0\x01\0\0\0\x01\0\0get key\r\n";
    let sound = || Shape {
        to: ours,
        ethertype: 0x0800,
        from: [198, 18, 0, 2],
        address: [198, 18, 0, 1],
        protocol: 17,
        fragment: 0,
        ports: (4000, 11_211),
        payload: get,
        udp_bytes: None,
        cut: 0,
    };
    let cold = b"\0\x01\0\0\0\x01\0\0get cold\r\n";
    let (reader, limited) = ([198, 18, 0, 7], [198, 18, 0, 66]);
    let cases = [
        ("hot_hit", sound()),
        ("hot_hit", Shape { from: reader, ..sound() }),
        ("redirected", Shape { payload: cold, ..sound() }),
        ("redirected", Shape { ports: (4000, 7), from: [198, 19, 1, 1], ..sound() }),
        ("source_unlisted", Shape { from: [198, 19, 1, 1], ..sound() }),
        ("source_unlisted", Shape { from: [198, 18, 0, 68], ..sound() }),
        ("source_unlisted", Shape { ports: (4000, 7), from: [10, 0, 0, 1], ..sound() }),
        ("tcp_source_unlisted", Shape { protocol: 6, from: [10, 0, 0, 1], ..sound() }),
        ("tcp_listed", Shape { protocol: 6, ..sound() }),
        ("source_invalid", Shape { from: [127, 0, 0, 1], ..sound() }),
        ("source_port", Shape { ports: (11_211, 11_211), ..sound() }),
        ("udp_length", Shape { udp_bytes: Some(7), ..sound() }),
        ("ip_length", Shape { cut: 3, ..sound() }),
        ("transport_truncated", Shape { cut: 25, ..sound() }),
        ("ip_malformed", Shape { cut: 30, ..sound() }),
        ("other_port", Shape { ports: (4000, 53), ..sound() }),
        ("other_protocol", Shape { protocol: 47, ..sound() }),
        ("fragment", Shape { fragment: 0x2000, ..sound() }),
        ("other_address", Shape { address: [198, 18, 0, 99], ..sound() }),
        ("other_mac", Shape { to: [2, 0, 0, 0, 0, 9], ..sound() }),
        ("not_ip", Shape { ethertype: 0x88cc, ..sound() }),
        ("redirected", Shape { from: limited, payload: cold, ..sound() }),
        ("packet_limit", Shape { from: limited, payload: cold, ..sound() }),
    ];
    // The kernel counts before the supervisor copies.
    let settled = || {
        std::thread::sleep(Duration::from_millis(300));
        counts(&region)
    };
    let mut before = settled();
    for (expected, shape) in cases {
        let frame = shape.bytes();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = Told::by(&program, &["--node", &run_dir, &hex]).unwrap();
        assert_eq!(told.verdict(), expected, "{}", told.0);
        assert_eq!(settled(), before, "{expected}: explaining counted something");
        send(&frame);
        let after = settled();
        let changed: Vec<&str> = VERDICTS
            .iter()
            .enumerate()
            .filter(|(index, _)| after[*index] != before[*index])
            .map(|(_, row)| row.name)
            .collect();
        assert_eq!(changed, [expected], "what the node did, having said: {}", told.0);
        before = after;
    }

    // Descriptions, and what an operator is told.
    let told = |packet: &str| Told::by(&program, &["--node", &run_dir, packet]);
    let text = told("udp 198.18.0.2:4000 > 198.18.0.1:11211 'get key'").unwrap();
    assert!(text.says("\"verdict\": \"hot_hit\"") && text.says("VALUE key 0 3"), "{}", text.0);
    assert!(text.says("cache \\\"quotes\\\"") && text.says("198.18.0.2/32: read write admin"));
    let text = told("udp 198.18.0.7:4000 > 198.18.0.1:11211 'set key 0 0 1\\r\\nx'").unwrap();
    assert!(
        text.says("redirected")
            && text.says("198.18.0.7 by 198.18.0.0/16: read (sources of cache \\\"quotes\\\")")
    );
    let worker = format!("worker {} on core", node.active().unwrap());
    assert!(text.says(&worker) && text.says("of s0"), "{}", text.0);
    for (arguments, says) in [
        (&["--node", "/nowhere", "udp 1.1.1.1:1 > 1.1.1.2:2"][..], "no supervisor is listening"),
        (
            &[
                "--node",
                &run_dir,
                "--interface",
                "eth9",
                "00:00:00:00:00:00:00:00:00:00:00:00:00:00",
            ],
            "it has s0",
        ),
        (&["--node", &run_dir, "--queue", "7", "udp 1.1.1.1:1 > 1.1.1.2:2"], "has no queue 7"),
        (&["--node", &run_dir, "nonsense"], "neither hexadecimal"),
    ] {
        let error = Told::by(&program, arguments).err().unwrap();
        assert!(error.contains(says), "{error}");
    }
    node.stop();
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_node_file_is_explained_without_a_node() {
    let test = "a_node_file_is_explained_without_a_node";
    let (true, Some(program)) = (privileged(test), program(test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let text = "[access]\nsources = [\"198.18.0.0/15\"]\n[[interface]]\nname = \"no-such-if\"\n\
                queues = [0]\naddresses = [\"198.18.0.1\"]\n[echo]\nport = 7\n[cache]\nid = \"q\"\n\
                [[feed]]\nvenue = \"iex\"\nprotocol = \"iex-tops-1.6\"\n\
                group = \"233.215.21.3\"\nport = 10377\nchannel = 1\n";
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let told = |packet: &str| Told::by(&program, &["--config", &file, packet]).unwrap();
    let text = told("udp 198.18.0.2:4000 > 198.18.0.1:7 'hello'");
    assert_eq!(text.verdict(), "redirected", "{}", text.0);
    assert!(text.says("does not exist here") && text.says("echo (UDP, TCP"), "{}", text.0);
    assert_eq!(told("udp 10.0.0.2:4000 > 198.18.0.1:7").verdict(), "source_unlisted");
    let text = told("udp 198.18.0.2:4000 > 233.215.21.3:10377");
    assert_eq!(text.verdict(), "redirected", "{}", text.0);
    assert!(text.says("feed of \\\"iex\\\" (iex-tops-1.6)"), "{}", text.0);
    assert_eq!(told("udp 198.18.0.2:4000 > 198.18.0.3:7").verdict(), "other_address");
    assert_eq!(told("tcp 198.18.0.2:4000 > 198.18.0.1:11211").verdict(), "tcp_listed");
    let arguments = ["--config", "/nowhere.toml", "udp 1.1.1.1:1 > 1.1.1.2:2"];
    let error = Told::by(&program, &arguments).err().unwrap();
    assert!(error.contains("cannot read the node file /nowhere.toml"), "{error}");
}
