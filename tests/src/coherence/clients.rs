//! What clients do: by chance, from a seed, on a few hot keys that change every second and many cold
//! ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nautilus_dataplane::replay::random::Random;

use super::ask::{Ask, FAR_SECONDS, Form};
use super::paths::{Counts, Path, Paths};
use super::rest;
use super::text::{COLD, is_counter};
use crate::history::{Input, Output};

/// Hot keys at a time. Too few: one key's history grows long; too many: none is asked for often.
const HOT_KEYS: u64 = 4;

/// How long they are hot. Too low: keys are gone before they are answered in XDP; too high: the check
/// of one key's history takes long.
const HOT_FOR: Duration = Duration::from_secs(1);

/// Cold keys.
pub const COLD_KEYS: u64 = 4_000;

/// Time between two flushes.
const FLUSH_EVERY: Duration = Duration::from_secs(7);

/// Pause of a reader between two keys, so that on few cores the writers have one.
const READER_PAUSE: Duration = Duration::from_micros(60);

/// Reads of one key, by different ways, right behind each other: whoever is behind shows.
const READS_OF_A_KEY: u32 = 4;

/// The ways of a reader, the cheap ones more often.
const READ_WAYS: [Path; 7] =
    [Path::Hot, Path::Hot, Path::Worker, Path::Front, Path::Shared, Path::Shared, Path::Rest];

/// Longest value over UDP, in one datagram both ways.
const VALUE_BYTES_MAX: u32 = 1_200;

/// Longest value over TCP.
const LARGE_BYTES_MAX: u32 = 20_000;

/// What all clients of a run share.
#[derive(Debug)]
pub struct Run {
    /// When the clients began.
    pub begin: Instant,
    /// Ends them.
    pub stop: AtomicBool,
    /// Whether everything is flushed now and then. With kills it is not: a flush of unknown outcome
    /// would explain any miss.
    pub flushes: bool,
    /// Flushes begun and ended.
    pub flushes_count: AtomicU64,
}

impl Run {
    /// Whether clients are still at work.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Hot keys up to now.
    pub fn hot_keys(&self) -> u64 {
        (self.begin.elapsed().as_secs_f64() / HOT_FOR.as_secs_f64()) as u64 * HOT_KEYS + HOT_KEYS
    }

    fn key(&self, random: &mut Random, cold_in_16: u32) -> u64 {
        match random.below(16) < cold_in_16 {
            true => COLD + u64::from(random.below(COLD_KEYS as u32)),
            false => self.hot_keys() - 1 - u64::from(random.below(HOT_KEYS as u32)),
        }
    }
}

/// Reads every key it looks at by several ways until the run ends.
pub fn read_on(run: &Run, mut paths: Paths, seed: u64) -> Counts {
    let mut random = Random::new(seed);
    while run.goes_on() {
        let key = run.key(&mut random, 3);
        for _ in 0..READS_OF_A_KEY {
            let way = READ_WAYS[random.below(READ_WAYS.len() as u32) as usize];
            let form = match way {
                Path::Hot => Form::Classic,
                Path::Worker => [Form::Versioned, Form::Meta][random.below(2) as usize],
                _ => [Form::Classic, Form::Versioned][random.below(2) as usize],
            };
            // A cold key's `get` is the worker's, too.
            let way = if way == Path::Hot && key >= COLD { Path::Worker } else { way };
            paths.perform(way, &Ask::get(key, form));
        }
        std::thread::sleep(READER_PAUSE);
    }
    paths.into_counts()
}

/// Changes keys by one way until the run ends. `number` keeps its values apart from others'.
pub fn write_on(run: &Run, mut paths: Paths, seed: u64, number: u64, way: Path) -> Counts {
    let mut random = Random::new(seed);
    let mut count = 0;
    let mut flush_at = FLUSH_EVERY;
    while run.goes_on() {
        if run.flushes && number == 1 && run.begin.elapsed() >= flush_at {
            flush_at += FLUSH_EVERY;
            let ask = Ask { key: 0, input: Input::Flush, ..Ask::get(0, Form::Classic) };
            // Odd while one is under way.
            run.flushes_count.fetch_add(1, Ordering::SeqCst);
            paths.perform(way, &ask);
            run.flushes_count.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let key = run.key(&mut random, 4);
        count += 1;
        let value = number << 44 | count << 16;
        let Some(ask) = change(&mut random, &mut paths, key, value, way) else { continue };
        if way != Path::Rest || rest::has_form(ask.input) {
            paths.perform(way, &ask);
        }
    }
    paths.into_counts()
}

/// The next change of a key; `None` when it turned out that there is nothing to compare with.
fn change(random: &mut Random, paths: &mut Paths, key: u64, value: u64, way: Path) -> Option<Ask> {
    let delta = u64::from(random.below(50)) + 1;
    let counter = is_counter(key);
    let input = match random.below(100) {
        0..40 => Input::Set { value },
        40..48 => Input::Add { value },
        48..53 => Input::Replace { value },
        53..65 => {
            let read = Ask::get(key, Form::Versioned);
            let Some(Output::Value { version: Some(version), .. }) = paths.perform(way, &read)
            else {
                return None;
            };
            Input::Cas { value, version }
        }
        65..73 if counter => Input::Incr { delta },
        73..79 if counter => Input::Decr { delta },
        65..73 => Input::Append { piece: value },
        73..79 => Input::Prepend { piece: value },
        79..88 => Input::Touch,
        _ => Input::Delete,
    };
    let form = if random.below(4) == 0 { Form::Meta } else { Form::Classic };
    let bytes = match random.below(8) {
        0 => random.below(VALUE_BYTES_MAX),
        1 if key >= COLD && way != Path::Worker => random.below(LARGE_BYTES_MAX),
        1..4 => random.below(200),
        _ => 0,
    };
    let seconds = if random.below(4) == 0 { FAR_SECONDS } else { 0 };
    Some(Ask { key, input, form, bytes: bytes as usize, seconds })
}

/// Reads every key of the run by every way, when nobody writes any more.
pub fn read_all(run: &Run, paths: &mut Paths) {
    let hot = 0..run.hot_keys();
    for key in hot.chain(COLD..COLD + COLD_KEYS) {
        for way in Path::ALL {
            let form = if way == Path::Hot { Form::Classic } else { Form::Versioned };
            paths.perform(way, &Ask::get(key, form));
        }
    }
}
