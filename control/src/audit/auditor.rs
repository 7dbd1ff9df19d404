//! The handle that requests use: a thread of its own writes, so that many requests share one flush.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::record::Entry;
use super::trail::{Head, Trail};
use super::{AuditError, AuditOptions};

/// Records that may wait, and so at most share a flush. Too low: a burst is refused, and each flush carries less; too
/// high: memory, up to 6 KB each.
const WAITING_MAX: usize = 8192;

struct Job {
    entry: Entry,
    reply: oneshot::Sender<Answer>,
}

/// How it went, and the entry: freed by the thread that made it, which has its memory at hand.
type Answer = (Result<Head, Arc<AuditError>>, Entry);

/// A trail that many may write to. The last handle to go signs what is left.
#[derive(Clone)]
pub struct Auditor {
    writer: Arc<Writer>,
}

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// The writer is to be woken.
    sleeps: bool,
    /// Nothing comes any more, or is written any more.
    closed: bool,
}

/// Between requests and the writer: what came while one flush was under way shares the next.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

impl Queue {
    /// Whole after any panic: each change is one push or one swap.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), AuditError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AuditError::Closed);
        }
        if waiting.jobs.len() == WAITING_MAX {
            return Err(AuditError::Overloaded);
        }
        waiting.jobs.push(job);
        if std::mem::take(&mut waiting.sleeps) {
            drop(waiting);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Swaps all that waits for `jobs`, which is empty; comes back without any after `wait`. `false` when nothing will
    /// come any more.
    fn take(&self, jobs: &mut Vec<Job>, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() && !waiting.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting.sleeps = true;
            let woken = self.filled.wait_timeout(waiting, left);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        waiting.sleeps = false;
        std::mem::swap(&mut waiting.jobs, jobs);
        !(waiting.closed && jobs.is_empty())
    }

    /// Nothing comes any more; what waits is still written.
    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }
}

struct Writer {
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that is not in the trail.
            let _ = thread.join();
        }
    }
}

/// Closes the queue when the writer ends, however it does: who waits hears it, since the jobs are dropped.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        waiting.jobs.clear();
    }
}

impl Auditor {
    /// Opens the trail and starts its writer.
    pub fn open(options: AuditOptions) -> Result<Self, AuditError> {
        let dir = options.dir.clone();
        let age = options.checkpoint_age;
        let mut trail = Trail::open(options)?;
        let queue = Arc::new(Queue::default());
        let closing = Closing(queue.clone());
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&mut trail, &closing.0, age))
            .map_err(|source| AuditError::Io {
                doing: "starting the writer of",
                path: dir,
                source,
            })?;
        Ok(Self { writer: Arc::new(Writer { queue, thread: Some(thread) }) })
    }

    /// Comes back when the record is on disk.
    pub async fn record(&self, entry: Entry) -> Result<Head, Arc<AuditError>> {
        self.begin(entry)?
            .await
            .map_or_else(|_| Err(Arc::new(AuditError::Closed)), |(result, _)| result)
    }

    /// The same for who has no runtime.
    pub fn record_blocking(&self, entry: Entry) -> Result<Head, Arc<AuditError>> {
        let reply = self.begin(entry)?;
        reply
            .blocking_recv()
            .map_or_else(|_| Err(Arc::new(AuditError::Closed)), |(result, _)| result)
    }

    fn begin(&self, entry: Entry) -> Result<oneshot::Receiver<Answer>, Arc<AuditError>> {
        let (reply, receiver) = oneshot::channel();
        self.writer.queue.push(Job { entry: entry.bounded(), reply })?;
        Ok(receiver)
    }
}

fn write(trail: &mut Trail, queue: &Queue, age: Duration) {
    let mut signed = Instant::now();
    let mut jobs = Vec::new();
    while queue.take(&mut jobs, age.saturating_sub(signed.elapsed())) {
        if !jobs.is_empty() {
            let entries = jobs.iter().map(|job| &job.entry);
            let result = trail.append_each(entries).map_err(Arc::new);
            for job in jobs.drain(..) {
                // Who asked may have gone; the record stands all the same.
                let _ = job.reply.send((result.clone(), job.entry));
            }
        }
        if signed.elapsed() >= age {
            // Tried again at the next turn; a record that cannot be written says so to who asks.
            let _ = trail.checkpoint();
            signed = Instant::now();
        }
    }
    // The trail then ends unsigned, which its verifier says.
    let _ = trail.checkpoint();
}
