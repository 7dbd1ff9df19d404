//! The same reads from shared memory: the same answers, or a request to ask the worker.

use std::sync::Arc;

use nautilus_shm::table::TableReader;

use super::*;
use crate::app::cache::reads::{Forward, answer};
use crate::app::cache::sink::Stream;
use crate::app::cache::table::SharedTable;

type Words = Arc<[AtomicU64]>;

fn both() -> (CacheApp<Words>, SharedTable<Words>) {
    let words: Words = heap_words(4 << 20).into_vec().into();
    let writer = TableWriter::create(Arc::clone(&words), 2, 5).unwrap();
    (CacheApp::new(writer, 0), SharedTable::new(TableReader::attach(words).unwrap()))
}

fn of_worker(cache: &mut CacheApp<Words>, now_ns: u64, text: &[u8]) -> Vec<u8> {
    let Next::Request(request, _) = parse::next(text) else { panic!() };
    let mut answer = Vec::new();
    cache.execute(now_ns, Permissions::ALL, &request, |piece| answer.extend_from_slice(piece));
    answer
}

fn of_front(table: &mut SharedTable<Words>, now_ns: u64, text: &[u8]) -> Result<Vec<u8>, Forward> {
    let Next::Request(request, _) = parse::next(text) else { panic!() };
    let mut pieces = Vec::new();
    let mut sink = Stream(|piece: &[u8]| pieces.extend_from_slice(piece));
    answer(table, now_ns, &request, &mut sink)?;
    Ok(pieces)
}

#[test]
fn reads_from_shared_memory_are_answered_like_the_workers() {
    let (mut cache, mut shared) = both();
    let now_ns = 100_000_000_000;
    let large = "v".repeat(100_000);
    let sets = [
        "set a 7 100 3\r\nabc\r\n".into(),
        "set e 0 0 0\r\n\r\n".into(),
        format!("set large 1 0 {}\r\n{large}\r\n", large.len()),
        "ms /wA= 2 b\r\nbb\r\n".into(),
        "mg won N100\r\n".into(),
    ];
    for set in &sets {
        of_worker(&mut cache, now_ns, set.as_bytes());
    }
    cache.put(b"feed", b"f", 9, now_ns).unwrap();
    for text in [
        "get a\r\n",
        "gets a e none large feed a\r\n",
        "get none\r\n",
        "mg a v t f s c k O1 u @v @a\r\n",
        "mg a h l u v\r\n",
        "mg none k O9\r\n",
        "mg none q\r\n",
        "mg large v s u\r\n",
        "mg e v u\r\n",
        "mg /wA= b k v u\r\n",
        "mg won v u\r\n",
        "mg a @m0 v u\r\n",
        "mg feed v u\r\n",
        "mg feed v u @s\r\n",
        "me a\r\n",
        "me none\r\n",
        "mn\r\n",
        "version\r\n",
    ] {
        let later_ns = now_ns + 3_000_000;
        let front = of_front(&mut shared, later_ns, text.as_bytes()).unwrap();
        let worker = of_worker(&mut cache, later_ns, text.as_bytes());
        assert_eq!(front.escape_ascii().to_string(), worker.escape_ascii().to_string(), "{text}");
    }
}

#[test]
fn what_may_change_something_is_the_workers() {
    let (mut cache, mut shared) = both();
    of_worker(&mut cache, 1, b"set a 7 0 3\r\nabc\r\n");
    for text in [
        "mg a T10\r\n",
        "mg a N10\r\n",
        "mg a R10\r\n",
        "gat 10 a\r\n",
        "set a 0 0 1\r\nx\r\n",
        "md a\r\n",
        "ma a\r\n",
        "ms a 1\r\nx\r\n",
        "stats\r\n",
        "flush_all\r\n",
        "foo\r\n",
    ] {
        let result = of_front(&mut shared, 1, text.as_bytes());
        assert_eq!(result, Err(Forward::Request), "{text}");
    }
    // Stale, and nobody was told yet: who is told must be noted.
    of_worker(&mut cache, 1, b"md a I\r\n");
    assert_eq!(of_front(&mut shared, 1, b"mg a v\r\n"), Err(Forward::Request));
    of_worker(&mut cache, 1, b"mg a v\r\n");
    assert_eq!(of_front(&mut shared, 1, b"mg a v\r\n").unwrap(), b"VA 3 Z X\r\nabc\r\n");
    // Without a lease the worker has to say why.
    cache.table_mut().set_valid_until(1);
    assert!(matches!(of_front(&mut shared, 1, b"get a\r\n"), Err(Forward::Table(_))));
}
