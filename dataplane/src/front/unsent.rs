//! What the kernel has of a connection that the other end has not got.
#![allow(unsafe_code)]

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::libc;

/// Bytes that were written and not acknowledged (tcp(7), `SIOCOUTQ`); none where the kernel does not say.
pub fn unsent_bytes(socket: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `bytes`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_a_peer_does_not_take_is_counted_and_what_it_has_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unsent_bytes(&sender), 0);
        sender.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = sender.write(&[7; 1 << 16]) {
            written += bytes;
        }
        assert!((1..=written).contains(&unsent_bytes(&sender)), "of {written}");
        peer.read_exact(&mut vec![0; written]).unwrap();
        // The kernel may acknowledge it later.
        let begun = std::time::Instant::now();
        while unsent_bytes(&sender) > 0 {
            assert!(begun.elapsed().as_secs() < 20, "{} of {written}", unsent_bytes(&sender));
            std::thread::yield_now();
        }
    }
}
