//! What the running kernel makes of the program, and what a packet costs. The figures are printed;
//! `NAUTILUS_LONG` repeats each packet a million times.

mod support;

use std::time::Duration;

use nautilus_ebpf::intf::{HOT_PATH, Permissions};
use nautilus_ebpf::{HotArea, HotValue, Rate, RateLimit, Rights, TestContext, Verdict};

use support::feed::{FROM, NEXT, SESSION, mold, on_v4};
use support::frame::{DESTINATION, Frame, TCP};
use support::hot::{HOT_CACHE, get, publish, value};
use support::run_time::RunTimes;
use support::{CACHE_PORT, HOT_SERVICE, OUR_V4, Rig, UNLISTED_V4, monotonic_ns};

/// The kernel's limit is 1,000,000. Too low: the next check does not fit under it. Too high: a
/// blow-up of the verifier's work goes unseen until an older kernel refuses the program.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 100_000;

#[test]
#[ignore = "privileged: loads XDP programs"]
fn verifier_statistics() {
    let Some(rig) = Rig::new("verifier_statistics") else { return };
    let statistics = rig.steering.statistics().unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("steer on Linux {}: {statistics:?}", release.trim());
    assert!(statistics.verified_instructions > 0);
    assert!(statistics.verified_instructions < VERIFIED_INSTRUCTIONS_MAX);
    let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    assert_eq!(statistics.jited_bytes > 0, jit.trim() != "0", "JIT setting {jit:?}");
}

/// Without a socket: a repeated run keeps the metadata of the run before, so the stamp, which is
/// mostly the clock's own time, cannot be repeated.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn cost_per_packet() {
    let Some(rig) = Rig::with("cost_per_packet", false) else { return };
    let repeat = if std::env::var_os("NAUTILUS_LONG").is_some() { 1_000_000 } else { 20_000 };
    let mut arp = Frame::v4(CACHE_PORT).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let much = Some(Rate { per_s: Rate::PER_S_MAX, burst: Rate::PER_S_MAX });
    let limits = [(much, None), (much, much), (Some(Rate { per_s: 1, burst: 1 }), None)]
        .map(|(packets, bytes)| RateLimit { packets, bytes });
    rig.steering.replace_limits(&limits).unwrap();
    for limit in 1..=3 {
        let rights = Rights::from(Permissions::ALL).limited(limit);
        let source = format!("198.18.0.{}", 199 + limit);
        rig.steering.set_source(source.parse().unwrap(), rights).unwrap();
    }
    let from = |source| Frame::new(source, OUR_V4, CACHE_PORT).bytes();
    rig.expect("the only packet of its second", &from("198.18.0.202"), Verdict::NoSocket);
    let cases = [
        ("ARP", arp, Verdict::NotIp),
        ("another port", Frame::v4(53).bytes(), Verdict::OtherPort),
        ("listed exact", Frame::new("198.18.9.9", OUR_V4, CACHE_PORT).bytes(), Verdict::NoSocket),
        ("listed by prefix", Frame::v4(CACHE_PORT).bytes(), Verdict::NoSocket),
        ("unlisted", Frame::new(UNLISTED_V4, OUR_V4, CACHE_PORT).bytes(), Verdict::SourceUnlisted),
        (
            "TCP listed by prefix",
            Frame::v4(CACHE_PORT).with(|f| f.protocol = TCP).bytes(),
            Verdict::TcpListed,
        ),
        ("IPv6 by prefix", Frame::v6(CACHE_PORT).bytes(), Verdict::NoSocket),
        ("one bucket", from("198.18.0.200"), Verdict::NoSocket),
        ("two buckets", from("198.18.0.201"), Verdict::NoSocket),
        ("bucket used up", from("198.18.0.202"), Verdict::PacketLimit),
        ("get of a cold key", get(Frame::v4(CACHE_PORT), 1, b"cold").bytes(), Verdict::NoSocket),
        (
            "IPv6 get of a cold key",
            get(Frame::v6(CACHE_PORT), 1, b"cold").bytes(),
            Verdict::NoSocket,
        ),
        (
            "IPv6, four headers",
            Frame::v6(CACHE_PORT)
                .with(|f| f.extensions = vec![(DESTINATION, vec![0; 8]); 4])
                .bytes(),
            Verdict::NoSocket,
        ),
    ];
    for (name, packet, verdict) in cases {
        let before = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        let mut runs: Vec<Duration> = (0..5)
            .map(|_| {
                rig.steering
                    .test_run_repeat(&packet, TestContext::default(), repeat)
                    .unwrap()
                    .duration
            })
            .collect();
        runs.sort();
        println!("{name}: {} ns (median of 5 x {repeat})", runs[2].as_nanos());
        let after = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        // A bucket of one a second lets some through.
        let passed = if verdict == Verdict::PacketLimit { 10 } else { 0 };
        assert!(after - before + passed >= 5 * u64::from(repeat), "{name}");
    }
}

/// By the kernel's own clock around each run, which is most of the figure: only the differences say
/// something. A repeated run would meet its own answer.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn cost_of_a_hit() {
    let Some(mut rig) = Rig::with("cost_of_a_hit", false) else { return };
    if !HOT_PATH {
        println!("SKIPPED cost_of_a_hit: this build has no hot path");
        return;
    }
    let runs = if std::env::var_os("NAUTILUS_LONG").is_some() { 200_000 } else { 5_000 };
    // 16 bytes; the reply of a value of 128 bytes has 165.
    let key = b"md:nasdaq:A:bbo!";
    let mut arp = Frame::v4(CACHE_PORT).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let [v4, v6] = [Frame::v4(CACHE_PORT), Frame::v6(CACHE_PORT)].map(|frame| get(frame, 1, key));
    let cold = get(Frame::v4(CACHE_PORT), 1, b"md:nasdaq:B:bbo!").bytes();
    let tagged = v4.clone().with(|f| f.tags = vec![0x8100]);
    let cases = [
        ("ARP", arp, 0, 0, Verdict::NotIp),
        ("hot miss", cold, 0, 0, Verdict::NoSocket),
        ("hit, 32 bytes of reply", v4.bytes(), 32, 0, Verdict::HotHit),
        ("hit, 165 bytes", v4.bytes(), 165, 0, Verdict::HotHit),
        ("hit, 208 bytes", v4.bytes(), 208, 0, Verdict::HotHit),
        ("hit, 165 bytes, tagged", tagged.bytes(), 165, 0, Verdict::HotHit),
        ("hit, 165 bytes, IPv6", v6.bytes(), 165, 0, Verdict::HotHit),
        ("hit, 165 bytes, with expiry", v4.bytes(), 165, monotonic_ns() << 1, Verdict::HotHit),
    ];
    let times = RunTimes::measure();
    let measure = |rig: &Rig, name: &str, packet: &[u8], verdict| {
        let before = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        let mut means: Vec<Duration> = (0..5)
            .map(|_| {
                times.mean(rig.steering.fds()[0], || {
                    for _ in 0..runs {
                        rig.steering.test_run(packet, TestContext::default()).unwrap();
                    }
                })
            })
            .collect();
        means.sort();
        println!(
            "{name}: {} ns, the measuring included (median of 5 x {runs})",
            means[2].as_nanos()
        );
        let after = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        assert_eq!(after - before, 5 * runs, "{name}");
    };
    for (name, packet, reply_bytes, expiry_ns, verdict) in cases {
        if reply_bytes > 0 {
            let reply: Vec<u8> = (0..reply_bytes).collect();
            publish(&mut rig.slots, &HotValue { expiry_ns, ..value(key, &reply) });
        }
        measure(&rig, name, &packet, verdict);
    }
    // Copies of what is applied, drained before their records find no room; and what is new of the feed.
    for (name, sequence, bytes, verdict) in [
        ("applied copy, 100 bytes", FROM, 100, Verdict::FeedApplied),
        ("applied copy, 1,400 bytes", FROM, 1_400, Verdict::FeedApplied),
        ("new packet of the feed, 1,400 bytes", NEXT, 1_400, Verdict::NoSocket),
    ] {
        let mut payload = mold(SESSION, sequence, 20);
        payload.resize(bytes, 0);
        let packet = on_v4(payload).bytes();
        let before = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        let mut means: Vec<Duration> = (0..5)
            .map(|_| {
                times.mean(rig.steering.fds()[0], || {
                    for run in 0..runs {
                        rig.steering.test_run(&packet, TestContext::default()).unwrap();
                        if run % 1_000 == 0 {
                            rig.feed.borrow_mut().drain(|_| {});
                        }
                    }
                })
            })
            .collect();
        means.sort();
        println!(
            "{name}: {} ns, the measuring included (median of 5 x {runs})",
            means[2].as_nanos()
        );
        let after = rig.steering.verdicts().unwrap().get(verdict).packet_count;
        assert_eq!(after - before, 5 * runs, "{name}");
    }
    // Where the slots are divided: the areas before the key's hold nothing.
    rig.slots.empty(HotArea::WHOLE.slot_of(HOT_CACHE, key).unwrap());
    let reply: Vec<u8> = (0..165).collect();
    for (workers, number) in [(2, 0), (2, 1), (8, 7)] {
        rig.steering.set_service(CACHE_PORT, HOT_SERVICE.of_workers(workers)).unwrap();
        let slot = HotArea::new(number, workers).unwrap().slot_of(HOT_CACHE, key).unwrap();
        rig.slots.publish(slot, &value(key, &reply)).unwrap();
        let name = format!("hit, 165 bytes, in area {number} of {workers}");
        measure(&rig, &name, &v4.bytes(), Verdict::HotHit);
        rig.slots.empty(slot);
        measure(&rig, &format!("hot miss, {workers} areas"), &v4.bytes(), Verdict::NoSocket);
    }
}
