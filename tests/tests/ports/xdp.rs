//! The AF_XDP port over veth behind the steering program, against the kernel's own UDP stack.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_dataplane::app::echo::Echo;
use nautilus_dataplane::net::{Endpoint, LinkAddress, RxChecksum, build, ethernet, parse};
use nautilus_dataplane::port::xdp::{NextHop, NextHops, XdpPort, XdpPortSocket};
use nautilus_dataplane::port::{Burst, Port};
use nautilus_dataplane::worker::{Served, Worker, run};
use nautilus_dataplane::xsk::{Binding, BindingSpec, CopyMode, Mapped, UmemSpec, XskError};
use nautilus_ebpf::intf::{Interface, Permissions, Service};
use nautilus_ebpf::{Options, Steering, XdpLink};
use nautilus_shm::cells::PollPolicy;
use nautilus_tests::frames::FrameSocket;
use nautilus_tests::lab::{CLIENT, End, NetNs, RunId, VethPair, node};

use super::KernelClient;
use super::conformance::{self, Client, pattern};

const ECHO_PORT: u16 = 7;
const FRAMES: u32 = 1024;

/// One neighbour: the client at the other end of the link.
#[derive(Clone, Copy)]
struct OneNeighbour {
    hop: NextHop,
    ifindex: u32,
}

impl NextHops for OneNeighbour {
    fn lookup(&mut self, ifindex: u32, _vlans: [u16; 2], to: &Endpoint) -> Option<NextHop> {
        (ifindex == self.ifindex && CLIENT.both().contains(&to.ip())).then_some(self.hop)
    }
}

/// Node and client, the steering program, and a bound socket. Fields drop in this order.
struct Rig {
    binding: Binding,
    steering: Steering,
    _link: XdpLink,
    next_hop: OneNeighbour,
    client: Arc<NetNs>,
    _pair: VethPair,
    _node: Arc<NetNs>,
}

impl Rig {
    fn new() -> Self {
        Self::with(UmemSpec::new(FRAMES, 2048, false))
    }

    fn with(umem: UmemSpec) -> Self {
        let run = RunId::draw();
        let client = Arc::new(NetNs::create(run, "client").unwrap());
        let ours = Arc::new(NetNs::create(run, "node").unwrap());
        let mut pair = VethPair::create((&client, "eth0"), (&ours, "eth0")).unwrap();
        pair.pass_on(End::First).unwrap();
        pair.address(CLIENT).unwrap();
        let mac = |namespace: &NetNs| namespace.run(|| FrameSocket::open("eth0").unwrap().mac());
        let (client_mac, our_mac) = (mac(&client), mac(&ours));
        for address in node(1).both() {
            let mac = our_mac.map(|byte| format!("{byte:02x}")).join(":");
            client
                .ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"))
                .unwrap();
        }
        // An IPv6 address is only usable once duplicate detection is over.
        client.ip(&format!("address replace {}/64 dev eth0 nodad", CLIENT.v6())).unwrap();
        let (binding, steering, link, ifindex) = ours.run(|| {
            let ifindex = nix::net::if_::if_nametoindex("eth0").unwrap();
            let steering = Steering::load(Options::default()).unwrap();
            let interface = Interface { mac: our_mac, queue_count: 1, first_socket: 0 };
            steering.set_interface(ifindex, interface).unwrap();
            for prefix in nautilus_tests::lab::SUBNETS {
                steering.set_source(prefix.parse().unwrap(), Permissions::ALL).unwrap();
            }
            for address in node(1).both() {
                steering.serve_address(address).unwrap();
            }
            let service = Service { id: 1, flags: Service::UDP | Service::UNICAST };
            steering.set_service(ECHO_PORT, service).unwrap();
            let spec = BindingSpec {
                ifindex,
                queue: 0,
                mode: CopyMode::Copy,
                umem,
                busy_poll_budget: None,
            };
            let binding = Binding::create(&spec).unwrap();
            steering.set_socket(0, binding.fds.socket.as_fd()).unwrap();
            let link = steering.attach(ifindex).unwrap();
            (binding, steering, link, ifindex)
        });
        assert!(binding.maps_when_bound, "this kernel cannot hand sockets over");
        let hop = NextHop { mac: client_mac, source_mac: our_mac, mtu_bytes: 1500 };
        let next_hop = OneNeighbour { hop, ifindex };
        Self { binding, steering, _link: link, next_hop, client, _pair: pair, _node: ours }
    }

    /// What a worker does with the descriptors it was handed.
    fn port(&self) -> XdpPort<OneNeighbour> {
        let mapped = Mapped::map(self.binding.fds.try_clone().unwrap()).unwrap();
        let ifindex = mapped.ifindex();
        let (socket, recovered) = mapped.take_over().unwrap();
        assert_eq!(recovered.refused, 0);
        let socket = XdpPortSocket { socket, interface: 0, ifindex };
        XdpPort::new(vec![socket], self.next_hop, RxChecksum::Verify)
    }

    fn kernel_client(&self, ours: IpAddr, theirs: IpAddr) -> KernelClient {
        let service = SocketAddr::new(ours, ECHO_PORT);
        self.client.run(|| KernelClient::connect(SocketAddr::new(theirs, 0), service))
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Frames add up, by the worker's own counters and by the state bytes.
fn assert_conserved(port: &XdpPort<OneNeighbour>) {
    for socket in port.sockets() {
        assert_eq!(socket.counts(), socket.ledger().recount());
        assert_eq!(socket.counts().total(), socket.umem().spec().frames);
        assert_eq!(socket.counters().refused_descriptor_count, 0);
        assert_eq!(socket.counters().refused_index_count, 0);
    }
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn the_xdp_port_conforms() {
    let rig = Rig::new();
    let mut port = rig.port();
    for (ours, theirs) in node(1).both().into_iter().zip(CLIENT.both()) {
        conformance::run(&mut port, &mut rig.kernel_client(ours, theirs));
        assert_conserved(&port);
    }
    assert_eq!(port.counters().unstamped_count, 0, "the program stamps every packet");
    let tally = rig.steering.verdicts().unwrap().get(nautilus_ebpf::Verdict::Redirected);
    assert_eq!(tally.packet_count, port.counters().received_count);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_reply_keeps_the_tags_of_its_request() {
    let rig = Rig::new();
    let port = rig.port();
    let stop = AtomicBool::new(false);
    let frames = rig.client.run(|| FrameSocket::open("eth0").unwrap());
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let apps = (Some(Served { ports: vec![ECHO_PORT], app: Echo::default() }), ());
            let mut worker = Worker::new(port, apps, (), PollPolicy::Adaptive);
            run(&mut worker, stop);
            assert_conserved(&worker.port);
        });
        // A failed assertion must end the worker, or the scope would wait for ever.
        let _stop = StopOnDrop(stop);
        let service = ethernet::SERVICE_TAG_BIT;
        for (number, vlans) in [[0, 0], [5, 0], [100, 200], [100 | service, 200], [9 | service, 0]]
            .into_iter()
            .enumerate()
        {
            for (ours, theirs) in node(1).both().into_iter().zip(CLIENT.both()) {
                let (from, to) = (Endpoint::new(theirs, 999), Endpoint::new(ours, ECHO_PORT));
                let payload = pattern(number, 33);
                let link = LinkAddress {
                    destination: rig.next_hop.hop.source_mac,
                    source: rig.next_hop.hop.mac,
                    vlans,
                };
                let mut frame = vec![0; build::header_bytes(vlans, to.is_v4())];
                frame.extend_from_slice(&payload);
                build::headers(&mut frame, &link, &from, &to);
                frames.send(&frame).unwrap();
                let mut buffer = vec![0; 2048];
                let reply = loop {
                    let received = frames.receive(&mut buffer, Duration::from_secs(2)).unwrap();
                    let received = received.expect("a reply to a tagged frame");
                    let parsed = parse::parse(received, RxChecksum::Verify);
                    if let Ok(parsed) = parsed
                        && parsed.source == to
                    {
                        break (parsed, received.to_vec());
                    }
                };
                // The packet socket takes the outermost tag off; the ones behind it stay.
                let inner = if vlans[1] == 0 { [0, 0] } else { [vlans[1], 0] };
                assert_eq!((reply.0.destination, reply.0.vlans), (from, inner));
                assert_eq!(reply.1[reply.0.payload_offset.into()..], payload);
            }
        }
    });
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn a_dead_workers_socket_goes_on_without_rebinding() {
    let rig = Rig::new();
    let (ours, theirs) = (node(1).v4().into(), CLIENT.v4().into());
    let mut client = rig.kernel_client(ours, theirs);
    let mut lost = 0;
    for round in 0..50 {
        let mut port = rig.port();
        // Nobody else may take it over while this one lives.
        let second = Mapped::map(rig.binding.fds.try_clone().unwrap()).unwrap();
        assert!(matches!(second.take_over(), Err(XskError::Owned { .. })));

        for number in 0..10 {
            client.send(&pattern(round * 100 + number, 200));
        }
        // Dies with part of what arrived in hand, as SIGKILL would leave it.
        let held = port.receive();
        lost += held;
        assert_eq!(port.frame_counts().held as usize, held);
        for index in 0..held {
            assert_eq!(port.split().0.get(index).payload, pattern(round * 100 + index, 200));
        }
        drop(port);
        // Sent while no worker runs: waits for the next one.
        client.send(&pattern(round, 300));
        let mut heir = rig.port();
        assert_eq!(heir.frame_counts().held, 0);
        assert_conserved(&heir);
        let waiting = heir.receive();
        assert_eq!(held + waiting, 11);
        let last = heir.split().0.get(waiting - 1).payload.to_vec();
        assert_eq!(last, pattern(round, 300));
        heir.release();
        heir.flush();
        assert_conserved(&heir);
    }
    assert!(lost > 0);
}

#[test]
#[ignore = "privileged: makes network namespaces"]
fn an_overflowed_rx_ring_loses_packets_and_no_frame() {
    // The rx ring is smaller than the fill ring: it overflows while nobody reads.
    let rig = Rig::with(UmemSpec {
        entries: [FRAMES, 64, FRAMES, FRAMES],
        ..UmemSpec::new(FRAMES, 2048, false)
    });
    let mut client = rig.kernel_client(node(1).v4().into(), CLIENT.v4().into());
    for _ in 0..5 {
        for number in 0..500 {
            client.send(&pattern(number, 100));
        }
        let mut port = rig.port();
        let mut received = 0;
        loop {
            let count = port.receive();
            if count == 0 {
                break;
            }
            for index in 0..count {
                assert_eq!(port.split().0.get(index).payload, pattern(received + index, 100));
            }
            received += count;
            port.release();
            port.flush();
            assert_conserved(&port);
        }
        assert_eq!(received, 64);
        let statistics = port.sockets().next().unwrap().statistics().unwrap();
        assert!(statistics.rx_ring_full_count > 0, "{statistics:?}");
        // All that was lost is still with the kernel, and comes back as packets do.
        client.send(b"after");
        assert_eq!(port.receive(), 1);
        assert_eq!(port.split().0.get(0).payload, b"after");
        port.release();
        port.flush();
        assert_conserved(&port);
    }
}
