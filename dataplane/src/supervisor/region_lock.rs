//! The record lock by which front and capture hold their regions. The kernel names the holder, so one that outlived
//! another supervisor is known by it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, fcntl};

use super::seat::Seat;
use super::sys::pidfd_open;

/// The process that holds the lock of a region, as an adopted seat.
pub fn holder_of(region: BorrowedFd<'_>, index: u32, generation: u64) -> Option<Seat> {
    let pid = lock_holder(region)?;
    let pidfd = pidfd_open(pid).ok()?;
    // It still holds the lock after the pidfd was made, so the pid was not reused.
    if lock_holder(region) != Some(pid) {
        return None;
    }
    let socket = nix::sys::socket::socketpair(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::SeqPacket,
        None,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
    );
    let (ours, _) = socket.ok()?;
    let mut seat = Seat::adopted(index, pid, generation, 0, pidfd, ours);
    // The connection to it died with the other supervisor; nothing comes from it any more.
    seat.forget_messages();
    Some(seat)
}

fn lock_holder(region: BorrowedFd<'_>) -> Option<u32> {
    let mut lock = whole_file(nix::libc::F_WRLCK);
    fcntl(region.as_fd(), FcntlArg::F_GETLK(&mut lock)).ok()?;
    let held = i32::from(lock.l_type) == nix::libc::F_WRLCK;
    if held { u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0) } else { None }
}

/// A record lock over everything.
pub fn whole_file(kind: i32) -> nix::libc::flock {
    nix::libc::flock {
        l_type: kind as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
