//! What every port counts.

use crate::net::Discard;

/// Counters of one port since it was made. Plain numbers, owned by the worker thread, which mirrors
/// them into its metric bank between bursts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Datagrams handed out.
    pub received_count: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Datagrams given to the kernel, or to the simulated net.
    pub sent_count: u64,
    /// Their payload bytes.
    pub sent_bytes: u64,
    /// Packets that held no datagram for us, by [`Discard`].
    pub discarded_count: [u64; Discard::ALL.len()],
    /// Datagrams without the stamp of the steering program; their `rx_ns` is the time of receipt.
    pub unstamped_count: u64,
    /// Sends refused for want of a frame.
    pub no_frame_count: u64,
    /// Sends refused because the next hop is not known.
    pub no_neighbour_count: u64,
    /// Sends refused because the payload exceeds the MTU.
    pub too_long_count: u64,
    /// Sends the kernel refused.
    pub send_error_count: u64,
    /// Descriptors, and ring indices, of the kernel's that could not be and were not followed.
    pub refused_descriptor_count: u64,
    /// System calls to have something sent.
    pub tx_wakeup_count: u64,
    /// System calls to have something received.
    pub rx_wakeup_count: u64,
}

impl PortCounters {
    /// Counts one discarded packet.
    #[inline]
    pub fn discard(&mut self, reason: Discard) {
        self.discarded_count[reason as usize] += 1;
    }
}
