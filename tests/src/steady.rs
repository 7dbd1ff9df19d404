//! Clients that read and write all the time and try again every 20 ms: a request has failed when no try of five
//! seconds brought the right answer. How many needed more than three is told and not judged here: that is a figure
//! (row H1), and what it comes to is the machine's affair as well.
//!
//! Over UDP a client stays with its node. Over TCP it goes to the next node when it is refused or cut off, as
//! one does that is led away; what it has written is remembered for each node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::memcached::Client;

/// Tries of one request. Too low: what a busy machine does is taken for a loss; too high: a loss takes long to be
/// told.
const TRIES: u32 = 250;

/// Tries that an application has the patience for.
const PATIENT_TRIES: u32 = 3;

/// How long one try waits.
const TRY: Duration = Duration::from_millis(20);

/// Pause between two requests. Too low: the load takes the cores that it should leave to the nodes.
const PAUSE: Duration = Duration::from_millis(2);

/// Keys of one client on one node.
const KEYS: usize = 16;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steady {
    /// Requests that were answered rightly.
    pub answered: u64,
    /// Of these, such as needed a second or third try.
    pub retried: u64,
    /// Of these, such as needed more than three.
    pub late: u64,
    /// Requests without an answer, or with a wrong one.
    pub failed: Vec<String>,
    /// Of these, such as had a wrong answer: a value that was never the last.
    pub wrong: Vec<String>,
    /// Times a TCP client went to another node.
    pub moved: u64,
    /// The longest that a request took with all its tries.
    pub longest: Duration,
}

impl Steady {
    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.retried += other.retried;
        self.late += other.late;
        self.failed.extend(other.failed);
        self.wrong.extend(other.wrong);
        self.moved += other.moved;
        self.longest = self.longest.max(other.longest);
        self
    }

    fn count(&mut self, tries: u32, took: Duration, what: Result<(), String>) {
        self.longest = self.longest.max(took);
        match what {
            Ok(()) => {
                self.answered += 1;
                self.retried += u64::from(tries > 1);
                self.late += u64::from(tries > PATIENT_TRIES);
            }
            Err(what) => {
                if what.contains(", not ") {
                    self.wrong.push(what.clone());
                }
                self.failed.push(what);
            }
        }
    }
}

/// What one client knows of one key of a node: the last value that was acknowledged, and those that may have
/// been stored since although nobody said so.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Option<u64>,
    unsure: Vec<u64>,
}

impl Known {
    fn may_be(&self, found: Option<u64>) -> bool {
        found == self.acknowledged || found.is_some_and(|found| self.unsure.contains(&found))
    }

    fn stored(&mut self, version: u64) {
        *self = Self { acknowledged: Some(version), unsure: Vec::new() };
    }
}

fn text(version: u64) -> String {
    format!("v{version:012}")
}

fn version(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.strip_prefix('v')?.parse().ok()
}

/// Fails where clients noticed something: a wrong value, or a request that was never answered.
///
/// # Panics
/// Then.
pub fn nobody_noticed(what: &str, steady: &Steady) {
    let Steady { answered, retried, late, failed, wrong, moved, longest } = steady;
    println!(
        "{what}: {answered} answered, {retried} tried again ({late} more than twice), {moved} reconnected, \
         longest {longest:?}; {} failed",
        failed.len()
    );
    assert!(wrong.is_empty(), "{what}: {:?}", &wrong[..wrong.len().min(5)]);
    assert!(
        failed.is_empty(),
        "{what}: {} failed, {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    assert!(*answered > 100, "{what}: {answered}");
}

/// Keys of a client that nobody has used before.
fn fresh(name: &str) -> String {
    static CLIENTS: AtomicU64 = AtomicU64::new(0);
    format!("{name}{}", CLIENTS.fetch_add(1, Ordering::Relaxed))
}

/// Reads and writes over UDP on the calling thread, in its namespace, until `stop` is set.
pub fn over_udp(server: SocketAddr, name: &str, stop: &AtomicBool) -> Steady {
    let name = fresh(name);
    let mut steady = Steady::default();
    let mut known = vec![Known::default(); KEYS];
    let mut client = Client::connect(server, TRY).expect("a socket");
    let mut turn = 0u64;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let index = turn as usize / 2 % KEYS;
        let key = format!("{name}:{index}");
        let begun = Instant::now();
        let mut last = String::new();
        let mut tries = 0;
        let done = (0..TRIES).any(|_| {
            tries += 1;
            let began = Instant::now();
            let result = if turn.is_multiple_of(2) {
                known[index].unsure.push(turn);
                client
                    .set(&key, 0, text(turn).as_bytes())
                    .map(|()| known[index].stored(turn))
                    .map_err(|error| error.to_string())
            } else {
                match client.get(&key) {
                    Ok(found) => {
                        let found = found.and_then(|value| version(&value.bytes));
                        let fine = known[index].may_be(found);
                        if fine {
                            Ok(())
                        } else {
                            Err(format!("{found:?}, not {:?}", known[index]))
                        }
                    }
                    Err(error) => Err(error.to_string()),
                }
            };
            if let Err(problem) = &result {
                last.clone_from(problem);
                std::thread::sleep(TRY.saturating_sub(began.elapsed()));
            }
            result.is_ok()
        });
        let result = if done { Ok(()) } else { Err(format!("UDP {server} {key}: {last}")) };
        steady.count(tries, begun.elapsed(), result);
        std::thread::sleep(PAUSE);
    }
    steady
}

/// The same over TCP, at whichever of the servers takes the client.
pub fn over_tcp(servers: &[SocketAddr], name: &str, stop: &AtomicBool) -> Steady {
    let name = fresh(name);
    let mut steady = Steady::default();
    let mut known = vec![vec![Known::default(); KEYS]; servers.len()];
    let (mut at, mut stream): (usize, Option<TcpStream>) = (0, None);
    let mut turn = 0u64;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let index = turn as usize / 2 % KEYS;
        let key = format!("{name}:{index}");
        let begun = Instant::now();
        let (mut last, mut tries) = (String::new(), 0);
        let done = (0..TRIES).any(|_| {
            tries += 1;
            let began = Instant::now();
            let of = &mut known[at][index];
            let result = connected(&mut stream, servers[at]).and_then(|stream| {
                if turn.is_multiple_of(2) {
                    of.unsure.push(turn);
                    let request = format!("set {key} 0 0 13\r\n{}\r\n", text(turn));
                    let answer = ask(stream, request.as_bytes(), b"STORED\r\n")?;
                    let stored = answer == b"STORED\r\n";
                    if stored {
                        of.stored(turn)
                    }
                    if stored {
                        Ok(())
                    } else {
                        Err(format!("{:?}", String::from_utf8_lossy(&answer)))
                    }
                } else {
                    let answer = ask(stream, format!("get {key}\r\n").as_bytes(), b"END\r\n")?;
                    let found = answer.split(|byte| *byte == b'\n').nth(1);
                    let found = found.and_then(|line| version(line.trim_ascii_end()));
                    let fine = of.may_be(found);
                    if fine { Ok(()) } else { Err(format!("{found:?}, not {of:?}")) }
                }
            });
            if let Err(problem) = &result {
                last = format!("{}: {problem}", servers[at]);
                stream = None;
                // A wrong value is no reason to go elsewhere.
                at = (at + 1) % servers.len();
                steady.moved += 1;
                std::thread::sleep(TRY.saturating_sub(began.elapsed()));
            }
            result.is_ok()
        });
        let result = if done { Ok(()) } else { Err(format!("TCP {key}: {last}")) };
        steady.count(tries, begun.elapsed(), result);
        std::thread::sleep(PAUSE);
    }
    steady
}

fn connected(stream: &mut Option<TcpStream>, server: SocketAddr) -> Result<&mut TcpStream, String> {
    if stream.is_none() {
        let fresh = TcpStream::connect_timeout(&server, TRY).map_err(|error| error.to_string())?;
        fresh.set_nodelay(true).map_err(|error| error.to_string())?;
        fresh.set_read_timeout(Some(TRY)).map_err(|error| error.to_string())?;
        *stream = Some(fresh);
    }
    stream.as_mut().ok_or_else(|| "no connection".into())
}

/// Sends a request and reads until the answer ends so, or is an error.
fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) -> Result<Vec<u8>, String> {
    stream.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let read = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("closed".into());
        }
        answer.extend_from_slice(&buffer[..read]);
        if answer.ends_with(end) || answer.starts_with(b"SERVER_ERROR") {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_acknowledgement_is_either_value_and_nothing_else() {
        let mut known = Known::default();
        assert!(known.may_be(None) && !known.may_be(Some(1)));
        known.unsure.push(1);
        assert!(known.may_be(None) && known.may_be(Some(1)));
        known.stored(2);
        assert!(known.may_be(Some(2)) && !known.may_be(None) && !known.may_be(Some(1)));
        assert_eq!(version(text(7).as_bytes()), Some(7));
        assert_eq!(text(7).len(), 13);
    }

    #[test]
    fn a_server_that_is_not_there_is_a_failure() {
        let stop = AtomicBool::new(false);
        let nobody = "127.0.0.1:1".parse().unwrap();
        let steady = std::thread::scope(|scope| {
            let client = scope.spawn(|| over_tcp(&[nobody], "k", &stop));
            std::thread::sleep(Duration::from_millis(200));
            // It stops with the request that it is at.
            stop.store(true, Ordering::Relaxed);
            client.join().unwrap()
        });
        assert!(steady.answered == 0 && !steady.failed.is_empty(), "{steady:?}");
    }
}
