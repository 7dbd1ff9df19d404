//! The handle that requests use: a thread of its own writes, so that many requests share one flush.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use tokio::sync::oneshot;

use super::record::Entry;
use super::trail::{Head, Trail};
use super::{AuditError, AuditOptions};

/// Records that may wait. Too low: a burst is refused; too high: a burst waits for minutes.
const WAITING_MAX: usize = 1024;

/// Records in one flush. Too low: flushes; too high: the first waits for the last.
const BATCH_MAX: usize = 128;

struct Job {
    entry: Entry,
    reply: oneshot::Sender<Result<Head, Arc<AuditError>>>,
}

/// A trail that many may write to. The last handle to go signs what is left.
#[derive(Clone)]
pub struct Auditor {
    jobs: Arc<Jobs>,
}

struct Jobs {
    sender: Option<SyncSender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that is not in the trail.
            let _ = thread.join();
        }
    }
}

impl Auditor {
    /// Opens the trail and starts its writer.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let dir = options.dir.clone();
        let age = options.checkpoint_age;
        let mut trail = Trail::open(options)?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&mut trail, &receiver, age))
            .map_err(|source| AuditError::Io {
                doing: "starting the writer of",
                path: dir,
                source,
            })?;
        Ok(Self { jobs: Arc::new(Jobs { sender: Some(sender), thread: Some(thread) }) })
    }

    /// Comes back when the record is on disk.
    pub async fn record(&self, entry: Entry) -> Result<Head, Arc<AuditError>> {
        self.begin(entry)?.await.unwrap_or_else(|_| Err(Arc::new(AuditError::Closed)))
    }

    /// The same for who has no runtime.
    pub fn record_blocking(&self, entry: Entry) -> Result<Head, Arc<AuditError>> {
        let reply = self.begin(entry)?;
        reply.blocking_recv().unwrap_or_else(|_| Err(Arc::new(AuditError::Closed)))
    }

    fn begin(
        &self,
        entry: Entry,
    ) -> Result<oneshot::Receiver<Result<Head, Arc<AuditError>>>, Arc<AuditError>> {
        let (reply, receiver) = oneshot::channel();
        let job = Job { entry: entry.bounded(), reply };
        let sender = self.jobs.sender.as_ref().ok_or_else(|| Arc::new(AuditError::Closed))?;
        sender.try_send(job).map_err(|error| {
            Arc::new(match error {
                TrySendError::Full(_) => AuditError::Overloaded,
                TrySendError::Disconnected(_) => AuditError::Closed,
            })
        })?;
        Ok(receiver)
    }
}

fn write(trail: &mut Trail, jobs: &Receiver<Job>, age: std::time::Duration) {
    let mut signed = Instant::now();
    loop {
        let wait = age.saturating_sub(signed.elapsed());
        let first = jobs.recv_timeout(wait);
        if let Ok(first) = first {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(BATCH_MAX - 1));
            let (entries, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|job| (job.entry, job.reply)).unzip();
            let result = trail.append(&entries).map_err(Arc::new);
            for reply in replies {
                // Who asked may have gone; the record stands all the same.
                let _ = reply.send(result.clone());
            }
        } else if first.is_err_and(|error| error == RecvTimeoutError::Disconnected) {
            // The trail then ends unsigned, which its verifier says.
            let _ = trail.checkpoint();
            return;
        }
        if signed.elapsed() >= age {
            // Tried again at the next turn; a record that cannot be written says so to who asks.
            let _ = trail.checkpoint();
            signed = Instant::now();
        }
    }
}
