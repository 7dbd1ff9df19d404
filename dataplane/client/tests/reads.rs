//! The Rust API against a node in this process: what a read returns in every state of key and node.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nautilus_client::{
    AttachError, CacheReader, KEY_BYTES_MAX, Read, ReadError, Reattached, VALUE_BYTES_MAX,
    VERSION_MISS, VERSION_SUSPECT, WaitError,
};
use nautilus_shm::attach::Code;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::table::{ChannelState, NO_LEASE};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use support::{CACHE, Host, wait_until};

const LIVE: ChannelState = ChannelState::Live { valid_until_ns: u64::MAX };

fn reader(host: &Host) -> CacheReader {
    CacheReader::attach(host.run_dir(), CACHE).unwrap()
}

#[test]
fn a_value_is_what_was_written() {
    let mut host = Host::start(8);
    let mut reader = reader(&host);
    let mut out = vec![0; VALUE_BYTES_MAX];
    let far_ns = monotonic_ns() + 3_600_000_000_000;
    for bytes in [0, 1, 64, 1400, VALUE_BYTES_MAX] {
        let value: Vec<u8> = (0..bytes).map(|at| (at * 7) as u8).collect();
        let key = format!("key of {bytes}");
        let version = host.put_until(key.as_bytes(), &value, 0, far_ns);
        let read = reader.get(key.as_bytes(), &mut out).unwrap();
        assert_eq!(out[..read.value_bytes], value);
        assert_eq!(
            (read.flags, read.version, read.expiry_ns, read.channel),
            (7, version, far_ns, 0)
        );
    }
    assert_eq!(reader.get(b"absent", &mut out), Err(ReadError::Miss));
    assert_eq!(reader.get(b"", &mut out), Err(ReadError::Miss));
    assert_eq!(reader.get(&[b'k'; KEY_BYTES_MAX + 1], &mut out), Err(ReadError::Miss));
    let small = reader.get(b"key of 64", &mut [0; 63]);
    assert_eq!(small, Err(ReadError::BufferTooSmall { value_bytes: 64 }));
    host.delete(b"key of 64");
    assert_eq!(reader.get(b"key of 64", &mut out), Err(ReadError::Miss));
}

#[test]
fn what_may_not_be_used_is_not_returned() {
    let mut host = Host::start(8);
    let mut reader = reader(&host);
    let mut out = [0; 64];
    host.put_as(b"md:nasdaq:AAPL:bbo", b"of a feed", 3);
    let mut get = |key: &[u8]| reader.get(key, &mut out).map(|value| value.channel);
    assert_eq!(get(b"md:nasdaq:AAPL:bbo"), Err(ReadError::Suspect));
    host.table.set_channel(3, LIVE);
    assert_eq!(get(b"md:nasdaq:AAPL:bbo"), Ok(3));
    host.table.set_channel(3, ChannelState::Live { valid_until_ns: monotonic_ns() });
    assert_eq!(get(b"md:nasdaq:AAPL:bbo"), Err(ReadError::Suspect), "silent");

    // Whoever looks is given it all the same, and told.
    let looked = reader.look(b"md:nasdaq:AAPL:bbo", &mut out).unwrap();
    assert!(looked.is_suspect && looked.written_us <= looked.now_ns / 1_000);
    assert_eq!(&out[..looked.value.value_bytes], b"of a feed");
    assert_eq!(reader.look(b"absent", &mut out), Err(ReadError::Miss));
    let mut get = |key: &[u8]| reader.get(key, &mut out).map(|value| value.channel);

    // Until the instant, not a moment longer.
    let until_ns = monotonic_ns() + 30_000_000;
    host.put_until(b"short", b"lived", 0, until_ns);
    loop {
        let before_ns = monotonic_ns();
        let result = get(b"short");
        let after_ns = monotonic_ns();
        match result {
            Ok(_) => assert!(before_ns < until_ns),
            Err(error) => {
                assert_eq!(error, ReadError::Miss);
                assert!(after_ns >= until_ns, "gone {} ns early", until_ns - after_ns);
                break;
            }
        }
    }

    host.put(b"own", b"value");
    host.table.set_valid_until(monotonic_ns());
    assert_eq!(get(b"own"), Err(ReadError::LeaseExpired));
    host.table.set_valid_until(NO_LEASE);
    assert_eq!(get(b"own"), Ok(0));
    host.table.flush();
    assert_eq!(get(b"own"), Err(ReadError::Miss));
}

#[test]
fn many_keys_are_read_like_each_of_them() {
    let mut host = Host::start(8);
    let mut reader = reader(&host);
    // Not a multiple of what is asked for together.
    let keys: Vec<Vec<u8>> = (0..43).map(|key| format!("key{key}").into_bytes()).collect();
    for (index, key) in keys.iter().enumerate().filter(|(index, _)| index % 3 != 0) {
        host.put(key, &[index as u8; 40]);
    }
    let mut outs = vec![[0; 40]; keys.len()];
    let mut reads: Vec<Read<'_>> =
        keys.iter().zip(&mut outs).map(|(key, out)| Read::new(key, out)).collect();
    reader.get_many(&mut reads);
    for (index, read) in reads.iter().enumerate() {
        if index % 3 == 0 {
            assert_eq!(read.result, Err(ReadError::Miss), "{index}");
        } else {
            assert_eq!(read.result.unwrap().value_bytes, 40);
            assert_eq!(read.out, &[index as u8; 40]);
        }
    }
    reader.get_many(&mut []);

    host.start_anew();
    host.put(b"key1", b"anew");
    let mut out = [0; 8];
    let mut reads = [Read::new(b"key1", &mut out)];
    reader.get_many(&mut reads);
    assert_eq!(reads[0].result, Err(ReadError::Detached));
    reader.set_automatic(true);
    reader.get_many(&mut reads);
    assert_eq!(reads[0].result.unwrap().value_bytes, 4);
}

#[test]
fn a_silent_node_detaches_and_a_heard_one_is_read_again() {
    let mut host = Host::start(8);
    host.put(b"key", b"value");
    let mut reader = reader(&host);
    let mut out = [0; 8];
    assert!(reader.heartbeat_age_ns() < 1_000_000_000);
    host.set_alive(false);
    assert_eq!(reader.get(b"key", &mut out), Err(ReadError::Detached));
    assert!(reader.heartbeat_age_ns() > 1_000_000_000);
    // Automatic or not: the supervisor that answers is the silent one.
    reader.set_automatic(true);
    assert_eq!(reader.get(b"key", &mut out), Err(ReadError::Detached));
    reader.set_automatic(false);
    host.set_alive(true);
    assert!(reader.get(b"key", &mut out).is_ok());
    assert_eq!(reader.reattach().unwrap(), Reattached::SameMemory);
}

#[test]
fn a_node_that_starts_anew_is_found_by_every_reader_for_itself() {
    let mut host = Host::start(8);
    let first = host.put(b"key", b"first");
    let mut by_hand = reader(&host);
    let mut automatic = by_hand.clone();
    automatic.set_automatic(true);
    let mut out = [0; 8];
    host.start_anew();
    assert_eq!(by_hand.get(b"key", &mut out), Err(ReadError::Detached));
    assert_eq!(automatic.get(b"key", &mut out), Err(ReadError::Miss), "the new cache is empty");
    let second = host.put(b"key", b"second");
    assert!(second > first, "{second} after {first}");
    assert_eq!(automatic.get(b"key", &mut out).unwrap().version, second);
    assert_eq!(&out[..6], b"second");
    assert_eq!(by_hand.get(b"key", &mut out), Err(ReadError::Detached), "not its own doing");
    assert_eq!(by_hand.reattach().unwrap(), Reattached::NewMemory);
    assert_eq!(by_hand.get(b"key", &mut out).unwrap().version, second);
}

#[test]
fn a_wait_ends_with_every_kind_of_change() {
    let mut host = Host::start(8);
    let mut reader = reader(&host);
    let mut out = [0; 16];
    let long = Duration::from_secs(10);
    let wait = |reader: &mut CacheReader, out: &mut [u8], last, timeout| {
        reader.wait_for_change(b"key", last, out, timeout).map(|value| value.version)
    };
    // As it was last seen: no change. One look for no time at all.
    let begun = Instant::now();
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let timed_out = wait(&mut reader, &mut out, VERSION_MISS, timeout);
        assert_eq!(timed_out, Err(WaitError::TimedOut));
    }
    assert!((20..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let first = host.put(b"key", b"first");
    assert_eq!(wait(&mut reader, &mut out, VERSION_MISS, long), Ok(first));
    assert_eq!(&out[..5], b"first");

    // Of what happens meanwhile, whether it comes while the wait still spins or long after.
    let gone = || Err(WaitError::Read(ReadError::Miss));
    let mut meanwhile = |reader: &mut CacheReader, last, after, act: &mut (dyn FnMut() + Send)| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(reader, &mut out, last, long));
            std::thread::sleep(after);
            act();
            waiting.join().unwrap()
        })
    };
    for after in [Duration::ZERO, Duration::from_millis(3)] {
        let last = host.put(b"key", b"old");
        let mut version = 0;
        let seen = meanwhile(&mut reader, last, after, &mut || version = host.put(b"key", b"new"));
        assert_eq!(seen, Ok(version));
        let seen = meanwhile(&mut reader, version, after, &mut || host.delete(b"key"));
        assert_eq!(seen, gone());
        let mut put = || version = host.put(b"key", b"back");
        let seen = meanwhile(&mut reader, VERSION_MISS, after, &mut put);
        assert_eq!(seen, Ok(version));
        // No bucket changes with the rest.
        let seen = meanwhile(&mut reader, version, after, &mut || host.table.flush());
        assert_eq!(seen, gone());
        let until_ns = monotonic_ns() + 5_000_000;
        let version = host.put_until(b"key", b"short", 0, until_ns);
        assert_eq!(meanwhile(&mut reader, version, after, &mut || {}), gone());
        assert!(monotonic_ns() >= until_ns);
        host.table.set_channel(3, LIVE);
        let version = host.put_as(b"key", b"a feed's", 3);
        let mut gap = || host.table.set_channel(3, ChannelState::Suspect);
        let seen = meanwhile(&mut reader, version, after, &mut gap);
        assert_eq!(seen, Err(WaitError::Read(ReadError::Suspect)));
        let mut filled = || host.table.set_channel(3, LIVE);
        let seen = meanwhile(&mut reader, VERSION_SUSPECT, after, &mut filled);
        assert_eq!(seen, Ok(version));
        host.table.begin_channel(3);
    }
    host.put(b"key", b"longer than the buffer");
    let seen = wait(&mut reader, &mut [0; 16], VERSION_MISS, long);
    assert_eq!(seen, Err(WaitError::Read(ReadError::BufferTooSmall { value_bytes: 22 })));
}

#[test]
fn a_wait_outlives_a_node_only_when_told_to() {
    let mut host = Host::start(8);
    let last = host.put(b"key", b"first");
    let mut by_hand = reader(&host);
    let mut automatic = by_hand.clone();
    automatic.set_automatic(true);
    let (long, mut out) = (Duration::from_secs(10), [0; 16]);
    std::thread::scope(|scope| {
        let detached = scope.spawn(|| by_hand.wait_for_change(b"key", last, &mut [0; 16], long));
        let changed = scope.spawn(|| automatic.wait_for_change(b"key", last, &mut out, long));
        std::thread::sleep(Duration::from_millis(20));
        host.set_alive(false);
        assert_eq!(detached.join().unwrap(), Err(WaitError::Read(ReadError::Detached)));
        assert!(!changed.is_finished());
        host.start_anew();
        // The new cache is empty: what it was waited on is gone.
        assert_eq!(changed.join().unwrap(), Err(WaitError::Read(ReadError::Miss)));
    });
}

/// Keeps the calling thread on a core, where there are several.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap();
    let _ = sched_setaffinity(Pid::from_raw(0), &cores);
}

/// Prints how late a change is seen.
#[test]
fn how_late_a_waiting_reader_sees_a_change() {
    let mut host = Host::start(8);
    let mut reader = reader(&host);
    pin(0);
    let (first, later) = (Duration::from_micros(8), Duration::from_millis(3));
    for (what, rest) in [("while it watches", first), ("while it sleeps", later)] {
        let mut late_ns = Vec::new();
        for _ in 0..200 {
            let last = host.put(b"key", &0_u64.to_le_bytes());
            let waits = AtomicBool::new(false);
            late_ns.push(std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    pin(1);
                    let mut out = [0; 8];
                    waits.store(true, Ordering::Release);
                    let seen = reader.wait_for_change(b"key", last, &mut out, later * 1000);
                    let seen_ns = monotonic_ns();
                    seen.unwrap();
                    seen_ns - u64::from_le_bytes(out)
                });
                while !waits.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                if rest == later {
                    std::thread::sleep(rest);
                }
                let until_ns = monotonic_ns() + first.as_nanos() as u64;
                while monotonic_ns() < until_ns {
                    std::hint::spin_loop();
                }
                host.put(b"key", &monotonic_ns().to_le_bytes());
                waiting.join().unwrap()
            }));
        }
        late_ns.sort_unstable();
        let [p50, p90, p99] = [100, 180, 198].map(|at| late_ns[at]);
        println!("a change {what} is seen after p50 {p50} ns, p90 {p90} ns, p99 {p99} ns");
    }
}

#[test]
fn what_cannot_be_attached_to_says_why() {
    let host = Host::start(8);
    let attach = |path: &std::path::Path, id: &str| CacheReader::attach(path, id).unwrap_err();
    let error = attach(&host.run_dir(), "orders");
    assert!(matches!(error, AttachError::Refused { code: Code::NoCache, .. }), "{error}");
    for id in ["", "a\0b", &"x".repeat(64)] {
        assert!(matches!(attach(&host.run_dir(), id), AttachError::CacheId(_)));
    }
    let missing = host.run_dir().join("nothing");
    let text = attach(&missing, CACHE).to_string();
    assert!(text.contains("no supervisor is listening"), "{text}");
    let long = host.run_dir().join("x".repeat(120));
    assert!(matches!(attach(&long, CACHE), AttachError::Path(_)));
    // The socket itself is as good as its folder.
    assert!(CacheReader::attach(host.run_dir().join("supervisor.sock"), CACHE).is_ok());
    let run_dir = host.run_dir();
    drop(host);
    wait_until("its files are gone", || !run_dir.exists());
    assert!(matches!(attach(&run_dir, CACHE), AttachError::Connect { .. }));
}
