//! The model of one key: what a single memcached may answer, and what it holds then.
//!
//! Versions are the store's to choose. The model knows only that every write gives a new one, higher
//! than all the key had before, and learns the rest from answers: after an unanswered question it
//! knows a bound, after an answered one the number.
//!
//! Not modelled: expiry and eviction. A history is recorded without deadlines that fall into it and
//! with room for all its keys; then a miss after an acknowledged write is a violation.

use super::operation::{Input, Operation, Output, appended, prepended};
use super::search::Model;

/// memcached's commands on one key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store;

/// What is known of the key's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Version {
    /// This one.
    Exactly(u64),
    /// This or a higher one.
    AtLeast(u64),
    /// A higher one.
    Above(u64),
}

/// What one key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Id and number of pieces.
    value: Option<(u64, u32)>,
    version: Version,
}

impl Version {
    /// What is known after an answer said `version`; `None` if it cannot be that.
    fn learn(self, version: Option<u64>) -> Option<Self> {
        let Some(version) = version else { return Some(self) };
        let possible = match self {
            Self::Exactly(known) => version == known,
            Self::AtLeast(bound) => version >= bound,
            Self::Above(bound) => version > bound,
        };
        possible.then_some(Self::Exactly(version))
    }

    /// Whether the version may be another one than `version`.
    fn may_differ(self, version: u64) -> bool {
        self != Self::Exactly(version)
    }

    fn bound(self) -> u64 {
        match self {
            Self::Exactly(bound) | Self::AtLeast(bound) | Self::Above(bound) => bound,
        }
    }

    fn changed(self) -> Self {
        Self::Above(self.bound())
    }

    /// After a touch, which may or may not give a new version.
    fn touched(self) -> Self {
        match self {
            Self::Exactly(bound) => Self::AtLeast(bound),
            other => other,
        }
    }
}

impl State {
    fn write(self, value: (u64, u32), version: Option<u64>) -> Option<Self> {
        let version = self.version.changed().learn(version)?;
        Some(Self { value: Some(value), version })
    }

    fn gone(self) -> Self {
        Self { value: None, version: self.version.changed() }
    }

    /// The operation has been answered with `output`.
    fn answered(self, input: Input, output: Output) -> Option<Self> {
        use Output::{
            Deleted, Exists, Flushed, Miss, NotFound, NotStored, Number, Refused, Stored, Touched,
        };
        let when = |holds: bool| holds.then_some(self);
        let absent = when(self.value.is_none());
        match (input, output) {
            (_, Refused) => Some(self),
            (Input::Get, Output::Value { value, version }) => {
                let version = self.version.learn(version)?;
                (self.value?.0 == value).then_some(Self { version, ..self })
            }
            (Input::Get, Miss)
            | (Input::Replace { .. } | Input::Append { .. } | Input::Prepend { .. }, NotStored)
            | (
                Input::Cas { .. }
                | Input::Incr { .. }
                | Input::Decr { .. }
                | Input::Touch
                | Input::Delete,
                NotFound,
            ) => absent,
            (Input::Add { .. }, NotStored) => when(self.value.is_some()),
            (Input::Cas { version, .. }, Exists) => {
                when(self.value.is_some() && self.version.may_differ(version))
            }
            (
                Input::Set { .. }
                | Input::Add { .. }
                | Input::Replace { .. }
                | Input::Append { .. }
                | Input::Prepend { .. }
                | Input::Cas { .. },
                Stored { version },
            ) => self.changed_by(input, version),
            (Input::Incr { .. } | Input::Decr { .. }, Number { value }) => {
                self.changed_by(input, None).filter(|state| state.value == Some((value, 1)))
            }
            (Input::Touch, Touched) | (Input::Delete, Deleted) | (Input::Flush, Flushed) => {
                self.changed_by(input, None)
            }
            _ => None,
        }
    }

    /// The operation has had its effect and given the value `version`; `None` if it has none here.
    fn changed_by(self, input: Input, version: Option<u64>) -> Option<Self> {
        match input {
            Input::Get => None,
            Input::Set { value } => self.write((value, 1), version),
            Input::Add { value } => {
                self.value.is_none().then_some(self)?.write((value, 1), version)
            }
            Input::Replace { value } => self.value.and(self.write((value, 1), version)),
            Input::Append { piece } => {
                let (id, pieces) = self.value?;
                self.write((appended(id, piece), pieces + 1), version)
            }
            Input::Prepend { piece } => {
                let (id, pieces) = self.value?;
                self.write((prepended(id, pieces, piece), pieces + 1), version)
            }
            Input::Cas { value, version: expected } => {
                self.value?;
                let version_was = self.version.learn(Some(expected))?;
                Self { version: version_was, ..self }.write((value, 1), version)
            }
            Input::Incr { delta } => self.write((self.value?.0.wrapping_add(delta), 1), version),
            Input::Decr { delta } => self.write((self.value?.0.saturating_sub(delta), 1), version),
            Input::Touch => {
                self.value?;
                Some(Self { version: self.version.touched(), ..self })
            }
            Input::Delete => self.value.map(|_| self.gone()),
            Input::Flush => Some(self.gone()),
        }
    }
}

impl Model for Store {
    type State = State;
    type Operation = Operation;

    fn initial(&self) -> State {
        State { value: None, version: Version::AtLeast(0) }
    }

    fn step(&self, state: &State, operation: &Operation) -> Option<State> {
        match operation.returned {
            Some(returned) => state.answered(operation.input, returned.output),
            None => state.changed_by(operation.input, None),
        }
    }

    fn observes(&self, operation: &Operation) -> bool {
        use Output::{Exists, Miss, NotFound, NotStored, Refused, Value};
        let output = operation.returned.map(|returned| returned.output);
        matches!(output, Some(Value { .. } | Miss | NotStored | Exists | NotFound | Refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::operation::{Returned, value_id};

    /// The state after these, or the number of the first that is impossible.
    fn run(steps: &[(Input, Output)]) -> Result<State, usize> {
        let mut state = Store.initial();
        for (index, &(input, output)) in steps.iter().enumerate() {
            let returned = Some(Returned { output, at_ns: 1 });
            let operation = Operation { client: 0, path: 0, key: 0, input, invoke_ns: 0, returned };
            state = Store.step(&state, &operation).ok_or(index)?;
        }
        Ok(state)
    }

    const STORED: Output = Output::Stored { version: None };

    fn value(value: u64) -> Output {
        Output::Value { value, version: None }
    }

    fn versioned(value: u64, version: u64) -> Output {
        Output::Value { value, version: Some(version) }
    }

    #[test]
    fn every_command_has_its_two_answers() {
        use Input::{Add, Append, Decr, Delete, Flush, Get, Incr, Prepend, Replace, Set, Touch};
        let steps = [
            (Get, Output::Miss),
            (Replace { value: 1 }, Output::NotStored),
            (Append { piece: 1 }, Output::NotStored),
            (Incr { delta: 1 }, Output::NotFound),
            (Touch, Output::NotFound),
            (Delete, Output::NotFound),
            (Add { value: 5 }, STORED),
            (Add { value: 6 }, Output::NotStored),
            (Incr { delta: 3 }, Output::Number { value: 8 }),
            (Decr { delta: 6 }, Output::Number { value: 2 }),
            (Decr { delta: 9 }, Output::Number { value: 0 }),
            (Incr { delta: 4 }, Output::Number { value: 4 }),
            (Replace { value: 2 }, STORED),
            (Append { piece: 3 }, STORED),
            (Prepend { piece: 1 }, STORED),
            (Touch, Output::Touched),
            (Get, value(value_id(&[1, 2, 3]))),
            (Delete, Output::Deleted),
            (Get, Output::Miss),
            (Set { value: 9 }, STORED),
            (Flush, Output::Flushed),
            (Get, Output::Miss),
        ];
        assert!(run(&steps).is_ok());
        // Each answer is tied to the state: leave any change out and a later answer is impossible.
        for left_out in [6, 8, 10, 12, 13, 14, 17, 20] {
            let mut shorter = steps.to_vec();
            shorter.remove(left_out);
            assert!(run(&shorter).is_err(), "without step {left_out}");
        }
    }

    #[test]
    fn versions_are_learnt_and_rise() {
        use Input::{Cas, Get, Set, Touch};
        let set = (Set { value: 1 }, STORED);
        assert!(run(&[set, (Get, versioned(1, 4)), (Get, versioned(1, 4))]).is_ok());
        assert_eq!(run(&[set, (Get, versioned(1, 4)), (Get, versioned(1, 5))]), Err(2));
        assert_eq!(run(&[set, (Get, versioned(1, 4)), set, (Get, versioned(1, 4))]), Err(3));
        assert!(run(&[set, (Get, versioned(1, 4)), (Touch, Output::Touched)]).is_ok());
        let cas = |version| Cas { value: 2, version };
        let read = (Get, versioned(1, 4));
        assert!(run(&[set, read, (cas(4), STORED), (Get, value(2))]).is_ok());
        assert_eq!(run(&[set, read, (cas(3), STORED)]), Err(2));
        assert_eq!(run(&[set, read, (cas(4), Output::Exists)]), Err(2));
        assert!(run(&[set, read, set, (cas(4), Output::Exists)]).is_ok());
        assert_eq!(run(&[set, read, set, (cas(4), STORED)]), Err(3));
        assert!(run(&[(cas(1), Output::NotFound)]).is_ok());
    }
}
