//! Frames that a node asks itself with, and who sends them.
//!
//! Each is a request as a client would send it, to an address that the node serves: an echo, or a `get` of a key
//! that nobody stores. It comes from an address that the node file lists, by the interface's own MAC, so the
//! answer leaves the interface and reaches nobody: a switch sends nothing back by the port it came from.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nautilus_ebpf::{Options, Prober, Steering, TestContext};
use nautilus_shm::attach::PROBE_MS_MAX;

use super::fill::served_addresses;
use super::mirror::Mirror;
use super::resources::{Resources, chain};
use crate::config::{Cache, NodeConfig, Resolved};
use crate::limits::XDP_HEADROOM_BYTES;
use crate::net::{Endpoint, LinkAddress, build};

/// Requests of one probe: what a p99.9 needs, and some that may be lost.
const REQUESTS: u32 = 1500;

/// Between taking the sockets out of the running program and the first frame: every packet that it is busy with
/// has gone its way.
const QUIET: Duration = Duration::from_millis(20);

/// The key that is asked for.
const REQUEST: &[u8] = b"\0\x01\0\0\0\x01\0\0get nautilus-probe\r\n";

/// Port that requests come from, unless it is served.
const SOURCE_PORT: u16 = 61_613;

/// One frame, and where it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    frame: Vec<u8>,
    context: (u32, u32),
}

/// A socket that is asked through, and its place in the program's map.
#[derive(Debug)]
pub struct Target {
    /// Its place.
    pub place: u32,
    /// A duplicate of it.
    pub socket: OwnedFd,
}

/// Frames for every queue; why there are none.
pub fn probes(
    resolved: &Resolved,
    mirror: &Mirror,
    resources: &Resources,
) -> Result<(Vec<Probe>, Vec<Target>), String> {
    let config = &resolved.config;
    let (port, cache) = service(config)?;
    let served = served_addresses(config, mirror);
    let (mut probes, mut targets) = (Vec::new(), Vec::new());
    for opened in &resources.interfaces {
        let ifindex = opened.interface.ifindex;
        let Some(link) = mirror.link_named(&opened.interface.name) else { continue };
        let own: Vec<IpAddr> = mirror.global_addresses(ifindex).map(|row| row.address).collect();
        let serves = |address: &&IpAddr| !address.is_multicast() && own.contains(address);
        let pair = served.iter().filter(serves).find_map(|to| {
            sources(config, cache).find_map(|prefix| Some((*to, stranger(prefix, *to, &served)?)))
        });
        let Some((to, from)) = pair else { continue };
        let source_port = if port == SOURCE_PORT { SOURCE_PORT + 1 } else { SOURCE_PORT };
        let (from, to) = (Endpoint::new(from, source_port), Endpoint::new(to, port));
        let link = LinkAddress { destination: link.mac, source: link.mac, vlans: [0; 2] };
        let head = build::header_bytes(link.vlans, to.is_v4());
        let mut frame = vec![0; head];
        frame.extend_from_slice(REQUEST);
        build::headers(&mut frame, &link, &from, &to);
        for queue in &opened.queues {
            let socket = queue.fds.try_clone().map_err(|error| error.to_string())?.socket;
            targets.push(Target { place: opened.first_socket + queue.queue, socket });
            probes.push(Probe { frame: frame.clone(), context: (ifindex, queue.queue) });
        }
    }
    match probes.is_empty() {
        true => Err("no interface has a served address and a listed source of its family".into()),
        false => Ok((probes, targets)),
    }
}

/// What is asked: the echo, else the first cache.
fn service(config: &NodeConfig) -> Result<(u16, Option<&Cache>), String> {
    match (&config.echo, config.cache.first()) {
        (Some(echo), _) => Ok((echo.port, None)),
        (None, Some(cache)) => Ok((cache.port, Some(cache))),
        (None, None) => Err("it has neither an echo nor a cache to ask".into()),
    }
}

/// The prefixes whose hosts may ask.
fn sources<'a>(
    config: &'a NodeConfig,
    cache: Option<&'a Cache>,
) -> impl Iterator<Item = (IpAddr, u8)> + 'a {
    let own = cache.and_then(|cache| cache.sources.as_ref());
    let of_cache = own.into_iter().flatten();
    let of_cache =
        of_cache.filter(|source| source.permissions() != nautilus_ebpf::intf::Permissions::NONE);
    let of_node = config.access.sources.iter().filter(move |_| own.is_none());
    of_cache
        .map(|source| (source.prefix.address(), source.prefix.bits()))
        .chain(of_node.map(|prefix| (prefix.address(), prefix.bits())))
}

/// An address of a prefix that is not ours.
fn stranger((prefix, bits): (IpAddr, u8), to: IpAddr, served: &[IpAddr]) -> Option<IpAddr> {
    if prefix.is_ipv4() != to.is_ipv4() {
        return None;
    }
    (1..=8u8)
        .filter_map(|last| match prefix {
            IpAddr::V4(v4) if bits <= 28 => {
                let [a, b, c, d] = v4.octets();
                Some(IpAddr::from([a, b, c, d | last]))
            }
            IpAddr::V6(v6) if bits <= 124 => {
                let mut octets = v6.octets();
                octets[15] |= last;
                Some(IpAddr::from(octets))
            }
            // A host by itself.
            _ => Some(prefix),
        })
        .find(|address| !served.contains(address) && !address.is_unspecified())
}

/// A thread that first loads the second instance and says so, then, once it is told to, asks for the period and
/// says how often.
#[derive(Debug)]
pub struct Asking {
    go: std::sync::mpsc::Sender<()>,
    said: Receiver<Result<Said, String>>,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It can begin.
    Loaded,
    /// So many requests were sent.
    Asked(u32),
}

impl Asking {
    /// Starts it.
    pub fn start(
        live: Steering,
        chunk_bytes: u32,
        (probes, targets): (Vec<Probe>, Vec<Target>),
        period_ms: u32,
    ) -> std::io::Result<Self> {
        let (say, said) = channel();
        let (go, may_go) = channel::<()>();
        let ask = move || {
            let options = Options { frame_bytes_max: chunk_bytes - XDP_HEADROOM_BYTES };
            let loaded = Prober::beside(&live, options).and_then(|prober| {
                use std::os::fd::AsFd;
                for target in &targets {
                    prober.set_socket(target.place, target.socket.as_fd())?;
                }
                Ok(prober)
            });
            drop(live);
            let prober = match loaded {
                Ok(prober) => prober,
                Err(error) => return drop(say.send(Err(chain(&error)))),
            };
            if say.send(Ok(Said::Loaded)).is_err() || may_go.recv().is_err() {
                return;
            }
            std::thread::sleep(QUIET);
            let _ = say.send(send_all(&prober, &probes, period_ms));
        };
        std::thread::Builder::new().name("prober".into()).spawn(ask)?;
        Ok(Self { go, said })
    }

    /// Lets it ask.
    pub fn go(&self) {
        let _ = self.go.send(());
    }

    /// What it has said, if anything.
    pub fn heard(&self) -> Option<Result<Said, String>> {
        match self.said.try_recv() {
            Ok(said) => Some(said),
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            Err(_) => Some(Err("the prober ended".into())),
        }
    }
}

fn send_all(prober: &Prober, probes: &[Probe], period_ms: u32) -> Result<Said, String> {
    let period = Duration::from_millis(period_ms.min(PROBE_MS_MAX).into());
    let (begun, pause) = (Instant::now(), period / REQUESTS);
    for number in 0..REQUESTS {
        let Probe { frame, context: (ifindex, rx_queue) } = &probes[number as usize % probes.len()];
        let context = TestContext { ifindex: *ifindex, rx_queue: *rx_queue };
        prober.receive(frame, context).map_err(|error| chain(&error))?;
        let due = pause * (number + 1);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    // The last answers are on their way.
    std::thread::sleep(QUIET);
    Ok(Said::Asked(REQUESTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_from_a_listed_address_that_is_not_ours() {
        let parsed = |text: &str| -> IpAddr { text.parse().unwrap() };
        let served = [parsed("10.0.0.1"), parsed("fd00::1")];
        let from =
            |prefix: &str, bits, to: &str| stranger((parsed(prefix), bits), parsed(to), &served);
        assert_eq!(from("10.0.0.0", 8, "10.0.0.1"), Some(parsed("10.0.0.2")));
        assert_eq!(from("10.0.0.9", 32, "10.0.0.1"), Some(parsed("10.0.0.9")));
        assert_eq!(from("10.0.0.1", 32, "10.0.0.1"), None);
        assert_eq!(from("fd00::", 64, "fd00::1"), Some(parsed("fd00::2")));
        assert_eq!(from("fd00::", 64, "10.0.0.1"), None);
    }

    #[test]
    fn a_node_without_a_service_is_not_asked() {
        let config = crate::config::parse("[[interface]]\nname = \"a\"\n", "n.toml").unwrap();
        assert!(service(&config).is_err());
        let config = crate::config::parse("[cache]\nid = \"q\"\n[echo]\nport = 7\n", "n.toml");
        assert_eq!(service(&config.unwrap()).unwrap().0, 7);
    }
}
