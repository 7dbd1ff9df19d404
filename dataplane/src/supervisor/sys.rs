//! The few kernel calls that nix does not wrap safely; the only unsafe code of this folder.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, UnixCredentials, accept4, recvmsg,
    sendmsg,
};

/// Descriptors of one message: the kernel's own bound (`SCM_MAX_FD`).
pub const FDS_MAX: usize = 253;

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that polls readable when the process is dead (all threads gone, memory unmapped).
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process behind a pidfd, which cannot be reused as a pid can.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed and means the same as kill(2).
    checked(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Puts the calling thread under `SCHED_FIFO`; its children start under the normal scheduler.
pub fn realtime(priority: u8) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority.into() };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` outlives the call, 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, policy, &param) }.into())?;
    Ok(())
}

/// Where memory of a thread comes from: set_mempolicy(2), of the first 64 NUMA nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with its flags.
    pub mode: i32,
    /// Nodes that it names, a bit each; nodes from the 64th on are not seen.
    pub nodes: u64,
}

impl MemoryPolicy {
    /// The kernel's own: from where the thread runs.
    pub const LOCAL: Self = Self { mode: libc::MPOL_DEFAULT, nodes: 0 };
}

/// Words of a set of NUMA nodes as long as the kernel can be built for (`MAX_NUMNODES`), lest it refuse.
const NODE_WORDS: usize = 1024 / u64::BITS as usize;

/// Bits of such a set as the two calls want them told: one more than there are.
const NODE_BITS: usize = NODE_WORDS * u64::BITS as usize + 1;

/// The policy of this thread.
pub fn memory_policy() -> io::Result<MemoryPolicy> {
    let (mut mode, mut nodes) = (0, [0_u64; NODE_WORDS]);
    let (to_mode, to_nodes) = (std::ptr::from_mut::<i32>(&mut mode), nodes.as_mut_ptr());
    // SAFETY: the kernel writes an int and at most NODE_BITS - 1 bits, which is all of `nodes`; both outlive the call.
    checked(unsafe {
        libc::syscall(libc::SYS_get_mempolicy, to_mode, to_nodes, NODE_BITS, 0_usize, 0_usize)
    })?;
    Ok(MemoryPolicy { mode, nodes: nodes[0] })
}

/// Gives this thread, and threads that it starts, a policy.
pub fn set_memory_policy(policy: MemoryPolicy) -> io::Result<()> {
    let mut nodes = [0_u64; NODE_WORDS];
    nodes[0] = policy.nodes;
    // SAFETY: the kernel reads at most NODE_BITS - 1 bits, which is all of `nodes`, and keeps nothing of it.
    checked(unsafe {
        libc::syscall(libc::SYS_set_mempolicy, policy.mode, nodes.as_ptr(), NODE_BITS)
    })?;
    Ok(())
}

/// Joins `group` on the interface, for as long as `socket` lives. Already a member is no error.
pub fn join_group(socket: BorrowedFd<'_>, ifindex: u32, group: IpAddr) -> io::Result<()> {
    let result = match group {
        IpAddr::V4(v4) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: u32::from(v4).to_be() },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: ifindex as i32,
            };
            set_option(socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)
        }
        IpAddr::V6(v6) => {
            let request = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr { s6_addr: v6.octets() },
                ipv6mr_interface: ifindex,
            };
            set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
        }
    };
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
        other => other,
    }
}

fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &T,
) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: pointer and length describe `value`, a plain C struct or integer, which outlives the
    // call; the kernel only reads it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, bytes) };
    checked(result.into()).map(|_| ())
}

/// Has every descriptor but the first three close when this process executes another program.
pub fn close_all_on_exec() {
    // SAFETY: no pointer; descriptors stay open, only a flag of theirs is set.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
}

/// A connection that the process before us left open under this number: a `SOCK_SEQPACKET` socket, or nothing.
pub fn inherited_connection(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: F_GETFD only asks whether the number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, it was left for us on our command line, and nothing of ours has been opened yet that
    // could have this number: the caller takes it before it opens anything.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    use nix::sys::socket::{SockType, getsockopt, sockopt};
    // SAFETY: as above; only the flag is set.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    (getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket)).then_some(fd)
}

/// Sends one packet with descriptors over a `SOCK_SEQPACKET` socket. Never raises `SIGPIPE`.
pub fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// One received packet.
#[derive(Debug, Default)]
pub struct Packet {
    /// Its bytes; empty at the end of the connection.
    pub bytes: Vec<u8>,
    /// Descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// The sender as the kernel vouches for it, when the socket has `SO_PASSCRED`.
    pub pid: Option<u32>,
}

/// Receives one packet of at most `bytes_max` bytes. A packet that was cut is an error
/// (`InvalidData`), and whatever descriptors came with it are closed.
pub fn recv_packet(socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Packet> {
    let mut bytes = vec![0; bytes_max];
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX], UnixCredentials);
    let mut packet = Packet::default();
    let (length, flags) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmRights(raw) => {
                    for fd in raw {
                        // SAFETY: the kernel has just installed this descriptor for us.
                        packet.fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
                ControlMessageOwned::ScmCredentials(credentials) => {
                    packet.pid = u32::try_from(credentials.pid()).ok();
                }
                _ => {}
            }
        }
        (message.bytes, message.flags)
    };
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet longer than agreed"));
    }
    bytes.truncate(length);
    packet.bytes = bytes;
    Ok(packet)
}

/// Takes one connection of a listener; both ends do not block.
pub fn accept_nonblocking(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn descriptors_travel_and_cut_packets_do_not() {
        let (a, b) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"same file").unwrap();
        send_packet(a.as_fd(), b"take this", &[file.as_fd()]).unwrap();
        let packet = recv_packet(b.as_fd(), 64).unwrap();
        assert_eq!(packet.bytes, b"take this");
        let [fd] = <[OwnedFd; 1]>::try_from(packet.fds).unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "same file");

        send_packet(a.as_fd(), &[7; 65], &[]).unwrap();
        assert_eq!(recv_packet(b.as_fd(), 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert!(recv_packet(b.as_fd(), 64).unwrap().bytes.is_empty());
    }

    #[test]
    fn a_pidfd_kills_its_own_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        pidfd_kill(pidfd.as_fd()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(pidfd_kill(pidfd.as_fd()).is_err());
    }
}
