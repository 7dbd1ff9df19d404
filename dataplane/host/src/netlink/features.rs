//! The features of an interface in ethtool's answer: four sets of names, each a verbose bit set.

use super::codec::{Writer, attribute, attributes, u32_at};

/// `ETHTOOL_A_FEATURES_*`.
const HARDWARE: u16 = 2;
const ACTIVE: u16 = 4;
const UNCHANGEABLE: u16 = 5;
/// `ETHTOOL_A_BITSET_*`.
const BITSET_NO_MASK: u16 = 1;
const BITSET_BITS: u16 = 3;
/// `ETHTOOL_A_BITSET_BITS_BIT`.
const BITS_BIT: u16 = 1;
/// `ETHTOOL_A_BITSET_BIT_*`.
const BIT_INDEX: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;
/// `ETHTOOL_A_FEATURES_WANTED`.
const WANTED: u16 = 3;

/// A feature's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub on: bool,
    /// The driver lets it be changed.
    pub changeable: bool,
}

/// The (index, name) of every bit that is set. A set with a mask lists all bits, and marks those that
/// are set; one without lists these alone.
fn bits(set: &[u8]) -> Vec<(u32, &[u8])> {
    let Some(list) = attribute(set, BITSET_BITS) else { return Vec::new() };
    let lists_set_alone = attribute(set, BITSET_NO_MASK).is_some();
    attributes(list)
        .filter(|(kind, _)| *kind == BITS_BIT)
        .filter_map(|(_, bit)| {
            if !lists_set_alone {
                attribute(bit, BIT_VALUE)?;
            }
            let index = u32_at(attribute(bit, BIT_INDEX)?, 0)?;
            Some((index, attribute(bit, BIT_NAME)?))
        })
        .collect()
}

fn names(name: &str, raw: &[u8]) -> bool {
    raw.strip_suffix(b"\0").unwrap_or(raw) == name.as_bytes()
}

fn set_bit<'a>(answer: &'a [u8], set: u16, name: &str) -> Option<(u32, &'a [u8])> {
    bits(attribute(answer, set)?).into_iter().find(|(_, raw)| names(name, raw))
}

/// Reads one feature; an error where the answer holds no features.
pub fn feature(answer: &[u8], name: &str) -> Result<Feature, String> {
    if attribute(answer, ACTIVE).is_none() || attribute(answer, HARDWARE).is_none() {
        return Err("the answer holds no features".into());
    }
    Ok(Feature {
        on: set_bit(answer, ACTIVE, name).is_some(),
        changeable: set_bit(answer, HARDWARE, name).is_some()
            && set_bit(answer, UNCHANGEABLE, name).is_none(),
    })
}

/// The attribute of a request that switches one feature.
pub fn request(writer: Writer, name: &str, on: bool) -> Writer {
    let mut bit = Writer::default().put(BIT_NAME, &[name.as_bytes(), b"\0"].concat());
    if on {
        bit = bit.put(BIT_VALUE, &[]);
    }
    let bits = Writer::default().nest(BITS_BIT, bit);
    writer.nest(WANTED, Writer::default().nest(BITSET_BITS, bits))
}

/// The answer as it is with one feature switched: what a recorded tree shows.
pub fn switched(answer: &[u8], name: &str, on: bool) -> Result<Vec<u8>, String> {
    let now = feature(answer, name)?;
    if now.on == on {
        return Ok(answer.to_vec());
    }
    if !now.changeable {
        return Err("the driver does not let it be changed".into());
    }
    let entry = set_bit(answer, HARDWARE, name).ok_or("no such feature")?;
    let mut all = Writer::default();
    for (kind, value) in attributes(answer) {
        // The header, the first attribute, is a nest as well.
        all = match kind {
            ACTIVE => {
                let mut set = Writer::default();
                for (kind, value) in attributes(value) {
                    if kind != BITSET_BITS {
                        set = set.put(kind, value);
                    }
                }
                let mut active = bits(value);
                active.retain(|(_, raw)| !names(name, raw));
                if on {
                    active.push(entry);
                }
                active.sort_by_key(|(index, _)| *index);
                let list = active.iter().fold(Writer::default(), |list, (index, raw)| {
                    let bit = Writer::default().put(BIT_INDEX, &index.to_ne_bytes());
                    list.nest(BITS_BIT, bit.put(BIT_NAME, raw))
                });
                all.nest(ACTIVE, set.nest(BITSET_BITS, list))
            }
            _ => all.put(kind | 0x8000, value),
        };
    }
    Ok(all.into_attributes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(all: Writer, kind: u16, bits: &[(u32, &str)]) -> Writer {
        let list = bits.iter().fold(Writer::default(), |list, (index, name)| {
            let bit = Writer::default().put(BIT_INDEX, &index.to_ne_bytes());
            list.nest(BITS_BIT, bit.put(BIT_NAME, &[name.as_bytes(), b"\0"].concat()))
        });
        let start = Writer::default().put(1, &[]).put(2, &64u32.to_ne_bytes());
        all.nest(kind, start.nest(BITSET_BITS, list))
    }

    #[test]
    fn a_feature_switched_and_back_leaves_the_same_bytes() {
        let known = [(3, "rx-gro"), (7, "rx-lro"), (9, "tx-lockless")];
        let all = Writer::default().nest(1, Writer::default().put(1, &2u32.to_ne_bytes()));
        // The kernel lists every feature here, with a mark on those the driver can change.
        let masked = [
            (3, "rx-gro", true),
            (7, "rx-lro", true),
            (9, "tx-lockless", true),
            (11, "rx-fcs", false),
        ];
        let list = masked.iter().fold(Writer::default(), |list, (index, name, is_set)| {
            let bit = Writer::default().put(BIT_INDEX, &u32::to_ne_bytes(*index));
            let bit = bit.put(BIT_NAME, &[name.as_bytes(), b"\0"].concat());
            list.nest(BITS_BIT, if *is_set { bit.put(BIT_VALUE, &[]) } else { bit })
        });
        let size = Writer::default().put(2, &64u32.to_ne_bytes());
        let all = all.nest(HARDWARE, size.nest(BITSET_BITS, list));
        let all = set(all, WANTED, &known[..1]);
        let all = set(all, ACTIVE, &[known[0], known[2]]);
        let answer = set(all, UNCHANGEABLE, &known[2..]).into_attributes();
        assert_eq!(feature(&answer, "rx-gro"), Ok(Feature { on: true, changeable: true }));
        assert_eq!(feature(&answer, "rx-lro"), Ok(Feature { on: false, changeable: true }));
        assert_eq!(feature(&answer, "tx-lockless"), Ok(Feature { on: true, changeable: false }));
        assert_eq!(feature(&answer, "rx-fcs"), Ok(Feature { on: false, changeable: false }));
        assert_eq!(feature(&answer, "odd"), Ok(Feature { on: false, changeable: false }));
        for name in ["rx-gro", "rx-lro"] {
            let on = feature(&answer, name).unwrap().on;
            let changed = switched(&answer, name, !on).unwrap();
            assert_eq!(feature(&changed, name).unwrap().on, !on);
            assert_eq!(switched(&changed, name, on).unwrap(), answer);
        }
        assert!(switched(&answer, "tx-lockless", false).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = feature(&bytes, "rx-gro");
            let _ = switched(&bytes, "rx-gro", true);
        }
    }
}
