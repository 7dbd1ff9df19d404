//! The table against a map that does the same, and the accounting after every step.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::sync::AtomicU64;

/// Holds `cells` cells in one shard.
pub(super) fn small_table(cells: usize, shards: u32) -> TableWriter<Box<[AtomicU64]>> {
    let words = Layout::words_for(cells as u32, shards);
    let table = TableWriter::create(heap_words(words * 8), shards, 0x5eed).unwrap();
    assert_eq!(table.layout().cells_per_shard as usize, cells);
    table
}

pub(super) fn put(
    table: &mut TableWriter<impl Words>,
    key: &[u8],
    value: &[u8],
) -> Result<u64, ApplyError> {
    let put = Mutation { flags: 7, text_sum: 7, ..Mutation::new(key, Op::Set(value)) };
    table.apply(table.hash(key), &put, 1)
}

pub(super) fn get(table: &mut TableWriter<impl Words>, key: &[u8]) -> Option<Vec<u8>> {
    get_at(table, key, 1)
}

fn get_at(table: &mut TableWriter<impl Words>, key: &[u8], now_ns: u64) -> Option<Vec<u8>> {
    let hit = table.get(table.hash(key), key, now_ns)?;
    let mut value = vec![0; hit.value_bytes as usize];
    let mut reader = table.value(&hit);
    // In uneven pieces, as replies of several datagrams are cut.
    for piece in value.chunks_mut(13) {
        assert_eq!(table.read(&mut reader, piece), piece.len());
    }
    assert_eq!(reader.left_bytes(), 0);
    Some(value)
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, long_key: bool, bytes: usize, expiry_ns: u64 },
    Get { key: u8, long_key: bool },
    Delete { key: u8, long_key: bool },
    Tick,
    Flush,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0..24_u8, prop::bool::weighted(0.2));
    let bytes = prop_oneof![4 => 0..60_usize, 3 => 60..200_usize, 1 => 200..900_usize, 1 => 2_200..6_000_usize];
    let expiry_ns = prop_oneof![4 => Just(0), 1 => 1..60_u64];
    prop_oneof![
        8 => (key(), bytes, expiry_ns).prop_map(|((key, long_key), bytes, expiry_ns)| Step::Put {
            key, long_key, bytes, expiry_ns
        }),
        6 => key().prop_map(|(key, long_key)| Step::Get { key, long_key }),
        3 => key().prop_map(|(key, long_key)| Step::Delete { key, long_key }),
        2 => Just(Step::Tick),
        1 => prop::bool::weighted(0.1).prop_map(|flush| if flush { Step::Flush } else { Step::Tick }),
        1 => Just(Step::Restart),
    ]
}

fn key_of(key: u8, long_key: bool) -> Vec<u8> {
    if long_key { vec![key; 250] } else { format!("k{key}").into_bytes() }
}

/// Runs the steps; `evicts` says whether the table may forget.
fn run(steps: &[Step], cells: usize, shards: u32, evicts: bool) -> Result<(), TestCaseError> {
    let mut table = small_table(cells, shards);
    let mut model: HashMap<Vec<u8>, (Vec<u8>, u64)> = HashMap::new();
    let mut now_ns = 1;
    let mut out = vec![0; 8192];
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Put { key, long_key, bytes, expiry_ns } => {
                let key = key_of(key, long_key);
                let value: Vec<u8> = (0..bytes).map(|byte| (byte * 7 + number) as u8).collect();
                let put = Mutation {
                    flags: 3,
                    expiry_ns,
                    text_sum: 7,
                    ..Mutation::new(&key, Op::Set(&value))
                };
                let stored = table.apply(table.hash(&key), &put, now_ns);
                let cells = super::layout::Shape::with_runs(key.len(), bytes, 0).cells;
                if cells > table.layout().cells_per_shard {
                    prop_assert_eq!(stored, Err(ApplyError::TooLarge));
                } else {
                    prop_assert!(stored.is_ok());
                    model.insert(key.clone(), (value, expiry_ns));
                    let live = expiry_ns == 0 || expiry_ns > now_ns;
                    prop_assert_eq!(get_at(&mut table, &key, now_ns).is_some(), live);
                }
            }
            Step::Get { key, long_key } => {
                let key = key_of(key, long_key);
                let live = model.get(&key).filter(|(_, at)| *at == 0 || *at > now_ns);
                let got = get_at(&mut table, &key, now_ns);
                let reader = TableReader::attach(table.memory()).unwrap();
                let read = reader.get(&key, now_ns, &mut out);
                prop_assert_eq!(
                    read.map(|hit| out[..hit.value_bytes].to_vec()).ok(),
                    got.clone(),
                    "reader and writer agree"
                );
                match (live, got) {
                    (Some((value, _)), Some(got)) => prop_assert_eq!(value, &got),
                    (Some(_), None) => {
                        prop_assert!(evicts, "{:?} was forgotten", key);
                    }
                    (None, got) => prop_assert_eq!(got, None),
                }
            }
            Step::Delete { key, long_key } => {
                let key = key_of(key, long_key);
                let live = model.remove(&key).is_some_and(|(_, at)| at == 0 || at > now_ns);
                let delete = Mutation::new(&key, Op::Delete);
                let deleted = table.apply(table.hash(&key), &delete, now_ns).is_ok();
                prop_assert!(!deleted || live);
                prop_assert!(deleted || !live || evicts);
            }
            Step::Tick => now_ns += 5,
            Step::Flush => {
                table.flush();
                model.clear();
            }
            Step::Restart => {
                table = TableWriter::attach(table.memory().clone_words()).unwrap();
            }
        }
        if !evicts {
            prop_assert_eq!(table.counts().evictions_count, 0);
        }
        if let Err(error) = check(table.memory().words()) {
            return Err(TestCaseError::fail(format!("after step {number}: {error}")));
        }
    }
    Ok(())
}

pub(super) trait CloneWords {
    fn clone_words(&self) -> Box<[AtomicU64]>;
}

impl CloneWords for Box<[AtomicU64]> {
    fn clone_words(&self) -> Box<[AtomicU64]> {
        use crate::sync::Ordering::Relaxed;
        self.iter().map(|word| AtomicU64::new(word.load(Relaxed))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_roomy_table_is_a_map(steps in prop::collection::vec(step(), 1..160)) {
        // 48 keys of at most 53 cells, and one more of each is filled before the old one goes.
        run(&steps, 2_700, 1, false)?;
    }

    #[test]
    fn a_full_table_forgets_but_never_lies(
        steps in prop::collection::vec(step(), 1..160),
        cells in 4..120_usize,
        shards in 1..4_u32,
    ) {
        run(&steps, cells, shards, true)?;
    }
}

#[test]
fn the_largest_value_survives_and_one_more_byte_does_not() {
    if cfg!(miri) {
        return;
    }
    let mut table = small_table(20_000, 1);
    let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|byte| (byte % 251) as u8).collect();
    put(&mut table, &[b'k'; 250], &value).unwrap();
    assert_eq!(get(&mut table, &[b'k'; 250]).unwrap(), value);
    put(&mut table, &[b'k'; 250], &value).unwrap();
    let longer = vec![0; VALUE_BYTES_MAX + 1];
    assert_eq!(put(&mut table, b"l", &longer), Err(ApplyError::TooLarge));
    assert_eq!(put(&mut table, b"", b""), Err(ApplyError::KeyLength));
    assert_eq!(put(&mut table, &[b'k'; 251], b""), Err(ApplyError::KeyLength));
    check(table.memory().words()).unwrap();
}

#[test]
fn what_is_asked_for_stays() {
    // S3-FIFO's point: a scan of keys that nobody asks for does not flush those that somebody does.
    let mut table = small_table(200, 1);
    for key in 0..40_u32 {
        put(&mut table, format!("hot{key}").as_bytes(), b"value").unwrap();
    }
    for round in 0..20_u32 {
        for key in 0..40_u32 {
            get(&mut table, format!("hot{key}").as_bytes());
        }
        for key in 0..100_u32 {
            put(&mut table, format!("scan{round}.{key}").as_bytes(), b"value").unwrap();
        }
    }
    let kept = (0..40_u32).filter(|key| get(&mut table, format!("hot{key}").as_bytes()).is_some());
    let kept = kept.count();
    assert!(kept >= 38, "{kept} of 40 keys survived a scan of 2,000");
    assert!(table.counts().evictions_count > 1_700);
    check(table.memory().words()).unwrap();
}

#[test]
fn a_feeds_keys_follow_its_channel() {
    let mut table = small_table(32, 1);
    let hash = table.hash(b"md:x:Y:bbo");
    let record =
        Mutation { channel: 9, text_sum: 7, ..Mutation::new(b"md:x:Y:bbo", Op::Set(b"v")) };
    table.apply(hash, &record, 1).unwrap();
    let read = |table: &TableWriter<Box<[AtomicU64]>>, now_ns| {
        let reader = TableReader::attach(table.memory()).unwrap();
        reader.get(b"md:x:Y:bbo", now_ns, &mut [0; 8]).map(|hit| hit.channel)
    };
    assert_eq!(read(&table, 1), Err(ReadError::Suspect), "suspect until declared live");
    assert!(table.get(hash, record.key, 1).is_none());
    table.set_channel(9, ChannelState::Live { valid_until_ns: 100 });
    assert_eq!(read(&table, 99), Ok(9));
    assert!(table.get(hash, record.key, 99).is_some());
    assert_eq!(read(&table, 100), Err(ReadError::Suspect), "silence needs no store");
    set_halted(table.memory(), true);
    table.set_channel(9, ChannelState::Live { valid_until_ns: 200 });
    assert_eq!(read(&table, 99), Err(ReadError::Suspect), "halted, whatever its channel says");
    assert!(table.get(hash, record.key, 99).is_none());
    let client = table.hash(b"client");
    table.apply(client, &Mutation::new(b"client", Op::Set(b"v")), 1).unwrap();
    assert!(table.get(client, b"client", 99).is_some(), "what clients own is theirs");
    set_halted(table.memory(), false);
    assert_eq!(read(&table, 99), Ok(9), "what its channel says");
    table.set_channel(9, ChannelState::Suspect);
    assert_eq!(read(&table, 5), Err(ReadError::Suspect));
    let theft = Mutation { channel: 0, ..record };
    assert_eq!(table.apply(hash, &theft, 1), Err(ApplyError::FeedOwned));
    let delete = Mutation::new(record.key, Op::Delete);
    assert_eq!(table.apply(hash, &delete, 1), Err(ApplyError::FeedOwned));
    table.begin_channel(9);
    table.set_channel(9, ChannelState::Live { valid_until_ns: u64::MAX });
    assert_eq!(read(&table, 5), Err(ReadError::Miss), "a new session knows nothing of the old");
    table.apply(hash, &record, 1).unwrap();
    table.set_valid_until(50);
    assert_eq!(read(&table, 50), Err(ReadError::LeaseExpired));
    assert_eq!(read(&table, 49), Ok(9));
    table.flush();
    assert_eq!(read(&table, 49), Err(ReadError::Miss));
    assert!(table.apply(hash, &theft, 1).is_ok(), "a flushed key is free");
}

/// Two writers of one table, each of its own shards, as two workers have it.
#[test]
fn writers_of_different_shards_share_a_table() {
    let memory = SharedWords::new(heap_words(4 << 20));
    drop(TableWriter::create(memory.clone(), 2, 9).unwrap());
    let mut writers = [0, 1]
        .map(|worker| TableWriter::attach_shards(memory.clone(), (), worker..worker + 1).unwrap());
    let reader = TableReader::attach(memory.clone()).unwrap();
    let mut counts = [0; 2];
    for number in 0..2_000_u64 {
        let key = format!("key{number}").into_bytes();
        let hash = writers[0].hash(&key);
        let owner = writers[0].shard_index(hash) as usize;
        assert_eq!(
            [0, 1].map(|worker: usize| writers[worker].owns(hash)),
            [owner == 0, owner == 1]
        );
        let expiry_ns = if number % 2 == 0 { 10 } else { 0 };
        let value = number.to_le_bytes();
        let set = Mutation { expiry_ns, ..Mutation::new(&key, Op::Set(&value)) };
        writers[owner].apply(hash, &set, 1).unwrap();
        counts[owner] += 1;
        let mut out = [0; 8];
        assert_eq!(reader.get(&key, 1, &mut out).unwrap().value_bytes, 8);
        assert_eq!(u64::from_le_bytes(out), number);
    }
    assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
    let items = [0, 1].map(|worker: usize| writers[worker].usage().items_count);
    assert_eq!(items, counts);
    assert_eq!(writers[1].table_usage().items_count, 2_000);
    // A sweep gives back what is in its writer's shards, and nothing else.
    for _ in 0..20_000 {
        writers[1].sweep(10, 8);
    }
    let left = writers[1].usage().items_count;
    assert!(left < counts[1] * 6 / 10, "{left} of {}", counts[1]);
    assert_eq!(writers[0].usage().items_count, counts[0]);
    check(&memory).unwrap();
}
