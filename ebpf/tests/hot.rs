//! What the program answers from the hot set and what it leaves to the worker. `Rig::run` checks of
//! every answer what follows from the request, and of everything else that the packet is untouched.

mod support;

use std::os::fd::AsFd;

use nautilus_ebpf::Verdict::{self, *};
use nautilus_ebpf::intf::{HOT_CACHES, HOT_PATH, HOT_SLOTS, Permissions, Service};
use nautilus_ebpf::{HotError, HotHits, HotSlots, HotValue, HotWords, slot_of};

use support::frame::{DESTINATION, Frame, HOP_BY_HOP};
use support::hot::{
    HOT_CACHE, HOT_EPOCH, HOT_GENERATION, HOT_KEYS, get, publish, read_answer, text, value,
};
use support::mutate::Random;
use support::{
    CACHE_PORT, ECHO_PORT, FRAME_BYTES_MAX, HOT_SERVICE, LISTED_V4, OUR_V4, Rig, UNLISTED_V4,
    checksum, monotonic_ns,
};

const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;
const KEY: &[u8] = b"hot:key";

/// None with a printed `SKIPPED` line without the right to load programs, or without a hot path.
fn rig(test: &str) -> Option<Rig> {
    if !HOT_PATH {
        println!("SKIPPED {test}: this build answers nothing from the hot set");
        return None;
    }
    Rig::new(test)
}

fn v4() -> Frame {
    get(Frame::v4(CACHE_PORT), 0x1234, KEY)
}

fn v6() -> Frame {
    get(Frame::v6(CACHE_PORT), 0x1234, KEY)
}

/// The four shapes of link and network that are answered.
fn shapes() -> [(&'static str, Frame); 4] {
    [
        ("IPv4", v4()),
        ("IPv4, tagged", v4().with(|f| f.tags = vec![Q])),
        ("IPv6", v6()),
        ("IPv6, tagged", v6().with(|f| f.tags = vec![Q])),
    ]
}

/// Runs the request and returns the text it was answered with.
fn hit(rig: &Rig, name: &str, request: &Frame) -> Vec<u8> {
    let bytes = request.bytes();
    let (verdict, outcome) = rig.run(name, &bytes);
    assert_eq!(verdict, HotHit, "{name}");
    read_answer(name, &bytes, &outcome.packet)
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn every_shape_and_key_is_answered_with_its_text() {
    let Some(rig) = rig("every_shape_and_key_is_answered_with_its_text") else { return };
    for key in HOT_KEYS.map(str::as_bytes) {
        for (name, shape) in shapes() {
            for id in [0, 1, 0xff00, 0xffff] {
                let request = get(shape.clone(), id, key);
                assert_eq!(hit(&rig, name, &request), text(key), "{name}");
            }
        }
    }
    let mut none = v4().bytes();
    none[40..42].fill(0);
    rig.expect("IPv4 without a UDP checksum", &none, HotHit);
    rig.expect("padded", &[v4().bytes(), vec![0xee; 30]].concat(), HotHit);
    let short = [v4().bytes(), vec![0xee; 200]].concat();
    rig.expect("padding longer than the answer", &short, HotHit);
    let trailer = v6().with(|f| {
        f.payload.extend(b"trailer");
        f.udp_length = Some(8 + 8 + 4 + KEY.len() as u16 + 2);
    });
    assert_eq!(hit(&rig, "UDP shorter than IP", &trailer), text(KEY));
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn every_length_of_key_and_reply() {
    let Some(mut rig) = rig("every_length_of_key_and_reply") else { return };
    let mut random = Random::new(7);
    for reply_bytes in 1..=208 {
        for (name, shape) in shapes() {
            let key: Vec<u8> =
                (0..=reply_bytes % 32).map(|_| b'!' + random.below(90) as u8).collect();
            let reply: Vec<u8> = (0..reply_bytes).map(|_| random.below(256) as u8).collect();
            let slot = publish(&mut rig.slots, &value(&key, &reply));
            let request = get(shape, random.below(65_536) as u16, &key);
            assert_eq!(hit(&rig, name, &request), reply, "{name}, {} of key", key.len());
            rig.slots.empty(slot);
            rig.expect("emptied", &request.bytes(), Redirected);
        }
    }
}

/// Changes of a request, each enough to make it the worker's.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn requests_for_the_worker() {
    let Some(mut rig) = rig("requests_for_the_worker") else { return };
    publish(&mut rig.slots, &value(&[b'k'; 32], b"never for a longer key"));
    let asks = |text: &[u8]| {
        let mut frame = v4();
        frame.payload.truncate(8);
        frame.payload.extend(text);
        frame
    };
    let header = |at: usize, byte: u8| v4().with(|f| f.payload[at] = byte);
    let cases = [
        ("a cold key", get(v4(), 1, b"cold"), Redirected),
        ("a key of 33 bytes", get(v4(), 1, &[b'k'; 33]), Redirected),
        ("a key of 250 bytes", get(v4(), 1, &[b'k'; 250]), Redirected),
        ("two keys", asks(b"get hot:key hot:key\r\n"), Redirected),
        ("no key", asks(b"get \r\n"), Redirected),
        ("no key and no space", asks(b"get\r\n"), Redirected),
        ("two spaces", asks(b"get  hot:key\r\n"), Redirected),
        ("a space after", asks(b"get hot:key \r\n"), Redirected),
        ("noreply", asks(b"get hot:key noreply\r\n"), Redirected),
        ("only a line feed", asks(b"get hot:key\n"), Redirected),
        ("no end", asks(b"get hot:key"), Redirected),
        ("half an end", asks(b"get hot:key\r"), Redirected),
        ("end the wrong way round", asks(b"get hot:key\n\r"), Redirected),
        ("two requests", asks(b"get hot:key\r\nget hot:key\r\n"), Redirected),
        ("a byte more", asks(b"get hot:key\r\n\0"), Redirected),
        ("upper case", asks(b"GET hot:key\r\n"), Redirected),
        ("gets", asks(b"gets hot:key\r\n"), Redirected),
        ("gat", asks(b"gat hot:key\r\n"), Redirected),
        ("meta get", asks(b"mg hot:key v\r\n"), Redirected),
        ("a zero before the key", asks(b"get \0hot:key\r\n"), Redirected),
        ("a key that differs at its front", asks(b"get Hot:key\r\n"), Redirected),
        ("two datagrams", header(5, 2), Redirected),
        ("256 datagrams", header(4, 1), Redirected),
        ("no datagram", header(5, 0), Redirected),
        ("sequence 1: the worker ignores it too", header(3, 1), HotHit),
        ("reserved word: the worker ignores it too", header(7, 1), HotHit),
        ("empty", v4().with(|f| f.payload.clear()), Redirected),
        ("half a frame header", v4().with(|f| f.payload.truncate(7)), Redirected),
        ("echo's port", v4().with(|f| f.port = ECHO_PORT), Redirected),
        ("options", v4().with(|f| f.options = vec![1; 4]), Redirected),
        ("first fragment", v4().with(|f| f.fragment = 0x2000), Fragment),
        ("two tags", v4().with(|f| f.tags = vec![AD, Q]), Redirected),
        ("two tags, IPv6", v6().with(|f| f.tags = vec![Q, Q]), Redirected),
        ("a service tag", v4().with(|f| f.tags = vec![AD]), Redirected),
        ("a group's MAC as sender", v4().with(|f| f.from_mac[0] |= 1), Redirected),
        ("hop-by-hop", v6().with(|f| f.extensions = vec![(HOP_BY_HOP, vec![0; 8])]), Redirected),
        ("destination", v6().with(|f| f.extensions = vec![(DESTINATION, vec![0; 8])]), Redirected),
        ("from a replying service", v4().with(|f| f.source_port = ECHO_PORT), SourcePort),
        ("unlisted", get(Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT), 1, KEY), SourceUnlisted),
        ("from ourselves", get(Frame::new(OUR_V4, OUR_V4, CACHE_PORT), 1, KEY), SourceInvalid),
    ];
    for (name, frame, verdict) in cases {
        rig.expect(name, &frame.bytes(), verdict);
    }
    let long = [v4().bytes(), vec![0; FRAME_BYTES_MAX as usize]].concat();
    rig.expect("longer than a chunk", &long, TooLong);
    rig.expect("and as it was", &v4().bytes(), HotHit);
}

/// One bit wrong anywhere behind the link header is seen: by a checksum, if by nothing else.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn no_request_with_a_wrong_bit_is_answered() {
    let Some(rig) = rig("no_request_with_a_wrong_bit_is_answered") else { return };
    for (name, shape) in shapes() {
        for key in [b"h".as_slice(), KEY] {
            let sound = get(shape.clone(), 0x0102, key);
            let bytes = sound.bytes();
            rig.expect(name, &bytes, HotHit);
            // The fields of IPv6 that no checksum covers: class and flow label, hop limit.
            let network = 14 + 4 * sound.tags.len();
            let v6 = sound.source.is_ipv6();
            let uncovered = |at: usize| v6 && (at < network + 4 || at == network + 7);
            for bit in network * 8..bytes.len() * 8 {
                let mut bent = bytes.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                if uncovered(bit / 8) {
                    continue;
                }
                let (verdict, _) = rig.run(name, &bent);
                assert_ne!(verdict, HotHit, "{name}: bit {bit} of {bytes:02x?}");
            }
        }
    }
    let mut none = v6().bytes();
    none[14 + 40 + 6..][..2].fill(0);
    rig.expect("IPv6 without a UDP checksum", &none, Redirected);
    let mut wrong = v4().bytes();
    wrong[14 + 10..][..2].fill(0);
    rig.expect("IPv4 header checksum 0", &wrong, Redirected);
}

/// Values that may not be used, or not any more.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn values_that_may_not_be_used() {
    let Some(mut rig) = rig("values_that_may_not_be_used") else { return };
    let (words, request) = (&rig.words, v4().bytes());
    let reply = text(KEY);
    let client = value(KEY, &reply);
    let feed = HotValue { channel: 255, ..client };
    let (second_ns, hour_ns) = (1_000_000_000, 3_600_000_000_000);
    let (past_ns, future_ns) = (monotonic_ns() - 1, monotonic_ns() + hour_ns);
    let cases: [(&str, HotValue<'_>, Verdict); 13] = [
        ("a client's", client, HotHit),
        ("another cache's", HotValue { cache: HOT_CACHE + 1, ..client }, Redirected),
        ("another generation's", HotValue { generation: HOT_GENERATION + 1, ..client }, Redirected),
        ("of an older epoch", HotValue { epoch: HOT_EPOCH - 1, ..client }, Redirected),
        ("of a later epoch", HotValue { epoch: HOT_EPOCH + 1, ..client }, Redirected),
        ("expired long ago", HotValue { expiry_ns: 1, ..client }, Redirected),
        ("just expired", HotValue { expiry_ns: past_ns, ..client }, Redirected),
        ("not expired", HotValue { expiry_ns: future_ns, ..client }, HotHit),
        ("never expires", HotValue { expiry_ns: u64::MAX, ..client }, HotHit),
        ("of a channel not begun", feed, Redirected),
        ("another key's", HotValue { key: b"hot:kez", ..client }, Redirected),
        ("a shorter key's", HotValue { key: b"ot:key", ..client }, Redirected),
        ("a client's again", client, HotHit),
    ];
    let slot = slot_of(HOT_CACHE, KEY).unwrap();
    for (name, value, verdict) in cases {
        rig.slots.publish(slot, &value).unwrap();
        rig.expect(name, &request, verdict);
    }
    let words_of = |verdict, name: &str, rig: &Rig| rig.expect(name, &request, verdict);

    words.set_valid_until(HOT_CACHE, past_ns);
    words_of(Redirected, "lease over", &rig);
    words.set_valid_until(HOT_CACHE, 0);
    words_of(Redirected, "no lease", &rig);
    words.set_valid_until(HOT_CACHE, future_ns);
    words_of(HotHit, "lease", &rig);
    words.set_valid_until(HOT_CACHE, u64::MAX);
    words.set_flush_epoch(HOT_CACHE, u64::from(HOT_EPOCH) + 1);
    words_of(Redirected, "flushed", &rig);
    words.set_flush_epoch(HOT_CACHE, u64::from(HOT_EPOCH) + (1 << 32));
    words_of(HotHit, "the epoch is 32 bits", &rig);
    words.set_flush_epoch(HOT_CACHE, HOT_EPOCH.into());

    rig.slots.publish(slot, &feed).unwrap();
    for (name, word, verdict) in [
        ("suspect", 0, Redirected),
        ("silent", past_ns, Redirected),
        ("live", future_ns, HotHit),
        ("live without a limit", u64::MAX, HotHit),
    ] {
        words.set_channel(HOT_CACHE, 255, word);
        words_of(verdict, name, &rig);
    }
    words.set_channel(HOT_CACHE, 254, 0);
    words_of(HotHit, "another channel is suspect", &rig);
    words.set_halted(true);
    words.set_channel(HOT_CACHE, 255, u64::MAX);
    words_of(Redirected, "halted, whatever its channel says", &rig);
    rig.slots.publish(slot, &client).unwrap();
    words_of(HotHit, "halted, but a client's", &rig);
    rig.slots.publish(slot, &feed).unwrap();
    words.set_halted(false);
    words_of(HotHit, "released", &rig);
    words.set_channel_epoch(HOT_CACHE, 255, 1);
    words_of(Redirected, "channel begun anew", &rig);
    let begun = HotValue { epoch: HOT_EPOCH + 1, expiry_ns: future_ns, ..feed };
    rig.slots.publish(slot, &begun).unwrap();
    words_of(HotHit, "written since", &rig);
    words.set_channel(HOT_CACHE, 255, monotonic_ns() + second_ns / 20);
    words_of(HotHit, "for 50 ms more", &rig);
    std::thread::sleep(std::time::Duration::from_millis(60));
    words_of(Redirected, "and then no longer", &rig);
    words.set_halted(true);
    words.close(HOT_CACHE);
    assert!(words.is_halted(HOT_CACHE), "a new cache does not release it");
    words.set_halted(false);
    rig.slots.publish(slot, &HotValue { epoch: 0, ..client }).unwrap();
    words_of(Redirected, "cache closed", &rig);
    words.set_valid_until(HOT_CACHE, u64::MAX);
    words_of(HotHit, "a new cache of the same index", &rig);
}

/// Keys that share a slot are told apart by every byte of theirs.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn another_key_in_the_slot_is_no_answer() {
    let Some(mut rig) = rig("another_key_in_the_slot_is_no_answer") else { return };
    for key_bytes in [1, 7, 8, 9, 16, 24, 25, 31, 32] {
        let key = vec![b'k'; key_bytes];
        let slot = slot_of(HOT_CACHE, &key).unwrap();
        let request = get(v4(), 1, &key);
        for at in 0..key_bytes {
            let mut other = key.clone();
            other[at] = b'j';
            rig.slots.publish(slot, &value(&other, b"the other's")).unwrap();
            rig.expect("the other's slot", &request.bytes(), Redirected);
        }
        for other in [&key[1..], &[b'k'; 33][..key_bytes + 1]] {
            if rig.slots.publish(slot, &value(other, b"the other's")).is_ok() {
                rig.expect("a longer or shorter one's slot", &request.bytes(), Redirected);
            }
        }
        rig.slots.publish(slot, &value(&key, b"its own")).unwrap();
        assert_eq!(hit(&rig, "its own", &request), b"its own");
    }
}

/// What may be read depends on the source and the service.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn sources_and_services() {
    let Some(rig) = rig("sources_and_services") else { return };
    let request = v4().bytes();
    let list = |permissions| {
        rig.steering.set_source(LISTED_V4.parse().unwrap(), permissions).unwrap();
    };
    list(Permissions::WRITE);
    rig.expect("may only write", &request, Redirected);
    list(Permissions::NONE);
    rig.expect("may nothing", &request, SourceUnlisted);
    list(Permissions::READ);
    rig.expect("may read", &request, HotHit);

    let set = |service| rig.steering.set_service(CACHE_PORT, service);
    set(Service::replying(2)).unwrap();
    rig.expect("a service without a hot set", &request, Redirected);
    set(Service { flags: HOT_SERVICE.flags & !Service::HOT, ..HOT_SERVICE }).unwrap();
    rig.expect("the cache with its hot set switched off", &request, Redirected);
    set(Service::hot_cache(2, HOT_CACHE, HOT_GENERATION + 1)).unwrap();
    rig.expect("the cache's successor", &request, Redirected);
    set(Service::hot_cache(2, HOT_CACHE + 1, HOT_GENERATION)).unwrap();
    rig.expect("another cache", &request, Redirected);
    set(HOT_SERVICE).unwrap();
    rig.expect("the cache again", &request, HotHit);

    assert!(set(Service::hot_cache(2, HOT_CACHES, 1)).is_err());
    let listening = Service { flags: Service::listening(2).flags | Service::HOT, ..HOT_SERVICE };
    assert!(set(listening).is_err());
}

/// A checksum that comes out as 0 is sent as 0xffff, which is the same number.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_checksum_is_never_zero() {
    let Some(mut rig) = rig("a_checksum_is_never_zero") else { return };
    for (name, request) in shapes() {
        let udp_at = 14 + 4 * request.tags.len() + if request.source.is_ipv4() { 20 } else { 40 };
        let checksum = |rig: &Rig| {
            let (verdict, outcome) = rig.run(name, &request.bytes());
            assert_eq!(verdict, HotHit);
            [outcome.packet[udp_at + 6], outcome.packet[udp_at + 7]]
        };
        // What the answer lacks to a sum of nothing, put into its text.
        publish(&mut rig.slots, &value(KEY, b"sum:\0\0"));
        let missing = checksum(&rig);
        publish(&mut rig.slots, &value(KEY, &[b"sum:".as_slice(), &missing].concat()));
        assert_eq!(checksum(&rig), [0xff, 0xff], "{name}");
    }
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn hits_are_counted_by_slot_and_by_cache() {
    let Some(mut rig) = rig("hits_are_counted_by_slot_and_by_cache") else { return };
    let hits = HotHits::map(rig.steering.hot_fds()[2]).unwrap();
    let (slot, other) = (slot_of(HOT_CACHE, KEY).unwrap(), slot_of(HOT_CACHE, b"h").unwrap());
    for _ in 0..3 {
        rig.expect("hit", &v4().bytes(), HotHit);
    }
    rig.expect("hit of another", &get(v6(), 1, b"h").bytes(), HotHit);
    rig.slots.empty(slot);
    rig.expect("no hit", &v4().bytes(), Redirected);
    let sum: u64 = (0..HOT_SLOTS).map(|slot| hits.of(slot)).sum();
    assert_eq!((hits.of(slot), hits.of(other), sum), (3, 1, 4));
    let of_caches: Vec<u64> = (0..HOT_CACHES).map(|cache| hits.of_cache(cache)).collect();
    let mut expected = vec![0; HOT_CACHES.into()];
    expected[usize::from(HOT_CACHE)] = 4;
    assert_eq!(of_caches, expected);
    hits.begin_cache(HOT_CACHE);
    assert_eq!((hits.of_cache(HOT_CACHE), hits.of(slot)), (0, 3), "the slots' go on");
    rig.expect("hit of another", &get(v6(), 1, b"h").bytes(), HotHit);
    hits.begin_cache(HOT_CACHE + 1);
    assert_eq!(hits.of_cache(HOT_CACHE), 1);
}

/// A successor finds what its predecessor published, and goes on where it was.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_successor_goes_on_from_memory() {
    let Some(mut rig) = rig("a_successor_goes_on_from_memory") else { return };
    let slot = slot_of(HOT_CACHE, KEY).unwrap();
    let fds = rig.steering.hot_fds().map(|fd| fd.try_clone_to_owned().unwrap());
    let [slots, words, hits] = &fds;
    for turn in 0..5 {
        let expiry_ns = u64::MAX - turn;
        let reply = format!("VALUE {turn}");
        let value = HotValue { expiry_ns, channel: 9, ..value(KEY, reply.as_bytes()) };
        rig.words.set_channel(HOT_CACHE, 9, u64::MAX - turn);
        rig.slots.publish(slot, &value).unwrap();
        rig.slots = HotSlots::map(slots.as_fd()).unwrap();
        rig.words = HotWords::map(words.as_fd()).unwrap();
        let held = rig.slots.holds(slot).expect("published");
        assert_eq!((held.key(), held.expiry_ns, held.channel), (KEY, expiry_ns, 9));
        assert_eq!(
            (held.cache, held.generation, held.epoch),
            (HOT_CACHE, HOT_GENERATION, HOT_EPOCH)
        );
        assert_eq!(rig.words.channel_valid_until(HOT_CACHE, 9), u64::MAX - turn);
        assert_eq!(rig.words.flush_epoch(HOT_CACHE), HOT_EPOCH.into());
        assert_eq!(hit(&rig, "the predecessor's", &v4()), reply.as_bytes());
    }
    for _ in 0..3 {
        rig.slots.empty(slot);
        assert_eq!(rig.slots.holds(slot), None);
        rig.expect("empty", &v4().bytes(), Redirected);
    }
    assert!(HotSlots::map(words.as_fd()).is_err());
    assert!(HotWords::map(hits.as_fd()).is_err());
    assert!(HotHits::map(slots.as_fd()).is_err());
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn values_that_do_not_fit_change_nothing() {
    let Some(mut rig) = rig("values_that_do_not_fit_change_nothing") else { return };
    let slot = slot_of(HOT_CACHE, KEY).unwrap();
    let good = value(KEY, b"x");
    let refused = [
        (HotValue { key: b"", ..good }, HotError::Key),
        (HotValue { key: &[b'k'; 33], ..good }, HotError::Key),
        (HotValue { key: b"two keys", ..good }, HotError::Key),
        (HotValue { key: b"line\r\n", ..good }, HotError::Key),
        (HotValue { key: b"del\x7f", ..good }, HotError::Key),
        (HotValue { reply_text: b"", ..good }, HotError::Reply { bytes: 0 }),
        (HotValue { reply_text: &[0; 209], ..good }, HotError::Reply { bytes: 209 }),
        (HotValue { cache: HOT_CACHES, ..good }, HotError::Cache { cache: HOT_CACHES }),
    ];
    for (value, error) in refused {
        assert_eq!(rig.slots.publish(slot, &value), Err(error));
        assert_eq!(hit(&rig, "as before", &v4()), text(KEY));
    }
    assert_eq!(checksum::sum(&[b"x"]).to_be(), good.reply_sum);
}

/// Whoever holds the map's descriptor can write anything into it; the program believes nothing.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn forged_slots_are_not_answered() {
    let Some(rig) = rig("forged_slots_are_not_answered") else { return };
    let slot = slot_of(HOT_CACHE, KEY).unwrap();
    let map = support::forge::Slot::read(rig.steering.hot_fds()[0], slot);
    for reply_bytes in [0, 209, 210, 256, 4_096, u16::MAX] {
        map.clone().with_reply_bytes(reply_bytes).write();
        rig.expect("forged length", &v4().bytes(), Redirected);
    }
    map.clone().with_version(u64::MAX).write();
    rig.expect("the last version, of the copy in use", &v4().bytes(), HotHit);
    map.clone().with_version(u64::MAX - 1).write();
    rig.expect("a version of the empty copy", &v4().bytes(), Redirected);
    map.write();
    rig.expect("as it was", &v4().bytes(), HotHit);
}
