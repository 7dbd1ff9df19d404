//! What a source may send in a time: its packets are let through as long as its buckets hold, whatever
//! the CPUs they arrive on, and nobody else's suffer.

mod support;

use std::time::Duration;

use Verdict::{ByteLimit, HotHit, NoSocket, PacketLimit, Redirected, SourceUnlisted, TcpListed};
use nautilus_ebpf::intf::{Bucket, Permissions, Tally};
use nautilus_ebpf::{Rate, RateLimit, Rights, TestContext, Verdict};

use support::frame::{Frame, TCP};
use support::hot::get;
use support::{
    CACHE_PORT, ECHO_PORT, LISTED_V4, LISTED_V6, OUR_V4, Rig, UNLISTED_V4, ip, monotonic_ns,
};

const SECOND_NS: u64 = 1_000_000_000;

fn rate(per_s: u64, burst: u64) -> Option<Rate> {
    Some(Rate { per_s, burst })
}

/// Limits the rig's first source, alone or with all of its prefix.
fn limit(rig: &Rig, prefix: &str, limit: RateLimit) {
    rig.steering.replace_limits(&[limit]).unwrap();
    let rights = Rights::from(Permissions::ALL).limited(1);
    rig.steering.set_source(prefix.parse().unwrap(), rights).unwrap();
}

fn count(rig: &Rig, verdict: Verdict) -> Tally {
    rig.steering.verdicts().unwrap().get(verdict)
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn a_burst_passes_and_then_the_rate_does() {
    let Some(rig) = Rig::new("a_burst_passes_and_then_the_rate_does") else { return };
    limit(&rig, "198.18.0.0/24", RateLimit { packets: rate(10, 5), bytes: None });
    let request = Frame::v4(ECHO_PORT).bytes();
    let started_ns = monotonic_ns();
    for _ in 0..5 {
        rig.expect("in the burst", &request, Redirected);
    }
    for _ in 0..20 {
        rig.expect("beyond it", &request, PacketLimit);
    }
    assert!(monotonic_ns() - started_ns < SECOND_NS / 10, "too slow to see a rate of 10/s");
    let other = Frame::new("198.18.0.3", OUR_V4, ECHO_PORT).bytes();
    for _ in 0..5 {
        rig.expect("another source has its own", &other, Redirected);
    }
    rig.expect("which it uses up, too", &other, PacketLimit);
    rig.expect("a family without a limit", &Frame::v6(ECHO_PORT).bytes(), Redirected);
    std::thread::sleep(Duration::from_millis(110));
    rig.expect("a tenth of a second later", &request, Redirected);
    rig.expect("only one", &request, PacketLimit);
    let unlisted = Frame::new(UNLISTED_V4, OUR_V4, ECHO_PORT).bytes();
    rig.expect("unlisted", &unlisted, SourceUnlisted);
    assert_eq!(rig.steering.bucket(ip(UNLISTED_V4)).unwrap(), None, "who is denied has no bucket");
    assert_eq!(rig.steering.bucket(ip(LISTED_V6)).unwrap(), None, "nor who has no limit");
    assert!(rig.steering.bucket(ip(LISTED_V4)).unwrap().is_some());
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn bytes_are_those_of_whole_frames_and_what_is_dropped_costs_nothing() {
    let test = "bytes_are_those_of_whole_frames_and_what_is_dropped_costs_nothing";
    let Some(rig) = Rig::new(test) else { return };
    let sized = |bytes: usize| {
        let frame = Frame::v4(ECHO_PORT).with(|f| f.payload.resize(bytes - 42, 0)).bytes();
        assert_eq!(frame.len(), bytes);
        frame
    };
    // 1,000 bytes at once, then one every ten milliseconds.
    let bytes = rate(100, 1_000);
    limit(&rig, LISTED_V4, RateLimit { packets: rate(1, 4), bytes });
    rig.expect("900 of 1,000", &sized(900), Redirected);
    for _ in 0..10 {
        rig.expect("a frame that does not fit", &sized(110), ByteLimit);
    }
    rig.expect("one that does", &sized(60), Redirected);
    rig.expect("the rest is less than this", &sized(60), ByteLimit);
    // Four packets at once; the eleven that were dropped took none.
    limit(&rig, LISTED_V4, RateLimit { packets: rate(1, 4), bytes: rate(1_000_000, 1_000_000) });
    for _ in 0..4 {
        rig.expect("a changed limit starts full", &sized(100), Redirected);
    }
    rig.expect("the fifth", &sized(100), PacketLimit);
    rig.steering.forget_buckets().unwrap();
    rig.expect("forgotten", &sized(100), Redirected);
    rig.steering.replace_limits(&[]).unwrap();
    let tally = count(&rig, ByteLimit);
    assert_eq!((tally.packet_count, tally.byte_count), (11, 10 * 110 + 60));
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn answers_and_tcp_have_the_same_limit_and_longer_prefixes_their_own() {
    let test = "answers_and_tcp_have_the_same_limit_and_longer_prefixes_their_own";
    let Some(rig) = Rig::new(test) else { return };
    limit(&rig, "198.18.0.0/24", RateLimit { packets: rate(1, 3), bytes: None });
    let hot = get(Frame::v4(CACHE_PORT), 1, b"hot:key").bytes();
    let tcp = Frame::v4(CACHE_PORT).with(|f| f.protocol = TCP).bytes();
    rig.expect("hot", &hot, HotHit);
    rig.expect("TCP", &tcp, TcpListed);
    rig.expect("hot again", &hot, HotHit);
    rig.expect("hot, used up", &hot, PacketLimit);
    rig.expect("TCP, used up", &tcp, PacketLimit);
    let other_port = Frame::v4(53).bytes();
    rig.expect("not ours, not limited", &other_port, Verdict::OtherPort);
    rig.steering.set_source(LISTED_V4.parse().unwrap(), Permissions::ALL).unwrap();
    for _ in 0..10 {
        rig.expect("exempt by its own entry", &hot, HotHit);
    }
    let no_such = Rights::from(Permissions::ALL).limited(64);
    assert!(rig.steering.set_source(LISTED_V4.parse().unwrap(), no_such).is_err());
    let slow = RateLimit { packets: rate(0, 1), bytes: None };
    assert!(rig.steering.replace_limits(&[slow]).is_err());
    assert!(rig.steering.replace_limits(&[RateLimit::default(); 64]).is_err());
    rig.steering.replace_limits(&[RateLimit::default(); 63]).unwrap();
}

/// Every CPU at once from one source: together they get what one would, no token twice.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn cpus_share_a_bucket() {
    let Some(rig) = Rig::with("cpus_share_a_bucket", false) else { return };
    // No CPU is away for so long that the bucket is full meanwhile.
    let (per_s, burst) = (50_000, 50_000);
    limit(&rig, LISTED_V4, RateLimit { packets: rate(per_s, burst), bytes: None });
    let request = Frame::v4(ECHO_PORT).bytes();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let started_ns = monotonic_ns();
    // Half full, so that nothing is lost by its being full.
    let before_ns = started_ns + SECOND_NS / 2;
    let half = Bucket { packets_full_at: before_ns * 16, bytes_full_at: 0 };
    rig.steering.set_bucket(ip(LISTED_V4), half).unwrap();
    std::thread::scope(|scope| {
        for cpu in 0..cpus {
            let (steering, request) = (&rig.steering, &request);
            scope.spawn(move || {
                // A test run can be interrupted by another on its CPU, which a driver's cannot, and the
                // counter of verdicts would lose what that one counted.
                pin(cpu);
                while monotonic_ns() - started_ns < SECOND_NS / 2 {
                    let context = TestContext::default();
                    steering.test_run_repeat(request, context, 1_000).unwrap();
                }
            });
        }
    });
    let elapsed_ns = monotonic_ns() - started_ns;
    let granted = count(&rig, NoSocket).packet_count;
    let refused = count(&rig, PacketLimit).packet_count;
    let full_at_ns = rig.steering.bucket(ip(LISTED_V4)).unwrap().unwrap().packets_full_at / 16;
    let most = burst / 2 + per_s * elapsed_ns / SECOND_NS;
    println!("{granted} granted of at most {most}, {refused} refused, {cpus} CPUs");
    assert!(granted <= most, "{granted} of {most}");
    assert_eq!((full_at_ns - before_ns) / (SECOND_NS / per_s), granted, "tokens for packets");
    assert!(granted > 0 && refused > 0, "they did not ask for more than there is");
}

fn pin(cpu: usize) {
    // SAFETY: all-zero bytes are an empty set of CPUs, and the call reads just that set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
}

/// More sources than are remembered: the map gives way, nobody is refused for it.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn sources_that_are_forgotten_start_again() {
    let Some(rig) = Rig::with("sources_that_are_forgotten_start_again", false) else { return };
    limit(&rig, "198.18.0.0/15", RateLimit { packets: rate(1, 1), bytes: None });
    for source in 0..40_000_u32 {
        let source = std::net::Ipv4Addr::from(0xc613_0000 + source).to_string();
        let request = Frame::new(&source, OUR_V4, ECHO_PORT).bytes();
        rig.steering.test_run(&request, TestContext::default()).unwrap();
    }
    assert_eq!(count(&rig, NoSocket).packet_count, 40_000);
    let first = Frame::new("198.19.0.0", OUR_V4, ECHO_PORT).bytes();
    rig.expect("displaced long ago", &first, NoSocket);
    rig.expect("but remembered now", &first, PacketLimit);
}
