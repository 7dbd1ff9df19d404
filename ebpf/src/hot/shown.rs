//! Why a slot does or does not answer a request: for people to read, by the map's descriptor.

use crate::intf::{HotCopy, HotSlot, HotWordsValue, Service};
use crate::steering::{Steering, SteeringError};
use crate::sys;
use crate::tables::failed_named;

use super::{HotArea, key_words};

/// What the slot of a key shows.
#[derive(Debug)]
pub(crate) struct Shown {
    slot: u32,
    problem: Option<String>,
}

impl Shown {
    /// Of a key up to 32 bytes long.
    pub fn of(live: &Steering, service: &Service, key: &[u8]) -> Result<Self, SteeringError> {
        let [slots, words, _] = live.hot_fds();
        let words: Box<HotWordsValue> = sys::map_value(words, &u32::from(service.cache))
            .map_err(|source| failed_named("hot_words", service.cache, source))?;
        let now_ns = sys::monotonic_ns();
        // Which worker's key it is nobody says here: that of the first area, if none shows it.
        let mut first = None;
        let areas = service.hot_areas();
        for area in (0..areas).filter_map(|number| HotArea::new(number, areas)) {
            let (Some(slot), Some(words_of_key)) =
                (area.slot_of(service.cache, key), key_words(key))
            else {
                break;
            };
            let shown: Box<HotSlot> =
                sys::map_value(slots, &slot).map_err(|source| failed_named("hot", slot, source))?;
            let copy = &shown.copies[(shown.version & 1) as usize];
            let problem = problem(copy, &words, service, words_of_key, now_ns);
            let found = Self { slot, problem };
            if is_of(copy, service, words_of_key) {
                return Ok(found);
            }
            first.get_or_insert(found);
        }
        let none = || Self { slot: 0, problem: Some("such a key has no slot".into()) };
        Ok(first.unwrap_or_else(none))
    }

    pub fn slot(&self) -> String {
        format!("slot {}", self.slot)
    }

    pub fn why_not(&self) -> String {
        let slot = self.slot();
        match &self.problem {
            Some(problem) => format!("{slot} {problem}"),
            None => format!(
                "{slot} shows it, but the request's flags, headers or checksums are not what XDP answers"
            ),
        }
    }
}

/// Whether it is a copy of this key.
fn is_of(copy: &HotCopy, service: &Service, key: [u64; 4]) -> bool {
    copy.key_bytes != 0
        && copy.key == key
        && (copy.cache, copy.cache_generation) == (service.cache, service.cache_generation)
}

fn problem(
    copy: &HotCopy,
    words: &HotWordsValue,
    service: &Service,
    key: [u64; 4],
    now_ns: u64,
) -> Option<String> {
    let channel = words.channels[usize::from(copy.channel)];
    let over = |until_ns: u64| until_ns == 0 || (until_ns != u64::MAX && until_ns <= now_ns);
    let problem = if copy.key_bytes == 0 {
        "is empty"
    } else if copy.key != key {
        "shows another key"
    } else if copy.cache != service.cache || copy.cache_generation != service.cache_generation {
        "shows the key of another cache"
    } else if copy.epoch != (words.flush_epoch.wrapping_add(channel.epoch)) as u32 {
        "shows a value from before a flush"
    } else if over(words.valid_until_ns) {
        "shows a value, but the cache's lease is over"
    } else if copy.channel != 0 && over(channel.valid_until_ns) {
        "shows a value whose feed is suspect"
    } else if copy.expiry_ns != 0 && over(copy.expiry_ns) {
        "shows a value that has expired"
    } else {
        return None;
    };
    Some(problem.into())
}
