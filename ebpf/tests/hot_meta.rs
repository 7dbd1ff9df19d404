//! `mg` of a hot key: every set of flags it answers, byte for byte what the protocol says, and every request
//! that is the worker's.

mod support;

use nautilus_ebpf::intf::HOT_PATH;
use nautilus_ebpf::{HotMeta, HotValue, Verdict};

use support::frame::Frame;
use support::hot::{publish, value};
use support::mutate::Random;
use support::{CACHE_PORT, Rig, monotonic_ns};

const VERSION: u64 = 1_764_086_400_123_456;

fn rig(test: &str) -> Option<Rig> {
    if !HOT_PATH {
        println!("SKIPPED {test}: this build has no hot path");
        return None;
    }
    Rig::new(test)
}

fn ask(mut frame: Frame, text: &[u8]) -> Frame {
    frame.payload = [&[0x12, 0x34, 0, 0, 0, 1, 0, 0][..], text].concat();
    frame.checksums = true;
    frame
}

/// What an item is.
struct Item<'a> {
    key: &'a [u8],
    value: &'a [u8],
    flags: u32,
    version: u64,
    expiry_ns: u64,
}

impl Item<'_> {
    fn show(&self, rig: &mut Rig) {
        let Self { key, value: bytes, flags, version, expiry_ns } = self;
        let line = [b"VALUE ", *key, format!(" {flags} {}\r\n", bytes.len()).as_bytes()].concat();
        let reply = [&line, *bytes, b"\r\nEND\r\n"].concat();
        let meta = HotMeta { line_bytes: line.len(), flags: *flags, version: *version };
        let shown = HotValue { expiry_ns: *expiry_ns, meta: Some(meta), ..value(key, &reply) };
        publish(&mut rig.slots, &shown);
    }

    /// The answer to these flags, as memcached's `doc/protocol.txt` has it.
    fn answer(&self, flags: &[&str]) -> Vec<u8> {
        let wants_value = flags.contains(&"v");
        let mut text = match wants_value {
            true => format!("VA {}", self.value.len()).into_bytes(),
            false => b"HD".to_vec(),
        };
        for flag in flags {
            match *flag {
                "v" | "q" => {}
                "k" => text.extend([b" k", self.key].concat()),
                "s" => text.extend(format!(" s{}", self.value.len()).bytes()),
                "f" => text.extend(format!(" f{}", self.flags).bytes()),
                "c" => text.extend(format!(" c{}", self.version).bytes()),
                "t" => text.extend(b" t-1"),
                opaque => text.extend(format!(" {opaque}").bytes()),
            }
        }
        text.extend(b"\r\n");
        if wants_value {
            text.extend([self.value, b"\r\n"].concat());
        }
        text
    }
}

fn shapes() -> [Frame; 3] {
    let v4 = Frame::v4(CACHE_PORT);
    [v4.clone(), v4.with(|f| f.tags = vec![0x8100]), Frame::v6(CACHE_PORT)]
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn any_flags_in_any_order_are_answered_as_the_protocol_says() {
    let Some(mut rig) = rig("any_flags_in_any_order_are_answered_as_the_protocol_says") else {
        return;
    };
    let mut random = Random::new(9);
    let numbers = [0, 7, 10, 999, 65_536, u32::MAX];
    for round in 0..3_000 {
        let key: Vec<u8> = (0..=random.below(32)).map(|_| b'!' + random.below(90) as u8).collect();
        let flags = numbers[random.below(numbers.len())];
        let room = 208 - 6 - key.len() - 1 - flags.to_string().len() - 1 - 3 - 2 - 7;
        let bytes: Vec<u8> = (0..random.below(room + 1)).map(|_| random.below(256) as u8).collect();
        let version = [1, VERSION, u64::MAX][random.below(3)];
        let item = Item { key: &key, value: &bytes, flags, version, expiry_ns: 0 };
        item.show(&mut rig);
        let opaque = format!("O{}", "o".repeat(random.below(32)));
        let mut asked = vec!["v", "f", "c", "s", "k", "q", "t", opaque.as_str()];
        // Some of them, in some order.
        for at in (1..asked.len()).rev() {
            asked.swap(at, random.below(at + 1));
        }
        asked.truncate(random.below(asked.len() + 1));
        let text = [
            b"mg ",
            &key[..],
            asked.iter().map(|flag| format!(" {flag}")).collect::<String>().as_bytes(),
            b"\r\n",
        ]
        .concat();
        let name = format!("round {round}: {}", text.escape_ascii());
        let request = ask(shapes()[random.below(3)].clone(), &text);
        let (verdict, outcome) = rig.run(&name, &request.bytes());
        let answer = item.answer(&asked);
        // The longest requests and answers are the worker's.
        if verdict != Verdict::HotHit && (text.len() > 96 || answer.len() > text.len() + 216) {
            assert_eq!(verdict, Verdict::Redirected, "{name}");
            continue;
        }
        assert_eq!(verdict, Verdict::HotHit, "{name}");
        let heard = support::hot::read_answer(&name, &request.bytes(), &outcome.packet);
        assert_eq!(heard, answer, "{name}: {}", heard.escape_ascii());
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn what_does_not_follow_from_the_slot_is_the_workers() {
    let Some(mut rig) = rig("what_does_not_follow_from_the_slot_is_the_workers") else { return };
    let (key, bytes) = (b"k", b"value");
    let item = Item { key, value: bytes, flags: 5, version: VERSION, expiry_ns: 0 };
    item.show(&mut rig);
    let v4 = || Frame::v4(CACHE_PORT);
    let hit = |text: &str, rig: &Rig| {
        rig.expect(text, &ask(v4(), text.as_bytes()).bytes(), Verdict::HotHit)
    };
    let worker = |text: &str, rig: &Rig| {
        rig.expect(text, &ask(v4(), text.as_bytes()).bytes(), Verdict::Redirected);
    };
    for text in
        ["mg k\r\n", "mg k v\r\n", "mg k v t\r\n", "mg k O\r\n", "mg k v f c s k q t Oab\r\n"]
    {
        hit(text, &rig);
    }
    for text in [
        "mg k v v\r\n",
        "mg k v T30\r\n",
        "mg k N30\r\n",
        "mg k R30\r\n",
        "mg k h\r\n",
        "mg k l\r\n",
        "mg k u v\r\n",
        "mg k E1\r\n",
        "mg aw== b v\r\n",
        "mg k @v\r\n",
        "mg k vx\r\n",
        "mg k  v\r\n",
        "mg  k v\r\n",
        "mg k v \r\n",
        "mg k v\n",
        "mg k v",
        "mg k v\r\nmg k v\r\n",
        "mg k v\rx\r\n",
        "mg k Oab\rx\r\n",
        "mg\r\n",
        "mg \r\n",
        "mg kk v\r\n",
        "mn k v\r\n",
        "MG k v\r\n",
        "mg k OOabcdefghijklmnopqrstuvwxyz12345\r\n",
    ] {
        worker(text, &rig);
    }
    let mut wrong = ask(v4(), b"mg k v\r\n").bytes();
    let last = wrong.len() - 3;
    wrong[last] ^= 1;
    rig.expect("a wrong checksum", &wrong, Verdict::Redirected);
    let expiry_ns = monotonic_ns() + 3_600_000_000_000;
    Item { expiry_ns, ..item }.show(&mut rig);
    hit("mg k v f\r\n", &rig);
    worker("mg k v t\r\n", &rig);
    // A slot that says nothing for meta requests.
    publish(&mut rig.slots, &value(key, b"VALUE k 5 5\r\nvalue\r\nEND\r\n"));
    hit("get k\r\n", &rig);
    worker("mg k v\r\n", &rig);
}

/// One bit wrong anywhere behind the link header is seen by a checksum, if by nothing else.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn no_request_with_a_wrong_bit_is_answered() {
    let Some(mut rig) = rig("no_request_with_a_wrong_bit_is_answered") else { return };
    let item = Item { key: b"key", value: b"value", flags: 5, version: VERSION, expiry_ns: 0 };
    item.show(&mut rig);
    let bytes = ask(Frame::v4(CACHE_PORT), b"mg key v f Oabc\r\n").bytes();
    rig.expect("sound", &bytes, Verdict::HotHit);
    for bit in 14 * 8..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let (verdict, _) = rig.run("bent", &bent);
        assert_ne!(verdict, Verdict::HotHit, "bit {bit}");
    }
}
