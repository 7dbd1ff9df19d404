//! Workers, fronts and control killed while clients are at work, and what the clients saw of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use nautilus_dataplane::replay::random::Random;
use nautilus_shm::clock::monotonic_ns;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::paths::Path;
use crate::history::Operation;
use crate::lab::{Service, status};
use crate::memcached::frame;
use crate::wait::wait_until;

/// Longest a successor may take.
const SUCCESSOR_MAX: Duration = Duration::from_secs(20);

/// One kill in so many is a front's.
const FRONT_ONE_IN: u32 = 4;

/// One kill in so many is control's, not counted among the front's.
const CONTROL_ONE_IN: u32 = 6;

/// Between a successor and the next kill: up to so long.
const LIFE_MS_MAX: u32 = 60;

/// How long after a kill an answer that was on its way may still arrive.
const ON_ITS_WAY_NS: u64 = 5_000_000;

/// Time between two questions of the probe. Too low: it takes the cores from the node; too high: gaps
/// are known less exactly.
const PROBE_EVERY: Duration = Duration::from_micros(400);

/// Who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A worker.
    Worker,
    /// The front.
    Front,
    /// The control daemon.
    Control,
}

/// A kill.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Of whom.
    pub victim: Victim,
    /// `CLOCK_MONOTONIC` nanoseconds, just before the signal.
    pub at_ns: u64,
}

fn front_pid(run_dir: &FilePath) -> Option<u32> {
    let text = status(run_dir).ok()?;
    let line = text.lines().find(|line| line.starts_with("front "))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// The workers that serve, in the order of their numbers.
fn worker_pids(run_dir: &FilePath) -> Vec<u32> {
    let text = status(run_dir).unwrap_or_default();
    let active = text.lines().filter(|line| line.contains("Serving"));
    let words = active.filter_map(|line| line.strip_prefix("active worker "));
    words.filter_map(|words| words.split(' ').next()?.parse().ok()).collect()
}

/// Whether all workers serve and for each another waits for its death.
fn is_settled(run_dir: &FilePath, workers: u32) -> bool {
    status(run_dir).is_ok_and(|text| {
        let serving = text.matches("Serving").count() as u32;
        serving == workers && text.matches("Ready").count() as u32 == workers
    })
}

/// Kills `count` times, each time as soon as all successors serve and the next stand by, and some
/// milliseconds more.
pub fn kill_on(
    run_dir: &FilePath,
    control: &Service,
    workers: u32,
    count: u32,
    seed: u64,
) -> anyhow::Result<Vec<Kill>> {
    let mut random = Random::new(seed);
    let mut kills = Vec::new();
    for number in 0..count {
        let what = "all workers serve and as many stand by";
        wait_until(what, SUCCESSOR_MAX, || is_settled(run_dir, workers))?;
        wait_until("a front serves", SUCCESSOR_MAX, || front_pid(run_dir).is_some())?;
        std::thread::sleep(Duration::from_millis(random.below(LIFE_MS_MAX).into()));
        let control_pid = || control.status().pid.map(|pid| pid as u32);
        wait_until("control runs", SUCCESSOR_MAX, || control_pid().is_some())?;
        let kind = (number % CONTROL_ONE_IN, number % FRONT_ONE_IN);
        let (victim, pid) = match (kind, random.below(workers)) {
            ((1, _), _) => (Victim::Control, control_pid()),
            ((_, 0), _) => (Victim::Front, front_pid(run_dir)),
            (_, which) => (Victim::Worker, worker_pids(run_dir).get(which as usize).copied()),
        };
        let pid = pid.context("nobody to kill")?;
        kills.push(Kill { victim, at_ns: monotonic_ns() });
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
        wait_until("its successor", SUCCESSOR_MAX, || match victim {
            Victim::Front => front_pid(run_dir).is_some_and(|now| now != pid),
            Victim::Control => control_pid().is_some_and(|now| now != pid),
            Victim::Worker => {
                let now = worker_pids(run_dir);
                now.len() as u32 == workers && !now.contains(&pid)
            }
        })?;
    }
    Ok(kills)
}

/// When answers came by one way, ascending.
pub fn returns_ns(history: &[Operation], way: Path) -> Vec<u64> {
    let returns = history.iter().filter(|operation| operation.path == way as u8);
    let mut returns: Vec<u64> =
        returns.filter_map(|operation| Some(operation.returned?.at_ns)).collect();
    returns.sort_unstable();
    returns
}

/// Asks the workers over and over without waiting for answers, from the calling thread's namespace, and
/// says when the answers came to each of `flows` sockets: enough of them that every worker has one. A
/// client that waits would add its own patience to a gap.
pub fn probe(cache: SocketAddr, flows: usize, stop: &AtomicBool) -> io::Result<Vec<Vec<u64>>> {
    let sockets = (0..flows).map(|_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(cache)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let sockets = sockets.collect::<io::Result<Vec<UdpSocket>>>()?;
    let (mut returns, mut heard) = (vec![Vec::new(); flows], [0; 64]);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        due += PROBE_EVERY;
        for socket in &sockets {
            // An error is a datagram less, which shows as a gap.
            let _ = socket.send(&frame(0, b"mn\r\n"));
        }
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            let mut entries: Vec<PollFd<'_>> = sockets
                .iter()
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                .collect();
            ppoll(&mut entries, Some(TimeSpec::from_duration(left)), None)?;
            for (socket, returns) in sockets.iter().zip(&mut returns) {
                while socket.recv(&mut heard).is_ok() {
                    returns.push(monotonic_ns());
                }
            }
        }
    }
    Ok(returns)
}

/// For each kill of this kind the longest time between two answers of one flow, of those that came at
/// `flows`, ascending, in nanoseconds.
pub fn gaps_ns(flows: &[Vec<u64>], kills: &[Kill], victim: Victim) -> Vec<u64> {
    let mut gaps: Vec<u64> = kills
        .iter()
        .filter(|kill| kill.victim == victim)
        .filter_map(|kill| flows.iter().filter_map(|flow| gap_ns(flow, kill)).max())
        .collect();
    gaps.sort_unstable();
    gaps
}

/// The longest silence of one flow around a kill.
fn gap_ns(returns: &[u64], kill: &Kill) -> Option<u64> {
    let first = returns.partition_point(|at_ns| *at_ns < kill.at_ns);
    let last = returns.partition_point(|at_ns| *at_ns < kill.at_ns + ON_ITS_WAY_NS);
    let around = returns.get(first.checked_sub(1)?..(last + 1).min(returns.len()))?;
    around.windows(2).map(|pair| pair[1] - pair[0]).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_silence_around_a_kill() {
        let ms = 1_000_000;
        let returns = [[10, 11, 12, 20, 21, 90].map(|at| at * ms).to_vec()];
        let kill = Kill { victim: Victim::Worker, at_ns: 11 * ms + 500 };
        assert_eq!(gaps_ns(&returns, &[kill], Victim::Worker), [8 * ms]);
        assert_eq!(gaps_ns(&returns, &[kill], Victim::Front), [0_u64; 0]);
        let kills = [1, 10, 91].map(|at| Kill { victim: Victim::Front, at_ns: at * ms + 1 });
        // Before the first answer and behind the last one nothing is known.
        assert_eq!(gaps_ns(&returns, &kills, Victim::Front), [8 * ms]);
    }
}
