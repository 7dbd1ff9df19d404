//! What is still to be sent of a session when another one has begun: whole packets, in fixed memory.

use crate::feed::pack::PAYLOAD_BYTES_MAX;
use crate::port::{Path, SendError, Transmit};

/// Packets that are kept. Too low: the end of a session that rolls in the middle of a burst is lost on the line.
/// Too high: memory.
const PACKETS_MAX: usize = 64;

/// Packets of sessions that are over, oldest first.
pub(super) struct Parting {
    packets: Box<[[u8; PAYLOAD_BYTES_MAX]]>,
    lengths: Vec<usize>,
    sent: usize,
}

impl Parting {
    /// None. Makes the room.
    pub fn new() -> Self {
        // Not all zero, so that the pages are written here and not faulted in by the run loop.
        let packets = vec![[1; PAYLOAD_BYTES_MAX]; PACKETS_MAX].into_boxed_slice();
        Self { packets, lengths: Vec::with_capacity(PACKETS_MAX), sent: 0 }
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.lengths.len()
    }

    /// Keeps a packet that `write` makes, which says how many messages and bytes it has. Returns the messages;
    /// `None` without room, or when nothing was made.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Option<(u16, usize)>) -> Option<u16> {
        let packet = self.packets.get_mut(self.lengths.len())?;
        let (count, bytes) = write(packet)?;
        self.lengths.push(bytes);
        Some(count)
    }

    /// Gives up what was not sent.
    pub fn forget(&mut self) {
        self.lengths.clear();
        self.sent = 0;
    }

    /// Sends all of them, as far as the port takes them.
    pub fn send(&mut self, path: &Path, tx: &mut impl Transmit) -> Result<(), SendError> {
        while let Some(&bytes) = self.lengths.get(self.sent) {
            let packet = &self.packets[self.sent][..bytes];
            tx.send(path, |out| {
                let bytes = packet.len().min(out.len());
                out[..bytes].copy_from_slice(&packet[..bytes]);
                bytes
            })?;
            self.sent += 1;
        }
        self.lengths.clear();
        self.sent = 0;
        Ok(())
    }
}
