//! The Internet checksum (RFC 1071), over IPv4 headers and UDP datagrams with their pseudo headers.
//!
//! A partial sum is a `u64` that native-endian 64-bit words were added to, each carry at the low end:
//! 2^64 - 1 is a multiple of 2^16 - 1, so the remainder is that of the 16-bit words, and a
//! ones'-complement sum does not depend on byte order as long as the result is stored the way the
//! words were loaded. Never zero again once it was not, as 16-bit sums are.

/// The sum of two partial sums: an addition with the carry taken round.
#[inline(always)]
pub fn join(sum: u64, word: u64) -> u64 {
    let (sum, carry) = sum.overflowing_add(word);
    // Cannot overflow: a sum that did is below 2^64 - 1.
    sum + u64::from(carry)
}

/// Adds `bytes` to a partial sum. Only the last part of a message may have an odd length.
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (mut sum, bytes) = add_blocks(sum, bytes);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        sum = join(sum, u64::from_ne_bytes(*word));
    }
    if rest.is_empty() {
        return sum;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    join(sum, u64::from_ne_bytes(last))
}

/// Bytes added side by side; a multiple of 8.
const BLOCK_BYTES: usize = 64;

/// Least bytes for which that is quicker: the sums have to be added, too.
const BLOCKS_FROM_BYTES: usize = 4 * BLOCK_BYTES;

/// Adds the whole blocks of `bytes` and returns the rest. Each addition of [`join`] waits for the one before;
/// here halves of words go into sums of their own, none of which can overflow in less than 2^32 blocks.
#[inline]
fn add_blocks(sum: u64, bytes: &[u8]) -> (u64, &[u8]) {
    if bytes.len() < BLOCKS_FROM_BYTES {
        return (sum, bytes);
    }
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    let mut sums = [0u64; BLOCK_BYTES / 4];
    for block in blocks {
        let (halves, _) = block.as_chunks::<4>();
        for (sum, half) in sums.iter_mut().zip(halves) {
            *sum += u64::from(u32::from_ne_bytes(*half));
        }
    }
    (sums.into_iter().fold(sum, join), rest)
}

/// Folds a partial sum to 16 bits, in the byte order of the message. A message with a right
/// checksum in it folds to `0xffff`.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The pseudo header of RFC 768 or RFC 8200 section 8.1, without the addresses: protocol and UDP
/// length as one big-endian word.
#[inline]
pub fn pseudo(protocol: u8, udp_bytes: u16) -> u64 {
    let [high, low] = udp_bytes.to_be_bytes();
    u64::from(u32::from_ne_bytes([0, protocol, high, low]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(sum.to_ne_bytes(), 0xddf2u16.to_be_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn agrees_with_the_reference(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(fold(add(0, &bytes)).to_ne_bytes(), reference(&bytes).to_be_bytes());
        }

        #[test]
        fn adds_up_over_even_parts(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..50usize) {
            let at = (at * 4).min(bytes.len() / 4 * 4);
            let parts = add(add(0, &bytes[..at]), &bytes[at..]);
            prop_assert_eq!(fold(parts), fold(add(0, &bytes)));
        }
    }
}
