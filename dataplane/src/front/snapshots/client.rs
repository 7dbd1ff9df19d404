//! One client of the snapshot server: its connection, and how far it is with it.
//!
//! ```text
//!   Login --L--> Asking --books wanted--> Expecting --session known--> Joined --written--> Taking
//!     |             |                         |                           |                  | all of it
//!     +-------------+---- rejected, void, slow, or gone ------------------+------------------+--> Leaving
//! ```
//!
//! Never waited for: what its socket does not take stays where it is, once for all clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use nautilus_shm::metrics::labels::ServedSnapshot;
use nix::sys::socket::{setsockopt, sockopt};

use super::super::unsent::unsent_bytes;
use crate::feed::moldudp64::Session;
use crate::feed::soupbintcp::packet::ANY_SESSION;
use crate::feed::soupbintcp::{LoginRequest, RejectReason, ServerState, SoupServer};

/// How long a client may take no byte. Too low: one behind a bad line gets nothing. Too high: it keeps a snapshot
/// in memory that others wait for.
const STALL_NS: u64 = 15_000_000_000;

/// How long all of it may take, login included.
const WHOLE_NS: u64 = 120_000_000_000;

/// How long a client may take to close when it has everything, so that no unread byte of it makes the kernel throw
/// away what it has not read yet.
const LEAVING_NS: u64 = 1_000_000_000;

/// Bytes handed to the kernel in one turn. Too low: system calls. Too high: clients of caches wait.
const WRITE_BYTES: usize = 256 << 10;

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not logged in.
    Login,
    /// It wants to.
    Knocking(LoginRequest),
    /// It may.
    Asking(LoginRequest),
    /// The worker was asked for books since; it is let in once their session is known.
    Expecting(LoginRequest),
    /// It is logged in and waits for the snapshot to be written.
    Joined,
    /// It is given what is on this tape, so many bytes of it already.
    Taking { tape: usize, sent: usize },
    /// It has all that it will get.
    Leaving { end: ServedSnapshot, since_ns: u64 },
}

/// One connection.
pub(super) struct Client {
    socket: TcpStream,
    soup: SoupServer,
    out: Vec<u8>,
    pub stage: Stage,
    begun_ns: u64,
    moved_ns: u64,
}

impl Client {
    /// A connection that was accepted and does not block.
    pub fn new(socket: TcpStream, now_ns: u64) -> Self {
        let soup = SoupServer::new(now_ns);
        let stage = Stage::Login;
        Self { socket, soup, out: Vec::new(), stage, begun_ns: now_ns, moved_ns: now_ns }
    }

    /// Lets it in, if it asks for this session from its beginning.
    pub fn admit(&mut self, session: Session, now_ns: u64) {
        let Stage::Expecting(request) = self.stage else { return };
        let is_it = request.session == ANY_SESSION || request.session.is_same(&session);
        if !is_it || request.sequence > 1 {
            return self.reject(RejectReason::NoSession, ServedSnapshot::Rejected, now_ns);
        }
        self.soup.accept(session, 1, now_ns, &mut self.out);
        self.stage = Stage::Joined;
    }

    /// Does not let it in.
    pub fn reject(&mut self, reason: RejectReason, end: ServedSnapshot, now_ns: u64) {
        self.soup.reject(reason, &mut self.out);
        self.leave(end, now_ns);
    }

    /// Has the kernel forget what it has not sent yet, and close the connection when this is dropped.
    pub fn cut_off(&self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = setsockopt(&self.socket, sockopt::Linger, &at_once);
    }

    /// Has a tape sent, if it waits for one; says whether it does.
    pub fn give(&mut self, tape: usize, now_ns: u64) -> bool {
        let is_waiting = self.stage == Stage::Joined;
        if is_waiting {
            self.stage = Stage::Taking { tape, sent: 0 };
            self.moved_ns = now_ns;
        }
        is_waiting
    }

    /// Ends it: without the message that ends a snapshot, unless that was sent, so that nobody takes it for one.
    pub fn leave(&mut self, end: ServedSnapshot, now_ns: u64) {
        self.stage = Stage::Leaving { end, since_ns: now_ns };
        // As much of the reason as the socket takes at once.
        let _ = self.write_out();
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Goes on as far as there is something to do, with the tape that it takes. `Some` when it is over.
    pub fn turn(
        &mut self,
        now_ns: u64,
        scratch: &mut [u8],
        tape: Option<&[u8]>,
    ) -> Option<ServedSnapshot> {
        let is_closed = self.read(now_ns, scratch).is_err();
        if let Stage::Leaving { end, since_ns } = self.stage {
            return self.left(end, now_ns.saturating_sub(since_ns), is_closed);
        }
        let end = match self.go_on(now_ns, tape, is_closed) {
            Ok(()) if self.is_slow(now_ns) => Some(ServedSnapshot::Slow),
            Ok(()) => None,
            Err(end) => Some(end),
        };
        if end.is_some() && matches!(self.stage, Stage::Taking { .. } | Stage::Leaving { .. }) {
            self.cut_off();
        }
        end
    }

    /// The end of one that has all it will get. What the kernel sends of a closed connection nobody can take back, so
    /// it is not closed before all of that was sent.
    fn left(&self, end: ServedSnapshot, age_ns: u64, is_closed: bool) -> Option<ServedSnapshot> {
        if unsent_bytes(&self.socket) == 0 {
            return (is_closed || age_ns >= LEAVING_NS).then_some(end);
        }
        if age_ns < STALL_NS {
            return None;
        }
        self.cut_off();
        Some(if end == ServedSnapshot::Sent { ServedSnapshot::Slow } else { end })
    }

    fn is_slow(&self, now_ns: u64) -> bool {
        let is_stalled = matches!(self.stage, Stage::Taking { .. })
            && now_ns.saturating_sub(self.moved_ns) >= STALL_NS;
        is_stalled || now_ns.saturating_sub(self.begun_ns) >= WHOLE_NS
    }

    fn go_on(
        &mut self,
        now_ns: u64,
        tape: Option<&[u8]>,
        is_closed: bool,
    ) -> Result<(), ServedSnapshot> {
        let state = match self.stage {
            // A heartbeat between two pieces of a tape would be in the middle of a packet.
            Stage::Taking { .. } => self.soup.state(),
            _ => self.soup.tick(now_ns, &mut self.out),
        };
        if is_closed || state.is_over() {
            return Err(ServedSnapshot::Left);
        }
        if let (Stage::Login, ServerState::LoginRequested(request)) = (self.stage, state) {
            self.stage = Stage::Knocking(request);
        }
        self.write(now_ns, tape).map_err(|_| ServedSnapshot::Left)
    }

    fn read(&mut self, now_ns: u64, scratch: &mut [u8]) -> io::Result<()> {
        match self.socket.read(scratch) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.soup.receive(&scratch[..bytes], now_ns, |_| {});
                Ok(())
            }
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write_out(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(bytes) => drop(self.out.drain(..bytes)),
                Err(error) if is_later(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write(&mut self, now_ns: u64, tape: Option<&[u8]>) -> io::Result<()> {
        if !self.write_out()? {
            return Ok(());
        }
        let (Stage::Taking { tape: number, sent }, Some(tape)) = (self.stage, tape) else {
            return Ok(());
        };
        let end = tape.len().min(sent + WRITE_BYTES);
        match self.socket.write(&tape[sent..end]) {
            Ok(bytes) => {
                self.moved_ns = now_ns;
                self.stage = Stage::Taking { tape: number, sent: sent + bytes };
                if sent + bytes == tape.len() {
                    self.leave(ServedSnapshot::Sent, now_ns);
                }
                Ok(())
            }
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
