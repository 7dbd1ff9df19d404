//! The last moments of a front whose successor waits: it takes no connection, which wait in the listeners for
//! the next one, ends those that wait for nothing, and goes as soon as none is left.

use nautilus_shm::metrics::labels::ConnectionEnd;

use super::Server;
use super::listeners::tokens;

/// How long connections may go on with the commands that they have begun. Too low: answers are lost that the
/// worker has given; too high: who waits in a listener waits longer.
const FINISH_NS: u64 = 20_000_000;

/// Sleep between two looks at what is left.
pub(super) const LEAVING_WAIT_NS: u64 = 500_000;

impl Server<'_> {
    /// Begins to leave.
    pub fn leave(&mut self) {
        if self.leaving_ns > 0 {
            return;
        }
        self.leaving_ns = self.now_ns;
        for cache in self.caches.iter() {
            for (_, token) in tokens(cache).into_iter().filter(|(is_listener, _)| *is_listener) {
                self.ring.stop_accepting(token);
            }
        }
    }

    /// Ends what can be ended; whether nothing is left.
    pub(super) fn has_left(&mut self) -> bool {
        if self.leaving_ns == 0 {
            return false;
        }
        let is_over = self.now_ns.saturating_sub(self.leaving_ns) > FINISH_NS;
        for index in 0..self.clients.places() {
            let Some(client) = self.clients.at_mut(index) else { continue };
            let waits = client.sending || client.connection.in_flight() > 0;
            if client.end.is_none() && (is_over || !waits) {
                client.end = Some(ConnectionEnd::Drained);
                self.clients.touch(index);
            }
        }
        self.clients.count() == 0 || self.now_ns.saturating_sub(self.leaving_ns) > 2 * FINISH_NS
    }
}
