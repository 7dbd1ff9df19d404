//! What the tests share: a loaded program with known maps, frames, captures, a reference.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod captures;
pub mod checksum;
pub mod corpus;
pub mod feed;
pub mod forge;
pub mod frame;
pub mod hot;
pub mod mutate;
pub mod reference;
pub mod run_time;
pub mod socket;
pub mod veth;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::PathBuf;

use nautilus_ebpf::intf::{Interface, Permissions, Service, Tally};
use nautilus_ebpf::{
    FeedRecord, FeedSlot, HotSlots, HotWords, Options, Steering, TestContext, TestOutcome,
    VERDICTS, Verdict,
};

use socket::RingSocket;

/// Loopback: the interface the kernel lets a packet in memory arrive on.
pub const IFINDEX: u32 = 1;
/// Our MAC on it.
pub const OUR_MAC: [u8; 6] = [0x02, 0x6e, 0x61, 0, 0, 1];
/// Someone else's.
pub const PEER_MAC: [u8; 6] = [0x02, 0x6e, 0x61, 0, 0, 2];
/// The unicast addresses served.
pub const OUR_V4: &str = "198.18.0.1";
pub const OUR_V6: &str = "fd00:6e61::1";
/// The groups served.
pub const GROUP_V4: &str = "233.54.12.111";
pub const GROUP_V6: &str = "ff15::6e61:1";
/// Services: two that reply, at unicast addresses, and one that listens, at both kinds.
pub const ECHO_PORT: u16 = 7007;
pub const CACHE_PORT: u16 = 11211;
pub const FEED_PORT: u16 = 26477;
/// What is on `CACHE_PORT`.
pub const HOT_SERVICE: Service = Service::hot_cache(2, hot::HOT_CACHE, hot::HOT_GENERATION);
/// Longest frame for a socket.
pub const FRAME_BYTES_MAX: u32 = 1776;

/// The source list: prefix, allowed.
pub const SOURCES: &[(&str, bool)] = &[
    ("198.18.0.0/24", true),
    ("198.18.0.66", false),
    ("198.18.0.64/30", true),
    ("198.18.9.9", true),
    ("198.18.8.0/24", false),
    ("fd00:6e61::/48", true),
    ("fd00:6e61:0:bad::/64", false),
    ("fd00:6e61:9::9", true),
];
pub const LISTED_V4: &str = "198.18.0.2";
pub const UNLISTED_V4: &str = "198.18.7.2";
pub const LISTED_V6: &str = "fd00:6e61::2";
pub const UNLISTED_V6: &str = "fd00:6e62::2";

/// As much of a longer frame as the kernel shows to a program in a test run: a page less 256 bytes of
/// headroom and 320 of bookkeeping.
pub const FRAME_BYTES_SHOWN: usize = 4096 - 256 - 320;

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address in a test")
}

/// A loaded program that serves the addresses above, with or without a socket on the queue, and a
/// worker's side of its hot set, which holds `hot::HOT_KEYS`, and of a feed, of which `feed::FROM..feed::NEXT`
/// are applied.
pub struct Rig {
    pub steering: Steering,
    pub slots: HotSlots,
    pub words: HotWords,
    pub feed: RefCell<FeedSlot>,
    /// What the last packet left for the feed's owner.
    pub recorded: Cell<Option<FeedRecord>>,
    _socket: Option<RingSocket>,
}

impl Rig {
    /// None, with a printed `SKIPPED` line, without the right to load programs.
    pub fn new(test: &str) -> Option<Self> {
        Self::with(test, true)
    }

    /// The same with a choice whether the queue has a socket.
    pub fn with(test: &str, socket: bool) -> Option<Self> {
        if !is_root(test) {
            return None;
        }
        let steering = Steering::load(Options { frame_bytes_max: FRAME_BYTES_MAX }).unwrap();
        for address in [OUR_V4, OUR_V6, GROUP_V4, GROUP_V6] {
            steering.serve_address(ip(address)).unwrap();
        }
        steering.set_service(ECHO_PORT, Service::replying(1)).unwrap();
        steering.set_service(CACHE_PORT, HOT_SERVICE).unwrap();
        steering.set_service(FEED_PORT, Service::listening(3).of_feeds()).unwrap();
        steering.replace_feed_lines(&feed::lines()).unwrap();
        for (prefix, allowed) in SOURCES {
            let permissions = if *allowed { Permissions::ALL } else { Permissions::NONE };
            steering.set_source(prefix.parse().unwrap(), permissions).unwrap();
        }
        let interface = Interface { mac: OUR_MAC, queue_count: 1, first_socket: 5 };
        steering.set_interface(IFINDEX, interface).unwrap();
        let socket = socket.then(RingSocket::new);
        if let Some(socket) = &socket {
            steering.set_socket(5, socket.fd()).unwrap();
        }
        let [slots, words, _] = steering.hot_fds();
        let mut slots = HotSlots::map(slots).unwrap();
        let words = HotWords::map(words).unwrap();
        words.set_flush_epoch(hot::HOT_CACHE, hot::HOT_EPOCH.into());
        words.set_valid_until(hot::HOT_CACHE, u64::MAX);
        for key in hot::HOT_KEYS.map(str::as_bytes) {
            hot::publish(&mut slots, &hot::value(key, &hot::text(key)));
        }
        let mut slot = FeedSlot::map(steering.feeds_fd(), feed::FEED).unwrap();
        slot.publish(feed::SESSION, feed::FROM, feed::NEXT);
        let (feed, recorded) = (RefCell::new(slot), Cell::new(None));
        Some(Self { steering, slots, words, feed, recorded, _socket: socket })
    }

    /// Runs the packet and checks all that holds for every packet: one verdict, the frame's bytes,
    /// the verdict's own action, a record if and only if it is a copy of a feed's, the packet unchanged or, if answered, a sound answer, a stamp if and
    /// only if it was redirected.
    pub fn run(&self, name: &str, packet: &[u8]) -> (Verdict, TestOutcome) {
        let before = self.steering.verdicts().unwrap();
        let clock_before = monotonic_ns();
        let outcome = self
            .steering
            .test_run(packet, TestContext { ifindex: IFINDEX, rx_queue: 0 })
            .unwrap_or_else(|error| {
                panic!("{name}: {error}: {:?}", std::error::Error::source(&error))
            });
        let clock_after = monotonic_ns();
        let after = self.steering.verdicts().unwrap();

        let counted: Vec<(Verdict, Tally)> = VERDICTS
            .iter()
            .map(|row| (row.verdict, after.get(row.verdict), before.get(row.verdict)))
            .filter(|(_, after, before)| after != before)
            .map(|(verdict, after, before)| {
                let packet_count = after.packet_count - before.packet_count;
                (verdict, Tally { packet_count, byte_count: after.byte_count - before.byte_count })
            })
            .collect();
        let [(verdict, tally)] = counted[..] else { panic!("{name}: counted {counted:?}") };
        let expected = Tally { packet_count: 1, byte_count: shown(packet).len() as u64 };
        assert_eq!(tally, expected, "{name}: {verdict:?}");
        assert_eq!(outcome.action, verdict.info().action, "{name}: {verdict:?}");
        let mut records = Vec::new();
        self.feed.borrow_mut().drain(|record| records.push(record));
        assert_eq!(records.len(), usize::from(verdict == Verdict::FeedApplied), "{name}: recorded");
        self.recorded.set(records.pop());
        if verdict == Verdict::HotHit {
            hot::read_answer(name, packet, &outcome.packet);
        } else {
            assert_eq!(outcome.packet, packet, "{name}: {verdict:?} changed the packet");
        }
        match outcome.metadata {
            Some(meta) => {
                assert_eq!(verdict, Verdict::Redirected, "{name}: metadata on a packet that stays");
                assert_eq!(meta.magic, nautilus_ebpf::intf::RX_META_MAGIC, "{name}");
                assert_eq!(meta.permissions & !7, 0, "{name}: {meta:?}");
                assert_ne!(meta.permissions, 0, "{name}: redirected without a permission");
                assert!((clock_before..=clock_after).contains(&meta.rx_ns), "{name}: {meta:?}");
            }
            None => assert_ne!(verdict, Verdict::Redirected, "{name}: no metadata"),
        }
        (verdict, outcome)
    }

    /// The packet gets this verdict.
    #[track_caller]
    pub fn expect(&self, name: &str, packet: &[u8], expected: Verdict) {
        let (verdict, _) = self.run(name, packet);
        assert_eq!(verdict, expected, "{name}: {packet:02x?}");
    }
}

/// What the program sees of a frame in a test run.
pub fn shown(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().min(FRAME_BYTES_SHOWN)]
}

/// False, with a printed `SKIPPED` line, without root.
pub fn is_root(test: &str) -> bool {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("SKIPPED {test}: loading XDP programs needs root");
    }
    root
}

pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable and the clock exists.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A folder of the real inputs that lie beside the repository: `$NAUTILUS_DATA`, else
/// `../shared/data`. None, with a printed `SKIPPED` line, when it is absent.
pub fn data(test: &str, folder: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("NAUTILUS_DATA") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let folder = root.join(folder);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED {test}: no external data at {} (set NAUTILUS_DATA)", folder.display());
    None
}

/// A number from the environment that scales a test, else its default.
pub fn scale(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}
