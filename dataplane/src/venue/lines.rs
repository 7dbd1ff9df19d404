//! The multicast lines of a venue: every packet leaves over each of them, unchanged.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Most lines of a venue.
pub const LINES_MAX: usize = 3;

/// Routers a packet may pass.
const HOPS: u32 = 16;

/// One line to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSpec {
    /// Multicast group and port.
    pub group: SocketAddr,
    /// Own address, which says by which interface packets leave; `None` leaves both to the routes.
    pub address: Option<IpAddr>,
}

/// Why a line cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The address is none of a group.
    #[error("--line {0}: not a multicast group")]
    NotMulticast(SocketAddr),
    /// IPv4 and IPv6 mixed in one line.
    #[error("--line {group}: {address} is of the other version of IP")]
    Family {
        /// The group.
        group: SocketAddr,
        /// The own address.
        address: IpAddr,
    },
    /// No interface has this address.
    #[error("no interface here has the address {0} (see `ip address`)")]
    NoInterface(IpAddr),
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces")]
    List(#[source] io::Error),
    /// The socket cannot be made.
    #[error("--line {group}: cannot open a socket from {from}")]
    Socket {
        /// The group.
        group: SocketAddr,
        /// The own address.
        from: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

fn io_error(errno: nix::Error) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

/// Name of the interface that has this address; of any loopback address the loopback.
fn interface_of(address: IpAddr) -> Result<String, LineError> {
    let all = getifaddrs().map_err(|errno| LineError::List(io_error(errno)))?;
    for interface in all {
        let own = interface.address.and_then(|storage| {
            let v4 = storage.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())))
        });
        let is_loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        if own == Some(address) || is_loopback && address.is_loopback() {
            return Ok(interface.interface_name);
        }
    }
    Err(LineError::NoInterface(address))
}

/// The open lines.
pub struct Lines {
    sockets: Vec<UdpSocket>,
    failures: u64,
}

impl Lines {
    /// Opens them all.
    pub fn open(specs: &[LineSpec]) -> Result<Self, LineError> {
        Ok(Self { sockets: specs.iter().map(open).collect::<Result<_, _>>()?, failures: 0 })
    }

    /// Sends a payload over every line. One that cannot take it has lost it, as a wire would have.
    pub fn send(&mut self, payload: &[u8]) {
        for socket in &self.sockets {
            self.failures += u64::from(socket.send(payload).is_err());
        }
    }

    /// Packets that a line did not take.
    pub fn failures(&self) -> u64 {
        self.failures
    }
}

fn open(spec: &LineSpec) -> Result<UdpSocket, LineError> {
    let LineSpec { group, address } = *spec;
    if !group.ip().is_multicast() {
        return Err(LineError::NotMulticast(group));
    }
    if let Some(address) = address
        && address.is_ipv4() != group.is_ipv4()
    {
        return Err(LineError::Family { group, address });
    }
    let any = match group {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = SocketAddr::new(address.unwrap_or(any), 0);
    let failed = |source| LineError::Socket { group, from, source };
    let socket = UdpSocket::bind(from).map_err(failed)?;
    if let Some(address) = address {
        // Decides by which interface multicast leaves, whatever the routes say.
        let name = OsString::from(interface_of(address)?);
        setsockopt(&socket, sockopt::BindToDevice, &name)
            .map_err(|errno| failed(io_error(errno)))?;
    }
    match group {
        SocketAddr::V4(_) => {
            socket.set_multicast_ttl_v4(HOPS).map_err(failed)?;
            socket.set_multicast_loop_v4(true).map_err(failed)?;
        }
        SocketAddr::V6(_) => socket.set_multicast_loop_v6(true).map_err(failed)?,
    }
    socket.connect(group).map_err(failed)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_are_refused_by_name() {
        let error = |group: &str, address: Option<&str>| {
            let spec = LineSpec {
                group: group.parse().unwrap(),
                address: address.map(|address| address.parse().unwrap()),
            };
            Lines::open(&[spec]).err().unwrap().to_string()
        };
        assert_eq!(error("10.0.0.1:5", None), "--line 10.0.0.1:5: not a multicast group");
        assert!(error("239.0.0.1:5", Some("::1")).contains("other version of IP"));
        // Of the block for documentation (RFC 5737): nobody has it.
        assert!(error("239.0.0.1:5", Some("192.0.2.77")).contains("192.0.2.77"));
    }
}
