//! An open-loop reader: asks at a fixed rate whatever the answers do, and measures from the moment a
//! request was due, so that a stall is counted by everyone who had to wait for it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::memcached::{HEADER_BYTES, Value, frame, header, parse_get};

/// Longest latency that is told apart; what takes longer counts as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// How long the reader listens after its last request.
const LINGER: Duration = Duration::from_millis(500);

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub server: SocketAddr,
    /// The keys, asked in turn.
    pub keys: Vec<String>,
    /// Requests a second, 1..=100,000.
    pub rate_per_second: u32,
    /// For how long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Answers with a value.
    pub hits: u64,
    /// Answers that were wrong: a value the check refused, or no valid answer. The first one is
    /// quoted.
    pub wrong: u64,
    /// The first wrong answer.
    pub first_wrong: Option<String>,
    /// From the moment each request was due to its answer, ns.
    pub latency_ns: Histogram<u64>,
    /// The longest time between two answers that followed each other.
    pub gap: Duration,
    /// When that gap ended, after the start.
    pub gap_ended: Duration,
}

impl Report {
    fn new() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("three digits up to a minute are valid bounds");
        Self {
            sent: 0,
            answered: 0,
            hits: 0,
            wrong: 0,
            first_wrong: None,
            latency_ns,
            gap: Duration::ZERO,
            gap_ended: Duration::ZERO,
        }
    }

    /// Requests without an answer.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered
    }

    /// The latency below which this share of the answers lies, microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(what);
    }
}

/// One request on its way.
#[derive(Clone, Copy)]
struct Asked {
    due: Instant,
    key: usize,
}

/// Asks until the plan's time is over or `stop` is set. `check` is given each key and what was found
/// (None for a miss) and says whether that may be. Runs on the calling thread, in its namespace.
pub fn read(
    plan: &Plan,
    stop: &AtomicBool,
    mut check: impl FnMut(&str, Option<&Value>) -> bool,
) -> io::Result<Report> {
    assert!(!plan.keys.is_empty(), "a plan without keys");
    assert!((1..=100_000).contains(&plan.rate_per_second), "rate {}", plan.rate_per_second);
    let any = if plan.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(plan.server)?;
    socket.set_nonblocking(true)?;
    let mut report = Report::new();
    let mut asked: Vec<Option<Asked>> = vec![None; usize::from(u16::MAX) + 1];
    let mut buffer = [0; 2048];
    let pause = Duration::from_secs(1) / plan.rate_per_second;
    let started = Instant::now();
    let mut last_answer = None;
    let mut due = started;
    let mut end = started + plan.duration;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            end = end.min(now);
        }
        // What came due while this thread had no core is asked first, late as it is.
        if now >= end + LINGER || (due >= end && now >= end && report.lost() == 0) {
            return Ok(report);
        }
        while due <= now && due < end {
            let key = report.sent as usize % plan.keys.len();
            let id = report.sent as u16;
            let request = frame(id, format!("get {}\r\n", plan.keys[key]).as_bytes());
            asked[usize::from(id)] = Some(Asked { due, key });
            report.sent += 1;
            due += pause;
            match socket.send(&request) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let wake = if due < end { due } else { end + LINGER };
        wait(&socket, wake.saturating_duration_since(now))?;
        loop {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let datagram = &buffer[..length];
            let Some([id, 0, 1, _]) = header(datagram) else {
                report.wrong(format!("a datagram of {length} bytes that is no answer"));
                continue;
            };
            let Some(Asked { due, key }) = asked[usize::from(id)].take() else {
                report.wrong(format!("an answer to request {id}, which waits for none"));
                continue;
            };
            report.answered += 1;
            let latency = u64::try_from((now - due).as_nanos()).unwrap_or(LATENCY_NS_MAX);
            report.latency_ns.saturating_record(latency.max(1));
            let gap = last_answer.map_or(Duration::ZERO, |last| now - last);
            if gap > report.gap {
                report.gap = gap;
                report.gap_ended = now - started;
            }
            last_answer = Some(now);
            let key = &plan.keys[key];
            match parse_get(&datagram[HEADER_BYTES..], key) {
                Ok(found) => {
                    report.hits += u64::from(found.is_some());
                    if !check(key, found.as_ref()) {
                        report.wrong(format!("{key}: {found:?}"));
                    }
                }
                Err(reason) => report.wrong(format!("{key}: {reason}")),
            }
        }
    }
}

/// Errors that concern one datagram: nobody listens just now, or the queue is full.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn wait(socket: &UdpSocket, longest: Duration) -> io::Result<()> {
    let mut entry = [PollFd::new(std::os::fd::AsFd::as_fd(socket), PollFlags::POLLIN)];
    match ppoll(&mut entry, Some(TimeSpec::from_duration(longest)), None) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every request, but is silent for `silence` after the 50th.
    fn server(silence: Duration) -> (SocketAddr, std::thread::JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            let mut served = 0;
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                served += 1;
                if served == 50 {
                    std::thread::sleep(silence);
                }
                let id = header(&buffer[..length]).unwrap()[0];
                let text: &[u8] = if buffer[..length].ends_with(b"get a\r\n") {
                    b"VALUE a 0 2\r\nok\r\nEND\r\n"
                } else {
                    b"END\r\n"
                };
                socket.send_to(&frame(id, text), from).unwrap();
                if served == 100 {
                    return;
                }
            }
        });
        (address, thread)
    }

    #[test]
    fn a_silence_is_seen_by_all_who_waited() {
        let silence = Duration::from_millis(100);
        let (address, thread) = server(silence);
        let plan = Plan {
            server: address,
            keys: vec!["a".into(), "b".into()],
            rate_per_second: 1000,
            duration: Duration::from_millis(100),
        };
        let stop = AtomicBool::new(false);
        let report = read(&plan, &stop, |key, found| (key == "a") == found.is_some()).unwrap();
        thread.join().unwrap();
        assert_eq!((report.sent, report.lost(), report.wrong), (100, 0, 0), "{report:?}");
        assert_eq!(report.hits, 50);
        assert!(report.gap >= silence, "{:?}", report.gap);
        // Fifty requests came due while the server slept; the first of them waited longest.
        assert!(report.latency_us(0.75) > 20_000.0, "{}", report.latency_us(0.75));
    }

    #[test]
    fn a_wrong_value_is_counted() {
        let (address, thread) = server(Duration::ZERO);
        let plan = Plan {
            server: address,
            keys: vec!["a".into()],
            rate_per_second: 2000,
            duration: Duration::from_millis(50),
        };
        // A reader that is held up beyond the end asks all the same.
        let mut held_up = false;
        let report = read(&plan, &AtomicBool::new(false), |_, _| {
            if !std::mem::replace(&mut held_up, true) {
                std::thread::sleep(2 * plan.duration);
            }
            false
        });
        let report = report.unwrap();
        assert_eq!((report.sent, report.wrong), (100, 100));
        assert!(report.first_wrong.is_some());
        thread.join().unwrap();
    }
}
