//! A veth pair in a network namespace of the calling thread alone: both vanish with the thread, so
//! nothing can be left behind.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

pub struct Veth {
    /// Where a peer sends from.
    pub peer: u32,
    /// Where the steering program sits.
    pub ours: u32,
}

impl Veth {
    pub fn new() -> Self {
        // SAFETY: takes an integer; moves only this thread.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
        ip(&["link", "add", "peer", "type", "veth", "peer", "name", "ours"]);
        for name in ["peer", "ours"] {
            ip(&["link", "set", name, "addrgenmode", "none"]);
            ip(&["link", "set", name, "up"]);
        }
        Self { peer: index(c"peer"), ours: index(c"ours") }
    }

    /// Sends a whole frame from the peer's end.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: takes integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "AF_PACKET: {}", std::io::Error::last_os_error());
        // SAFETY: just opened, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.peer as i32;
        // SAFETY: the frame and the address are live and their sizes stated.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }

    /// `ip -d link show` of our end.
    pub fn show(&self) -> String {
        let output = Command::new("ip").args(["-d", "link", "show", "ours"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Deletes the pair.
    pub fn delete(&self) {
        ip(&["link", "del", "ours"]);
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// Runs a command in this thread's namespace.
pub fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
}

fn index(name: &std::ffi::CStr) -> u32 {
    // SAFETY: a terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?}");
    index
}
