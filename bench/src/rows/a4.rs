//! A4: one key, read by another process on the same host: our client out of shared memory, against
//! memcached and Redis over a Unix socket, the servers on the same core in turn.
//!
//! One client asks one key after the other. The peers' client spins on its socket, so that no wake-up of
//! its own is counted against them. Times have the clock's own cost in them, on every side.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use nautilus_client::CacheReader;
use nautilus_tests::lab::node_file::CACHE_ID;
use nautilus_tests::lab::{NodeFile, Process};
use nix::sys::signal::Signal;

use super::a2;
use crate::clock::{GENERATOR_CORE, SERVER_CORE, now_ns, pin};
use crate::generator::open::histogram;
use crate::probe::Probe;
use crate::row::{Peer, Row};
use crate::run::{Bench, Half};
use crate::stage::{self, Stage};
use crate::traffic::{KEY_BYTES, VALUE_BYTES, key, stores, value};

const PORT: u16 = 11_211;
/// Keys that are there; the first of them are the small set.
const KEYS: u64 = a2::KEYS;
const KEYS_SMALL: u64 = 1_000;
/// What the probe spins before and after each half. A client between two answers makes system calls, which
/// say nothing of the machine.
const WATCHED: Duration = Duration::from_millis(200);
/// How long a server may take to answer its first request, and a reader to find its node alive again.
const READY: Duration = Duration::from_secs(20);

/// The row.
pub struct A4 {
    peers: Vec<SocketPeer>,
    reader: CacheReader,
    stage: Stage,
    sides: Vec<String>,
    missing: Option<String>,
    quick: bool,
    state: u64,
}

/// A server behind a Unix socket.
struct SocketPeer {
    process: Process,
    socket: UnixStream,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Memcached,
    Redis,
}

impl A4 {
    /// Starts and loads every side.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let supervisor = stage::supervisor()?;
        let mut stage = Stage::new()?;
        let mut sides = vec!["nautilus client".to_owned()];
        let ours = stage.link(PORT)?;
        let run_dir = stage.start_node(ours, &supervisor, |file: &mut NodeFile| {
            file.cache_memory_mb = a2::CACHE_MEMORY_MB;
            file.hot_set = false;
            file.to_toml()
        })?;
        a2::load(&mut stage, ours)?;
        let reader = CacheReader::attach(run_dir, CACHE_ID)?;
        stage.stop_all();
        let mut peers = Vec::new();
        let mut missing = None;
        for (peer, dialect) in
            [(row.peer.as_ref(), Dialect::Memcached), (row.other_peer.as_ref(), Dialect::Redis)]
        {
            let Some(peer) = peer else { continue };
            if let Err(why) = stage::find_peer(peer) {
                missing = Some(why);
                continue;
            }
            peers.push(SocketPeer::start(&stage, peer, dialect)?);
            sides.push(peer.name.clone());
        }
        // Not before: what is started inherits the cores it may use.
        pin(GENERATOR_CORE)?;
        Ok(Self { peers, reader, stage, sides, missing, quick, state: 0x6e61_7574 })
    }

    fn stop_peers(&mut self) {
        for peer in &mut self.peers {
            peer.process.signal(Signal::SIGSTOP);
        }
    }

    fn ours(&mut self) -> anyhow::Result<[Histogram<u64>; 2]> {
        self.stop_peers();
        self.stage.only(0);
        let start = Instant::now();
        // Its supervisor was stopped: readers are detached until it is heard again.
        while self.reader.get(&key(0), &mut [0; VALUE_BYTES]).is_err() {
            anyhow::ensure!(start.elapsed() < READY, "the node does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
        let count = if self.quick { 200_000 } else { 1_000_000 };
        let Self { reader, state, .. } = self;
        let mut out = [0; VALUE_BYTES];
        let mut read = |key: &[u8; KEY_BYTES]| -> anyhow::Result<(u64, bool)> {
            let before_ns = now_ns();
            let hit = reader.get(key, &mut out);
            let took_ns = now_ns() - before_ns;
            let hit = hit.context("a key that is there")?;
            Ok((took_ns, out[..hit.value_bytes] == value_of(key)))
        };
        both_sets(state, count, &mut read)
    }

    fn peers(&mut self, index: usize) -> anyhow::Result<[Histogram<u64>; 2]> {
        self.stage.stop_all();
        self.stop_peers();
        let count = if self.quick { 20_000 } else { 30_000 };
        let peer = &mut self.peers[index];
        peer.process.signal(Signal::SIGCONT);
        std::thread::sleep(stage::SETTLES);
        let SocketPeer { socket, dialect, .. } = peer;
        let mut read = |key: &[u8; KEY_BYTES]| ask(socket, *dialect, key);
        both_sets(&mut self.state, count, &mut read)
    }
}

fn value_of(key: &[u8; KEY_BYTES]) -> [u8; VALUE_BYTES] {
    std::array::from_fn(|at| key[at % KEY_BYTES])
}

/// Times `count` reads of either set, each set's first tenth apart: it finds its place in the caches.
fn both_sets(
    state: &mut u64,
    count: u64,
    read: &mut impl FnMut(&[u8; KEY_BYTES]) -> anyhow::Result<(u64, bool)>,
) -> anyhow::Result<[Histogram<u64>; 2]> {
    let mut times = [histogram(), histogram()];
    for (keys, times) in [KEYS_SMALL, KEYS].into_iter().zip(&mut times) {
        for index in 0..count + count / 10 {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let key = key(*state % keys);
            let (took_ns, right) = read(&key)?;
            anyhow::ensure!(right, "a wrong value for {}", String::from_utf8_lossy(&key));
            if index >= count / 10 {
                times.saturating_record(took_ns.max(1));
            }
        }
    }
    Ok(times)
}

/// One request and its whole answer.
fn ask(
    socket: &mut UnixStream,
    dialect: Dialect,
    key: &[u8; KEY_BYTES],
) -> anyhow::Result<(u64, bool)> {
    let mut request = [0; 64];
    let (front, tail): (&[u8], &[u8]) = match dialect {
        Dialect::Memcached => (b"get ", b"\r\n"),
        Dialect::Redis => (b"*2\r\n$3\r\nGET\r\n$16\r\n", b"\r\n"),
    };
    let bytes = join(&[front, key, tail], &mut request);
    let mut expected = [0; 256];
    let value = value_of(key);
    let expected_bytes = match dialect {
        Dialect::Memcached => {
            join(&[b"VALUE ", key, b" 0 100\r\n", &value, b"\r\nEND\r\n"], &mut expected)
        }
        Dialect::Redis => join(&[b"$100\r\n", &value, b"\r\n"], &mut expected),
    };
    let mut answer = [0; 256];
    let mut length = 0;
    let before_ns = now_ns();
    socket.write_all(&request[..bytes]).context("ask")?;
    // Anything shorter than the right answer, a miss among them, is a value that is not there.
    while length < expected_bytes && answer[..length] == expected[..length] {
        match socket.read(&mut answer[length..]) {
            Ok(0) => anyhow::bail!("the server closed the connection"),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error).context("hear"),
        }
    }
    let took_ns = now_ns() - before_ns;
    Ok((took_ns, answer[..length] == expected[..expected_bytes]))
}

fn join(parts: &[&[u8]], out: &mut [u8]) -> usize {
    let mut at = 0;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    at
}

impl SocketPeer {
    fn start(stage: &Stage, peer: &Peer, dialect: Dialect) -> anyhow::Result<Self> {
        let ground = &stage.ground;
        let folder = ground.folder.make(&format!("{dialect:?}").to_lowercase())?;
        // memcached gives up root before it makes its socket.
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777))?;
        let path = folder.join("socket");
        let text = peer
            .command
            .replace("{socket}", &path.display().to_string())
            .replace("{server_core}", &SERVER_CORE.to_string());
        let mut words = text.split_whitespace().map(|word| word.trim_matches('\''));
        let mut command = Command::new(words.next().context("a peer's command is not empty")?);
        command.args(words).current_dir(&folder);
        let log = folder.join("log");
        let process = Process::start_command(ground.run, command, &peer.name, &log)?;
        let opened = connect(&path).and_then(|socket| load(socket, dialect));
        let socket = opened.with_context(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{}; its log: {}", peer.name, log.trim_end())
        })?;
        socket.set_nonblocking(true)?;
        let mut this = Self { process, socket, dialect };
        this.process.signal(Signal::SIGSTOP);
        Ok(this)
    }
}

impl Drop for SocketPeer {
    fn drop(&mut self) {
        // A stopped process does not end by SIGTERM.
        self.process.signal(Signal::SIGCONT);
    }
}

fn connect(path: &PathBuf) -> anyhow::Result<UnixStream> {
    let deadline = Instant::now() + READY;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no socket {}", Path::display(path)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Stores every key and waits for the last.
fn load(mut socket: UnixStream, dialect: Dialect) -> anyhow::Result<UnixStream> {
    socket.set_read_timeout(Some(READY))?;
    let (text, last): (Vec<u8>, &[u8]) = match dialect {
        Dialect::Memcached => (stores(KEYS), b"STORED\r\n"),
        Dialect::Redis => (redis_stores(KEYS), b"+OK\r\n"),
    };
    socket.write_all(&text).context("store the keys")?;
    let mut answer = vec![0; last.len()];
    socket.read_exact(&mut answer).context("the answer to the last key")?;
    anyhow::ensure!(answer == last, "{:?}", String::from_utf8_lossy(&answer));
    Ok(socket)
}

/// The commands that store the keys `0..keys`; only the one behind them is answered.
fn redis_stores(keys: u64) -> Vec<u8> {
    let mut text = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n".to_vec();
    for number in 0..keys {
        text.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
        text.extend_from_slice(&key(number));
        text.extend_from_slice(b"\r\n$100\r\n");
        text.extend_from_slice(&value(number));
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n");
    text
}

impl Bench for A4 {
    fn sides(&self) -> Vec<String> {
        self.sides.clone()
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        let dialect = if measure.is_multiple_of(2) { Dialect::Memcached } else { Dialect::Redis };
        let index = self.peers.iter().position(|peer| peer.dialect == dialect)?;
        Some(1 + index)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        let mut probe = Probe::default();
        probe.spin(WATCHED);
        let [small, large] = match side.checked_sub(1) {
            None => self.ours()?,
            Some(peer) => self.peers(peer)?,
        };
        probe.spin(WATCHED);
        let (p50, p50_large) =
            (small.value_at_quantile(0.5) as f64, large.value_at_quantile(0.5) as f64);
        Ok(Half {
            values: [p50, p50, p50_large, p50_large].map(Some).to_vec(),
            held_share: probe.held_share(),
            latency: Some(small),
            lost: None,
        })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives these bytes to whatever is asked.
    fn answered(answer: Vec<u8>, dialect: Dialect) -> bool {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let served = std::thread::spawn(move || {
            let mut request = [0; 128];
            let bytes = server.read(&mut request).unwrap();
            assert!(request[..bytes].ends_with(b"key:000000000007\r\n"));
            server.write_all(&answer).unwrap();
        });
        let right = ask(&mut client, dialect, &key(7)).unwrap().1;
        served.join().unwrap();
        right
    }

    #[test]
    fn an_answer_is_right_only_byte_for_byte() {
        let value = value(7);
        let memcached = [b"VALUE key:000000000007 0 100\r\n", &value[..], b"\r\nEND\r\n"].concat();
        assert!(answered(memcached.clone(), Dialect::Memcached));
        let redis = [b"$100\r\n", &value[..], b"\r\n"].concat();
        assert!(answered(redis.clone(), Dialect::Redis));
        for (mut answer, dialect) in [(memcached, Dialect::Memcached), (redis, Dialect::Redis)] {
            let at = answer.len() / 2;
            answer[at] ^= 1;
            assert!(!answered(answer, dialect), "{dialect:?}");
        }
        assert!(!answered(b"END\r\n".to_vec(), Dialect::Memcached));
        assert!(!answered(b"$-1\r\n".to_vec(), Dialect::Redis));
    }

    #[test]
    fn redis_is_told_every_key_and_answers_once() {
        let text = String::from_utf8(redis_stores(3)).unwrap();
        assert_eq!(text.matches("SET").count(), 3);
        assert!(text.ends_with("ON\r\n") && text.contains("key:000000000002\r\n$100\r\nkey:"));
    }
}
