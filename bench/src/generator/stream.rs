//! The TCP generator: a closed loop over many connections, one request outstanding on each, by one
//! spinning thread with an io_uring of its own.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use anyhow::Context;
use hdrhistogram::Histogram;
use nautilus_dataplane::front::ring::{Event, Ring, Token};

use super::Outcome;
use crate::clock::now_ns;
use crate::probe::Probe;

/// Bytes of most requests.
const REQUEST_BYTES: usize = 640;

/// A request without an answer for this long ends the run.
const SILENT_NS: u64 = 2_000_000_000;

/// What is asked over a stream, one request at a time on each connection.
pub trait StreamTraffic {
    /// Bytes beyond which an answer without an end is taken as it is.
    const ANSWER_BYTES_MAX: usize;

    /// Appends a request and returns its number.
    fn request(&mut self, out: &mut Vec<u8>) -> u64;

    /// Whether `text` is the whole answer to request `number`.
    fn is_answer(&mut self, number: u64, text: &[u8]) -> bool;
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    number: u64,
    sent_ns: u64,
}

/// Connections to one server, and what carries them.
pub struct Streams {
    ring: Ring,
    connections: Vec<Connection>,
}

impl Streams {
    /// Opens `count` connections from the calling thread's namespace.
    pub fn connect(server: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
        let open = || TcpStream::connect(server).context("connect to the server");
        (0..count).map(|_| open()).collect()
    }

    /// Carries these connections, on the calling thread.
    pub fn new(streams: Vec<TcpStream>) -> anyhow::Result<Self> {
        let mut ring = Ring::new()?;
        let mut connections = Vec::new();
        for (index, stream) in streams.into_iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            ring.receive(stream.as_fd(), Token { index: index as u32, generation: 0 });
            connections.push(Connection { stream, answer: Vec::new(), number: 0, sent_ns: 0 });
        }
        Ok(Self { ring, connections })
    }

    /// Asks for `duration_ns`; counts, and measures from the request to its whole answer.
    pub fn run<T: StreamTraffic>(
        &mut self,
        get: &mut T,
        duration_ns: u64,
    ) -> anyhow::Result<(Outcome, Histogram<u64>)> {
        let mut outcome = Outcome::default();
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let mut probe = Probe::default();
        let start_ns = now_ns();
        let mut last_ns = start_ns;
        for index in 0..self.connections.len() {
            self.ask(index, get, start_ns);
            outcome.sent += 1;
        }
        let mut open = self.connections.len();
        while open > 0 {
            // Submits what is asked; never sleeps.
            self.ring.enter(0)?;
            let now = now_ns();
            anyhow::ensure!(now - last_ns < SILENT_NS, "no answer for two seconds: {outcome:?}");
            while let Some(event) = self.ring.next_event() {
                let Event::Received { token, result, armed } = event else { continue };
                let index = token.index as usize;
                let (buffer, bytes) = result.context("receive")?;
                anyhow::ensure!(bytes > 0, "the server closed connection {index}: {outcome:?}");
                let connection = &mut self.connections[index];
                if let Some(buffer) = buffer {
                    connection.answer.extend_from_slice(self.ring.buffer(buffer, bytes));
                    self.ring.give_back(buffer);
                }
                if !armed {
                    self.ring.receive(connection.stream.as_fd(), token);
                }
                let ended = connection.answer.ends_with(b"END\r\n");
                if !ended && connection.answer.len() < T::ANSWER_BYTES_MAX {
                    continue;
                }
                let right = get.is_answer(connection.number, &connection.answer);
                outcome.right += u64::from(right);
                outcome.wrong += u64::from(!right);
                let elapsed_ns = now.saturating_sub(connection.sent_ns);
                latency.saturating_record(elapsed_ns.max(1));
                last_ns = now;
                if now - start_ns < duration_ns {
                    self.ask(index, get, now);
                    outcome.sent += 1;
                } else {
                    connection.answer.clear();
                    open -= 1;
                }
            }
            probe.turn(now, now_ns());
        }
        outcome.elapsed_ns = last_ns - start_ns;
        outcome.held_share = probe.held_share();
        Ok((outcome, latency))
    }

    fn ask(&mut self, index: usize, get: &mut impl StreamTraffic, now: u64) {
        let connection = &mut self.connections[index];
        connection.answer.clear();
        let mut request = Vec::with_capacity(REQUEST_BYTES);
        connection.number = get.request(&mut request);
        connection.sent_ns = now;
        let token = Token { index: index as u32, generation: 0 };
        self.ring.send(connection.stream.as_fd(), token, request, 0);
    }
}
