//! A made-up market day from a seed: what a feed writes and what strategies ask for.
//!
//! ```text
//!   09:30  every symbol's quote, last trade and status
//!   each minute (390), busy at open and close:
//!     updates   quotes, trades, status changes of symbols drawn by Zipf
//!     reads     three an update; symbols by Zipf, half of them by a ranking of the readers' own
//!               98 % live keys, 2 % bars of earlier minutes: the newer, the likelier
//!     bars      one for each symbol that was updated: written, hardly ever read
//!   each half hour a report reads that minute's bars
//! ```
//!
//! Bars flood the cache and are what has to leave; quotes of quiet symbols are what has to stay.

use super::{Access, Key};

/// Symbols listed.
pub const SYMBOLS: usize = 3_000;
/// Minutes of a session.
const MINUTES: u32 = 390;
/// Updates of a minute of average business.
const UPDATES_PER_MINUTE: f64 = 900.0;
const READS_PER_UPDATE: usize = 3;
/// Memory both sides get, in MiB. The live keys and a few minutes of bars fit.
pub const MEMORY_MB: u32 = 4;
/// Exponent of activity and interest over the ranks.
const ZIPF: f64 = 1.0;

const QUOTE_BYTES: u32 = 96;
const LAST_BYTES: u32 = 56;
const STATUS_BYTES: u32 = 24;
const BAR_BYTES: u32 = 56;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }
}

/// Ranks drawn with a chance of 1/rank^[`ZIPF`].
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=ranks).map(|rank| {
            sum += (rank as f64).powf(-ZIPF);
            sum
        });
        Self { cumulative: cumulative.collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = random.unit() * total;
        self.cumulative.partition_point(|&sum| sum <= at).min(self.cumulative.len() - 1)
    }
}

/// How busy a minute is: about four times the average at the open, twice at the close, half at noon.
fn busy(minute: u32) -> f64 {
    let from_open = f64::from(minute) / f64::from(MINUTES);
    0.5 + 3.5 * (-from_open * 12.0).exp() + 1.5 * ((from_open - 1.0) * 12.0).exp()
}

/// Four letters of a symbol's number.
fn symbol(number: usize) -> String {
    let letter = |digit: usize| char::from(b'A' + (digit % 26) as u8);
    [number / 17_576, number / 676, number / 26, number].map(letter).iter().collect()
}

fn live(number: usize, kind: &str, value_bytes: u32, write: bool) -> Access {
    let key = Key::new(&format!("md:nasdaq:{}:{kind}", symbol(number)));
    Access { key, value_bytes, write }
}

fn bar(number: usize, minute: u32, write: bool) -> Access {
    let key = Key::new(&format!("bar:nasdaq:{}:{minute:03}", symbol(number)));
    Access { key, value_bytes: BAR_BYTES, write }
}

/// A live key of a symbol: mostly its quote.
fn live_of(number: usize, random: &mut Random, write: bool) -> Access {
    match random.below(100) {
        0..80 => live(number, "bbo", QUOTE_BYTES, write),
        80..95 => live(number, "last", LAST_BYTES, write),
        _ => live(number, "status", STATUS_BYTES, write),
    }
}

/// The day of this seed.
pub fn day(seed: u64) -> Vec<Access> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let zipf = Zipf::new(SYMBOLS);
    let mut shuffled = || {
        let mut order: Vec<usize> = (0..SYMBOLS).collect();
        for at in (1..SYMBOLS).rev() {
            order.swap(at, random.below(at + 1));
        }
        order
    };
    let (activity, interest) = (shuffled(), shuffled());
    let mut accesses = Vec::new();
    for number in 0..SYMBOLS {
        accesses.push(live(number, "bbo", QUOTE_BYTES, true));
        accesses.push(live(number, "last", LAST_BYTES, true));
        accesses.push(live(number, "status", STATUS_BYTES, true));
    }
    // Minutes in which a symbol was updated: the bars there are.
    let mut bars: Vec<Vec<u32>> = vec![Vec::new(); SYMBOLS];
    for minute in 0..MINUTES {
        let mut updated = vec![false; SYMBOLS];
        for _ in 0..(UPDATES_PER_MINUTE * busy(minute)) as usize {
            let number = activity[zipf.draw(&mut random)];
            updated[number] = true;
            accesses.push(live_of(number, &mut random, true));
            for _ in 0..READS_PER_UPDATE {
                let ranking = if random.below(2) == 0 { &activity } else { &interest };
                let number = ranking[zipf.draw(&mut random)];
                let earlier = &bars[number];
                if !earlier.is_empty() && random.below(50) == 0 {
                    let back = random.unit() * random.unit() * earlier.len() as f64;
                    let minute = earlier[earlier.len() - 1 - back as usize];
                    accesses.push(bar(number, minute, false));
                } else {
                    accesses.push(live_of(number, &mut random, false));
                }
            }
        }
        for number in (0..SYMBOLS).filter(|&number| updated[number]) {
            bars[number].push(minute);
            accesses.push(bar(number, minute, true));
        }
        if minute % 30 == 29 {
            let traded = (0..SYMBOLS).filter(|&number| updated[number]);
            accesses.extend(traded.map(|number| bar(number, minute, false)));
        }
    }
    accesses
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use nautilus_shm::table::{BYTES_PER_CELL, cells_for};

    use super::super::reference::{Policy, Reference};
    use super::super::trace::Request;
    use super::super::{Outcome, run, table};
    use super::*;

    #[test]
    fn a_seed_is_a_day_and_another_seed_another_day() {
        assert_eq!(day(1), day(1));
        assert_ne!(day(1), day(2));
        let day = day(1);
        let reads = day.iter().filter(|access| !access.write).count();
        assert!((900_000..2_000_000).contains(&reads), "{reads} reads of {}", day.len());
        assert!(day.iter().all(|access| access.key.as_bytes().len() <= 24));
        let keys: HashSet<Key> = day.iter().map(|access| access.key).collect();
        let cells = keys.len() * 2;
        assert!(cells > (MEMORY_MB as usize) << 20 >> 7, "everything fits");
    }

    /// Hits a reference policy would have with as many cells.
    fn reference(policy: Policy, day: &[Access], cells: u32) -> f64 {
        let mut cache = Reference::new(policy, cells.into());
        let (mut numbers, mut outcome) = (HashMap::new(), Outcome::default());
        for access in day {
            let next = numbers.len() as u64;
            let object = *numbers.entry(access.key).or_insert(next);
            let key_bytes = access.key.as_bytes().len();
            let bytes = cells_for(key_bytes, access.value_bytes as usize);
            let hit = cache.get(&Request { object, bytes });
            outcome.reads_count += u64::from(!access.write);
            outcome.hits_count += u64::from(!access.write && hit);
        }
        outcome.hit_ratio()
    }

    #[test]
    fn a_market_day_hits_and_the_policy_matters() {
        let day = day(1);
        let mut table = table::of_memory(MEMORY_MB, 7).unwrap();
        let ours = run(&day, &mut table).unwrap().hit_ratio();
        let cells = (MEMORY_MB << 20) / BYTES_PER_CELL as u32;
        let [lru, fifo] = [Policy::Lru, Policy::Fifo].map(|policy| reference(policy, &day, cells));
        println!("market day: ours {ours:.4}, LRU {lru:.4}, FIFO {fifo:.4}");
        assert!(ours > 0.95 && ours > lru && lru > fifo, "{ours} {lru} {fifo}");
        assert!(fifo < 0.96, "anything would do: {fifo}");
    }
}
