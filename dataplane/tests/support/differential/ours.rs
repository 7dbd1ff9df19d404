//! Our side: the application without a network, asked by datagram and as a stream.

use std::time::Instant;

use nautilus_dataplane::app::{App, CacheApp};
use nautilus_dataplane::limits::REPLY_PAYLOAD_BYTES_MAX;
use nautilus_dataplane::memcached::{Next, Request, parse};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_ebpf::intf::Permissions;
use nautilus_shm::sync::AtomicU64;
use nautilus_shm::table::{TableWriter, heap_words};

use super::server::datagram;

/// What stands for the time at which our side was made.
const START_NS: u64 = 1_000_000_000_000;

pub struct Ours {
    app: CacheApp<Box<[AtomicU64]>>,
    start: Instant,
}

struct One(Vec<u8>);

impl Burst for One {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Datagram<'_> {
        Datagram {
            source: Endpoint::v4([127, 0, 0, 1], 4000),
            destination: Endpoint::v4([127, 0, 0, 1], 11211),
            link: Link::default(),
            rx_ns: 0,
            permissions: None,
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

impl Ours {
    pub fn new() -> Self {
        let realtime = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
        let table = TableWriter::create(heap_words(64 << 20), 1, 1).unwrap();
        let app = CacheApp::new(table, realtime - START_NS as i64);
        Self { app, start: Instant::now() }
    }

    fn now_ns(&self) -> u64 {
        START_NS + self.start.elapsed().as_nanos() as u64
    }

    pub fn housekeeping(&mut self) {
        let now_ns = self.now_ns();
        self.app.housekeeping(now_ns, &mut Joined(Vec::new()));
    }

    /// The joined text of all answers to one datagram.
    pub fn ask(&mut self, text: &[u8]) -> Vec<u8> {
        self.housekeeping();
        let now_ns = self.now_ns();
        let mut joined = Joined(Vec::new());
        self.app.handle(now_ns, &One(datagram(1, text)), &mut joined);
        joined.0
    }

    /// Everything that is answered to a stream.
    pub fn ask_stream(&mut self, text: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            self.housekeeping();
            let now_ns = self.now_ns();
            match parse::next(rest) {
                Next::Request(Request::Quit, _) => break,
                Next::Request(request, taken) => {
                    self.app.execute(now_ns, Permissions::ALL, &request, |piece| {
                        answer.extend_from_slice(piece);
                    });
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Next::Incomplete { .. } | Next::Unreadable => break,
            }
        }
        answer
    }
}
