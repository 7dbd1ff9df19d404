//! The requests about the settings of the host, and the answer's head. What a stage is, which values it knows
//! and where it writes them is in neither: numbers of closed lists are all that travels.

use super::{AttachError, REQUEST_BYTES, Request, Verb, word};

/// Stages there are; each is one bit of a request, in their order.
pub const HOST_STAGES: u32 = 15;
/// Tiers there are, by number.
pub const HOST_TIERS: u8 = 4;
/// Bytes behind the head of both requests.
pub const HOST_REQUEST_BYTES: usize = 16;
/// Bytes of the answer before its text.
pub const HOST_ANSWER_BYTES: usize = 16;

/// A request of [`Verb::HostApply`] or [`Verb::HostRestore`].
///
/// | offset | type | field |
/// | --- | --- | --- |
/// | 0 | | a [`Request`] |
/// | 8 | u32 | stages, bit by bit; `host-restore`: 0, for it undoes all there is |
/// | 12 | u8 | tier; `host-restore`: 0 |
/// | 13 | u8 | 1: what another program changed since is overwritten |
/// | 14 | u16 | zero |
/// | 16 | u64 | the plan that was shown, by its digest; 0: show it, and change nothing |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRequest {
    /// Which of the two.
    pub verb: Verb,
    /// Stages, bit by bit.
    pub stages: u32,
    /// Tier, below [`HOST_TIERS`].
    pub tier: u8,
    /// Overwrites what another program changed since.
    pub force: bool,
    /// The plan that is to be carried out, as an earlier answer named it; 0 asks for one.
    pub digest: u64,
}

impl HostRequest {
    /// Undoes everything that was applied.
    pub fn restore(force: bool) -> Self {
        Self { verb: Verb::HostRestore, stages: 0, tier: 0, force, digest: 0 }
    }

    /// The packet.
    pub fn encode(&self) -> [u8; REQUEST_BYTES + HOST_REQUEST_BYTES] {
        let mut packet = [0; REQUEST_BYTES + HOST_REQUEST_BYTES];
        packet[..8].copy_from_slice(&Request { verb: self.verb }.encode());
        packet[8..12].copy_from_slice(&self.stages.to_le_bytes());
        packet[12] = self.tier;
        packet[13] = self.force.into();
        packet[16..24].copy_from_slice(&self.digest.to_le_bytes());
        packet
    }

    /// Reads what follows the head.
    pub(super) fn decode_rest(verb: Verb, rest: &[u8]) -> Result<Self, AttachError> {
        if rest.len() != HOST_REQUEST_BYTES {
            return Err(AttachError::Length(REQUEST_BYTES + rest.len()));
        }
        let digest = u64::from(word(rest, 8)) | u64::from(word(rest, 12)) << 32;
        let (stages, tier) = (word(rest, 0), rest[4]);
        let bounded = match verb {
            Verb::HostApply => (1..1 << HOST_STAGES).contains(&stages) && tier < HOST_TIERS,
            _ => stages == 0 && tier == 0 && digest == 0,
        };
        if !bounded || rest[5] > 1 || rest[6..8] != [0, 0] {
            return Err(AttachError::Value);
        }
        Ok(Self { verb, stages, tier, force: rest[5] == 1, digest })
    }
}

/// The head of an answer's payload; the text for an operator lies in the one descriptor that comes with it,
/// because a plan may be longer than a packet.
///
/// | offset | type | field |
/// | --- | --- | --- |
/// | 0 | u64 | digest of a plan; 0 where something was done |
/// | 8 | u32 | changes planned, or made |
/// | 12 | u32 | what is left as it is |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAnswer {
    /// Names the plan.
    pub digest: u64,
    /// Changes planned, or made.
    pub changes: u32,
    /// Left to others, refused by the kernel, or changed by another program since.
    pub left: u32,
}

impl HostAnswer {
    /// The payload.
    pub fn encode(&self) -> [u8; HOST_ANSWER_BYTES] {
        let mut bytes = [0; HOST_ANSWER_BYTES];
        bytes[..8].copy_from_slice(&self.digest.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.changes.to_le_bytes());
        bytes[12..].copy_from_slice(&self.left.to_le_bytes());
        bytes
    }

    /// Reads a payload of exactly [`HOST_ANSWER_BYTES`].
    pub fn decode(payload: &[u8]) -> Result<Self, AttachError> {
        if payload.len() != HOST_ANSWER_BYTES {
            return Err(AttachError::Payload { said: HOST_ANSWER_BYTES, found: payload.len() });
        }
        let digest = u64::from(word(payload, 0)) | u64::from(word(payload, 4)) << 32;
        Ok(Self { digest, changes: word(payload, 8), left: word(payload, 12) })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Ask;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_numbers_of_the_closed_lists_are_a_request() {
        let good =
            HostRequest { verb: Verb::HostApply, stages: 1, tier: 3, force: true, digest: 7 << 40 };
        assert_eq!(Ask::decode(&good.encode()), Ok(Ask::Host(good)));
        let restore = HostRequest::restore(false);
        assert_eq!(Ask::decode(&restore.encode()), Ok(Ask::Host(restore)));
        for wrong in [
            HostRequest { stages: 0, ..good },
            HostRequest { stages: 1 << HOST_STAGES, ..good },
            HostRequest { tier: HOST_TIERS, ..good },
            HostRequest { stages: 1, ..restore },
            HostRequest { digest: 1, ..restore },
        ] {
            assert_eq!(Ask::decode(&wrong.encode()), Err(AttachError::Value), "{wrong:?}");
        }
        let mut packet = good.encode();
        packet[13] = 2;
        assert_eq!(Ask::decode(&packet), Err(AttachError::Value));
        assert!(Ask::decode(&good.encode()[..23]).is_err());
        assert!(Ask::decode(&[&good.encode()[..], b"/proc"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn an_answer_survives_the_wire(digest: u64, changes: u32, left: u32) {
            let answer = HostAnswer { digest, changes, left };
            prop_assert_eq!(HostAnswer::decode(&answer.encode()), Ok(answer));
        }
    }
}
