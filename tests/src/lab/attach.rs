//! A read-only look into a running node, the way `control` gets one: over `supervisor.sock`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nautilus_dataplane::supervisor::sys::{recv_packet, send_packet};
use nautilus_shm::attach::{
    AttachError, Code, PACKET_BYTES_MAX, ReplyHeader, Request, SUPERVISOR_SOCKET, Verb,
};
use nautilus_shm::cells::{WorkerIdentity, WorkerState};
use nautilus_shm::control_region::{ControlReader, WORKERS_MAX};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long the supervisor may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why a node could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum AttachFailed {
    /// The socket.
    #[error("{SUPERVISOR_SOCKET}: {0}")]
    Socket(#[from] io::Error),
    /// The answer is not one.
    #[error("{SUPERVISOR_SOCKET}: {0}")]
    Protocol(#[from] AttachError),
    /// The supervisor said no.
    #[error("{}", .0.explain())]
    Refused(Code),
    /// No descriptor, or not that of a control region of this version.
    #[error("the control region: {0}")]
    Region(String),
}

/// Attaches to the node whose run directory this is.
pub fn attach(run_dir: &Path) -> Result<ControlReader, AttachFailed> {
    let (_, fds) = ask(run_dir, Verb::Attach)?;
    let region = fds.into_iter().next();
    let region = region.ok_or_else(|| AttachFailed::Region("no descriptor came".into()))?;
    ControlReader::attach(region).map_err(|error| AttachFailed::Region(error.to_string()))
}

/// What the supervisor says it is doing: its processes and their states.
pub fn status(run_dir: &Path) -> Result<String, AttachFailed> {
    let (text, _) = ask(run_dir, Verb::Status)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn ask(run_dir: &Path, verb: Verb) -> Result<(Vec<u8>, Vec<OwnedFd>), AttachFailed> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(io::Error::from)?;
    let bound = TimeVal::milliseconds(ANSWER_MAX.as_millis() as i64);
    setsockopt(&socket, sockopt::ReceiveTimeout, &bound).map_err(io::Error::from)?;
    let address = UnixAddr::new(&run_dir.join(SUPERVISOR_SOCKET)).map_err(io::Error::from)?;
    connect(socket.as_raw_fd(), &address).map_err(io::Error::from)?;
    send_packet(socket.as_fd(), &Request { verb }.encode(), &[])?;
    let packet = recv_packet(socket.as_fd(), PACKET_BYTES_MAX)?;
    let (header, payload) = ReplyHeader::decode(&packet.bytes)?;
    match header.code {
        Code::Ok => Ok((payload.to_vec(), packet.fds)),
        code => Err(AttachFailed::Refused(code)),
    }
}

/// The worker that owns the sockets now; None between a death and the promotion that follows.
pub fn active_worker(region: &ControlReader) -> Option<WorkerIdentity> {
    (0..WORKERS_MAX)
        .filter_map(|index| region.worker(index).identity().ok())
        .find(|worker| worker.state == WorkerState::Active)
}
