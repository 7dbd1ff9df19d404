//! Connections whose time is over.

use nautilus_shm::metrics::labels::ConnectionEnd;

use super::Server;

/// How long a client may take no byte of an answer, unless `front.idle_timeout_s` is shorter. Too low:
/// clients behind a bad line are cut off. Too high: they hold memory for longer.
const STALL_NS: u64 = 30_000_000_000;

impl Server<'_> {
    /// Ends connections whose time is over.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        let idle_ns = self.settings.idle_timeout_ns;
        let stall_ns = if idle_ns == 0 { STALL_NS } else { STALL_NS.min(idle_ns) };
        for index in 0..self.clients.places() {
            let Some(client) = self.clients.at_mut(index) else { continue };
            let since = |then_ns: u64| now_ns.saturating_sub(then_ns);
            if client.sending && since(client.sent_ns) > stall_ns {
                client.end.get_or_insert(ConnectionEnd::Slow);
            } else if idle_ns > 0
                && !client.sending
                && client.connection.in_flight() == 0
                && since(client.heard_ns.max(client.sent_ns)) > idle_ns
            {
                client.end.get_or_insert(ConnectionEnd::Idle);
            } else {
                continue;
            }
            self.clients.touch(index);
        }
    }
}
