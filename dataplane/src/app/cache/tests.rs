//! Requests in, replies out: every answer of the protocol, the edges of the frame format, and noise.

use nautilus_shm::metrics::labels::CacheVerb;
use nautilus_shm::sync::AtomicU64;
use nautilus_shm::table::{TableWriter, VALUE_BYTES_MAX, heap_words};

use super::*;
use crate::app::{ChannelState, Keyspace, PutError};
use crate::port::{Link, Path, SendError};

mod classic;
mod meta;
mod permissions;
mod shared;
mod workers;

type Cache = CacheApp<Box<[AtomicU64]>>;

pub(super) struct Requests(pub Vec<Vec<u8>>);

impl Burst for Requests {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Datagram<'_> {
        Datagram {
            source: Endpoint::v4([198, 18, 0, 2], 4000),
            destination: Endpoint::v4([198, 18, 0, 1], 11211),
            link: Link::default(),
            rx_ns: 0,
            permissions: None,
            payload: &self.0[index],
        }
    }
}

#[derive(Default)]
pub(super) struct Replies(pub Vec<Vec<u8>>);

impl Transmit for Replies {
    fn send<F: Into<Filled>>(
        &mut self,
        _: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let mut out = vec![0; crate::limits::REPLY_PAYLOAD_BYTES_MAX];
        let filled: Filled = write(&mut out).into();
        assert!(filled.is_true_of(&out), "a wrong sum");
        out.truncate(filled.bytes);
        self.0.push(out);
        Ok(())
    }
}

fn cache() -> Cache {
    CacheApp::new(TableWriter::create(heap_words(4 << 20), 1, 5).unwrap(), 0)
}

pub(super) fn datagram(text: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34, 0, 0, 0, 1, 0, 0], text].concat()
}

fn ask_at(cache: &mut Cache, now_ns: u64, text: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Replies::default();
    cache.handle(now_ns, &Requests(vec![datagram(text)]), &mut replies);
    replies.0
}

/// The texts of the answers, each of which is one datagram.
fn ask(cache: &mut Cache, text: &str) -> Vec<String> {
    ask_at(cache, 1, text.as_bytes())
        .into_iter()
        .map(|reply| {
            assert_eq!(reply[..8], [0x12, 0x34, 0, 0, 0, 1, 0, 0]);
            String::from_utf8(reply[8..].to_vec()).unwrap()
        })
        .collect()
}

#[test]
fn every_command_is_answered_as_memcached_does() {
    let bad_format = "CLIENT_ERROR bad command line format\r\n";
    let bad_chunk = "CLIENT_ERROR bad data chunk\r\n";
    let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    let (error, end, stored) = ("ERROR\r\n", "END\r\n", "STORED\r\n");
    let long = "k".repeat(251);
    let longest = "k".repeat(250);
    let value = "VALUE k 1 3\r\nabc\r\nEND\r\n";
    // Recorded from memcached 1.6.18, in this order, one server.
    let cases: &[(&str, &[&str])] = &[
        ("set k 1 0 3\r\nabc\r\n", &[stored]),
        ("set k 1 0 3\nabc\r\n", &[stored]),
        ("set k 1 0 3\r\nabcdefgh\r\nget k\r\n", &[bad_chunk, error, value]),
        ("get k\r\n", &[value]),
        ("get\r\n", &[error]),
        ("get \r\n", &[error]),
        (" get k\r\n", &[value]),
        ("get  k\r\n", &[value]),
        ("GET k\r\n", &[error]),
        ("\r\n", &[error]),
        ("\n", &[error]),
        ("get k\n", &[value]),
        ("get k\r", &[]),
        ("get k", &[]),
        ("get k\r\n\r\n", &[value, error]),
        (&format!("get {long}\r\n"), &[bad_format]),
        (&format!("get k {long}\r\n"), &[bad_format]),
        (&format!("get {longest}\r\n"), &[end]),
        (&format!("set {long} 0 0 1\r\nx\r\n"), &[bad_format, error]),
        (&format!("set {long} 0 0 1 noreply\r\nx\r\n"), &[error]),
        ("set k\r\n", &[error]),
        ("set k 0 0\r\n", &[error]),
        ("set k 0 0 x\r\n", &[bad_format]),
        ("set k x 0 1\r\na\r\n", &[bad_format, error]),
        ("set k 0 0 -1\r\nget k\r\n", &[bad_format, value]),
        ("set k 0 0 noreply\r\n", &[]),
        ("set k 4294967295 0 1\r\na\r\n", &[stored]),
        ("set k 0 0 1 noreply\r\nb\r\n", &[]),
        ("get k\r\n", &["VALUE k 0 1\r\nb\r\nEND\r\n"]),
        ("set k 0 0 1 foo\r\nc\r\n", &[stored]),
        ("set k 0 0 1 noreply x\r\nd\r\n", &[error, error]),
        ("set k 0 0 2147483646\r\na\r\n", &[bad_format, error]),
        ("set k 0 0 1\r\na\nversion\r\n", &[bad_chunk, error]),
        ("set k 0 0 1 noreply\r\nabcdef\r\n", &[error]),
        ("set e 0 0 0\r\n\r\nget e\r\n", &[stored, "VALUE e 0 0\r\n\r\nEND\r\n"]),
        (
            "set k 0 0 1\r\ne\r\ndelete k 0\r\ndelete k\r\n",
            &[stored, "DELETED\r\n", "NOT_FOUND\r\n"],
        ),
        ("delete k 5\r\n", &[usage]),
        ("delete k noreply\r\n", &[]),
        ("delete k 1 noreply\r\n", &[]),
        ("delete k a b c\r\n", &[error]),
        ("delete\r\n", &[error]),
        (&format!("delete {long}\r\n"), &[bad_format]),
        ("set z 0 0 5\r\nab", &[]),
        ("get z\r\n", &[end]),
        ("set n 0 -1 1\r\nx\r\nget n\r\n", &[stored, end]),
        ("quit\r\nget k\r\n", &[]),
    ];
    let mut cache = cache();
    for (text, answers) in cases {
        assert_eq!(ask(&mut cache, text), *answers, "{text:?}");
    }
    let version = format!("VERSION 1.6.18-nautilus-{}\r\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(ask(&mut cache, "version noreply\r\n"), [version]);
}

#[test]
fn a_value_too_large_takes_the_old_one_with_it() {
    let mut cache = cache();
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    for option in ["", " noreply"] {
        ask(&mut cache, "set k 0 0 1\r\na\r\n");
        let text = format!("set k 0 0 {}{option}\r\nabc\r\nget k\r\n", VALUE_BYTES_MAX + 1);
        let expected: &[&str] = if option.is_empty() { &[too_large] } else { &[] };
        assert_eq!(ask(&mut cache, &text), expected);
        assert_eq!(ask(&mut cache, "get k\r\n"), ["END\r\n"]);
    }
    assert_eq!(cache.counts().errors(CacheError::ValueTooLarge), 2);
}

#[test]
fn a_cache_may_take_shorter_values_than_the_table() {
    let mut cache = cache();
    cache.set_value_bytes_max(5);
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    for (text, answer) in [
        ("set k 0 0 5\r\nabcde\r\n", "STORED\r\n"),
        ("append k 0 0 1\r\nf\r\n", "NOT_STORED\r\n"),
        ("get k\r\n", "VALUE k 0 5\r\nabcde\r\nEND\r\n"),
        ("replace k 0 0 6\r\nabcdef\r\n", too_large),
        ("get k\r\n", "VALUE k 0 5\r\nabcde\r\nEND\r\n"),
        ("set k 0 0 6\r\nabcdef\r\n", too_large),
        ("get k\r\n", "END\r\n"),
        ("ms k 6\r\nabcdef\r\n", too_large),
    ] {
        assert_eq!(ask(&mut cache, text), [answer], "{text:?}");
    }
    assert!(ask(&mut cache, "stats settings\r\n")[0].contains("STAT item_size_max 5\r\n"));
    assert_eq!(cache.counts().errors(CacheError::ValueTooLarge), 4);
    // What a feed publishes is not bound by it.
    assert_eq!(cache.put(b"md", &[0; 64], 3, 1), Ok(()));
    cache.set_value_bytes_max(u32::MAX);
    assert_eq!(cache.core.value_bytes_max, VALUE_BYTES_MAX);
}

/// The text of a reply of several datagrams, whose numbering is checked.
fn joined(replies: &[Vec<u8>]) -> Vec<u8> {
    let total = replies.len() as u16;
    let mut text = Vec::new();
    for (sequence, reply) in replies.iter().enumerate() {
        let [s0, s1] = (sequence as u16).to_be_bytes();
        let [t0, t1] = total.to_be_bytes();
        assert_eq!(reply[..8], [0x12, 0x34, s0, s1, t0, t1, 0, 0]);
        assert!(reply.len() == 1400 || sequence + 1 == replies.len());
        text.extend(&reply[8..]);
    }
    text
}

#[test]
fn long_answers_are_cut_into_numbered_datagrams() {
    let mut cache = cache();
    let put = |cache: &mut Cache, key: &str, bytes: usize| {
        let value: Vec<u8> = (0..bytes).map(|byte| (byte % 253) as u8).collect();
        cache.put(key.as_bytes(), &value, 0, 1).unwrap();
        value
    };
    // Around every cut: the answer ends just before, at and behind the end of a frame.
    for bytes in (1360..1385).chain(2750..2780).chain([20_000]) {
        let value = put(&mut cache, "k", bytes);
        let replies = ask_at(&mut cache, 1, b"get k\r\n");
        let head = format!("VALUE k 0 {bytes}\r\n").into_bytes();
        let expected = [&head, &value, &b"\r\nEND\r\n"[..]].concat();
        assert_eq!(replies.len(), expected.len().div_ceil(1392));
        assert_eq!(joined(&replies), expected, "{bytes}");
    }
    assert_eq!(ask_at(&mut cache, 1, b"get k\r\n").len(), 15, "as memcached cuts 20,000 bytes");
    // Exactly 64 datagrams, and one byte more.
    let overhead = "VALUE k 0 89000\r\n".len() + "\r\nEND\r\n".len();
    let value = put(&mut cache, "k", 64 * 1392 - overhead);
    let replies = ask_at(&mut cache, 1, b"get k\r\n");
    assert_eq!((replies.len(), joined(&replies).len()), (64, value.len() + overhead));
    put(&mut cache, "k", 64 * 1392 - overhead + 1);
    let refused = ["SERVER_ERROR reply exceeds 64 datagrams\r\n"];
    assert_eq!(ask(&mut cache, "get k\r\n"), refused);
    // Several keys, hits and misses, with versions, one reply.
    let mut expected = Vec::new();
    let mut request = b"gets".to_vec();
    for number in 0..100 {
        let key = format!("key{number}");
        request.extend(format!(" {key}  miss{number}").bytes());
        let value = put(&mut cache, &key, number * 3);
        let hit =
            cache.table().peek(cache.table().hash(key.as_bytes()), key.as_bytes(), 1).unwrap();
        let line = format!("VALUE {key} 0 {} {}\r\n", value.len(), hit.version);
        expected.extend([line.as_bytes(), &value, b"\r\n"].concat());
    }
    expected.extend(b"END\r\n");
    request.extend(b"\r\n");
    assert_eq!(joined(&ask_at(&mut cache, 1, &request)), expected);
    assert_eq!(cache.counts().requests(CacheVerb::Gets), 200);
    assert_eq!(cache.counts().outcomes(Outcome::Hit), 100 + 59);
}

#[test]
fn times_run_out() {
    let mut cache = cache();
    cache.set_realtime_offset_ns(1_700_000_000_000_000_000);
    ask_at(&mut cache, 1_000_000_000, b"set r 0 10 1\r\nx\r\nset a 0 1700000020 1\r\nx\r\n");
    let lives = |cache: &mut Cache, now_ns| {
        [b"get r\r\n", b"get a\r\n"].map(|text| ask_at(cache, now_ns, text)[0].len() > 13)
    };
    assert_eq!(lives(&mut cache, 10_999_999_999), [true, true]);
    assert_eq!(lives(&mut cache, 11_000_000_000), [false, true]);
    assert_eq!(lives(&mut cache, 20_000_000_000), [false, false]);
}

#[test]
fn a_feeds_keys_are_read_while_its_channel_is_live_and_never_written() {
    let mut cache = cache();
    cache.put(b"md:x:Y:bbo", b"v", 3, 1).unwrap();
    assert_eq!(ask(&mut cache, "get md:x:Y:bbo\r\n"), ["END\r\n"]);
    cache.set_channel(3, ChannelState::LiveUntil(1));
    assert_eq!(ask(&mut cache, "get md:x:Y:bbo\r\n"), ["VALUE md:x:Y:bbo 0 1\r\nv\r\nEND\r\n"]);
    let owned = "SERVER_ERROR key belongs to a feed\r\n";
    assert_eq!(ask(&mut cache, "set md:x:Y:bbo 0 0 1\r\nx\r\n"), [owned]);
    assert_eq!(ask(&mut cache, "delete md:x:Y:bbo\r\n"), [owned]);
    assert_eq!(ask_at(&mut cache, 2, b"get md:x:Y:bbo\r\n")[0].len(), 13, "only END");
    cache.begin_channel(3);
    cache.set_channel(3, ChannelState::LiveUntil(1));
    assert_eq!(ask(&mut cache, "get md:x:Y:bbo\r\n"), ["END\r\n"]);
    assert_eq!(cache.put(b"a b", b"", 3, 1), Err(PutError::BadKey));
    assert_eq!(cache.put(b"", b"", 3, 1), Err(PutError::BadKey));
    assert_eq!(cache.put(b"k", &vec![0; VALUE_BYTES_MAX + 1], 3, 1), Err(PutError::TooLong));
}

#[test]
fn a_burst_is_answered_in_order() {
    let mut cache = cache();
    let burst: Vec<_> = (0..16)
        .flat_map(|number| [format!("set k 0 0 2\r\n{number:02}\r\n"), "get k\r\n".into()])
        .map(|text| datagram(text.as_bytes()))
        .collect();
    let mut replies = Replies::default();
    cache.handle(1, &Requests(burst), &mut replies);
    for (number, pair) in replies.0.chunks(2).enumerate() {
        assert_eq!(&pair[0][8..], b"STORED\r\n");
        assert_eq!(&pair[1][8..], format!("VALUE k 0 2\r\n{number:02}\r\nEND\r\n").as_bytes());
    }
}

/// Noise made of pieces of real requests. `NAUTILUS_SOUP_ITERATIONS=1000000` for the long form.
#[test]
fn no_input_makes_it_panic_or_send_a_bad_frame() {
    let iterations = std::env::var("NAUTILUS_SOUP_ITERATIONS")
        .map_or(60_000, |text| text.parse::<u64>().expect("a number"));
    let pieces: &[&[u8]] = &[
        b"get ",
        b"gets ",
        b"set ",
        b"delete ",
        b"version",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"k",
        b"0",
        b"1",
        b"noreply",
        b"-1",
        b"18446744073709551615",
        b"-9223372036854775808",
        b"99999",
        b"\0",
        b"\xff\xfe",
        b"add ",
        b"cas ",
        b"ms k 3\r\nabc\r\n",
        b"mg k v t s f c h l k O1 N30 R30 T10 @v @a @m5\r\n",
        b"ma k N0 J1 v\r\n",
        b"md k I\r\n",
        b"me k\r\n",
        b"incr k 1\r\n",
        b"append k 0 0 1\r\n1\r\n",
        b"gats 0 k k k\r\n",
        b"stats\r\n",
        b"flush_all\r\n",
        b"set k 0 0 4\r\nabcd\r\n",
        b"get k k k k k k k k k k k k k k k k k k\r\n",
        &[b'z'; 251],
        b"2147483647",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % bound
    };
    let mut cache = cache();
    let mut answered = 0;
    for _ in 0..iterations {
        let mut bytes = datagram(b"");
        for _ in 0..below(14) {
            bytes.extend(pieces[below(pieces.len() as u64) as usize]);
        }
        for _ in 0..below(3) {
            let at = below(bytes.len() as u64) as usize;
            bytes[at] = below(256) as u8;
        }
        if below(20) == 0 {
            bytes.truncate(below(12) as usize);
        }
        let id = bytes.get(..2).map(<[u8]>::to_vec);
        let mut replies = Replies::default();
        cache.handle(1, &Requests(vec![bytes]), &mut replies);
        for reply in &replies.0 {
            assert!((8..=1400).contains(&reply.len()) && reply.ends_with(b"\n"));
            assert_eq!(reply[..2], id.clone().unwrap());
        }
        answered += replies.0.len();
    }
    assert!(answered as u64 > iterations / 2, "{answered} answers");
    nautilus_shm::table::check(cache.table().memory()).unwrap();
}

#[test]
fn publishing_adds_what_was_counted_since_the_last_time() {
    use nautilus_shm::control_region::ControlRegion;
    use nautilus_shm::metrics::table;
    let region: &'static _ = Box::leak(Box::new(ControlRegion::create(c"cache-counts").unwrap()));
    let bank = region.cache_metrics(1, 2);
    let mut cache = cache().with_banks(Banks::of_node(region, 1, 2));
    cache.begin_channel(3);
    Keyspace::put(&mut cache, b"md", b"1", 3, 1).unwrap();
    ask(&mut cache, "get md\r\n");
    for _ in 0..2 {
        cache.publish();
        assert_eq!(bank.counter(table::CACHE_SUSPECTS), 1);
        assert_eq!(bank.counter(table::CACHE_MISSES), 1);
        assert_eq!(bank.counter(table::CACHE_HITS), 0);
        assert_eq!(bank.gauge(table::CACHE_ITEMS), 1);
    }
}
