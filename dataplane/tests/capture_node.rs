//! A node that captures what its worker sees: files that tshark reads, with the stamps and the loss that the
//! worker knows, and a replay without a network that gives every record of the day, byte for byte. Needs
//! root.

#[path = "support/captured.rs"]
mod captured;
#[path = "support/supervised.rs"]
mod supervised;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use captured::{counted, files, folder, held, replayed, section, sum, tshark};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pack::Packer;
use nautilus_dataplane::replay::random::Random;
use nautilus_shm::control_region::{CAPTURE_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::table;
use supervised::{CLIENT, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGES: u64 = 20_000;
const SYMBOLS: u16 = 5;

fn day() -> Vec<Vec<u8>> {
    let spec = GeneratorSpec { seed: 3, symbols: SYMBOLS, messages: MESSAGES, rate: 100_000 };
    let mut generator = Generator::new(spec).unwrap();
    let (mut packer, mut packets) = (Packer::new(Session(*b"000000MON1"), 1), Vec::new());
    let mut take = |packer: &mut Packer| {
        let mut packet = Vec::new();
        packer.take(&mut packet).map(|_| packets.push(packet))
    };
    while let Some(message) = generator.next_message() {
        if !packer.push(message) {
            take(&mut packer);
            assert!(packer.push(message));
        }
    }
    take(&mut packer);
    packets
}

fn node(port: &str, capture: &str) -> Supervised {
    Supervised::new(&format!(
        "{port}[cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         lines = [{{ group = \"233.54.12.112\", port = 26478 }}]\nhold_limit_us = 2000\n\
         channel = 1\nmax_orders = 32768\ndepth = 5\n{capture}"
    ))
}

/// Sends a day over two lines that lose and reorder; some packets are lost on both, so that gaps are decided
/// by the clock. Returns how many packets left.
fn send_day(node: &Supervised) -> u64 {
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    let line = |to: (&str, u16)| {
        let socket = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
        socket.connect(to).unwrap();
        socket
    };
    let lines: [UdpSocket; 2] = [("233.54.12.111", 26_477), ("233.54.12.112", 26_478)].map(line);
    let (packets, mut random, mut sent) = (day(), Random::new(9), 0);
    for (place, packet) in packets.iter().enumerate() {
        let lost_on_both = random.below(60) == 0;
        for (line, behind) in [(0, 0), (1, 3)] {
            let is_lost = lost_on_both || random.below(12) == 0;
            let late = if line == 0 { packet } else { &packets[place.saturating_sub(behind)] };
            if !is_lost {
                lines[line].send(late).unwrap();
                sent += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(300));
        if place == packets.len() / 2 {
            // Holes are given up by housekeeping alone.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    sent
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_day_over_afxdp_is_captured_read_by_tshark_and_replayed_exactly() {
    if privileged("a_day_over_afxdp_is_captured_read_by_tshark_and_replayed_exactly") {
        a_day("", "frames as received");
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_day_over_kernel_sockets_gets_headers_and_is_replayed_exactly() {
    if privileged("a_day_over_kernel_sockets_gets_headers_and_is_replayed_exactly") {
        a_day("[port]\nkind = \"socket\"\n", "headers are synthesized");
    }
}

fn a_day(port: &str, described: &str) {
    let folder = folder();
    let mut node = node(port, &section(folder.path(), "ports = [7]\n"));
    // The worker of the socket port is nobody, and echo is served on port 7.
    let sysctl = "sysctl -qw net.ipv4.ip_unprivileged_port_start=0";
    ip(&format!("netns exec {} {sysctl}", node.server_ns));
    node.start();
    node.await_workers(1);
    let echo = node.client();
    wait_until("an echo", PATIENCE, || {
        let _ = echo.send(b"ping");
        echo.recv(&mut [0; 16]).is_ok()
    });
    let sent = send_day(&node);
    let region = node.attach().unwrap();
    wait_until("the node has handled all", PATIENCE, || {
        let packets = sum(&region, table::FEED_PACKETS);
        packets >= sent
    });
    // Records of the venue itself are due every 100 ms.
    std::thread::sleep(Duration::from_millis(300));
    assert!(sum(&region, table::FEED_GAPS) > 0, "some were lost on both lines");
    let (captured, dropped) = counted(&region);
    assert_eq!(dropped, 0);
    let items = |slot| region.cache_metrics(slot, 0).gauge(table::CACHE_ITEMS);
    let items: u64 = (0..WORKERS_MAX).map(items).sum();
    let part = files(folder.path(), ".part");
    assert_eq!(part.len(), 1);
    wait_until("all is written", PATIENCE, || {
        region.metrics(CAPTURE_PROCESS).counter(table::CAPTURE_WRITTEN) >= captured
    });
    // A file that is still being written can be replayed.
    let (records, summary) = replayed(&node, &part);
    assert!(records.len() >= usize::from(SYMBOLS) * 4, "{}", records.len());
    let live = held(&node, "q", records.keys());
    assert_eq!(live.len(), records.len());
    for (key, record) in &records {
        assert_eq!(live[key], *record, "{key}");
    }
    assert_eq!(items, records.len() as u64, "the cache has no other record");
    println!("{sent} sent, {captured} captured, {summary:?}");
    assert!(summary.is_exact() && summary.workers == 1 && summary.events > 2, "{summary:?}");
    node.stop();

    let finished = files(folder.path(), ".pcapng");
    assert_eq!((files(folder.path(), ".part").len(), finished.len()), (0, 1));
    assert_eq!(replayed(&node, &finished).0, records);
    let Some(shown) = tshark(&finished[0], &["-T", "fields", "-e", "frame.time_epoch"]) else {
        return println!("SKIPPED tshark: not installed");
    };
    assert!(shown.len() as u64 >= captured);
    assert!(shown.iter().all(|time| time.split_once('.').unwrap().1.len() == 9), "nanoseconds");
    let filter = ["-Y", "udp.dstport == 26477 || udp.dstport == 26478", "-T", "fields"];
    let fields = ["-e", "ip.dst", "-e", "udp.checksum.status"];
    let options = ["-o", "udp.check_checksum:TRUE"];
    let lines = tshark(&finished[0], &[&filter[..], &fields, &options].concat()).unwrap();
    assert_eq!(lines.len() as u64, summary.packets);
    assert!(
        lines.iter().all(|line| line.starts_with("233.54.12.11") && line.ends_with('1')),
        "{}",
        lines[0]
    );
    let echoes = tshark(&finished[0], &["-Y", "udp.dstport == 7"]).unwrap();
    assert!(!echoes.is_empty(), "another port");
    let info = Command::new("capinfos").args(["-I", "-F"]).arg(&finished[0]).output().unwrap();
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(info.contains(described) && info.contains("per second = 1000000000"), "{info}");
    assert!(info.contains("worker 0: events"), "{info}");
}
