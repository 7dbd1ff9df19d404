//! What files of proc and sysfs say, and what the kernel makes of a write to them. Every text may be
//! garbage: what cannot be understood is an error in words.

use std::collections::BTreeSet;

use super::knob::Kind;

/// Highest core number that is believed (`CONFIG_NR_CPUS` ends at 8192): bounds what a list like
/// `0-4294967295` may cost.
pub const CORE_MAX: u32 = 8191;

/// A set of cores.
pub type Cores = BTreeSet<u32>;

/// What was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A word or line.
    Word(String),
    /// Cores.
    Cores(Cores),
}

/// Text of bytes without its ends; an error where it is no text or holds control characters.
pub fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return Err("it holds control characters".into());
    }
    Ok(text.to_owned())
}

/// Understands bytes by their kind.
pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Value, String> {
    let text = text(bytes)?;
    match kind {
        Kind::Word => Ok(Value::Word(text)),
        Kind::Number | Kind::FirstNumber => number(&text).map(Value::Number),
        Kind::Selected => selected(&text).map(|word| Value::Word(word.into())),
        Kind::CoreList => core_list(&text).map(Value::Cores),
        Kind::CoreMask => core_mask(&text).map(Value::Cores),
    }
}

/// The first word as a number.
pub fn number(text: &str) -> Result<i64, String> {
    let word = text.split_whitespace().next().ok_or("it is empty")?;
    word.parse().map_err(|_| format!("{:?} is no number", shortened(word)))
}

/// The word in brackets.
pub fn selected(text: &str) -> Result<&str, String> {
    let mut chosen = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('[').and_then(|word| word.strip_suffix(']')));
    match (chosen.next(), chosen.next()) {
        (Some(word), None) if !word.is_empty() => Ok(word),
        _ => Err(format!("{:?} has not one word in brackets", shortened(text))),
    }
}

/// Cores of a list such as `0-3,8`; empty for an empty one.
pub fn core_list(text: &str) -> Result<Cores, String> {
    let mut cores = Cores::new();
    let wrong = || format!("{:?} is no list of cores", shortened(text));
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.parse().map_err(|_| wrong())?;
        let last: u32 = last.parse().map_err(|_| wrong())?;
        if first > last || last > CORE_MAX {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

/// Cores of a mask such as `00000001,0000000f`.
pub fn core_mask(text: &str) -> Result<Cores, String> {
    let wrong = || format!("{:?} is no mask of cores", shortened(text));
    let groups: Vec<&str> = text.split(',').collect();
    if groups.len() > (CORE_MAX as usize).div_ceil(32) {
        return Err(wrong());
    }
    let mut cores = Cores::new();
    for (index, group) in groups.iter().rev().enumerate() {
        if group.is_empty() || group.len() > 8 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let bits = u32::from_str_radix(group, 16).map_err(|_| wrong())?;
        cores.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| index as u32 * 32 + bit));
    }
    Ok(cores)
}

/// Cores as a list.
pub fn core_list_text(cores: &Cores) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => runs.push((*core, *core)),
        }
    }
    let texts =
        runs.iter().map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        );
    texts.collect::<Vec<_>>().join(",")
}

/// Cores as a mask of as many digits and groups as `like` has.
pub fn core_mask_text(cores: &Cores, like: &str) -> String {
    let groups: Vec<&str> = like.split(',').collect();
    let count = groups.len().max(cores.last().map_or(0, |core| *core as usize / 32 + 1));
    let mut texts = Vec::new();
    for index in (0..count as u32).rev() {
        let bits = (0..32).filter(|bit| cores.contains(&(index * 32 + bit)));
        let bits = bits.fold(0u32, |mask, bit| mask | 1 << bit);
        let from_left = count - 1 - index as usize;
        let width = if from_left == 0 { groups[0].len().clamp(1, 8) } else { 8 };
        texts.push(format!("{bits:0width$x}"));
    }
    texts.join(",")
}

/// What is written so that the file reads as these bytes again.
pub fn token(kind: Kind, bytes: &[u8]) -> Result<String, String> {
    let text = text(bytes)?;
    match kind {
        Kind::Selected => selected(&text).map(str::to_owned),
        // Never an empty write, which the kernel takes as none: the list of no cores.
        Kind::Number => number(&text).map(|number| number.to_string()),
        _ => Ok(text),
    }
}

/// What the file reads after a write of `token`, as far as the kernel's rules go: what a recorded
/// tree shows.
pub fn after_write(kind: Kind, old: &[u8], token: &str) -> Vec<u8> {
    let old_text = String::from_utf8_lossy(old);
    let body = old_text.trim_end_matches(['\n', '\0']);
    let end = &old_text[body.len()..];
    let new = match kind {
        Kind::Selected => {
            let words = body.split(' ').map(|word| {
                let bare = word.trim_start_matches('[').trim_end_matches(']');
                if bare == token { format!("[{bare}]") } else { bare.to_owned() }
            });
            words.collect::<Vec<_>>().join(" ")
        }
        Kind::FirstNumber if !token.contains(char::is_whitespace) => {
            match body.find(char::is_whitespace) {
                Some(at) => format!("{token}{}", &body[at..]),
                None => token.to_owned(),
            }
        }
        _ => token.to_owned(),
    };
    (new + end).into_bytes()
}

/// At most 40 characters of what is quoted in a message.
pub fn shortened(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.into();
    }
    text.chars().take(37).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_masks_are_cores() {
        for (list, cores) in
            [("", vec![]), ("0", vec![0]), ("0-3,8", vec![0, 1, 2, 3, 8]), (" 2 ,4", vec![2, 4])]
        {
            assert_eq!(core_list(list), Ok(cores.into_iter().collect()), "{list}");
        }
        for list in ["3-0", "a", "0-4294967295", "0-8192", "1--2"] {
            assert!(core_list(list).is_err(), "{list}");
        }
        assert_eq!(core_mask("f"), Ok([0, 1, 2, 3].into()));
        assert_eq!(core_mask("00000001,80000000"), Ok([31, 32].into()));
        for mask in ["", "x", ",", "1,", "123456789"] {
            assert!(core_mask(mask).is_err(), "{mask}");
        }
        assert_eq!(core_mask_text(&[31, 32].into(), "0000,00000000"), "0001,80000000");
    }

    #[test]
    fn a_write_reads_as_the_kernel_shows_it() {
        let thp = b"always [madvise] never\n";
        assert_eq!(after_write(Kind::Selected, thp, "never"), b"always madvise [never]\n");
        assert_eq!(token(Kind::Selected, thp), Ok("madvise".into()));
        let printk = b"7\t4\t1\t7\n";
        assert_eq!(after_write(Kind::FirstNumber, printk, "4"), b"4\t4\t1\t7\n");
        assert_eq!(after_write(Kind::FirstNumber, b"4\t4\t1\t7\n", "7\t4\t1\t7"), printk);
        assert_eq!(after_write(Kind::Number, b"60", "10"), b"10");
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for kind in [
                Kind::Number, Kind::FirstNumber, Kind::Word, Kind::Selected, Kind::CoreList, Kind::CoreMask,
            ] {
                let _ = parse(kind, &bytes);
                if let Ok(token) = token(kind, &bytes) {
                    let _ = after_write(kind, &bytes, &token);
                }
            }
        }

        #[test]
        fn cores_come_back(cores in proptest::collection::btree_set(0u32..=CORE_MAX, 0..40)) {
            prop_assert_eq!(core_list(&core_list_text(&cores)), Ok(cores.clone()));
            prop_assert_eq!(core_mask(&core_mask_text(&cores, "0")), Ok(cores));
        }

        #[test]
        fn a_change_and_its_undoing_leave_the_same_bytes(
            words in proptest::collection::vec("[a-z]{1,6}", 2..5), from: prop::sample::Index, to: prop::sample::Index,
        ) {
            let mut words: Vec<String> = words;
            words.sort();
            words.dedup();
            let target = words[to.index(words.len())].clone();
            let at = from.index(words.len());
            words[at] = format!("[{}]", words[at]);
            let old = (words.join(" ") + "\n").into_bytes();
            let changed = after_write(Kind::Selected, &old, &target);
            let back = after_write(Kind::Selected, &changed, &token(Kind::Selected, &old).unwrap());
            prop_assert_eq!(back, old);
        }
    }
}
