//! The requests about the settings of the host, and the answer's head. What a stage is, which values it knows
//! and where it writes them is in neither: numbers of closed lists are all that travels.

use super::{AttachError, REQUEST_BYTES, Request, Verb, word};

/// Stages there are; each is one bit of a request, in their order.
pub const HOST_STAGES: u32 = 15;
/// Tiers there are, by number.
pub const HOST_TIERS: u8 = 4;
/// Bytes behind the head of both requests.
pub const HOST_REQUEST_BYTES: usize = 16;
/// Bytes behind the head of [`Verb::HostCheck`].
pub const HOST_ORDER_BYTES: usize = 12;
/// Most cores, and most memory, that can be ordered.
pub const HOST_CORES_MAX: u32 = 1_024;
/// The same of memory, GiB.
pub const HOST_MEMORY_GB_MAX: u32 = 65_536;
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

/// A request of [`Verb::HostCheck`]: what a node is to find on its host.
///
/// | offset | type | field |
/// | --- | --- | --- |
/// | 0 | | a [`Request`] |
/// | 8 | u8 | tier |
/// | 9 | u8 | bit 0: kernel bypass, 1: isolated cores, 2: one NUMA node |
/// | 10 | u16 | zero |
/// | 12 | u32 | cores |
/// | 16 | u32 | memory, GiB |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOrder {
    /// Tier, below [`HOST_TIERS`].
    pub tier: u8,
    /// AF_XDP rather than kernel sockets.
    pub kernel_bypass: bool,
    /// Workers on cores that the scheduler leaves alone.
    pub cpu_isolation: bool,
    /// Memory, cores and NIC of one NUMA node.
    pub numa_optimization: bool,
    /// Cores, 1 to [`HOST_CORES_MAX`].
    pub cpu_cores: u32,
    /// Memory, 1 to [`HOST_MEMORY_GB_MAX`] GiB.
    pub memory_gb: u32,
}

impl HostOrder {
    /// The packet.
    pub fn encode(&self) -> [u8; REQUEST_BYTES + HOST_ORDER_BYTES] {
        let mut packet = [0; REQUEST_BYTES + HOST_ORDER_BYTES];
        packet[..8].copy_from_slice(&Request { verb: Verb::HostCheck }.encode());
        packet[8] = self.tier;
        let flags = [self.kernel_bypass, self.cpu_isolation, self.numa_optimization];
        packet[9] = (0..).zip(flags).map(|(bit, is_set)| u8::from(is_set) << bit).sum();
        packet[12..16].copy_from_slice(&self.cpu_cores.to_le_bytes());
        packet[16..].copy_from_slice(&self.memory_gb.to_le_bytes());
        packet
    }

    /// Reads what follows the head.
    pub(super) fn decode_rest(rest: &[u8]) -> Result<Self, AttachError> {
        if rest.len() != HOST_ORDER_BYTES {
            return Err(AttachError::Length(REQUEST_BYTES + rest.len()));
        }
        let (tier, flags) = (rest[0], rest[1]);
        let (cpu_cores, memory_gb) = (word(rest, 4), word(rest, 8));
        let bounded = tier < HOST_TIERS
            && flags < 1 << 3
            && rest[2..4] == [0, 0]
            && (1..=HOST_CORES_MAX).contains(&cpu_cores)
            && (1..=HOST_MEMORY_GB_MAX).contains(&memory_gb);
        if !bounded {
            return Err(AttachError::Value);
        }
        let is_set = |bit: u8| flags >> bit & 1 == 1;
        let (kernel_bypass, cpu_isolation) = (is_set(0), is_set(1));
        let numa_optimization = is_set(2);
        Ok(Self { tier, kernel_bypass, cpu_isolation, numa_optimization, cpu_cores, memory_gb })
    }
}

/// The head of an answer's payload; the text for an operator lies in the one descriptor that comes with it,
/// because a plan may be longer than a packet.
///
/// | offset | type | field |
/// | --- | --- | --- |
/// | 0 | u64 | digest of a plan; 0 where something was done, or an order was judged |
/// | 8 | u32 | changes planned, or made; of an order: changes that would bring what is lacking |
/// | 12 | u32 | what is left as it is; of an order: what is lacking |
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

    #[test]
    fn an_order_keeps_within_its_bounds() {
        let good = HostOrder {
            tier: 0,
            kernel_bypass: true,
            cpu_isolation: false,
            numa_optimization: true,
            cpu_cores: HOST_CORES_MAX,
            memory_gb: HOST_MEMORY_GB_MAX,
        };
        for order in [
            good,
            HostOrder { kernel_bypass: false, cpu_isolation: true, cpu_cores: 1, ..good },
            HostOrder { numa_optimization: false, tier: HOST_TIERS - 1, memory_gb: 1, ..good },
        ] {
            assert_eq!(Ask::decode(&order.encode()), Ok(Ask::HostCheck(order)));
        }
        for wrong in [
            HostOrder { tier: HOST_TIERS, ..good },
            HostOrder { cpu_cores: 0, ..good },
            HostOrder { cpu_cores: HOST_CORES_MAX + 1, ..good },
            HostOrder { memory_gb: 0, ..good },
            HostOrder { memory_gb: HOST_MEMORY_GB_MAX + 1, ..good },
        ] {
            assert_eq!(Ask::decode(&wrong.encode()), Err(AttachError::Value), "{wrong:?}");
        }
        for (place, byte) in [(9, 8), (10, 1), (11, 1)] {
            let mut packet = good.encode();
            packet[place] = byte;
            assert_eq!(Ask::decode(&packet), Err(AttachError::Value), "byte {place}");
        }
        assert!(Ask::decode(&good.encode()[..19]).is_err());
    }

    proptest! {
        #[test]
        fn an_answer_survives_the_wire(digest: u64, changes: u32, left: u32) {
            let answer = HostAnswer { digest, changes, left };
            prop_assert_eq!(HostAnswer::decode(&answer.encode()), Ok(answer));
        }
    }
}
