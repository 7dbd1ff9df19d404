//! One connection as a state machine: bytes in, commands to a [`Backend`], bytes out. No socket.
//!
//! ```text
//!   bytes -> input -> next command -- get -----> Backend::read -----> output -> bytes
//!                          |                                             ^
//!                          +------ all else --> Backend::forward ... answered()
//! ```
//!
//! Answers leave in the order of the commands: commands are forwarded one behind the other, and a read
//! waits until every forwarded command is answered, `noreply` ones too. So a client sees its own writes.
//!
//! What it holds is bounded: input by one command and [`INPUT_BYTES_HIGH`] behind it (its owner stops
//! reception there), output by [`OUTPUT_BYTES_HIGH`] and one value (no command is begun above it).

use crate::memcached::parse::words;

use super::protocol::{self, END, Next, Touch, UNKNOWN_OUTCOME};

/// Output at which no further command is begun. Too low: large answers take many turns. Too high: slow
/// clients hold memory.
pub const OUTPUT_BYTES_HIGH: usize = 64 << 10;

/// Waiting input at which reception pauses. Too low: pipelining clients are stopped and started. Too
/// high: clients that wait for the worker hold memory.
pub const INPUT_BYTES_HIGH: usize = 64 << 10;

/// Commands of one connection at the worker. Too low: pipelined writes wait for each other. Too high:
/// one connection fills the ring.
const IN_FLIGHT_MAX: u32 = 64;

/// Keys of one `get` that are asked of memory together. Too low: waits are not overlapped. Too high: the
/// first lines are gone from the cache when they are used.
pub const KEYS_TOGETHER: usize = 16;

/// Who executes commands.
pub trait Backend {
    /// What is to be said instead of reading, where the source may not.
    fn refusal(&mut self) -> Option<&'static [u8]>;
    /// Hears which keys are read next, at most [`KEYS_TOGETHER`] of them.
    fn ahead(&mut self, keys: &[u8]);
    /// Appends the item of `key` to `out`, nothing for a miss. `false`: cannot be read here at the
    /// moment, the worker is to be asked.
    fn read(&mut self, key: &[u8], with_version: bool, out: &mut Vec<u8>) -> bool;
    /// The worker that a command is for.
    fn worker_of(&self, command: &[u8]) -> usize;
    /// Hands a command over to a worker; [`Connection::answered`] is called for it later. `false`: no
    /// room at the moment.
    fn forward(&mut self, worker: usize, command: &[u8]) -> bool;
}

/// What a connection waits for before it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// More bytes.
    #[default]
    Input,
    /// Answers to what was forwarded.
    Answers,
    /// Room in the request ring.
    Room,
    /// Its output to be taken.
    Output,
    /// Nothing: to be closed when its output is taken.
    End,
}

/// The `get`, or `gat` of keys of several workers, at the front of the input, as far as it is answered.
#[derive(Clone, Copy, Debug, Default)]
struct Get {
    /// Place in its keys.
    at: usize,
    /// The key before that place is being read by the worker.
    asked: bool,
    /// It was answered with an error; the other keys are passed over.
    failed: bool,
}

/// One connection, or one datagram.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    output: Vec<u8>,
    in_flight: u32,
    /// The worker that has them: one at a time, for only then do answers come in order.
    at_worker: usize,
    /// Bytes still to come that are nobody's.
    skip: usize,
    /// Input below which there is no whole command.
    needs: usize,
    /// Front of the input that is known to hold no line feed.
    searched: usize,
    get: Get,
    ended: bool,
    endless: bool,
    /// Where the answers of single commands end in the output, if anyone wants to know.
    ends: Option<Vec<usize>>,
}

impl Connection {
    /// One that remembers where the answers end ([`Self::take_answers`]).
    pub fn of_datagram() -> Self {
        Self { ends: Some(Vec::new()), ..Self::default() }
    }

    /// Takes received bytes and does what can be done.
    pub fn receive(&mut self, bytes: &[u8], backend: &mut impl Backend) -> Waits {
        if self.ended {
            return Waits::End;
        }
        if !self.input.is_empty() {
            self.input.extend_from_slice(bytes);
            return self.resume(backend);
        }
        let (taken, waits) = self.run(bytes, backend);
        let rest = &bytes[taken..];
        if !rest.is_empty() && !self.ended {
            self.input.reserve(rest.len().max(self.needs));
            self.input.extend_from_slice(rest);
        }
        waits
    }

    /// Goes on with what was received before.
    pub fn resume(&mut self, backend: &mut impl Backend) -> Waits {
        let mut input = std::mem::take(&mut self.input);
        let (taken, waits) = self.run(&input, backend);
        if taken == input.len() || self.ended {
            // Idle connections hold nothing.
            return waits;
        }
        input.drain(..taken);
        input.reserve(self.needs.saturating_sub(input.len()));
        self.input = input;
        waits
    }

    /// Takes the answer to the oldest forwarded command; `None`: its outcome is unknown.
    pub fn answered(&mut self, text: Option<&[u8]>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let text = text.unwrap_or(UNKNOWN_OUTCOME);
        if std::mem::take(&mut self.get.asked) {
            match text.strip_suffix(END) {
                Some(item) => self.output.extend_from_slice(item),
                None => {
                    self.get.failed = true;
                    self.output.extend_from_slice(text);
                }
            }
            return;
        }
        self.output.extend_from_slice(text);
        self.mark();
    }

    /// Says a last thing and takes nothing more.
    pub fn fail(&mut self, text: &[u8]) {
        self.output.extend_from_slice(text);
        self.end();
    }

    /// Lends an empty buffer for output, and returns it if there is one already.
    pub fn lend(&mut self, empty: Vec<u8>) -> Vec<u8> {
        if self.output.capacity() > 0 { empty } else { std::mem::replace(&mut self.output, empty) }
    }

    /// The output so far, or the buffer that was lent for it.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The output so far, and where each answer in it ends.
    pub fn take_answers(&mut self) -> (Vec<u8>, Vec<usize>) {
        let ends = self.ends.as_mut().map(std::mem::take).unwrap_or_default();
        (std::mem::take(&mut self.output), ends)
    }

    /// Whether there is output.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Commands at the worker.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes received and not used yet.
    pub fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Memory of its buffers.
    pub fn held_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    /// Whether it was ended for a line without an end.
    pub fn is_endless(&self) -> bool {
        self.endless
    }

    fn end(&mut self) {
        self.ended = true;
        self.input = Vec::new();
    }

    fn mark(&mut self) {
        if let Some(ends) = &mut self.ends
            && ends.last().copied().unwrap_or(0) < self.output.len()
        {
            ends.push(self.output.len());
        }
    }

    /// Executes commands at the front of `text`; returns how much of it was used.
    fn run(&mut self, text: &[u8], backend: &mut impl Backend) -> (usize, Waits) {
        let mut at = 0;
        loop {
            if self.ended {
                return (text.len(), Waits::End);
            }
            let skipped = self.skip.min(text.len() - at);
            (at, self.skip) = (at + skipped, self.skip - skipped);
            let rest = &text[at..];
            if rest.is_empty() || rest.len() < self.needs {
                return (at, Waits::Input);
            }
            if self.output.len() >= OUTPUT_BYTES_HIGH {
                return (at, Waits::Output);
            }
            let used = match protocol::next(rest, self.searched) {
                Next::Incomplete { needs, searched } => {
                    (self.needs, self.searched) = (needs, searched);
                    return (at, Waits::Input);
                }
                Next::Get { keys, with_version, bytes } => {
                    match self.get(keys, with_version, backend) {
                        Some(waits) => return (at, waits),
                        None => bytes,
                    }
                }
                Next::GetAndTouch { touch, bytes } => {
                    match self.get_and_touch(&touch, &rest[..bytes], backend) {
                        Some(waits) => return (at, waits),
                        None => bytes,
                    }
                }
                Next::Forward { bytes, skip } => {
                    if let Some(waits) = self.forward(&rest[..bytes], backend) {
                        return (at, waits);
                    }
                    self.skip = skip;
                    bytes
                }
                Next::Quit | Next::Endless if self.in_flight > 0 => return (at, Waits::Answers),
                Next::Endless => {
                    self.endless = true;
                    self.end();
                    continue;
                }
                Next::Quit => {
                    self.end();
                    continue;
                }
            };
            at += used;
            (self.needs, self.searched) = (0, 0);
        }
    }

    /// Hands a command over; `None` when it is.
    fn forward(&mut self, command: &[u8], backend: &mut impl Backend) -> Option<Waits> {
        if self.in_flight >= IN_FLIGHT_MAX {
            return Some(Waits::Answers);
        }
        let worker = backend.worker_of(command);
        if self.in_flight > 0 && worker != self.at_worker {
            return Some(Waits::Answers);
        }
        if !backend.forward(worker, command) {
            return Some(Waits::Room);
        }
        self.at_worker = worker;
        self.in_flight += 1;
        None
    }

    /// Asks the worker for one key of the `get` at the front, which goes on at `behind`; says what it
    /// waits for.
    fn ask(&mut self, command: &[u8], behind: usize, backend: &mut impl Backend) -> Waits {
        if let Some(waits) = self.forward(command, backend) {
            return waits;
        }
        self.get.asked = true;
        self.get.at = behind;
        Waits::Answers
    }

    /// Says the end of a `get`.
    fn end_get(&mut self) {
        if !self.get.failed {
            self.output.extend_from_slice(END);
        }
        self.get = Get::default();
        self.mark();
    }

    /// Has a `gat` answered by the worker of its keys, or key by key by the workers of each; `None` when that
    /// is done.
    fn get_and_touch(
        &mut self,
        touch: &Touch<'_>,
        command: &[u8],
        backend: &mut impl Backend,
    ) -> Option<Waits> {
        let mut one = Vec::new();
        if self.get.at == 0 {
            let mut owners = words(touch.keys).map(|key| {
                touch.write(key, &mut one);
                backend.worker_of(&one)
            });
            let first = owners.next();
            if owners.all(|owner| Some(owner) == first) {
                return self.forward(command, backend);
            }
        }
        if self.in_flight > 0 {
            return Some(Waits::Answers);
        }
        if !self.get.failed
            && let Some((key, behind)) = protocol::next_key(touch.keys, self.get.at)
        {
            if self.output.len() >= OUTPUT_BYTES_HIGH {
                return Some(Waits::Output);
            }
            touch.write(key, &mut one);
            return Some(self.ask(&one, behind, backend));
        }
        self.end_get();
        None
    }

    /// Answers a `get`; `None` when it is answered to its end.
    #[inline]
    fn get(
        &mut self,
        keys: &[u8],
        with_version: bool,
        backend: &mut impl Backend,
    ) -> Option<Waits> {
        if self.in_flight > 0 {
            return Some(Waits::Answers);
        }
        if let Some(refusal) = backend.refusal() {
            self.output.extend_from_slice(refusal);
            self.mark();
            return None;
        }
        let mut told = 0;
        while !self.get.failed
            && let Some((key, behind)) = protocol::next_key(keys, self.get.at)
        {
            if self.output.len() >= OUTPUT_BYTES_HIGH {
                return Some(Waits::Output);
            }
            // One key alone has been asked for already.
            if told == 0 && keys[behind..].len() > 1 {
                told = KEYS_TOGETHER;
                backend.ahead(&keys[self.get.at..]);
            }
            told = told.saturating_sub(1);
            if !backend.read(key, with_version, &mut self.output) {
                let mut command = Vec::new();
                protocol::write_get(key, with_version, &mut command);
                return Some(self.ask(&command, behind, backend));
            }
            self.get.at = behind;
        }
        self.end_get();
        None
    }
}

#[cfg(test)]
mod tests;
