//! TOPS 1.6 over IEX-TP as a channel reads it.

use super::iextp;
use super::tops::Message;
use crate::feed::itch::DecodeError;
use crate::feed::moldudp64::{Packet, Session};
use crate::feed::protocol::{Decoder, Refusal};
use crate::feed::publisher::Publisher;
use crate::feed::session::Doubt;

/// The decoder of [`crate::feed::Protocol::IexTops16`].
pub enum Tops {}

impl Decoder for Tops {
    type Message<'a> = Message<'a>;

    #[inline]
    fn packet(payload: &[u8]) -> Result<Packet<'_>, Refusal> {
        iextp::parse(payload, iextp::PROTOCOL_TOPS).map_err(Refusal::from)
    }

    /// The framing has said what it is.
    fn may_begin(_: Session) -> bool {
        true
    }

    #[inline]
    fn messages<'a>(packet: &Packet<'a>, skip: u16) -> impl Iterator<Item = &'a [u8]> + Clone {
        iextp::messages(packet).skip(usize::from(skip))
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
        Message::decode(bytes)
    }

    #[inline]
    fn apply(
        publisher: &mut Publisher,
        message: &Message<'_>,
        _bytes: &[u8],
        sequence: u64,
    ) -> Option<Doubt> {
        publisher.apply_tops(message, sequence)
    }
}
