//! A node on huge pages that the host has reserved, and on a host that has reserved too few.
#![allow(missing_docs)]

#[path = "support/load.rs"]
mod load;
#[path = "support/supervised.rs"]
mod supervised;

use std::fs;
use std::time::Duration;

use load::pattern;
use supervised::{CACHE_PORT, Supervised, ask, wait_until};

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Two for 1,024 frames and what is written about them, eight for the cache.
const NEEDED_PAGES: u64 = 10;
/// What another node on this machine may take meanwhile.
const SPARE_PAGES: u64 = 64;

const CACHE: &str = "[cache]\nid = \"quotes\"\nport = 11211\nmax_memory_mb = 16\n";
const PORT: &str = "[port]\nframes = 1024\nhuge_pages = true\n";

fn meminfo(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn nr_hugepages() -> u64 {
    fs::read_to_string(NR_HUGEPAGES).unwrap().trim().parse().unwrap()
}

/// Huge pages reserved beyond those there were; dropping it gives them back.
struct Reserved {
    before: u64,
}

impl Reserved {
    /// None, said, where the kernel does not find them.
    fn take(test: &str, pages: u64) -> Option<Self> {
        let this = Self { before: nr_hugepages() };
        let wanted = this.before + pages;
        let written = fs::write(NR_HUGEPAGES, wanted.to_string());
        if written.is_ok() && nr_hugepages() >= wanted && meminfo("Hugepagesize:") == 2048 {
            return Some(this);
        }
        println!("SKIPPED {test}: the kernel reserves no {pages} huge pages ({written:?})");
        None
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(NR_HUGEPAGES, self.before.to_string());
    }
}

/// The KiB a page has where a process maps the memfd of this name.
fn page_kib(pid: u32, memfd: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.contains("/memfd:") || line.split_whitespace().count() >= 5 && line.contains('-') {
            inside = line.contains(memfd);
        } else if let Some(kib) = line.strip_prefix("KernelPageSize:").filter(|_| inside) {
            found.push(kib.trim().trim_end_matches(" kB").parse().unwrap());
        }
    }
    found
}

#[test]
#[ignore = "privileged: makes network namespaces and a node, reserves huge pages"]
fn a_node_runs_on_reserved_huge_pages() {
    let test = "a_node_runs_on_reserved_huge_pages";
    let Some(reserved) = Reserved::take(test, NEEDED_PAGES + SPARE_PAGES) else { return };
    let mut node = Supervised::new(&format!("{CACHE}huge_pages = true\n{PORT}"));
    node.start();
    node.await_echo();
    let client = node.client();
    client.connect((supervised::SERVER, CACHE_PORT)).unwrap();
    assert_eq!(ask(&client, "set key 0 0 5\r\nvalue\r\n"), "STORED\r\n");
    let on_huge_pages = |node: &Supervised| {
        let worker = node.active().unwrap();
        for memfd in ["nautilus-umem", "nautilus-cache"] {
            let sizes = page_kib(worker, memfd);
            assert!(
                !sizes.is_empty() && sizes.iter().all(|kib| *kib == 2048),
                "{memfd}: {sizes:?}"
            );
        }
        assert_eq!(ask(&client, "get key\r\n"), "VALUE key 0 5\r\nvalue\r\nEND\r\n");
    };
    on_huge_pages(&node);
    for _ in 0..3 {
        node.replace_worker();
        on_huge_pages(&node);
    }
    node.kill_supervisor();
    node.start();
    node.replace_worker();
    on_huge_pages(&node);
    assert!(node.attach().is_ok(), "a reader maps them too");
    node.await_echo();
    let echo = node.client();
    echo.send(&pattern(7)).unwrap();
    let mut buffer = [0; 256];
    let length = echo.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], pattern(7));
    node.stop();
    drop(reserved);
    wait_until("the pages are given back", Duration::from_secs(5), || {
        meminfo("HugePages_Total:") == nr_hugepages() && meminfo("HugePages_Surp:") == 0
    });
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn too_few_huge_pages_are_told_at_the_start() {
    let free = meminfo("HugePages_Free:");
    // 65,536 frames of 4,096 bytes are 128 pages and one.
    if free > 128 {
        println!("SKIPPED too_few_huge_pages_are_told_at_the_start: {free} pages are free");
        return;
    }
    let port = "[port]\nframes = 65536\nchunk_bytes = 4096\nhuge_pages = true\n";
    let node = Supervised::new(port);
    let message = node.refused();
    assert!(message.contains("port.huge_pages: interface s0 queue 0: reserving"), "{message}");
    assert!(message.contains("vm.nr_hugepages"), "{message}");
    assert!(!node.has_program(), "the interface is as it was");
    assert!(!node.run_dir().join("supervisor.sock").exists());

    let node = Supervised::new(&format!("{}huge_pages = true\n", CACHE.replace("16", "512")));
    let message = node.refused();
    let expected = "cache quotes: huge_pages: cannot reserve 536870912 bytes of huge pages (see vm.nr_hugepages)";
    assert!(message.contains(expected), "{message}");
    assert!(!node.has_program());
    assert_eq!(meminfo("HugePages_Free:"), free, "nothing is kept of what was refused");
}
