//! Values whose time runs out during the run. They are no part of the history, whose model knows no
//! time; what is looked for is that no way shows a value after another has ceased to, and that each
//! ceases to when the clock says so, not before and not after.
//!
//! ```text
//!   set, 1 s ---- made hot ---- reads by every way around the deadline:  hit hit hit | miss miss miss
//! ```

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nautilus_dataplane::replay::random::Random;
use nautilus_shm::clock::monotonic_ns;

use super::ask::{Answer, Ask, FAR_SECONDS, Form};
use super::clients::{COLD_KEYS, Run};
use super::paths::{Path, Ways};
use super::text::COLD;
use crate::history::{Input, Output};

/// Keys that are watched at once.
const KEYS: usize = 6;

/// Time from the write to the deadline; the shortest that memcached's protocol can say.
const SECONDS: u32 = 1;

/// Reads of a key before its deadline, for it to be hot.
const WARMING_READS: u32 = 12;

/// How long before the first deadline and after the last one reads go on.
const AROUND: Duration = Duration::from_millis(4);

/// Failures that are described.
const WRONG_MAX: usize = 3;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    /// Keys whose time ran out.
    pub keys: u64,
    /// Reads around the deadlines that found a value, and that did not.
    pub reads: [u64; 2],
    /// What should not have been seen.
    pub wrong: Vec<String>,
}

impl Display for Deadlines {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (keys, [hits, misses], wrong) = (self.keys, self.reads, self.wrong.len());
        write!(
            f,
            "deadlines: {keys} keys, {hits} hits before and {misses} misses after, {wrong} wrong"
        )
    }
}

/// A value with a deadline, and what was seen of it.
struct Watched {
    key: u64,
    /// When the change that set the deadline was asked and answered.
    written_ns: [u64; 2],
    missed: Option<Path>,
}

impl Watched {
    /// The deadline is not before this and not behind that.
    fn deadline_ns(&self) -> [u64; 2] {
        self.written_ns.map(|at_ns| at_ns + u64::from(SECONDS) * 1_000_000_000)
    }

    /// Why a read by `path` that was asked and answered at these times cannot have seen this.
    fn judge(
        &mut self,
        path: Path,
        is_hit: bool,
        [invoke_ns, return_ns]: [u64; 2],
    ) -> Option<String> {
        let [earliest_ns, latest_ns] = self.deadline_ns();
        match (is_hit, self.missed) {
            (true, Some(other)) => {
                Some(format!("a hit by {} after a miss by {}", path.name(), other.name()))
            }
            (true, None) if invoke_ns > latest_ns => {
                Some(format!("a hit by {}, {} ns late", path.name(), invoke_ns - latest_ns))
            }
            (false, _) => {
                self.missed = Some(path);
                let early_ns = earliest_ns.checked_sub(return_ns).filter(|ns| *ns > 0)?;
                Some(format!("a miss by {}, {early_ns} ns early", path.name()))
            }
            _ => None,
        }
    }
}

/// Watches deadlines until the run ends.
pub fn look_on(run: &Run, ways: &mut Ways, seed: u64) -> Deadlines {
    let mut random = Random::new(seed ^ 0xdead);
    let mut seen = Deadlines::default();
    let mut next_key = COLD + 2 * COLD_KEYS;
    while run.goes_on() {
        let flushes = run.flushes_count.load(Ordering::SeqCst);
        let keys = next_key..next_key + KEYS as u64;
        next_key = keys.end;
        let mut watched: Vec<Watched> =
            keys.filter_map(|key| write(ways, &mut random, key)).collect();
        let mut found = Vec::new();
        look(ways, &mut random, &mut watched, &mut seen, &mut found);
        seen.keys += watched.len() as u64;
        // A flush takes them away earlier.
        let undisturbed =
            flushes.is_multiple_of(2) && run.flushes_count.load(Ordering::SeqCst) == flushes;
        found.retain(|text| undisturbed || !text.ends_with("early"));
        seen.wrong.extend(found);
        seen.wrong.truncate(WRONG_MAX);
    }
    seen
}

/// Writes a value that ends in a second, and has it asked for; `None` if that is not known to have
/// happened.
fn write(ways: &mut Ways, random: &mut Random, key: u64) -> Option<Watched> {
    let way = [Path::Worker, Path::Front][random.below(2) as usize];
    let touched = random.below(2) == 0;
    let seconds = if touched { 0 } else { SECONDS };
    let set = Ask { input: Input::Set { value: key }, seconds, ..Ask::get(key, Form::Classic) };
    let mut written_ns = change(ways, way, &set, Output::Stored { version: None })?;
    let warm = |ways: &mut Ways| {
        let get = Ask::get(key, Form::Classic);
        for _ in 0..WARMING_READS {
            ways.ask(Path::Hot, &get, &get.request());
        }
    };
    if touched {
        warm(ways);
        let seconds = if random.below(2) == 0 { SECONDS } else { FAR_SECONDS };
        let touch = Ask { input: Input::Touch, seconds, ..Ask::get(key, Form::Classic) };
        written_ns = change(ways, way, &touch, Output::Touched)?;
        if seconds == FAR_SECONDS {
            let again = Ask { seconds: SECONDS, ..touch };
            written_ns = change(ways, way, &again, Output::Touched)?;
        }
    }
    warm(ways);
    Some(Watched { key, written_ns, missed: None })
}

fn change(ways: &mut Ways, way: Path, ask: &Ask, wanted: Output) -> Option<[u64; 2]> {
    if !ways.is_open(way) {
        return None;
    }
    let request = ask.request();
    let invoke_ns = monotonic_ns();
    let answer = ways.ask(way, ask, &request);
    (answer == Answer::Known(wanted)).then(|| [invoke_ns, monotonic_ns()])
}

/// Reads the keys by all ways around their deadlines.
fn look(
    ways: &mut Ways,
    random: &mut Random,
    watched: &mut [Watched],
    seen: &mut Deadlines,
    found: &mut Vec<String>,
) {
    let around_ns = AROUND.as_nanos() as u64;
    let first = watched.iter().map(|one| one.deadline_ns()[0]).min();
    let last = watched.iter().map(|one| one.deadline_ns()[1]).max();
    let (Some(first_ns), Some(last_ns)) = (first, last) else {
        return std::thread::sleep(AROUND);
    };
    let wait_ns = first_ns.saturating_sub(around_ns).saturating_sub(monotonic_ns());
    std::thread::sleep(Duration::from_nanos(wait_ns));
    while monotonic_ns() < last_ns + around_ns {
        let one = &mut watched[random.below(KEYS.min(watched.len()) as u32) as usize];
        let path = Path::ALL[random.below(Path::ALL.len() as u32) as usize];
        let form = if path == Path::Hot { Form::Classic } else { Form::Versioned };
        let get = Ask::get(one.key, form);
        let request = get.request();
        if !ways.is_open(path) {
            continue;
        }
        let invoke_ns = monotonic_ns();
        let answer = ways.ask(path, &get, &request);
        let times = [invoke_ns, monotonic_ns()];
        let is_hit = match answer {
            Answer::Known(output) => output != Output::Miss,
            Answer::Unknown => continue,
            Answer::Wrong(text) => {
                found.push(text);
                continue;
            }
        };
        seen.reads[usize::from(!is_hit)] += 1;
        found.extend(one.judge(path, is_hit, times));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_too_early_too_late_or_twice_is_seen() {
        let s = 1_000_000_000;
        let watched = || Watched { key: 1, written_ns: [10, 20], missed: None };
        let judged = |reads: &[(bool, [u64; 2])]| {
            let mut one = watched();
            let all = reads.iter().map(|&(is_hit, times)| one.judge(Path::Hot, is_hit, times));
            all.map(|found| found.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(judged(&[(true, [s, s + 5]), (false, [s + 5, s + 10])]), [false, false]);
        assert_eq!(judged(&[(true, [s + 20, s + 90]), (true, [s + 21, s + 90])]), [false, true]);
        assert_eq!(judged(&[(false, [s, s + 9])]), [true]);
        assert_eq!(judged(&[(false, [s, s + 15]), (true, [s + 16, s + 17])]), [false, true]);
    }
}
