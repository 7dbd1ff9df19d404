//! Readers at `supervisor.sock` (protocol: [`nautilus_shm::attach`]).
//!
//! Anyone may connect; who may have descriptors is decided by `SO_PEERCRED`. Nothing here blocks:
//! one packet in, one packet out, and a reader that does not take its answer is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_shm::attach::{Code, PACKET_BYTES_MAX, ReplyHeader, Request, Verb};
use nix::sys::socket::{getsockopt, sockopt};

use super::sys::{accept_packet_socket, recv_packet, send_packet};

/// Connections held at once; the oldest goes when one more comes, so an idle stranger cannot keep
/// control out.
const READERS_MAX: usize = 16;

/// What an answer is made of.
#[derive(Debug, Default)]
pub struct Answer {
    /// Bytes behind the header.
    pub payload: Vec<u8>,
    /// Read-only descriptors.
    pub fds: Vec<OwnedFd>,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Descriptors were given to this uid.
    Attached(u32),
    /// A status text was given.
    Told,
    /// This uid is not on the list.
    Refused(u32),
    /// Not a request, or the reader is gone.
    Closed,
}

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Readers {
    listener: OwnedFd,
    connections: Vec<(OwnedFd, u32)>,
    allowed_uid: u32,
    own_uid: u32,
    pid: u32,
    generation: u64,
}

impl Readers {
    /// Serves `listener` (non-blocking) for root, `allowed_uid`, and whoever runs this process: with
    /// the socket port that need not be root, and it could look into its own memory anyway.
    pub fn new(listener: OwnedFd, allowed_uid: u32, generation: u64) -> Self {
        let connections = Vec::new();
        let own_uid = nix::unistd::geteuid().as_raw();
        let pid = std::process::id();
        Self { listener, connections, allowed_uid, own_uid, pid, generation }
    }

    /// Descriptors to poll: the listener, then the connections.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd())
            .chain(self.connections.iter().map(|(fd, _)| fd.as_fd()))
    }

    /// Takes new connections.
    pub fn accept(&mut self) {
        while let Ok(fd) = accept_packet_socket(self.listener.as_fd()) {
            let Ok(peer) = getsockopt(&fd, sockopt::PeerCredentials) else { continue };
            if self.connections.len() == READERS_MAX {
                self.connections.remove(0);
            }
            self.connections.push((fd, peer.uid()));
        }
    }

    /// Answers connection `index` (in the order of [`Self::fds`], the listener left out).
    pub fn answer(
        &mut self,
        index: usize,
        make: impl FnOnce(Verb) -> io::Result<Answer>,
    ) -> Outcome {
        let Some((fd, uid)) = self.connections.get(index) else { return Outcome::Closed };
        let uid = *uid;
        let outcome = self.respond(fd.as_fd(), uid, make);
        if outcome == Outcome::Closed {
            self.connections.remove(index);
        }
        outcome
    }

    fn respond(
        &self,
        fd: BorrowedFd<'_>,
        uid: u32,
        make: impl FnOnce(Verb) -> io::Result<Answer>,
    ) -> Outcome {
        let packet = match recv_packet(fd, PACKET_BYTES_MAX) {
            Ok(packet) if !packet.bytes.is_empty() => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::Told,
            _ => return Outcome::Closed,
        };
        let (code, answer, outcome) = match Request::decode(&packet.bytes) {
            Err(nautilus_shm::attach::AttachError::Version(_)) => {
                (Code::Version, Answer::default(), Outcome::Told)
            }
            Err(_) => (Code::BadRequest, Answer::default(), Outcome::Told),
            Ok(_) if ![0, self.allowed_uid, self.own_uid].contains(&uid) => {
                (Code::Refused, Answer::default(), Outcome::Refused(uid))
            }
            Ok(request) => match make(request.verb) {
                Ok(answer) if request.verb == Verb::Attach => {
                    (Code::Ok, answer, Outcome::Attached(uid))
                }
                Ok(answer) => (Code::Ok, answer, Outcome::Told),
                Err(_) => (Code::NotReady, Answer::default(), Outcome::Told),
            },
        };
        let header = ReplyHeader {
            code,
            generation: self.generation,
            pid: self.pid,
            fds: answer.fds.len() as u32,
            payload_bytes: answer.payload.len() as u32,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&answer.payload);
        let fds: Vec<BorrowedFd<'_>> = answer.fds.iter().map(AsFd::as_fd).collect();
        match send_packet(fd, &bytes, &fds) {
            Ok(()) => outcome,
            Err(_) => Outcome::Closed,
        }
    }
}
