//! Requests of sources that may not do everything.

use super::*;
use crate::net::Prefix;

const DENIED: [&str; 3] = [
    "CLIENT_ERROR permission denied: this source may not read\r\n",
    "CLIENT_ERROR permission denied: this source may not write\r\n",
    "CLIENT_ERROR permission denied: this source may not administer\r\n",
];

/// The requests of the tests' source may do this much.
fn allowing(cache: Cache, permissions: Permissions) -> Cache {
    let source: Prefix = "198.18.0.2/32".parse().unwrap();
    let list = AccessList::new(vec![(source, permissions)]);
    CacheApp { asked: None, ..cache }.with_access(list)
}

fn filled() -> Cache {
    let mut cache = cache();
    assert_eq!(ask(&mut cache, "set k 7 0 2\r\n10\r\n"), ["STORED\r\n"]);
    cache
}

#[test]
fn a_reader_reads_and_changes_nothing() {
    let mut cache = allowing(filled(), Permissions::READ);
    assert_eq!(ask(&mut cache, "get k\r\n"), ["VALUE k 7 2\r\n10\r\nEND\r\n"]);
    assert_eq!(ask(&mut cache, "get k k\r\nmg k v\r\n").len(), 2);
    for text in [
        "set k 0 0 1\r\nx\r\n",
        "add n 0 0 1\r\nx\r\n",
        "append k 0 0 1\r\nx\r\n",
        "cas k 0 0 1 1\r\nx\r\n",
        "delete k\r\n",
        "incr k 1\r\n",
        "touch k 1\r\n",
        "gat 1 k\r\n",
        "ms k 1\r\nx\r\n",
        "md k\r\n",
        "ma k\r\n",
        "mg k v T1\r\n",
        "mg n N1\r\n",
        "set k 0 0 2000000\r\n",
    ] {
        assert_eq!(ask(&mut cache, text), [DENIED[1]], "{text:?}");
    }
    for text in ["flush_all\r\n", "verbosity 1\r\n", "stats reset\r\n"] {
        assert_eq!(ask(&mut cache, text), [DENIED[2]], "{text:?}");
    }
    assert_eq!(ask(&mut cache, "delete k noreply\r\nflush_all noreply\r\n"), [""; 0]);
    assert_eq!(ask(&mut cache, "get k\r\nget n\r\n"), ["VALUE k 7 2\r\n10\r\nEND\r\n", "END\r\n"]);
    assert_eq!(cache.counts().errors(CacheError::Forbidden), 19);
}

#[test]
fn a_writer_hears_nothing_of_values_and_an_administrator_only_administers() {
    let mut cache = allowing(filled(), Permissions::WRITE);
    for text in ["get k\r\n", "gets k\r\n", "mg k v\r\n", "me k\r\n", "gat 1 k\r\n", "incr k 1\r\n"]
    {
        assert_eq!(ask(&mut cache, text), [DENIED[0]], "{text:?}");
    }
    assert_eq!(
        ask(&mut cache, "set k 0 0 1\r\nx\r\ndelete n\r\n"),
        ["STORED\r\n", "NOT_FOUND\r\n"]
    );
    assert_eq!(ask(&mut cache, "flush_all\r\n"), [DENIED[2]]);
    let mut cache = allowing(cache, Permissions::ADMIN);
    assert_eq!(ask(&mut cache, "get k\r\nset k 0 0 1\r\ny\r\n"), [DENIED[0], DENIED[1]]);
    assert_eq!(ask(&mut cache, "flush_all\r\nversion\r\n")[0], "OK\r\n");
    let mut cache = allowing(cache, Permissions::READ);
    assert_eq!(ask(&mut cache, "get k\r\n"), ["END\r\n"]);
}

/// Whoever cannot store what it fetches must not be the one who is told to.
#[test]
fn a_reader_does_not_win_what_is_stale() {
    let mut cache = filled();
    assert_eq!(ask(&mut cache, "md k I T30\r\n"), ["HD\r\n"]);
    let mut cache = allowing(cache, Permissions::READ);
    for _ in 0..2 {
        assert_eq!(ask(&mut cache, "mg k v\r\n"), ["VA 2 X\r\n10\r\n"]);
    }
    let mut cache = allowing(cache, Permissions::READ.with(Permissions::WRITE));
    assert_eq!(ask(&mut cache, "mg k v\r\n"), ["VA 2 X W\r\n10\r\n"]);
}

#[test]
fn who_may_nothing_is_not_answered_and_the_steering_program_knows_best() {
    let mut cache = allowing(filled(), Permissions::NONE);
    assert_eq!(ask(&mut cache, "get k\r\n"), [""; 0]);
    assert_eq!(ask(&mut cache, "version\r\n"), [""; 0]);
    assert_eq!(cache.counts().errors(CacheError::Forbidden), 2);

    struct Judged(Requests, Permissions);
    impl Burst for Judged {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize) -> Datagram<'_> {
            Datagram { permissions: Some(self.1), ..self.0.get(index) }
        }
    }
    for (permissions, answers) in
        [(Permissions::READ, 1), (Permissions::WRITE, 1), (Permissions::NONE, 0)]
    {
        let mut replies = Replies::default();
        let burst = Judged(Requests(vec![datagram(b"get k\r\n")]), permissions);
        cache.handle(1, &burst, &mut replies);
        assert_eq!(replies.0.len(), answers);
        let value = replies.0.iter().any(|reply| reply.ends_with(b"10\r\nEND\r\n"));
        assert_eq!(value, permissions == Permissions::READ);
    }
}
