//! Readers at `supervisor.sock` (protocol: [`nautilus_shm::attach`]).
//!
//! Anyone may connect; who may have descriptors is decided by `SO_PEERCRED` and [`Access`]: readers of
//! a cache are given that cache and nothing else. Nothing here blocks: one packet in, one packet out,
//! and a reader that does not take its answer is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nautilus_shm::attach::{
    Ask, AttachError, CacheName, Code, PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX, ReplyHeader, cache_name,
};
use nautilus_shm::table::{TableRegion, Words};
use nix::sys::socket::{getsockopt, sockopt};

use super::caches::OpenCache;
use super::sys::{accept_nonblocking, recv_packet, send_packet};
use crate::config::Resolved;

/// Connections held at once; one goes when one more comes, so an idle stranger cannot keep control
/// out: the oldest of those who may do least.
const READERS_MAX: usize = 16;

/// Who may have what. Nobody else is given anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// May have every region, as root may.
    pub control_uid: u32,
    /// The supervisor's own user, which need not be root with the socket port. It may have every
    /// region, too: it could look into its own memory anyway.
    pub own_uid: u32,
    /// The node's caches by id, and who may read each.
    pub caches: Vec<(String, Vec<u32>)>,
}

/// What a peer may do, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    CacheReader,
    Control,
}

impl Access {
    /// As the caches' sections say.
    pub fn of(resolved: &Resolved, caches: &[OpenCache]) -> Self {
        Self {
            control_uid: resolved.control_uid,
            own_uid: nix::unistd::geteuid().as_raw(),
            caches: served(caches).map(|cache| readers_of(resolved, cache)).collect(),
        }
    }

    fn rank(&self, uid: u32) -> Rank {
        if [0, self.control_uid, self.own_uid].contains(&uid) {
            Rank::Control
        } else if self.caches.iter().any(|(_, uids)| uids.contains(&uid)) {
            Rank::CacheReader
        } else {
            Rank::Stranger
        }
    }

    fn may_read(&self, uid: u32, readers: &[u32]) -> bool {
        self.rank(uid) == Rank::Control || readers.contains(&uid)
    }

    /// `Ok` for what this uid may ask, else the answer it gets instead.
    fn allows(&self, uid: u32, ask: &Ask<'_>) -> Result<(), Denied> {
        let (Ask::Cache(name) | Ask::Hits(name)) = ask else {
            let control = self.rank(uid) == Rank::Control;
            return if control { Ok(()) } else { Err(Denied::Refused("control.user")) };
        };
        let named = self.caches.iter().find(|(id, _)| cache_name(id) == *name);
        match named {
            Some((_, readers)) if self.may_read(uid, readers) => Ok(()),
            // Who may read nothing is not told which caches there are.
            None if self.rank(uid) != Rank::Stranger => Err(Denied::NoCache),
            _ => Err(Denied::Refused("cache.readers")),
        }
    }
}

/// Why something asked for is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// By the list under this key of the node file.
    Refused(&'static str),
    /// There is no such cache.
    NoCache,
}

/// What an answer is made of.
#[derive(Debug, Default)]
pub struct Answer {
    /// Bytes behind the header.
    pub payload: Vec<u8>,
    /// Read-only descriptors.
    pub fds: Vec<OwnedFd>,
}

/// How a request that is allowed goes on.
#[derive(Debug)]
pub enum Reply {
    /// With descriptors, or a status.
    Give(Answer),
    /// With a text for an operator.
    Say(Code, String),
    /// Later, by [`Readers::say`]: whoever decides so has kept the connection.
    Later,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Descriptors were given to this uid.
    Attached(u32),
    /// A status text was given.
    Told,
    /// This uid is not on the list.
    Refused {
        /// Who asked.
        uid: u32,
        /// Key of the node file with the list.
        list: &'static str,
    },
    /// Not a request, or the reader is gone.
    Closed,
}

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Readers {
    listener: OwnedFd,
    connections: Vec<(OwnedFd, u32)>,
    access: Access,
    pid: u32,
    generation: u64,
}

impl Readers {
    /// Serves `listener` (non-blocking) for root and whom `access` names.
    pub fn new(listener: OwnedFd, access: Access, generation: u64) -> Self {
        let connections = Vec::new();
        Self { listener, connections, access, pid: std::process::id(), generation }
    }

    /// Descriptors to poll: the listener, and the connections.
    pub fn fds(&self) -> (BorrowedFd<'_>, impl Iterator<Item = BorrowedFd<'_>>) {
        (self.listener.as_fd(), self.connections.iter().map(|(fd, _)| fd.as_fd()))
    }

    /// Takes new connections.
    pub fn accept(&mut self) {
        while let Ok(fd) = accept_nonblocking(self.listener.as_fd()) {
            let Ok(peer) = getsockopt(&fd, sockopt::PeerCredentials) else { continue };
            if self.connections.len() == READERS_MAX {
                let ranks = self.connections.iter().map(|(_, uid)| self.access.rank(*uid));
                let least = ranks.enumerate().min_by_key(|(_, rank)| *rank);
                match least {
                    Some((index, rank)) if rank <= self.access.rank(peer.uid()) => {
                        self.connections.remove(index);
                    }
                    _ => continue,
                }
            }
            self.connections.push((fd, peer.uid()));
        }
    }

    /// Answers connection `index` (in the order of [`Self::fds`], the listener left out).
    pub fn answer(
        &mut self,
        index: usize,
        make: impl FnOnce(&Ask<'_>, BorrowedFd<'_>) -> io::Result<Reply>,
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
        make: impl FnOnce(&Ask<'_>, BorrowedFd<'_>) -> io::Result<Reply>,
    ) -> Outcome {
        let packet = match recv_packet(fd, PACKET_BYTES_MAX) {
            Ok(packet) if !packet.bytes.is_empty() => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::Told,
            _ => return Outcome::Closed,
        };
        let (code, answer, outcome) = match Ask::decode(&packet.bytes) {
            Err(AttachError::Version(_)) => (Code::Version, Answer::default(), Outcome::Told),
            Err(_) => (Code::BadRequest, Answer::default(), Outcome::Told),
            Ok(ask) => match self.access.allows(uid, &ask) {
                Err(Denied::Refused(list)) => {
                    (Code::Refused, refusal(uid, list), Outcome::Refused { uid, list })
                }
                Err(Denied::NoCache) => (Code::NoCache, Answer::default(), Outcome::Told),
                Ok(()) => match make(&ask, fd) {
                    Ok(Reply::Later) => return Outcome::Told,
                    Ok(Reply::Say(code, text)) => (code, said(text), Outcome::Told),
                    // Who asks where to tell of hits has been counted as a reader before.
                    Ok(Reply::Give(answer))
                        if matches!(
                            ask,
                            Ask::Status
                                | Ask::Hits(_)
                                | Ask::Explain(_)
                                | Ask::Connect(_)
                                | Ask::Claim
                        ) =>
                    {
                        (Code::Ok, answer, Outcome::Told)
                    }
                    Ok(Reply::Give(answer)) => (Code::Ok, answer, Outcome::Attached(uid)),
                    Err(_) => (Code::NotReady, Answer::default(), Outcome::Told),
                },
            },
        };
        match self.send(fd, code, &answer) {
            Ok(()) => outcome,
            Err(_) => Outcome::Closed,
        }
    }

    /// Answers what was left for later. A reader that is gone is not told.
    pub fn say(&self, fd: BorrowedFd<'_>, code: Code, text: String) {
        let _ = self.send(fd, code, &said(text));
    }

    /// The same with what was asked for.
    pub fn give(&self, fd: BorrowedFd<'_>, answer: &Answer) {
        let _ = self.send(fd, Code::Ok, answer);
    }

    /// Follows a change of the caches.
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    fn send(&self, fd: BorrowedFd<'_>, code: Code, answer: &Answer) -> io::Result<()> {
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
        send_packet(fd, &bytes, &fds)
    }
}

/// What somebody is told who is not on a list.
fn refusal(uid: u32, list: &str) -> Answer {
    said(format!("uid {uid} is not in {list} of the node file"))
}

/// A text, as much of it as an answer takes.
fn said(text: String) -> Answer {
    let mut payload = text.into_bytes();
    payload.truncate(PAYLOAD_BYTES_MAX);
    Answer { payload, fds: Vec::new() }
}

/// The caches that readers see.
fn served(caches: &[OpenCache]) -> impl Iterator<Item = &OpenCache> {
    caches.iter().filter(|cache| cache.is_served())
}

/// A cache by id and who may read it. A user who is no longer there may read nothing: the lists were
/// looked up when the cache was made.
fn readers_of(resolved: &Resolved, cache: &OpenCache) -> (String, Vec<u32>) {
    let section = &cache.opened.section;
    (section.id.clone(), resolved.readers(section, "readers").unwrap_or_default())
}

/// What is given to a reader of every region: the control region, then every cache under its name.
pub fn attach_answer(control: io::Result<OwnedFd>, caches: &[OpenCache]) -> io::Result<Answer> {
    let name = |cache: &OpenCache| cache_name(&cache.opened.section.id);
    let memories = served(caches).map(|cache| cache.memory.reopen_read_only());
    Ok(Answer {
        payload: served(caches).flat_map(name).collect(),
        fds: std::iter::once(control).chain(memories).collect::<io::Result<_>>()?,
    })
}

/// The memory of the cache of this name.
pub fn memory_of<'a>(name: &CacheName, caches: &'a [OpenCache]) -> Option<&'a TableRegion> {
    let named = |cache: &&OpenCache| cache_name(&cache.opened.section.id) == *name;
    served(caches).find(named).map(|cache| &cache.memory)
}

/// What is given to a reader of one cache: its memory, if the node has made it.
pub fn cache_answer(name: &CacheName, memory: Option<&TableRegion>) -> io::Result<Answer> {
    let memory = memory.ok_or(io::ErrorKind::NotFound)?;
    Ok(Answer { payload: name.to_vec(), fds: vec![memory.reopen_read_only()?] })
}

/// What is given to a reader of one cache that will tell of its hits.
pub fn hits_answer(name: &CacheName, memory: Option<&TableRegion>) -> io::Result<Answer> {
    let hits = memory.and_then(Words::sampled_hits).ok_or(io::ErrorKind::NotFound)?;
    Ok(Answer { payload: name.to_vec(), fds: vec![hits.fd().try_clone_to_owned()?] })
}

/// What control is given to change one cache by: a connection to the front.
pub fn connect_answer(name: &CacheName, caches: &[OpenCache]) -> io::Result<Reply> {
    let named = |cache: &&OpenCache| cache_name(&cache.opened.section.id) == *name;
    let Some(cache) = served(caches).find(named) else {
        return Ok(Reply::Say(Code::NoCache, "this node has no such cache".into()));
    };
    match cache.sockets.connect_local() {
        Ok(connection) => Ok(Reply::Give(Answer { payload: name.to_vec(), fds: vec![connection] })),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let text = "the node has no front that takes changes of control: front.enabled is false, or \
                        an older release started it";
            Ok(Reply::Say(Code::Impossible, text.into()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: u32 = 500;
    const OWN: u32 = 501;
    const READER: u32 = 1000;
    const OTHER_READER: u32 = 1001;
    const STRANGER: u32 = 1002;

    fn access() -> Access {
        Access {
            control_uid: CONTROL,
            own_uid: OWN,
            caches: vec![("quotes".into(), vec![READER]), ("orders".into(), vec![OTHER_READER])],
        }
    }

    #[test]
    fn a_reader_of_a_cache_is_given_that_cache_and_nothing_else() {
        let quotes = Ask::Cache(cache_name("quotes"));
        let orders = Ask::Cache(cache_name("orders"));
        let absent = Ask::Cache(cache_name("quote"));
        let refused = |list| Err(Denied::Refused(list));
        for (uid, node, of_quotes, of_orders, of_absent) in [
            (0, Ok(()), Ok(()), Ok(()), Err(Denied::NoCache)),
            (CONTROL, Ok(()), Ok(()), Ok(()), Err(Denied::NoCache)),
            (OWN, Ok(()), Ok(()), Ok(()), Err(Denied::NoCache)),
            (
                READER,
                refused("control.user"),
                Ok(()),
                refused("cache.readers"),
                Err(Denied::NoCache),
            ),
            (
                OTHER_READER,
                refused("control.user"),
                refused("cache.readers"),
                Ok(()),
                Err(Denied::NoCache),
            ),
            (
                STRANGER,
                refused("control.user"),
                refused("cache.readers"),
                refused("cache.readers"),
                refused("cache.readers"),
            ),
        ] {
            let access = access();
            assert_eq!(access.allows(uid, &Ask::Attach), node, "uid {uid}");
            assert_eq!(access.allows(uid, &Ask::Status), node, "uid {uid}");
            assert_eq!(access.allows(uid, &Ask::Create("id = 1")), node, "uid {uid}");
            assert_eq!(access.allows(uid, &Ask::Remove(cache_name("quotes"))), node, "uid {uid}");
            assert_eq!(access.allows(uid, &Ask::Connect(cache_name("quotes"))), node, "uid {uid}");
            assert_eq!(access.allows(uid, &Ask::Claim), node, "uid {uid}");
            assert_eq!(access.allows(uid, &quotes), of_quotes, "uid {uid}");
            let hits = Ask::Hits(cache_name("quotes"));
            assert_eq!(access.allows(uid, &hits), of_quotes, "uid {uid}");
            assert_eq!(access.allows(uid, &orders), of_orders, "uid {uid}");
            assert_eq!(access.allows(uid, &absent), of_absent, "uid {uid}");
        }
    }
}
