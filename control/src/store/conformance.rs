//! The contract of [`Store`] as a suite that any implementation runs: [`run`] with a way to make one.
//!
//! It assumes only what the trait says. Revisions may begin anywhere and other keys may lie beside the
//! subject's prefix, so a shared server will do; leases may be rounded up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{
    Change, Changes, Compare, LeaseId, OPERATIONS_MAX, Outcome, Revision, Store, StoreError,
    Transaction, Watch, Watched,
};

/// A store under test.
pub trait Subject {
    /// The store; the caller drops its handle before [`Self::restart`].
    fn store(&self) -> Arc<dyn Store>;

    /// What every key of this subject begins with; no other subject's keys do.
    fn prefix(&self) -> String;

    /// Closes the store and opens it again on the same data.
    fn restart(&mut self);
}

/// One part of the contract.
pub type Case = fn(&mut dyn Subject);

/// Every part, by name.
pub const CASES: [(&str, Case); 12] = [
    ("revisions and versions count", revisions_and_versions_count),
    ("a refused transaction changes nothing", a_refused_transaction_changes_nothing),
    ("every comparison means what it says", every_comparison_means_what_it_says),
    ("nothing changed takes no revision", nothing_changed_takes_no_revision),
    ("bad requests are refused whole", bad_requests_are_refused_whole),
    ("a counter loses no increment", a_counter_loses_no_increment),
    ("a list never shows half a transaction", a_list_never_shows_half_a_transaction),
    ("watches are whole and in order under writers", watches_are_whole_and_in_order),
    ("a compacted watch says so", a_compacted_watch_says_so),
    ("a lease ends with its keys", a_lease_ends_with_its_keys),
    ("a kept lease lives, a revoked one does not", a_kept_lease_lives_a_revoked_one_does_not),
    ("everything outlives a restart", everything_outlives_a_restart),
];

/// Long enough for any answer; a watch that takes longer has lost something.
const SOON: Duration = Duration::from_secs(10);

/// Runs every case on a subject of its own. Panics at the first that fails, after printing its name.
pub fn run(make: &mut dyn FnMut() -> Box<dyn Subject>) {
    for (name, case) in CASES {
        println!("store: {name}");
        case(make().as_mut());
    }
}

fn committed(store: &dyn Store, transaction: &Transaction) -> Revision {
    let outcome = store.commit(transaction).expect("a commit");
    outcome.committed().unwrap_or_else(|| panic!("{transaction:?} was refused: {outcome:?}"))
}

/// The next transaction of a watch.
fn next(watch: &mut dyn Watch) -> Changes {
    match watch.next(SOON).expect("a watch") {
        Watched::Changes(changes) => changes,
        other => panic!("changes were expected, not {other:?}"),
    }
}

fn revisions_and_versions_count(subject: &mut dyn Subject) {
    let (store, key) = (subject.store(), subject.prefix() + "a");
    assert_eq!(store.get(&key).unwrap(), None);
    let first = committed(&*store, &Transaction::new().put(&key, "1"));
    let second = committed(&*store, &Transaction::new().put(&key, "2"));
    assert!(second > first);
    let entry = store.get(&key).unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.modify_revision), (first, second));
    assert_eq!((entry.version, entry.value.as_slice(), entry.lease), (2, &b"2"[..], None));
    committed(&*store, &Transaction::new().delete(&key));
    assert_eq!(store.get(&key).unwrap(), None);
    let again = committed(&*store, &Transaction::new().put(&key, "3"));
    let entry = store.get(&key).unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.version), (again, 1), "a new life begins at 1");
}

fn a_refused_transaction_changes_nothing(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let (a, b) = (format!("{prefix}a"), format!("{prefix}b"));
    committed(&*store, &Transaction::new().put(&a, "1"));
    let before = store.list(&prefix).unwrap();
    let both = Transaction::new()
        .when(&a, Compare::Present)
        .when(&b, Compare::Present)
        .put(&a, "2")
        .put(&b, "2");
    let Outcome::Refused { current, .. } = store.commit(&both).unwrap() else {
        panic!("b is absent");
    };
    assert_eq!(current, [Some(before.entries[0].clone()), None], "what the conditions met");
    assert_eq!(store.list(&prefix).unwrap().entries, before.entries);
}

fn every_comparison_means_what_it_says(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let (key, absent, mark) = (prefix.clone() + "k", prefix.clone() + "none", prefix + "mark");
    let created = committed(&*store, &Transaction::new().put(&key, "1"));
    let modified = committed(&*store, &Transaction::new().put(&key, "2"));
    let compares = [
        (Compare::Absent, false, true),
        (Compare::Present, true, false),
        (Compare::CreatedAt(created), true, false),
        (Compare::CreatedAt(modified), false, false),
        (Compare::ModifiedAt(modified), true, false),
        (Compare::ModifiedAt(created), false, false),
        (Compare::Value(b"2".into()), true, false),
        (Compare::Value(b"1".into()), false, false),
        (Compare::Value(Vec::new()), false, false),
    ];
    for (compare, of_key, of_absent) in compares {
        for (asked, holds) in [(&key, of_key), (&absent, of_absent)] {
            let transaction = Transaction::new().when(asked, compare.clone()).put(&mark, "");
            let outcome = store.commit(&transaction).unwrap();
            assert_eq!(outcome.committed().is_some(), holds, "{compare:?} of {asked}");
        }
    }
}

fn nothing_changed_takes_no_revision(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let first = committed(&*store, &Transaction::new().put(format!("{prefix}a"), "1"));
    for transaction in [
        Transaction::new(),
        Transaction::new().delete(format!("{prefix}none")),
        Transaction::new().delete_prefix(format!("{prefix}none/")),
    ] {
        assert_eq!(committed(&*store, &transaction), first, "{transaction:?}");
    }
}

fn bad_requests_are_refused_whole(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let good = Transaction::new().put(format!("{prefix}good"), "");
    let twice = good.clone().put(format!("{prefix}x"), "").delete(format!("{prefix}x"));
    assert!(matches!(store.commit(&twice), Err(StoreError::Duplicate(_))));
    let nameless = good.clone().put("", "");
    assert!(matches!(store.commit(&nameless), Err(StoreError::Key(_))));
    let many = (0..=OPERATIONS_MAX).fold(good.clone(), |t, i| t.put(format!("{prefix}{i}"), ""));
    assert!(matches!(store.commit(&many), Err(StoreError::Operations(_))));
    let gone = LeaseId(i64::MAX - 7);
    let leased = good.put_under(gone, format!("{prefix}x"), "");
    assert!(matches!(store.commit(&leased), Err(StoreError::NoLease(lease)) if lease == gone));
    assert!(matches!(store.grant(Duration::ZERO), Err(StoreError::Ttl(_))));
    assert!(matches!(store.keep_alive(gone), Err(StoreError::NoLease(_))));
    assert!(matches!(store.revoke(gone), Err(StoreError::NoLease(_))));
    let ahead = Revision(store.list(&prefix).unwrap().revision.0 + 1_000_000);
    assert!(matches!(store.compact(ahead), Err(StoreError::Future { .. })));
    assert_eq!(store.list(&prefix).unwrap().entries, []);
}

fn a_counter_loses_no_increment(subject: &mut dyn Subject) {
    let (store, key) = (subject.store(), subject.prefix() + "counter");
    committed(&*store, &Transaction::new().put(&key, "0"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| increment(&*store, &key)));
        }
    });
    let entry = store.get(&key).unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.version), (&b"40"[..], 41));
}

fn increment(store: &dyn Store, key: &str) {
    loop {
        let entry = store.get(key).unwrap().unwrap();
        let number: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        let transaction = Transaction::new()
            .when(key, Compare::ModifiedAt(entry.modify_revision))
            .put(key, (number + 1).to_string());
        if store.commit(&transaction).unwrap().committed().is_some() {
            return;
        }
    }
}

fn a_list_never_shows_half_a_transaction(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                let keys = (0..5).map(|index| format!("{prefix}{index}"));
                let put = keys.fold(Transaction::new(), |t, key| t.put(key, round.to_string()));
                committed(&*store, &put);
            }
            is_done.store(true, Ordering::Release);
        });
        let mut last = Revision(0);
        while !is_done.load(Ordering::Acquire) {
            let listing = store.list(&prefix).unwrap();
            let values: Vec<&[u8]> = listing.entries.iter().map(|e| e.value.as_slice()).collect();
            assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "half: {values:?}");
            assert!(values.is_empty() || values.len() == 5);
            assert!(listing.revision >= last, "the store went back");
            last = listing.revision;
            let newest = listing.entries.iter().map(|entry| entry.modify_revision).max();
            assert!(newest.is_none_or(|newest| newest <= listing.revision));
        }
    });
}

fn watches_are_whole_and_in_order(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let from = store.list(&prefix).unwrap().revision.next();
    let mut early = store.watch(&format!("{prefix}w/"), from).unwrap();
    assert_eq!(early.next(Duration::from_millis(20)).unwrap(), Watched::Idle);
    let mut expected: BTreeMap<Revision, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (store, prefix) = (&store, &prefix);
                scope.spawn(move || {
                    let mut made = Vec::new();
                    for round in 0..15 {
                        let key = |part: u32| format!("{prefix}w/{writer}/{part}");
                        let put = Transaction::new().put(key(0), round.to_string());
                        let put = put.put(key(1), "").put(format!("{prefix}other/{writer}"), "");
                        made.push((committed(&**store, &put), 2));
                        committed(
                            &**store,
                            &Transaction::new().put(format!("{prefix}other/{writer}"), "x"),
                        );
                        let gone = Transaction::new().delete_prefix(format!("{prefix}w/{writer}/"));
                        made.push((committed(&**store, &gone), 2));
                    }
                    made
                })
            })
            .collect();
        expected.extend(writers.into_iter().flat_map(|writer| writer.join().unwrap()));
    });
    let mut late = store.watch(&format!("{prefix}w/"), from).unwrap();
    for (revision, count) in &expected {
        let changes = next(&mut *early);
        assert_eq!((changes.revision, changes.changes.len()), (*revision, *count), "in order");
        let keys: Vec<&str> = changes.changes.iter().map(Change::key).collect();
        assert!(keys.is_sorted() && keys.iter().all(|key| key.starts_with(&format!("{prefix}w/"))));
        assert_eq!(changes, next(&mut *late), "a late watch sees the same");
    }
    assert_eq!(early.next(Duration::from_millis(20)).unwrap(), Watched::Idle, "nothing twice");
}

fn a_compacted_watch_says_so(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let put = |value: &str| {
        committed(&*store, &Transaction::new().put(format!("{prefix}k"), value.to_owned()))
    };
    let first = put("1");
    let (second, third) = (put("2"), put("3"));
    let mut held = store.watch(&prefix, first).unwrap();
    store.compact(second).unwrap();
    store.compact(first).expect("an older compaction is nothing");
    let mut watches = [held, store.watch(&prefix, first).unwrap()];
    for watch in &mut watches {
        match watch.next(SOON).unwrap() {
            Watched::Compacted { oldest } => assert!(oldest > first && oldest <= third),
            // A watch made before may have read ahead; then all of it comes.
            Watched::Changes(changes) => assert_eq!(changes.revision, first),
            Watched::Idle => panic!("neither the changes nor that they are gone"),
        }
    }
    held = store.watch(&prefix, third).unwrap();
    assert_eq!(next(&mut *held).revision, third, "what is kept is delivered");
    assert_eq!(
        store.get(&format!("{prefix}k")).unwrap().unwrap().version,
        3,
        "and nothing is lost"
    );
}

fn a_lease_ends_with_its_keys(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let granted = Instant::now();
    let lease = store.grant(Duration::from_secs(1)).unwrap();
    assert!(lease.ttl >= Duration::from_secs(1));
    let (a, b, free) = (format!("{prefix}a"), format!("{prefix}b"), format!("{prefix}free"));
    let put = Transaction::new().put_under(lease.id, &a, "").put_under(lease.id, &b, "");
    committed(&*store, &put.put_under(lease.id, &free, ""));
    // Put again without the lease: it stays.
    let from = committed(&*store, &Transaction::new().put(&free, "")).next();
    let mut watch = store.watch(&prefix, from).unwrap();
    let Watched::Changes(changes) = watch.next(SOON + lease.ttl).unwrap() else {
        panic!("the lease has not ended");
    };
    assert!(granted.elapsed() >= Duration::from_secs(1), "not before its time");
    let deleted: Vec<&str> = changes.changes.iter().map(Change::key).collect();
    assert_eq!(deleted, [&a, &b], "both in one revision");
    assert!(store.get(&free).unwrap().is_some());
    assert!(matches!(store.keep_alive(lease.id), Err(StoreError::NoLease(_))));
    let late = Transaction::new().put_under(lease.id, &a, "");
    assert!(matches!(store.commit(&late), Err(StoreError::NoLease(_))));
}

fn a_kept_lease_lives_a_revoked_one_does_not(subject: &mut dyn Subject) {
    let (store, prefix) = (subject.store(), subject.prefix());
    let key = format!("{prefix}k");
    let lease = store.grant(Duration::from_secs(2)).unwrap();
    committed(&*store, &Transaction::new().put_under(lease.id, &key, ""));
    let until = Instant::now() + lease.ttl + Duration::from_secs(1);
    while Instant::now() < until {
        let kept = store.keep_alive(lease.id).unwrap();
        assert!(kept.left > lease.ttl / 2, "a keepalive gives the whole time again");
        sleep(Duration::from_millis(200));
    }
    assert_eq!(store.get(&key).unwrap().unwrap().lease, Some(lease.id));
    let other = store.grant(Duration::from_secs(60)).unwrap();
    assert_ne!(other.id, lease.id);
    store.revoke(lease.id).unwrap();
    assert_eq!(store.get(&key).unwrap(), None);
    assert!(matches!(store.lease(lease.id), Err(StoreError::NoLease(_))));
    assert!(store.lease(other.id).unwrap().left > Duration::from_secs(30));
    store.revoke(other.id).unwrap();
}

fn everything_outlives_a_restart(subject: &mut dyn Subject) {
    let prefix = subject.prefix();
    let store = subject.store();
    let lease = store.grant(Duration::from_secs(5)).unwrap();
    let (plain, leased) = (format!("{prefix}a"), format!("{prefix}b"));
    let first = committed(&*store, &Transaction::new().put(&plain, "1"));
    committed(&*store, &Transaction::new().put(&plain, "2").put_under(lease.id, &leased, ""));
    let before = store.list(&prefix).unwrap();
    drop(store);
    subject.restart();
    let store = subject.store();
    let after = store.list(&prefix).unwrap();
    assert_eq!(after.entries, before.entries);
    assert!(after.revision >= before.revision);
    let mut watch = store.watch(&prefix, first).unwrap();
    assert_eq!(next(&mut *watch).revision, first, "changes from before are still there");
    assert_eq!(next(&mut *watch).changes.len(), 2);
    store.keep_alive(lease.id).expect("a lease outlives a restart");
    let newer = store.grant(Duration::from_secs(5)).unwrap();
    assert_ne!(newer.id, lease.id, "no number twice");
    store.revoke(newer.id).unwrap();
    store.revoke(lease.id).unwrap();
    assert_eq!(store.get(&leased).unwrap(), None, "its keys are still bound to it");
}
