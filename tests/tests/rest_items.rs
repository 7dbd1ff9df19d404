//! Items over REST against real nodes in a lab: what is answered, what is refused, and what happens while a
//! worker, a front, a supervisor or control is dead.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use nautilus_dataplane::replay::generate::GeneratorSpec;
use nautilus_tests::feed_source::FeedSource;
use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::{Process, RunId, binary, left_behind};
use nautilus_tests::rest::{RestAnswer, percent_encoded};
use nautilus_tests::rest_site::RestSite;
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    site: RestSite,
}

impl Bench {
    fn start(run: RunId, nodes: usize) -> Self {
        Self { site: RestSite::start(run, nodes, Duration::from_secs(8)) }
    }

    fn ask(
        &mut self,
        method: &str,
        key: &[u8],
        more: &str,
        headers: &[&str],
        body: &[u8],
    ) -> RestAnswer {
        let path = format!("/api/v1/edge/cache/quotes?key={}{more}", percent_encoded(key));
        self.raw(method, &path, headers, body)
    }

    fn raw(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> RestAnswer {
        let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        self.site.client.ask(method, path, &headers, body).unwrap()
    }

    fn get(&mut self, key: &[u8]) -> RestAnswer {
        self.ask("GET", key, "", &[], b"")
    }

    fn over_tcp(&self, command: &[u8]) -> String {
        self.site.over_tcp(CACHE_PORT, command).unwrap()
    }
}

fn refused(answer: &RestAnswer, status: u16, problem: &str) {
    assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{}", answer.text());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn an_item_is_read_changed_and_deleted_on_its_conditions() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 1);
        refused(&bench.get(b"k"), 404, "key-not-found");
        assert_eq!(bench.over_tcp(b"set k 0 0 5\r\nhello\r\n"), "STORED\r\n");
        let read = bench.get(b"k");
        assert_eq!((read.status, read.body.as_slice()), (200, &b"hello"[..]), "{read:?}");
        assert_eq!(read.header("suspect"), Some("false"));
        assert_eq!((read.header("expires-ms"), read.header("source-sequence")), (None, None));
        let age_us: u64 = read.header("age-us").unwrap().parse().unwrap();
        assert!(age_us < 5_000_000, "{age_us}");
        let version = read.version().unwrap();
        assert!(bench.over_tcp(b"gets k\r\n").contains(&format!(" 5 {version}\r\n")));

        // Conditional reads.
        let tag = format!("If-None-Match: \"{version}\"");
        let unchanged = bench.ask("GET", b"k", "", &[&tag], b"");
        assert_eq!((unchanged.status, unchanged.version()), (304, Some(version)));
        assert_eq!(bench.ask("GET", b"k", "", &["If-None-Match: \"1\""], b"").status, 200);
        refused(&bench.ask("GET", b"k", "", &["If-Match: \"1\""], b""), 412, "precondition-failed");
        let head = bench.ask("HEAD", b"k", "", &[], b"");
        assert_eq!((head.status, head.version(), head.body.len()), (200, Some(version), 0));

        // Conditional changes.
        let stored = bench.ask("PUT", b"k", "", &[], b"one");
        assert_eq!(stored.status, 204, "{stored:?}");
        let one = stored.version().unwrap();
        assert!(one > version);
        assert_eq!(bench.over_tcp(b"get k\r\n"), "VALUE k 0 3\r\none\r\nEND\r\n");
        let old = format!("If-Match: \"{version}\"");
        refused(&bench.ask("PUT", b"k", "", &[&old], b"x"), 412, "precondition-failed");
        refused(&bench.ask("DELETE", b"k", "", &[&old], b""), 412, "precondition-failed");
        refused(
            &bench.ask("PUT", b"k", "", &["If-None-Match: *"], b"x"),
            412,
            "precondition-failed",
        );
        refused(
            &bench.ask("PUT", b"k", "", &["If-Match: \"abc\""], b"x"),
            412,
            "precondition-failed",
        );
        refused(&bench.ask("PUT", b"none", "", &["If-Match: *"], b"x"), 412, "precondition-failed");
        refused(&bench.ask("PUT", b"k", "", &["If-Match: 1"], b"x"), 400, "invalid-parameter");
        assert_eq!(bench.get(b"k").body, b"one");
        let two = bench.ask("PUT", b"k", "", &[&format!("If-Match: \"{one}\"")], b"two");
        assert_eq!(two.status, 204);
        assert_eq!(bench.ask("PUT", b"new", "", &["If-None-Match: *"], b"n").status, 201);
        let mine = format!("If-Match: \"{}\"", two.version().unwrap());
        assert_eq!(bench.ask("DELETE", b"k", "", &[&mine], b"").status, 204);
        refused(&bench.ask("DELETE", b"k", "", &[], b""), 404, "key-not-found");
        refused(&bench.ask("DELETE", b"k", "", &["If-Match: *"], b""), 412, "precondition-failed");
        refused(&bench.get(b"k"), 404, "key-not-found");
        assert_eq!(bench.over_tcp(b"get k\r\n"), "END\r\n");
        assert_eq!(bench.ask("DELETE", b"new", "", &[], b"").status, 204);
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn keys_values_and_deadlines_are_what_was_asked_for_and_nonsense_is_refused() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 1);
        let all: Vec<u8> = (0..=255).collect();
        for key in [&all[..186], &all[70..], &[b'k'; 250], b"\r\n", b" ", b"a%b&c=d+e", b"\0"] {
            let value: Vec<u8> = key.iter().rev().copied().collect();
            let stored = bench.ask("PUT", key, "", &[], &value);
            assert_eq!(stored.status, 204, "{} {}", key.escape_ascii(), stored.text());
            assert_eq!(bench.get(key).body, value, "{}", key.escape_ascii());
            assert_eq!(bench.ask("DELETE", key, "", &[], b"").status, 204);
        }
        for bytes in [0, 1, 1400, 100_000, 1 << 20] {
            let value: Vec<u8> = (0..bytes).map(|at| (at * 7) as u8).collect();
            assert_eq!(bench.ask("PUT", b"long", "", &[], &value).status, 204, "{bytes}");
            assert!(bench.get(b"long").body == value, "{bytes}");
        }
        let too_long = vec![b'x'; (1 << 20) + 1];
        refused(&bench.ask("PUT", b"long", "", &[], &too_long), 413, "too-large");
        assert_eq!(bench.get(b"long").body.len(), 1 << 20, "what was there stays");

        let began = Instant::now();
        assert_eq!(bench.ask("PUT", b"short", "&ttl_ms=700", &[], b"v").status, 204);
        let read = bench.get(b"short");
        let left_ms: u128 = read.header("expires-ms").unwrap().parse().unwrap();
        assert!(left_ms <= 700 && left_ms + began.elapsed().as_millis() + 1 >= 700, "{left_ms}");
        std::thread::sleep(Duration::from_millis(710));
        refused(&bench.get(b"short"), 404, "key-not-found");

        let cache = "/api/v1/edge/cache/";
        for (method, path, status, problem) in [
            ("GET", "quotes?key=", 400, "invalid-parameter"),
            ("GET", "quotes?key=a&key=b", 400, "invalid-parameter"),
            ("GET", "quotes?key=a&what=b", 400, "invalid-parameter"),
            ("GET", "quotes?key=a&ttl_ms=5", 400, "invalid-parameter"),
            ("PUT", "quotes?key=a&ttl_ms=0", 400, "invalid-parameter"),
            ("GET", "nothing?key=a", 404, "cache-not-found"),
            ("PUT", "nothing?key=a", 404, "cache-not-found"),
            ("GET", "quotes?key=a&node=node9", 404, "node-not-found"),
            ("GET", "Quotes?key=a", 400, "invalid-id"),
        ] {
            refused(&bench.raw(method, &format!("{cache}{path}"), &[], b""), status, problem);
        }
        let longest = format!("{cache}quotes?key={}", "a".repeat(251));
        refused(&bench.raw("GET", &longest, &[], b""), 400, "invalid-parameter");
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_feeds_record_says_where_it_comes_from_and_when_it_may_not_be_used() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 1);
        let spec = GeneratorSpec { seed: 1, symbols: 4, messages: 1_000_000, rate: 2_000 };
        let source = FeedSource::Generator(spec);
        let key = source.bbo_keys("nasdaq").unwrap().swap_remove(0).into_bytes();
        let mut words = source.replay_arguments();
        words.extend(["--interface", "eth0", "--pace", "2000/s"].map(OsString::from));
        let (log, venue) = (bench.site.lab.folder().join("replay.log"), bench.site.lab.venue());
        let program = binary("nautilus-replay");
        let mut replay = Process::start(run, &venue.namespace, program, words, &log).unwrap();
        wait_until("a record", SOON, || bench.get(&key).status == 200).unwrap();

        let read = bench.get(&key);
        let number = |name: &str| read.header(name).and_then(|text| text.parse::<u64>().ok());
        assert_eq!(read.header("suspect"), Some("false"));
        assert!(number("age-us").is_some_and(|age_us| age_us < 20_000_000), "{read:?}");
        // In the record: layout version 1, then its length, and from byte 8 on the sequence.
        let sequence = u64::from_le_bytes(read.body[8..16].try_into().unwrap());
        assert_eq!(number("source-sequence"), Some(sequence), "{read:?}");
        refused(&bench.ask("PUT", &key, "", &[], b"x"), 409, "feed-owned");
        refused(&bench.ask("DELETE", &key, "", &[], b""), 409, "feed-owned");

        // The feed falls silent.
        replay.kill();
        wait_until("it is suspect", SOON, || bench.get(&key).status == 503).unwrap();
        let suspect = bench.get(&key);
        refused(&suspect, 503, "suspect");
        assert_eq!(suspect.header("suspect"), Some("true"));
        let all_the_same = bench.ask("GET", &key, "&suspect=allow", &[], b"");
        assert_eq!((all_the_same.status, all_the_same.header("suspect")), (200, Some("true")));
        assert_eq!(all_the_same.body.len(), read.body.len());
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: makes network namespaces and two nodes"]
fn deaths_are_told_and_survived() {
    let run = RunId::draw();
    {
        let mut bench = Bench::start(run, 2);
        refused(&bench.get(b"k"), 409, "ambiguous-cache");
        let ask = |bench: &mut Bench, method: &str, body: &[u8]| {
            bench.ask(method, b"k", "&node=node1", &[], body)
        };
        assert_eq!(ask(&mut bench, "PUT", b"1").status, 204);
        let on_two = bench.ask("GET", b"k", "&node=node2", &[], b"");
        refused(&on_two, 404, "key-not-found");

        // The front: connections of control end with it, and the next change has a new one.
        let front = bench.site.pids(&["front "])[0];
        kill(Pid::from_raw(front), Signal::SIGKILL).unwrap();
        let stored = ask(&mut bench, "PUT", b"2");
        assert!(matches!(stored.status, 204 | 504), "{}", stored.text());
        assert_eq!(ask(&mut bench, "GET", b"").status, 200, "reads need no front");
        wait_until("changes go on", SOON, || ask(&mut bench, "PUT", b"3").status == 204).unwrap();

        // A worker that stands still answers nothing: the outcome is unknown, and said to be.
        let worker = bench.site.pids(&["active worker "])[0];
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        let stored = ask(&mut bench, "PUT", b"4");
        assert!(matches!(stored.status, 204 | 504), "{}", stored.text());
        wait_until("changes go on", SOON, || ask(&mut bench, "PUT", b"5").status == 204).unwrap();
        assert_eq!(ask(&mut bench, "GET", b"").body, b"5");

        // The supervisor: within a second of silence reads are those of a region that nobody owns.
        bench.site.lab.nodes()[0].supervisor.kill_and_hold();
        wait_until("reads are refused", SOON, || {
            let answer = ask(&mut bench, "GET", b"");
            let is_refused = answer.status == 503;
            if is_refused {
                refused(&answer, 503, "cache-detached");
                assert!(answer.text().contains("supervisor"), "{}", answer.text());
            }
            is_refused
        })
        .unwrap();
        bench.site.lab.nodes()[0].supervisor.release();
        wait_until("reads go on", SOON, || ask(&mut bench, "GET", b"").status == 200).unwrap();
        assert_eq!(ask(&mut bench, "GET", b"").body, b"5", "the same memory");
        wait_until("changes go on", SOON, || ask(&mut bench, "PUT", b"6").status == 204).unwrap();

        // Control: it comes back, and knows nothing that it needs.
        bench.site.lab.control().unwrap().kill();
        wait_until("control is back", SOON, || {
            let path = "/api/v1/edge/cache/quotes?key=k&node=node1";
            bench.site.client.ask("GET", path, &[], b"").is_ok_and(|answer| answer.body == b"6")
        })
        .unwrap();
    }
    assert_eq!(left_behind(run), Vec::<String>::new());
}
