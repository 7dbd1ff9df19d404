//! Histories recorded by real threads into two files, merged and judged by `nautilus-history`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended};
use std::sync::{Arc, Barrier, Mutex};

use nautilus_tests::history::{Input, Output, Recorder};

const KEYS: u64 = 20;
const EACH: u64 = 2_000;

fn judge(files: &[PathBuf]) -> (Option<i32>, String) {
    let Ended { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_nautilus-history"))
        .args(files)
        .output()
        .expect("the command runs");
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.code(), text.into_owned())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    ["a", "b"].map(|name| folder.join(format!("{name}.history"))).into()
}

#[test]
fn a_map_behind_a_lock_is_linearizable() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let map: Arc<Mutex<HashMap<u64, u64>>> = Arc::default();
    let start = Arc::new(Barrier::new(4));
    std::thread::scope(|scope| {
        for client in 0..4_u32 {
            let (map, start) = (map.clone(), start.clone());
            let file = &files[client as usize % 2];
            scope.spawn(move || {
                let mut log = Recorder::open(file).unwrap().client(client, 1);
                start.wait();
                for number in 0..EACH {
                    let key = number * 7 % KEYS;
                    if number % 3 == 0 {
                        let value = u64::from(client) << 32 | number;
                        let pending = log.begin(key, Input::Set { value });
                        map.lock().unwrap().insert(key, value);
                        pending.end(Output::Stored { version: None }).unwrap();
                    } else {
                        let pending = log.begin(key, Input::Get);
                        let value = map.lock().unwrap().get(&key).copied();
                        let hit = |value| Output::Value { value, version: None };
                        pending.end(value.map_or(Output::Miss, hit)).unwrap();
                    }
                }
            });
        }
    });
    let (code, text) = judge(&files);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("8000 operations on 20 keys, 0 without an answer"), "{text}");
}

/// What a build does that acknowledges before its second copy is published.
#[test]
fn a_copy_published_after_the_acknowledgement_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let mut writer = Recorder::open(&files[0]).unwrap().client(0, 1);
    let mut reader = Recorder::open(&files[1]).unwrap().client(1, 2);
    let (mut table, mut copy) = (0, 0);
    for value in 1..100 {
        let pending = writer.begin(9, Input::Set { value });
        table = value;
        if value != 77 {
            copy = value;
        }
        pending.end(Output::Stored { version: None }).unwrap();
        let read = Output::Value { value: copy, version: None };
        reader.begin(9, Input::Get).end(read).unwrap();
    }
    assert_eq!(table, 99);
    drop((writer, reader));
    let (code, text) = judge(&files);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("client 1 path 2  Get -> 0x4c"), "{text}");
}

#[test]
fn what_is_no_history_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, "a text").unwrap();
    let (code, text) = judge(&[file]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("not a history"), "{text}");
}
