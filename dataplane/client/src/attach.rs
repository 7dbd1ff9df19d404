//! Asks a supervisor for one cache (protocol: [`nautilus_shm::attach`]) and believes nothing it says.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nautilus_shm::attach::{
    CACHE_NAME_BYTES, CacheName, CacheRequest, Code, FDS_MAX, PACKET_BYTES_MAX, ReplyHeader,
    SUPERVISOR_SOCKET, Verb, cache_name,
};
use nautilus_shm::region::Access;
use nautilus_shm::sampled_hits::HitRegion;
use nautilus_shm::table::{TableReader, TableRegion};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::AttachError;

/// How long a supervisor may take to answer. Too low: one busy with a promotion counts as dead; too
/// high: a stopped one holds the caller up.
const ANSWER_MS: i64 = 500;

/// Where a cache is asked for.
#[derive(Debug)]
pub(crate) struct Place {
    socket: PathBuf,
    id: String,
    name: CacheName,
}

/// One memory of a cache, mapped read-only.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub table: TableReader<TableRegion>,
    /// Device and inode of the memfd: the same for every descriptor of one memory.
    identity: (u64, u64),
}

/// What was found where a cache was asked for.
pub(crate) enum Found {
    /// The memory that is attached already.
    Same,
    /// Another one.
    Other(Attachment),
}

impl Place {
    /// `path` is the node's run directory or the socket in it.
    pub fn new(path: &Path, id: &str) -> Result<Self, AttachError> {
        if id.is_empty() || id.len() >= CACHE_NAME_BYTES || id.contains('\0') {
            return Err(AttachError::CacheId(id.into()));
        }
        let socket = if path.is_dir() { path.join(SUPERVISOR_SOCKET) } else { path.to_owned() };
        Ok(Self { socket, id: id.into(), name: cache_name(id) })
    }

    /// Asks, and maps what comes unless it is what `known` is.
    pub fn attach(&self, known: Option<&Attachment>) -> Result<Found, AttachError> {
        let fd = self.ask(Verb::Cache)?;
        let file = fstat(&fd).map_err(|errno| self.no_answer(errno))?;
        let identity = (file.st_dev, file.st_ino);
        if known.is_some_and(|known| known.identity == identity) {
            return Ok(Found::Same);
        }
        let region = TableRegion::attach(fd, Access::ReadOnly)
            .map_err(|source| AttachError::Region { id: self.id.clone(), source })?;
        // Without it values are read as well, only nobody knows that they are.
        let hits = self.ask(Verb::Hits).ok();
        let hits = hits.and_then(|fd| HitRegion::attach(fd, Access::ReadWrite).ok());
        let region = match hits {
            Some(hits) => region.with_hits(hits),
            None => region,
        };
        let table = TableReader::attach(region)
            .map_err(|source| AttachError::Table { id: self.id.clone(), source })?;
        Ok(Found::Other(Attachment { table, identity }))
    }

    fn no_answer(&self, errno: Errno) -> AttachError {
        AttachError::Answer { path: self.socket.clone(), errno }
    }

    /// One descriptor of the cache.
    fn ask(&self, verb: Verb) -> Result<OwnedFd, AttachError> {
        let path = || self.socket.clone();
        let no_answer = |errno| self.no_answer(errno);
        let bad = |problem: String| AttachError::Reply { path: path(), problem };
        let address = UnixAddr::new(&self.socket).map_err(|_| AttachError::Path(path()))?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let connection =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(no_answer)?;
        let limit = TimeVal::milliseconds(ANSWER_MS);
        setsockopt(&connection, sockopt::ReceiveTimeout, &limit).map_err(no_answer)?;
        setsockopt(&connection, sockopt::SendTimeout, &limit).map_err(no_answer)?;
        again(|| connect(connection.as_raw_fd(), &address))
            .map_err(|errno| AttachError::Connect { path: path(), errno })?;
        let request = CacheRequest { verb, name: self.name }.encode();
        let slices = [IoSlice::new(&request)];
        let (fd, flags) = (connection.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        again(|| sendmsg::<UnixAddr>(fd, &slices, &[], flags, None)).map_err(no_answer)?;
        let (packet, mut fds) = again(|| receive(fd)).map_err(no_answer)?;
        let (header, payload) =
            ReplyHeader::decode(&packet).map_err(|error| bad(error.to_string()))?;
        if header.code != Code::Ok {
            let text = String::from_utf8_lossy(payload);
            let text = text.chars().filter(|c| !c.is_control()).collect();
            return Err(AttachError::Refused { path: path(), code: header.code, text });
        }
        if payload != self.name {
            return Err(bad("it is of another cache".into()));
        }
        match (fds.pop(), fds.len(), header.fds) {
            (Some(fd), 0, 1) => Ok(fd),
            (fd, more, said) => {
                let found = more + usize::from(fd.is_some());
                Err(bad(format!("{found} descriptors came, {said} were announced, one is due")))
            }
        }
    }
}

/// Repeats a call that a signal interrupted; the socket's timeouts bound each turn.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn receive(socket: RawFd) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    // One byte more than the protocol allows: a longer packet is seen as such.
    let mut packet = vec![0; PACKET_BYTES_MAX + 1];
    let mut ancillary = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut buffers = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket, &mut buffers, Some(&mut ancillary), flags)?;
    let length = message.bytes;
    let mut fds = Vec::new();
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(own));
        }
    }
    if length == 0 {
        return Err(Errno::ECONNRESET);
    }
    packet.truncate(length);
    Ok((packet, fds))
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
