//! Histories whose verdict is known because of how they were made: a sequence that a store really
//! went through, its operations stretched until they overlap; then one answer changed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::operation::{appended, prepended};
use super::*;

/// Xorshift: a seed names a history.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

/// A store that does one thing after the other: what the model is compared with.
#[derive(Default)]
struct Plain {
    /// Id, pieces, version.
    values: HashMap<u64, (u64, u32, u64)>,
    version: u64,
}

impl Plain {
    fn store(&mut self, key: u64, (id, pieces): (u64, u32), tell: bool) -> Output {
        self.version += 1;
        self.values.insert(key, (id, pieces, self.version));
        Output::Stored { version: tell.then_some(self.version) }
    }

    fn run(&mut self, key: u64, input: Input, tell: bool) -> Output {
        let old = self.values.get(&key).copied();
        match (input, old) {
            (Input::Get, None) => Output::Miss,
            (Input::Get, Some((value, _, version))) => {
                Output::Value { value, version: tell.then_some(version) }
            }
            (Input::Set { value }, _)
            | (Input::Add { value }, None)
            | (Input::Replace { value }, Some(_)) => self.store(key, (value, 1), tell),
            (Input::Append { piece }, Some((id, pieces, _))) => {
                self.store(key, (appended(id, piece), pieces + 1), tell)
            }
            (Input::Prepend { piece }, Some((id, pieces, _))) => {
                self.store(key, (prepended(id, pieces, piece), pieces + 1), tell)
            }
            (Input::Cas { value, version }, Some((_, _, current))) => {
                if version == current {
                    self.store(key, (value, 1), tell)
                } else {
                    Output::Exists
                }
            }
            (Input::Incr { delta }, Some((id, ..))) => {
                let value = id.wrapping_add(delta);
                self.store(key, (value, 1), false);
                Output::Number { value }
            }
            (Input::Decr { delta }, Some((id, ..))) => {
                let value = id.saturating_sub(delta);
                self.store(key, (value, 1), false);
                Output::Number { value }
            }
            (Input::Touch, Some(_)) => Output::Touched,
            (Input::Delete, Some(_)) => {
                self.values.remove(&key);
                Output::Deleted
            }
            (Input::Flush, _) => {
                self.values.clear();
                Output::Flushed
            }
            (Input::Add { .. }, Some(_))
            | (Input::Replace { .. } | Input::Append { .. } | Input::Prepend { .. }, None) => {
                Output::NotStored
            }
            _ => Output::NotFound,
        }
    }
}

/// How a history is made.
#[derive(Clone, Copy)]
struct Shape {
    operations: u64,
    keys: u64,
    clients: u32,
    /// Only gets and sets, every set another value.
    register: bool,
    /// One in so many has no answer; 0 = none.
    unanswered_one_in: u64,
    /// Nanoseconds an operation reaches to either side of its moment, at most.
    reach_ns: u64,
}

const SMALL: Shape = Shape {
    operations: 400,
    keys: 3,
    clients: 6,
    register: false,
    unanswered_one_in: 0,
    reach_ns: 4_000,
};

fn input(random: &mut Random, shape: &Shape, versions: &HashMap<u64, u64>, key: u64) -> Input {
    let value = random.next();
    let dice = random.below(if shape.register { 60 } else { 101 });
    match dice {
        0..40 => Input::Get,
        40..60 => Input::Set { value },
        60..65 => Input::Add { value },
        65..70 => Input::Replace { value },
        70..74 => Input::Append { piece: value },
        74..78 => Input::Prepend { piece: value },
        78..84 => {
            let version = versions.get(&key).copied().unwrap_or(1);
            Input::Cas { value, version }
        }
        84..88 => Input::Incr { delta: value },
        88..91 => Input::Decr { delta: value },
        91..95 => Input::Touch,
        95..100 => Input::Delete,
        _ => Input::Flush,
    }
}

/// A history that has an order: operation `n` happens at its moment, `1000 (n + 1)` ns.
fn history(seed: u64, shape: &Shape) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let clients: Vec<u32> =
        (0..shape.operations).map(|_| random.below(shape.clients.into()) as u32).collect();
    let moment = |number: usize| 1_000 * (number as u64 + 1);
    let mut next_moment = vec![u64::MAX; clients.len()];
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (number, client) in clients.iter().enumerate() {
        if let Some(before) = last.insert(*client, number) {
            next_moment[before] = moment(number);
        }
    }
    let mut free_at: HashMap<u32, u64> = HashMap::new();
    let (mut plain, mut versions) = (Plain::default(), HashMap::new());
    let mut operations = Vec::new();
    for (number, &client) in clients.iter().enumerate() {
        let key = random.below(shape.keys);
        let input = input(&mut random, shape, &versions, key);
        let (reach_back, reach_on) = (random.below(shape.reach_ns), random.below(shape.reach_ns));
        let earliest_ns = free_at.get(&client).copied().unwrap_or(0);
        let invoke_ns = moment(number).saturating_sub(reach_back).max(earliest_ns);
        let at_ns = (moment(number) + reach_on).min(next_moment[number] - 1);
        free_at.insert(client, at_ns);
        let silent = shape.unanswered_one_in != 0 && random.below(shape.unanswered_one_in) == 0;
        let happens = !silent || random.below(2) == 0;
        let tell = !shape.register && random.below(3) == 0;
        let output = happens.then(|| plain.run(key, input, tell));
        if let Some(Output::Value { version: Some(version), .. }) = output {
            versions.insert(key, version);
        }
        let returned = output.filter(|_| !silent).map(|output| Returned { output, at_ns });
        operations.push(Operation { client, path: 0, key, input, invoke_ns, returned });
    }
    operations
}

/// Lets one read return a value that had been overwritten before the read began: no order explains
/// that. `None` if no read of the history allows it.
fn with_stale_read(operations: &[Operation], random: &mut Random) -> Option<Vec<Operation>> {
    let sets = || {
        operations.iter().filter_map(|operation| match (operation.input, operation.returned) {
            (Input::Set { value }, Some(returned)) => Some((operation, value, returned.at_ns)),
            _ => None,
        })
    };
    let start = random.below(operations.len() as u64) as usize;
    let rotated = (start..operations.len()).chain(0..start);
    for index in rotated {
        let read = operations[index];
        let Some(returned) = read.returned.filter(|_| read.input == Input::Get) else { continue };
        let newer = sets().find(|(set, _, at_ns)| set.key == read.key && *at_ns < read.invoke_ns);
        let Some((newer, ..)) = newer else { continue };
        let newest = sets()
            .filter(|(set, _, at_ns)| set.key == read.key && *at_ns < read.invoke_ns)
            .max_by_key(|(set, ..)| set.invoke_ns)
            .map_or(newer, |(set, ..)| set);
        let stale = sets().find(|(set, _, at_ns)| set.key == read.key && *at_ns < newest.invoke_ns);
        let Some((_, value, _)) = stale else { continue };
        let mut changed = operations.to_vec();
        let output = Output::Value { value, version: None };
        changed[index].returned = Some(Returned { output, ..returned });
        return Some(changed);
    }
    None
}

#[test]
fn overlapping_executions_are_accepted_and_a_stale_read_is_not() {
    let mut mutated = 0;
    for seed in 1..=200 {
        for (register, unanswered_one_in) in [(false, 0), (false, 25), (true, 0), (true, 25)] {
            let shape = Shape { register, unanswered_one_in, ..SMALL };
            let operations = history(seed, &shape);
            let checked = check(&operations);
            assert!(checked.is_linearizable(), "seed {seed}: {checked}");
            assert_eq!(checked.registers_count > 0, register, "seed {seed}");
            let Some(stale) = with_stale_read(&operations, &mut Random::new(seed)) else {
                continue;
            };
            let checked = check(&stale);
            assert_eq!(checked.violations.len(), 1, "seed {seed}: {checked}");
            mutated += 1;
        }
    }
    assert!(mutated > 700, "only {mutated} histories had a read to make stale");
}

/// The two ways agree, on histories damaged at random, which have an order or not.
#[test]
fn the_short_way_and_the_search_agree() {
    let mut verdicts = [0; 2];
    for seed in 1..=2_000 {
        let shape = Shape { operations: 24, keys: 1, register: true, reach_ns: 9_000, ..SMALL };
        let shape = Shape { unanswered_one_in: 6 * (seed % 2), ..shape };
        let mut operations = history(seed, &shape);
        let mut random = Random::new(seed);
        let (a, b) = (random.below(24) as usize, random.below(24) as usize);
        let is_read = |one: &Operation| one.input == Input::Get && one.returned.is_some();
        if is_read(&operations[a]) && is_read(&operations[b]) {
            let output = |one: &Operation| one.returned.map(|returned| returned.output);
            let outputs = (output(&operations[a]), output(&operations[b]));
            for (index, output) in [(a, outputs.1), (b, outputs.0)] {
                if let (Some(returned), Some(output)) = (&mut operations[index].returned, output) {
                    returned.output = output;
                }
            }
        }
        operations.retain(|one| one.returned.is_some() || one.input != Input::Get);
        let timed: Vec<Timed<Operation>> = operations
            .iter()
            .map(|operation| Timed {
                operation: *operation,
                invoke_ns: operation.invoke_ns,
                return_ns: operation.returned.map(|returned| returned.at_ns),
            })
            .collect();
        let long = search(&Store, &timed, CONFIGURATIONS_MAX) == Verdict::Linearizable;
        assert_eq!(super::register::decide(&timed), Some(long), "seed {seed}");
        verdicts[usize::from(long)] += 1;
    }
    assert!(verdicts.iter().all(|&count| count > 100), "{verdicts:?}");
}

#[test]
fn a_large_history_takes_seconds() {
    let shape = Shape {
        operations: 120_000,
        keys: 300,
        clients: 8,
        unanswered_one_in: 500,
        reach_ns: 20_000,
        ..SMALL
    };
    for register in [false, true] {
        let operations = history(7, &Shape { register, ..shape });
        let start = Instant::now();
        let checked = check(&operations);
        assert!(checked.is_linearizable(), "{checked}");
        let took = start.elapsed();
        println!("{} operations, register {register}: {took:?}", operations.len());
        let limit = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 });
        assert!(took < limit, "{took:?}");
        let stale = with_stale_read(&operations, &mut Random::new(3)).unwrap();
        assert_eq!(check(&stale).violations.len(), 1);
    }
}

#[test]
fn one_hot_key_is_decided_too() {
    let shape = Shape { operations: 40_000, keys: 1, clients: 8, reach_ns: 20_000, ..SMALL };
    let operations = history(11, &shape);
    assert!(check(&operations).is_linearizable());
    let stale = with_stale_read(&operations, &mut Random::new(5)).unwrap();
    assert_eq!(check(&stale).violations.len(), 1);
}

#[test]
fn a_violation_shows_the_read_and_what_was_under_way() {
    let operation = |client, input, invoke_ns, output, at_ns| {
        let returned = Some(Returned { output, at_ns });
        Operation { client, path: 1, key: 5, input, invoke_ns, returned }
    };
    let stored = Output::Stored { version: None };
    let read = |value| Output::Value { value, version: None };
    let history = [
        operation(0, Input::Set { value: 0xa }, 10, stored, 20),
        operation(0, Input::Set { value: 0xb }, 30, stored, 60),
        operation(1, Input::Get, 40, read(0xb), 50),
        operation(2, Input::Get, 55, read(0xa), 70),
        operation(3, Input::Get, 80, read(0xb), 90),
    ];
    let checked = check(&history);
    assert_eq!(checked.violations.len(), 1);
    let window = &checked.violations[0].window;
    assert_eq!((window.blocked, &window.candidates[..]), (Some(3), &[3][..]));
    assert_eq!(window.order, [0, 1, 2]);
    let text = checked.to_string();
    assert!(text.contains("  >         45         60  client 2 path 1  Get -> 0xa"), "{text}");
    // Without the read of the new value before it, the old one may be read.
    let without: Vec<Operation> = history.iter().filter(|one| one.client != 1).copied().collect();
    assert!(check(&without).is_linearizable());
    let mut unanswered = history.to_vec();
    unanswered[2].returned = None;
    assert!(check(&unanswered).is_linearizable());
}

#[test]
fn a_write_without_an_answer_may_come_late_or_never_but_once() {
    let operation = |client, input, invoke_ns, returned: Option<(Output, u64)>| {
        let returned = returned.map(|(output, at_ns)| Returned { output, at_ns });
        Operation { client, path: 0, key: 1, input, invoke_ns, returned }
    };
    let lost = operation(0, Input::Incr { delta: 1 }, 20, None);
    let set =
        operation(1, Input::Set { value: 5 }, 1, Some((Output::Stored { version: None }, 10)));
    let read = |value, at_ns| {
        let output = Output::Value { value, version: None };
        operation(2, Input::Get, at_ns, Some((output, at_ns + 1)))
    };
    let accepted = |reads: &[Operation]| {
        let history: Vec<Operation> = [set, lost].iter().chain(reads).copied().collect();
        check(&history).is_linearizable()
    };
    assert!(accepted(&[read(5, 100), read(5, 200)]));
    assert!(accepted(&[read(5, 100), read(6, 200)]));
    assert!(!accepted(&[read(6, 100), read(5, 200)]));
    assert!(!accepted(&[read(6, 100), read(7, 200)]));
    // Nor before it was asked.
    assert!(!accepted(&[read(6, 12)]));
}
