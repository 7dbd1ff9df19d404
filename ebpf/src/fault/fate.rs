//! What becomes of a line's packets, drawn as the program draws it: who knows the file can say beforehand
//! which packets are lost. `fault.h` is the other copy.

use super::intf::{CORRUPTED, DUPLICATED, FaultFateValue, FaultLineValue, HOLDS, LOST};
use super::intf::{REORDERED, REPAIRS};

/// Chances are given in parts of this.
pub const PPM: u32 = 1_000_000;

/// What is done to the packets of one line. All zero but `until` does nothing to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRules {
    /// Of the draws.
    pub seed: u64,
    /// Packets that pass unharmed before the first fault.
    pub after: u64,
    /// Number of the last packet that may be harmed, from 1.
    pub until: u64,
    /// Chance to be lost, outside bursts.
    pub loss_ppm: u32,
    /// Chance of a packet outside to begin a burst of losses.
    pub burst_enter_ppm: u32,
    /// Chance of a packet inside to be the first outside again.
    pub burst_leave_ppm: u32,
    /// Chance to be lost inside a burst.
    pub burst_loss_ppm: u32,
    /// Chance to have one bit of the payload turned.
    pub corrupt_ppm: u32,
    /// Chance to be sent twice.
    pub duplicate_ppm: u32,
    /// Chance to be held until others have overtaken it; of a line that holds.
    pub reorder_ppm: u32,
    /// Whether a corrupted datagram gets the checksum that fits it.
    pub repairs: bool,
    /// Whether what is not lost goes to the user-space half.
    pub holds: bool,
}

impl Default for FaultRules {
    fn default() -> Self {
        Self {
            seed: 0,
            after: 0,
            until: u64::MAX,
            loss_ppm: 0,
            burst_enter_ppm: 0,
            burst_leave_ppm: 0,
            burst_loss_ppm: 0,
            corrupt_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            repairs: false,
            holds: false,
        }
    }
}

impl FaultRules {
    pub(super) fn to_value(self) -> FaultLineValue {
        FaultLineValue {
            flags: if self.holds { HOLDS } else { 0 } | if self.repairs { REPAIRS } else { 0 },
            seed: self.seed,
            after: self.after,
            until: self.until,
            loss_ppm: self.loss_ppm,
            burst_enter_ppm: self.burst_enter_ppm,
            burst_leave_ppm: self.burst_leave_ppm,
            burst_loss_ppm: self.burst_loss_ppm,
            corrupt_ppm: self.corrupt_ppm,
            duplicate_ppm: self.duplicate_ppm,
            reorder_ppm: self.reorder_ppm,
            ..FaultLineValue::default()
        }
    }
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFate {
    /// Its number on its line, from 1.
    pub number: u64,
    /// It goes no further; nothing else happens to it then.
    pub is_lost: bool,
    /// This bit of its payload is turned: bit `n % 8` of byte `n / 8`.
    pub corrupted_bit: Option<u32>,
    /// It is sent twice.
    pub is_duplicated: bool,
    /// It is held until others have overtaken it.
    pub is_reordered: bool,
}

impl From<FaultFateValue> for FaultFate {
    fn from(value: FaultFateValue) -> Self {
        let has = |flag: u32| value.flags & flag != 0;
        Self {
            number: value.number,
            is_lost: has(LOST),
            corrupted_bit: has(CORRUPTED).then_some(value.bit),
            is_duplicated: has(DUPLICATED),
            is_reordered: has(REORDERED),
        }
    }
}

#[derive(Clone, Copy)]
enum Draw {
    Loss,
    Burst,
    Corrupt,
    Bit,
    Duplicate,
    Reorder,
    Jitter,
}

/// Places between two packets' draws, as in the header.
const DRAWS: u64 = 8;

/// The fates of a line's packets, one after another.
#[derive(Clone, Debug)]
pub struct FaultFates {
    rules: FaultRules,
    number: u64,
    in_burst: bool,
}

impl FaultFates {
    /// From the line's first packet on.
    pub fn new(rules: FaultRules) -> Self {
        Self { rules, number: 0, in_burst: false }
    }

    /// Of the next packet, whose UDP payload has so many bytes.
    pub fn next(&mut self, payload_bytes: u32) -> FaultFate {
        self.number += 1;
        let (rules, number) = (self.rules, self.number);
        let mut fate = FaultFate { number, ..FaultFate::default() };
        if number <= rules.after || number > rules.until {
            return fate;
        }
        let turn = if self.in_burst { rules.burst_leave_ppm } else { rules.burst_enter_ppm };
        self.in_burst ^= self.happens(Draw::Burst, turn);
        let loss = if self.in_burst { rules.burst_loss_ppm } else { rules.loss_ppm };
        if self.happens(Draw::Loss, loss) {
            fate.is_lost = true;
            return fate;
        }
        if payload_bytes > 0 && self.happens(Draw::Corrupt, rules.corrupt_ppm) {
            fate.corrupted_bit = Some(below(self.drawn(Draw::Bit), payload_bytes * 8));
        }
        fate.is_duplicated = self.happens(Draw::Duplicate, rules.duplicate_ppm);
        fate.is_reordered = self.happens(Draw::Reorder, rules.reorder_ppm);
        fate
    }

    /// Whether the last packet was a burst's.
    pub fn is_in_burst(&self) -> bool {
        self.in_burst
    }

    /// What is drawn for the last packet's delay.
    pub fn jitter(&self) -> u64 {
        self.drawn(Draw::Jitter)
    }

    fn happens(&self, draw: Draw, ppm: u32) -> bool {
        below(self.drawn(draw), PPM) < ppm
    }

    /// The output of splitmix64 (Steele, Lea and Flood) at the draw's place in its sequence.
    fn drawn(&self, draw: Draw) -> u64 {
        let place = self.number.wrapping_mul(DRAWS).wrapping_add(draw as u64 + 1);
        mix(self.rules.seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// A number below `bound`.
fn below(drawn: u64, bound: u32) -> u32 {
    ((drawn >> 32).wrapping_mul(bound.into()) >> 32) as u32
}

/// The last step of splitmix64: any number to one that looks drawn.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(rules: FaultRules, count: usize) -> Vec<FaultFate> {
        let mut fates = FaultFates::new(rules);
        (0..count).map(|_| fates.next(100)).collect()
    }

    #[test]
    fn chances_are_what_they_say_and_one_does_not_move_the_other() {
        let rules = FaultRules { seed: 7, loss_ppm: 10_000, ..FaultRules::default() };
        let alone = fates(rules, 200_000);
        let lost = alone.iter().filter(|fate| fate.is_lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        let all = FaultRules { corrupt_ppm: 50_000, duplicate_ppm: 1_000_000, ..rules };
        for (one, other) in alone.iter().zip(fates(all, 200_000)) {
            assert_eq!(one.is_lost, other.is_lost);
            assert_eq!(other.is_duplicated, !other.is_lost);
            assert!(other.corrupted_bit.is_none_or(|bit| bit < 800));
        }
    }

    #[test]
    fn seeds_draw_differently() {
        let lost = |seed| {
            let rules = FaultRules { seed, loss_ppm: 500_000, ..FaultRules::default() };
            fates(rules, 64).iter().fold(0u64, |bits, fate| bits << 1 | u64::from(fate.is_lost))
        };
        let all: std::collections::HashSet<u64> = (0..1_000).map(lost).collect();
        assert_eq!(all.len(), 1_000);
        // Half of the bits of any two differ.
        let mean = (1..1_000).map(|seed| (lost(seed) ^ lost(0)).count_ones()).sum::<u32>() / 999;
        assert!((30..=34).contains(&mean), "{mean}");
    }

    #[test]
    fn faults_begin_and_end_where_they_are_told() {
        let rules = FaultRules {
            after: 3,
            until: 5,
            loss_ppm: PPM,
            burst_enter_ppm: PPM,
            burst_loss_ppm: PPM,
            ..FaultRules::default()
        };
        let lost: Vec<u64> =
            fates(rules, 10).iter().filter(|fate| fate.is_lost).map(|fate| fate.number).collect();
        assert_eq!(lost, [4, 5]);
    }

    #[test]
    fn bursts_have_the_mean_length_of_their_end() {
        let rules = FaultRules {
            burst_enter_ppm: 1_000,
            burst_leave_ppm: 250_000,
            burst_loss_ppm: PPM,
            ..FaultRules::default()
        };
        let fates = fates(rules, 1_000_000);
        let lost = fates.iter().filter(|fate| fate.is_lost).count() as f64;
        let bursts =
            fates.windows(2).filter(|pair| !pair[0].is_lost && pair[1].is_lost).count() as f64;
        assert!((3.5..4.5).contains(&(lost / bursts)), "{lost} in {bursts}");
    }
}
