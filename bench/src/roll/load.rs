//! Clients of a whole site, as H1 counts them: open loop, each request tried up to three times, 20 ms each.
//!
//! ```text
//!   due -> try 1 --20 ms--> try 2 --20 ms--> try 3 --20 ms--> an error
//!             '---------------'----------------'--> the right answer, to whichever try: fine
//! ```
//!
//! One socket and one thread, so a key's last acknowledged write is known without locks: a read is right if
//! what it finds was not older than that when it was first asked, and was written by somebody.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nautilus_tests::memcached::{HEADER_BYTES, frame, header, parse_get};
use nautilus_tests::values;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// How long one try is waited for, and how many there are.
const TRY_MAX: Duration = Duration::from_millis(20);
const TRIES: u32 = 3;

/// Keys a node that half of the reads ask for, which XDP answers, and all others.
const HOT_KEYS: u64 = 16;
const KEYS: u64 = 4096;

/// Writes of a hundred requests.
const WRITES_PERCENT: u64 = 5;

/// Writes a second while all keys are written, and rounds of that.
const FILL_PER_S: u64 = 5_000;
const FILLS_MAX: u32 = 10;

/// Longest latency that is told apart.
const LATENCY_NS_MAX: u64 = 1_000_000_000;

/// Room for answers while this thread has no core. Too low: the generator loses what a node answered.
const SOCKET_BYTES: usize = 8 << 20;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that were due.
    pub asked: u64,
    /// Those without a right answer after three tries.
    pub errors: u64,
    /// Answers that no history of writes explains.
    pub wrong: u64,
    /// The first of these.
    pub first_wrong: Option<String>,
    /// Tries after a request's first.
    pub tried_again: u64,
    /// From when a request was due to its right answer.
    pub latency: Histogram<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Key {
    acknowledged: u64,
    issued: u64,
    is_writing: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing older than this may be found.
    Get {
        version: u64,
    },
    Set {
        version: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Request {
    number: u64,
    due: Instant,
    key: usize,
    kind: Kind,
    is_open: bool,
}

/// The clients. Opened on the calling thread, in its network namespace.
pub struct Load {
    socket: UdpSocket,
    nodes: Vec<SocketAddr>,
    keys: Vec<Key>,
    state: u64,
    /// By number, modulo their count.
    requests: Vec<Request>,
    next_number: u64,
    /// By the id that a try has on the wire: the number of its request.
    tries: Vec<Option<u64>>,
    next_try: u16,
}

/// Open requests at a time, at most.
const OPEN_MAX: usize = 1 << 16;

impl Load {
    /// Clients of these caches; writes every key once.
    pub fn open(nodes: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &SOCKET_BYTES,
        )?;
        socket.set_nonblocking(true)?;
        let count = nodes.len() * KEYS as usize;
        let closed = Request {
            number: 0,
            due: Instant::now(),
            key: 0,
            kind: Kind::Get { version: 0 },
            is_open: false,
        };
        let mut load = Self {
            socket,
            nodes,
            keys: vec![Key::default(); count],
            state: 0x6e61_7574,
            requests: vec![closed; OPEN_MAX],
            next_number: 0,
            tries: vec![None; 1 << 16],
            next_try: 0,
        };
        load.fill()?;
        Ok(load)
    }

    /// Writes every key for the first time; those that get lost once more.
    fn fill(&mut self) -> anyhow::Result<()> {
        let stop = AtomicBool::new(false);
        for _ in 0..FILLS_MAX {
            let is_missing = |(_, key): &(usize, &Key)| key.acknowledged == 0;
            let missing = self.keys.iter().enumerate().filter(is_missing);
            let missing: Vec<usize> = missing.map(|(place, _)| place).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let mut places = missing.iter();
            self.run(FILL_PER_S, missing.len() as u64, &stop, |load| {
                load.write(*places.next().unwrap_or(&0))
            })?;
        }
        anyhow::bail!("keys could not be written in {FILLS_MAX} rounds")
    }

    /// The mix of H1 at this rate until the time is over or `stop` is set.
    pub fn mix(
        &mut self,
        rate_per_s: u64,
        duration: Duration,
        stop: &AtomicBool,
    ) -> anyhow::Result<Report> {
        let count = (duration.as_secs_f64() * rate_per_s as f64) as u64;
        self.run(rate_per_s, count, stop, Self::draw)
    }

    fn random(&mut self) -> u64 {
        // xorshift64 (Marsaglia, 2003): any full-period generator would do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn draw(&mut self) -> (usize, Kind) {
        let (what, which) = (self.random(), self.random());
        let node = which % self.nodes.len() as u64;
        let span = if (what >> 32).is_multiple_of(2) { HOT_KEYS } else { KEYS };
        let key = (node * KEYS + (which >> 32) % span) as usize;
        if what % 100 < WRITES_PERCENT && !self.keys[key].is_writing {
            return self.write(key);
        }
        (key, Kind::Get { version: self.keys[key].acknowledged })
    }

    fn write(&mut self, key: usize) -> (usize, Kind) {
        let entry = &mut self.keys[key];
        entry.issued += 1;
        entry.is_writing = true;
        (key, Kind::Set { version: entry.issued })
    }

    fn run(
        &mut self,
        rate_per_s: u64,
        count: u64,
        stop: &AtomicBool,
        mut draw: impl FnMut(&mut Self) -> (usize, Kind),
    ) -> anyhow::Result<Report> {
        let mut report = Report {
            asked: 0,
            errors: 0,
            wrong: 0,
            first_wrong: None,
            tried_again: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
        };
        // In the order in which they were sent, which is that of their ends.
        let mut waiting: VecDeque<(Instant, u64, u32)> = VecDeque::new();
        let start = Instant::now();
        let due_at =
            |number: u64| start + Duration::from_nanos(number * 1_000_000_000 / rate_per_s);
        let mut is_over = false;
        loop {
            let now = Instant::now();
            is_over |= stop.load(Ordering::Relaxed) || report.asked >= count;
            while !is_over && report.asked < count && due_at(report.asked) <= now {
                let number = self.next_number;
                self.next_number += 1;
                anyhow::ensure!(!self.request(number).is_open, "more than {OPEN_MAX} are open");
                let (key, kind) = draw(self);
                let due = due_at(report.asked);
                *self.request(number) = Request { number, due, key, kind, is_open: true };
                report.asked += 1;
                self.send(number)?;
                waiting.push_back((now + TRY_MAX, number, 1));
            }
            self.receive(&mut report)?;
            let now = Instant::now();
            while let Some((end, number, tries)) = waiting.front().copied() {
                let Request { is_open, number: found, .. } = *self.request(number);
                if is_open && found == number {
                    if end > now {
                        break;
                    }
                    if tries < TRIES {
                        report.tried_again += 1;
                        self.send(number)?;
                        waiting.push_back((now + TRY_MAX, number, tries + 1));
                    } else {
                        report.errors += 1;
                        self.close(number);
                    }
                }
                waiting.pop_front();
            }
            if is_over && waiting.is_empty() {
                return Ok(report);
            }
            let next_due = (!is_over).then(|| due_at(report.asked));
            let next_end = waiting.front().map(|(end, ..)| *end);
            if let Some(wake) = [next_due, next_end].into_iter().flatten().min() {
                wait(&self.socket, wake.saturating_duration_since(Instant::now()))?;
            }
        }
    }

    fn request(&mut self, number: u64) -> &mut Request {
        &mut self.requests[(number % OPEN_MAX as u64) as usize]
    }

    /// Sends a try of a request.
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let Request { key, kind, .. } = *self.request(number);
        self.next_try = self.next_try.wrapping_add(1);
        let id = self.next_try;
        self.tries[usize::from(id)] = Some(number);
        let name = name(key);
        let text = match kind {
            Kind::Get { .. } => format!("get {name}\r\n").into_bytes(),
            Kind::Set { version } => {
                let value = values::value(&name, version);
                let head = format!("set {name} 0 0 {}\r\n", value.len());
                [head.as_bytes(), &value, b"\r\n"].concat()
            }
        };
        let node = self.nodes[key / KEYS as usize];
        match self.socket.send_to(&frame(id, &text), node) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn receive(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some([id, 0, 1, _]) = header(&buffer[..length]) else { continue };
            // A try that is over: of a request that was answered by another, or given up.
            let Some(number) = self.tries[usize::from(id)].take() else { continue };
            let Request { number: found, due, key, kind, is_open } = *self.request(number);
            if !is_open || found != number || from != self.nodes[key / KEYS as usize] {
                continue;
            }
            match self.judge(key, kind, &buffer[HEADER_BYTES..length]) {
                Ok(()) => {
                    let latency = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    report.latency.saturating_record(latency.max(1));
                }
                Err(reason) => {
                    report.wrong += 1;
                    report.first_wrong.get_or_insert(reason);
                }
            }
            if let Kind::Set { version } = kind {
                self.keys[key].acknowledged = version;
            }
            self.close(number);
        }
    }

    /// Whether this is a right answer.
    fn judge(&self, key: usize, kind: Kind, answer: &[u8]) -> Result<(), String> {
        let name = name(key);
        let text = || String::from_utf8_lossy(answer).into_owned();
        match kind {
            Kind::Set { .. } if answer == b"STORED\r\n" => Ok(()),
            Kind::Set { .. } => Err(format!("set {name}: {:?}", text())),
            Kind::Get { version } => {
                let found =
                    parse_get(answer, &name).map_err(|reason| format!("{name}: {reason}"))?;
                let found = found.ok_or_else(|| format!("{name}: a miss"))?;
                let found = values::version_of(&name, &found.bytes)
                    .ok_or_else(|| format!("{name}: no value of any write: {:?}", text()))?;
                let issued = self.keys[key].issued;
                if (version..=issued).contains(&found) {
                    return Ok(());
                }
                Err(format!("{name}: version {found} is not of {version}..={issued}"))
            }
        }
    }

    fn close(&mut self, number: u64) {
        let request = self.request(number);
        request.is_open = false;
        if let Request { key, kind: Kind::Set { .. }, .. } = *request {
            self.keys[key].is_writing = false;
        }
    }
}

fn name(key: usize) -> String {
    format!("h1:{key:06}")
}

/// Errors that concern one datagram: nobody listens just now, or a queue is full.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        WouldBlock | ConnectionRefused | Interrupted | HostUnreachable | NetworkUnreachable
    )
}

fn wait(socket: &UdpSocket, longest: Duration) -> anyhow::Result<()> {
    let mut entry = [PollFd::new(std::os::fd::AsFd::as_fd(socket), PollFlags::POLLIN)];
    match ppoll(&mut entry, Some(TimeSpec::from_duration(longest)), None) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
