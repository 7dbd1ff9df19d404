//! Listeners and sockets of the caches: armed, and closed when a cache goes.
//!
//! A token names the place of the cache and, above it, its generation: what completes for a cache that is
//! gone is not taken for one of its successor.

use std::os::fd::{AsFd, AsRawFd};

use nautilus_shm::metrics::labels::ConnectionEnd;
use nix::sys::socket::{Shutdown, shutdown};

use super::super::caches::Served;
use super::super::link::Target;
use super::super::ring::Token;
use super::{CACHE_SHIFT, Server};
use crate::supervisor::sys::accept_nonblocking;

/// Bits of a cache's generation that a token has.
const GENERATION_MASK: u32 = 0xff_ffff;

/// Everything of a cache that is to be armed: whether it is a listener, and its token.
pub(super) fn tokens(cache: &Served) -> Vec<(bool, Token)> {
    let first = cache.target.place << CACHE_SHIFT;
    let generation = cache.target.generation & GENERATION_MASK;
    let token = |number: usize| Token { index: first | number as u32, generation };
    let listeners = (0..cache.listeners.len()).map(|number| (true, token(number)));
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
        for listener in &cache.listeners {
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
        for (is_listener, token) in std::mem::take(&mut self.unarmed) {
            let Some(cache) = self.caches.at(token.index >> CACHE_SHIFT) else { continue };
            if cache.target.generation & GENERATION_MASK != token.generation {
                continue;
            }
            let number = token.index as usize & ((1 << CACHE_SHIFT) - 1);
            if is_listener && (self.draining || self.leaving_ns > 0) {
                // Armed when clients are taken again.
            } else if is_listener {
                if let Some(listener) = cache.listeners.get(number) {
                    self.ring.accept(listener.as_fd(), token);
                }
            } else if let Some(socket) = cache.datagrams.sockets().nth(number) {
                self.ring.poll(socket, token);
            }
        }
    }

    /// Takes what waits in the listeners although nobody was told.
    pub(super) fn accept_waiting(&mut self) {
        let mut found = Vec::new();
        for cache in self.caches.iter().filter(|_| !self.draining && self.leaving_ns == 0) {
            for listener in &cache.listeners {
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
