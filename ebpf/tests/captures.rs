//! Every captured frame, as it is and readdressed to us, from listed and unlisted sources; and every
//! truncation of sound packets. The counters must add up to what was sent, and the program must
//! agree with the reference.

mod support;

use std::collections::BTreeMap;

use nautilus_ebpf::Verdict::{self, *};
use nautilus_ebpf::intf::Tally;

use support::captures::{Captured, frames};
use support::frame::{DESTINATION, Frame, TCP};
use support::{
    CACHE_PORT, ECHO_PORT, FEED_PORT, LISTED_V4, LISTED_V6, Rig, UNLISTED_V4, UNLISTED_V6, data,
    mutate, reference, shown,
};

/// Frames of 14 bytes or more in `bad-packets`; the kernel runs no program on shorter ones.
const BAD_PACKETS: usize = 1952;

/// Runs each and compares with the reference; prints and returns how many got each verdict.
fn run_all<'a>(
    rig: &Rig,
    what: &str,
    frames: impl IntoIterator<Item = (&'a str, Vec<u8>)>,
) -> BTreeMap<Verdict, u64> {
    let before = rig.steering.verdicts().unwrap().total();
    let (mut sent, mut verdicts) = (Tally::default(), BTreeMap::new());
    for (name, frame) in frames {
        let (verdict, _) = rig.run(name, &frame);
        assert_eq!(verdict, reference::verdict(shown(&frame)), "{what}: {name}: {frame:02x?}");
        sent.packet_count += 1;
        sent.byte_count += shown(&frame).len() as u64;
        *verdicts.entry(verdict).or_default() += 1;
    }
    let after = rig.steering.verdicts().unwrap().total();
    assert_eq!(after.packet_count - before.packet_count, sent.packet_count, "{what}");
    assert_eq!(after.byte_count - before.byte_count, sent.byte_count, "{what}");
    println!("{what}: {} frames: {verdicts:?}", sent.packet_count);
    verdicts
}

fn check(rig: &Rig, what: &str, captured: &[Captured]) {
    let named = |frame: &Captured| frame.bytes.len() >= 14;
    let whole: Vec<&Captured> = captured.iter().filter(|frame| named(frame)).collect();
    let as_they_are = whole.iter().map(|frame| (frame.name.as_str(), frame.bytes.clone()));
    let verdicts = run_all(rig, what, as_they_are);
    assert!(!verdicts.contains_key(&Redirected), "{what}: nothing captured is addressed to us");

    let mut redirected = 0;
    for port in [CACHE_PORT, ECHO_PORT, FEED_PORT] {
        for (label, sources) in
            [("listed", (LISTED_V4, LISTED_V6)), ("unlisted", (UNLISTED_V4, UNLISTED_V6))]
        {
            let frames = whole.iter().filter_map(|frame| {
                Some((frame.name.as_str(), mutate::readdress(&frame.bytes, port, sources)?))
            });
            let what = format!("{what} readdressed to port {port}, {label}");
            let verdicts = run_all(rig, &what, frames);
            if label == "unlisted" {
                let reached: Vec<_> = [Redirected, TcpListed, NoSocket, TooLong]
                    .into_iter()
                    .filter(|v| verdicts.contains_key(v))
                    .collect();
                assert!(reached.is_empty(), "{what}: {reached:?}");
                assert!(verdicts[&SourceUnlisted] > 0, "{what}: nothing was refused");
            } else {
                redirected += verdicts[&Redirected];
            }
        }
    }
    assert!(redirected > 0, "{what}: the readdressed frames must reach the socket");
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn bad_packets() {
    let Some(folder) = data("bad_packets", "bad-packets") else { return };
    let Some(rig) = Rig::new("bad_packets") else { return };
    let captured = frames(&folder);
    assert_eq!(captured.iter().filter(|frame| frame.bytes.len() >= 14).count(), BAD_PACKETS);
    check(&rig, "bad-packets", &captured);
}

#[test]
#[ignore = "privileged: loads XDP programs"]
fn market_data() {
    let Some(folder) = data("market_data", "marketdata/omi-pcap") else { return };
    let Some(rig) = Rig::new("market_data") else { return };
    check(&rig, "marketdata", &frames(&folder));
}

/// Nothing between a whole packet and no packet at all reaches the socket, or a port check.
#[test]
#[ignore = "privileged: loads XDP programs"]
fn truncated_at_every_byte() {
    let Some(rig) = Rig::new("truncated_at_every_byte") else { return };
    let packets = [
        ("IPv4", Frame::v4(CACHE_PORT)),
        (
            "IPv4 with options and two tags",
            Frame::v4(CACHE_PORT).with(|f| {
                f.options = vec![1; 40];
                f.tags = vec![0x88a8, 0x8100];
            }),
        ),
        ("IPv6", Frame::v6(CACHE_PORT)),
        (
            "IPv6 with headers and a tag",
            Frame::v6(CACHE_PORT).with(|f| {
                f.extensions = vec![(DESTINATION, vec![0; 8]); 4];
                f.tags = vec![0x8100];
            }),
        ),
        ("group", Frame::group(FEED_PORT)),
        ("TCP", Frame::v4(CACHE_PORT).with(|f| f.protocol = TCP)),
        ("unlisted", Frame::new(UNLISTED_V4, support::OUR_V4, CACHE_PORT)),
    ];
    for (name, frame) in packets {
        let whole = frame.bytes();
        let cuts = (14..whole.len()).map(|bytes| (name, whole[..bytes].to_vec()));
        let verdicts = run_all(&rig, &format!("{name}, truncated"), cuts);
        let sound = [Redirected, NoSocket, SourcePort, UdpLength];
        assert!(sound.iter().all(|verdict| !verdicts.contains_key(verdict)), "{name}");
        for expected in [IpMalformed, TransportTruncated] {
            assert!(verdicts.contains_key(&expected), "{name}: {expected:?} must occur");
        }
    }
}
