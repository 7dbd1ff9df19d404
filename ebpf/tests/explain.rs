//! What is said of a frame is what the running program does with it, and saying it leaves no trace.

mod support;

use std::collections::BTreeMap;

use nautilus_ebpf::intf::{Permissions, Service};
use nautilus_ebpf::{
    Explainer, HotArea, HotHits, Names, Options, Rate, RateLimit, Rights, TestContext, Verdict,
    slot_of,
};

use support::corpus::{SHAPES, corpus};
use support::frame::{FRAGMENT, Frame, TCP};
use support::hot::{HOT_CACHE, get, value};
use support::mutate::{Random, mutate};
use support::{
    CACHE_PORT, ECHO_PORT, FRAME_BYTES_MAX, HOT_SERVICE, LISTED_V4, OUR_V4, Rig, UNLISTED_V4,
    checksum, ip, scale,
};

struct Called;

impl Names for Called {
    fn service(&self, port: u16, service: &Service) -> String {
        format!("service {} at {port}", service.id)
    }
    fn list(&self, list: u16) -> String {
        format!("list {list}")
    }
    fn socket(&self, place: u32) -> String {
        format!("worker of {place}")
    }
}

fn explainer(rig: &Rig) -> Explainer {
    let options = Options { frame_bytes_max: FRAME_BYTES_MAX };
    let explainer = Explainer::beside(&rig.steering, options).unwrap();
    assert!(explainer.is_same_program());
    explainer
}

fn limit(rig: &Rig, source: &str, burst: u64) {
    let packets = Some(Rate { per_s: 1, burst });
    rig.steering.replace_limits(&[RateLimit { packets, bytes: None }]).unwrap();
    let rights = Rights::from(Permissions::ALL).limited(1);
    rig.steering.set_source(source.parse().unwrap(), rights).unwrap();
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn every_verdict_is_told_before_it_is_given() {
    let Some(rig) = Rig::new("every_verdict_is_told_before_it_is_given") else { return };
    let explainer = explainer(&rig);
    let mut random = Random::new(scale("NAUTILUS_SEED", 11));
    let corpus = corpus();
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    for number in 0..scale("NAUTILUS_EXPLAINED", 5_000) {
        // Every other frame from the sound shapes, which are few.
        let reach = if number % 2 == 0 { SHAPES } else { corpus.len() };
        let mut frame = mutate(&corpus[random.below(reach)], &mut random);
        if random.below(2) == 0 {
            checksum::repair(&mut frame);
        }
        let name = format!("frame {number}");
        let before = rig.steering.verdicts().unwrap();
        let told =
            explainer.explain(&rig.steering, &frame, TestContext::default(), &Called).unwrap();
        assert_eq!(rig.steering.verdicts().unwrap(), before, "{name}: counted by the running one");
        let (verdict, outcome) = rig.run(&name, &frame);
        assert_eq!(told.verdict, verdict, "{name}: {frame:02x?}");
        assert_eq!(told.outcome.action, outcome.action, "{name}");
        assert_eq!(told.outcome.packet, outcome.packet, "{name}");
        assert!(!told.steps.is_empty() && told.steps.iter().all(|step| !step.found.is_empty()));
        *verdicts.entry(verdict).or_default() += 1;
    }
    println!("{verdicts:?}");
    assert!(verdicts.len() > 15, "{verdicts:?}");
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn nothing_of_the_running_program_is_touched() {
    let Some(rig) = Rig::new("nothing_of_the_running_program_is_touched") else { return };
    let explainer = explainer(&rig);
    limit(&rig, LISTED_V4, 2);
    let hot = get(Frame::v4(CACHE_PORT), 1, b"hot:key").bytes();
    let explain = |frame: &[u8]| {
        explainer.explain(&rig.steering, frame, TestContext::default(), &Called).unwrap()
    };
    for _ in 0..10 {
        assert_eq!(explain(&hot).verdict, Verdict::HotHit, "each time the first");
    }
    let slot = slot_of(HOT_CACHE, b"hot:key").unwrap();
    assert_eq!(HotHits::map(rig.steering.hot_fds()[2]).unwrap().of(slot), 0);
    assert_eq!(rig.steering.bucket(ip(LISTED_V4)).unwrap(), None);
    assert_eq!(rig.steering.verdicts().unwrap().total().packet_count, 0);
    rig.expect("the first", &hot, Verdict::HotHit);
    rig.expect("the second", &hot, Verdict::HotHit);
    let bucket = rig.steering.bucket(ip(LISTED_V4)).unwrap();
    let told = explain(&hot);
    assert_eq!(told.verdict, Verdict::PacketLimit, "the bucket as it is now");
    let limit = told.steps.last().unwrap();
    assert_eq!(limit.name, "limit");
    assert!(limit.found.starts_with("1 packets/s, burst 2, full in 1"), "{}", limit.found);
    assert_eq!(rig.steering.bucket(ip(LISTED_V4)).unwrap(), bucket);
    rig.expect("and so it is", &hot, Verdict::PacketLimit);
}

/// (frame, verdict, what the last step says)
#[test]
#[ignore = "privileged: loads XDP programs"]
fn the_last_step_says_why() {
    let Some(mut rig) = Rig::new("the_last_step_says_why") else { return };
    let explainer = explainer(&rig);
    let v4 = || Frame::v4(CACHE_PORT);
    let cold = get(v4(), 1, b"cold");
    for (frame, verdict, step, says) in [
        (v4().with(|f| f.tags = vec![0x8100; 3]), Verdict::VlanDepth, "link", "VLANs [100, 101]"),
        (v4().with(|f| f.to_mac[5] = 9), Verdict::OtherMac, "interface", "not ours"),
        (Frame::new(LISTED_V4, "198.18.0.9", 7), Verdict::OtherAddress, "address", "not served"),
        (v4().with(|f| f.fragment = 0x2000), Verdict::Fragment, "transport", "UDP"),
        (
            Frame::v6(7).with(|f| f.extensions = vec![(FRAGMENT, vec![0; 8])]),
            Verdict::Fragment,
            "transport",
            "protocol 44",
        ),
        (Frame::v4(53), Verdict::OtherPort, "port", "no service of ours"),
        (
            Frame::new(UNLISTED_V4, OUR_V4, ECHO_PORT),
            Verdict::SourceUnlisted,
            "source",
            "198.18.7.2: no prefix of list 0 covers it",
        ),
        (
            Frame::new("198.18.0.66", OUR_V4, ECHO_PORT),
            Verdict::SourceUnlisted,
            "source",
            "198.18.0.66 by 198.18.0.66/32: nothing (list 0)",
        ),
        (v4().with(|f| f.protocol = TCP), Verdict::TcpListed, "limit", "none"),
        (v4().with(|f| f.udp_length = Some(900)), Verdict::UdpLength, "limit", "UDP of 900 bytes"),
        (get(v4(), 1, b"hot:key"), Verdict::HotHit, "hot set", ": answered"),
        (cold, Verdict::Redirected, "queue", "queue 0 -> socket 5: worker of 5"),
    ] {
        let frame = frame.bytes();
        let told =
            explainer.explain(&rig.steering, &frame, TestContext::default(), &Called).unwrap();
        let last = told.steps.last().unwrap();
        assert_eq!((told.verdict, last.name), (verdict, step), "{last:?}");
        assert!(last.found.contains(says), "{last:?} lacks {says:?}");
        rig.expect(says, &frame, verdict);
    }
    let hot_step = |frame: &Frame| {
        let context = TestContext::default();
        let told = explainer.explain(&rig.steering, &frame.bytes(), context, &Called).unwrap();
        told.steps.into_iter().find(|step| step.name == "hot set").unwrap().found
    };
    assert!(hot_step(&get(v4(), 1, b"cold")).ends_with("is empty"));
    // In the second of two workers' areas.
    rig.steering.set_service(CACHE_PORT, HOT_SERVICE.of_workers(2)).unwrap();
    let slot = HotArea::new(1, 2).unwrap().slot_of(HOT_CACHE, b"cold").unwrap();
    rig.slots.publish(slot, &value(b"cold", b"no longer")).unwrap();
    assert_eq!(hot_step(&get(v4(), 1, b"cold")), format!("slot {slot}: answered"));
    assert!(hot_step(&get(v4(), 1, b"colder")).ends_with("is empty"));
    rig.steering.set_service(CACHE_PORT, HOT_SERVICE).unwrap();
    assert_eq!(hot_step(&Frame::v4(ECHO_PORT)), "the service has none");
    let wrong_sum = get(v4(), 1, b"hot:key").with(|f| f.checksums = false);
    let bytes = wrong_sum.with(|f| f.payload[9] = b'E');
    assert_eq!(hot_step(&bytes), "not a get or mg of one key up to 32 bytes in one datagram");
    rig.words.set_valid_until(HOT_CACHE, 0);
    assert!(hot_step(&get(v4(), 1, b"hot:key")).contains("lease is over"));
}
