//! What a process monitor does: it reads `/proc` of a process's children and their threads, over and
//! over. So the kernel has names of them to drop when they die.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pids of the children, zombies included.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn stats(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats: Vec<PathBuf> = threads.map(|thread| thread.path().join("stat")).collect();
    stats.iter().filter_map(|stat| fs::read_to_string(stat).ok()).collect()
}

/// (name, scheduling policy) of every thread; `SCHED_*` of proc_pid_stat(5), field 41.
pub fn threads(pid: u32) -> Vec<(String, i32)> {
    let thread = |stat: &String| {
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        Some((name.to_owned(), tail.split_whitespace().nth(41 - 3)?.parse().ok()?))
    };
    stats(pid).iter().filter_map(thread).collect()
}

/// Reads until it is dropped.
pub struct Monitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub fn start(parent: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for child in children(parent) {
                        stats(child);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
