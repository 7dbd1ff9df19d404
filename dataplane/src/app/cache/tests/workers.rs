//! Two workers on one table, each with its shard: whatever worker a request comes to, it is answered as if
//! there were one.

use nautilus_shm::table::{SharedWords, TableReader};
use proptest::prelude::*;

use super::*;
use crate::port::parcel;

type Shared = SharedWords<Box<[AtomicU64]>>;

struct Workers {
    caches: [CacheApp<Shared>; 2],
    /// Datagrams that went from one to the other.
    sent_on: usize,
}

struct Parcel(Vec<u8>);

impl Burst for Parcel {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Datagram<'_> {
        parcel::read(&self.0).unwrap()
    }
}

impl Workers {
    fn new() -> Self {
        let memory = SharedWords::new(heap_words(8 << 20));
        drop(TableWriter::create(memory.clone(), 2, 5).unwrap());
        let caches = [0, 1].map(|worker| {
            let writer = TableWriter::attach_shards(memory.clone(), (), worker..worker + 1);
            CacheApp::new(writer.unwrap(), 0)
                .with_others(TableReader::attach(memory.clone()).unwrap(), worker)
        });
        Self { caches, sent_on: 0 }
    }

    /// Asks one worker; what it sends on arrives before this returns.
    fn ask(&mut self, worker: usize, now_ns: u64, text: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = Replies::default();
        self.caches[worker].handle(now_ns, &Requests(vec![datagram(text)]), &mut replies);
        let mut waiting = self.outbox(worker);
        while let Some((to, parcel)) = waiting.pop() {
            self.sent_on += 1;
            self.caches[to].handle(now_ns, &Parcel(parcel), &mut replies);
            waiting.extend(self.outbox(to));
        }
        replies.0
    }

    fn outbox(&mut self, worker: usize) -> Vec<(usize, Vec<u8>)> {
        let mut parcels = Vec::new();
        if let Some(outbox) = self.caches[worker].outbox() {
            outbox.drain(|to, bytes| parcels.push((to, bytes.to_vec())));
        }
        parcels
    }

    fn owner(&self, key: &[u8]) -> usize {
        usize::from(!self.caches[0].table().owns(self.caches[0].table().hash(key)))
    }

    /// A key of this worker's.
    fn key_of(&self, worker: usize) -> String {
        (0..)
            .map(|number| format!("k{number}"))
            .find(|key| self.owner(key.as_bytes()) == worker)
            .unwrap()
    }
}

fn text(replies: Vec<Vec<u8>>) -> String {
    replies.iter().map(|reply| String::from_utf8_lossy(&reply[8..]).into_owned()).collect()
}

#[test]
fn a_change_is_executed_by_the_keys_owner_and_read_by_both() {
    let mut workers = Workers::new();
    for owner in [0, 1] {
        let key = workers.key_of(owner);
        for worker in [0, 1] {
            let before = workers.sent_on;
            let set = format!("set {key} 1 0 1\r\n{worker}\r\n");
            assert_eq!(text(workers.ask(worker, 1, set.as_bytes())), "STORED\r\n");
            assert_eq!(workers.sent_on - before, usize::from(worker != owner));
            for reader in [0, 1] {
                let before = workers.sent_on;
                let value = format!("VALUE {key} 1 1\r\n{worker}\r\nEND\r\n");
                assert_eq!(
                    text(workers.ask(reader, 1, format!("get {key}\r\n").as_bytes())),
                    value
                );
                let meta = text(workers.ask(reader, 1, format!("mg {key} v f\r\n").as_bytes()));
                assert_eq!(meta, format!("VA 1 f1\r\n{worker}\r\n"));
                assert_eq!(workers.sent_on, before, "reads stay where they are");
            }
        }
    }
}

#[test]
fn what_follows_a_change_in_its_datagram_goes_with_it() {
    let mut workers = Workers::new();
    let (zero, one) = (workers.key_of(0), workers.key_of(1));
    let ask = format!(
        "set {one} 0 0 1\r\na\r\nget {one}\r\nset {zero} 0 0 1\r\nb\r\nget {zero} {one}\r\n"
    );
    let answer = format!(
        "STORED\r\nVALUE {one} 0 1\r\na\r\nEND\r\nSTORED\r\nVALUE {zero} 0 1\r\nb\r\nVALUE {one} 0 1\r\na\r\nEND\r\n"
    );
    assert_eq!(text(workers.ask(0, 1, ask.as_bytes())), answer);
    assert_eq!(workers.sent_on, 2, "there, and back for the second change");
}

#[test]
fn what_finds_no_room_to_be_sent_on_is_counted() {
    let mut workers = Workers::new();
    let set =
        [format!("set {} 0 0 60000\r\n", workers.key_of(1)).as_bytes(), &[b'v'; 60_000], b"\r\n"]
            .concat();
    let mut replies = Replies::default();
    let burst = Requests(vec![datagram(&set); 5]);
    workers.caches[0].handle(1, &burst, &mut replies);
    let outbox = workers.caches[0].outbox().unwrap();
    let (mut sent, dropped) = (0, outbox.take_dropped());
    outbox.drain(|_, _| sent += 1);
    assert_eq!((sent, dropped, replies.0.len()), (3, 2, 0));
    assert!(workers.caches[0].outbox().is_none());
}

#[test]
fn a_flush_is_the_first_workers() {
    let mut workers = Workers::new();
    for worker in [0, 1] {
        let keys = [workers.key_of(0), workers.key_of(1)];
        for key in &keys {
            workers.ask(worker, 1, format!("set {key} 0 0 1\r\nx\r\n").as_bytes());
        }
        let before = workers.sent_on;
        assert_eq!(text(workers.ask(worker, 2, b"flush_all\r\n")), "OK\r\n");
        assert_eq!(workers.sent_on - before, worker);
        for key in &keys {
            assert_eq!(text(workers.ask(0, 3, format!("get {key}\r\n").as_bytes())), "END\r\n");
        }
    }
}

#[test]
fn a_command_of_the_front_at_the_wrong_worker_changes_nothing() {
    let mut workers = Workers::new();
    let key = workers.key_of(1);
    let set = format!("set {key} 0 0 1\r\nx\r\n");
    let Next::Request(request, _) = parse::next(set.as_bytes()) else { panic!("a request") };
    let mut out = Vec::new();
    workers.caches[0].execute(1, Permissions::ALL, &request, |piece| out.extend_from_slice(piece));
    assert_eq!(out, NOT_OURS);
    assert_eq!(text(workers.ask(1, 1, format!("get {key}\r\n").as_bytes())), "END\r\n");
}

#[test]
fn a_gat_of_keys_of_several_workers_is_refused_whole() {
    let mut workers = Workers::new();
    let (zero, one) = (workers.key_of(0), workers.key_of(1));
    let gat = format!("gat 0 {zero} {one}\r\n");
    assert_eq!(text(workers.ask(0, 1, gat.as_bytes())).as_bytes(), NOT_OURS);
    let gat = format!("gat 0 {one}\r\n");
    assert_eq!(text(workers.ask(0, 1, gat.as_bytes())), "END\r\n");
}

#[test]
fn stats_are_the_first_workers_to_answer() {
    let mut workers = Workers::new();
    for worker in [0, 1] {
        let before = workers.sent_on;
        let said = text(workers.ask(worker, 1, b"stats\r\n"));
        assert!(said.contains("STAT threads 2\r\n"), "{said}");
        assert_eq!(workers.sent_on - before, worker);
    }
}

fn command() -> impl Strategy<Value = String> {
    let key = (0..12_u8).prop_map(|key| format!("key{key}"));
    (key, 0..16_u8, 0..3_u8, "[a-z0-9]{0,12}").prop_map(|(key, verb, other, value)| {
        let data = format!("{}\r\n{value}\r\n", value.len());
        match verb {
            0..=3 => format!("set {key} {other} 0 {data}"),
            4 => format!("add {key} 0 0 {data}"),
            5 => format!("append {key} 0 0 {data}"),
            6 => format!("delete {key}\r\n"),
            7 => format!("incr {key} 3\r\n"),
            8 => format!("touch {key} -1\r\n"),
            9 => format!("mg {key} v k f t\r\n"),
            10 => format!("md {key} q\r\n"),
            11 => format!("ms {key} {data}"),
            12 => format!("gat 0 {key}\r\n"),
            13 => "flush_all\r\n".to_owned(),
            _ => format!("get {key} key{other} key1\r\n"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// The same commands to one worker, and to either of two.
    #[test]
    fn two_workers_answer_as_one(commands in prop::collection::vec((command(), 0..2_usize), 1..60)) {
        let (mut one, mut two) = (cache(), Workers::new());
        for (number, (command, worker)) in commands.iter().enumerate() {
            let now_ns = 1_000 * (number as u64 + 1);
            let expected = text(ask_at(&mut one, now_ns, command.as_bytes()));
            let answer = text(two.ask(*worker, now_ns, command.as_bytes()));
            prop_assert_eq!(answer, expected, "{}", command);
        }
    }
}

/// What a source may do goes with its datagram: the owner, which would let everybody, obeys it.
#[test]
fn permissions_go_with_what_is_sent_on() {
    let mut workers = Workers::new();
    let key = workers.key_of(1);
    let text = |replies: Vec<Vec<u8>>| -> Vec<String> {
        replies.iter().map(|reply| String::from_utf8_lossy(&reply[8..]).into_owned()).collect()
    };
    let stored = workers.ask(0, 1, format!("set {key} 0 0 1\r\nv\r\n").as_bytes());
    assert_eq!((text(stored), workers.sent_on), (vec!["STORED\r\n".to_owned()], 1));
    workers.ask(1, 2, format!("md {key} I T30\r\n").as_bytes());
    let source = "198.18.0.2/32".parse().unwrap();
    workers.caches[0].access = AccessList::new(vec![(source, Permissions::READ)]);
    workers.caches[0].asked = None;
    let refused = workers.ask(0, 3, format!("set {key} 0 0 1\r\nx\r\n").as_bytes());
    assert!(text(refused)[0].starts_with("CLIENT_ERROR permission denied"));
    assert_eq!(workers.sent_on, 1, "refused where it came");
    let stale = workers.ask(0, 3, format!("mg {key} v\r\n").as_bytes());
    assert_eq!((text(stale), workers.sent_on), (vec!["VA 1 X\r\nv\r\n".to_owned()], 2));
    let won = workers.ask(1, 3, format!("mg {key} v\r\n").as_bytes());
    assert_eq!(text(won), ["VA 1 X W\r\nv\r\n"], "it is still to be won");
}
