//! A log-linear histogram in shared memory, with the bucket maths of HdrHistogram.
//!
//! The buckets are exactly those of an HdrHistogram with lowest discernible value 1 and two
//! significant digits (256 sub-buckets, of which the upper 128 count from the second bucket on): below
//! 256 every value has its own bucket, above it a bucket is at most 1/128 = 0.79 % wide. Replaying
//! [`HistogramSnapshot::buckets`] into such a histogram loses nothing. Three digits would cost
//! eight times the memory and the cache lines for a precision no clock here has.
//!
//! Single writer: the process of the bank. Readers load relaxed; a snapshot taken while the writer
//! counts may lack its last values, never invents any.

use crate::shared::Shared;
use crate::sync::{AtomicU64, Ordering};

/// log2 of the sub-buckets that each doubling of the value is divided into.
pub const SUB_BUCKET_BITS: u32 = 7;

/// The largest value told apart: 2^40 - 1 ns is 18 minutes. Larger ones count as this.
pub const HISTOGRAM_VALUE_MAX: u64 = (1 << 40) - 1;

/// Counters of one histogram.
pub const HISTOGRAM_BUCKETS: usize = bucket_of(HISTOGRAM_VALUE_MAX) + 1;

/// The bucket of a value.
#[inline]
pub const fn bucket_of(value: u64) -> usize {
    // Values below 2^(BITS+1) have a bucket of their own.
    let mask = (1u64 << (SUB_BUCKET_BITS + 1)) - 1;
    let shift = (64 - SUB_BUCKET_BITS - 1) - (value | mask).leading_zeros();
    ((shift as usize) << SUB_BUCKET_BITS) + (value >> shift) as usize
}

/// The smallest value of a bucket.
pub const fn bucket_lowest(bucket: usize) -> u64 {
    let half = 1 << SUB_BUCKET_BITS;
    if bucket < 2 * half {
        return bucket as u64;
    }
    let shift = bucket / half - 1;
    ((bucket % half + half) as u64) << shift
}

/// The largest value of a bucket.
pub const fn bucket_highest(bucket: usize) -> u64 {
    bucket_lowest(bucket + 1) - 1
}

/// The shared counters.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Histogram {
    sum: AtomicU64,
    max: AtomicU64,
    buckets: [AtomicU64; HISTOGRAM_BUCKETS],
}

// SAFETY: repr(C) of shared words only; the tail padding is never read.
unsafe impl Shared for Histogram {}

impl Histogram {
    /// Counts one value. Single writer.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value `count` times. Single writer.
    #[inline]
    pub fn record_many(&self, value: u64, count: u64) {
        let value = value.min(HISTOGRAM_VALUE_MAX);
        add(&self.buckets[bucket_of(value)], count);
        add(&self.sum, value.wrapping_mul(count));
        if value > self.max.load(Ordering::Relaxed) {
            self.max.store(value, Ordering::Relaxed);
        }
    }

    /// Copies the counters.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> =
            self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        HistogramSnapshot {
            count: counts.iter().fold(0, |sum, count| sum.wrapping_add(*count)),
            sum: self.sum.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
            counts,
        }
    }
}

#[inline]
fn add(word: &AtomicU64, by: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// The counters of a histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: vec![0; HISTOGRAM_BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl HistogramSnapshot {
    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all values, wrapping.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value ever counted.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The buckets that are not empty, lowest first: (lowest value, highest value, count).
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let used = self.counts.iter().enumerate().filter(|(_, count)| **count != 0);
        used.map(|(bucket, count)| (bucket_lowest(bucket), bucket_highest(bucket), *count))
    }

    /// Values counted that are at most `value`, where `value` is rounded up to the end of its
    /// bucket.
    pub fn count_at_most(&self, value: u64) -> u64 {
        let last = bucket_of(value.min(HISTOGRAM_VALUE_MAX));
        self.counts[..=last].iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The value below or at which `quantile` (0 to 1) of all values lie, as the highest value of
    /// its bucket, bounded by the maximum. 0 when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = (quantile.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (_, highest, count) in self.buckets() {
            seen = count.saturating_add(seen);
            if seen >= wanted {
                return highest.min(self.max);
            }
        }
        self.max
    }

    /// Adds the counters of another process.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to = to.wrapping_add(*from);
        }
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// What was counted since `earlier`, a snapshot of the same histogram. The maximum is then the
    /// end of the highest bucket that moved.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(now, then): (&u64, &u64)| now.wrapping_sub(*then);
        let counts: Vec<u64> = self.counts.iter().zip(&earlier.counts).map(difference).collect();
        let top = counts.iter().rposition(|count| *count != 0);
        Self {
            count: counts.iter().fold(0, |sum, count| sum.wrapping_add(*count)),
            sum: self.sum.wrapping_sub(earlier.sum),
            max: top.map_or(0, |bucket| bucket_highest(bucket).min(self.max)),
            counts,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
