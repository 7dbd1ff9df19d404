//! What one source may send in a time, as an operator says it, and as the program counts it.

use std::net::IpAddr;

use crate::intf::{Address, BUCKET_UNITS_PER_NS, BYTE_COST_SHIFT, Bucket, LIMITS_MAX, Limit};
use crate::steering::{Steering, SteeringError};
use crate::sys;
use crate::tables::{Map, failed};

const UNITS_PER_S: u128 = 1_000_000_000 * BUCKET_UNITS_PER_NS as u128;

/// A token bucket: so much in a second, and so much at once after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets or bytes a second, 1 to [`Rate::PER_S_MAX`].
    pub per_s: u64,
    /// Packets or bytes that a full bucket holds, 1 to an hour's worth.
    pub burst: u64,
}

impl Rate {
    /// Fewer bytes a second cannot be counted for the longest frame.
    pub const BYTES_PER_S_MIN: u64 = 100;
    /// Beyond it a token takes less time than the program can count.
    pub const PER_S_MAX: u64 = 100_000_000_000;
    /// A full bucket holds at most so many seconds' worth.
    pub const BURST_S_MAX: u64 = 3_600;

    /// What is wrong with it, if anything is.
    fn problem(self, per_s_min: u64) -> Option<String> {
        let (per_s, per_s_max) = (self.per_s, Self::PER_S_MAX);
        if !(per_s_min..=per_s_max).contains(&per_s) {
            return Some(format!("{per_s} a second is not {per_s_min}..={per_s_max}"));
        }
        let burst_max = self.per_s.saturating_mul(Self::BURST_S_MAX);
        if !(1..=burst_max).contains(&self.burst) {
            return Some(format!("a burst of {} is not 1..={burst_max}", self.burst));
        }
        None
    }

    /// Cost of `2^shift` tokens and of the burst, in units of time. Rounded so that never more is granted.
    fn costs(rate: Option<Self>, shift: u32) -> (u64, u64) {
        let Some(Self { per_s, burst }) = rate else { return (0, 0) };
        let cost = (UNITS_PER_S << shift).div_ceil(per_s.into());
        let full = (u128::from(burst) * cost) >> shift;
        (cost as u64, full as u64)
    }
}

/// Both buckets of each source of a prefix. Without either, its sources have no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Packets.
    pub packets: Option<Rate>,
    /// Bytes of whole frames, from the Ethernet header on.
    pub bytes: Option<Rate>,
}

impl RateLimit {
    /// What is wrong with it, if anything is.
    pub fn problem(self) -> Option<String> {
        let packets = self.packets.and_then(|rate| rate.problem(1));
        packets.or_else(|| self.bytes.and_then(|rate| rate.problem(Rate::BYTES_PER_S_MIN)))
    }
}

impl From<RateLimit> for Limit {
    fn from(limit: RateLimit) -> Self {
        let (packet_cost, packet_burst) = Rate::costs(limit.packets, 0);
        let (byte_cost, byte_burst) = Rate::costs(limit.bytes, BYTE_COST_SHIFT);
        Self { packet_cost, packet_burst, byte_cost, byte_burst }
    }
}

/// How far a source has used its buckets up, of which it can have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nanoseconds until its bucket of packets is full.
    pub packets_full_in_ns: u64,
    /// Nanoseconds until its bucket of bytes is full.
    pub bytes_full_in_ns: u64,
}

impl Spent {
    /// Of a bucket as it stands at this moment of `CLOCK_MONOTONIC`.
    pub fn at(bucket: Bucket, now_ns: u64) -> Self {
        let left = |full_at: u64| (full_at / BUCKET_UNITS_PER_NS).saturating_sub(now_ns);
        Self {
            packets_full_in_ns: left(bucket.packets_full_at),
            bytes_full_in_ns: left(bucket.bytes_full_at),
        }
    }
}

impl Steering {
    /// Makes the limits exactly these, numbered from 1; sources get them by [`crate::Rights`]. Where one
    /// changes, every source starts with full buckets.
    pub fn replace_limits(&self, limits: &[RateLimit]) -> Result<(), SteeringError> {
        if limits.len() >= LIMITS_MAX as usize {
            let problem = format!("{} limits; at most {} fit", limits.len(), LIMITS_MAX - 1);
            return Err(SteeringError::Refused(problem));
        }
        if let Some(problem) = limits.iter().copied().find_map(RateLimit::problem) {
            return Err(SteeringError::Refused(problem));
        }
        let mut changed = false;
        for index in 0..LIMITS_MAX {
            let of_index = index.checked_sub(1).and_then(|place| limits.get(place as usize));
            let limit = of_index.copied().map_or(Limit::default(), Limit::from);
            if self.limit(index)? != limit {
                changed = true;
                self.put(Map::Limits, &index, &limit, index)?;
            }
        }
        // A bucket holds times of the limit it was filled by.
        if changed { self.forget_buckets() } else { Ok(()) }
    }

    /// The limit of this index, below [`LIMITS_MAX`].
    pub fn limit(&self, index: u32) -> Result<Limit, SteeringError> {
        let mut limit = [Limit::default()];
        sys::map_lookup(self.map(Map::Limits), &index, &mut limit)
            .map_err(|source| failed(Map::Limits, "read", index, source))?;
        Ok(limit[0])
    }

    /// The buckets of a source, if it has any.
    pub fn bucket(&self, source: IpAddr) -> Result<Option<Bucket>, SteeringError> {
        let mut bucket = [Bucket::default()];
        let key = Address::from(source.to_canonical());
        let found = sys::map_lookup(self.map(Map::Buckets), &key, &mut bucket)
            .map_err(|error| failed(Map::Buckets, "read", source, error))?;
        Ok(found.then_some(bucket[0]))
    }

    /// Gives a source these buckets. The program changes them while they are written: only for one that
    /// gets no packets.
    pub fn set_bucket(&self, source: IpAddr, bucket: Bucket) -> Result<(), SteeringError> {
        self.put(Map::Buckets, &Address::from(source.to_canonical()), &bucket, source)
    }

    /// Takes the buckets of all sources away: they start with full ones.
    pub fn forget_buckets(&self) -> Result<(), SteeringError> {
        let keys: Vec<Address> = sys::map_keys(self.map(Map::Buckets))
            .map_err(|source| failed(Map::Buckets, "list", "the sources", source))?;
        for key in keys {
            self.take(Map::Buckets, &key, "a source")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_never_grant_more_and_rarely_less() {
        for per_s in [1, 3, 999, 1_000_000, 7_777_777, 100_000_000, Rate::PER_S_MAX] {
            let rate = Rate { per_s, burst: per_s };
            let exact = 1e9 * BUCKET_UNITS_PER_NS as f64 / per_s as f64;
            let (bytes, full) = Rate::costs(Some(rate), BYTE_COST_SHIFT);
            let byte = bytes as f64 / f64::from(1 << BYTE_COST_SHIFT);
            assert!(byte >= exact && byte < exact * 1.000_01, "{per_s}: {byte} {exact}");
            assert!(full.abs_diff(UNITS_PER_S as u64) < UNITS_PER_S as u64 / 100_000, "{per_s}");
            let (packet, _) = Rate::costs(Some(rate), 0);
            assert_eq!(packet, exact.ceil() as u64, "{per_s}");
        }
        assert_eq!(Limit::from(RateLimit::default()), Limit::default());
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        for (per_s, burst, part) in [
            (0, 1, "0 a second is not 1..="),
            (Rate::PER_S_MAX + 1, 1, "a second is not"),
            (1, 0, "a burst of 0 is not 1..=3600"),
            (2, 7_201, "a burst of 7201 is not 1..=7200"),
        ] {
            let problem = Rate { per_s, burst }.problem(1).unwrap();
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(Rate { per_s: 2, burst: 7_200 }.problem(1), None);
        let few = Some(Rate { per_s: 99, burst: 1 });
        assert!(RateLimit { packets: None, bytes: few }.problem().is_some());
        assert_eq!(RateLimit { packets: few, bytes: None }.problem(), None);
        // The longest time there is, for the longest frame: far from the end of a u64.
        let per_s = Rate::BYTES_PER_S_MIN;
        let slow = Rate { per_s, burst: per_s * Rate::BURST_S_MAX };
        let (cost, full) = Rate::costs(Some(slow), BYTE_COST_SHIFT);
        assert!(u64::from(u16::MAX).checked_mul(cost).is_some() && full < u64::MAX / 1_000);
    }
}
