//! Readers that look in the middle of the worker's work: between any two of its stores one of them may
//! read the table or the hot set and note what it saw.

use std::cell::RefCell;
use std::rc::Rc;

use nautilus_dataplane::replay::random::Random;
use nautilus_dataplane::worker::Clock;
use nautilus_shm::table::{ReadError, TableReader};
use nautilus_tests::coherence::Path;
use nautilus_tests::coherence::text::{id_of, key_text};
use nautilus_tests::history::{Input, Operation, Output, Returned};

use crate::hot::SimHot;
use crate::node::{Memory, SimClock};

/// One store in so many is looked at.
const LOOKS_ONE_IN: u32 = 4;

/// The number of the first client that only looks.
pub const FIRST_EYE: u32 = 100;

/// What looks, and what was seen.
pub struct Eyes {
    table: TableReader<Memory>,
    hot: SimHot,
    clock: SimClock,
    random: Random,
    keys: &'static [u64],
    /// The run's history, of all clients.
    pub history: Vec<Operation>,
    /// Stores until the worker dies.
    pub dies_after: Option<u64>,
    /// Reads in the middle of a turn.
    pub looks: u64,
    /// Reads that found the key being written.
    pub busy: u64,
    /// Reads the hot set answered.
    pub hot_hits: u64,
}

impl Eyes {
    pub fn new(
        (memory, hot): (Memory, SimHot),
        clock: SimClock,
        keys: &'static [u64],
        seed: u64,
    ) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            table: TableReader::attach(memory).expect("a table"),
            hot,
            clock,
            random: Random::new(seed),
            keys,
            history: Vec::new(),
            dies_after: None,
            looks: 0,
            busy: 0,
            hot_hits: 0,
        }))
    }

    /// To be called before each store of the worker.
    pub fn watch(eyes: &Rc<RefCell<Self>>) -> impl FnMut() -> bool + use<> {
        let eyes = eyes.clone();
        move || eyes.borrow_mut().before_store()
    }

    fn before_store(&mut self) -> bool {
        if self.random.below(LOOKS_ONE_IN) == 0 {
            self.looks += 1;
            self.look();
        }
        match &mut self.dies_after {
            Some(0) => {
                self.dies_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// Reads some key, by shared memory, the driver, or one right after the other.
    pub fn look(&mut self) {
        let key = self.keys[self.random.below(self.keys.len() as u32) as usize];
        let first = self.random.below(2);
        for turn in 0..1 + self.random.below(2) {
            if (first + turn).is_multiple_of(2) { self.read_table(key) } else { self.read_hot(key) }
        }
    }

    fn read_table(&mut self, key: u64) {
        let invoke_ns = self.clock.stamp();
        let mut value = [0; 2048];
        let output = match self.table.get(key_text(key).as_bytes(), invoke_ns, &mut value) {
            Ok(hit) => {
                let id = id_of(&value[..hit.value_bytes]).expect("a value that was written");
                Output::Value { value: id, version: Some(hit.version) }
            }
            Err(ReadError::WriterBusy) => return self.busy += 1,
            Err(error) => {
                assert_eq!(error, ReadError::Miss);
                Output::Miss
            }
        };
        self.note(FIRST_EYE, Path::Shared, key, invoke_ns, output);
    }

    fn read_hot(&mut self, key: u64) {
        let invoke_ns = self.clock.stamp();
        let Some(value) = self.hot.get(key_text(key).as_bytes(), self.clock.now_ns()) else {
            return;
        };
        self.hot_hits += 1;
        let value = id_of(&value).expect("a value that was written");
        let output = Output::Value { value, version: None };
        self.note(FIRST_EYE + 1, Path::Hot, key, invoke_ns, output);
    }

    fn note(&mut self, client: u32, path: Path, key: u64, invoke_ns: u64, output: Output) {
        let returned = Some(Returned { output, at_ns: self.clock.stamp() });
        let path = path as u8;
        self.history.push(Operation { client, path, key, input: Input::Get, invoke_ns, returned });
    }
}
