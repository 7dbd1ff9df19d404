//! The same random requests to the cache and to memcached over loopback, as datagrams and as streams:
//! the same answers, but for what the rules allow and `src/memcached/README.md` explains.

#[path = "support/differential/mod.rs"]
mod differential;

use std::collections::BTreeMap;
use std::time::Duration;

use differential::Random;
use differential::commands::Command;
use differential::ours::Ours;
use differential::rules::{Rule, Used, differ};
use differential::server::Memcached;

const SKIPPED: &str = "skipped: memcached is not installed (apt-get install memcached)";

/// Requests of a run; `NAUTILUS_DIFFERENTIAL_ITERATIONS=1000000` for the long form.
fn iterations(usual: u64) -> u64 {
    std::env::var("NAUTILUS_DIFFERENTIAL_ITERATIONS")
        .map_or(usual, |text| text.parse().expect("a number"))
}

fn seed() -> u64 {
    std::env::var("NAUTILUS_DIFFERENTIAL_SEED")
        .map_or(0x1234_5678_9abc_def1, |text| text.parse::<u64>().expect("a number") | 1)
}

/// The version of a key's value that an answer to `mg <key> c u` tells.
fn version_in(answer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(answer).ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix('c')?.parse().ok())
}

/// Both sides, and what was seen of them.
struct Both {
    memcached: Memcached,
    ours: Ours,
    used: Used,
    answers: BTreeMap<&'static str, u64>,
}

impl Both {
    fn start() -> Option<Self> {
        let memcached = Memcached::start()?;
        let mut both =
            Self { memcached, ours: Ours::new(), used: Used::new(), answers: BTreeMap::new() };
        // So that there are versions below the first that matters.
        for _ in 0..10 {
            let text = b"set first 0 0 0\r\n\r\n";
            assert_eq!(both.ours.ask(text), both.memcached.ask(text));
        }
        Some(both)
    }

    /// The text of some commands for either side.
    fn texts(&mut self, commands: &[Command]) -> [Vec<u8>; 2] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for command in commands {
            let ask = |key: &str| format!("mg {key} c u\r\n").into_bytes();
            ours.extend(command.text(|key| version_in(&self.ours.ask(&ask(key)))));
            theirs.extend(command.text(|key| version_in(&self.memcached.ask(&ask(key)))));
        }
        [ours, theirs]
    }

    fn compare(&mut self, number: u64, text: &[u8], ours: &[u8], theirs: &[u8], all: bool) {
        if let Some(difference) = differ(text, ours, theirs, all, &mut self.used) {
            let shown = |text: &[u8]| text[..text.len().min(1000)].escape_ascii().to_string();
            panic!(
                "request {number}: {}\n{difference}\nours:   {}\ntheirs: {}",
                shown(text),
                shown(ours),
                shown(theirs)
            );
        }
        for line in theirs.split(|&byte| byte == b'\n') {
            let word = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
            if let Some(known) = ANSWERS.iter().find(|known| known.as_bytes() == word) {
                *self.answers.entry(known).or_default() += 1;
            }
        }
    }

    /// That the run has seen every answer there is, and needed these rules.
    fn judge(&self, words: &[&str], rules: &[Rule]) {
        for &word in words {
            let count = self.answers.get(word).copied().unwrap_or(0);
            assert!(count > 10, "{word}: {count} of {:?}", self.answers);
        }
        for rule in rules {
            assert!(self.used.get(rule).is_some_and(|&count| count > 0), "{rule:?} is not needed");
        }
    }
}

const ANSWERS: [&str; 21] = [
    "VALUE",
    "END",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "OK",
    "ERROR",
    "CLIENT_ERROR",
    "VERSION",
    "HD",
    "VA",
    "EN",
    "NS",
    "EX",
    "NF",
    "MN",
    "ME",
    "SERVER_ERROR",
];

#[test]
fn memcached_gives_the_same_answers_to_datagrams() {
    let Some(mut both) = Both::start() else { return eprintln!("{SKIPPED}") };
    let mut random = Random(seed());
    for number in 0..iterations(6_000) {
        let count = 1 + random.below(3);
        let commands = random.commands(count);
        let [text, their_text] = both.texts(&commands);
        if text.len().max(their_text.len()) > 1392 {
            continue;
        }
        let theirs = both.memcached.ask(&their_text);
        let ours = both.ours.ask(&text);
        both.compare(number, &text, &ours, &theirs, true);
    }
    // Whether the two clocks are out of step is chance.
    let needed: Vec<_> = Rule::ALL.into_iter().filter(|rule| *rule != Rule::Clock).collect();
    both.judge(&ANSWERS[..20], &needed);
}

#[test]
fn memcached_gives_the_same_answers_to_streams() {
    let Some(mut both) = Both::start() else { return eprintln!("{SKIPPED}") };
    let mut random = Random(seed() ^ 0xf0f0_f0f0);
    for number in 0..iterations(1_500) {
        let count = 1 + random.below(12);
        let mut commands = random.commands(count);
        if random.one_in(8) {
            // Large values, up to more than can be stored; not the last few bytes before 1 MiB, where
            // memcached counts its item's header (`exact-limit`).
            let bytes = match random.below(4) {
                0 => 1_048_577 + random.below(10) as usize,
                _ => 1 + random.below(200_000) as usize,
            };
            let head = match random.below(4) {
                0 => format!("ms key1 {bytes} T100000 k\r\n"),
                1 => format!("append key1 0 0 {bytes}\r\n"),
                _ => format!("set key1 1 0 {bytes}\r\n"),
            };
            let at = random.below(commands.len() as u64) as usize;
            let text = [head.as_bytes(), &vec![b'L'; bytes], b"\r\n"].concat();
            commands.insert(at, Command(vec![differential::commands::Piece::Text(text)]));
            // Not longer and longer, up to where the two limits differ.
            commands.push(Command(vec![differential::commands::Piece::Text(
                b"get key1\r\nset key1 0 0 1\r\n1\r\n".to_vec(),
            )]));
        }
        let [mut text, mut their_text] = both.texts(&commands);
        // Half a command at the end, or the end and what is not looked at any more.
        let ends = !random.one_in(12);
        if ends {
            let tail: &[u8] = b"quit\r\nset key1 0 0 1\r\nx\r\n";
            text.extend(tail);
            their_text.extend(tail);
        } else {
            let [mut half, _] = both.texts(&[random.command()]);
            half.truncate(random.below(half.len() as u64) as usize);
            let tail = [&b"mn\r\n"[..], &half].concat();
            text.extend(&tail);
            their_text.extend(&tail);
        }
        let ours = both.ours.ask_stream(&text);
        let fences = ours.split(|&byte| byte == b'\n').filter(|line| *line == b"MN\r").count();
        let theirs = both.memcached.ask_stream(&their_text, (!ends).then_some(fences));
        // What it has answered to the half it keeps until the data that is missing has come.
        both.compare(number, &text, &ours, &theirs, ends);
    }
    both.judge(&ANSWERS, &[Rule::Versions, Rule::BinaryKey]);
}

#[test]
fn a_delayed_flush_comes_at_its_time_on_both() {
    let Some(mut both) = Both::start() else { return eprintln!("{SKIPPED}") };
    let text = b"set k 0 0 1\r\nx\r\nset t 0 3 1\r\nx\r\nflush_all 3\r\nget k t\r\n";
    let before = b"STORED\r\nSTORED\r\nOK\r\nVALUE k 0 1\r\nx\r\nVALUE t 0 1\r\nx\r\nEND\r\n";
    assert_eq!(both.memcached.ask(text), before);
    assert_eq!(both.ours.ask(text), before);
    std::thread::sleep(Duration::from_millis(4_200));
    for text in [&b"get k\r\n"[..], b"get t\r\n"] {
        assert_eq!(both.memcached.ask(text), b"END\r\n");
        assert_eq!(both.ours.ask(text), b"END\r\n");
    }
}

#[test]
fn every_rule_stands_in_the_table() {
    let readme = include_str!("../src/memcached/README.md");
    for rule in Rule::ALL {
        let name = format!("`{}`", rule.name());
        assert_eq!(readme.matches(&name).count(), 1, "{name} in src/memcached/README.md");
    }
}
