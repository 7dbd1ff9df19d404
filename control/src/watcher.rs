//! Keeps every node attached, on a thread of its own: asking a supervisor blocks, serving HTTP must not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::NodeSpec;
use crate::link::Link;
use crate::view::NodeView;

/// Pause between two looks at all nodes. Too low: supervisors answer attach requests all day while
/// one is down; too high: a node that came back is reported late.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// All nodes, shared between the watcher and whoever reads them.
#[derive(Clone, Debug)]
pub struct Watcher {
    links: Arc<Mutex<Vec<Link>>>,
    looked: Arc<AtomicBool>,
}

impl Watcher {
    /// Starts watching. The thread ends with the process.
    pub fn start(nodes: Vec<NodeSpec>) -> std::io::Result<Self> {
        let links = nodes.into_iter().map(Link::new).collect();
        let watcher =
            Self { links: Arc::new(Mutex::new(links)), looked: Arc::new(AtomicBool::new(false)) };
        let own = watcher.clone();
        std::thread::Builder::new().name("watcher".into()).spawn(move || {
            loop {
                own.look();
                std::thread::sleep(LOOK_PAUSE);
            }
        })?;
        Ok(watcher)
    }

    /// Looks at each node once. The list is not held while a supervisor is asked.
    fn look(&self) {
        let count = self.lock().len();
        for index in 0..count {
            let mut link = self.lock()[index].clone();
            link.look();
            self.lock()[index] = link;
        }
        self.looked.store(true, Ordering::Relaxed);
    }

    /// Whether every node has been looked at since the start.
    pub fn has_looked(&self) -> bool {
        self.looked.load(Ordering::Relaxed)
    }

    /// Every node, read now.
    pub fn views(&self) -> Vec<NodeView> {
        let links = self.lock().clone();
        views(&links)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        // A list of clones is whole whatever its last holder was doing.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every node, read now. Nodes that claim the same id are told apart by a number at its end: two
/// series of one name would spoil the whole scrape.
pub fn views(links: &[Link]) -> Vec<NodeView> {
    let mut views: Vec<NodeView> = Vec::with_capacity(links.len());
    for link in links {
        let mut view = NodeView::of(link);
        let stem = view.id.clone();
        let mut number = 2;
        while views.iter().any(|other| other.id == view.id) {
            view.id = format!("{stem}.{number}");
            number += 1;
        }
        views.push(view);
    }
    views
}
