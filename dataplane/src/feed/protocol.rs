//! What a venue speaks: framing and messages, behind one trait.
//!
//! ```text
//!   datagram -> Decoder::packet --> lines, arbitration, session   the same for every protocol
//!                    |  \-> Refusal: counted, dropped whole
//!                    v
//!               Decoder::messages -> Decoder::decode -> Decoder::apply -> books or quotes -> records
//! ```
//!
//! A channel's protocol is part of its specification and never changes. It is looked at twice a packet, where
//! the framing begins and where the messages do; behind that everything is made for the one protocol.

use serde::Deserialize;

use super::iex::Tops;
use super::iex::iextp::IexTpError;
use super::itch::{DecodeError, Itch};
use super::moldudp64::{MoldError, Packet, Session};
use super::publisher::Publisher;
use super::session::Doubt;

/// What a channel speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// ITCH 5.0 of Nasdaq, BX and PSX over MoldUDP64: orders, of which books are made.
    #[default]
    #[serde(rename = "nasdaq-itch-5.0")]
    NasdaqItch50,
    /// TOPS 1.6 of IEX over IEX-TP: best bid and offer as the venue says them.
    #[serde(rename = "iex-tops-1.6")]
    IexTops16,
}

impl Protocol {
    /// Its name in a node file.
    pub fn name(self) -> &'static str {
        match self {
            Self::NasdaqItch50 => "nasdaq-itch-5.0",
            Self::IexTops16 => "iex-tops-1.6",
        }
    }

    /// Whether its packets are MoldUDP64, which XDP and recovery can read.
    pub fn is_moldudp64(self) -> bool {
        matches!(self, Self::NasdaqItch50)
    }

    /// See [`Decoder::packet`].
    #[inline]
    pub fn packet(self, payload: &[u8]) -> Result<Packet<'_>, Refusal> {
        match self {
            Self::NasdaqItch50 => Itch::packet(payload),
            Self::IexTops16 => Tops::packet(payload),
        }
    }

    /// See [`Decoder::may_begin`].
    pub fn may_begin(self, session: Session) -> bool {
        match self {
            Self::NasdaqItch50 => Itch::may_begin(session),
            Self::IexTops16 => Tops::may_begin(session),
        }
    }
}

/// Why a datagram was dropped whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shorter than the header.
    #[error("shorter than its header")]
    ShortHeader,
    /// Its messages do not lie where the header says.
    #[error("its messages do not lie where its header says")]
    Truncated,
    /// Its sequence numbers are impossible.
    #[error("its sequence numbers are impossible")]
    BadSequence,
    /// It is of another protocol than the channel's.
    #[error("of another protocol")]
    OtherProtocol,
}

impl From<MoldError> for Refusal {
    fn from(error: MoldError) -> Self {
        match error {
            MoldError::ShortHeader { .. } => Self::ShortHeader,
            MoldError::TruncatedMessage { .. } => Self::Truncated,
            MoldError::BadSequence { .. } => Self::BadSequence,
        }
    }
}

impl From<IexTpError> for Refusal {
    fn from(error: IexTpError) -> Self {
        match error {
            IexTpError::ShortHeader { .. } => Self::ShortHeader,
            IexTpError::TruncatedMessage { .. } | IexTpError::PayloadLength { .. } => {
                Self::Truncated
            }
            IexTpError::BadSequence { .. } => Self::BadSequence,
            IexTpError::Version { .. }
            | IexTpError::MessageProtocol { .. }
            | IexTpError::Channel { .. } => Self::OtherProtocol,
        }
    }
}

/// The decoder of one venue's protocol.
pub trait Decoder {
    /// One message, as a view over its bytes.
    type Message<'a>;

    /// Reads the header of a datagram and bounds every message in it. What cannot be read is refused whole:
    /// half of a packet would be an unseen gap.
    fn packet(payload: &[u8]) -> Result<Packet<'_>, Refusal>;

    /// Whether a session may have such a name. Asked only of one not seen before, for a framing without
    /// a mark of its own.
    fn may_begin(session: Session) -> bool;

    /// The messages after the first `skip` of a packet that [`Self::packet`] has read, in order.
    fn messages<'a>(packet: &Packet<'a>, skip: u16) -> impl Iterator<Item = &'a [u8]> + Clone;

    /// One whole message.
    fn decode(bytes: &[u8]) -> Result<Self::Message<'_>, DecodeError>;

    /// Asks for the memory that these messages will need, where that is worth it.
    fn look_ahead<'a>(_: &Publisher, _: impl Iterator<Item = &'a [u8]> + Clone) {}

    /// Applies a message with this number, decoded and as it came. Returns why what is published cannot be believed from now on, if
    /// there is a reason.
    fn apply(
        publisher: &mut Publisher,
        message: &Self::Message<'_>,
        bytes: &[u8],
        sequence: u64,
    ) -> Option<Doubt>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_node_file_is_that_of_its_protocol() {
        #[derive(Deserialize)]
        struct Section {
            protocol: Protocol,
        }
        for protocol in [Protocol::NasdaqItch50, Protocol::IexTops16] {
            let text = format!("protocol = {:?}", protocol.name());
            assert_eq!(toml::from_str::<Section>(&text).unwrap().protocol, protocol);
        }
        assert!(toml::from_str::<Section>("protocol = \"iex-deep-1.0\"").is_err());
    }
}
