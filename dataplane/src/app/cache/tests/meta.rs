//! Meta commands, as recorded from memcached 1.6.18: in this order, one server.

use super::*;
use crate::feed::record;

/// Requests and the joined answers to them.
const RECORDED: &[(&str, &str)] = &[
    ("set k 1 0 3\r\nabc\r\n", "STORED\r\n"),
    ("ms\r\n", "ERROR\r\n"),
    ("ms k\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("ms k x\r\nabc\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"),
    ("ms k -1\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("ms k 3 F5 T100 k O1\r\ndef\r\n", "HD kk O1\r\n"),
    ("mg k v f t h k O1\r\n", "VA 3 f5 t100 h0 kk O1\r\ndef\r\n"),
    ("ms k 3 q\r\nxyz\r\n", ""),
    ("ms k 3 ME k\r\nxyz\r\n", "NS kk\r\n"),
    ("ms new 1 ME q O1\r\nx\r\n", ""),
    ("ms new 2 MA\r\nab\r\n", "HD\r\n"),
    ("ms new 2 MP\r\ncd\r\n", "HD\r\n"),
    ("mg new v\r\n", "VA 5\r\ncdxab\r\n"),
    ("ms none 1 MA\r\nx\r\n", "NS\r\n"),
    ("ms none 1 MR q\r\nx\r\n", "NS\r\n"),
    ("ms k 1 MX\r\nx\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n"),
    ("ms k 1 Mxx\r\nx\r\n", "CLIENT_ERROR incorrect length for M token\r\n"),
    ("ms k 1 C5\r\nx\r\n", "EX\r\n"),
    ("ms k 1 C0 c\r\nx\r\n", "EX c0\r\n"),
    ("ms none 1 C5 c k\r\nx\r\n", "NF c0 knone\r\n"),
    ("ms k 1 C5 MA c\r\nx\r\n", "EX c0\r\n"),
    ("ms k 1 Cx\r\nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    ("ms k 1 Fx\r\nx\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("ms k 1 Fx Tx\r\nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    ("ms k 1 Tx Fx\r\nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    ("ms k 1 Tx MX\r\nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    (
        "ms k 1 MX O12345678901234567890123456789012\r\nx\r\n",
        "CLIENT_ERROR invalid mode for ms M token\r\n",
    ),
    ("ms k 1 S1\r\nx\r\n", "CLIENT_ERROR invalid flag\r\n"),
    ("ms k 1 k k\r\nx\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    ("ms k 1\r\nxyz\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
    ("ms k 1 I C1\r\nS\r\n", "HD\r\n"),
    ("mg k v\r\n", "VA 1 X W\r\nS\r\n"),
    ("mg k v\r\n", "VA 1 Z X\r\nS\r\n"),
    ("ms k 1\r\nf\r\n", "HD\r\n"),
    ("mg k v\r\n", "VA 1\r\nf\r\n"),
    ("md k I T30\r\n", "HD\r\n"),
    ("mg k v t\r\n", "VA 1 t30 X W\r\nf\r\n"),
    ("mg k v t\r\n", "VA 1 t30 Z X\r\nf\r\n"),
    ("md k I q\r\n", ""),
    ("mg k u\r\n", "HD X W\r\n"),
    ("ms k 1 I C1\r\nS\r\n", "HD\r\n"),
    ("mg k v\r\n", "VA 1 Z X\r\nS\r\n"),
    ("md k C1\r\n", "EX\r\n"),
    ("md none k O1 q\r\n", "NF knone O1\r\n"),
    ("md k k O1\r\n", "HD kk O1\r\n"),
    ("md k q\r\n", "NF\r\n"),
    ("md k x\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    ("md k k k\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    ("md\r\n", "ERROR\r\n"),
    ("ma\r\n", "ERROR\r\n"),
    ("ma n\r\n", "NF\r\n"),
    ("ma n N0 J13 v t\r\n", "VA 2 t-1\r\n13\r\n"),
    ("ma n v\r\n", "VA 2\r\n14\r\n"),
    ("ma n D5 v c0 q\r\n", ""),
    ("ma n MD D2 v k O1 t\r\n", "VA 2 kn O1 t-1\r\n17\r\n"),
    ("ma n M- v\r\n", "VA 2\r\n16\r\n"),
    ("ma n MI D10 T100 v t\r\n", "VA 2 t100\r\n26\r\n"),
    ("ma n v t\r\n", "VA 2 t100\r\n27\r\n"),
    ("ma n q\r\n", ""),
    ("ma n MZ\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n"),
    ("ma n Mxx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    ("ma n Dx\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
    ("ma n C1 k\r\n", "EX kn\r\n"),
    ("ma n C0 v\r\n", "VA 2\r\n29\r\n"),
    ("ma none q k\r\n", "NF knone\r\n"),
    ("ma n2 N100 q v\r\n", "VA 1\r\n0\r\n"),
    ("ma k v\r\n", "NF\r\n"),
    ("set k 0 0 1\r\nx\r\n", "STORED\r\n"),
    ("ma k v O1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    (
        "set w 0 0 2\r\n10\r\nma w MD v\r\nget w\r\nmg w v h\r\nmg w h\r\nma w D100\r\nmg w h\r\n",
        "STORED\r\nVA 1\r\n9\r\nVALUE w 0 2\r\n9 \r\nEND\r\nVA 2 h1\r\n9 \r\nHD h1\r\nHD\r\nHD h0\r\n",
    ),
    ("me\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("me none\r\n", "EN\r\n"),
    ("ms aGVsbG8= 1 b T100\r\nx\r\n", "HD\r\n"),
    ("mg aGV!sbG8=zz b k\r\n", "CLIENT_ERROR error decoding key\r\n"),
];

#[test]
fn meta_commands_are_answered_as_recorded() {
    let mut cache = cache();
    for (text, answer) in RECORDED {
        assert_eq!(ask(&mut cache, text).concat(), *answer, "{text:?}");
    }
}

const SECOND: u64 = 1_000_000_000;

fn text(cache: &mut Cache, now_ns: u64, text: &str) -> String {
    String::from_utf8(joined(&ask_at(cache, now_ns, text.as_bytes()))).unwrap()
}

/// Recorded as above, with times.
#[test]
fn one_client_is_told_to_fetch_anew() {
    let mut cache = cache();
    let now_ns = 100 * SECOND;
    for (request, answer) in [
        ("mg nn N30 v t\r\n", "VA 0 t30 W\r\n\r\n"),
        ("mg nn N30 v t\r\n", "VA 0 t30 Z\r\n\r\n"),
        ("mg nn v\r\n", "VA 0 Z\r\n\r\n"),
        ("mg n2 N0 q k v t s f\r\n", "VA 0 kn2 t-1 s0 f0 W\r\n\r\n"),
        ("ms nn 3\r\nabc\r\n", "HD\r\n"),
        ("mg nn N30 v t\r\n", "VA 3 t-1\r\nabc\r\n"),
        ("mg nn T50 t R60 v\r\n", "VA 3 t50 W\r\nabc\r\n"),
        ("mg nn R60 v\r\n", "VA 3 Z\r\nabc\r\n"),
        ("ms nn 1 T50\r\nx\r\n", "HD\r\n"),
        ("mg nn R50\r\n", "HD\r\n"),
        ("mg nn t T0\r\n", "HD t50\r\n"),
        ("mg nn R60\r\n", "HD\r\n"),
        ("mg aGVsbG8= b k v O3\r\n", "EN kaGVsbG8= b O3\r\n"),
        ("ms aGVsbG8= 3 b k\r\nabc\r\n", "HD kaGVsbG8= b\r\n"),
        ("mg aGVsbG8= b k v O3\r\n", "VA 3 kaGVsbG8= b O3\r\nabc\r\n"),
        ("get hello\r\n", "VALUE hello 0 3\r\nabc\r\nEND\r\n"),
        ("mn foo\r\n", "MN\r\n"),
    ] {
        assert_eq!(text(&mut cache, now_ns, request), answer, "{request:?}");
    }
    // Below the bound a second later.
    text(&mut cache, now_ns, "ms nn 1 T50\r\nx\r\n");
    assert_eq!(text(&mut cache, now_ns + SECOND, "mg nn R50\r\n"), "HD W\r\n");
    assert_eq!(text(&mut cache, now_ns, "mg old N-1 t\r\n"), "HD t0 W\r\n");
    assert_eq!(text(&mut cache, now_ns, "mg old\r\n"), "EN\r\n");
}

#[test]
fn uses_and_their_times_are_shown_as_they_were_before() {
    let mut cache = cache();
    text(&mut cache, 100 * SECOND, "set k 0 0 1\r\nx\r\n");
    assert_eq!(text(&mut cache, 150 * SECOND, "mg k h l u\r\n"), "HD h0 l50\r\n");
    assert_eq!(text(&mut cache, 150 * SECOND, "mg k h l\r\n"), "HD h0 l50\r\n");
    assert_eq!(text(&mut cache, 200 * SECOND, "mg k h l u\r\n"), "HD h1 l50\r\n");
    let debug = text(&mut cache, 200 * SECOND, "me k\r\n");
    assert!(debug.starts_with("ME k exp=-1 la=50 cas="), "{debug}");
    assert!(debug.ends_with(" fetch=yes cls=1 size=152\r\n"), "{debug}");
    text(&mut cache, 200 * SECOND, "touch k 100\r\n");
    assert!(text(&mut cache, 210 * SECOND, "me k\r\n").starts_with("ME k exp=-90 la=10 "));
}

#[test]
fn a_value_ends_after_its_milliseconds() {
    let mut cache = cache();
    let now_ns = 100 * SECOND;
    assert_eq!(text(&mut cache, now_ns, "ms k 1 @t1500\r\nx\r\n"), "HD\r\n");
    assert_eq!(text(&mut cache, now_ns + 1_499_999_999, "mg k v\r\n"), "VA 1\r\nx\r\n");
    assert_eq!(text(&mut cache, now_ns + 1_500_000_000, "mg k v\r\n"), "EN\r\n");
    assert_eq!(text(&mut cache, now_ns, "ms k 1 @t18446744073709551615\r\nx\r\n"), "HD\r\n");
    assert_eq!(text(&mut cache, 1_000_000 * SECOND, "mg k v\r\n"), "VA 1\r\nx\r\n");
}

#[test]
fn our_own_flags_tell_age_and_bound_it() {
    let mut cache = cache();
    let now_ns = 100 * SECOND;
    text(&mut cache, now_ns, "set k 0 0 1\r\nx\r\n");
    let later_ns = now_ns + 2_500_000;
    assert_eq!(text(&mut cache, later_ns, "mg k @a @c @n v\r\n"), "VA 1 @a2500\r\nx\r\n");
    let version = text(&mut cache, later_ns, "mg k c\r\n").replace(" c", " @v");
    assert_eq!(text(&mut cache, later_ns, "mg k @v\r\n"), version);
    assert_eq!(text(&mut cache, later_ns, "mg k @m2500 v\r\n"), "VA 1\r\nx\r\n");
    assert_eq!(text(&mut cache, later_ns, "mg k @m2499 v O1\r\n"), "EN O1\r\n");
    // Too old is no reason to make it anew: it is there.
    assert_eq!(text(&mut cache, later_ns, "mg k @m0 N10\r\n"), "EN\r\n");
    assert_eq!(text(&mut cache, later_ns, "mg k v\r\n"), "VA 1\r\nx\r\n");
}

#[test]
fn a_record_of_a_feed_tells_where_it_comes_from_and_that_it_is_suspect() {
    let mut cache = cache();
    let now_ns = 100 * SECOND;
    let mut record = vec![0; 96];
    record[..2].copy_from_slice(&record::LAYOUT_VERSION.to_le_bytes());
    record[2..4].copy_from_slice(&96u16.to_le_bytes());
    record[8..16].copy_from_slice(&77u64.to_le_bytes());
    record[16..24].copy_from_slice(&(now_ns - 5_000).to_le_bytes());
    cache.put(b"f", &record, 3, now_ns).unwrap();
    let head = |cache: &mut Cache, request: &str| {
        let replies = ask_at(cache, now_ns, request.as_bytes());
        let line = replies[0][8..].split(|&byte| byte == b'\r').next().unwrap();
        (String::from_utf8(line.to_vec()).unwrap(), replies[0].len() > 100)
    };
    assert_eq!(ask_at(&mut cache, now_ns, b"get f\r\n")[0].len(), 13);
    assert_eq!(head(&mut cache, "mg f v O1\r\n"), ("EN O1 @s".into(), false));
    assert!(ask_at(&mut cache, now_ns, b"mg f v q\r\n").is_empty());
    assert_eq!(head(&mut cache, "mg f v @s @n\r\n"), ("VA 96 @n77 @s".into(), true));
    cache.set_channel(3, ChannelState::LiveUntil(now_ns));
    let asked = head(&mut cache, "mg f v @c @n @a @s\r\n");
    assert_eq!(asked, (format!("VA 96 @c{} @n77 @a5", now_ns - 5_000), true));
    assert_eq!(head(&mut cache, "mg f v @m4\r\n"), ("EN".into(), false));
    // A value that is no record has no origin, only the time at which it was published.
    cache.put(b"f", b"short", 3, now_ns).unwrap();
    assert_eq!(head(&mut cache, "mg f @c @n @a\r\n"), ("HD @a0".into(), false));
}
