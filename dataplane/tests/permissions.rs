//! What sources may do with a cache of a real node: judged in XDP, obeyed by worker and front. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nautilus_ebpf::PassProgram;
use nautilus_shm::control_region::{ControlReader, FRONT_PROCESS, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{CacheError, XdpVerdict};
use nautilus_shm::metrics::table;

use supervised::{CACHE_PORT, SERVER, Supervised, ask, ip, privileged, wait_until};
use tcp::{Client, inside};

const MASTER: &str = "198.18.0.2";
const READER: &str = "198.18.0.66";
const WRITER: &str = "198.18.0.67";
const NOBODY: &str = "198.18.0.68";

const NODE: &str = "[cache]\nid = \"quotes\"\nmax_memory_mb = 8\nhot_set = true\nsources = [\n\
    { prefix = \"198.18.0.0/16\", allow = [\"read\"] },\n\
    { prefix = \"198.18.0.2/32\", allow = [\"read\", \"write\", \"admin\"] },\n\
    { prefix = \"198.18.0.67/32\", allow = [\"write\"] },\n\
    { prefix = \"198.18.0.68/32\", allow = [] } ]\n";

const MAY_NOT_READ: &str = "CLIENT_ERROR permission denied: this source may not read\r\n";
const MAY_NOT_WRITE: &str = "CLIENT_ERROR permission denied: this source may not write\r\n";
const MAY_NOT_ADMINISTER: &str =
    "CLIENT_ERROR permission denied: this source may not administer\r\n";

fn udp(node: &Supervised, source: &str) -> UdpSocket {
    let socket = Supervised::udp(&node.client_ns, format!("{source}:0").parse().unwrap());
    socket.connect((SERVER, CACHE_PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

fn tcp(node: &Supervised, source: &'static str) -> std::io::Result<Client> {
    let server = SocketAddr::new(SERVER.parse().unwrap(), CACHE_PORT);
    let stream = inside(&node.client_ns, move || -> std::io::Result<TcpStream> {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket,
        };
        use std::os::fd::AsRawFd;
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        // A connection whose first packet is dropped must not be tried for minutes.
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::TcpUserTimeout, &1_000)?;
        let from: std::net::SocketAddrV4 = format!("{source}:0").parse().unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::from(from))?;
        let SocketAddr::V4(server) = server else { unreachable!("an IPv4 server") };
        connect(fd.as_raw_fd(), &SockaddrIn::from(server))?;
        Ok(TcpStream::from(fd))
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(Client(stream))
}

fn xdp(region: &ControlReader, verdict: XdpVerdict) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(verdict))
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn every_path_obeys_the_list_of_the_cache() {
    if !privileged("every_path_obeys_the_list_of_the_cache") {
        return;
    }
    let mut node = Supervised::new(NODE);
    for source in [READER, WRITER, NOBODY] {
        ip(&format!("-n {} addr add {source}/24 dev c0", node.client_ns));
    }
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    let region = node.attach().unwrap();
    let [master, reader, writer, nobody] =
        [MASTER, READER, WRITER, NOBODY].map(|source| udp(&node, source));
    let value = |text: &str| format!("VALUE k 0 {}\r\n{text}\r\nEND\r\n", text.len());

    for client in [&master, &reader, &writer] {
        // The first answer may be lost, while the worker learns where the client is.
        assert!(ask(client, "version\r\n").starts_with("VERSION"));
    }
    assert_eq!(ask(&master, "set k 0 0 3\r\none\r\n"), "STORED\r\n");
    assert_eq!(ask(&reader, "get k\r\n"), value("one"));
    assert_eq!(ask(&reader, "set k 0 0 3\r\nbad\r\n"), MAY_NOT_WRITE);
    assert_eq!(ask(&reader, "delete k\r\n"), MAY_NOT_WRITE);
    assert_eq!(ask(&reader, "flush_all\r\n"), MAY_NOT_ADMINISTER);
    assert_eq!(ask(&writer, "get k\r\n"), MAY_NOT_READ);
    assert_eq!(ask(&writer, "set k 0 0 3\r\ntwo\r\n"), "STORED\r\n");
    assert_eq!(ask(&writer, "flush_all\r\n"), MAY_NOT_ADMINISTER);
    nobody.send(b"\0\x01\0\0\0\x01\0\0get k\r\n").unwrap();
    assert!(nobody.recv(&mut [0; 64]).is_err(), "an answer to a source without permissions");
    wait_until("it is counted", Duration::from_secs(5), || {
        xdp(&region, XdpVerdict::SourceUnlisted) == 1
    });

    // A hot key is shown to who may read, and to nobody else.
    wait_until("the key is hot", Duration::from_secs(10), || {
        for _ in 0..50 {
            assert_eq!(ask(&reader, "get k\r\n"), value("two"));
        }
        xdp(&region, XdpVerdict::HotHit) > 20
    });
    for _ in 0..20 {
        assert_eq!(ask(&writer, "get k\r\n"), MAY_NOT_READ);
    }

    let [mut master, mut reader, mut writer] =
        [MASTER, READER, WRITER].map(|source| tcp(&node, source).unwrap());
    reader.ask(b"get k\r\n", value("two").as_bytes());
    reader.ask(
        b"set k 0 0 3\r\nbad\r\nget k\r\n",
        (MAY_NOT_WRITE.to_owned() + &value("two")).as_bytes(),
    );
    reader.ask(b"mg k v\r\n", b"VA 3\r\ntwo\r\n");
    reader.ask(b"flush_all\r\n", MAY_NOT_ADMINISTER.as_bytes());
    writer.ask(
        b"set k 0 0 5\r\nthree\r\nget k\r\n",
        ("STORED\r\n".to_owned() + MAY_NOT_READ).as_bytes(),
    );
    writer.ask(b"mg k v\r\n", MAY_NOT_READ.as_bytes());
    reader.ask(b"get k\r\n", value("three").as_bytes());
    master.ask(b"flush_all\r\nget k\r\n", b"OK\r\nEND\r\n");
    assert!(tcp(&node, NOBODY).is_err(), "a connection of a source without permissions");
    assert!(xdp(&region, XdpVerdict::TcpSourceUnlisted) > 0);

    // Published every 10 ms.
    std::thread::sleep(Duration::from_millis(200));
    let forbidden = table::CACHE_ERRORS.of(CacheError::Forbidden);
    let by_worker: u64 =
        (0..WORKERS_MAX).map(|worker| region.cache_metrics(worker, 0).counter(forbidden)).sum();
    let by_front = region.metrics(FRONT_PROCESS).counter(table::FRONT_FORBIDDEN);
    assert_eq!((by_worker, by_front), (3 + 2 + 20 + 3, 1), "refusals counted");
    node.stop();
}
