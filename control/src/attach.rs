//! The reader's end of `supervisor.sock` ([`nautilus_shm::attach`] has the protocol).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nautilus_host::order::{self, Shortfall};
use nautilus_shm::attach::{
    AttachError, CacheRequest, Code, ExplainRequest, FDS_MAX, HostAnswer, HostOrder, HostRequest,
    PACKET_BYTES_MAX, Probed, ReplyHeader, Request, SUPERVISOR_SOCKET, Verb, cache_ids, cache_name,
    create_request, drain_request, exchange_request, kill_switch_request, probe_request,
    remove_request, swap_request,
};
use nautilus_shm::control_region::ControlReader;
use nautilus_shm::region::RegionError;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long a supervisor may take to answer. Too low: one busy with a promotion counts as dead; too
/// high: one that hangs delays the look at the next node.
const ANSWER_MS: i64 = 500;

/// The same for a cache that comes or goes: 64 GiB of it take minutes on a slow host.
const CHANGE_MS: i64 = 300_000;

/// The same for a look at the host. Too low: one with hundreds of cores and interrupts cannot be judged; too high:
/// a supervisor that hangs keeps a deployment waiting.
const LOOK_MS: i64 = 10_000;

/// Longest text of a plan that is shown.
const HOST_TEXT_BYTES_MAX: usize = 1 << 20;

/// A node's regions, mapped read-only.
#[derive(Debug)]
pub struct Attached {
    /// The control region.
    pub region: ControlReader,
    /// Ids of the node's caches, in the order of the supervisor.
    pub cache_ids: Vec<String>,
    /// Generation of the supervisor that answered.
    pub generation: u64,
}

/// Why a node could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The path does not fit a Unix socket address (107 bytes).
    #[error("{}: the path is too long for a socket", .0.display())]
    Path(PathBuf),
    /// No supervisor listens there.
    #[error("{}: {errno}: no supervisor is listening", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The supervisor did not answer in time, or hung up.
    #[error("{}: no answer from the supervisor: {errno}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The supervisor said no.
    #[error("{}: {}{said}", path.display(), code.explain())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        code: Code,
        /// The same in its own words, after a colon; may be empty.
        said: String,
    },
    /// What came back is not an attach reply.
    #[error("{}: bad answer: {source}", path.display())]
    Reply {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: AttachError,
    },
    /// What the host lacks cannot be read.
    #[error("{}: bad answer about the host: {why}", path.display())]
    Host {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The reply has another number of descriptors than it says, or none at all.
    #[error("{}: {found} descriptors came, {said} were announced", path.display())]
    Descriptors {
        /// The socket.
        path: PathBuf,
        /// Announced.
        said: usize,
        /// Received.
        found: usize,
    },
    /// The region is not one this program can read.
    #[error("{}: control region: {source}", path.display())]
    Region {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: RegionError,
    },
}

/// Attaches to the node whose run directory this is.
pub fn attach(run_dir: &Path) -> Result<Attached, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let request = Request { verb: Verb::Attach }.encode();
    let (header, payload, mut fds) = ask(&path, &request, ANSWER_MS)?;
    let ids =
        cache_ids(&payload).map_err(|source| ReachError::Reply { path: path.clone(), source })?;
    if fds.is_empty() || fds.len() != header.fds as usize {
        return Err(ReachError::Descriptors { path, said: header.fds as usize, found: fds.len() });
    }
    let region = ControlReader::attach(fds.swap_remove(0))
        .map_err(|source| ReachError::Region { path, source })?;
    Ok(Attached { region, cache_ids: ids, generation: header.generation })
}

/// The supervisor's own line of text, control characters removed.
pub fn supervisor_status(run_dir: &Path) -> Result<String, ReachError> {
    let request = Request { verb: Verb::Status }.encode();
    let (_, payload, _) = ask(&run_dir.join(SUPERVISOR_SOCKET), &request, ANSWER_MS)?;
    Ok(text(&payload))
}

/// The supervisor's answer to where a frame would go, as it came.
pub fn explain(run_dir: &Path, request: &ExplainRequest) -> Result<String, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let (_, payload, _) = ask(&path, &request.encode(), ANSWER_MS)?;
    Ok(String::from_utf8_lossy(&payload).into_owned())
}

/// Has the node make the cache that a section of its node file would describe, and says what it said. The same
/// cache again is fine.
pub fn create_cache(run_dir: &Path, section: &str) -> Result<String, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let (_, payload, _) = ask(&path, &create_request(section), CHANGE_MS)?;
    Ok(text(&payload))
}

/// Has the node remove a cache that was created so, and says what it said.
pub fn remove_cache(run_dir: &Path, id: &str) -> Result<String, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let (_, payload, _) = ask(&path, &remove_request(&cache_name(id)), CHANGE_MS)?;
    Ok(text(&payload))
}

/// A connection to the node's front, by which one of its caches is changed.
pub fn connect_cache(run_dir: &Path, id: &str) -> Result<OwnedFd, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let request = CacheRequest { verb: Verb::Connect, name: cache_name(id) }.encode();
    one_fd(&path, &request)
}

/// Has the node turn its kill switch on, or off, and says what it said.
pub fn turn_kill_switch(run_dir: &Path, on: bool, reason: &str) -> Result<String, ReachError> {
    tell(run_dir, &kill_switch_request(on, reason), ANSWER_MS)
}

/// Has the node's supervisor show, carry out or undo stages of the host doctor, and says how many there were and
/// what it said.
pub fn change_host(
    run_dir: &Path,
    request: &HostRequest,
) -> Result<(HostAnswer, String), ReachError> {
    host_answer(&run_dir.join(SUPERVISOR_SOCKET), &request.encode(), CHANGE_MS)
}

/// What the node's host lacks of an order, as its supervisor finds it. Nothing is changed.
pub fn check_host(run_dir: &Path, order: &HostOrder) -> Result<Vec<Shortfall>, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let (_, said) = host_answer(&path, &order.encode(), LOOK_MS)?;
    order::of_text(&said).map_err(|why| ReachError::Host { path, why })
}

fn host_answer(
    path: &Path,
    request: &[u8],
    limit_ms: i64,
) -> Result<(HostAnswer, String), ReachError> {
    let (header, payload, fds) = ask(path, request, limit_ms)?;
    let answer = HostAnswer::decode(&payload)
        .map_err(|source| ReachError::Reply { path: path.into(), source })?;
    let Ok([memory]) = <[OwnedFd; 1]>::try_from(fds) else {
        let (path, said) = (path.into(), header.fds as usize);
        return Err(ReachError::Descriptors { path, said, found: 0 });
    };
    // What cannot be read is not shown; what was done is known by the numbers.
    let mut bytes = vec![0; HOST_TEXT_BYTES_MAX];
    let length = std::fs::File::from(memory).read_at(&mut bytes, 0).unwrap_or(0);
    Ok((answer, text(&bytes[..length])))
}

/// The file that the one control which deploys to the node holds locked; not locked yet.
pub fn claim_file(run_dir: &Path) -> Result<OwnedFd, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    one_fd(&path, &Request { verb: Verb::Claim }.encode())
}

/// The one descriptor that answers a request.
fn one_fd(path: &Path, request: &[u8]) -> Result<OwnedFd, ReachError> {
    let (header, _, mut fds) = ask(path, request, ANSWER_MS)?;
    let (said, found) = (header.fds as usize, fds.len());
    match fds.pop() {
        Some(fd) if found == 1 && said == 1 => Ok(fd),
        _ => Err(ReachError::Descriptors { path: path.into(), said, found }),
    }
}

/// Has a parked node serve, and says what it said when it does. A node that serves is fine.
pub fn start_node(run_dir: &Path) -> Result<String, ReachError> {
    tell(run_dir, &Request { verb: Verb::Start }.encode(), CHANGE_MS)
}

/// Has the node give back everything but its supervisor, and says what it said when that is done. A parked node
/// is fine.
pub fn park_node(run_dir: &Path) -> Result<String, ReachError> {
    tell(run_dir, &Request { verb: Verb::Park }.encode(), CHANGE_MS)
}

/// Has the node take no more clients over TCP and serve those it has, for at most so many milliseconds; returns
/// when none is left.
pub fn drain_node(run_dir: &Path, within_ms: u32) -> Result<String, ReachError> {
    tell(run_dir, &drain_request(within_ms), CHANGE_MS)
}

/// Has the node take clients again. One that takes them is fine.
pub fn resume_node(run_dir: &Path) -> Result<String, ReachError> {
    tell(run_dir, &Request { verb: Verb::Resume }.encode(), CHANGE_MS)
}

/// Has the node go on with the programs of a release, or with its node file read anew where the name is empty
/// or that of the release that runs; returns when they have served for a while.
pub fn swap_node(run_dir: &Path, release: &str) -> Result<String, ReachError> {
    tell(run_dir, &swap_request(release), CHANGE_MS)
}

/// The same, but returns as soon as they serve: the node goes on watching them, and [`settle_node`] says how that
/// went. A node that is older than this verb swaps to the end.
pub fn exchange_node(run_dir: &Path, release: &str) -> Result<String, ReachError> {
    match tell(run_dir, &exchange_request(release), CHANGE_MS) {
        Err(error) if is_not_understood(&error) => swap_node(run_dir, release),
        other => other,
    }
}

/// Returns when no swap is under way; refused with the reason where the last one was turned back. A node that is
/// older than this verb has told that to whoever asked for the swap.
pub fn settle_node(run_dir: &Path) -> Result<String, ReachError> {
    match tell(run_dir, &Request { verb: Verb::Settle }.encode(), CHANGE_MS) {
        Err(error) if is_not_understood(&error) => Ok(String::new()),
        other => other,
    }
}

/// Whether the node does not know what was asked for: its supervisor is older than this control.
fn is_not_understood(error: &ReachError) -> bool {
    matches!(error, ReachError::Refused { code: Code::BadRequest, .. })
}

/// Has the node measure itself for so many milliseconds.
pub fn probe_node(run_dir: &Path, period_ms: u32) -> Result<Probed, ReachError> {
    let path = run_dir.join(SUPERVISOR_SOCKET);
    let limit_ms = i64::from(period_ms) + CHANGE_MS;
    let (_, payload, _) = ask(&path, &probe_request(period_ms), limit_ms)?;
    Probed::decode(&payload).map_err(|source| ReachError::Reply { path, source })
}

fn tell(run_dir: &Path, request: &[u8], limit_ms: i64) -> Result<String, ReachError> {
    let (_, payload, _) = ask(&run_dir.join(SUPERVISOR_SOCKET), request, limit_ms)?;
    Ok(text(&payload))
}

/// A supervisor's text, control characters removed.
fn text(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

fn ask(
    path: &Path,
    request: &[u8],
    limit_ms: i64,
) -> Result<(ReplyHeader, Vec<u8>, Vec<OwnedFd>), ReachError> {
    let no_answer = |errno| ReachError::Answer { path: path.into(), errno };
    let address = UnixAddr::new(path).map_err(|_| ReachError::Path(path.into()))?;
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(no_answer)?;
    let limit = TimeVal::milliseconds(limit_ms);
    setsockopt(&connection, sockopt::ReceiveTimeout, &limit).map_err(no_answer)?;
    setsockopt(&connection, sockopt::SendTimeout, &limit).map_err(no_answer)?;
    connect(connection.as_raw_fd(), &address)
        .map_err(|errno| ReachError::Connect { path: path.into(), errno })?;
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<UnixAddr>(connection.as_raw_fd(), &[IoSlice::new(request)], &[], flags, None)
        .map_err(no_answer)?;

    // One byte more than the protocol allows: a longer packet is seen as such.
    let mut packet = vec![0; PACKET_BYTES_MAX + 1];
    let mut ancillary = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut buffers = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<UnixAddr>(connection.as_raw_fd(), &mut buffers, Some(&mut ancillary), flags)
            .map_err(no_answer)?;
    let length = message.bytes;
    let mut fds = Vec::new();
    if let Ok(messages) = message.cmsgs() {
        for message in messages {
            if let ControlMessageOwned::ScmRights(received) = message {
                fds.extend(received.into_iter().map(own));
            }
        }
    }
    if length == 0 {
        return Err(no_answer(Errno::ECONNRESET));
    }
    packet.truncate(length);
    let (header, payload) = ReplyHeader::decode(&packet)
        .map_err(|source| ReachError::Reply { path: path.into(), source })?;
    if header.code != Code::Ok {
        let said = text(payload);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        return Err(ReachError::Refused { path: path.into(), code: header.code, said });
    }
    let payload = payload.to_vec();
    Ok((header, payload, fds))
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
