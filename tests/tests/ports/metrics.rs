//! What a worker writes into a control region, read as `nautilus top` reads it: through a read-only
//! descriptor of the same memory.

use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::net::{Endpoint, LinkAddress, build};
use nautilus_dataplane::port::{Port, PortCounters, XdpPort};
use nautilus_dataplane::worker::{RegionNextHops, RegionReport, Served, Totals, Worker, run};
use nautilus_shm::cells::PollPolicy;
use nautilus_shm::control_region::{
    ControlReader, ControlRegion, HistogramId, NEIGHBOUR_REQUESTS_MAX, NeighbourRequest,
};
use nautilus_shm::ledger::FrameState;
use nautilus_shm::metrics::MetricSnapshot;
use nautilus_shm::metrics::labels::{FrameOwner, Label, RxDrop, TxDrop};
use nautilus_shm::metrics::table;
use nautilus_shm::next_hops::{Address, LinkEntry, Mirror, Neighbour, Route};
use nautilus_tests::frames::FrameSocket;
use nautilus_tests::lab::{CLIENT, node};

use super::conformance::{Client, pattern};
use super::rig::{ECHO_PORT, FRAMES, Rig, StopOnDrop};

/// The worker's slot; not the first, so that a wrong one shows.
const SLOT: usize = 3;

fn address(v4: std::net::Ipv4Addr) -> Address {
    v4.to_ipv6_mapped().octets()
}

/// A control region whose next hops lead to the client and nobody else.
fn region(rig: &Rig) -> (ControlRegion, ControlReader) {
    let region = ControlRegion::create(c"nautilus-control").unwrap();
    let ifindex = rig.next_hop.ifindex;
    let hop = rig.next_hop.hop;
    let mut mirror = Mirror {
        links: vec![LinkEntry {
            ifindex,
            parent: ifindex,
            vlans: [0; 2],
            mac: hop.source_mac,
            mtu_bytes: hop.mtu_bytes,
        }],
        addresses: Vec::new(),
        routes: vec![Route {
            prefix: address(CLIENT.v4()),
            prefix_bits: 120,
            gateway: None,
            ifindex,
            metric: 0,
        }],
        neighbours: vec![Neighbour { address: address(CLIENT.v4()), ifindex, mac: hop.mac }],
    };
    assert_eq!(region.next_hops().publish(&mut mirror).total(), 0);
    let reader = ControlRegion::attach_reader(region.reopen_read_only().unwrap()).unwrap();
    (region, reader)
}

/// Serves echo as the worker of `SLOT` while `client` does its part, then says what the worker
/// itself has counted.
fn serve(
    rig: &Rig,
    region: &ControlRegion,
    generation: u64,
    policy: PollPolicy,
    client: impl FnOnce(),
) -> (Totals, PortCounters) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let socket = rig.socket();
        let worker = scope.spawn(move || {
            let next_hops = RegionNextHops::new(region, SLOT, generation).unwrap();
            let port: XdpPort<_> = rig.port_over(socket, next_hops);
            let apps = (Some(Served { ports: vec![ECHO_PORT], app: Echo::default() }), ());
            let mut worker = Worker::new(port, apps, RegionReport::new(region, SLOT), policy);
            run(&mut worker, stop);
            assert!(worker.port.frames_add_up());
            (*worker.totals(), worker.port.counters().clone())
        });
        let guard = StopOnDrop(stop);
        client();
        drop(guard);
        worker.join().unwrap()
    })
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One echo request as the client's stack would not send it.
fn forged(rig: &Rig, from: Endpoint) -> Vec<u8> {
    let to = Endpoint::new(node(1).v4().into(), ECHO_PORT);
    let link = LinkAddress {
        destination: rig.next_hop.hop.source_mac,
        source: rig.next_hop.hop.mac,
        vlans: [0; 2],
    };
    let mut frame = vec![0; build::header_bytes([0; 2], true)];
    frame.extend_from_slice(&pattern(1, 40));
    build::headers(&mut frame, &link, &from, &to);
    frame
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_workers_figures_reach_a_reader_and_go_on_with_its_successor() {
    /// Requests each worker answers.
    const ECHOES: u64 = 300;
    let rig = Rig::new();
    let (region, reader) = region(&rig);
    let mut client = rig.kernel_client(node(1).v4().into(), CLIENT.v4().into());
    let (mut loops, mut idle, mut sleeps, mut syscalls) = (0, 0, 0, 0);
    for (round, policy) in [PollPolicy::Busy, PollPolicy::Adaptive].into_iter().enumerate() {
        let before = reader.metrics(SLOT);
        let (totals, port) = serve(&rig, &region, round as u64 + 1, policy, || {
            for number in 0..ECHOES as usize {
                client.send(&pattern(number, 100));
                assert_eq!(client.receive(), Some(pattern(number, 100)));
            }
            wait_for("a publication", || {
                reader.metrics(SLOT).counter(table::TX_PACKETS) >= ECHOES * (round as u64 + 1)
            });
        });
        let count = ECHOES * (round as u64 + 1);
        let after = reader.metrics(SLOT);
        assert_eq!(after.counter(table::RX_PACKETS), count);
        assert_eq!(after.counter(table::TX_PACKETS), count);
        assert_eq!(after.counter(table::RX_BYTES), count * 100);
        assert_eq!(after.counter(table::TX_BYTES), count * 100);
        assert_eq!(after.counter(table::RX_UNSTAMPED_PACKETS), 0);
        loops += totals.loops;
        idle += totals.idle_loops;
        sleeps += totals.sleeps;
        syscalls += totals.sleeps + port.tx_wakeup_count + port.rx_wakeup_count;
        assert_eq!(after.counter(table::LOOPS), loops);
        assert_eq!(after.counter(table::LOOPS_IDLE), idle);
        assert_eq!(after.counter(table::SLEEPS), sleeps);
        assert_eq!(after.counter(table::SYSCALLS), syscalls);
        assert_eq!(totals.sleeps == 0, matches!(policy, PollPolicy::Busy));
        assert!(port.tx_wakeup_count > 0 && port.tx_wakeup_count <= ECHOES);
        assert!(after.counter(table::BUSY_NS) > before.counter(table::BUSY_NS));
        assert_eq!(reader.histogram(SLOT, HistogramId::BusyTurn).count(), loops - idle);
        assert_eq!(reader.histogram(SLOT, HistogramId::XdpToTx).count(), count);
        let busy_ns = after.counter(table::BUSY_NS);
        assert_eq!(reader.histogram(SLOT, HistogramId::BusyTurn).sum(), busy_ns);
        let frames: u64 =
            FrameOwner::ALL.iter().map(|owner| after.gauge(table::FRAMES.of(*owner))).sum();
        assert_eq!(frames, u64::from(FRAMES));
        assert_eq!(after.counter(table::FRAMES_LOST), 0);
        assert_eq!(dropped(&after), 0, "nothing was refused");
    }
    // Nobody else wrote, and the worker nothing of anybody else's.
    assert_eq!(reader.metrics(SLOT - 1), MetricSnapshot::default());
    assert_eq!(reader.metrics(SLOT + 1), MetricSnapshot::default());
}

fn dropped(snapshot: &MetricSnapshot) -> u64 {
    let rx = |reason: &RxDrop| snapshot.counter(table::RX_DROPPED_PACKETS.of(*reason));
    let tx = |reason: &TxDrop| snapshot.counter(table::TX_DROPPED_PACKETS.of(*reason));
    RxDrop::ALL.iter().map(rx).sum::<u64>() + TxDrop::ALL.iter().map(tx).sum::<u64>()
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_missing_neighbour_is_asked_for_and_counted() {
    /// More than the request ring holds, from as many addresses.
    const REQUESTS: usize = NEIGHBOUR_REQUESTS_MAX + 40;
    let rig = Rig::new();
    let (region, reader) = region(&rig);
    let frames = rig.client.run(|| FrameSocket::open("eth0").unwrap());
    let strangers = (0..REQUESTS).map(|number| {
        // In the subnet, so that there is a route, and never the client.
        Endpoint::v4([198, 18, 0, 100 + (number % 100) as u8], 1024 + number as u16)
    });
    let strangers: Vec<Endpoint> = strangers.collect();
    serve(&rig, &region, 1, PollPolicy::Busy, || {
        for from in &strangers {
            frames.send(&forged(&rig, *from)).unwrap();
        }
        wait_for("every request", || {
            reader.metrics(SLOT).counter(table::RX_PACKETS) == REQUESTS as u64
        });
    });
    let after = reader.metrics(SLOT);
    let full = (REQUESTS - NEIGHBOUR_REQUESTS_MAX) as u64;
    assert_eq!(after.counter(table::NEIGHBOUR_REQUESTS), NEIGHBOUR_REQUESTS_MAX as u64);
    assert_eq!(after.counter(table::NEIGHBOUR_REQUESTS_FULL), full);
    assert_eq!(after.counter(table::NEXT_HOP_BUSY), 0);
    let unsent = after.counter(table::TX_DROPPED_PACKETS.of(TxDrop::NoNeighbour));
    assert_eq!(unsent, REQUESTS as u64);
    assert_eq!(after.counter(table::TX_PACKETS), 0);
    // What the supervisor takes out is who asked, in order.
    let mut requests = region.neighbour_requests(SLOT).consumer();
    for from in &strangers[..NEIGHBOUR_REQUESTS_MAX] {
        let entry = requests.pop().unwrap().expect("a request");
        let request = NeighbourRequest::from_words(entry.words);
        assert_eq!(
            request,
            NeighbourRequest { address: from.address, ifindex: rig.next_hop.ifindex }
        );
        assert_eq!(entry.generation, 1);
    }
    assert!(requests.pop().unwrap().is_none());
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn what_the_kernel_may_not_name_is_refused_and_counted() {
    let rig = Rig::new();
    let (region, reader) = region(&rig);
    let mut client = rig.kernel_client(node(1).v4().into(), CLIENT.v4().into());
    let descriptors = table::RX_DROPPED_PACKETS.of(RxDrop::Descriptor);
    serve(&rig, &region, 1, PollPolicy::Busy, || {
        client.send(b"before");
        assert_eq!(client.receive(), Some(b"before".to_vec()));
        // Frames the kernel has for reception, no longer so in the ledger: what it delivers in
        // them looks like a descriptor it made up.
        let umem = std::fs::File::from(rig.binding.fds.umem.try_clone().unwrap());
        let states = rig.binding.spec.umem.frame_bytes() as u64;
        let mut taken = vec![0; FRAMES as usize];
        umem.read_exact_at(&mut taken, states).unwrap();
        let untrue: Vec<u8> = taken
            .iter()
            .map(|state| match *state == FrameState::Rx as u8 {
                true => FrameState::Free as u8,
                false => *state,
            })
            .collect();
        umem.write_all_at(&untrue, states).unwrap();
        for _ in 0..3 {
            client.send(b"lost");
        }
        wait_for("the refusals", || reader.metrics(SLOT).counter(descriptors) == 3);
        umem.write_all_at(&taken, states).unwrap();
        // Closing it would end the worker's record lock, which belongs to this process.
        std::mem::forget(umem);
    });
    assert_eq!(reader.metrics(SLOT).counter(table::RX_PACKETS), 1);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_lost_frame_is_noticed() {
    let rig = Rig::new();
    let (region, reader) = region(&rig);
    let mut socket = rig.socket();
    // A token that is dropped instead of being given back.
    drop(socket.hold().unwrap());
    let port = rig.port_over(socket, rig.next_hop);
    assert!(!port.frames_add_up());
    let mut worker = Worker::new(port, (), RegionReport::new(&region, SLOT), PollPolicy::Busy);
    wait_for("the count", || {
        worker.turn();
        reader.metrics(SLOT).counter(table::FRAMES_LOST) > 0
    });
    assert_eq!(reader.metrics(SLOT).gauge(table::FRAMES.of(FrameOwner::Held)), 1);
}
