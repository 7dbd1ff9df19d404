//! The ways to a cache that one client has, each with a log of its own.

use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use nautilus_client::{CacheReader, ReadError};

use super::ask::{Answer, Ask};
use super::rest;
use super::tcp::Connection;
use super::text::{id_of, key_text};
use crate::history::{ClientLog, Input, Output, Recorder};
use crate::lab::node_file::CACHE_ID;
use crate::memcached::{Client, ClientError};
use crate::rest::RestClient;

/// How long an answer over UDP is waited for. Too low: a node that is late leaves unknown outcomes,
/// which a check is long about; too high: a client whose request died with a worker idles.
const UDP_ANSWER_MAX: Duration = Duration::from_millis(150);

/// How long an answer over REST is waited for: longer than control itself waits.
const REST_ANSWER_MAX: Duration = Duration::from_secs(8);

/// How long a reader of shared memory tries on a key that is being written; a writer that was killed in
/// the middle leaves it so until its successor comes.
const BUSY_MAX: Duration = Duration::from_millis(50);

/// Pause between two tries of it.
const BUSY_PAUSE: Duration = Duration::from_micros(20);

/// A way to the cache; its number is the `path` of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Path {
    /// `get` of a hot key over UDP: the driver answers it if it can, else the worker.
    Hot = 1,
    /// Everything else over UDP.
    Worker = 2,
    /// TCP: the front reads, and forwards what writes.
    Front = 3,
    /// The node's shared memory.
    Shared = 4,
    /// Control's REST: it reads shared memory, and changes by way of the front.
    Rest = 5,
}

impl Path {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hot, Self::Worker, Self::Front, Self::Shared, Self::Rest];

    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "UDP, hot",
            Self::Worker => "UDP, worker",
            Self::Front => "TCP, front",
            Self::Shared => "shared memory",
            Self::Rest => "REST",
        }
    }
}

/// Where a node is.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Its cache, UDP and TCP.
    pub cache: SocketAddr,
    /// Its run directory.
    pub run_dir: &'a FilePath,
    /// Where control answers.
    pub control: &'a FilePath,
}

/// What one client counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Answers by path: reads, then changes.
    pub answered: [[u64; 2]; Path::ALL.len()],
    /// Operations whose outcome nobody told.
    pub unknown: u64,
    /// Reads of shared memory that found the node silent for a second.
    pub detached: u64,
    /// The first answers that no cache may give: torn values, another key's, errors.
    pub wrong: Vec<String>,
}

impl Counts {
    /// Adds another client's.
    pub fn add(&mut self, other: Self) {
        for (sum, more) in
            self.answered.as_flattened_mut().iter_mut().zip(other.answered.as_flattened())
        {
            *sum += more;
        }
        self.unknown += other.unknown;
        self.detached += other.detached;
        self.wrong.extend(other.wrong);
    }
}

/// One client's ways to the cache. It has one operation under way at a time.
pub struct Ways {
    cache: SocketAddr,
    udp: Client,
    tcp: Option<Connection>,
    shared: CacheReader,
    rest: RestClient,
    value: Vec<u8>,
    /// Reads of shared memory that found the node silent.
    pub detached: u64,
}

impl Ways {
    /// Opens them, from the calling thread's namespace.
    pub fn open(place: &Place<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            cache: place.cache,
            udp: Client::connect(place.cache, UDP_ANSWER_MAX)?,
            tcp: Connection::open(place.cache).ok(),
            shared: CacheReader::attach(place.run_dir, CACHE_ID)?,
            rest: RestClient::new(place.control, REST_ANSWER_MAX),
            value: vec![0; 64 << 10],
            detached: 0,
        })
    }

    /// Whether the way is open; a lost connection is opened anew.
    pub fn is_open(&mut self, path: Path) -> bool {
        if path == Path::Front && self.tcp.is_none() {
            self.tcp = Connection::open(self.cache).ok();
        }
        match path {
            Path::Front => self.tcp.is_some(),
            Path::Rest => self.rest.is_open(),
            Path::Hot | Path::Worker | Path::Shared => true,
        }
    }

    /// Asks by one way.
    pub fn ask(&mut self, path: Path, ask: &Ask, request: &[u8]) -> Answer {
        match path {
            Path::Hot | Path::Worker => match self.udp.ask(request) {
                Ok(text) => ask.answer(&text),
                Err(ClientError::Invalid { reason, .. }) => Answer::Wrong(reason),
                Err(_) => Answer::Unknown,
            },
            Path::Front => match self.tcp.as_mut().map(|tcp| tcp.ask(request)) {
                Some(Ok(text)) => ask.answer(&text),
                _ => {
                    self.tcp = None;
                    Answer::Unknown
                }
            },
            Path::Shared => read(&mut self.shared, &mut self.value, ask.key, &mut self.detached),
            Path::Rest => rest::ask(&mut self.rest, ask),
        }
    }
}

/// The same with a history.
pub struct Paths {
    ways: Ways,
    logs: [ClientLog; Path::ALL.len()],
    /// What was counted.
    pub counts: Counts,
}

impl Paths {
    /// Opens them, from the calling thread's namespace.
    pub fn open(place: &Place<'_>, recorder: &Recorder, number: u32) -> anyhow::Result<Self> {
        let logs = Path::ALL.map(|path| recorder.client(number, path as u8));
        Ok(Self { ways: Ways::open(place)?, logs, counts: Counts::default() })
    }

    /// Does one operation; `None`: its outcome is unknown.
    pub fn perform(&mut self, path: Path, ask: &Ask) -> Option<Output> {
        if !self.ways.is_open(path) {
            std::thread::sleep(BUSY_PAUSE);
            return None;
        }
        let request = ask.request();
        let Self { ways, logs, counts } = self;
        let place = path as usize - 1;
        let pending = logs[place].begin(ask.key, ask.input);
        match ways.ask(path, ask, &request) {
            Answer::Known(output) => {
                pending.end(output).expect("a history can be written");
                counts.answered[place][usize::from(ask.input != Input::Get)] += 1;
                Some(output)
            }
            Answer::Unknown => {
                counts.unknown += 1;
                None
            }
            Answer::Wrong(text) => {
                if counts.wrong.len() < 3 {
                    counts.wrong.push(format!("{}: {text}", path.name()));
                }
                None
            }
        }
    }

    /// What was counted, at the end.
    pub fn into_counts(self) -> Counts {
        Counts { detached: self.ways.detached, ..self.counts }
    }
}

/// Reads shared memory, again while the key is being written.
fn read(shared: &mut CacheReader, value: &mut [u8], key: u64, detached: &mut u64) -> Answer {
    let until = Instant::now() + BUSY_MAX;
    loop {
        match shared.get(key_text(key).as_bytes(), value) {
            Ok(found) => {
                let bytes = &value[..found.value_bytes];
                let Some(id) = id_of(bytes) else {
                    let text = String::from_utf8_lossy(bytes);
                    return Answer::Wrong(format!("{}: {text:?}", key_text(key)));
                };
                return Answer::Known(Output::Value { value: id, version: Some(found.version) });
            }
            Err(ReadError::Miss) => return Answer::Known(Output::Miss),
            Err(ReadError::WriterBusy) if Instant::now() < until => {
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(ReadError::WriterBusy) => return Answer::Unknown,
            Err(ReadError::Detached) => {
                *detached += 1;
                return Answer::Unknown;
            }
            Err(error) => return Answer::Wrong(error.to_string()),
        }
    }
}
