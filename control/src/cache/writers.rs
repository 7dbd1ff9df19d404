//! Changes of items, by connections to the front that the node's supervisor hands out ([`Verb::Connect`]).
//!
//! ```text
//!   request -> one connection, alone -> command -----> front -> ring -> worker: hot slot, table
//!                                       answer <------                     |
//!                                       none: outcome unknown, connection closed
//! ```
//!
//! So a change over REST is one of the front's: executed at most once, in the key's one order, and answered
//! only when no path returns the old value any more. A connection on which anything went wrong is never
//! used again, so no answer is taken for another's.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nautilus_shm::attach::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::command::{ANSWER_BYTES_MAX, Reply, reply};
use crate::attach::{ReachError, connect_cache};

/// Connections to one cache at once; who comes later waits. Too low: requests wait for each other; too high: control
/// takes the front's connections from its clients.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection is kept for the next change. Too low: the supervisor is asked for one again and again;
/// too high: a node that drains waits for it.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long an answer is waited for. Too low: a change that waits for a worker's or front's successor ends as
/// unknown; too high: so long is a client kept that could ask what became of it.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Why a change has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFailure {
    /// It was not done.
    #[error("nothing was changed: {0}")]
    NotDone(String),
    /// It may have been done, or not.
    #[error("it may have been done: {0}")]
    Unknown(String),
    /// The node has no such cache. Nothing was changed.
    #[error("no such cache")]
    NoCache,
}

/// The caches that are written.
#[derive(Debug, Default)]
pub struct Writers {
    pools: Mutex<HashMap<(PathBuf, String), Arc<Pool>>>,
}

#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<(UnixStream, Instant)>>,
    permits: Semaphore,
}

impl Writers {
    /// Has the front of the node at `run_dir` execute one command on the cache `id`.
    pub async fn ask(
        &self,
        run_dir: &Path,
        id: &str,
        command: &[u8],
    ) -> Result<Reply, WriteFailure> {
        let pool = self.pool(run_dir, id);
        let _permit = pool.permits.acquire().await;
        let mut connection = match pool.take() {
            Some(connection) => connection,
            None => connect(run_dir, id).await?,
        };
        match timeout(ANSWER_MAX, connection.write_all(command)).await {
            Ok(Ok(())) => {}
            // The front has not got all of it, and executes no part.
            Ok(Err(error)) => return Err(WriteFailure::NotDone(format!("the front: {error}"))),
            Err(_) => return Err(WriteFailure::NotDone("the front takes no command".into())),
        }
        let line = match timeout(ANSWER_MAX, read_line(&mut connection)).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(WriteFailure::Unknown(format!("the front: {error}"))),
            Err(_) => {
                let text = format!("no answer within {} s", ANSWER_MAX.as_secs());
                return Err(WriteFailure::Unknown(text));
            }
        };
        match reply(&line) {
            Reply::Unknown => {
                Err(WriteFailure::Unknown("the worker that had it to do has died".into()))
            }
            Reply::NoCache => Err(WriteFailure::NoCache),
            Reply::Refused(text) => Err(WriteFailure::NotDone(format!("the front: {text}"))),
            reply => {
                pool.give_back(connection);
                Ok(reply)
            }
        }
    }

    /// Closes what there is to a cache that is gone.
    pub fn forget(&self, run_dir: &Path, id: &str) {
        self.lock().remove(&(run_dir.to_owned(), id.to_owned()));
    }

    fn pool(&self, run_dir: &Path, id: &str) -> Arc<Pool> {
        let new = || {
            let permits = Semaphore::new(CONNECTIONS_MAX);
            Arc::new(Pool { idle: Mutex::default(), permits })
        };
        let name = (run_dir.to_owned(), id.to_owned());
        Arc::clone(self.lock().entry(name).or_insert_with(new))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(PathBuf, String), Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// An idle connection that the front has not closed, nor said anything on.
    fn take(&self) -> Option<UnixStream> {
        loop {
            let (connection, _) = self.lock().pop()?;
            let silent = connection.try_read(&mut [0; 1]);
            if silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next change, for a while.
    fn give_back(self: &Arc<Self>, connection: UnixStream) {
        let mut idle = self.lock();
        idle.push((connection, Instant::now()));
        if idle.len() > 1 {
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_MAX / 2).await;
                let mut idle = pool.lock();
                idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
                if idle.is_empty() {
                    return;
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(UnixStream, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(run_dir: &Path, id: &str) -> Result<UnixStream, WriteFailure> {
    let (run_dir, name) = (run_dir.to_owned(), id.to_owned());
    let asked = tokio::task::spawn_blocking(move || connect_cache(&run_dir, &name)).await;
    let not_done = |error: &dyn std::error::Error| WriteFailure::NotDone(error.to_string());
    match asked.map_err(|error| not_done(&error))? {
        Ok(socket) => {
            let stream = std::os::unix::net::UnixStream::from(socket);
            stream.set_nonblocking(true).map_err(|error| not_done(&error))?;
            UnixStream::from_std(stream).map_err(|error| not_done(&error))
        }
        Err(ReachError::Refused { code: Code::NoCache, .. }) => Err(WriteFailure::NoCache),
        Err(error) => Err(not_done(&error)),
    }
}

/// One line, and nothing behind it.
async fn read_line(connection: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bytes = [0; ANSWER_BYTES_MAX];
    loop {
        let count = connection.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
        }
        line.extend_from_slice(&bytes[..count]);
        match line.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 == line.len() => {
                line.pop();
                return Ok(line);
            }
            None if line.len() < ANSWER_BYTES_MAX => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it answers in no line")),
        }
    }
}
