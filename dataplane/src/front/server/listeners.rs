//! Listeners and sockets of the caches: armed, and closed when a cache goes.
//!
//! A token names the place of the cache and, above it, its generation: what completes for a cache that is
//! gone is not taken for one of its successor.

use std::os::fd::{AsFd, AsRawFd};

use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::metrics::labels::ConnectionEnd;
use nix::sys::socket::{Shutdown, shutdown};

use super::super::caches::Served;
use super::super::link::Target;
use super::super::ring::Token;
use super::{CACHE_SHIFT, Server, TICK_NS};
use crate::supervisor::sys::accept_nonblocking;

/// Bits of a cache's generation that a token has.
const GENERATION_MASK: u32 = 0xff_ffff;

/// How long after its start a front also looks for connections by itself, once a tick. A listener wakes
/// one ring for a connection, and that may still be the ring of a front that was just killed.
const INHERITED_NS: u64 = 10_000_000_000;

/// For so long it looks all the time: clients of the front before it have just lost their connections.
const FOLLOWS_NS: u64 = 300_000_000;

/// Sleep between two such looks.
pub(super) const FOLLOWS_WAIT_NS: u64 = 1_000_000;

/// Everything of a cache that is to be armed: whether it is a listener, and its token.
pub(super) fn tokens(cache: &Served) -> Vec<(bool, Token)> {
    let first = cache.target.place << CACHE_SHIFT;
    let generation = cache.target.generation & GENERATION_MASK;
    let token = |number: usize| Token { index: first | number as u32, generation };
    let listeners = (0..cache.all_listeners().count()).map(|number| (true, token(number)));
    let sockets = cache.datagrams.sockets().count();
    listeners.chain((0..sockets).map(|number| (false, token(number)))).collect()
}

impl Server<'_> {
    /// Serves one more cache.
    pub fn add(&mut self, cache: Served) {
        self.unarmed.extend(tokens(&cache));
        self.caches.insert(cache);
        if self.draining {
            self.close_listeners();
        }
    }

    /// Serves a cache no more; its connections end.
    pub fn forget(&mut self, target: Target) {
        let Some(cache) = self.caches.remove(target) else { return };
        for listener in cache.all_listeners() {
            // For all who hold it, and now: the kernel lets go of it when the ring does.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        for (is_listener, token) in tokens(&cache) {
            match is_listener {
                true => self.ring.stop_accepting(token),
                false => self.ring.stop_polling(token),
            }
        }
        for index in 0..self.clients.places() {
            let Some(client) = self.clients.at_mut(index) else { continue };
            if client.cache == target {
                client.end.get_or_insert(ConnectionEnd::Removed);
                self.clients.touch(index);
            }
        }
        while let Some(index) = self.clients.next_touched() {
            self.settle(index);
        }
    }

    /// The cache of a listener or socket, unless it is gone.
    pub(super) fn cache_of(&mut self, token: Token) -> Option<&mut Served> {
        let cache = self.caches.at(token.index >> CACHE_SHIFT)?;
        (cache.target.generation & GENERATION_MASK == token.generation).then_some(cache)
    }

    pub(super) fn arm(&mut self) {
        self.arm_supervisor();
        for (is_listener, token) in std::mem::take(&mut self.unarmed) {
            let Some(cache) = self.caches.at(token.index >> CACHE_SHIFT) else { continue };
            if cache.target.generation & GENERATION_MASK != token.generation {
                continue;
            }
            let number = token.index as usize & ((1 << CACHE_SHIFT) - 1);
            if is_listener && (self.draining || self.leaving_ns > 0) {
                // Armed when clients are taken again.
            } else if is_listener {
                if let Some(listener) = cache.all_listeners().nth(number) {
                    self.ring.accept(listener.as_fd(), token);
                }
            } else if let Some(socket) = cache.datagrams.sockets().nth(number) {
                self.ring.poll(socket, token);
            }
        }
    }

    /// Whether this front has just begun.
    pub(super) fn follows(&self) -> bool {
        monotonic_ns().saturating_sub(self.started_ns) < FOLLOWS_NS
    }

    /// Looks for connections that another ring was told of.
    pub(super) fn look_for_inherited(&mut self) {
        let pause_ns = if self.follows() { FOLLOWS_WAIT_NS } else { TICK_NS };
        if self.now_ns.saturating_sub(self.started_ns) < INHERITED_NS
            && self.now_ns.saturating_sub(self.looked_ns) >= pause_ns
        {
            self.looked_ns = self.now_ns;
            self.accept_waiting();
        }
    }

    /// Takes what waits in the listeners although nobody was told.
    pub(super) fn accept_waiting(&mut self) {
        let mut found = Vec::new();
        for cache in self.caches.iter().filter(|_| !self.draining && self.leaving_ns == 0) {
            for listener in cache.all_listeners() {
                self.counts.syscalls += 1;
                while let Ok(connection) = accept_nonblocking(listener.as_fd()) {
                    self.counts.syscalls += 1;
                    found.push((connection, cache.target.place));
                }
            }
        }
        for (connection, place) in found {
            self.accept(connection, place);
        }
    }
}
