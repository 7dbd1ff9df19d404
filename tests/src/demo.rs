//! Parts of the demonstration: where its market data comes from, and who is told of it on the host.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nautilus_client::{CacheReader, ReadError, VERSION_MISS, VERSION_SUSPECT, WaitError};

use crate::lab::Service;
use crate::lab::node_file::CACHE_ID;
use crate::venue::RunningVenue;

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

/// What a subscriber saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Values other than the one before.
    pub changes: u64,
    /// Times the key turned suspect.
    pub suspect: u64,
}

/// A program on the node's host that waits for one key to change, in shared memory.
#[derive(Debug)]
pub struct Subscriber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Updates>,
}

impl Subscriber {
    /// Attaches to the cache of a node and waits in a thread of its own.
    pub fn start(run_dir: &Path, key: &str) -> anyhow::Result<Self> {
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
    pub fn end(self) -> Updates {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
