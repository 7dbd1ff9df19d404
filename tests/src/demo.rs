//! Parts of the demonstration: where its market data comes from, and who is told of it.

mod network;

use std::fmt;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nautilus_client::{CacheReader, ReadError, VERSION_MISS, VERSION_SUSPECT, WaitError};

use crate::lab::node_file::CACHE_ID;
use crate::lab::{Address, Service};
use crate::venue::{DISTRIBUTES_AT_PORT, RunningVenue};
use network::{RemoteSubscriber, RemoteUpdates};

/// Where the market data comes from.
#[derive(Debug)]
pub enum Feed {
    /// A venue, from which the node recovers by itself.
    Venue(RunningVenue),
    /// A replay, which begins its next session when it is ended.
    Replay(Service),
}

impl Feed {
    /// What it is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Venue(_) => "venue, two lines",
            Self::Replay(_) => "replay",
        }
    }

    /// Name of its log in the folder of the run.
    pub fn log(&self) -> &'static str {
        match self {
            Self::Venue(_) => "venue.log",
            Self::Replay(_) => "replay.log",
        }
    }

    /// What makes an end of the suspicion that a worker's death leaves.
    pub fn heals(&self) -> &'static str {
        match self {
            Self::Venue(_) => "the node had recovered from the venue",
            Self::Replay(_) => "the feed's next session",
        }
    }

    /// Does what is needed for that.
    pub fn heal(&self) {
        if let Self::Replay(replay) = self {
            replay.kill();
        }
    }
}

/// A socket that is connected to where a lab's node distributes. To be called in the subscriber's namespace.
pub fn distributor(node: Address) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((node.v4(), DISTRIBUTES_AT_PORT))?;
    Ok(socket)
}

/// Who is told of what changes.
#[derive(Debug)]
pub struct Subscribers {
    key: String,
    host: Subscriber,
    network: Option<RemoteSubscriber>,
}

/// What they saw.
#[derive(Debug)]
pub struct Seen {
    key: String,
    host: Updates,
    network: Option<RemoteUpdates>,
}

impl Subscribers {
    /// One on the host, in shared memory, and one behind the network, where the node distributes records:
    /// `socket` is connected to where it does.
    pub fn start(run_dir: &Path, key: &str, socket: Option<UdpSocket>) -> anyhow::Result<Self> {
        Ok(Self {
            key: key.to_owned(),
            host: Subscriber::start(run_dir, key)?,
            network: socket.map(RemoteSubscriber::start).transpose()?,
        })
    }

    /// Ends both.
    pub fn end(self) -> Seen {
        Seen {
            key: self.key,
            host: self.host.end(),
            network: self.network.map(RemoteSubscriber::end),
        }
    }
}

impl Seen {
    /// Whether one of them saw nothing.
    pub fn is_empty(&self) -> bool {
        self.host.changes == 0 || self.network.is_some_and(|network| network.records == 0)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Updates { changes, suspect } = self.host;
        write!(
            f,
            "subscriber on the host: {changes} changes of {} seen in shared memory, {suspect} while it was \
             suspect",
            self.key
        )?;
        let Some(network) = &self.network else { return Ok(()) };
        let RemoteUpdates { records, symbols, sessions, suspect } = network;
        write!(
            f,
            "\nsubscriber behind the network: {records} best bids and offers of {symbols} symbols in \
             {sessions} subscriptions, {suspect} times told that they are suspect"
        )
    }
}

/// What a subscriber saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Updates {
    /// Values other than the one before.
    changes: u64,
    /// Times the key turned suspect.
    suspect: u64,
}

/// A program on the node's host that waits for one key to change, in shared memory.
#[derive(Debug)]
struct Subscriber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Updates>,
}

impl Subscriber {
    /// Attaches to the cache of a node and waits in a thread of its own.
    fn start(run_dir: &Path, key: &str) -> anyhow::Result<Self> {
        let mut reader = CacheReader::attach(run_dir, CACHE_ID)?;
        let (stop, key) = (Arc::new(AtomicBool::new(false)), key.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut updates = Updates::default();
            let (mut version, mut record) = (VERSION_MISS, [0; 256]);
            while !stopped.load(Ordering::Relaxed) {
                let pause = Duration::from_millis(50);
                match reader.wait_for_change(key.as_bytes(), version, &mut record, pause) {
                    Ok(value) => {
                        updates.changes += 1;
                        version = value.version;
                    }
                    Err(WaitError::Read(ReadError::Suspect)) => {
                        updates.suspect += 1;
                        version = VERSION_SUSPECT;
                    }
                    Err(WaitError::Read(ReadError::Miss)) => version = VERSION_MISS,
                    Err(_) => {}
                }
            }
            updates
        });
        Ok(Self { stop, thread })
    }

    /// Ends the wait; what was seen.
    fn end(self) -> Updates {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
