//! What the front serves with: its sockets, and its rings with each worker.
//!
//! They belong to the supervisor and outlive every front: a connection that waits in a listener's backlog
//! finds the next one. Workers hold duplicates, so that a new supervisor finds them again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::region::RegionError;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, getsockopt,
    listen, setsockopt, socket, sockopt,
};

use super::handover::Fds;
use crate::config::{NodeConfig, PortKind};
use crate::port::socket::{SocketError, SocketSpec, bind_socket};

/// Connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`. Too low: a crowd
/// of clients is refused while a front is replaced. Too high: they wait for longer than they want.
const BACKLOG: i32 = 4096;

/// Why the front has nothing to serve with.
#[derive(Debug, thiserror::Error)]
pub enum FrontOpenError {
    /// A listener.
    #[error("front: cannot {step} {address}: {source}; is another server on cache.port?")]
    Listener {
        /// What was tried.
        step: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A UDP socket.
    #[error("front: {0}; is another server on cache.port?")]
    Socket(#[from] SocketError),
    /// Its rings.
    #[error("front region: {0}")]
    Region(#[from] RegionError),
}

/// Sockets, rings and the eventfd.
#[derive(Debug)]
pub struct FrontResources {
    /// Rings between the front and each worker.
    pub regions: Vec<FrontRegion>,
    /// TCP listeners.
    pub listeners: Vec<OwnedFd>,
    /// UDP sockets; none where the worker has them (`port.kind = "socket"`).
    pub sockets: Vec<OwnedFd>,
}

impl FrontResources {
    /// Opens everything for the node's cache.
    pub fn open(config: &NodeConfig) -> Result<Self, FrontOpenError> {
        let port = config.cache.as_ref().map_or(0, |cache| cache.port);
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for address in addresses(config) {
            let address = SocketAddr::new(address, port);
            let Some(listener) = absent_family(open_listener(address))? else { continue };
            listeners.push(listener);
            if config.port.kind == PortKind::Xdp {
                let spec =
                    SocketSpec { bind: address, groups: Vec::new(), interface: 0, shared: false };
                sockets.push(bind_socket(&spec)?);
            }
        }
        let regions = (0..config.worker.count).map(|_| FrontRegion::create(c"nautilus-front"));
        Ok(Self { regions: regions.collect::<Result<_, _>>()?, listeners, sockets })
    }

    /// Moves the generation on by one, of all regions, and returns it. Before a front is started.
    pub fn advance_generation(&self) -> u64 {
        // The first one's comes last: a supervisor that dies in between gives none of them twice.
        let mut generation = 0;
        for region in self.regions.iter().rev() {
            generation = region.advance_front();
        }
        generation
    }

    /// Adds duplicates of everything.
    pub fn append_to(&self, fds: &mut Fds) -> io::Result<()> {
        for (worker, region) in self.regions.iter().enumerate() {
            fds.push(format!("front.{worker}"), region.try_clone()?);
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            fds.push(format!("tcp.{index}"), listener.try_clone()?);
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            fds.push(format!("udp.{index}"), socket.try_clone()?);
        }
        Ok(())
    }

    /// Takes everything back from a worker, after a look at each.
    pub fn take_back(fds: &mut Fds, port: u16, workers: usize) -> Result<Self, String> {
        let mut regions = Vec::new();
        for worker in 0..workers {
            let fd = fds.take(&format!("front.{worker}")).map_err(|error| error.to_string())?;
            let region = FrontRegion::attach(fd).map_err(|error| format!("front region: {error}"));
            regions.push(region?);
        }
        let mut take_all = |kind: &str, stream: bool| {
            let mut taken = Vec::new();
            while let Ok(fd) = fds.take(&format!("{kind}.{}", taken.len())) {
                let wanted = if stream { SockType::Stream } else { SockType::Datagram };
                let is_wanted = getsockopt(&fd, sockopt::SockType) == Ok(wanted)
                    && getsockopt(&fd, sockopt::AcceptConn) == Ok(stream)
                    && bound_port(&fd) == Some(port);
                if !is_wanted {
                    return Err(format!("its {kind}.{} is no socket of the cache", taken.len()));
                }
                taken.push(fd);
            }
            Ok(taken)
        };
        let listeners = take_all("tcp", true)?;
        let sockets = take_all("udp", false)?;
        if listeners.is_empty() {
            return Err("it holds no listener of the cache".into());
        }
        Ok(Self { regions, listeners, sockets })
    }
}

fn bound_port(fd: &OwnedFd) -> Option<u16> {
    let name = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    name.as_sockaddr_in().map(|v4| v4.port()).or_else(|| name.as_sockaddr_in6().map(|v6| v6.port()))
}

/// Where the cache listens: the node file's addresses, or everywhere.
fn addresses(config: &NodeConfig) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for interface in &config.interface {
        match interface.addresses.value() {
            Some(listed) => addresses.extend(listed),
            None => return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A host without IPv6 is served without it.
fn absent_family(
    opened: Result<OwnedFd, FrontOpenError>,
) -> Result<Option<OwnedFd>, FrontOpenError> {
    match opened {
        Ok(listener) => Ok(Some(listener)),
        Err(FrontOpenError::Listener { address, source, .. })
            if address.is_ipv6() && source.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn open_listener(address: SocketAddr) -> Result<OwnedFd, FrontOpenError> {
    let failed =
        |step| move |errno: Errno| FrontOpenError::Listener { step, address, source: errno.into() };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None).map_err(failed("make a socket for"))?;
    // Connections inherit what is set here.
    let set = |step, result: nix::Result<()>| result.map_err(failed(step));
    set("set SO_REUSEADDR for", setsockopt(&fd, sockopt::ReuseAddr, &true))?;
    set("set TCP_NODELAY for", setsockopt(&fd, sockopt::TcpNoDelay, &true))?;
    set("set SO_KEEPALIVE for", setsockopt(&fd, sockopt::KeepAlive, &true))?;
    // The address may come to the interface later.
    set("set IP_FREEBIND for", setsockopt(&fd, sockopt::IpFreebind, &true))?;
    if address.is_ipv6() {
        set("set IPV6_V6ONLY for", setsockopt(&fd, sockopt::Ipv6V6Only, &true))?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(failed("bind to"))?;
    listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN)).map_err(failed("listen on"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> NodeConfig {
        crate::config::parse(text, "n.toml").unwrap()
    }

    #[test]
    fn the_front_listens_where_the_node_file_says() {
        let everywhere = "[[interface]]\nname = \"a\"\n";
        assert_eq!(addresses(&config(everywhere)).len(), 2);
        let listed = "[[interface]]\nname = \"a\"\naddresses = [\"127.0.0.2\", \"fd00:6e61::1\"]\n\
                      [[interface]]\nname = \"b\"\naddresses = [\"127.0.0.2\"]\n";
        let listed = addresses(&config(listed));
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert_eq!(
            addresses(&config(&format!("{everywhere}[[interface]]\nname = \"b\"\n"))).len(),
            2
        );
    }

    #[test]
    fn what_is_given_back_is_what_was_given_or_is_refused() {
        let listener = open_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = bound_port(&listener).unwrap();
        let opened = FrontResources {
            regions: vec![FrontRegion::create(c"nautilus-front").unwrap()],
            listeners: vec![listener],
            sockets: Vec::new(),
        };
        let mut fds = Fds::default();
        opened.append_to(&mut fds).unwrap();
        let back = FrontResources::take_back(&mut fds, port, 1).unwrap();
        assert_eq!((back.listeners.len(), back.sockets.len()), (1, 0));

        let with = |name: &str, fd: OwnedFd| {
            let mut fds = Fds::default();
            opened.append_to(&mut fds).unwrap();
            drop(fds.take(name));
            fds.push(name, fd);
            FrontResources::take_back(&mut fds, port, 1).unwrap_err()
        };
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let other = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(with("tcp.0", socket()).contains("tcp.0"));
        assert!(with("tcp.0", other()).contains("tcp.0"), "another port");
        assert!(with("udp.0", other()).contains("udp.0"));
        assert!(with("front.0", socket()).contains("front region"));
        let mut fds = Fds::default();
        opened.append_to(&mut fds).unwrap();
        drop(fds.take("tcp.0"));
        assert!(FrontResources::take_back(&mut fds, port, 1).unwrap_err().contains("no listener"));
    }
}
