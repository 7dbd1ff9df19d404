//! Whose a new connection is, and what that one may do.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nautilus_ebpf::intf::Permissions;
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, getpeername, getsockopt, sockopt,
};

use super::caches::Served;

/// What control may do: it has no business with `flush_all`.
const OF_CONTROL: Permissions = Permissions::READ.with(Permissions::WRITE);

/// What the other end of a connection to this cache may do; `None` when it is gone already.
pub fn permissions_of(connection: &OwnedFd, cache: &Served) -> Option<Permissions> {
    let peer = getpeername::<SockaddrStorage>(connection.as_raw_fd()).ok()?;
    if peer.family() == Some(AddressFamily::Unix) {
        // The supervisor makes these and gives them away; everybody else who finds the address is turned off.
        let made_by = getsockopt(connection, sockopt::PeerCredentials).ok()?.uid();
        let is_supervisors = cache.local_uid.is_some_and(|own| [0, own].contains(&made_by));
        return Some(if is_supervisors { OF_CONTROL } else { Permissions::NONE });
    }
    Some(cache.access.permissions_of(address(&peer)?))
}

fn address(peer: &SockaddrStorage) -> Option<IpAddr> {
    peer.as_sockaddr_in()
        .map(|v4| IpAddr::from(v4.ip()))
        .or_else(|| peer.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}
