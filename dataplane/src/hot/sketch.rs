//! How often keys were asked for lately: a count-min sketch (Cormode and Muthukrishnan, 2005) of two
//! rows, halved every window so that it forgets.

/// Counters of one row, a power of two. Too low: keys share counters and cold ones look warm. Too
/// high: the rows are no longer in the core's own cache.
const COUNTERS: usize = 8192;

/// Estimates of how often a key was asked for; never too low, within what one window remembers.
#[derive(Debug)]
pub struct Sketch {
    rows: [Box<[u8; COUNTERS]>; 2],
}

impl Default for Sketch {
    fn default() -> Self {
        Self { rows: std::array::from_fn(|_| Box::new([0; COUNTERS])) }
    }
}

impl Sketch {
    /// Counts a key by the 64 bits of its hash and returns its new estimate, at most 255.
    #[inline]
    pub fn count(&mut self, hash: u64) -> u8 {
        let [first, second] = &mut self.rows;
        let first = &mut first[hash as usize % COUNTERS];
        let second = &mut second[(hash >> 40) as usize % COUNTERS];
        // Only the lower of two counters can be right; the other is somebody else's as well.
        let estimate = (*first).min(*second).saturating_add(1);
        *first = (*first).max(estimate);
        *second = (*second).max(estimate);
        estimate
    }

    /// Halves every estimate.
    pub fn halve(&mut self) {
        for row in &mut self.rows {
            row.iter_mut().for_each(|counter| *counter /= 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn estimates_are_never_too_low_and_rarely_too_high() {
        let mut sketch = Sketch::default();
        let mut high = 0;
        for round in 1..=20_u8 {
            for key in 0..500 {
                let estimate = sketch.count(hash(key));
                assert!(estimate >= round, "{key}: {estimate} after {round}");
                high += u32::from(estimate > round + 2);
            }
        }
        assert!(high < 200, "{high} of 10,000 estimates are far off");
        sketch.halve();
        assert!((11..=14).contains(&sketch.count(hash(7))));
        for _ in 0..1_000 {
            sketch.count(hash(9));
        }
        assert_eq!(sketch.count(hash(9)), 255);
    }
}
