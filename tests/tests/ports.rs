//! One suite over the three ports, and what only AF_XDP can show: tags, takeover, conservation.

#[path = "ports/conformance.rs"]
mod conformance;
#[path = "ports/feed_veth.rs"]
mod feed_veth;
#[path = "ports/metrics.rs"]
mod metrics;
#[path = "ports/peer.rs"]
mod peer;
#[path = "ports/rig.rs"]
mod rig;
#[path = "ports/xdp.rs"]
mod xdp;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::sim::{SimFaults, SimWorld};
use nautilus_dataplane::port::socket::{SocketPort, SocketSpec};
use nautilus_dataplane::port::{Link, Path, SimPort};

use conformance::Client;

/// A client on a kernel socket.
pub struct KernelClient {
    socket: UdpSocket,
    service: SocketAddr,
}

impl KernelClient {
    /// Connected, with half a second of patience.
    pub fn connect(local: SocketAddr, service: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(service).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self { socket, service }
    }
}

impl Client for KernelClient {
    fn endpoint(&self) -> Endpoint {
        self.socket.local_addr().unwrap().into()
    }

    fn service(&self) -> Endpoint {
        self.service.into()
    }

    fn send(&mut self, payload: &[u8]) {
        self.socket.send(payload).unwrap();
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

struct SimClient {
    world: std::rc::Rc<std::cell::RefCell<SimWorld>>,
    path: Path,
}

impl Client for SimClient {
    fn endpoint(&self) -> Endpoint {
        self.path.from
    }

    fn service(&self) -> Endpoint {
        self.path.to
    }

    fn send(&mut self, payload: &[u8]) {
        self.world.borrow_mut().advance(1000);
        assert!(self.world.borrow_mut().client_sends(&self.path, payload));
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        let path = self.world.borrow_mut().client_receives(&mut payload)?;
        assert_eq!((path.from, path.to), (self.path.to, self.path.from));
        Some(payload)
    }

    fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns()
    }
}

#[test]
fn the_simulated_port_conforms() {
    for (from, to) in [("198.18.0.2:5000", "198.18.0.1:7"), ("[fd00::2]:5000", "[fd00::1]:7")] {
        let world = SimWorld::new(1, SimFaults::default());
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        let path = Path { from: endpoint(from), to: endpoint(to), link: Link::default() };
        let buffers = world.borrow().free_buffers();
        let mut port = SimPort::new(world.clone());
        conformance::run(&mut port, &mut SimClient { world: world.clone(), path });
        drop(port);
        assert_eq!(world.borrow().free_buffers(), buffers, "a buffer was lost");
    }
}

#[test]
fn the_socket_port_conforms() {
    for (bind, wildcard) in [
        ("127.0.0.1:0", false),
        ("[::1]:0", false),
        // A wildcard learns, and answers from, the address that was asked.
        ("0.0.0.0:0", true),
        ("[::]:0", true),
    ] {
        let bind: SocketAddr = bind.parse().unwrap();
        let spec = SocketSpec {
            bind,
            groups: Vec::new(),
            interface: 0,
            shared: false,
            sends_to_groups_by: 0,
        };
        let mut port = SocketPort::open(&[spec]).unwrap();
        let mut service: SocketAddr = port.local_endpoints().next().unwrap().into();
        if wildcard {
            let one: [&str; 2] = ["127.0.0.7", "::1"];
            service.set_ip(one[usize::from(bind.is_ipv6())].parse().unwrap());
        }
        let local = if bind.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let mut client = KernelClient::connect(local.parse().unwrap(), service);
        conformance::run(&mut port, &mut client);
    }
}
