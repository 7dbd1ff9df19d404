//! The same random requests to the cache and to memcached over loopback: the same answers.
//!
//! What differs on purpose (`dataplane/src/memcached/README.md`) is not generated, or taken out of the
//! comparison here: the version text, CAS numbers, and how several keys are cut into datagrams.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nautilus_dataplane::app::{App, CacheApp};
use nautilus_dataplane::limits::REPLY_PAYLOAD_BYTES_MAX;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_shm::table::{TableWriter, heap_words};

const SENTINEL: u16 = 0xffff;

struct Memcached {
    process: Child,
    socket: UdpSocket,
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Memcached {
    /// `None` when it is not installed.
    fn start() -> Option<Self> {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("memcached")
            .args(["-u", "nobody", "-l", "127.0.0.1", "-p", "0", "-t", "1", "-m", "64", "-U"])
            .arg(free.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(free).unwrap();
        let memcached = Self { process, socket };
        let start = Instant::now();
        while memcached.try_ask(b"", Duration::from_millis(50)).is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "memcached does not answer");
        }
        Some(memcached)
    }

    /// The joined text of all answers to one datagram: what comes before the answer to a second one.
    fn try_ask(&self, text: &[u8], patience: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        self.socket.send(&datagram(1, text)).ok()?;
        self.socket.send(&datagram(SENTINEL, b"get sentinel\r\n")).ok()?;
        let mut joined = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let bytes = self.socket.recv(&mut buffer).ok()?;
            if buffer[..2] == SENTINEL.to_be_bytes() {
                return Some(joined);
            }
            joined.extend(&buffer[8..bytes]);
        }
    }
}

fn datagram(id: u16, text: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &[0, 0, 0, 1, 0, 0][..], text].concat()
}

struct Request(Vec<u8>);

impl Burst for Request {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Datagram<'_> {
        Datagram {
            source: Endpoint::v4([127, 0, 0, 1], 4000),
            destination: Endpoint::v4([127, 0, 0, 1], 11211),
            link: Link::default(),
            rx_ns: 0,
            payload: &self.0,
        }
    }
}

struct Joined(Vec<u8>);

impl Transmit for Joined {
    fn send<F: Into<Filled>>(
        &mut self,
        _: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        let mut out = [0; REPLY_PAYLOAD_BYTES_MAX];
        let filled: Filled = write(&mut out).into();
        assert!(filled.is_true_of(&out), "a wrong sum");
        self.0.extend(&out[8..filled.bytes]);
        Ok(())
    }
}

/// A small generator: one seed, one stream of requests.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    fn key(&mut self) -> String {
        match self.below(12) {
            0 => "k".repeat(250),
            1 => "k".repeat(251),
            2 => "k\u{1}\u{7f}".into(),
            other => format!("key{other}"),
        }
    }

    fn gap(&mut self) -> &'static str {
        self.pick(&[" ", " ", " ", " ", "  "])
    }

    fn command(&mut self) -> Vec<u8> {
        let end = self.pick(&["\r\n", "\r\n", "\r\n", "\n"]);
        let gap = self.gap();
        match self.below(10) {
            0..3 => {
                let verb = self.pick(&["get", "gets"]);
                let mut keys: Vec<_> = (0..1 + self.below(4)).map(|_| self.key()).collect();
                // Refusing a key, memcached also loses the answers to earlier commands.
                keys.iter_mut().for_each(|key| key.truncate(250));
                format!("{verb}{gap}{}{end}", keys.join(self.gap())).into_bytes()
            }
            3..6 => self.set(end, gap),
            6 => {
                let tail = self.pick(&[
                    "",
                    "",
                    "",
                    " 0",
                    " noreply",
                    " 0 noreply",
                    " 1",
                    " x y",
                    " a b c d",
                ]);
                format!("delete{gap}{}{tail}{end}", self.key()).into_bytes()
            }
            7 => format!("version{end}").into_bytes(),
            _ => {
                let line =
                    self.pick(&["", "get", "gets ", "set", "delete", "GET k", "foo", "set k 0 0"]);
                format!("{line}{end}").into_bytes()
            }
        }
    }

    fn set(&mut self, end: &str, gap: &str) -> Vec<u8> {
        let bytes = match self.below(8) {
            0 => self.below(1200),
            _ => self.below(40),
        };
        let flags = self.pick(&["0", "7", "4294967295", "4294967296", "+3", "x", "-1"]);
        let expiry = self.pick(&["0", "0", "0", "100", "-1", "2592001", "2000000000", "z"]);
        let length = match self.below(12) {
            0 => self.pick(&["-1", "1x", "noreply", "2147483646"]).into(),
            _ => bytes.to_string(),
        };
        let tail = self.pick(&["", "", "", " noreply", " foo", " "]);
        let key = self.key();
        let mut command =
            format!("set{gap}{key}{gap}{flags}{gap}{expiry}{gap}{length}{tail}{end}").into_bytes();
        // Letters that begin no command, so that misread data is an ERROR on both sides.
        let front = self.below(6);
        command.extend((0..bytes).map(|byte| b'A' + ((byte + front) % 26) as u8));
        // Sometimes data that is longer than announced.
        let extra = if self.below(8) == 0 { 1 + self.below(6) as usize } else { 0 };
        command.extend(std::iter::repeat_n(b'Q', extra));
        command.extend(b"\r\n");
        command
    }
}

/// Takes out what may differ: the version's text and CAS numbers.
fn comparable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.split_inclusive("\r\n").map(|line| {
        let words: Vec<_> = line.trim_end().split(' ').collect();
        match words[..] {
            ["VERSION", _] => "VERSION\r\n".into(),
            ["VALUE", key, flags, bytes, _] => format!("VALUE {key} {flags} {bytes} cas\r\n"),
            _ => line.to_string(),
        }
    });
    lines.collect()
}

#[test]
fn memcached_gives_the_same_answers() {
    let Some(memcached) = Memcached::start() else {
        eprintln!("skipped: memcached is not installed (apt-get install memcached)");
        return;
    };
    let iterations = std::env::var("NAUTILUS_DIFFERENTIAL_ITERATIONS")
        .map_or(4_000, |text| text.parse::<u64>().expect("a number"));
    let realtime = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    let table = TableWriter::create(heap_words(64 << 20), 1, 1).unwrap();
    let mut cache = CacheApp::new(table, realtime - 1_000_000_000);
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut answers = std::collections::BTreeMap::<String, u64>::new();
    for number in 0..iterations {
        let mut text = Vec::new();
        for _ in 0..1 + random.below(3) {
            text.extend(random.command());
        }
        if text.len() > 1392 {
            continue;
        }
        let theirs = memcached.try_ask(&text, Duration::from_secs(5)).expect("an answer");
        let mut ours = Joined(Vec::new());
        cache.handle(1_000_000_000, &Request(datagram(1, &text)), &mut ours);
        assert_eq!(
            comparable(&ours.0),
            comparable(&theirs),
            "request {number}: {:?}",
            String::from_utf8_lossy(&text)
        );
        for line in comparable(&ours.0).lines() {
            let word = line.split(' ').next().unwrap_or_default();
            *answers.entry(word.to_owned()).or_default() += 1;
        }
    }
    for word in
        ["VALUE", "END", "STORED", "DELETED", "NOT_FOUND", "ERROR", "CLIENT_ERROR", "VERSION"]
    {
        assert!(answers.get(word).is_some_and(|&count| count > 10), "{word}: {answers:?}");
    }
}
