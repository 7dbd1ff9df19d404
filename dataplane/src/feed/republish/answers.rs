//! Requests for what was lost of a republished line, kept from the burst that brings them until there is
//! somewhere to send the answers.

use crate::feed::history::History;
use crate::feed::moldudp64::{REQUEST_BYTES, Session};
use crate::feed::request_server::{Refusal, RequestCounts, RequestLimits, RequestServer};
use crate::limits::REPLY_PAYLOAD_BYTES_MAX;
use crate::net::Endpoint;
use crate::port::{Datagram, Path, Transmit};

/// Requests that wait for the end of their burst. Too low: honest ones are dropped. Too high: a burst of
/// them takes so long to answer.
const WAITING_MAX: usize = 64;

/// Before any session there is nothing to ask for.
const NO_SESSION: Session = Session([0; 10]);

/// An answer leaves whole: it has no more than every way out has room for.
fn most(payload_bytes_max: usize) -> usize {
    payload_bytes_max.min(REPLY_PAYLOAD_BYTES_MAX)
}

/// A request as it came; a datagram that is longer than a request is cut one byte behind that.
#[derive(Clone, Copy)]
struct Waiting {
    bytes: [u8; REQUEST_BYTES + 1],
    length: usize,
    reply: Path,
}

/// The request server of one channel.
pub struct Answers {
    at: Endpoint,
    server: RequestServer,
    waiting: Vec<Waiting>,
    /// Requests for which there was no room to wait in.
    flooded: u64,
    unsent: u64,
    answer: Vec<u8>,
}

impl Answers {
    /// Nothing was asked. Requests come to `at`, answers have at most `payload_bytes_max` bytes.
    pub fn new(
        at: Endpoint,
        limits: RequestLimits,
        payload_bytes_max: usize,
        hash_seed: u64,
    ) -> Self {
        Self {
            at,
            server: RequestServer::new(NO_SESSION, most(payload_bytes_max), limits, hash_seed),
            waiting: Vec::with_capacity(WAITING_MAX),
            flooded: 0,
            unsent: 0,
            answer: Vec::with_capacity(payload_bytes_max),
        }
    }

    /// Another session begins.
    pub fn begin_session(&mut self, session: Session) {
        self.server.begin(session);
    }

    /// Makes answers no longer than this.
    pub fn limit(&mut self, payload_bytes_max: usize) {
        self.server.limit(most(payload_bytes_max));
    }

    /// What was answered and refused, and how many answers the port did not take.
    pub fn counts(&self) -> (RequestCounts, u64) {
        let mut counts = self.server.counts();
        counts.refused[Refusal::Flood as usize] += self.flooded;
        (counts, self.unsent)
    }

    /// Keeps a request until [`Self::send`].
    pub fn take(&mut self, datagram: &Datagram<'_>) {
        if self.waiting.len() == WAITING_MAX {
            self.flooded += 1;
            return;
        }
        let mut bytes = [0; REQUEST_BYTES + 1];
        let length = datagram.payload.len().min(bytes.len());
        bytes[..length].copy_from_slice(&datagram.payload[..length]);
        // Not from where it was sent to, should that be a group.
        let reply = Path { from: self.at, ..datagram.reply_path() };
        self.waiting.push(Waiting { bytes, length, reply });
    }

    /// Leaves what waits without an answer: to whoever asked it was lost.
    pub fn forget(&mut self) {
        self.unsent += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// Answers what waits. An answer that the port does not take is as lost as one that the wire lost.
    pub fn send(&mut self, now_ns: u64, history: &History, tx: &mut impl Transmit) {
        for Waiting { bytes, length, reply } in self.waiting.drain(..) {
            let from = reply.to.ip();
            let answered =
                self.server.answer(&bytes[..length], from, now_ns, history, &mut self.answer);
            if answered.is_err() {
                continue;
            }
            let answer = &self.answer;
            let sent = tx.send(&reply, |out| {
                let bytes = answer.len().min(out.len());
                out[..bytes].copy_from_slice(&answer[..bytes]);
                bytes
            });
            self.unsent += u64::from(sent.is_err());
        }
    }
}
