//! Node and client joined by a veth pair, the steering program, and a bound AF_XDP socket.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nautilus_dataplane::net::{Endpoint, RxChecksum};
use nautilus_dataplane::port::xdp::{NextHop, NextHops, XdpPortSocket};
use nautilus_dataplane::port::{Port, XdpPort};
use nautilus_dataplane::xsk::{Binding, BindingSpec, CopyMode, Mapped, UmemSpec, XskSocket};
use nautilus_ebpf::intf::{Interface, Permissions, Service};
use nautilus_ebpf::{Options, Steering, XdpLink};
use nautilus_tests::frames::FrameSocket;
use nautilus_tests::lab::{CLIENT, End, NetNs, RunId, VethPair, node};

use super::KernelClient;

/// Where the echo listens.
pub const ECHO_PORT: u16 = 7;
/// Frames of the usual UMEM.
pub const FRAMES: u32 = 1024;

/// One neighbour: the client at the other end of the link.
#[derive(Clone, Copy)]
pub struct OneNeighbour {
    pub hop: NextHop,
    pub ifindex: u32,
}

impl NextHops for OneNeighbour {
    fn lookup(&mut self, ifindex: u32, _vlans: [u16; 2], to: &Endpoint) -> Option<NextHop> {
        (ifindex == self.ifindex && CLIENT.both().contains(&to.ip())).then_some(self.hop)
    }
}

/// How a rig differs from the usual one.
pub struct RigSpec {
    pub umem: UmemSpec,
    pub busy_poll_budget: Option<u16>,
    /// Whether the client's end gets a program that passes everything; a peer on AF_XDP brings its
    /// own.
    pub client_passes: bool,
}

impl Default for RigSpec {
    fn default() -> Self {
        Self {
            umem: UmemSpec {
                // Room for every frame in every ring: these tests say themselves what overflows.
                entries: [FRAMES; 4],
                ..UmemSpec::new(FRAMES, 2048, false)
            },
            busy_poll_budget: None,
            client_passes: true,
        }
    }
}

/// Everything a worker needs. Fields drop in this order.
pub struct Rig {
    pub binding: Binding,
    pub steering: Steering,
    _link: XdpLink,
    pub next_hop: OneNeighbour,
    pub client: Arc<NetNs>,
    _pair: VethPair,
    _node: Arc<NetNs>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(RigSpec::default())
    }

    pub fn with(spec: RigSpec) -> Self {
        let run = RunId::draw();
        let client = Arc::new(NetNs::create(run, "client").unwrap());
        let ours = Arc::new(NetNs::create(run, "node").unwrap());
        let mut pair = VethPair::create((&client, "eth0"), (&ours, "eth0")).unwrap();
        if spec.client_passes {
            pair.pass_on(End::First).unwrap();
        }
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
            let flags = Service::UDP | Service::UNICAST;
            let service = Service { flags, ..Service::replying(1) };
            steering.set_service(ECHO_PORT, service).unwrap();
            let spec = BindingSpec {
                ifindex,
                queue: 0,
                mode: CopyMode::Copy,
                umem: spec.umem,
                busy_poll_budget: spec.busy_poll_budget,
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
    pub fn port(&self) -> XdpPort<OneNeighbour> {
        self.port_over(self.socket(), self.next_hop)
    }

    /// The socket alone.
    pub fn socket(&self) -> XskSocket {
        let mapped = Mapped::map(self.binding.fds.try_clone().unwrap()).unwrap();
        let (socket, recovered) = mapped.take_over().unwrap();
        assert_eq!(recovered.refused, 0);
        socket
    }

    /// A port over the socket that finds its neighbours this way.
    pub fn port_over<N: NextHops>(&self, socket: XskSocket, next_hops: N) -> XdpPort<N> {
        let socket = XdpPortSocket { socket, interface: 0, ifindex: self.next_hop.ifindex };
        XdpPort::new(vec![socket], next_hops, RxChecksum::Verify)
    }

    pub fn kernel_client(&self, ours: IpAddr, theirs: IpAddr) -> KernelClient {
        let service = SocketAddr::new(ours, ECHO_PORT);
        self.client.run(|| KernelClient::connect(SocketAddr::new(theirs, 0), service))
    }
}

/// Ends the worker when a failed assertion unwinds, or the scope would wait for it for ever.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Frames add up, by the worker's own counters and by the state bytes.
pub fn assert_conserved<N: NextHops>(port: &XdpPort<N>) {
    assert!(port.frames_add_up());
    for socket in port.sockets() {
        assert_eq!(socket.counts(), socket.ledger().recount());
        assert_eq!(socket.counts().total(), socket.umem().spec().frames);
        assert_eq!(socket.counters().refused_descriptor_count, 0);
        assert_eq!(socket.counters().refused_index_count, 0);
    }
}
