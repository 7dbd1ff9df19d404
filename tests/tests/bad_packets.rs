//! Frames that broke real parsers, and frames that are forbidden, against a node that serves clients
//! meanwhile: no wrong value, no lost frame, every packet counted once.
//!
//! ```text
//!   client --- bridge --- eth0 | node
//!   intruder ------------ eth1 |        a link of its own: a bridge keeps some frames to itself
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nautilus_tests::captures;
use nautilus_tests::forge::{self, Target, fragments_v4, tagged};
use nautilus_tests::frames::FrameSocket;
use nautilus_tests::lab::node_file::{CACHE_PORT, ECHO_PORT, FEED_GROUP};
use nautilus_tests::lab::{End, Folder, Lab, LabError, NetNs, NodeFile, RunId, VethPair};
use nautilus_tests::load::{self, Plan};
use nautilus_tests::memcached::Client;
use nautilus_tests::repository::data_or_skip;
use nautilus_tests::scrape::Samples;
use nautilus_tests::values;
use nautilus_tests::wait::wait_until;
use nix::errno::Errno;

/// Frames of `bad-packets` that a 1,500-byte link carries.
const FRAMES_CARRIED: usize = 1942;
/// Rounds of bad frames are repeated this long at least, and until there were enough writes.
const ATTACK_MIN: Duration = Duration::from_secs(8);
/// After which too few writes are a failure.
const ATTACK_MAX: Duration = Duration::from_secs(60);
/// Reads, and writes, that fall inside the attack at least.
const REQUESTS_MIN: u64 = 5000;
/// How long counters may take to reach `/metrics` after the last packet.
const SETTLE: Duration = Duration::from_secs(10);

/// Pause between two looks that must agree; longer than the supervisor takes to copy its counters.
const QUIET: Duration = Duration::from_millis(1200);

const NODE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 11);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6e61, 0, 1, 0, 0, 0, 0x11);
const LISTED_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
const LISTED_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6e61, 0, 1, 0, 0, 0, 2);
const UNLISTED_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

struct Ring {
    lab: Lab,
    intruder: FrameSocket,
    node_mac: [u8; 6],
    _link: VethPair,
}

impl Ring {
    fn start() -> Self {
        let run = RunId::draw();
        let folder = Arc::new(Folder::create(run).unwrap());
        let intruder = Arc::new(NetNs::create(run, "intruder").unwrap());
        // The intruder's own kernel says nothing: every frame on the link is the test's.
        intruder.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
        let mut link = None;
        let prepare = |_: usize, node: &Arc<NetNs>, file: &mut NodeFile| -> Result<(), LabError> {
            let mut pair = VethPair::create((&intruder, "out"), (node, "eth1"))?;
            pair.pass_on(End::First)?;
            node.ip(&format!("address add {NODE_V4}/24 dev eth1"))?;
            node.ip(&format!("address add {NODE_V6}/64 dev eth1"))?;
            for address in [IpAddr::from(LISTED_V4), LISTED_V6.into()] {
                node.ip(&format!("neigh add {address} lladdr 02:00:00:00:00:77 dev eth1"))?;
            }
            file.interfaces.push("eth1".into());
            file.sources.extend(["198.18.1.0/24".into(), "fd00:6e61:0:1::/64".into()]);
            link = Some(pair);
            Ok(())
        };
        let mut lab = Lab::start(folder, run, 1, prepare).unwrap();
        lab.start_control().unwrap();
        let node = &lab.nodes()[0].member.namespace;
        let node_mac = node.run(|| FrameSocket::open("eth1").unwrap().mac());
        let socket = intruder.run(|| FrameSocket::open("out").unwrap());
        Self { lab, intruder: socket, node_mac, _link: link.expect("prepare ran") }
    }

    /// Packets that came in on both interfaces, by the kernel's own counters.
    fn received(&self) -> [u64; 2] {
        let node = &self.lab.nodes()[0].member.namespace;
        ["eth0", "eth1"].map(|interface| {
            let path = format!("cat /sys/class/net/{interface}/statistics/rx_packets");
            node.exec(&path).unwrap().trim().parse().unwrap()
        })
    }

    fn metrics(&self) -> Samples {
        let mut samples = None;
        wait_until("control answers a scrape", SETTLE, || {
            samples = self.lab.metrics().ok();
            samples.is_some()
        })
        .unwrap();
        samples.unwrap()
    }

    fn count(&self) -> Counts {
        let received = self.received();
        Counts { received, samples: self.metrics() }
    }

    /// The counters at a moment when nothing moves.
    fn quiet(&self) -> Counts {
        let mut last = self.count();
        wait_until("nothing arrives", SETTLE, || {
            std::thread::sleep(QUIET);
            let next = self.count();
            let quiet = next.received == last.received
                && next.verdicts() == last.verdicts()
                && taken(&next.samples) == taken(&last.samples);
            last = next;
            quiet
        })
        .unwrap();
        last
    }

    /// Waits until every packet since `before` has one verdict, and every redirected one a fate;
    /// panics when that never holds.
    fn settled(&self, before: &Counts) -> Counts {
        let mut now = self.count();
        let caught_up = wait_until("every packet has a verdict and a fate", SETTLE, || {
            now = self.count();
            let change = now.samples.since(&before.samples);
            self.received() == now.received
                && now.verdicts() - before.verdicts() == now.total() - before.total()
                && redirected(&change) == taken(&change)
        });
        if let Err(error) = caught_up {
            panic!("{error}: before {:?}, now {:?}", before.received, now);
        }
        now
    }

    /// Sends what the link carries of `frames` and returns how many that were.
    fn send<'a>(&self, frames: impl IntoIterator<Item = &'a Vec<u8>>) -> usize {
        let mut sent = 0;
        for (number, frame) in frames.into_iter().enumerate() {
            match self.intruder.send(frame) {
                Ok(()) => sent += 1,
                Err(Errno::EINVAL) if frame.len() < 14 => {}
                Err(Errno::EMSGSIZE) if frame.len() > 1514 => {}
                Err(error) => panic!("frame {number} of {} bytes: {error}", frame.len()),
            }
        }
        sent
    }

    /// Sends, and returns how many packets the link carried: all of them reached the node.
    fn deliver<'a>(&self, what: &str, frames: impl IntoIterator<Item = &'a Vec<u8>>) -> usize {
        let [_, before] = self.received();
        let sent = self.send(frames);
        let arrived = || self.received()[1] - before;
        let all = wait_until("every frame has arrived", SETTLE, || arrived() == sent as u64);
        assert!(all.is_ok(), "{what}: {sent} sent, {} arrived", arrived());
        sent
    }
}

/// Counters of the kernel and of the node, taken together.
#[derive(Debug)]
struct Counts {
    received: [u64; 2],
    samples: Samples,
}

impl Counts {
    fn verdicts(&self) -> f64 {
        self.samples.sum("nautilus_xdp_packets_total", &[])
    }

    fn total(&self) -> f64 {
        self.received.iter().sum::<u64>() as f64
    }
}

fn redirected(samples: &Samples) -> f64 {
    verdict(samples, "redirected")
}

fn verdict(samples: &Samples, name: &str) -> f64 {
    samples.sum("nautilus_xdp_packets_total", &[&format!("\"{name}\"")])
}

/// What became of redirected packets.
fn taken(samples: &Samples) -> f64 {
    [
        "nautilus_worker_rx_packets_total",
        "nautilus_xsk_fill_ring_empty_total",
        "nautilus_xsk_rx_ring_full_total",
        "nautilus_xsk_rx_kernel_dropped_packets_total",
    ]
    .iter()
    .map(|name| samples.sum(name, &[]))
    .sum()
}

/// Reads and writes from the client until dropped by `stop`; returns (reads, writes), and panics on a
/// wrong value.
fn clients(lab: &Lab, stop: &AtomicBool, written: &AtomicU64) -> (u64, u64) {
    let server = SocketAddr::new(lab.nodes()[0].member.address.v4().into(), CACHE_PORT);
    let keys: Vec<String> = (0..200).map(|number| format!("own:{number}")).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = lab
                .client()
                .namespace
                .run(|| Client::connect(server, Duration::from_secs(2)))
                .unwrap();
            let mut version = 0;
            while !stop.load(Ordering::Relaxed) {
                let key = &keys[version as usize % keys.len()];
                // A datagram among the captured ones may find a full ring; a client asks again.
                let value = values::value(key, version);
                let stored = (0..5).find_map(|_| client.set(key, 0, &value).ok());
                assert!(stored.is_some(), "no answer to five writes of {key}");
                version += 1;
                written.store(version, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            version
        });
        let plan = Plan {
            server,
            keys: keys.clone(),
            rate_per_second: 1000,
            duration: Duration::from_secs(600),
        };
        let report = lab.client().namespace.run(|| {
            load::read(&plan, stop, |key, found| {
                found.is_none_or(|found| values::version_of(key, &found.bytes).is_some())
            })
        });
        let report = report.unwrap();
        assert_eq!(report.wrong, 0, "{:?}", report.first_wrong);
        assert!(report.hits > 0);
        (report.answered, writer.join().unwrap())
    })
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn captured_frames_harm_nobody() {
    let Some(data) = data_or_skip("captured_frames_harm_nobody") else { return };
    let captured = captures::frames(&data.join("bad-packets")).unwrap();
    let ring = Ring::start();
    let target = |port, sources| Target {
        mac: ring.node_mac,
        addresses: [NODE_V4.into(), NODE_V6.into()],
        sources,
        port,
    };
    let readdressed = |sources| -> Vec<Vec<u8>> {
        [ECHO_PORT, CACHE_PORT, FEED_GROUP.1]
            .iter()
            .flat_map(|&port| {
                captured
                    .iter()
                    .filter_map(move |frame| forge::readdress(frame, &target(port, sources)))
            })
            .collect()
    };
    let before = ring.quiet();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (reads, writes) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| clients(&ring.lab, &stop, &written));
        // The clients must be stopped before a panic leaves the scope, which waits for them.
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let unlisted = readdressed(None);
            let listed = readdressed(Some([LISTED_V4.into(), LISTED_V6.into()]));
            let began = Instant::now();
            let mut rounds = 0;
            while began.elapsed() < ATTACK_MIN
                || (written.load(Ordering::Relaxed) < REQUESTS_MIN && began.elapsed() < ATTACK_MAX)
            {
                rounds += 1;
                assert_eq!(ring.deliver("as captured", &captured), FRAMES_CARRIED);
                let sent = ring.deliver("readdressed, captured sources", &unlisted);
                assert_eq!(ring.deliver("readdressed, listed sources", &listed), sent);
                assert!(sent > 1000);
            }
            println!(
                "{rounds} rounds of {FRAMES_CARRIED} captured frames, {} readdressed from captured \
                 sources, as many from listed ones",
                unlisted.len()
            );
        }));
        stop.store(true, Ordering::Relaxed);
        let counts = clients.join().unwrap();
        if let Err(panic) = rounds {
            std::panic::resume_unwind(panic);
        }
        counts
    });
    let after = ring.settled(&before);
    let change = after.samples.since(&before.samples);
    assert!(reads >= REQUESTS_MIN && writes >= REQUESTS_MIN, "{reads} reads, {writes} writes");
    println!("{reads} reads and {writes} writes, 0 wrong values");
    for (labels, packets) in change.series("nautilus_xdp_packets_total") {
        println!("{packets:8} {labels}");
    }
    // Captured sources are on no list; some of them are no sources at all.
    assert!(verdict(&change, "source_unlisted") > 500.0);
    // More than the clients' own requests: the readdressed frames of listed sources.
    assert!(redirected(&change) > (reads + writes) as f64 + 500.0);
    assert_frames_conserved(&after.samples);
}

/// Every frame of both queues is in one place, and none was ever missed.
fn assert_frames_conserved(samples: &Samples) {
    let frames = samples.sum("nautilus_worker_frames", &[]);
    assert_eq!(frames, 2.0 * f64::from(NodeFile::new("", "").frames), "frames by owner add up");
    assert_eq!(samples.sum("nautilus_worker_lost_frames_total", &[]), 0.0);
}

/// A UDP frame from `source` to `port` of the node.
fn udp(ring: &Ring, source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x77], ring.node_mac)
        .ipv4(source.octets(), NODE_V4.octets(), 64)
        .udp(40_000, port)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A TCP SYN from `source` to `port` of the node.
fn syn(ring: &Ring, source: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x77], ring.node_mac)
        .ipv4(source.octets(), NODE_V4.octets(), 64)
        .tcp(40_000, port, 1, 1024)
        .syn()
        .write(&mut frame, &[])
        .unwrap();
    frame
}

/// Whether anything came back over the link that answers the intruder.
fn answered(ring: &Ring) -> bool {
    let mut buffer = [0; 2048];
    while let Some(frame) = ring.intruder.receive(&mut buffer, Duration::from_millis(300)).unwrap()
    {
        // The node's kernel may ask for the unlisted source's MAC or announce itself; an answer is
        // UDP or TCP.
        let is_ip = frame.get(12..14) == Some(&[8, 0]);
        if is_ip && matches!(frame.get(23), Some(17 | 6)) {
            return true;
        }
    }
    false
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_forbidden_packet_is_refused_in_every_dress() {
    let ring = Ring::start();
    let mut before = ring.quiet();
    let mut send = |what: &str, frames: &[Vec<u8>]| {
        let sent = ring.deliver(what, frames);
        let after = ring.settled(&before);
        let change = after.samples.since(&before.samples);
        before = after;
        (sent as f64, change)
    };
    let request = [&[0, 1, 0, 0, 0, 1, 0, 0][..], b"get own:1\r\n", &[b'x'; 60]].concat();
    for port in [ECHO_PORT, CACHE_PORT] {
        // That the question is answered when it is allowed shows that a refusal means something.
        let allowed = udp(&ring, LISTED_V4, port, &request);
        let (_, change) = send("allowed", &[allowed]);
        assert_eq!(verdict(&change, "redirected"), 1.0);
        assert!(answered(&ring), "port {port}: a listed source is answered");

        let whole = udp(&ring, UNLISTED_V4, port, &request);
        let parts = fragments_v4(&whole, 40);
        let dresses: [(&str, Vec<Vec<u8>>, &str); 5] = [
            ("whole", vec![whole.clone()], "source_unlisted"),
            ("tagged", vec![tagged(&whole, 5)], "source_unlisted"),
            ("tagged twice", vec![tagged(&tagged(&whole, 5), 6)], "source_unlisted"),
            ("fragmented", parts, "fragment"),
            ("TCP", vec![syn(&ring, UNLISTED_V4, port)], "tcp_source_unlisted"),
        ];
        for (dress, frames, expected) in dresses {
            let (sent, change) = send(dress, &frames);
            assert_eq!(verdict(&change, expected), sent, "port {port}, {dress}");
            assert_eq!(verdict(&change, "redirected"), 0.0, "port {port}, {dress}");
            assert!(!answered(&ring), "port {port}, {dress}: answered");
        }
    }
}
