use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::memcached::Request;
use crate::memcached::parse::{Data, Store};
use crate::memcached::parse::{Next as Parsed, next as parse, words};

/// A table and a worker that executes a command when it is told to.
#[derive(Default)]
struct Model {
    items: BTreeMap<Vec<u8>, Vec<u8>>,
    queue: VecDeque<Vec<u8>>,
    room: usize,
    /// Reads that must be left to the worker, bit by bit.
    busy: u64,
    /// Keys belong to two workers, by their last byte.
    two_workers: bool,
    /// The worker that has what is in the queue.
    at_worker: usize,
}

impl Model {
    fn item(&self, key: &[u8], out: &mut Vec<u8>) {
        if let Some(value) = self.items.get(key) {
            out.extend(format!("VALUE {} 0 {}\r\n", text(key), value.len()).bytes());
            out.extend(value);
            out.extend(b"\r\n");
        }
    }

    /// Executes a command as the worker would.
    fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        let Parsed::Request(request, _) = parse(command) else { return Vec::new() };
        let (answer, silent): (&[u8], bool) = match request {
            Request::Store(Store { key, data: Data::Whole(value), no_reply, .. }) => {
                self.items.insert(key.to_vec(), value.to_vec());
                (b"STORED\r\n", no_reply)
            }
            Request::Store(Store { key, data: _, no_reply, .. }) => {
                self.items.remove(key);
                (b"SERVER_ERROR object too large for cache\r\n", no_reply)
            }
            Request::Delete { key, no_reply } => match self.items.remove(key) {
                Some(_) => (b"DELETED\r\n", no_reply),
                None => (b"NOT_FOUND\r\n", no_reply),
            },
            Request::Version => (b"VERSION 1\r\n", false),
            Request::Refused { refusal, no_reply } => (refusal.text(), no_reply),
            Request::Get { keys, .. } => {
                let mut out = Vec::new();
                self.item(keys.trim_ascii(), &mut out);
                out.extend(END);
                return out;
            }
            // Which keys were touched is told by what a value ends with.
            Request::GetAndTouch { keys, .. } => {
                let mut out = Vec::new();
                for key in words(keys) {
                    self.item(key, &mut out);
                    if let Some(value) = self.items.get_mut(key) {
                        value.push(b'T');
                    }
                }
                out.extend(END);
                return out;
            }
            _ => (b"", true),
        };
        if silent { Vec::new() } else { answer.to_vec() }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Backend for Model {
    fn refusal(&mut self) -> Option<&'static [u8]> {
        None
    }

    fn ahead(&mut self, keys: &[u8]) {
        let first: Vec<&[u8]> = words(keys).take(KEYS_TOGETHER).collect();
        assert!(!first.is_empty());
    }

    fn read(&mut self, key: &[u8], _with_version: bool, out: &mut Vec<u8>) -> bool {
        let busy = self.busy & 1 == 1;
        self.busy = self.busy.rotate_right(1);
        if !busy {
            self.item(key, out);
        }
        !busy
    }

    fn worker_of(&self, command: &[u8]) -> usize {
        let Parsed::Request(request, _) = parse(command) else { return 0 };
        let last = request.key().and_then(|key| key.last().copied()).unwrap_or(0);
        usize::from(self.two_workers && last % 2 == 1)
    }

    fn forward(&mut self, worker: usize, command: &[u8]) -> bool {
        if let Parsed::Request(Request::GetAndTouch { keys, .. }, _) = parse(command) {
            let last = |key: &[u8]| usize::from(self.two_workers && key[key.len() - 1] % 2 == 1);
            assert!(words(keys).all(|key| last(key) == worker), "{}", text(command));
        }
        let is_alone = self.queue.is_empty() || worker == self.at_worker;
        assert!(is_alone, "answers of two workers come in any order");
        self.at_worker = worker;
        let fits = self.queue.len() < self.room;
        if fits {
            self.queue.push_back(command.to_vec());
        }
        fits
    }
}

/// Commands of a stream and what must come back, one after the other.
fn expected(commands: &[Vec<u8>]) -> Vec<u8> {
    let mut model = Model::default();
    let mut out = Vec::new();
    for command in commands {
        let line = command.strip_suffix(b"\r\n").unwrap_or(command);
        match line.strip_prefix(b"get ") {
            Some(keys) => {
                for key in words(keys) {
                    model.item(key, &mut out);
                }
                out.extend(END);
            }
            None if line == b"quit" => break,
            None => out.extend(model.execute(command)),
        }
    }
    out
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let key = "[a-d]";
    prop_oneof![
        4 => (key, 0..60_usize, any::<bool>(), any::<u8>()).prop_map(|(key, bytes, silent, fill)| {
            let silent = if silent { " noreply" } else { "" };
            let mut command = format!("set {key} 0 0 {bytes}{silent}\r\n").into_bytes();
            command.extend(std::iter::repeat_n(fill, bytes));
            command.extend(b"\r\n");
            command
        }),
        1 => key.prop_map(|key| {
            let bytes = (1 << 20) + 1;
            let mut command = format!("set {key} 0 0 {bytes}\r\n").into_bytes();
            command.extend(std::iter::repeat_n(b'\n', bytes));
            command.extend(b"\r\n");
            command
        }),
        2 => key.prop_map(|key| format!("delete {key}\r\n").into_bytes()),
        6 => prop::collection::vec(key, 1..5)
            .prop_map(|keys| format!("get {}\r\n", keys.join(" ")).into_bytes()),
        3 => prop::collection::vec(key, 1..5)
            .prop_map(|keys| format!("gat 100 {}\r\n", keys.join(" ")).into_bytes()),
        1 => Just(b"version\r\n".to_vec()),
        1 => Just(b"junk of any kind\r\n".to_vec()),
        1 => Just(b"set a 0 0 x\r\n".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the bytes are cut, whenever the worker answers, whoever reads, and however slowly the
    /// client takes its answers: they are those of the commands executed one after the other.
    #[test]
    fn answers_are_those_of_one_command_after_the_other(
        mut commands in prop::collection::vec(command(), 1..12),
        cuts in prop::collection::vec(prop_oneof![1..30_usize, 1..3_usize, 5000..200_000_usize], 1..8),
        answers in prop::collection::vec(0..4_usize, 1..8),
        room in 1..5_usize,
        busy in prop_oneof![Just(0), any::<u64>()],
        two_workers: bool,
    ) {
        commands.push(b"quit\r\n".to_vec());
        let stream = commands.concat();
        let mut model = Model { room, busy, two_workers, ..Model::default() };
        let mut connection = Connection::default();
        let (mut out, mut at, mut waits) = (Vec::new(), 0, Waits::Input);
        let mut worker = Model::default();
        let mut turns = cuts.iter().cycle().zip(answers.iter().cycle());
        let mut idle = 0;
        while waits != Waits::End {
            let (&cut, &count) = turns.next().unwrap();
            // A client that sends millions of bytes does not do so byte by byte.
            let cut = if stream.len() - at > 10_000 { cut.max(40_000) } else { cut };
            if waits == Waits::Input || connection.input_bytes() < INPUT_BYTES_HIGH {
                let end = (at + cut).min(stream.len());
                connection.receive(&stream[at..end], &mut model);
                at = end;
            }
            // A worker answers in the end.
            for _ in 0..count.max(usize::from(idle % 20 == 19)) {
                let Some(command) = model.queue.pop_front() else { break };
                // The reads of the front see what the worker has written.
                std::mem::swap(&mut worker.items, &mut model.items);
                let answer = worker.execute(&command);
                std::mem::swap(&mut worker.items, &mut model.items);
                connection.answered(Some(&answer));
            }
            out.extend(connection.take_output());
            waits = connection.resume(&mut model);
            idle += 1;
            prop_assert!(idle < 100_000, "stuck: {waits:?}");
        }
        out.extend(connection.take_output());
        prop_assert_eq!(text(&out), text(&expected(&commands)));
        prop_assert_eq!(connection.in_flight(), 0);
    }

    #[test]
    fn junk_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        let mut model = Model { room: usize::MAX, ..Model::default() };
        let mut connection = Connection::default();
        for chunk in bytes.chunks(100) {
            connection.receive(chunk, &mut model);
            while let Some(command) = model.queue.pop_front() {
                let answer = model.execute(&command);
                connection.answered(Some(&answer));
            }
            connection.resume(&mut model);
        }
        prop_assert!(connection.input_bytes() <= (1 << 20) + 3000);
    }
}

#[test]
fn an_idle_connection_holds_nothing_and_a_half_command_only_itself() {
    let mut model = Model { room: 9, ..Model::default() };
    let mut connection = Connection::default();
    assert_eq!(connection.receive(b"get a\r\nget", &mut model), Waits::Input);
    assert!((1..64).contains(&connection.input_bytes()));
    assert_eq!(connection.receive(b" b\r\n", &mut model), Waits::Input);
    assert_eq!(connection.take_output(), b"END\r\nEND\r\n");
    assert_eq!(connection.held_bytes(), 0);
    connection.receive(b"set a 0 0 1000000\r\n123", &mut model);
    assert!((1_000_000..1_100_000).contains(&connection.held_bytes()));
}

#[test]
fn what_a_dead_worker_took_has_an_unknown_outcome_and_the_rest_goes_on() {
    let mut model = Model { room: 9, ..Model::default() };
    let mut connection = Connection::default();
    let text = b"set a 0 0 1 noreply\r\n1\r\ndelete a\r\nget a\r\n";
    assert_eq!(connection.receive(text, &mut model), Waits::Answers);
    connection.answered(None);
    assert_eq!(connection.resume(&mut model), Waits::Answers, "the read waits for the delete");
    connection.answered(Some(b"DELETED\r\n"));
    assert_eq!(connection.resume(&mut model), Waits::Input);
    let expected = [UNKNOWN_OUTCOME, b"DELETED\r\nEND\r\n"].concat();
    assert_eq!(connection.take_output(), expected);
}

#[test]
fn a_client_that_takes_nothing_stops_its_own_commands() {
    let mut model = Model { room: 9, ..Model::default() };
    model.items.insert(b"a".to_vec(), vec![b'v'; 50_000]);
    let mut connection = Connection::default();
    let waits = connection.receive(b"get a a a a a\r\n", &mut model);
    assert_eq!(waits, Waits::Output);
    assert!(connection.held_bytes() < OUTPUT_BYTES_HIGH * 4);
    let mut out = connection.take_output();
    while connection.resume(&mut model) == Waits::Output {
        out.extend(connection.take_output());
    }
    out.extend(connection.take_output());
    assert_eq!(out.len(), 5 * ("VALUE a 0 50000\r\n\r\n".len() + 50_000) + END.len());
}

#[test]
fn a_line_without_an_end_ends_the_connection_after_the_answers() {
    let mut model = Model { room: 9, ..Model::default() };
    let mut connection = Connection::default();
    let mut text = b"delete a\r\n".to_vec();
    text.extend([0x80; 3000]);
    assert_eq!(connection.receive(&text, &mut model), Waits::Answers);
    connection.answered(Some(b"NOT_FOUND\r\n"));
    assert_eq!(connection.resume(&mut model), Waits::End);
    assert!(connection.is_endless());
    assert_eq!(connection.take_output(), b"NOT_FOUND\r\n");
}

#[test]
fn a_datagram_remembers_where_its_answers_end() {
    let mut model = Model { room: 9, ..Model::default() };
    let mut connection = Connection::of_datagram();
    connection
        .receive(b"delete a\r\nset a 0 0 1 noreply\r\n1\r\nget a b\r\nversion\r\n", &mut model);
    while let Some(command) = model.queue.pop_front() {
        let answer = model.execute(&command);
        connection.answered(Some(&answer));
        connection.resume(&mut model);
    }
    let (out, ends) = connection.take_answers();
    let expected = ["NOT_FOUND\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n", "VERSION 1\r\n"];
    assert_eq!(text(&out), expected.concat());
    assert_eq!(ends, [11, 32, 43]);
}

#[test]
fn data_one_byte_short_of_its_end_is_completed_by_that_byte() {
    let mut model = Model { room: 9, ..Model::default() };
    let mut connection = Connection::default();
    let text = b"set a 0 0 3\r\nabc\r\nquit\r\n";
    for (at, byte) in text.iter().enumerate() {
        connection.receive(&[*byte], &mut model);
        assert_eq!(model.queue.len(), usize::from(at >= 17), "byte {at}");
    }
    connection.answered(Some(b"STORED\r\n"));
    assert_eq!(connection.resume(&mut model), Waits::End);
}
