//! Is there an order? The search of Wing and Gong ("Testing and verifying concurrent objects", 1993)
//! with Lowe's memory of what was tried ("Testing for linearizability", 2017), for one key.
//!
//! ```text
//!   calls and returns by time:   c0 c1 r0 c2 r1 r2
//!   candidates = calls before the first return. Take one that the state allows: its call and return
//!   leave the list. None left to try: put the last one back and go on behind it.
//! ```
//!
//! Three things keep it short. An operation that never changes anything goes in as soon as it fits,
//! and is never taken back: in any order that has it later it may as well stand here. An operation
//! without an answer has no return, need not go in, and is tried when nothing else fits. And what was
//! tried is remembered as 128 bits mixed from (operations in, state), so memory is bounded by
//! [`CONFIGURATIONS_MAX`] times about 20 bytes, whatever the history's length; that two
//! configurations of a search of 2^23 share those bits has a chance below 2^-80.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

/// Configurations a search may remember before it gives up. Too low: histories with many unanswered
/// operations stay undecided. Too high: memory, about 40 bytes each at worst.
pub const CONFIGURATIONS_MAX: usize = 1 << 23;

/// Operations at the end of the longest order that a [`Window`] keeps.
const ORDER_KEPT: usize = 8;

/// What one object does, as a state machine.
pub trait Model {
    /// What the object holds.
    type State: Clone + Eq + Hash + std::fmt::Debug;
    /// An operation with its answer, or without one.
    type Operation;

    /// What it holds at first.
    fn initial(&self) -> Self::State;

    /// What it holds after the operation; `None` if it would not have answered this. An operation
    /// without an answer has its effect here, or `None` if it has none.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether the operation, with the answer it got, changes nothing in any state that allows it.
    fn observes(&self, operation: &Self::Operation) -> bool;
}

/// An operation between two readings of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Timed<O> {
    /// What was asked and answered.
    pub operation: O,
    /// Before it was asked.
    pub invoke_ns: u64,
    /// After it was answered; `None` without an answer. Equal to another's `invoke_ns`: no order is
    /// taken from it.
    pub return_ns: Option<u64>,
}

/// Whether an order exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Linearizable,
    /// It does not.
    Violation(Window),
    /// Not decided within the limit on configurations.
    Undecided,
}

/// Where no order exists. Numbers are indices of the operations searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The end of an order that came furthest.
    pub order: Vec<usize>,
    /// What the object holds after it, as debug text.
    pub state: String,
    /// The operation whose answer no order explains: all that had returned before it did can be
    /// ordered, with it they cannot.
    pub blocked: Option<usize>,
    /// What was under way then and not in the order, `blocked` included.
    pub candidates: Vec<usize>,
}

/// A hasher for keys that are hashes.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Two independent 64-bit hashes.
fn fingerprint(item: &(impl Hash + ?Sized)) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(salt);
        item.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0x6e61_7574) << 64 | half(0x696c_7573)
}

/// A doubly linked list of the numbers below `len`, in any order, with a sentinel.
struct List {
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl List {
    fn new(order: &[u32]) -> Self {
        let sentinel = order.len() as u32;
        let mut list = Self { next: vec![0; order.len() + 1], previous: vec![0; order.len() + 1] };
        let mut at = sentinel;
        for &entry in order.iter().chain([&sentinel]) {
            list.next[at as usize] = entry;
            list.previous[entry as usize] = at;
            at = entry;
        }
        list
    }

    fn sentinel(&self) -> u32 {
        self.next.len() as u32 - 1
    }

    fn first(&self) -> u32 {
        self.next[self.sentinel() as usize]
    }

    fn after(&self, entry: u32) -> u32 {
        self.next[entry as usize]
    }

    fn take(&mut self, entry: u32) {
        let (next, previous) = (self.next[entry as usize], self.previous[entry as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    /// Undoes the last [`Self::take`] that was not undone.
    fn put_back(&mut self, entry: u32) {
        let (next, previous) = (self.next[entry as usize], self.previous[entry as usize]);
        self.next[previous as usize] = entry;
        self.previous[next as usize] = entry;
    }
}

/// What is tried next.
#[derive(Clone, Copy)]
enum Cursor {
    /// This entry of the list of calls (even) and returns (odd).
    Answered(u32),
    /// This entry of the list of unanswered operations, until they are younger than the return.
    Unanswered { entry: u32, before: u32 },
}

/// One operation of the order.
struct Frame<S> {
    cursor: Cursor,
    state: S,
    /// Went in because it changes nothing: there is no need to try without it.
    forced: bool,
}

/// Looks for an order of `operations`.
pub fn search<M: Model>(
    model: &M,
    operations: &[Timed<M::Operation>],
    configurations_max: usize,
) -> Verdict {
    let (mut answered, mut unanswered) = (Vec::new(), Vec::new());
    for (index, operation) in operations.iter().enumerate() {
        if operation.return_ns.is_some() { answered.push(index) } else { unanswered.push(index) }
    }
    unanswered.sort_by_key(|&index| operations[index].invoke_ns);
    let time = |entry: u32| {
        let operation = &operations[answered[entry as usize / 2]];
        let invoke = (operation.invoke_ns, false);
        if entry.is_multiple_of(2) {
            invoke
        } else {
            (operation.return_ns.unwrap_or(u64::MAX), true)
        }
    };
    let mut events: Vec<u32> = (0..2 * answered.len() as u32).collect();
    events.sort_by_key(|&entry| (time(entry), entry));
    let mut calls = List::new(&events);
    let mut late = List::new(&(0..unanswered.len() as u32).collect::<Vec<_>>());

    let operation_at = |cursor: Cursor| match cursor {
        Cursor::Answered(entry) => answered[entry as usize / 2],
        Cursor::Unanswered { entry, .. } => unanswered[entry as usize],
    };
    let mut state = model.initial();
    let mut seen: HashSet<u128, BuildHasherDefault<Hashed>> = HashSet::default();
    let mut inside = 0_u128;
    let mut order: Vec<Frame<M::State>> = Vec::new();
    let (mut furthest, mut window) = (None, Window::default());
    let mut cursor = Cursor::Answered(calls.first());
    loop {
        let end = match cursor {
            Cursor::Answered(entry) if entry == calls.sentinel() => return Verdict::Linearizable,
            Cursor::Answered(entry) => !entry.is_multiple_of(2),
            Cursor::Unanswered { entry, before } => {
                entry == late.sentinel()
                    || (operations[unanswered[entry as usize]].invoke_ns, false) > time(before)
            }
        };
        match (end, cursor) {
            (false, _) => {
                let index = operation_at(cursor);
                let operation = &operations[index];
                let next = model.step(&state, &operation.operation);
                let useless = operation.return_ns.is_none() && next.as_ref() == Some(&state);
                let Some(next) = next.filter(|_| !useless) else {
                    cursor = following(cursor, &calls, &late);
                    continue;
                };
                let forced = next == state && model.observes(&operation.operation);
                let with = inside ^ fingerprint(&index);
                if !forced && !seen.insert(with ^ fingerprint(&next)) {
                    cursor = following(cursor, &calls, &late);
                    continue;
                }
                if seen.len() > configurations_max {
                    return Verdict::Undecided;
                }
                inside = with;
                match cursor {
                    Cursor::Answered(entry) => {
                        calls.take(entry);
                        calls.take(entry + 1);
                    }
                    Cursor::Unanswered { entry, .. } => late.take(entry),
                }
                order.push(Frame { cursor, state: std::mem::replace(&mut state, next), forced });
                cursor = Cursor::Answered(calls.first());
            }
            (true, Cursor::Answered(entry)) => {
                if furthest.is_none_or(|furthest| time(entry) > furthest) {
                    furthest = Some(time(entry));
                    let mut candidates = Vec::new();
                    let mut call = calls.first();
                    while call != entry {
                        candidates.push(operation_at(Cursor::Answered(call)));
                        call = calls.after(call);
                    }
                    let tail = &order[order.len().saturating_sub(ORDER_KEPT)..];
                    window = Window {
                        order: tail.iter().map(|frame| operation_at(frame.cursor)).collect(),
                        state: format!("{state:?}"),
                        blocked: Some(operation_at(cursor)),
                        candidates,
                    };
                }
                cursor = Cursor::Unanswered { entry: late.first(), before: entry };
            }
            (true, Cursor::Unanswered { .. }) => loop {
                let Some(frame) = order.pop() else { return Verdict::Violation(window) };
                inside ^= fingerprint(&operation_at(frame.cursor));
                match frame.cursor {
                    Cursor::Answered(entry) => {
                        calls.put_back(entry + 1);
                        calls.put_back(entry);
                    }
                    Cursor::Unanswered { entry, .. } => late.put_back(entry),
                }
                state = frame.state;
                if !frame.forced {
                    cursor = following(frame.cursor, &calls, &late);
                    break;
                }
            },
        }
    }
}

fn following(cursor: Cursor, calls: &List, late: &List) -> Cursor {
    match cursor {
        Cursor::Answered(entry) => Cursor::Answered(calls.after(entry)),
        Cursor::Unanswered { entry, before } => {
            Cursor::Unanswered { entry: late.after(entry), before }
        }
    }
}
