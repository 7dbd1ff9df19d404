//! Caches of a node, the ones that come and go among them, and what every path says of their keys.
#![allow(dead_code)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nautilus_shm::attach::{CACHES_MAX, Code, cache_name, create_request, remove_request};
use nautilus_shm::cache_cell::CacheState;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlReader, PROCESSES_MAX};
use nautilus_shm::metrics::table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::supervised::{CLIENT, SERVER, Supervised, ask, wait_until};
use super::tcp::Client;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// The cache of the node file, and one that comes and goes.
pub const OLD: (&str, u16) = ("quotes", 11_211);
pub const NEW: (&str, u16) = ("orders", 11_300);

pub const NODE: &str = "[[cache]]\nid = \"quotes\"\nmax_memory_mb = 16\n";

pub fn section((id, port): (&str, u16), more: &str) -> String {
    format!("id = \"{id}\"\nport = {port}\nmax_memory_mb = 16\n{more}")
}

pub fn create(node: &Supervised, section: &str) -> (Code, String) {
    node.request(&create_request(section))
}

pub fn remove(node: &Supervised, id: &str) -> (Code, String) {
    node.request(&remove_request(&cache_name(id)))
}

pub fn assert_created(node: &Supervised, section: &str) {
    let (code, said) = create(node, section);
    assert_eq!(code, Code::Ok, "{said}");
    println!("{said}");
}

pub fn assert_removed(node: &Supervised, id: &str) {
    let (code, said) = remove(node, id);
    assert_eq!(code, Code::Ok, "{said}");
    println!("{said}");
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), port)
}

pub fn over_udp(node: &Supervised, port: u16) -> UdpSocket {
    let socket = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
    socket.connect((SERVER, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

pub fn over_tcp(node: &Supervised, port: u16) -> Client {
    Client::connect(&node.client_ns, address(port)).unwrap()
}

pub fn over_kernel_udp(node: &Supervised, port: u16) -> UdpSocket {
    let socket = Supervised::udp(&node.server_ns, SocketAddr::new(SERVER.parse().unwrap(), 0));
    socket.connect((SERVER, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

pub fn item(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}

pub fn set(key: &str, value: &str) -> String {
    format!("set {key} 0 0 {}\r\n{value}\r\n", value.len())
}

/// What every path to a cache says of a key.
pub fn assert_everywhere(
    node: &Supervised,
    (id, port): (&str, u16),
    key: &str,
    value: Option<&str>,
) {
    let expected = value.map_or("END\r\n".into(), |value| item(key, value));
    let get = format!("get {key}\r\n");
    assert_eq!(ask(&over_udp(node, port), &get), expected, "{id} over UDP");
    assert_eq!(ask(&over_kernel_udp(node, port), &get), expected, "{id} over kernel UDP");
    over_tcp(node, port).ask(get.as_bytes(), expected.as_bytes());
    let mut out = [0; 256];
    let read = node.reader(id).unwrap().get(key.as_bytes(), monotonic_ns(), &mut out);
    let read = read.ok().map(|hit| String::from_utf8_lossy(&out[..hit.value_bytes]).into_owned());
    assert_eq!(read.as_deref(), value, "{id} by its reader");
}

pub fn front_pid(node: &Supervised) -> Option<u32> {
    let status = node.status()?;
    let line = status.lines().find(|line| line.starts_with("front "))?;
    line.split(' ').nth(1)?.parse().ok()
}

pub fn end(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

pub fn replace_front(node: &Supervised) {
    let victim = front_pid(node).unwrap();
    end(victim);
    wait_until("the next front", PATIENCE, || front_pid(node).is_some_and(|pid| pid != victim));
}

pub fn log(node: &Supervised) -> String {
    std::fs::read_to_string(node.log()).unwrap()
}

pub fn started(extra: &str) -> Supervised {
    let mut node = Supervised::new(extra);
    node.start();
    wait_until("a front", PATIENCE, || front_pid(&node).is_some());
    node
}

/// Place and generation of a cache that is served.
pub fn identity(region: &ControlReader, id: &str) -> Option<(usize, u32)> {
    (0..CACHES_MAX).find_map(|place| {
        let known = region.cache(place).ok()?;
        let is_served = known.id == id && known.state == CacheState::Serving;
        is_served.then_some((place, known.generation))
    })
}

pub fn hits(region: &ControlReader, place: usize) -> u64 {
    let of = |process| region.cache_metrics(process, place).counter(table::CACHE_HITS);
    (0..PROCESSES_MAX).map(of).sum()
}
