//! What a node says to subscribers beside MoldUDP64.

use super::{Mode, REPLY_BYTES, REPLY_MAGIC};
use crate::feed::moldudp64::Session;

/// What a node says to a request, or of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is to be sent again with the cookie of this reply.
    Cookie,
    /// The subscription is there.
    Accepted,
    /// It is not, and will not be.
    Refused,
    /// It was, and is over.
    Ended,
    /// What was asked for again is not there any more; an image is on its way.
    Gone,
}

impl Verdict {
    /// Its code.
    pub fn code(self) -> u8 {
        match self {
            Self::Cookie => b'K',
            Self::Accepted => b'A',
            Self::Refused => b'X',
            Self::Ended => b'E',
            Self::Gone => b'G',
        }
    }
}

/// Why a subscription is refused or over. The number is the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// There is nothing to say.
    #[default]
    None = 0,
    /// The request has another layout.
    Malformed = 1,
    /// The request is of another version.
    Version = 2,
    /// No prefix of the source may have anything.
    NotEntitled = 3,
    /// The source may not have records of a kind that is wanted, or none is.
    Records = 4,
    /// More levels than the source may have, or than are published; or none.
    Depth = 5,
    /// The source may not have one of the symbols.
    Symbols = 6,
    /// The node has no room for another subscriber.
    Full = 7,
    /// The source has as many as it may have.
    TooMany = 8,
    /// There is no such subscription, perhaps no more.
    Unknown = 9,
    /// The subscriber did not keep up.
    Slow = 10,
    /// It was not renewed in time.
    Lease = 11,
    /// It was asked for.
    Unsubscribed = 12,
    /// Another subscription has its name.
    Other = 13,
    /// The node's kill switch is on: nothing is published until an operator releases it.
    Halted = 14,
}

impl Reason {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 15] = [
        Self::None,
        Self::Malformed,
        Self::Version,
        Self::NotEntitled,
        Self::Records,
        Self::Depth,
        Self::Symbols,
        Self::Full,
        Self::TooMany,
        Self::Unknown,
        Self::Slow,
        Self::Lease,
        Self::Unsubscribed,
        Self::Other,
        Self::Halted,
    ];
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How the subscription is served.
    pub mode: Mode,
    /// The request's number.
    pub number: u64,
    /// For [`Verdict::Cookie`].
    pub cookie: u64,
    /// MoldUDP64 session of the subscription.
    pub session: Session,
    /// Milliseconds in which it is to be renewed.
    pub lease_ms: u16,
    /// Number of the next message that will be sent.
    pub next_sequence: u64,
    /// Number of the oldest message that can be asked for again.
    pub first_sequence: u64,
    /// Number of the message that began the last image: nothing before it is needed.
    pub image_sequence: u64,
}

impl Reply {
    /// A reply that says no more than this.
    pub fn new(number: u64, verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            mode: Mode::Full,
            number,
            cookie: 0,
            session: Session([0; 10]),
            lease_ms: 0,
            next_sequence: 0,
            first_sequence: 0,
            image_sequence: 0,
        }
    }

    /// The bytes of the reply.
    pub fn encode(&self) -> [u8; REPLY_BYTES] {
        let mut out = [0; REPLY_BYTES];
        out[..4].copy_from_slice(&REPLY_MAGIC);
        (out[4], out[5], out[6]) = (self.verdict.code(), self.reason as u8, self.mode.code());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.cookie.to_le_bytes());
        out[24..34].copy_from_slice(&self.session.0);
        out[34..36].copy_from_slice(&self.lease_ms.to_le_bytes());
        out[40..48].copy_from_slice(&self.next_sequence.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[56..64].copy_from_slice(&self.image_sequence.to_le_bytes());
        out
    }

    /// Reads a reply; `None` when it is none: the subscriber's side.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPLY_BYTES] = bytes.try_into().ok()?;
        if bytes[..4] != REPLY_MAGIC {
            return None;
        }
        let verdicts =
            [Verdict::Cookie, Verdict::Accepted, Verdict::Refused, Verdict::Ended, Verdict::Gone];
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or([0; 8]));
        let mut session = [0; 10];
        session.copy_from_slice(&bytes[24..34]);
        Some(Self {
            verdict: verdicts.into_iter().find(|verdict| verdict.code() == bytes[4])?,
            reason: *Reason::ALL.get(usize::from(bytes[5]))?,
            mode: Mode::of_code(bytes[6])?,
            number: u64_at(8),
            cookie: u64_at(16),
            session: Session(session),
            lease_ms: u16::from_le_bytes([bytes[34], bytes[35]]),
            next_sequence: u64_at(40),
            first_sequence: u64_at(48),
            image_sequence: u64_at(56),
        })
    }
}
