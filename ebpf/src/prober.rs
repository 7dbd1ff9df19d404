//! Frames made here that go the way of received ones: the program runs on them and what it says is done
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18), so that the worker answers them and the answers leave.
//!
//! ```text
//!   frame -> second instance -> sockets of its own map -> the workers' rx rings      (running program: kernel only)
//! ```
//!
//! The kernel lets one core at a time write the rx ring of a socket, by letting only the queue's own poll
//! do so. Frames made here come from elsewhere: while they do, the running program must not redirect to the same
//! sockets. Whoever probes takes them out of it before, and that is why the second instance has a map of its own.

use std::os::fd::BorrowedFd;

use crate::steering::{Options, Steering, SteeringError};
use crate::sys;
use crate::test_run::TestContext;

/// The second instance.
#[derive(Debug)]
pub struct Prober(Steering);

impl Prober {
    /// Loads it beside a running program, which was loaded with these options. Takes the verifier's tens of
    /// milliseconds.
    pub fn beside(live: &Steering, options: Options) -> Result<Self, SteeringError> {
        Steering::load_beside_without_sockets(live, options).map(Self)
    }

    /// A socket that frames are redirected to, at its place in the running program's map.
    pub fn set_socket(&self, place: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.0.set_socket(place, socket)
    }

    /// Has a whole frame of 14 to 3,520 bytes arrive. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn receive(&self, frame: &[u8], context: TestContext) -> Result<(), SteeringError> {
        let [program, ..] = self.0.fds();
        sys::program_run_live(program, frame, context.ifindex, context.rx_queue)
            .map_err(|source| SteeringError::TestRun { packet_bytes: frame.len(), source })
    }
}
