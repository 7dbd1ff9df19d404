//! The embedded store through deaths and full disks, in a process of its own: this very test, started
//! again with a store to write to.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nautilus_control::store::embedded::{Embedded, Options};
use nautilus_control::store::{Revision, Store, StoreError, Transaction, Watched};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const STORE: &str = "STORE_CRASH_PATH";
const UNTIL_FULL: &str = "STORE_CRASH_UNTIL_FULL";

/// Keys that each transaction of the writer puts, in this number of values of differing length.
const KEYS: u32 = 4;

fn open(path: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(path, Options { history_revisions: 10_000_000, ..Options::default() })
}

/// The writer's transaction number `number`: every key gets it, with a filling that moves pages.
fn numbered(number: u64) -> Transaction {
    (0..KEYS).fold(Transaction::new(), |transaction, key| {
        let filling = "x".repeat(usize::try_from(number * 37 % 900).unwrap());
        transaction.put(format!("key/{key}"), format!("{number} {filling}"))
    })
}

/// The numbers in the store, which must be one.
fn number_in(store: &Embedded) -> u64 {
    let listing = store.list("key/").unwrap();
    let numbers: Vec<u64> = listing
        .entries
        .iter()
        .map(|entry| {
            let text = std::str::from_utf8(&entry.value).unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "half a transaction: {numbers:?}");
    assert!(numbers.is_empty() || numbers.len() == KEYS as usize);
    let number = numbers.first().copied().unwrap_or(0);
    assert_eq!(listing.revision, Revision(number), "a revision without its keys");
    number
}

/// The child: writes on from what it finds and says each number once it is acknowledged.
#[test]
#[ignore = "the child of the tests beside it, not a test"]
fn writer() {
    let Ok(path) = std::env::var(STORE) else { return };
    let store = open(Path::new(&path)).unwrap();
    let mut out = std::io::stdout().lock();
    let first = number_in(&store);
    writeln!(out, "acknowledged {first}").unwrap();
    for number in first + 1.. {
        match store.commit(&numbered(number)) {
            Ok(_) => writeln!(out, "acknowledged {number}").unwrap(),
            Err(error) => {
                writeln!(out, "failed {error}").unwrap();
                assert!(std::env::var(UNTIL_FULL).is_ok(), "{error}");
                assert!(matches!(error, StoreError::Full(_)), "{error:?}");
                // The same store, closed by itself, reads again while the disk is full ...
                let found = number_in(&store);
                assert!(found == number - 1 || found == number, "{found} after {number} failed");
                assert!(matches!(store.commit(&numbered(found + 1)), Err(StoreError::Full(_))));
                let found = number_in(&store);
                // ... and writes again once there is space.
                let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
                setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
                store.commit(&numbered(found + 1)).unwrap();
                assert_eq!(number_in(&store), found + 1);
                writeln!(out, "acknowledged {}", found + 1).unwrap();
                return;
            }
        }
        out.flush().unwrap();
    }
}

fn start(path: &Path, file_kib_max: Option<u32>) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    let limit = file_kib_max.map_or(String::new(), |kib| {
        // The shell counts in blocks of 512 bytes. The signal is ignored so that the write says EFBIG.
        format!("trap '' XFSZ; ulimit -S -f {}; ", kib * 2)
    });
    command.arg("-c").arg(format!("{limit}exec \"$0\" writer --exact --ignored --nocapture"));
    if file_kib_max.is_some() {
        command.env(UNTIL_FULL, "1");
    }
    command.arg(program).env(STORE, path).stdout(Stdio::piped()).spawn().unwrap()
}

fn acknowledged(line: &str) -> Option<u64> {
    // The harness prints the test's name on the line of the first.
    line.split("acknowledged ").nth(1)?.trim().parse().ok()
}

#[test]
fn a_killed_writer_leaves_every_acknowledged_transaction_and_no_half() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let kills = 60u64;
    let mut in_flight = 0;
    for kill in 0..kills {
        let mut child = start(&path, None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = None;
        // The first kills fall into the making and opening of the file, the others into commits.
        if kill >= 10 {
            let wanted = kill % 7;
            let mut count = 0;
            while count <= wanted {
                let Some(number) = acknowledged(&lines.next().unwrap().unwrap()) else { continue };
                last = Some(number);
                count += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(kill * 997 % 9_000));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).last().or(last);
        let store = open(&path).unwrap_or_else(|error| panic!("after kill {kill}: {error}"));
        let found = number_in(&store);
        let last = last.unwrap_or(found);
        assert!(found == last || found == last + 1, "{found} found, {last} acknowledged");
        in_flight += found - last;
        let mut watch = store.watch("key/", Revision(1)).unwrap();
        for number in 1..=found {
            let Watched::Changes(changes) = watch.next(Duration::ZERO).unwrap() else {
                panic!("transaction {number} is missing in the history");
            };
            assert_eq!((changes.revision.0, changes.changes.len()), (number, KEYS as usize));
        }
    }
    let store = open(&path).unwrap();
    println!("{kills} kills, {} transactions, {in_flight} in flight were whole", number_in(&store));
    assert!(number_in(&store) > 50, "the writer hardly wrote");
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(open(&path).unwrap());
    let bytes = std::fs::metadata(&path).unwrap().len();
    let limit_kib = u32::try_from(bytes / 1024).unwrap() + 300;
    let mut child = start(&path, Some(limit_kib));
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> = out.lines().map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{lines:#?}");
    let last = lines.iter().rev().find_map(|line| acknowledged(line)).unwrap();
    assert!(lines.iter().any(|line| line.contains("no space left")), "{lines:#?}");
    let store = open(&path).unwrap();
    let found = number_in(&store);
    assert_eq!(found, last, "the last one was acknowledged, after the full disk");
    println!("full after {last} transactions");
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).unwrap();
    store.commit(&numbered(1)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["writer", "--exact", "--ignored", "--nocapture"]).env(STORE, &path);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("InUse"), "{said}");
    store.commit(&numbered(2)).expect("the first is not disturbed");
}
