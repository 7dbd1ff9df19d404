//! Looking for a byte in a line, many bytes at a time: a request for many keys is as long as what they hold.

/// Bytes looked at together. Too low: the look at each takes longer than the bytes. Too high: short lines are
/// looked at byte by byte.
const BLOCK_BYTES: usize = 32;

/// Where `byte` is first.
#[inline]
pub fn find(text: &[u8], byte: u8) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<BLOCK_BYTES>();
    let at = |front: usize, part: &[u8]| {
        part.iter().position(|&other| other == byte).map(|place| front + place)
    };
    for (index, block) in blocks.iter().enumerate() {
        // Without a way out of the loop, so that it becomes a comparison of all bytes.
        if block.iter().fold(false, |found, &other| found | (other == byte)) {
            return at(index * BLOCK_BYTES, block);
        }
    }
    at(blocks.len() * BLOCK_BYTES, rest)
}

/// The words of a line, divided by spaces, eight bytes at a time.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// Of this line.
    #[inline]
    pub fn of(line: &'a [u8]) -> Self {
        Self(line)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
        if self.0.is_empty() {
            return None;
        }
        let end = space(self.0).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

#[inline]
fn space(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // Spaces become zeroes; the lowest bit set marks the first of them, a borrow spoils only those above.
        let word = u64::from_le_bytes(*word) ^ (ONES * b' ' as u64);
        let spaces = word.wrapping_sub(ONES) & !word & (ONES * 0x80);
        if spaces != 0 {
            return Some(index * 8 + spaces.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|&byte| byte == b' ')?;
    Some(words.len() * 8 + place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_found_is_what_a_look_at_each_byte_finds(
            text in prop::collection::vec(prop::sample::select(b" !\n\xa0aZ\x00\xff".to_vec()), 0..200),
        ) {
            let slow = text.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(find(&text, b'\n'), slow);
            let slow = text.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            prop_assert!(Words::of(&text).eq(slow));
        }
    }

    #[test]
    fn every_place_is_found_and_nothing_where_nothing_is() {
        for length in 0..100 {
            for place in 0..length {
                let mut text = vec![b'k'; length];
                text[place] = b'\n';
                assert_eq!(find(&text, b'\n'), Some(place));
            }
            assert_eq!(find(&vec![b'k'; length], b'\n'), None);
        }
    }
}
