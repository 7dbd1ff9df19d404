//! Classic commands, as recorded from memcached 1.6.18: in this order, one server.

use super::*;

/// Requests and the joined answers to them.
const RECORDED: &[(&str, &str)] = &[
    ("set k 1 0 3\r\nabc\r\n", "STORED\r\n"),
    ("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
    ("add a 5 0 1\r\nx\r\n", "STORED\r\n"),
    ("replace a 6 0 2\r\nyy\r\n", "STORED\r\n"),
    ("replace missing 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
    ("append a 9 -1 2\r\nzz\r\n", "STORED\r\n"),
    ("prepend a 9 -1 1\r\n0\r\n", "STORED\r\n"),
    ("get a\r\n", "VALUE a 6 5\r\n0yyzz\r\nEND\r\n"),
    ("append missing 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
    ("prepend missing 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
    ("cas missing 0 0 1 5\r\nx\r\n", "NOT_FOUND\r\n"),
    ("cas a 0 0 1 0\r\nx\r\n", "EXISTS\r\n"),
    ("cas a 0 0 1 999999\r\nx\r\n", "EXISTS\r\n"),
    ("cas a 0 0 1\r\nx\r\n", "ERROR\r\nERROR\r\n"),
    ("cas a 0 0 1 x\r\nx\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"),
    ("cas a 0 0 1 1 noreply\r\nx\r\n", ""),
    ("set n 3 0 2\r\n10\r\n", "STORED\r\n"),
    ("incr n 5\r\n", "15\r\n"),
    ("decr n 10\r\n", "5\r\n"),
    ("get n\r\n", "VALUE n 3 2\r\n5 \r\nEND\r\n"),
    ("decr n 100\r\n", "0\r\n"),
    ("get n\r\n", "VALUE n 3 2\r\n0 \r\nEND\r\n"),
    ("incr n 1000\r\n", "1000\r\n"),
    ("get n\r\n", "VALUE n 3 4\r\n1000\r\nEND\r\n"),
    ("incr n 18446744073709551615\r\n", "999\r\n"),
    ("incr n -1\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
    ("incr n x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
    ("incr n x noreply\r\n", ""),
    ("incr n\r\n", "ERROR\r\n"),
    ("incr n 1 2 3\r\n", "ERROR\r\n"),
    ("incr k 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    ("incr missing 1\r\n", "NOT_FOUND\r\n"),
    ("decr missing 1\r\n", "NOT_FOUND\r\n"),
    ("incr n 1 noreply\r\n", ""),
    ("get n\r\n", "VALUE n 3 4\r\n1000\r\nEND\r\n"),
    (
        "set e 0 0 0\r\n\r\nincr e 1\r\n",
        "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    (
        "set e 0 0 6\r\n 12 x \r\nincr e 1\r\nget e\r\n",
        "STORED\r\n13\r\nVALUE e 0 6\r\n13    \r\nEND\r\n",
    ),
    (
        "set e 0 0 2\r\n-5\r\nincr e 1\r\n",
        "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    ("touch n 100\r\n", "TOUCHED\r\n"),
    ("touch missing 100\r\n", "NOT_FOUND\r\n"),
    ("touch n x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
    ("touch n 100 noreply\r\n", ""),
    ("touch n\r\n", "ERROR\r\n"),
    ("gat 100 n missing k\r\n", "VALUE n 3 4\r\n1000\r\nVALUE k 1 3\r\nabc\r\nEND\r\n"),
    ("gat 100\r\n", "END\r\n"),
    ("gat\r\n", "ERROR\r\n"),
    ("gat x k\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
    ("gat -1 k\r\nget k\r\n", "VALUE k 1 3\r\nabc\r\nEND\r\nEND\r\n"),
    ("verbosity 1\r\n", "OK\r\n"),
    ("verbosity\r\n", "ERROR\r\n"),
    ("verbosity x\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("verbosity 1 noreply\r\n", ""),
    ("verbosity noreply\r\n", ""),
    ("verbosity 1 2 3\r\n", "ERROR\r\n"),
    ("stats reset\r\n", "RESET\r\n"),
    ("stats foo\r\n", "ERROR\r\n"),
    ("shutdown\r\n", "ERROR: shutdown not enabled\r\n"),
    ("foo bar\r\n", "ERROR\r\n"),
    ("flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
    ("flush_all noreply\r\n", ""),
    ("get n\r\n", "END\r\n"),
    ("set k 0 0 1\r\nx\r\n", "STORED\r\n"),
    ("flush_all 100\r\n", "OK\r\n"),
    ("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n"),
    ("flush_all 0\r\n", "OK\r\n"),
    ("get k\r\n", "END\r\n"),
    ("flush_all -5\r\n", "OK\r\n"),
    ("flush_all 0 foo\r\n", "OK\r\n"),
    ("flush_all 0 foo bar\r\n", "ERROR\r\n"),
    ("flush_all noreply foo\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
];

#[test]
fn classic_commands_are_answered_as_recorded() {
    let mut cache = cache();
    for (text, answer) in RECORDED {
        assert_eq!(ask(&mut cache, text).concat(), *answer, "{text:?}");
    }
}

#[test]
fn a_flush_waits_for_its_time_and_another_takes_its_place() {
    let mut cache = cache();
    let second = 1_000_000_000;
    let get = |cache: &mut Cache, now_ns| ask_at(cache, now_ns, b"get k\r\n")[0].len() > 13;
    ask_at(&mut cache, second, b"set k 0 0 1\r\nx\r\nflush_all 10\r\n");
    cache.housekeeping(11 * second - 1, &mut Replies::default());
    assert!(get(&mut cache, 11 * second - 1));
    cache.housekeeping(11 * second, &mut Replies::default());
    assert!(!get(&mut cache, 11 * second));
    // What is stored before the time is forgotten with it; 0 forgets at once and takes the wait away.
    let text = b"flush_all 10\r\nflush_all 0\r\nset k 0 0 1\r\nx\r\n";
    ask_at(&mut cache, 11 * second, text);
    cache.housekeeping(30 * second, &mut Replies::default());
    assert!(get(&mut cache, 30 * second));
}

#[test]
fn a_client_cannot_change_or_flush_what_a_feed_publishes() {
    let owned = "SERVER_ERROR key belongs to a feed\r\n";
    let writes = [
        "set f 0 0 1\r\nx\r\n",
        "add f 0 0 1\r\nx\r\n",
        "replace f 0 0 1\r\nx\r\n",
        "append f 0 0 1\r\nx\r\n",
        "prepend f 0 0 1\r\nx\r\n",
        "cas f 0 0 1 1\r\nx\r\n",
        "set f 0 0 1048577\r\nx\r\n",
        "delete f\r\n",
        "incr f 1\r\n",
        "decr f 1\r\n",
        "touch f 10\r\n",
        "gat 10 k f\r\n",
        "ms f 1\r\nx\r\n",
        "ms f 1 MA\r\nx\r\n",
        "md f q\r\n",
        "md f I\r\n",
        "ma f\r\n",
        "ma f N0\r\n",
    ];
    let mut cache = cache();
    cache.put(b"f", b"7", 3, 1).unwrap();
    for live in [false, true] {
        if live {
            cache.set_channel(3, ChannelState::LiveUntil(u64::MAX - 1));
        }
        for text in writes {
            assert_eq!(ask(&mut cache, text), [owned], "{text:?}");
        }
        let vivified = if live { "HD\r\n" } else { "EN @s\r\n" };
        assert_eq!(ask(&mut cache, "mg f N10\r\n"), [vivified]);
    }
    assert_eq!(ask(&mut cache, "mg f T10\r\n"), [owned]);
    assert_eq!(
        ask(&mut cache, "set k 0 0 1\r\nx\r\nflush_all\r\nget k f\r\n")[2],
        "VALUE f 0 1\r\n7\r\nEND\r\n"
    );
    assert_eq!(cache.counts().errors(CacheError::FeedOwned), 2 * writes.len() as u64 + 1);
}

#[test]
fn stats_are_shown_reset_and_bounded() {
    let mut cache = cache();
    ask(&mut cache, "set k 0 0 1\r\n5\r\nget k\r\nget m\r\nincr k 1\r\ncas k 0 0 1 1\r\nx\r\n");
    let stat = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.map(str::to_owned)
    };
    let general = joined(&ask_at(&mut cache, 1, b"stats\r\n"));
    let general = String::from_utf8(general).unwrap();
    assert!(general.ends_with("END\r\n") && general.len() < 2 * 1392, "{}", general.len());
    for (name, value) in [
        ("curr_items", "1"),
        ("cmd_get", "2"),
        ("get_hits", "1"),
        ("get_misses", "1"),
        ("cmd_set", "1"),
        ("incr_hits", "1"),
        ("cas_badval", "1"),
        ("total_items", "1"),
        ("version", concat!("1.6.18-nautilus-", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(stat(&general, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(ask(&mut cache, "stats reset\r\n"), ["RESET\r\n"]);
    let general = String::from_utf8(joined(&ask_at(&mut cache, 1, b"stats\r\n"))).unwrap();
    assert_eq!(stat(&general, "cmd_get").as_deref(), Some("0"));
    assert_eq!(stat(&general, "curr_items").as_deref(), Some("1"));
    assert!(ask(&mut cache, "stats items\r\n")[0].contains("STAT items:1:number 1\r\n"));
    let refused = "SERVER_ERROR too many stats requests\r\n";
    assert_eq!(ask(&mut cache, &"stats\r\n".repeat(50)), vec![refused; 50]);
    cache.housekeeping(2, &mut Replies::default());
    assert!(ask(&mut cache, "stats slabs\r\n")[0].contains("STAT active_slabs 1\r\n"));
    assert!(ask(&mut cache, "stats settings\r\n")[0].contains("STAT item_size_max 1048576\r\n"));
    assert_eq!(cache.counts().errors(CacheError::Throttled), 50);
}

#[test]
fn large_values_grow_to_the_limit_and_no_further() {
    let mut cache = cache();
    let put = vec![b'a'; VALUE_BYTES_MAX - 1000];
    cache.put(b"k", &put, 0, 1).unwrap();
    let append = |bytes: usize| format!("append k 0 0 {bytes}\r\n{}\r\n", "b".repeat(bytes));
    assert_eq!(ask(&mut cache, &append(1001)), ["NOT_STORED\r\n"]);
    assert_eq!(ask(&mut cache, &append(999)), ["STORED\r\n"]);
    assert_eq!(ask(&mut cache, "prepend k 0 0 1\r\nc\r\n"), ["STORED\r\n"]);
    let mut text = Vec::new();
    let Next::Request(get, _) = parse::next(b"get k\r\n") else { panic!() };
    cache.execute(1, Permissions::ALL, &get, |piece| text.extend_from_slice(piece));
    let value = ["c".to_string(), "a".repeat(put.len()), "b".repeat(999)].concat();
    assert_eq!(text, format!("VALUE k 0 1048576\r\n{value}\r\nEND\r\n").into_bytes());
}

#[test]
fn one_datagram_cannot_ask_for_more_than_one_long_reply() {
    let mut cache = cache();
    cache.put(b"k", &vec![0; 60_000], 0, 1).unwrap();
    let replies = ask_at(&mut cache, 1, &b"get k\r\n".repeat(100));
    assert_eq!(replies.len(), 44 + 99);
    assert_eq!(cache.counts().errors(CacheError::ReplyTooLarge), 99);
    let replies = ask_at(&mut cache, 1, b"mg k v\r\nmg k\r\n");
    assert_eq!(replies.len(), 44 + 1);
}
