//! Which hits are told: all of them as long as they are few, then a random share.

/// Length of a window, as a power of two of nanoseconds: about a millisecond.
const WINDOW_BITS: u32 = 20;

/// Hits told in one window. Too low: keys that are read now and then are missed. Too high: the worker takes
/// time from requests (some 100 ns an entry), or does not keep up.
const TOLD_MAX: u32 = 32;

/// One reader's choice. Private to it.
#[derive(Clone, Debug)]
pub struct Sampler {
    window: u64,
    hits: u32,
    told: u32,
    /// Of so many hits less one: a power of two less one.
    mask: u64,
    state: u64,
}

impl Sampler {
    /// Any two readers should have different seeds, so that they tell of different hits.
    pub fn new(seed: u64) -> Self {
        Self { window: 0, hits: 0, told: 0, mask: 0, state: seed }
    }

    /// Whether this hit is told. `now_ns` is what the read was made with.
    #[inline]
    pub fn wants(&mut self, now_ns: u64) -> bool {
        let window = now_ns >> WINDOW_BITS;
        if window != self.window {
            self.begin(window);
        }
        self.hits = self.hits.saturating_add(1);
        // Knuth's linear congruential generator, of which the high bits are good. By chance and not in turn:
        // who reads the same keys in the same order would tell of the same ones for ever.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wanted = (self.state >> 33) & self.mask == 0 && self.told < TOLD_MAX;
        self.told += u32::from(wanted);
        wanted
    }

    /// The share is that with which the last window in which anything was read would have told of as many
    /// as it may.
    #[cold]
    fn begin(&mut self, window: u64) {
        self.mask = u64::from(self.hits.div_ceil(TOLD_MAX).max(1)).next_power_of_two() - 1;
        (self.window, self.hits, self.told) = (window, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told of each of `keys` read in order, once a window, for `windows` windows.
    fn told(keys: usize, windows: u64) -> Vec<u32> {
        let mut sampler = Sampler::new(7);
        let mut told = vec![0; keys];
        for window in 1..=windows {
            for told in &mut told {
                *told += u32::from(sampler.wants(window << WINDOW_BITS));
            }
        }
        told
    }

    #[test]
    fn few_hits_are_all_told() {
        assert_eq!(told(20, 50), vec![50; 20]);
        let mut sampler = Sampler::new(1);
        assert!((1..100).all(|second| sampler.wants(second * 1_000_000_000)));
    }

    #[test]
    fn of_many_every_key_is_told_sooner_or_later_and_never_too_many_at_once() {
        let told = told(500, 200);
        let sum: u32 = told.iter().sum();
        assert!(sum <= 200 * TOLD_MAX && sum > 200 * TOLD_MAX / 3, "{sum}");
        // In order from the second window on: each is told with the same chance, not the first ones.
        let rarest = told.iter().min().unwrap();
        assert!(*rarest > 0, "{told:?}");
    }
}
