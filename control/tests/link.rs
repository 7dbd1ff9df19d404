//! Attaching to a node, losing it, and reading whatever its region holds.

mod support;

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nautilus_control::config::{NodeSpec, Tier};
use nautilus_control::health::{Health, HealthDocument};
use nautilus_control::link::{Attachment, HEARTBEAT_MAX_NS, Link};
use nautilus_control::rates::NodeRates;
use nautilus_control::status::{Lifecycle, StatusDocument};
use nautilus_control::view::NodeView;
use nautilus_control::{prometheus, watcher};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::metrics::labels::FeedError;
use nautilus_shm::metrics::table::{self, RX_PACKETS};
use nautilus_shm::region::REGION_HEADER_BYTES;
use support::{hand_out, keep_beating, region, reply};

fn spec(run_dir: &Path) -> NodeSpec {
    NodeSpec { run_dir: run_dir.into(), id: None, region: None, tier: Tier::Ultra }
}

#[test]
fn a_node_is_attached_judged_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let region = region("node-1");
    let mut link = Link::new(spec(folder.path()));
    link.look();
    assert_eq!(link.attachment(), Attachment::Unreachable);
    assert!(link.reason.contains("no supervisor is listening"), "{}", link.reason);

    hand_out(folder.path(), region.clone(), || reply(1, &[]));
    link.look();
    keep_beating(&region);
    let before = NodeView::of(&link);
    assert_eq!((before.id.as_str(), before.attachment), ("node-1", Attachment::Attached));
    let health = HealthDocument::of(&before);
    assert_eq!(health.health, Health::Healthy, "{:?}", health.checks);
    assert_eq!(health.status.events[0].text, "itbegan");
    let p99_s = health.status.xdp_to_tx.p99_s.unwrap();
    assert!((p99_s / 90e-6 - 1.0).abs() < 0.01, "{p99_s}");

    region.metrics(0).add(RX_PACKETS, 500);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let rates = NodeRates::between(Some(&before), &NodeView::of(&link));
    let packets = rates.rx_packets_per_s * rates.interval_s;
    assert!((packets - 500.0).abs() < 1.0, "{rates:?}");
    assert!(rates.drops.iter().any(|d| d.reason == "udp_checksum" && d.total == 3), "{rates:?}");
    assert!(rates.drops.iter().any(|d| d.reason == "drop/source_unlisted" && d.total == 5));
}

#[test]
fn books_without_room_for_a_day_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let region = region("node-1");
    hand_out(folder.path(), region.clone(), || reply(1, &[]));
    let mut link = Link::new(spec(folder.path()));
    link.look();
    keep_beating(&region);
    let judged = || {
        let checks = HealthDocument::of(&NodeView::of(&link)).checks;
        let check = checks.into_iter().find(|check| check.name == "feed_memory");
        check.map(|check| (check.holds, check.detail))
    };
    assert_eq!(judged(), None, "there is no feed");
    let bank = region.metrics(0);
    bank.set(table::FEED_CHANNELS, 1);
    bank.set(table::FEED_ORDERS, 7);
    assert_eq!(judged(), Some((Some(true), "7 open orders".into())));
    bank.add(table::FEED_ERRORS.of(FeedError::Capacity), 3);
    bank.set(table::FEED_SUSPECT_CHANNELS, 1);
    let (holds, detail) = judged().unwrap();
    assert_eq!(holds, Some(false));
    assert!(
        detail.starts_with("3 messages found no room") && detail.contains("max_orders"),
        "{detail}"
    );
    // Another session fits.
    bank.set(table::FEED_SUSPECT_CHANNELS, 0);
    assert_eq!(judged().unwrap().0, Some(true));
}

#[test]
fn a_silent_supervisor_is_detached_and_a_new_one_is_found_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let old = region("node-1");
    hand_out(folder.path(), old.clone(), || reply(1, &[]));
    let mut link = Link::new(spec(folder.path()));
    link.look();
    assert_eq!(link.attachment(), Attachment::Attached);

    let stale_ns = monotonic_ns().saturating_sub(2 * HEARTBEAT_MAX_NS);
    old.region().beat(stale_ns).unwrap();
    old.supervisor().beat(stale_ns);
    assert_eq!(link.attachment(), Attachment::Detached);
    let view = NodeView::of(&link);
    let health = HealthDocument::of(&view);
    assert_eq!(Lifecycle::of(&view), Lifecycle::Active, "the worker serves on");
    assert_eq!(health.health, Health::Degraded);

    let new = region("node-1");
    std::fs::remove_file(folder.path().join("supervisor.sock")).unwrap();
    hand_out(folder.path(), new, || reply(1, &[]));
    link.look();
    assert_eq!(link.attachment(), Attachment::Attached);
}

#[test]
fn another_nodes_region_is_refused_where_an_id_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    hand_out(folder.path(), region("node-2"), || reply(1, &[]));
    let mut link = Link::new(spec(folder.path()));
    link.spec.id = Some("node-1".into());
    link.look();
    assert_eq!(link.attachment(), Attachment::Unreachable);
    assert!(link.reason.contains("\"node-2\""), "{}", link.reason);
}

#[test]
fn answers_that_are_not_the_protocols_are_errors() {
    type Answer = fn() -> Vec<u8>;
    let cases: [(Answer, &str); 6] = [
        (|| b"garbage".to_vec(), "7 bytes"),
        (|| vec![0xff; 4_000], "not an attach packet"),
        (|| vec![0; 5_000], "bad answer"),
        (|| reply(2, &[]), "1 descriptors came, 2 were announced"),
        (|| reply(1, &[])[..31].to_vec(), "31 bytes"),
        (
            || {
                let mut packet = reply(0, &[]);
                packet[5] = 1;
                packet
            },
            "not on the supervisor's list",
        ),
    ];
    for (answer, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        hand_out(folder.path(), region("node-1"), answer);
        let mut link = Link::new(spec(folder.path()));
        link.look();
        assert_eq!(link.attachment(), Attachment::Unreachable);
        assert!(link.reason.contains(expected), "{expected}: {}", link.reason);
    }
}

#[test]
fn two_nodes_of_one_id_are_told_apart() {
    let links: Vec<Link> = (0..3)
        .map(|_| {
            let folder = tempfile::tempdir().unwrap();
            hand_out(folder.path(), region("twin"), || reply(1, &[]));
            let mut link = Link::new(spec(folder.path()));
            link.look();
            link
        })
        .collect();
    let ids: Vec<String> = watcher::views(&links).into_iter().map(|view| view.id).collect();
    assert_eq!(ids, ["twin", "twin.2", "twin.3"]);
}

/// Everything a reader can be shown, over a region filled with whatever: no panic, no endless work,
/// and text that stays text.
#[test]
fn garbage_in_the_region_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let region = region("node-1");
    hand_out(folder.path(), region.clone(), || reply(1, &[]));
    let mut link = Link::new(spec(folder.path()));
    link.look();
    let before = NodeView::of(&link);
    let file = std::fs::File::from(region.fd().as_fd().try_clone_to_owned().unwrap());
    let length = file.metadata().unwrap().len() as usize;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..12 {
        let mut bytes = vec![0u8; length - REGION_HEADER_BYTES];
        for chunk in bytes.chunks_mut(8) {
            let word = match round % 4 {
                0 => u64::MAX,
                1 => random(),
                // Even, equal sequence numbers more often than not: locks that let the garbage in.
                2 => random() & !1 & 0xff,
                _ => u64::MAX - 1,
            };
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        file.write_all_at(&bytes, REGION_HEADER_BYTES as u64).unwrap();
        let view = NodeView::of(&link);
        let text = prometheus::render(std::slice::from_ref(&view));
        assert!(text.len() < 8 << 20, "{} bytes", text.len());
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("nautilus_")));
        let health = serde_json::to_string(&HealthDocument::of(&view)).unwrap();
        let status =
            serde_json::to_string(&StatusDocument::of(std::slice::from_ref(&view))).unwrap();
        let rates = serde_json::to_string(&NodeRates::between(Some(&before), &view)).unwrap();
        assert!(health.len() + status.len() + rates.len() < 1 << 20);
        link.look();
    }
}
