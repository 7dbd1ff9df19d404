//! A hot key over a veth pair: the kernel's own UDP sockets ask, the program answers in the driver,
//! and the sockets take the answers, IPv4 and IPv6.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nautilus_ebpf::intf::{HOT_PATH, Interface};
use nautilus_ebpf::{PassProgram, Verdict};

use support::hot::{HOT_KEYS, text};
use support::veth::{Veth, run};
use support::{CACHE_PORT, LISTED_V4, LISTED_V6, OUR_MAC, OUR_V4, OUR_V6, Rig, ip, scale};

#[test]
#[ignore = "privileged: network namespaces and XDP"]
fn a_kernel_client_is_answered_in_the_driver() {
    let test = "a_kernel_client_is_answered_in_the_driver";
    if !HOT_PATH {
        println!("SKIPPED {test}: this build has no hot path");
        return;
    }
    let Some(rig) = Rig::with(test, false) else { return };
    let veth = Veth::new();
    // Else the kernel leaves the checksums to a device that has none, and wrong ones get no answer.
    run("ethtool", &["-K", "peer", "tx", "off"]);
    let mac = OUR_MAC.map(|byte| format!("{byte:02x}")).join(":");
    for (ours, listed, bits) in [(OUR_V4, LISTED_V4, "24"), (OUR_V6, LISTED_V6, "64")] {
        run("ip", &["addr", "add", &format!("{listed}/{bits}"), "dev", "peer", "nodad"]);
        run("ip", &["neigh", "add", ours, "lladdr", &mac, "dev", "peer"]);
    }
    let interface = Interface { mac: OUR_MAC, queue_count: 1, first_socket: 9 };
    rig.steering.set_interface(veth.ours, interface).unwrap();
    let _peer = PassProgram::load().unwrap().attach(veth.peer).unwrap();
    let _link = rig.steering.attach(veth.ours).unwrap();

    let requests = scale("NAUTILUS_VETH_REQUESTS", 2_000);
    for (ours, listed) in [(OUR_V4, LISTED_V4), (OUR_V6, LISTED_V6)] {
        let socket = UdpSocket::bind(SocketAddr::new(ip(listed), 0)).unwrap();
        socket.connect(SocketAddr::new(ip(ours), CACHE_PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut round_trips = Vec::new();
        let mut buffer = [0; 512];
        for number in 0..requests {
            let key = HOT_KEYS[number as usize % HOT_KEYS.len()].as_bytes();
            let id = (number as u16).to_be_bytes();
            let header = [id[0], id[1], 0, 0, 0, 1, 0, 0];
            let request = [&header[..], b"get ", key, b"\r\n"].concat();
            let asked = Instant::now();
            socket.send(&request).unwrap();
            let bytes = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{ours}: no answer to request {number}: {error}"));
            round_trips.push(asked.elapsed());
            assert_eq!(buffer[..8], header, "{ours}");
            assert_eq!(buffer[8..bytes], text(key), "{ours}");
        }
        round_trips.sort();
        let at = |share: usize| round_trips[(round_trips.len() - 1) * share / 100].as_nanos();
        println!("{ours}: {requests} answered, p50 {} ns, p99 {} ns", at(50), at(99));
    }
    let tallies = rig.steering.verdicts().unwrap();
    assert_eq!(tallies.get(Verdict::HotHit).packet_count, 2 * requests);
    assert_eq!(tallies.get(Verdict::Redirected).packet_count, 0);
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let errors: Vec<&str> = counters.lines().filter(|line| line.starts_with("Udp:")).collect();
    let column = errors[0].split(' ').position(|name| name == "InCsumErrors").unwrap();
    assert_eq!(errors[1].split(' ').nth(column), Some("0"), "{errors:?}");
}
