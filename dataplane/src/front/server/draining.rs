//! No more clients: what the front does while its node drains.
//!
//! Who waits in a listener is taken, then the listeners are closed for new clients, for all who hold them: a
//! client is refused by the kernel, and asks another node. Connections that are there are served to their end,
//! or to the moment that the node names; then those go first that wait for nothing.

use std::os::fd::{AsFd, AsRawFd};

use nautilus_shm::metrics::labels::ConnectionEnd;
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};

use super::Server;
use super::listeners::tokens;
use crate::limits::LISTEN_BACKLOG;

/// How long after the moment a connection may go on with the commands that it has begun.
const FINISH_NS: u64 = 500_000_000;

impl Server<'_> {
    /// As the node says, once a tick: the moment when the last connections are closed, 0 to take clients.
    pub fn drain_until(&mut self, moment_ns: u64) {
        if self.leaving_ns > 0 {
            // The next front sees it, too.
            return;
        }
        if moment_ns == 0 {
            if self.draining {
                self.draining = false;
                self.open_listeners();
            }
            return;
        }
        if !self.draining {
            self.accept_waiting();
            self.draining = true;
            self.close_listeners();
        }
        let over_ns = self.now_ns.saturating_sub(moment_ns);
        if over_ns == 0 {
            return;
        }
        for index in 0..self.clients.places() {
            let Some(client) = self.clients.at_mut(index) else { continue };
            let idle = !client.sending && client.connection.in_flight() == 0;
            if idle || over_ns > FINISH_NS {
                client.end.get_or_insert(ConnectionEnd::Drained);
                self.clients.touch(index);
            }
        }
    }

    /// For all who hold them.
    pub(super) fn close_listeners(&mut self) {
        for cache in self.caches.iter() {
            for listener in &cache.listeners {
                let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
            }
            for (_, token) in tokens(cache).into_iter().filter(|(is_listener, _)| *is_listener) {
                self.ring.stop_accepting(token);
            }
        }
    }

    fn open_listeners(&mut self) {
        for cache in self.caches.iter() {
            for listener in &cache.listeners {
                let backlog = Backlog::new(LISTEN_BACKLOG).unwrap_or(Backlog::MAXCONN);
                let _ = listen(&listener.as_fd(), backlog);
            }
            let tokens = tokens(cache).into_iter().filter(|(is_listener, _)| *is_listener);
            self.unarmed.extend(tokens);
        }
    }
}
