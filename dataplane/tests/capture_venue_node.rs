//! A venue's day with losses on both lines, requests and snapshots, captured over the deaths of worker and
//! writer, and replayed without a network: every record is the node's, byte for byte. Needs root.

#[path = "support/captured.rs"]
mod captured;
#[path = "support/lossy_venue.rs"]
mod lossy_venue;
#[path = "support/supervised.rs"]
mod supervised;

use std::sync::atomic::Ordering;
use std::time::Duration;

use captured::{counted, files, folder, held, process_of, replayed, section, sum};
use lossy_venue::{REQUESTS, Relay, SNAPSHOTS, Venue};
use nautilus_shm::control_region::{CAPTURE_PROCESS, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::labels::Recovery;
use nautilus_shm::metrics::table;
use supervised::{CLIENT, SERVER, Supervised, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node that recovers, and the folder that its front reads a password in.
fn node(workers: u32, capture: &str) -> (Supervised, tempfile::TempDir) {
    let secrets = tempfile::Builder::new().prefix("ne-venue").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(secrets.path(), open).unwrap();
    std::fs::write(secrets.path().join("password"), "secret\n").unwrap();
    let config = format!(
        "queues = [{}]\n[worker]\ncount = {workers}\n[port]\nframes = 1024\n\
         [cache]\nid = \"q\"\nmax_memory_mb = 64\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         lines = [{{ group = \"233.54.12.112\", port = 26478 }}]\nchannel = 1\n\
         max_orders = 32768\ndepth = 3\n\
         [feed.recovery]\nservers = [\"{CLIENT}:{REQUESTS}\"]\nfrom = \"{SERVER}:26499\"\n\
         request_messages_max = 5000\n\
         [feed.recovery.snapshot]\nserver = \"{CLIENT}:{SNAPSHOTS}\"\nuser = \"NODE\"\n\
         password_file = {:?}\n{capture}",
        if workers == 1 { "0" } else { "0, 1" },
        secrets.path().join("password"),
    );
    (Supervised::new(&config), secrets)
}

/// A captured day; `meanwhile` is done in its middle. At its end the records are compared.
fn day(workers: u32, meanwhile: impl FnOnce(&Supervised)) {
    let folder = folder();
    let (mut node, _secrets) = node(workers, &section(folder.path(), "file_mb = 1\nfiles = 64\n"));
    if workers > 1 {
        ip(&format!("-n {} link del s0", node.server_ns));
        node.make_link(0, workers);
    }
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    node.start();
    node.await_workers(workers as usize);
    let relay = Relay::default();
    std::thread::scope(|scope| {
        let node: &Supervised = &node;
        scope.spawn(|| relay.run(node));
        let mut venue = Venue::start(node, 40_000, 500, 600_000);
        let region = node.attach().unwrap();
        wait_until("a third of the day", PATIENCE, || {
            sum(&region, table::FEED_MESSAGES) > 13_000 || venue.has_ended()
        });
        meanwhile(node);
        let books = node.dir.path().join("books");
        wait_until("the day is over", PATIENCE, || {
            books.metadata().is_ok_and(|file| file.len() > 0)
        });
        // The last holes are healed, and records that are due now and then are written.
        wait_until("all lines are whole", PATIENCE, || {
            let before = sum(&region, table::FEED_UPDATES);
            std::thread::sleep(Duration::from_millis(400));
            before == sum(&region, table::FEED_UPDATES)
        });
        relay.over.store(true, Ordering::Relaxed);
        drop(venue);
    });
    let region = node.attach().unwrap();
    let recovery = |what| sum(&region, table::FEED_RECOVERY.of(what));
    std::thread::sleep(Duration::from_millis(300));
    let (captured, dropped) = counted(&region);
    assert_eq!(dropped, 0);
    wait_until("all is written", PATIENCE, || {
        region.metrics(CAPTURE_PROCESS).counter(table::CAPTURE_WRITTEN) >= captured
    });
    let all: Vec<_> = {
        let mut all = files(folder.path(), ".pcapng");
        all.extend(files(folder.path(), ".part"));
        all
    };
    let (records, summary) = replayed(&node, &all);
    println!(
        "{captured} captured in {} files; {} requests, {} replies, {} snapshots; {summary:?}",
        all.len(),
        recovery(Recovery::Requests),
        recovery(Recovery::Replies),
        recovery(Recovery::SnapshotsLoaded),
    );
    assert!(summary.is_exact(), "{summary:?}");
    assert!(records.len() > 24 * 3, "{}", records.len());
    let live = held(&node, "q", records.keys());
    for (key, record) in &records {
        assert_eq!(live.get(key), Some(record), "{key}");
    }
    assert!(recovery(Recovery::Replies) > 5);
    node.stop();
    assert!(files(folder.path(), ".part").is_empty());
    assert_eq!(replayed(&node, &files(folder.path(), ".pcapng")).0, records);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn requests_and_replies_are_replayed() {
    if privileged("requests_and_replies_are_replayed") {
        day(1, |_| {});
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_feed_that_two_workers_receive_is_replayed_as_its_owner_applied_it() {
    if privileged("a_feed_that_two_workers_receive_is_replayed_as_its_owner_applied_it") {
        day(2, |_| {});
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn the_deaths_of_worker_and_writer_are_in_the_files_and_nothing_is_missing() {
    if !privileged("the_deaths_of_worker_and_writer_are_in_the_files_and_nothing_is_missing") {
        return;
    }
    day(1, |node| {
        let region = node.attach().unwrap();
        for _ in 0..3 {
            let writer = process_of(node, "nautilus-capture").expect("a writer");
            Supervised::kill_worker(writer);
            wait_until("the next writer", PATIENCE, || {
                process_of(node, "nautilus-capture").is_some_and(|pid| pid != writer)
            });
            std::thread::sleep(Duration::from_millis(100));
        }
        let deaths = region.metrics(SUPERVISOR_PROCESS).counter(table::CAPTURE_DEATHS);
        assert_eq!(deaths, 3);
        Supervised::kill_worker(node.active().unwrap() as i32);
        let loaded = table::FEED_RECOVERY.of(Recovery::SnapshotsLoaded);
        wait_until("a snapshot is in the books", PATIENCE, || sum(&region, loaded) >= 1);
    });
}
