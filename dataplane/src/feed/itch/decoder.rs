//! ITCH 5.0 over MoldUDP64 as a channel reads it.

use super::{DecodeError, Message};
use crate::feed::moldudp64::{Packet, Session};
use crate::feed::protocol::{Decoder, Refusal};
use crate::feed::publisher::Publisher;
use crate::feed::session::Doubt;

/// The decoder of [`crate::feed::Protocol::NasdaqItch50`].
pub enum Itch {}

impl Decoder for Itch {
    type Message<'a> = Message<'a>;

    #[inline]
    fn packet(payload: &[u8]) -> Result<Packet<'_>, Refusal> {
        let read = Packet::parse(payload).and_then(|packet| packet.check().map(|_| packet));
        read.map_err(|error| refusal(payload, error.into()))
    }

    fn may_begin(session: Session) -> bool {
        session.is_text()
    }

    #[inline(always)]
    fn messages<'a>(packet: &Packet<'a>, skip: u16) -> impl Iterator<Item = &'a [u8]> + Clone {
        packet.messages().skip(usize::from(skip)).flatten()
    }

    #[inline(always)]
    fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
        Message::decode(bytes)
    }

    #[inline(always)]
    fn look_ahead<'a>(publisher: &Publisher, messages: impl Iterator<Item = &'a [u8]> + Clone) {
        publisher.books().look_ahead(messages);
    }

    #[inline(always)]
    fn apply(
        publisher: &mut Publisher,
        message: &Message<'_>,
        bytes: &[u8],
        sequence: u64,
    ) -> Option<Doubt> {
        publisher.apply_itch(message, bytes, sequence)
    }
}

/// MoldUDP64 has no mark of its own: what begins with no name of a session is another protocol's, and its
/// counts and lengths mean nothing. A blanked name of a capture is one.
#[cold]
fn refusal(payload: &[u8], refusal: Refusal) -> Refusal {
    let session = payload.first_chunk().map(|name| Session(*name));
    let is_named = |session: Session| session.is_text() || session.is_blank();
    match session {
        Some(session) if refusal != Refusal::ShortHeader && !is_named(session) => {
            Refusal::OtherProtocol
        }
        _ => refusal,
    }
}
