use super::*;

fn parsed(text: &[u8]) -> Request<'_> {
    match next(text) {
        Next::Request(request, taken) => {
            assert_eq!(taken, text.len(), "{}", text.escape_ascii());
            request
        }
        other => panic!("{}: {other:?}", text.escape_ascii()),
    }
}

#[test]
fn a_stream_is_told_what_it_misses_and_reads_no_byte_twice() {
    assert_eq!(next(b"get k"), Next::Incomplete { needed: 1 });
    assert_eq!(next(b"set k 0 0 5\r\nab"), Next::Incomplete { needed: 5 });
    assert_eq!(next(b"ms k 5\r\nabcde\r"), Next::Incomplete { needed: 1 });
    assert_eq!(next_after(b"get k\r\n", 6), next(b"get k\r\n"));
    // Behind a line feed that was passed by, there is none.
    assert_eq!(next_after(b"get k\r\n", 7), Next::Incomplete { needed: 1 });
    let taken = |text| match next(text) {
        Next::Request(_, taken) => taken,
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(b"version\r\nget k\r\n"), 9);
    assert_eq!(taken(b"set k 0 0 1\na\r\nget k\r\n"), 15);
    // Data that is refused unread is still to be skipped.
    assert_eq!(taken(b"set k 0 0 2000000\r\nabc"), 19 + 2_000_002);
    assert_eq!(taken(b"ms k 2000000 !\r\nabc"), 16 + 2_000_002);
}

#[test]
fn a_line_without_an_end_is_bounded() {
    let line = |front: &[u8], bytes| [front, &vec![b'x'; bytes]].concat();
    assert_eq!(next(&line(b"", LINE_BYTES_MAX)), Next::Incomplete { needed: 1 });
    assert_eq!(next(&line(b"", LINE_BYTES_MAX + 1)), Next::Unreadable);
    assert_eq!(next(&line(b"  get ", 60_000)), Next::Incomplete { needed: 1 });
    assert_eq!(next(&line(b"get ", GET_LINE_BYTES_MAX)), Next::Unreadable);
    assert_eq!(next(&line(&[b' '; 101], LINE_BYTES_MAX)), Next::Unreadable);
}

#[test]
fn meta_flags_are_read_with_their_tokens() {
    let Request::Meta(meta) = parsed(b"mg k v t Oab N30 R-5 @m100 @s @v q u l\r\n") else {
        panic!()
    };
    assert_eq!(meta.key.bytes(), b"k");
    assert_eq!((meta.vivify_seconds, meta.recache_seconds), (Some(30), Some(-5)));
    let own = Own { age_us_max: Some(100), wants_suspect: true, ttl_ms: None };
    assert_eq!((meta.own, meta.wants_value, meta.quiet), (own, true, true));
    let tokens: Vec<_> = flags(meta.flags).take(3).collect();
    assert_eq!(tokens, [(b'v', &b""[..]), (b't', b""), (b'O', b"ab")]);
    let Request::Meta(meta) = parsed(b"ma aGVsbG8= b D5 J7 MD C9 T1\r\n") else { panic!() };
    assert_eq!(meta.key.bytes(), b"hello");
    assert_eq!((meta.delta, meta.initial, meta.mode, meta.version), (5, 7, b'D', Some(9)));
    let Request::Meta(meta) = parsed(b"ms k 3 F7 I\r\nabc\r\n") else { panic!() };
    assert_eq!((meta.data, meta.client_flags), (Data::Whole(b"abc"), 7));
    assert!(meta.invalidates);
}

#[test]
fn our_own_flags_are_for_mg_or_ms_and_each_stands_once() {
    let refusal = |text: &'static [u8]| match parsed(text) {
        Request::Refused { refusal, .. } => Some(refusal),
        _ => None,
    };
    assert_eq!(refusal(b"mg k @v @a @c @n @s @m1\r\n"), None);
    assert_eq!(refusal(b"mg k @v @v\r\n"), Some(Refusal::DuplicateFlag));
    assert_eq!(refusal(b"mg k @\r\n"), Some(Refusal::InvalidFlag));
    assert_eq!(refusal(b"mg k @x\r\n"), Some(Refusal::InvalidFlag));
    assert_eq!(refusal(b"mg k @vx\r\n"), Some(Refusal::InvalidFlag));
    assert_eq!(refusal(b"mg k @m\r\n"), Some(Refusal::Token));
    assert_eq!(refusal(b"md k @v\r\n"), Some(Refusal::InvalidOrDuplicateFlag));
    assert_eq!(refusal(b"ma k @v\r\n"), Some(Refusal::InvalidOrDuplicateFlag));
    assert_eq!(refusal(b"ms k 1 @v\r\nx\r\n"), Some(Refusal::InvalidFlag));
    assert_eq!(refusal(b"mg k @t1\r\n"), Some(Refusal::InvalidFlag));
    assert_eq!(refusal(b"ms k 1 @t1500\r\nx\r\n"), None);
    assert_eq!(refusal(b"ms k 1 @t1 @t1\r\nx\r\n"), Some(Refusal::DuplicateFlag));
    assert_eq!(refusal(b"ms k 1 @t-1\r\nx\r\n"), Some(Refusal::Token));
    assert_eq!(refusal(b"ms k 1 @\r\nx\r\n"), Some(Refusal::InvalidFlag));
}

#[test]
fn a_browser_is_not_talked_to() {
    assert_eq!(parsed(b"GET / HTTP/1.1\r\n"), Request::Quit);
    assert_eq!(parsed(b"GET k\r\n"), Request::refused(Refusal::Unknown));
}

/// What must hold of any text: no panic, and progress that stays inside what was announced.
fn check(text: &[u8]) {
    match next(text) {
        Next::Request(request, taken) => {
            assert!(taken > 0 && taken <= text.len() + 2 * VALUE_ANNOUNCED_MAX);
            if taken > text.len() {
                let skips = match request {
                    Request::Store(store) => store.data == Data::TooLarge,
                    Request::Meta(meta) => meta.data == Data::TooLarge,
                    Request::Refused { .. } => true,
                    _ => false,
                };
                assert!(skips, "{}", text.escape_ascii());
            }
            let end = text.iter().position(|&byte| byte == b'\n').unwrap();
            for scanned in [end / 2, end] {
                assert_eq!(next_after(text, scanned), Next::Request(request, taken));
            }
        }
        Next::Incomplete { needed } => assert!(needed > 0),
        Next::Unreadable => assert!(text.len() > LINE_BYTES_MAX),
    }
    let _ = first_key(text);
}

const VALUE_ANNOUNCED_MAX: usize = i32::MAX as usize;

/// Real requests, mutated byte by byte. `NAUTILUS_FUZZ_ITERATIONS=100000000` for the long form.
#[test]
fn no_text_makes_the_parsers_panic_or_run_away() {
    let iterations = std::env::var("NAUTILUS_FUZZ_ITERATIONS")
        .map_or(400_000, |text| text.parse::<u64>().expect("a number"));
    let seeds: [&[u8]; 20] = [
        b"get a b c\r\n",
        b"gats 10 a b\r\n",
        b"set key 1 100 5 noreply\r\nabcde\r\n",
        b"cas key 1 100 5 77 noreply\r\nabcde\r\n",
        b"append k 0 0 0\r\n\r\n",
        b"delete k 0 noreply\r\n",
        b"incr k 18446744073709551615\r\n",
        b"touch k -1 noreply\r\n",
        b"flush_all 10 noreply\r\n",
        b"stats items\r\n",
        b"verbosity 1\r\n",
        b"mg k v t s f c h l k O1 q u N10 R10 T10\r\n",
        b"mg aGVsbG8= b k @v @a @c @n @m100 @s\r\n",
        b"ms k 5 F1 T10 I C5 MS c k Oxyz\r\nabcde\r\n",
        b"ms Zm9v 2 b MA\r\nab\r\n",
        b"md k I T10 C1 q\r\n",
        b"ma k N10 J5 D3 MD t c v\r\n",
        b"me aGVsbG8= b\r\nmn\r\n",
        b"set k 0 0 2147483645\r\n",
        b"GET / HTTP/1.1\r\nquit\r\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % bound
    };
    let mut text = Vec::new();
    for _ in 0..iterations {
        text.clear();
        text.extend(seeds[below(seeds.len())]);
        for _ in 0..below(6) {
            let at = below(text.len());
            match below(6) {
                0 => text[at] = below(256) as u8,
                1 => text[at] = b" \r\n\0-+@=0"[below(9)],
                2 => text.truncate(at + 1),
                3 => text.insert(at, b" 9k\n"[below(4)]),
                4 => _ = text.remove(at),
                _ => {
                    let other = seeds[below(seeds.len())];
                    text.splice(at..at, other[below(other.len())..].iter().copied());
                }
            }
            if text.is_empty() {
                text.push(b'\n');
            }
        }
        check(&text);
    }
}
