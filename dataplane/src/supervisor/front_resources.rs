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
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getpeername, getsockname,
    getsockopt, listen, setsockopt, socket, sockopt,
};

use super::handover::Fds;
use crate::config::{Cache, NodeConfig, PortKind};
use crate::limits::LISTEN_BACKLOG;
use crate::port::socket::{SocketError, SocketSpec, bind_socket};

/// Why the front has nothing to serve with.
#[derive(Debug, thiserror::Error)]
pub enum FrontOpenError {
    /// A listener.
    #[error("front: cannot {step} {address}: {source}; is another server on this port?")]
    Listener {
        /// What was tried.
        step: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A UDP socket.
    #[error("front: {0}; is another server on this port?")]
    Socket(#[from] SocketError),
    /// Its rings.
    #[error("front region: {0}")]
    Region(#[from] RegionError),
}

/// What is the same for all caches.
#[derive(Debug)]
pub struct FrontResources {
    /// Rings between the front and each worker.
    pub regions: Vec<FrontRegion>,
}

impl FrontResources {
    /// Opens what all caches share.
    pub fn open(workers: usize) -> Result<Self, FrontOpenError> {
        let regions = (0..workers).map(|_| FrontRegion::create(c"nautilus-front"));
        Ok(Self { regions: regions.collect::<Result<_, _>>()? })
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
        Ok(())
    }

    /// Takes everything back from a worker, after a look at each.
    pub fn take_back(fds: &mut Fds, workers: usize) -> Result<Self, String> {
        let mut regions = Vec::new();
        for worker in 0..workers {
            let fd = fds.take(&format!("front.{worker}")).map_err(|error| error.to_string())?;
            let region = FrontRegion::attach(fd).map_err(|error| format!("front region: {error}"));
            regions.push(region?);
        }
        Ok(Self { regions })
    }
}

/// The sockets of one cache.
#[derive(Debug, Default)]
pub struct CacheSockets {
    /// TCP listeners.
    pub listeners: Vec<OwnedFd>,
    /// UDP sockets; none where the worker has them (`port.kind = "socket"`).
    pub datagrams: Vec<OwnedFd>,
}

impl CacheSockets {
    /// Opens them on the cache's port. With [`PortKind::Socket`] the worker has the UDP sockets.
    pub fn open(
        config: &NodeConfig,
        cache: &Cache,
        kind: PortKind,
    ) -> Result<Self, FrontOpenError> {
        let mut this = Self::default();
        for address in addresses(config) {
            let address = SocketAddr::new(address, cache.port);
            let Some(listener) = absent_family(open_listener(address))? else { continue };
            this.listeners.push(listener);
            if kind == PortKind::Xdp {
                let spec = SocketSpec {
                    bind: address,
                    groups: Vec::new(),
                    interface: 0,
                    shared: false,
                    sends_to_groups_by: 0,
                };
                this.datagrams.push(bind_socket(&spec)?);
            }
        }
        Ok(this)
    }

    /// Has every listener listen, also one that was closed for new clients.
    pub fn listen(&self) -> Result<(), io::Error> {
        for listener in &self.listeners {
            listen(listener, Backlog::new(LISTEN_BACKLOG).unwrap_or(Backlog::MAXCONN))?;
        }
        Ok(())
    }

    fn kinds(&self) -> [(&'static str, &[OwnedFd]); 2] {
        [("tcp", &self.listeners), ("udp", &self.datagrams)]
    }

    /// Adds duplicates of everything, named by the place of the cache.
    pub fn append_to(&self, place: u16, fds: &mut Fds) -> io::Result<()> {
        for (kind, sockets) in self.kinds() {
            for (index, socket) in sockets.iter().enumerate() {
                fds.push(format!("{kind}.{place}.{index}"), socket.try_clone()?);
            }
        }
        Ok(())
    }

    /// Takes what was handed over under the names of this place.
    pub fn take(fds: &mut Fds, place: u16) -> Self {
        let mut all = |kind: &str| {
            let mut taken: Vec<OwnedFd> = Vec::new();
            while let Ok(fd) = fds.take(&format!("{kind}.{place}.{}", taken.len())) {
                taken.push(fd);
            }
            taken
        };
        Self { listeners: all("tcp"), datagrams: all("udp") }
    }

    /// Takes them back from a worker, after a look at each.
    pub fn take_back(fds: &mut Fds, place: u16, port: u16) -> Result<Self, String> {
        let this = Self::take(fds, place);
        for (kind, sockets) in this.kinds() {
            let is_stream = kind == "tcp";
            let wanted = if is_stream { SockType::Stream } else { SockType::Datagram };
            for (index, fd) in sockets.iter().enumerate() {
                let is_wanted = getsockopt(fd, sockopt::SockType) == Ok(wanted)
                    && takes_clients(fd) == is_stream
                    && bound_port(fd) == Some(port);
                if !is_wanted {
                    return Err(format!("its {kind}.{place}.{index} is no socket of the cache"));
                }
            }
        }
        if this.listeners.is_empty() {
            return Err("it holds no listener of the cache".into());
        }
        Ok(this)
    }
}

/// Whether it is a listener, also one that was closed for new clients: it is connected to nobody.
fn takes_clients(fd: &OwnedFd) -> bool {
    getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        || (getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream)
            && getpeername::<SockaddrStorage>(fd.as_raw_fd()) == Err(Errno::ENOTCONN))
}

fn bound_port(fd: &OwnedFd) -> Option<u16> {
    let name = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    name.as_sockaddr_in().map(|v4| v4.port()).or_else(|| name.as_sockaddr_in6().map(|v6| v6.port()))
}

/// Where caches listen: the node file's addresses, or everywhere.
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
    listen(&fd, Backlog::new(LISTEN_BACKLOG).unwrap_or(Backlog::MAXCONN))
        .map_err(failed("listen on"))?;
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
        let shared = FrontResources::open(1).unwrap();
        let sockets = CacheSockets { listeners: vec![listener], datagrams: Vec::new() };
        let handed = || {
            let mut fds = Fds::default();
            shared.append_to(&mut fds).unwrap();
            sockets.append_to(3, &mut fds).unwrap();
            fds
        };
        let take_back = |mut fds: Fds| {
            FrontResources::take_back(&mut fds, 1)?;
            CacheSockets::take_back(&mut fds, 3, port)
        };
        let back = take_back(handed()).unwrap();
        assert_eq!((back.listeners.len(), back.datagrams.len()), (1, 0));

        let with = |name: &str, fd: OwnedFd| {
            let mut fds = handed();
            drop(fds.take(name));
            fds.push(name, fd);
            take_back(fds).unwrap_err()
        };
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let other = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(with("tcp.3.0", socket()).contains("tcp.3.0"));
        assert!(with("tcp.3.0", other()).contains("tcp.3.0"), "another port");
        assert!(with("udp.3.0", other()).contains("udp.3.0"));
        assert!(with("front.0", socket()).contains("front region"));
        let mut fds = handed();
        drop(fds.take("tcp.3.0"));
        assert!(take_back(fds).unwrap_err().contains("no listener"));
    }
}
