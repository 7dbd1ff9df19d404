//! Snapshots of feeds, fetched for the workers that want them.
//!
//! ```text
//!   answer ring: wanted -> connect -> login -> messages, in pieces -> request ring
//!                             |          |          |  the ring is full: the socket waits
//!                             +----------+----------+-> failed: said so, and the worker asks again
//! ```
//!
//! GLIMPSE over SoupBinTCP. One connection a channel at a time: an attempt that is wanted ends the one
//! before. Sockets that do not block, read and written a bounded piece a turn of the front's loop.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nautilus_shm::front_region::{SnapshotContent, SnapshotMessage};
use nautilus_shm::metrics::labels::{Label, SnapshotEnd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use super::link::Wanted;
use super::links::Links;
use crate::config::Feed;
use crate::feed::glimpse::{SnapshotItem, SnapshotReader};
use crate::feed::soupbintcp::client::{ClientEvent, ClientState, SoupClient};
use crate::feed::soupbintcp::packet::{ANY_SESSION, Credentials};

/// How long a connection may take to stand.
const CONNECT_LIMIT_NS: u64 = 3_000_000_000;

/// Bytes read from one connection in a turn. Too low: system calls. Too high: clients wait.
const READ_BYTES: usize = 64 << 10;

/// Bytes of messages in one piece for the worker. Too low: its ring is full of headers. Too high: the worker
/// applies so many in one go.
const PIECE_BYTES: usize = 8 << 10;

/// Where the snapshots of one channel are to be had.
#[derive(Clone, Debug)]
struct Source {
    channel: u8,
    server: SocketAddr,
    user: String,
    password_file: PathBuf,
}

/// Why a fetch ended.
type End = SnapshotEnd;

/// One snapshot on its way.
struct Fetch {
    worker: usize,
    wanted: Wanted,
    socket: TcpStream,
    is_connected: bool,
    begun_ns: u64,
    client: SoupClient,
    reader: SnapshotReader,
    out: Vec<u8>,
    pieces: Pieces,
}

/// What is still to be handed to the worker, in order.
#[derive(Default)]
struct Pieces {
    begin: Option<[u8; 10]>,
    blocks: Vec<u8>,
    next_sequence: Option<u64>,
}

/// All of them, and what came of those before.
pub struct Fetches {
    sources: Vec<Source>,
    open: Vec<Fetch>,
    /// Attempts whose end their worker is still to be told.
    failed: Vec<(usize, Wanted)>,
    /// By how they ended.
    pub ended: [u64; End::ALL.len()],
    scratch: Box<[u8]>,
}

impl Fetches {
    /// None is wanted. Takes note of where each feed's snapshots are.
    pub fn new(feeds: &[Feed]) -> Self {
        let source = |feed: &Feed| {
            let snapshot = feed.recovery.as_ref()?.snapshot.as_ref()?;
            Some(Source {
                channel: feed.channel,
                server: snapshot.server,
                user: snapshot.user.clone(),
                password_file: snapshot.password_file.clone(),
            })
        };
        let sources: Vec<Source> = feeds.iter().filter_map(source).collect();
        let scratch_bytes = if sources.is_empty() { 0 } else { READ_BYTES };
        Self {
            sources,
            open: Vec::new(),
            failed: Vec::new(),
            ended: [0; End::ALL.len()],
            scratch: vec![0; scratch_bytes].into(),
        }
    }

    /// Whether there is something to look at without being told.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty() || !self.failed.is_empty()
    }

    /// A worker wants a snapshot.
    pub fn want(&mut self, worker: usize, wanted: Wanted, now_ns: u64) {
        if let Some(place) =
            self.open.iter().position(|fetch| fetch.wanted.channel == wanted.channel)
        {
            self.ended[End::Abandoned.index()] += 1;
            self.open.swap_remove(place);
        }
        match self.begin(worker, wanted, now_ns) {
            Ok(fetch) => self.open.push(fetch),
            Err(end) => {
                self.ended[end.index()] += 1;
                self.failed.push((worker, wanted));
            }
        }
    }

    fn begin(&self, worker: usize, wanted: Wanted, now_ns: u64) -> Result<Fetch, End> {
        let source = self.sources.iter().find(|source| source.channel == wanted.channel);
        let source = source.ok_or(End::Connect)?;
        let password = std::fs::read_to_string(&source.password_file).map_err(|_| End::Login)?;
        let credentials = Credentials::new(&source.user, password.trim_end_matches(['\r', '\n']))
            .map_err(|_| End::Login)?;
        Ok(Fetch {
            worker,
            wanted,
            socket: begin_connection(source.server).map_err(|_| End::Connect)?,
            is_connected: false,
            begun_ns: now_ns,
            client: SoupClient::new(credentials, ANY_SESSION, 1),
            reader: SnapshotReader::new(),
            out: Vec::new(),
            pieces: Pieces::default(),
        })
    }

    /// Moves every fetch on; says whether one did.
    pub fn turn(&mut self, now_ns: u64, links: &mut Links<'_>) -> bool {
        if !self.is_open() {
            return false;
        }
        let mut moved = false;
        let (scratch, ended, failed) = (&mut self.scratch, &mut self.ended, &mut self.failed);
        self.open.retain_mut(|fetch| {
            let step = fetch.turn(now_ns, scratch, links, &mut moved);
            let Some(end) = step else { return true };
            ended[end.index()] += 1;
            if end != End::Complete {
                failed.push((fetch.worker, fetch.wanted));
            }
            false
        });
        self.failed.retain(|(worker, wanted)| {
            let Wanted { channel, attempt, .. } = *wanted;
            let content = SnapshotContent::Failed;
            !links.push_snapshot(*worker, &SnapshotMessage { channel, attempt, content })
        });
        moved
    }
}

/// A socket that is being connected.
fn begin_connection(server: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno),
    }
}

impl Fetch {
    /// Goes on as far as there is something to do; `Some` when it is over.
    fn turn(
        &mut self,
        now_ns: u64,
        scratch: &mut [u8],
        links: &mut Links<'_>,
        moved: &mut bool,
    ) -> Option<End> {
        if !self.is_connected {
            match self.connected() {
                Ok(true) => {
                    self.is_connected = true;
                    self.client.start(&mut self.out);
                }
                Ok(false) if now_ns.saturating_sub(self.begun_ns) < CONNECT_LIMIT_NS => {
                    return None;
                }
                _ => return Some(End::Connect),
            }
        }
        // What has come is handed over before more is read, so that no more than one piece waits.
        if !self.hand_over(links) {
            return None;
        }
        if self.reader.next_sequence().is_none()
            && let Some(end) = self.read(now_ns, scratch, moved)
        {
            return Some(end);
        }
        self.client.tick(now_ns, &mut self.out);
        if self.write().is_err() {
            return Some(End::Closed);
        }
        let is_handed_over = self.hand_over(links);
        if is_handed_over && self.reader.next_sequence().is_some() {
            self.client.log_out(&mut self.out);
            let _ = self.write();
            return Some(End::Complete);
        }
        match self.client.state() {
            ClientState::Rejected(_) => Some(End::Login),
            ClientState::Ended if self.reader.next_sequence().is_none() => Some(End::Closed),
            ClientState::Failed(_) => Some(End::Protocol),
            _ => None,
        }
    }

    fn connected(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            return Ok(false);
        }
        match getsockopt(&self.socket, sockopt::SocketError)? {
            0 => Ok(true),
            error => Err(Errno::from_raw(error)),
        }
    }

    /// Reads a piece and takes in what it holds; `Some` when that ends the fetch.
    fn read(&mut self, now_ns: u64, scratch: &mut [u8], moved: &mut bool) -> Option<End> {
        let bytes = match self.socket.read(scratch) {
            Ok(0) => return Some(End::Closed),
            Ok(bytes) => bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return None;
            }
            Err(_) => return Some(End::Closed),
        };
        *moved = true;
        let Self { client, reader, pieces, wanted, .. } = self;
        let mut end = None;
        client.receive(&scratch[..bytes], now_ns, |event| match event {
            ClientEvent::LoggedIn { session, .. } if session.is_same(&wanted.session) => {
                pieces.begin = Some(wanted.session.0);
            }
            ClientEvent::LoggedIn { .. } => end = end.or(Some(End::Session)),
            ClientEvent::Message { bytes, .. } => match reader.read(bytes) {
                Ok(SnapshotItem::Message(bytes)) => {
                    // A message of a snapshot is one of ITCH: far below 64 KiB.
                    pieces.blocks.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                    pieces.blocks.extend_from_slice(bytes);
                }
                Ok(SnapshotItem::End { next_sequence }) => {
                    pieces.next_sequence = Some(next_sequence);
                }
                Err(_) => end = end.or(Some(End::Protocol)),
            },
            ClientEvent::Unsequenced(_) | ClientEvent::Debug(_) => {}
        });
        end
    }

    fn write(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        match self.socket.write(&self.out) {
            Ok(bytes) => {
                self.out.drain(..bytes);
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Hands over what has come, as far as there is room; whether that was all of it.
    fn hand_over(&mut self, links: &mut Links<'_>) -> bool {
        let Wanted { channel, attempt, .. } = self.wanted;
        let worker = self.worker;
        let mut push = |content: SnapshotContent<'_>| {
            links.push_snapshot(worker, &SnapshotMessage { channel, attempt, content })
        };
        if let Some(session) = self.pieces.begin {
            if !push(SnapshotContent::Begin(session)) {
                return false;
            }
            self.pieces.begin = None;
        }
        let mut handed = 0;
        while handed < self.pieces.blocks.len() {
            let rest = &self.pieces.blocks[handed..];
            let bytes = whole_blocks(rest, PIECE_BYTES);
            if !push(SnapshotContent::Messages(&rest[..bytes])) {
                break;
            }
            handed += bytes;
        }
        self.pieces.blocks.drain(..handed);
        if !self.pieces.blocks.is_empty() {
            return false;
        }
        if let Some(next_sequence) = self.pieces.next_sequence {
            if !push(SnapshotContent::End(next_sequence)) {
                return false;
            }
            self.pieces.next_sequence = None;
        }
        true
    }
}

/// Bytes of the blocks at the front that are whole, at most `bytes_max` of them but for a first one that is
/// longer.
fn whole_blocks(blocks: &[u8], bytes_max: usize) -> usize {
    let mut end = 0;
    while let Some((length, _)) = blocks[end..].split_first_chunk::<2>() {
        let next = end + 2 + usize::from(u16::from_be_bytes(*length));
        if next > blocks.len() || (end > 0 && next > bytes_max) {
            break;
        }
        end = next;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_between_messages() {
        let blocks = [&[0, 3, 1, 2, 3][..], &[0, 0], &[0, 1, 9], &[0, 4, 1]].concat();
        for (bytes_max, expected) in [(0, 5), (5, 5), (6, 5), (7, 7), (9, 7), (10, 10), (99, 10)] {
            assert_eq!(whole_blocks(&blocks, bytes_max), expected, "{bytes_max}");
        }
        assert_eq!(whole_blocks(&[], 9), 0);
        assert_eq!(whole_blocks(&[0], 9), 0);
    }
}
