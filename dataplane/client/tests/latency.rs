//! What a read costs. Prints; judges nothing: the scoreboard does, beside its peers.

mod support;

use std::hint::black_box;
use std::time::Instant;

use nautilus_client::{CacheReader, Read};
use support::{CACHE, Host};

const VALUE_BYTES: usize = 64;

fn key(number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for at in (4..16).rev() {
        key[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Nanoseconds of each of `count` reads of random keys, sorted, the clock's own cost taken off.
fn reads(reader: &mut CacheReader, keys: &[[u8; 16]], count: usize) -> Vec<u64> {
    let mut out = [0; VALUE_BYTES];
    let mut state = 0x1234_5678_u64;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = &keys[((state >> 33) as usize) % keys.len()];
        black_box(key[0]);
        let begun = Instant::now();
        let value = reader.get(black_box(key), &mut out).unwrap();
        let took = begun.elapsed();
        assert_eq!(value.value_bytes, VALUE_BYTES);
        assert_eq!(out[..16], *key);
        times.push(took.as_nanos() as u64);
    }
    times.sort_unstable();
    times
}

fn clock_ns() -> u64 {
    let mut times: Vec<u64> = (0..10_000)
        .map(|_| {
            let begun = Instant::now();
            begun.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn what_a_read_costs() {
    let release = !cfg!(debug_assertions);
    let sizes: &[(usize, u32)] =
        if release { &[(1_000, 8), (1_000_000, 256)] } else { &[(1_000, 8)] };
    for &(count, megabytes) in sizes {
        let mut host = Host::start(megabytes);
        let mut keys: Vec<[u8; 16]> = (0..count).map(key).collect();
        for key in &keys {
            let mut value = [0; VALUE_BYTES];
            value[..16].copy_from_slice(key);
            host.put(key, &value);
        }
        let mut reader = CacheReader::attach(host.run_dir(), CACHE).unwrap();
        // A few are gone: both buckets of a later key were full.
        keys.retain(|key| reader.get(key, &mut [0; VALUE_BYTES]).is_ok());
        assert!(keys.len() * 1000 > count * 995, "{} of {count} keys are there", keys.len());
        let repeats = if release { 1_000_000 } else { 20_000 };
        reads(&mut reader, &keys, repeats / 10);
        let times = reads(&mut reader, &keys, repeats);
        let clock_ns = clock_ns();
        let at = |percent: f64| times[(times.len() as f64 * percent / 100.0) as usize];
        // Back to back, without a clock around each.
        let mut out = [0; VALUE_BYTES];
        let begun = Instant::now();
        let mut state = 0x1234_5678_u64;
        for _ in 0..repeats {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = &keys[((state >> 33) as usize) % keys.len()];
            black_box(reader.get(key, &mut out)).unwrap();
        }
        let mean_ns = begun.elapsed().as_nanos() as f64 / repeats as f64;
        let mut outs = [[0; VALUE_BYTES]; 16];
        let begun = Instant::now();
        for _ in 0..repeats / 16 {
            let mut asked = outs.iter_mut().map(|out| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Read::new(&keys[((state >> 33) as usize) % keys.len()], out)
            });
            let mut asked: [Read<'_>; 16] = std::array::from_fn(|_| asked.next().unwrap());
            reader.get_many(&mut asked);
            assert!(asked.iter().all(|read| read.result.is_ok()));
        }
        let many_ns = begun.elapsed().as_nanos() as f64 / repeats as f64;
        println!(
            "{} build, get of {VALUE_BYTES} B over {count} keys: p50 {} ns, p99 {} ns with {clock_ns} \
             ns of the clock around each; {mean_ns:.0} ns back to back; {many_ns:.0} ns each by 16",
            if release { "release" } else { "debug" },
            at(50.0),
            at(99.0),
        );
    }
}
