//! Keeps every node attached, on a thread of its own: asking a supervisor blocks, serving HTTP must not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::NodeSpec;
use crate::link::Link;
use crate::view::{NodeView, distinct};

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

    /// Every node, as it is held.
    pub fn links(&self) -> Vec<Link> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        // A list of clones is whole whatever its last holder was doing.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every node, read now; their ids are those of [`crate::view::ids`].
pub fn views(links: &[Link]) -> Vec<NodeView> {
    let mut views: Vec<NodeView> = links.iter().map(NodeView::of).collect();
    let ids = distinct(views.iter().map(|view| view.id.clone()));
    for (view, id) in views.iter_mut().zip(ids) {
        view.id = id;
    }
    views
}
