//! The snapshot server's threads: GLIMPSE over SoupBinTCP, one thread a connection.
//!
//! ```text
//!   accept -> login -> books copied as messages, as of one number -> sent -> end of session -> closed
//! ```
//!
//! The day stands still while its books are copied, and goes on while they are sent.

use super::engine::{At, Tape};
use super::shared::Shared;
use crate::feed::glimpse::write_snapshot;
use crate::feed::moldudp64::Session;
use crate::feed::soupbintcp::packet::ANY_SESSION;
use crate::feed::soupbintcp::{
    Credentials, LoginRequest, RejectReason, SILENCE_LIMIT_NS, ServerState, SoupServer,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Connections at once. Too low: receivers that start together wait. Too high: a copy of all books each.
const CONNECTIONS_MAX: u64 = 16;

/// How long a thread waits for bytes before it looks at the clock.
const TURN: Duration = Duration::from_millis(20);

/// Bytes that are handed to the kernel at once.
const WRITE_BYTES: usize = 1 << 16;

/// What the snapshot server has done. Written by the connections' threads, each count by itself.
#[derive(Debug, Default)]
pub struct SnapshotCounts {
    /// Snapshots sent whole.
    pub sent: AtomicU64,
    /// Logins that were rejected.
    pub rejected: AtomicU64,
    /// Connections that ended in another way.
    pub failed: AtomicU64,
    /// Connections above the limit, closed at once.
    pub refused: AtomicU64,
    /// Connections at this time.
    open: AtomicU64,
}

/// Who may have a snapshot, and of what.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSpec {
    /// The session.
    pub session: Session,
    /// Who may log in.
    pub credentials: Credentials,
}

/// Accepts connections until the venue stops, and waits for those that are open.
pub fn serve(
    listener: &TcpListener,
    spec: SnapshotSpec,
    shared: &Shared,
    counts: &SnapshotCounts,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    std::thread::scope(|scope| {
        while !shared.is_stopped() {
            // An error is that of a connection that ended while it waited, or that nobody asks.
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(TURN);
                continue;
            };
            if counts.open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                counts.open.fetch_sub(1, Ordering::Relaxed);
                counts.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            scope.spawn(move || {
                let count = match converse(&stream, &spec, shared) {
                    Ok(End::Sent) => &counts.sent,
                    Ok(End::Rejected) => &counts.rejected,
                    Ok(End::Left) | Err(_) => &counts.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

/// How a conversation ended.
enum End {
    Sent,
    Rejected,
    Left,
}

/// What is wrong with a login, if anything. A snapshot has no message but its first to begin with.
fn judge(request: &LoginRequest, spec: &SnapshotSpec) -> Result<(), RejectReason> {
    if !spec.credentials.admits(&request.credentials) {
        return Err(RejectReason::NotAuthorized);
    }
    let is_ours = request.session == ANY_SESSION || request.session.is_same(&spec.session);
    match is_ours && request.sequence <= 1 {
        true => Ok(()),
        false => Err(RejectReason::NoSession),
    }
}

fn converse(mut stream: &TcpStream, spec: &SnapshotSpec, shared: &Shared) -> io::Result<End> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TURN))?;
    stream.set_write_timeout(Some(Duration::from_nanos(SILENCE_LIMIT_NS)))?;
    let mut server = SoupServer::new(shared.now_ns());
    let (mut bytes, mut out) = ([0; 1_024], Vec::new());
    let request = loop {
        if shared.is_stopped() || !receive(stream, &mut server, &mut bytes, shared)? {
            return Ok(End::Left);
        }
        match server.tick(shared.now_ns(), &mut out) {
            ServerState::LoginRequested(request) => break request,
            state if state.is_over() => return Ok(End::Left),
            _ => {}
        }
    };
    if let Err(reason) = judge(&request, spec) {
        server.reject(reason, &mut out);
        stream.write_all(&out)?;
        leave(stream, &mut bytes);
        return Ok(End::Rejected);
    }
    server.accept(spec.session, 1, shared.now_ns(), &mut out);
    let snapshot = copy(shared);
    for message in snapshot.messages() {
        server.send(message, shared.now_ns(), &mut out);
        if out.len() >= WRITE_BYTES {
            stream.write_all(&out)?;
            out.clear();
        }
    }
    server.end_session(&mut out);
    stream.write_all(&out)?;
    leave(stream, &mut bytes);
    Ok(End::Sent)
}

/// The books as messages, and the end of the snapshot.
fn copy(shared: &Shared) -> Tape {
    let state = shared.read();
    let next_sequence = state.history().next_sequence();
    let mut tape = Tape::default();
    let at = At { engine: state.day().engine(), next_sequence };
    write_snapshot(&at, |message| tape.push(message));
    tape
}

/// Gives the server what has come; `false` when the client has closed.
fn receive(
    mut stream: &TcpStream,
    server: &mut SoupServer,
    bytes: &mut [u8],
    shared: &Shared,
) -> io::Result<bool> {
    match stream.read(bytes) {
        Ok(0) => Ok(false),
        Ok(count) => {
            server.receive(&bytes[..count], shared.now_ns(), |_| {});
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Waits a second for the client to close, so that no unread byte of it makes the kernel throw away
/// what it has not read yet.
fn leave(mut stream: &TcpStream, bytes: &mut [u8]) {
    // Fails when the client is gone already, which is as good.
    let _ = stream.shutdown(Shutdown::Write);
    for _ in 0..Duration::from_secs(1).as_millis() / TURN.as_millis() {
        match stream.read(bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
}
