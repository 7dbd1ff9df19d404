//! The ways to all workers of the node, and which of them a command is for: the one that writes its key.

use nautilus_ebpf::intf::Permissions;
use nautilus_shm::front_region::SnapshotMessage;

use super::link::{Heard, Link, LinkCounts, Target};
use crate::memcached::parse::{self, Next};

/// One way a worker, in the order of the workers.
pub struct Links<'a> {
    links: Vec<Link<'a>>,
}

impl<'a> Links<'a> {
    /// At least one.
    pub fn new(links: Vec<Link<'a>>) -> Self {
        assert!(!links.is_empty(), "a node has a worker");
        Self { links }
    }

    /// The worker that a command is for. `owner` says whose a key is; commands without a key are the first
    /// worker's, who owns the cache.
    pub fn worker_of(&self, command: &[u8], owner: impl FnOnce(&[u8]) -> u32) -> usize {
        if self.links.len() == 1 {
            return 0;
        }
        let Next::Request(request, _) = parse::next(command) else { return 0 };
        let worker = request.key().map_or(0, |key| owner(key) as usize);
        worker.min(self.links.len() - 1)
    }

    /// Hands a command over to a worker, with what its source may do; `false` when there is no room.
    pub fn forward(
        &mut self,
        worker: usize,
        target: Target,
        connection: u64,
        permissions: Permissions,
        command: &[u8],
    ) -> bool {
        self.links[worker].forward(target, connection, permissions, command)
    }

    /// Commands that wait for workers.
    pub fn outstanding(&self) -> usize {
        self.links.iter().map(Link::outstanding).sum()
    }

    /// [`Link::wake`] of all.
    pub fn wake(&mut self) {
        self.links.iter_mut().for_each(Link::wake);
    }

    /// [`Link::poll`] of all; `hear` is told which worker says it.
    pub fn poll(
        &mut self,
        mut deliver: impl FnMut(u64, Option<&[u8]>),
        mut hear: impl FnMut(usize, Heard<'_>),
    ) -> usize {
        let links = self.links.iter_mut().enumerate();
        links.map(|(worker, link)| link.poll(&mut deliver, |heard| hear(worker, heard))).sum()
    }

    /// [`Link::want_books`] of all, of which one at most has the channel; `false` when one has no room.
    pub fn want_books(&mut self, channel: u8, attempt: u64) -> bool {
        self.links.iter_mut().all(|link| link.want_books(channel, attempt))
    }

    /// [`Link::push_snapshot`] to a worker.
    pub fn push_snapshot(&mut self, worker: usize, piece: &SnapshotMessage<'_>) -> bool {
        self.links[worker].push_snapshot(piece)
    }

    /// What was counted since they were made.
    pub fn counts(&self) -> LinkCounts {
        let mut sum = LinkCounts::default();
        for counts in self.links.iter().map(Link::counts) {
            sum.forwarded += counts.forwarded;
            sum.unknown += counts.unknown;
            sum.stale += counts.stale;
            sum.wakes += counts.wakes;
        }
        sum
    }
}
