//! The key hash of a table, and what its bits choose.

use super::layout::{C_META, KEY_BYTES_MAX, Shard, T_SEED};
use super::meta::Meta;
use super::payload::Cursor;
use super::words::load;
use crate::sync::AtomicU64;

/// The 64-bit hash of one key under the seed of one table. Bits 32..64 choose the first bucket, 16..32
/// the shard, 0..16 are the tag in the slot; the second bucket comes from all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub(super) u64);

// Odd constants with mixed bits (from the fractional parts of square roots of primes).
const K0: u64 = 0x6a09_e667_f3bc_c909;
const K1: u64 = 0xbb67_ae85_84ca_a73b;
const K2: u64 = 0x3c6e_f372_fe94_f82b;
const K3: u64 = 0xa54f_f53a_5f1d_36f1;

/// Both halves of the full product, folded: every input bit reaches every output bit.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// What decides the shard of a key where that is not the whole key: keys of one venue lie in one shard, so
/// that the worker of its feeds owns all of them. `md:{venue}:...`, the design's key schema.
#[inline(always)]
fn family(key: &[u8]) -> Option<&[u8]> {
    const PREFIX: &[u8] = b"md:";
    let venue_bytes = key.strip_prefix(PREFIX)?.iter().position(|byte| *byte == b':')?;
    Some(&key[..PREFIX.len() + venue_bytes])
}

const SHARD_BITS: u64 = 0xffff << 16;

impl KeyHash {
    /// Hashes a key; keys of one venue get the same shard.
    #[inline]
    pub fn new(seed: u64, key: &[u8]) -> Self {
        let hash = Self::of_bytes(seed, key);
        match family(key) {
            Some(family) => {
                Self(hash.0 & !SHARD_BITS | Self::of_bytes(seed, family).0 & SHARD_BITS)
            }
            None => hash,
        }
    }

    /// Hashes a key. The seed differs from table to table, so that nobody can prepare keys that all
    /// want one bucket (and if they did, they would evict each other: a probe stays two buckets).
    #[inline(always)]
    fn of_bytes(seed: u64, key: &[u8]) -> Self {
        let mut state = seed ^ (key.len() as u64).wrapping_mul(K0);
        let (chunks, rest) = key.as_chunks::<8>();
        for chunk in chunks {
            state = fold(state ^ u64::from_le_bytes(*chunk), K1).wrapping_add(K2);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            state = fold(state ^ u64::from_le_bytes(last), K3).wrapping_add(K2);
        }
        Self(fold(state ^ K0, K2 ^ seed))
    }

    /// All 64 bits.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn shard(self, shards: u32) -> u32 {
        ((self.0 >> 16 & 0xffff) as u32 * shards) >> 16
    }

    pub(super) fn tag(self) -> u64 {
        self.0 & 0xffff
    }

    pub(super) fn first_bucket(self, shard: &Shard) -> u32 {
        scale(self.0 >> 32, shard.buckets)
    }

    pub(super) fn second_bucket(self, shard: &Shard) -> u32 {
        scale(self.0.wrapping_mul(K1 | 1) >> 32, shard.buckets)
    }

    /// The hash of a live item's key. Only for the shard's writer.
    pub(super) fn of(words: &[AtomicU64], shard: &Shard, cell: u32) -> Self {
        let meta = Meta::unpack(load(words, shard.cell(cell) + C_META));
        let mut key = [0; KEY_BYTES_MAX];
        let key = &mut key[..usize::from(meta.key_bytes).min(KEY_BYTES_MAX)];
        let read = Cursor::first(shard, cell).read(words, shard, key);
        debug_assert!(read.is_ok(), "the writer's own chains are whole");
        Self::new(load(words, T_SEED), key)
    }
}

/// Maps 32 uniform bits to `0..count` without a division.
fn scale(bits: u64, count: u32) -> u32 {
    ((bits * u64::from(count)) >> 32) as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_venue_lie_in_one_shard_and_spread_within_it() {
        let hash = |key: &str| KeyHash::new(77, key.as_bytes());
        let shards: std::collections::HashSet<u32> =
            (0..200).map(|number| hash(&format!("md:nasdaq:S{number}:bbo")).shard(64)).collect();
        assert_eq!(shards.len(), 1);
        let tags: std::collections::HashSet<u64> =
            (0..200).map(|number| hash(&format!("md:nasdaq:S{number}:bbo")).tag()).collect();
        assert!(tags.len() > 190);
        let venues: std::collections::HashSet<u32> =
            (0..200).map(|number| hash(&format!("md:v{number}:AAPL:bbo")).shard(64)).collect();
        assert!(venues.len() > 40, "{} shards for 200 venues", venues.len());
        let others: std::collections::HashSet<u32> =
            (0..200).map(|number| hash(&format!("md:{number}")).shard(64)).collect();
        assert!(others.len() > 40, "no venue: {} shards", others.len());
    }

    #[test]
    fn short_similar_keys_spread() {
        if cfg!(miri) {
            return;
        }
        let mut buckets = [0_u32; 256];
        let mut tags = std::collections::HashSet::new();
        for n in 0..65_536_u32 {
            let hash = KeyHash::new(7, format!("key:{n:08}").as_bytes());
            buckets[(hash.0 >> 56) as usize] += 1;
            tags.insert(hash.tag());
        }
        // 256 a bucket expected, standard deviation 16.
        assert!(buckets.iter().all(|&count| (160..=360).contains(&count)), "{buckets:?}");
        assert!(tags.len() > 40_000, "{} of 41,427 expected tags", tags.len());
    }

    #[test]
    fn length_content_and_seed_matter() {
        assert_ne!(KeyHash::new(1, b"a"), KeyHash::new(1, b"a\0"));
        assert_ne!(KeyHash::new(1, b"a"), KeyHash::new(2, b"a"));
        assert_ne!(KeyHash::new(1, b"12345678a"), KeyHash::new(1, b"12345678b"));
    }
}
