//! The packed words of an item's first cell: what is known of it, and when it was last asked for.

use super::layout::{pair, upper};

/// The second word of an item's first cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub epoch: u32,
    /// The upper 8 of 24 bits of the time of the last use; see [`access_time`].
    pub access: u8,
    /// 0 to 3.
    pub queue: u8,
    /// 0 to 3.
    pub frequency: u8,
    /// Asked for since it was stored.
    pub fetched: bool,
    /// Invalidated.
    pub stale: bool,
    /// A reader was told to fetch it anew.
    pub won: bool,
    pub channel: u8,
    pub key_bytes: u8,
}

const FETCHED: u8 = 1 << 4;
const STALE: u8 = 1 << 5;
const WON: u8 = 1 << 6;

impl Meta {
    #[inline]
    pub fn unpack(word: u64) -> Self {
        let [key_bytes, channel, marks, access, ..] = word.to_le_bytes();
        Self {
            epoch: upper(word),
            access,
            queue: marks >> 2 & 3,
            frequency: marks & 3,
            fetched: marks & FETCHED != 0,
            stale: marks & STALE != 0,
            won: marks & WON != 0,
            channel,
            key_bytes,
        }
    }

    #[inline]
    pub fn pack(self) -> u64 {
        debug_assert!(self.frequency < 4 && self.queue < 4);
        let mut marks = self.frequency | self.queue << 2;
        marks |= u8::from(self.fetched) << 4 | u8::from(self.stale) << 5 | u8::from(self.won) << 6;
        let low = [self.key_bytes, self.channel, marks, self.access];
        pair(self.epoch, u32::from_le_bytes(low))
    }
}

/// Times of use are kept in steps of 2^29 ns (0.54 s), modulo 2^24 of them (104 days).
pub(super) const ACCESS_SHIFT: u32 = 29;
const ACCESS_MASK: u32 = (1 << 24) - 1;
/// Steps (34 s) for which a use is not written down again: memcached allows itself 60 s. Too low: every
/// look-up of a busy key stores. Too high: what `mg` says of the last use is too old.
const ACCESS_KEPT: u32 = 64;

/// The time of a use, as it is kept: 16 bits in the item's link word, 8 in its meta word, both in the
/// line that a look-up has.
#[inline]
pub(super) const fn access_time(now_ns: u64) -> u32 {
    (now_ns >> ACCESS_SHIFT) as u32 & ACCESS_MASK
}

/// The time of use an item's two words hold.
#[inline]
pub(super) const fn access_of(link_word: u64, meta: &Meta) -> u32 {
    (meta.access as u32) << 16 | (link_word >> 48) as u32
}

/// Whether a use at `now_ns` must be written down.
#[inline]
pub(super) const fn access_is_old(access: u32, now_ns: u64) -> bool {
    access_time(now_ns).wrapping_sub(access) & ACCESS_MASK >= ACCESS_KEPT
}

/// The second in which the step of a use ended, or in which `now_ns` is, if that is earlier.
pub(super) fn access_second(access: u32, now_ns: u64) -> u32 {
    let steps = access_time(now_ns).wrapping_sub(access) & ACCESS_MASK;
    let step = (now_ns >> ACCESS_SHIFT).saturating_sub(steps.into());
    (now_ns.min(((step + 1) << ACCESS_SHIFT) - 1) / 1_000_000_000) as u32
}

/// An item's link word.
#[inline]
pub(super) const fn link_word(access: u32, generation: u16, next: u32) -> u64 {
    pair(access << 16 | generation as u32, next)
}

/// The generation in a cell's link word.
#[inline]
pub(super) const fn generation(link_word: u64) -> u16 {
    (link_word >> 32) as u16
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn metadata_survives_packing() {
        for bits in 0..8 {
            let [fetched, stale, won] = [1, 2, 4].map(|bit| bits & bit != 0);
            let (epoch, access, queue, frequency) = (u32::MAX, 77, 2, 3);
            let (channel, key_bytes) = (255, 250);
            let meta =
                Meta { epoch, access, queue, frequency, fetched, stale, won, channel, key_bytes };
            assert_eq!(Meta::unpack(meta.pack()), meta);
        }
    }
}
