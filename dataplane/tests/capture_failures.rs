//! What a capture does when it cannot keep up: rings that are full, disks that are, writers that are killed. The
//! worker does not notice, and the files say what they lack. Needs root.

#[path = "support/captured.rs"]
mod captured;
#[path = "support/supervised.rs"]
mod supervised;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use captured::{counted, files, folder, process_of, section};
use nautilus_dataplane::replay::pcapng::PcapngReader;
use nautilus_shm::control_region::{CAPTURE_PROCESS, ControlReader};
use nautilus_shm::metrics::table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use supervised::{Supervised, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request, and of the frame around it.
const REQUEST_BYTES: usize = 1200;
const FRAME_BYTES: usize = REQUEST_BYTES + 42;

fn node(folder: &Path, more: &str) -> Supervised {
    let more = format!("buffer_mb = 1\nfile_mb = 2\nports = [7]\n{more}");
    let mut node = Supervised::new(&section(folder, &more));
    node.start();
    node.await_workers(1);
    node
}

/// Sends so many requests, each answered before the next leaves: the worker goes on whatever the capture does.
fn echo(client: &UdpSocket, count: u32) {
    let mut reply = [0; REQUEST_BYTES];
    for _ in 0..count {
        let request = [5; REQUEST_BYTES];
        let begun = Instant::now();
        while {
            client.send(&request).unwrap();
            client.recv(&mut reply).is_err()
        } {
            assert!(begun.elapsed() < PATIENCE, "no answer");
        }
    }
}

/// The client, whose neighbour is known.
fn client(node: &Supervised) -> UdpSocket {
    node.await_echo();
    node.client()
}

fn written(region: &ControlReader) -> u64 {
    region.metrics(CAPTURE_PROCESS).counter(table::CAPTURE_WRITTEN)
}

/// What was captured and dropped, when no more comes.
fn settled(region: &ControlReader) -> (u64, u64) {
    std::thread::sleep(Duration::from_millis(100));
    counted(region)
}

/// Of all files: packets, drops before them, and the numbers that are missing between the first and the last.
fn found(folder: &Path) -> (u64, u64, u64) {
    let (mut packets, mut dropped, mut next, mut missing) = (0, 0, None, 0);
    for path in files(folder, ".pcapng").iter().chain(&files(folder, ".part")) {
        let mut reader = PcapngReader::open(path).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            let number = record.identity.unwrap();
            missing += number - next.unwrap_or(number);
            next = Some(number + 1);
            packets += 1;
            dropped += record.dropped;
        }
    }
    (packets, dropped, missing)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_a_full_ring_lacks_is_counted_to_the_frame_and_stands_in_the_file() {
    if !privileged("what_a_full_ring_lacks_is_counted_to_the_frame_and_stands_in_the_file") {
        return;
    }
    let folder = folder();
    let mut node = node(folder.path(), "");
    let client = client(&node);
    let region = node.attach().unwrap();
    let before = settled(&region);
    let writer = Pid::from_raw(process_of(&node, "nautilus-capture").unwrap());
    kill(writer, Signal::SIGSTOP).unwrap();
    // A ring of 1 MiB holds some 800.
    echo(&client, 1500);
    let after = settled(&region);
    let fit = (1 << 17) / (4 + FRAME_BYTES.div_ceil(8)) as u64;
    // Requests that were sent again because an answer was late are frames as well.
    let seen = (after.0 + after.1) - (before.0 + before.1);
    assert!(seen >= 1500 && after.0 - before.0 <= fit, "{before:?} {after:?}");
    assert!(after.1 >= 1500 - fit);
    kill(writer, Signal::SIGCONT).unwrap();
    wait_until("what was in the ring is written", PATIENCE, || written(&region) >= after.0);
    echo(&client, 10);
    let (captured, dropped) = settled(&region);
    assert_eq!(dropped, after.1);
    node.stop();
    let in_files = found(folder.path());
    assert_eq!(in_files, (captured, dropped, dropped));
    let path = &files(folder.path(), ".pcapng")[0];
    let Ok(info) = Command::new("capinfos").args(["-c", "-M"]).arg(path).output() else { return };
    assert!(info.status.success());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_full_disk_is_said_once_and_survived() {
    if !privileged("a_full_disk_is_said_once_and_survived") {
        return;
    }
    let folder = folder();
    // In the namespace of mounts that the node is started in: ours, so it is taken away again.
    let mount = |arguments: &[&str]| {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success());
    };
    let path = folder.path().to_str().unwrap().to_owned();
    mount(&["mount", "-t", "tmpfs", "-o", "size=3m,mode=0777", "tmpfs", &path]);
    struct Mounted(String);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").args(["-l", &self.0]).status();
        }
    }
    let _mounted = Mounted(path);
    let filler = folder.path().join("filler");
    std::fs::write(&filler, vec![1; 2 << 20]).unwrap();
    let mut node = node(folder.path(), "files = 4\n");
    let client = client(&node);
    let region = node.attach().unwrap();
    let errors = || region.metrics(CAPTURE_PROCESS).counter(table::CAPTURE_ERRORS);
    // 1 MiB on disk, 1 MiB in the ring, and then it is missing.
    echo(&client, 2500);
    wait_until("it has been tried again", PATIENCE, || errors() >= 2);
    let full = settled(&region);
    assert!(full.1 > 0, "{full:?}");
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert_eq!(log.matches("No space left on device").count(), 1, "{log}");
    std::fs::remove_file(&filler).unwrap();
    wait_until("it goes on by itself", PATIENCE, || written(&region) >= full.0);
    echo(&client, 10);
    let (captured, dropped) = settled(&region);
    assert_eq!(dropped, full.1);
    wait_until("it is written", PATIENCE, || written(&region) >= captured);
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("files are written again"), "{log}");
    node.stop();
    assert_eq!(found(folder.path()), (captured, dropped, dropped));
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_folder_that_cannot_be_written_costs_the_capture_and_nothing_else() {
    if !privileged("a_folder_that_cannot_be_written_costs_the_capture_and_nothing_else") {
        return;
    }
    let folder = folder();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), closed).unwrap();
    let mut node = node(folder.path(), "");
    let client = client(&node);
    let region = node.attach().unwrap();
    echo(&client, 20);
    let errors = || region.metrics(CAPTURE_PROCESS).counter(table::CAPTURE_ERRORS);
    wait_until("it has been tried", PATIENCE, || errors() >= 1);
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("Permission denied") && log.contains("cannot make"), "{log}");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let (captured, _) = settled(&region);
    wait_until("it goes on by itself", PATIENCE, || written(&region) >= captured);
    node.stop();
    assert_eq!(found(folder.path()), (captured, 0, 0));
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_writer_outlives_its_supervisor_and_ends_with_the_last_worker() {
    if !privileged("a_writer_outlives_its_supervisor_and_ends_with_the_last_worker") {
        return;
    }
    let folder = folder();
    let mut node = node(folder.path(), "");
    let client = client(&node);
    let writer = process_of(&node, "nautilus-capture").unwrap();
    let exists = |pid: i32| Path::new(&format!("/proc/{pid}/exe")).exists();
    node.kill_supervisor();
    echo(&client, 50);
    assert!(exists(writer));
    node.start();
    node.await_workers(1);
    echo(&client, 50);
    assert!(exists(writer), "the next supervisor knows it");
    let region = node.attach().unwrap();
    let (captured, dropped) = settled(&region);
    assert_eq!(dropped, 0);
    wait_until("it is written", PATIENCE, || written(&region) >= captured);
    // Both gone: it finishes its file.
    let worker = node.active().unwrap() as i32;
    node.kill_supervisor();
    Supervised::kill_worker(worker);
    wait_until("it ends", PATIENCE, || !exists(writer));
    assert_eq!(files(folder.path(), ".part").len(), 0);
    let (packets, _, missing) = found(folder.path());
    assert!(packets >= captured && missing == 0, "{packets} of {captured}, {missing} missing");
}
