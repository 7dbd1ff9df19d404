//! An AF_XDP peer that shares no code with our rings, headers or checksums (xsk-rs, etherparse)
//! against the echo: every reply is looked at byte by byte, tags included.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use etherparse::{
    Ethernet2Header, LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanSlice,
};
use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::port::Port;
use nautilus_dataplane::worker::{Served, Worker, run};
use nautilus_dataplane::xsk::UmemSpec;
use nautilus_shm::cells::PollPolicy;
use nautilus_tests::lab::{CLIENT, node};
use nautilus_tests::wire::Wire;

use super::rig::{ECHO_PORT, Rig, RigSpec, StopOnDrop, assert_conserved};

/// Frames sent, unless `NAUTILUS_PEER_FRAMES` says another number.
const COUNT: u64 = 20_000;

/// Frames outstanding: a veth without room for more (256) drops, and nothing may be lost here.
const WINDOW: u64 = 64;

const CLIENT_PORT: u16 = 40_007;

/// How long the next reply may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What frame `number` is; nothing of it repeats within a window.
struct Question {
    number: u64,
    v6: bool,
    tag: Option<u16>,
    payload: Vec<u8>,
}

impl Question {
    fn new(number: u64) -> Self {
        let length = 8 + (mix(number) % 1_393) as usize;
        let mut payload = number.to_le_bytes().to_vec();
        for step in 0u64.. {
            if payload.len() >= length {
                break;
            }
            payload.extend(mix(number << 12 | step).to_le_bytes());
        }
        payload.truncate(length);
        let tag = (number & 2 != 0).then_some(1 + (number % 4_094) as u16);
        Self { number, v6: number & 1 != 0, tag, payload }
    }

    /// Source and destination.
    fn addresses(&self) -> [IpAddr; 2] {
        [CLIENT, node(1)].map(|one| one.both()[usize::from(self.v6)])
    }

    fn write(&self, macs: [[u8; 6]; 2], mut frame: &mut [u8]) -> usize {
        let room = frame.len();
        let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
        let (source, destination) = (CLIENT_PORT, ECHO_PORT);
        let ip = match (self.addresses(), self.tag) {
            ([IpAddr::V4(from), IpAddr::V4(to)], None) => {
                ethernet.ipv4(from.octets(), to.octets(), 64)
            }
            ([IpAddr::V4(from), IpAddr::V4(to)], Some(tag)) => {
                ethernet.single_vlan(tag.try_into().unwrap()).ipv4(from.octets(), to.octets(), 64)
            }
            ([IpAddr::V6(from), IpAddr::V6(to)], None) => {
                ethernet.ipv6(from.octets(), to.octets(), 64)
            }
            ([IpAddr::V6(from), IpAddr::V6(to)], Some(tag)) => {
                ethernet.single_vlan(tag.try_into().unwrap()).ipv6(from.octets(), to.octets(), 64)
            }
            _ => unreachable!("both of one family"),
        };
        ip.udp(source, destination).write(&mut frame, &self.payload).unwrap();
        room - frame.len()
    }
}

/// SplitMix64's output function.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The number of the question this frame answers, after everything in it was compared; `None` for
/// what the node's kernel says on its own account.
fn answered(frame: &[u8], macs: [[u8; 6]; 2]) -> Option<u64> {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a frame that parses");
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else { return None };
    assert_eq!((udp.source_port(), udp.destination_port()), (ECHO_PORT, CLIENT_PORT));
    let payload = udp.payload();
    let number = u64::from_le_bytes(*payload.first_chunk().expect("a number"));
    let question = Question::new(number);
    assert_eq!(payload, question.payload, "payload of {number}");

    let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
        panic!("{number}: no Ethernet")
    };
    let Ethernet2Header { source, destination, .. } = ethernet.to_header();
    assert_eq!([destination, source], macs, "MAC addresses of {number}");
    let tag = sliced.vlan().map(|vlan| match vlan {
        VlanSlice::SingleVlan(tag) => tag.vlan_identifier().value(),
        VlanSlice::DoubleVlan(_) => panic!("{number} has two tags"),
    });
    assert_eq!(tag, question.tag, "tag of {number}");

    let [ours, theirs] = question.addresses();
    let transport = udp.to_header();
    let (addresses, checksum, header_bytes): ([IpAddr; 2], _, _) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "{number}");
            let checksum = transport.calc_checksum_ipv4(&header, payload);
            ([header.source.into(), header.destination.into()], checksum, 20)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let checksum = transport.calc_checksum_ipv6(&header, payload);
            ([header.source.into(), header.destination.into()], checksum, 40)
        }
        other => panic!("{number}: no IP but {other:?}"),
    };
    assert_eq!(addresses, [theirs, ours], "addresses of {number}");
    assert_eq!(udp.checksum(), checksum.unwrap(), "UDP checksum of {number}");
    let link_bytes = if tag.is_some() { 18 } else { 14 };
    assert_eq!(frame.len(), link_bytes + header_bytes + 8 + payload.len(), "length of {number}");
    Some(number)
}

/// Sends the questions and returns when each has been answered once; panics on anything else.
fn interrogate(wire: &mut Wire, macs: [[u8; 6]; 2], count: u64) {
    let mut seen = vec![false; count as usize];
    let (mut sent, mut back) = (0, 0);
    let mut last = Instant::now();
    let mut take = |wire: &mut Wire, sent: u64| {
        let mut new = 0;
        wire.receive(|frame| {
            let Some(number) = answered(frame, macs) else { return };
            assert!(number < sent, "{number} was not asked yet");
            assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} came twice");
            new += 1;
        });
        new
    };
    while back < count {
        while sent < count && sent - back < WINDOW {
            let question = Question::new(sent);
            assert_eq!(question.number, sent);
            if !wire.push(|frame| question.write(macs, frame)) {
                break;
            }
            sent += 1;
        }
        if wire.is_sending() {
            wire.flush().unwrap();
        }
        let new = take(wire, sent);
        back += new;
        if new > 0 {
            last = Instant::now();
        }
        assert!(last.elapsed() < PATIENCE, "{} of {sent} frames unanswered", sent - back);
    }
    // A duplicate may be late.
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        assert_eq!(take(wire, sent), 0);
    }
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn an_independent_peer_gets_every_frame_back_once_and_unchanged() {
    let count = match std::env::var("NAUTILUS_PEER_FRAMES") {
        Ok(text) => text.parse().expect("NAUTILUS_PEER_FRAMES is a number"),
        Err(_) => COUNT,
    };
    for budget in [None, Some(64)] {
        let umem = UmemSpec::new(512, 2048, false);
        let rig = Rig::with(RigSpec { umem, busy_poll_budget: budget, client_passes: false });
        let mut wire = rig.client.run(|| Wire::open("eth0").unwrap());
        let macs = [rig.next_hop.hop.mac, rig.next_hop.hop.source_mac];
        let port = rig.port();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let worker = scope.spawn(move || {
                let apps = (Some(Served { ports: vec![ECHO_PORT], app: Echo::default() }), ());
                let mut worker = Worker::new(port, apps, (), PollPolicy::Adaptive);
                run(&mut worker, stop);
                worker
            });
            let guard = StopOnDrop(stop);
            interrogate(&mut wire, macs, count);
            drop(guard);
            let worker = worker.join().unwrap();
            let counters = worker.port.counters();
            assert_eq!((counters.received_count, counters.sent_count), (count, count));
            assert_eq!(counters.discarded_count.iter().sum::<u64>(), 0);
            assert_eq!((counters.no_frame_count, counters.no_neighbour_count), (0, 0));
            assert_eq!(counters.unstamped_count, 0);
            assert_eq!(worker.port.frame_counts().held, 0);
            assert_conserved(&worker.port);
        });
        let tally = rig.steering.verdicts().unwrap().get(nautilus_ebpf::Verdict::Redirected);
        assert_eq!(tally.packet_count, count);
    }
}
