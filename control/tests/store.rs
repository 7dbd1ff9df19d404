//! The embedded store: the contract's suite, a model beside it, a second process, damaged files, a full disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nautilus_control::store::conformance::{self, Subject};
use nautilus_control::store::embedded::{Clock, Embedded, Options};
use nautilus_control::store::model::Model;
use nautilus_control::store::{
    Compare, LeaseId, Revision, Store, StoreError, Transaction, Watched,
};
use proptest::prelude::*;

struct EmbeddedSubject {
    folder: tempfile::TempDir,
    store: Option<Arc<Embedded>>,
}

impl EmbeddedSubject {
    fn new() -> Self {
        let mut subject = Self { folder: tempfile::tempdir().unwrap(), store: None };
        subject.restart();
        subject
    }
}

impl Subject for EmbeddedSubject {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn prefix(&self) -> String {
        "suite/".into()
    }

    fn restart(&mut self) {
        if let Some(store) = self.store.take() {
            assert_eq!(Arc::strong_count(&store), 1, "the case holds a handle");
        }
        let path = self.folder.path().join("control.redb");
        self.store = Some(Arc::new(Embedded::open(&path, Options::default()).unwrap()));
    }
}

#[test]
fn the_embedded_store_keeps_the_contract() {
    conformance::run(&mut || Box::new(EmbeddedSubject::new()));
}

/// A clock that stands until it is set.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// What a random history does next.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, u8)>, Vec<(u8, u8, Option<usize>)>),
    Grant(u8),
    Keep(usize),
    Revoke(usize),
    Pass(u8),
    Compact(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let condition = (0..6u8, 0..5u8);
    let operation = (0..6u8, 0..8u8, proptest::option::of(0..4usize));
    prop_oneof![
        8 => (proptest::collection::vec(condition, 0..3), proptest::collection::vec(operation, 0..4))
            .prop_map(|(conditions, operations)| Step::Commit(conditions, operations)),
        2 => (1..20u8).prop_map(Step::Grant),
        1 => (0..4usize).prop_map(Step::Keep),
        1 => (0..4usize).prop_map(Step::Revoke),
        2 => (0..12u8).prop_map(Step::Pass),
        1 => (0..10u8).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

/// A key of a few, some below others.
fn key(number: u8) -> String {
    ["a", "a/x", "a/y", "b", "b/x", "ü"][usize::from(number % 6)].into()
}

fn transaction(
    conditions: &[(u8, u8)],
    operations: &[(u8, u8, Option<usize>)],
    model: &Model,
    leases: &[LeaseId],
) -> Transaction {
    let mut transaction = Transaction::new();
    for (number, compare) in conditions {
        let entry = model.entries.get(&key(*number));
        let compare = match compare {
            0 => Compare::Absent,
            1 => Compare::Present,
            2 => Compare::CreatedAt(entry.map_or(Revision(1), |entry| entry.create_revision)),
            3 => Compare::ModifiedAt(entry.map_or(Revision(1), |entry| entry.modify_revision)),
            _ => Compare::Value(vec![*number]),
        };
        transaction = transaction.when(key(*number), compare);
    }
    for (number, what, lease) in operations {
        let lease = lease.and_then(|index| leases.get(index % leases.len().max(1)));
        transaction = match (what, lease) {
            (0, _) => transaction.delete(key(*number)),
            (1, _) => transaction.delete_prefix(key(*number)),
            (what, Some(lease)) => transaction.put_under(*lease, key(*number), vec![*what]),
            (what, None) => transaction.put(key(*number), vec![*what]),
        };
    }
    transaction
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_is_the_models(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let clock = Arc::new(SetClock::default());
        let options = Options { history_revisions: 1_000, clock: Some(clock.clone()) };
        let mut store = Embedded::open(&path, options.clone()).unwrap();
        let mut model = Model::default();
        // Lease, time to live, deadline; those that ended stay, to be asked for again.
        let mut leases: Vec<(LeaseId, u64, u64)> = Vec::new();
        let mut compacted = Revision(0);
        for step in steps {
            let now = clock.0.load(Ordering::Relaxed);
            // Ended leases leave the model where the store may first notice: at any write.
            if !matches!(step, Step::Keep(_) | Step::Pass(_) | Step::Restart) {
                store.end_due_leases().unwrap();
                for (lease, _, _) in leases.iter().filter(|(_, _, at)| *at <= now) {
                    model.end_lease(*lease);
                }
            }
            match step {
                Step::Commit(conditions, operations) => {
                    let ids: Vec<LeaseId> = leases.iter().map(|(id, ..)| *id).collect();
                    let wanted = transaction(&conditions, &operations, &model, &ids);
                    match store.commit(&wanted) {
                        Err(StoreError::Duplicate(_)) => prop_assert!(wanted.check().is_err()),
                        Err(StoreError::NoLease(_)) => prop_assert_eq!(model.commit(&wanted), None),
                        other => prop_assert_eq!(Some(other.unwrap()), model.commit(&wanted)),
                    }
                }
                Step::Grant(ttl) => {
                    let lease = store.grant(Duration::from_secs(ttl.into())).unwrap();
                    model.grant(lease.id);
                    leases.push((lease.id, ttl.into(), now + u64::from(ttl)));
                }
                Step::Keep(index) => {
                    let count = leases.len().max(1);
                    if let Some((id, ttl, at)) = leases.get_mut(index % count) {
                        let is_alive = *at > now;
                        prop_assert_eq!(store.keep_alive(*id).is_ok(), is_alive);
                        if is_alive { *at = now + *ttl; }
                    }
                }
                Step::Revoke(index) => {
                    let count = leases.len().max(1);
                    if let Some((id, _, at)) = leases.get_mut(index % count) {
                        prop_assert_eq!(store.revoke(*id).is_ok(), model.end_lease(*id));
                        *at = 0;
                    }
                }
                Step::Pass(seconds) => { clock.0.fetch_add(seconds.into(), Ordering::Relaxed); }
                Step::Compact(back) => {
                    compacted = compacted.max(Revision(model.revision.0.saturating_sub(back.into())));
                    store.compact(compacted).unwrap();
                }
                Step::Restart => {
                    // What is due ends first: a restart gives the others their time again.
                    store.end_due_leases().unwrap();
                    for (lease, ttl, at) in &mut leases {
                        if *at <= now { model.end_lease(*lease); *at = 0; } else { *at = now + *ttl; }
                    }
                    drop(store);
                    store = Embedded::open(&path, options.clone()).unwrap();
                }
            }
        }
        let listing = store.list("").unwrap();
        prop_assert_eq!(listing.revision, model.revision);
        prop_assert_eq!(listing.entries, model.entries.values().cloned().collect::<Vec<_>>());
        for prefix in ["", "a", "a/", "b/x", "none"] {
            let mut watch = store.watch(prefix, compacted.next()).unwrap();
            for expected in model.changes_since(prefix, compacted.next()) {
                prop_assert_eq!(watch.next(Duration::ZERO).unwrap(), Watched::Changes(expected));
            }
            prop_assert_eq!(watch.next(Duration::ZERO).unwrap(), Watched::Idle);
        }
    }
}

fn path_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("store.redb")
}

#[test]
fn history_is_bounded_and_a_slow_reader_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { history_revisions: 10, ..Options::default() };
    let store = Embedded::open(&path_in(&folder), options).unwrap();
    let mut slow = store.watch("", Revision(1)).unwrap();
    for number in 0..50 {
        store.commit(&Transaction::new().put("k", number.to_string())).unwrap();
    }
    let Watched::Compacted { oldest } = slow.next(Duration::ZERO).unwrap() else {
        panic!("its changes are still there");
    };
    assert!((31..=41).contains(&oldest.0), "10 to 20 revisions are kept, not from {oldest:?}");
    let mut watch = store.watch("", oldest).unwrap();
    let mut count = 0;
    while let Watched::Changes(_) = watch.next(Duration::ZERO).unwrap() {
        count += 1;
    }
    assert_eq!(count, 50 - oldest.0 + 1);
}

#[test]
fn a_second_opening_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&path_in(&folder), Options::default()).unwrap();
    let error = Embedded::open(&path_in(&folder), Options::default()).err().unwrap();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another process has this store open"), "{error}");
    drop(store);
    Embedded::open(&path_in(&folder), Options::default()).expect("free again");
}

#[test]
fn a_watch_ends_with_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Mutex::new(Some(Embedded::open(&path_in(&folder), Options::default()).unwrap()));
    let mut watch = store.lock().unwrap().as_ref().unwrap().watch("", Revision(1)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || watch.next(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(50));
        drop(store.lock().unwrap().take());
        assert!(matches!(waiting.join().unwrap(), Err(StoreError::Closed)));
    });
}

#[test]
fn a_damaged_file_is_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let store = Embedded::open(&path, Options::default()).unwrap();
    for number in 0..20 {
        let put = Transaction::new().put(format!("key/{number}"), vec![number; 300]);
        store.commit(&put).unwrap();
    }
    let expected = store.list("").unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let (mut refused, mut whole) = (0, 0);
    // A prime stride, so that every part of a page is met somewhere.
    for position in (0..good.len()).step_by(good.len() / 331 + 2) {
        let mut bad = good.clone();
        bad[position] ^= 0x41;
        let path = folder.path().join(format!("bad-{position}"));
        std::fs::write(&path, bad).unwrap();
        match Embedded::open(&path, Options::default()) {
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "{position}: {error}");
                refused += 1;
            }
            Ok(store) => {
                assert_eq!(store.list("").unwrap(), expected, "byte {position}");
                whole += 1;
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
    println!("{refused} damaged files refused, {whole} were whole all the same");
    assert!(refused > 0);
    for cut in [1, 100, good.len() / 2, good.len() - 1] {
        let path = folder.path().join(format!("cut-{cut}"));
        std::fs::write(&path, &good[..cut]).unwrap();
        let error = Embedded::open(&path, Options::default()).err().expect("a piece of a file");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{cut}: {error}");
    }
    let other = folder.path().join("text");
    std::fs::write(&other, "this is no store").unwrap();
    let error = Embedded::open(&other, Options::default()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read(&other).unwrap(), b"this is no store", "left as it was");
}
