//! Who asks, and how that is known: a certificate, or the kernel's word about a process of this host.

use std::io::BufRead;
use std::net::SocketAddr;

use crate::roles::Role;
use crate::tls::identity::Subject;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is, for records.
    pub address: String,
    /// How it is known.
    pub proof: Proof,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A verified certificate.
    Certificate(Subject),
    /// A process of this host, by the kernel.
    Uid(u32),
    /// Nothing, and why.
    Nothing(String),
}

/// Roles of the users of this host. Who is in no list is a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoles {
    /// Users that are admins.
    pub admins: Vec<u32>,
    /// Users that are operators.
    pub operators: Vec<u32>,
}

impl Default for LocalRoles {
    /// Root and the daemon's own user.
    fn default() -> Self {
        Self { admins: vec![0, nix::unistd::geteuid().as_raw()], operators: Vec::new() }
    }
}

impl LocalRoles {
    /// The role of a user.
    pub fn of(&self, uid: u32) -> Role {
        if self.admins.contains(&uid) {
            Role::Admin
        } else if self.operators.contains(&uid) {
            Role::Operator
        } else {
            Role::Viewer
        }
    }
}

/// The user whose process is at the other end of a connection over loopback: the kernel lists its
/// socket with the user that made it. Nobody, when that socket is closed already: what is left of
/// it is listed as root's.
pub fn uid_of(peer: SocketAddr, ours: SocketAddr) -> Option<u32> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].iter().find_map(|path| {
        let file = std::fs::File::open(path).ok()?;
        let lines = std::io::BufReader::new(file).lines().map_while(Result::ok);
        lines.skip(1).find_map(|line| uid_in(&line, peer, ours))
    })
}

fn uid_in(line: &str, peer: SocketAddr, ours: SocketAddr) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let same = |text: &str, address: SocketAddr| {
        address_of(text).is_some_and(|found| {
            (found.ip().to_canonical(), found.port())
                == (address.ip().to_canonical(), address.port())
        })
    };
    if state != ESTABLISHED || !same(local, peer) || !same(remote, ours) {
        return None;
    }
    let mut words = words.skip(3);
    let (uid, _timeout, inode) = (words.next()?, words.next()?, words.next()?);
    if inode == "0" { None } else { uid.parse().ok() }
}

/// An address as the kernel lists it: words of 32 bits in the byte order of the host, and a port.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some((bytes, port).into());
    }
    Some((<[u8; 16]>::try_from(&bytes[..]).ok()?, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_loopback_connection_is_known() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(listen) else {
                eprintln!("SKIPPED {listen}: this host does not have it");
                continue;
            };
            let ours = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(ours).unwrap();
            let (_accepted, peer) = listener.accept().unwrap();
            assert_eq!(uid_of(peer, ours), Some(nix::unistd::geteuid().as_raw()));
            assert_eq!(uid_of(ours, ours), None);
            drop(client);
            assert_eq!(uid_of(peer, ours), None, "a closed socket is nobody's, not root's");
        }
    }

    #[test]
    fn sockets_that_nobody_holds_are_not_roots() {
        let (peer, ours) = (([127, 0, 0, 1], 0x1234).into(), ([127, 0, 0, 1], 0x50).into());
        let line = |state: &str, uid: &str, inode: &str| {
            format!(
                "  1: 0100007F:1234 0100007F:0050 {state} 00000000:00000000 00:00000000 00000000 \
                 {uid:>5}        0 {inode} 1 0000000000000000 20 4 30 10 -1"
            )
        };
        assert_eq!(uid_in(&line("01", "1000", "77"), peer, ours), Some(1000));
        assert_eq!(uid_in(&line("01", "0", "0"), peer, ours), None);
        assert_eq!(uid_in(&line("04", "0", "77"), peer, ours), None);
        assert_eq!(uid_in("", peer, ours), None);
    }

    #[test]
    fn users_have_the_roles_of_the_lists() {
        let roles = LocalRoles { admins: vec![0], operators: vec![7] };
        let of = [0, 7, 8].map(|uid| roles.of(uid));
        assert_eq!(of, [Role::Admin, Role::Operator, Role::Viewer]);
    }
}
