//! The echo service: sends each payload back to where it came from. For liveness and for figures.

use super::App;
use crate::net::checksum;
use crate::port::{Burst, Filled, Transmit};

/// Answers every datagram with its own payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    /// Datagrams answered.
    pub echoed_count: u64,
}

impl App for Echo {
    #[inline]
    fn handle(&mut self, _now_ns: u64, burst: &impl Burst, tx: &mut impl Transmit) {
        for index in 0..burst.len() {
            let datagram = burst.get(index);
            let sent = tx.send(&datagram.reply_path(), |buffer| {
                // A payload longer than the buffer is refused by its length.
                let used = datagram.payload.len().min(buffer.len());
                buffer[..used].copy_from_slice(&datagram.payload[..used]);
                let sum = checksum::fold(checksum::add(0, datagram.payload));
                Filled { bytes: datagram.payload.len(), sum: Some(sum) }
            });
            // A refusal is counted by the port.
            self.echoed_count += u64::from(sent.is_ok());
        }
    }

    fn housekeeping(&mut self, _now_ns: u64, _tx: &mut impl Transmit) {}
}
