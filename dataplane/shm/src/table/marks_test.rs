//! What is noted of a value beside its bytes, and who is told: writer, shared-memory reader, hot set.

use super::hot::HotValue;
use super::*;
use crate::sync::AtomicU64;

/// A hot set of one key that remembers what it was last told.
#[derive(Default)]
struct Told(Option<&'static str>);

impl HotSet for Told {
    const IS_THERE: bool = true;
    fn holds(&self, key: &[u8]) -> bool {
        key == b"k"
    }
    fn asked(&mut self, _: u64, _: &[u8], _: &Hit) -> bool {
        false
    }
    fn housekeeping(&mut self, _: u64) {}
    fn next_used(&mut self) -> Option<HotKey> {
        None
    }
    fn publish(&mut self, _: &[u8], _: &HotValue<'_>) {
        self.0 = Some("shown");
    }
    fn empty(&mut self, key: &[u8]) {
        if key == b"k" {
            self.0 = Some("emptied");
        }
    }
    fn set_channel(&mut self, _: u8, _: u64) {}
    fn set_channel_epoch(&mut self, channel: u8, _: u64) {
        self.0 = Some(if channel == 0 { "flushed" } else { "begun" });
    }
    fn set_flush_epoch(&mut self, _: u64) {}
    fn set_valid_until(&mut self, _: u64) {}
}

type Words = std::sync::Arc<[AtomicU64]>;

fn table() -> (TableWriter<Words, Told>, TableReader<Words>) {
    let words: Words = heap_words(1 << 20).into_vec().into();
    let writer = TableWriter::create_with(words.clone(), 1, 1, Told::default()).unwrap();
    (writer, TableReader::attach(words).unwrap())
}

fn set(table: &mut TableWriter<Words, Told>, key: &[u8], channel: u8, marks: Marks) {
    let set = Mutation { channel, marks, ..Mutation::new(key, Op::Set(b"value")) };
    table.apply(table.hash(key), &set, 5_000_000_000).unwrap();
}

#[test]
fn marks_are_kept_shown_and_kept_out_of_the_hot_set() {
    let (mut table, reader) = table();
    let none = Marks::default();
    set(&mut table, b"k", 0, none);
    set(&mut table, b"k", 0, none);
    assert_eq!(table.hot().0, Some("shown"));
    for marks in [Marks { stale: true, ..none }, Marks { won: true, ..none }] {
        set(&mut table, b"k", 0, marks);
        assert_eq!(table.hot_mut().0.take(), Some("emptied"), "{marks:?}");
        let hit = table.peek(table.hash(b"k"), b"k", 6_000_000_000).unwrap();
        assert_eq!((hit.is_stale, hit.is_won), (marks.stale, marks.won));
        let read = reader.get(b"k", 6_000_000_000, &mut [0; 5]).unwrap();
        assert_eq!((read.marks, read.written_us), (marks, 5_000_000));
    }
    set(&mut table, b"k", 0, Marks { fetched: true, ..none });
    let hit = table.peek(table.hash(b"k"), b"k", 1).unwrap();
    assert!(hit.was_fetched && table.hot_mut().0.take() == Some("shown"));
    table.mark_won(&hit);
    assert_eq!(table.hot_mut().0.take(), Some("emptied"));
    assert!(reader.get(b"k", 1, &mut [0; 5]).unwrap().marks.won);
    let hit = table.peek(table.hash(b"k"), b"k", 1).unwrap();
    table.show(b"k", &hit);
    assert_eq!(table.hot().0, None);
}

#[test]
fn a_flush_of_the_clients_leaves_the_feeds() {
    let (mut table, reader) = table();
    set(&mut table, b"client", 0, Marks::default());
    set(&mut table, b"feed", 3, Marks::default());
    table.set_channel(3, ChannelState::Live { valid_until_ns: u64::MAX });
    table.flush_clients();
    assert_eq!(table.hot().0, Some("flushed"));
    let read = |key| reader.get(key, 1, &mut [0; 5]).map(|hit| hit.channel);
    assert_eq!((read(b"client"), read(b"feed")), (Err(ReadError::Miss), Ok(3)));
    set(&mut table, b"client", 0, Marks::default());
    assert_eq!(read(b"client"), Ok(0));
}

#[test]
fn a_suspect_value_is_there_for_who_asks_for_it() {
    let (mut table, reader) = table();
    set(&mut table, b"feed", 3, Marks::default());
    let hash = table.hash(b"feed");
    let mut out = [0; 5];
    assert!(table.peek(hash, b"feed", 1).is_none());
    assert_eq!(table.suspect(hash, b"feed", 1).unwrap().channel, 3);
    assert_eq!(reader.get(b"feed", 1, &mut out), Err(ReadError::Suspect));
    let look = reader.look(b"feed", 9_000_000_000, &mut out).unwrap();
    assert_eq!((look.is_suspect, look.last_access_s, &out), (true, 5, b"value"));
    table.set_channel(3, ChannelState::Live { valid_until_ns: 10 });
    assert!(table.suspect(hash, b"feed", 9).is_none());
    assert!(!reader.look(b"feed", 9, &mut out).unwrap().is_suspect);
    assert!(table.suspect(hash, b"feed", 10).is_some());
    table.begin_channel(3);
    assert!(table.suspect(hash, b"feed", 10).is_none());
    assert_eq!(reader.look(b"feed", 10, &mut out), Err(ReadError::Miss));
}

#[test]
fn the_last_use_is_known_to_half_a_minute_and_to_a_second_after_a_pause() {
    let (mut table, _) = table();
    set(&mut table, b"k", 0, Marks::default());
    let hash = table.hash(b"k");
    let second = 1_000_000_000;
    let mut asked = |now_s: u64| {
        let now_ns = now_s * second;
        table.get(hash, b"k", now_ns).unwrap().last_access_s(now_ns)
    };
    // Stored at 5 s. A use within 34 s of the one written down is not written down.
    assert_eq!([5, 6, 38, 39].map(&mut asked), [5, 5, 5, 5]);
    assert_eq!([40, 41].map(&mut asked), [5, 40]);
    // The upper bits change as well.
    let days = 24 * 3_600;
    assert_eq!([100, 90 * days, 90 * days + 1].map(&mut asked), [40, 100, 90 * days as u32]);
}
