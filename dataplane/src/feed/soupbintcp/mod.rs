//! SoupBinTCP: sequenced messages of a session over one TCP connection.
//!
//! Source: Nasdaq "SoupBinTCP", versions 3.00 (2017) and 4.00, whose packets are the same but for
//! unsequenced data that a server may send as well. Nothing here has a socket or a clock: bytes and
//! nanoseconds in, bytes, events and a state out.
//!
//! ```text
//!   0         2      3
//!   | length  | type | payload ...        length (big-endian) counts the type and the payload
//!
//!   client: L login, U unsequenced, R heartbeat, O logout
//!   server: A accepted, J rejected, S sequenced, U unsequenced, H heartbeat, Z end of session
//!   both:   + debug
//! ```
//!
//! A sequenced packet carries no number: both ends count, from the number the login was accepted
//! with. Numbers are ASCII, right-aligned in 20 bytes.
//!
//! [`client`] and [`server`] are the two ends; each is written by the one thread that owns its
//! connection.

pub mod client;
pub mod frame;
pub mod packet;
pub mod server;

pub use client::{ClientEvent, ClientState, SoupClient};
pub use frame::Frames;
pub use packet::{ClientPacket, Credentials, LoginRequest, RejectReason, ServerPacket};
pub use server::{ServerState, SoupServer};

/// An end that has sent nothing for this long sends a heartbeat.
pub const HEARTBEAT_NS: u64 = 1_000_000_000;

/// An end that has received nothing for this long is dead (15 heartbeats).
pub const SILENCE_LIMIT_NS: u64 = 15_000_000_000;

/// A connection whose login has not been asked for, or answered, for this long is given up.
pub const LOGIN_LIMIT_NS: u64 = 30_000_000_000;

/// Why a connection cannot go on. Its owner closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoupError {
    /// A length of 0, so that there is no type.
    #[error("packet without a type")]
    NoType,
    /// A packet longer than this end takes.
    #[error("packet of {bytes} bytes, at most {limit_bytes} are taken")]
    TooLong {
        /// Length the packet claims: type and payload.
        bytes: usize,
        /// What is taken.
        limit_bytes: usize,
    },
    /// A type the other end does not send.
    #[error("unknown packet type {:?}", char::from(*.kind))]
    UnknownType {
        /// The type byte.
        kind: u8,
    },
    /// A known type with another payload length than the specification gives it.
    #[error("packet type {:?} with a payload of {bytes} bytes", char::from(*.kind))]
    WrongLength {
        /// The type byte.
        kind: u8,
        /// Length of the payload.
        bytes: usize,
    },
    /// A number that is no ASCII number of at most 64 bits.
    #[error("packet type {:?} with a sequence number that is none", char::from(*.kind))]
    BadNumber {
        /// The type byte.
        kind: u8,
    },
    /// A rejection for a reason the specification does not have.
    #[error("login rejected for an unknown reason {:?}", char::from(*.code))]
    UnknownReason {
        /// The reason byte.
        code: u8,
    },
    /// A packet that is known but not at this point of the conversation.
    #[error("packet type {:?} out of turn", char::from(*.kind))]
    OutOfTurn {
        /// The type byte.
        kind: u8,
    },
    /// Logged in to another session than was asked for.
    #[error("logged in to another session than the requested one")]
    OtherSession,
    /// Logged in at another number than was asked for, so that messages would be missing or repeated.
    #[error("logged in at sequence {given} instead of {requested}")]
    OtherSequence {
        /// The number asked for.
        requested: u64,
        /// The number of the answer.
        given: u64,
    },
    /// The sequence numbers of the session are used up.
    #[error("sequence numbers are used up")]
    Exhausted,
    /// Nothing has been received for [`SILENCE_LIMIT_NS`].
    #[error("nothing received for {} s", SILENCE_LIMIT_NS / 1_000_000_000)]
    Silent,
    /// No login, or no answer to it, within [`LOGIN_LIMIT_NS`].
    #[error("no login within {} s", LOGIN_LIMIT_NS / 1_000_000_000)]
    LoginTimeout,
}
