//! A memcached client over UDP: the test's side of the protocol, written from its document.
//!
//! Frame header (memcached `doc/protocol.txt`, "UDP protocol"): request id, sequence number, number of
//! datagrams, reserved; four big-endian `u16`.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Bytes of the frame header.
pub const HEADER_BYTES: usize = 8;

/// Largest UDP payload of a reply (`memcached` cuts there).
const DATAGRAM_BYTES_MAX: usize = 1400;

/// What a `get` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The flags it was stored with.
    pub flags: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// Nothing, or not all of it, came in time.
    #[error("no complete answer within {0:?}")]
    TimedOut(Duration),
    /// The answer breaks the protocol.
    #[error("not a valid answer to {request:?}: {reason}")]
    Invalid {
        /// What was asked.
        request: String,
        /// What is wrong.
        reason: String,
    },
}

/// One client socket. Requests go out one at a time.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    timeout: Duration,
    request_id: u16,
}

/// A request with its frame header.
pub fn frame(request_id: u16, request: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(HEADER_BYTES + request.len());
    for word in [request_id, 0, 1, 0] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(request);
    datagram
}

/// The header's words: request id, sequence, total, reserved; None for a datagram without a header.
pub fn header(datagram: &[u8]) -> Option<[u16; 4]> {
    let bytes = datagram.get(..HEADER_BYTES)?;
    Some([0, 2, 4, 6].map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]])))
}

impl Client {
    /// A client of `server`; opened on the calling thread, hence in its network namespace.
    pub fn connect(server: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(Self { socket, timeout, request_id: 0 })
    }

    /// Sends one request and returns the text of its answer, put together from its datagrams.
    pub fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, ClientError> {
        self.request_id = self.request_id.wrapping_add(1);
        self.socket.send(&frame(self.request_id, request))?;
        let deadline = Instant::now() + self.timeout;
        let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut(self.timeout));
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let invalid = |reason: String| ClientError::Invalid {
                request: String::from_utf8_lossy(request).into_owned(),
                reason,
            };
            if length > DATAGRAM_BYTES_MAX {
                return Err(invalid(format!("a datagram of {length} bytes")));
            }
            let Some([request_id, sequence, total, _]) = header(&buffer[..length]) else {
                return Err(invalid(format!("a datagram of {length} bytes")));
            };
            if request_id != self.request_id {
                // The late answer to a request that was given up.
                continue;
            }
            parts.resize(usize::from(total).max(parts.len()), None);
            let Some(part) = parts.get_mut(usize::from(sequence)) else {
                return Err(invalid(format!("datagram {sequence} of {total}")));
            };
            if part.replace(buffer[HEADER_BYTES..length].to_vec()).is_some() {
                return Err(invalid(format!("datagram {sequence} came twice")));
            }
            if parts.iter().all(Option::is_some) {
                return Ok(parts.into_iter().flatten().flatten().collect());
            }
        }
    }

    /// `get`; None is a miss.
    pub fn get(&mut self, key: &str) -> Result<Option<Value>, ClientError> {
        let answer = self.ask(format!("get {key}\r\n").as_bytes())?;
        parse_get(&answer, key).map_err(|reason| ClientError::Invalid {
            request: format!("get {key}"),
            reason: format!("{reason}: {:?}", String::from_utf8_lossy(&answer)),
        })
    }

    /// `set` without expiry.
    pub fn set(&mut self, key: &str, flags: u32, bytes: &[u8]) -> Result<(), ClientError> {
        let mut request = format!("set {key} {flags} 0 {}\r\n", bytes.len()).into_bytes();
        request.extend_from_slice(bytes);
        request.extend_from_slice(b"\r\n");
        self.expect(&request, &[b"STORED\r\n"]).map(|_| ())
    }

    /// `delete`; whether the key was there.
    pub fn delete(&mut self, key: &str) -> Result<bool, ClientError> {
        let request = format!("delete {key}\r\n");
        self.expect(request.as_bytes(), &[b"DELETED\r\n", b"NOT_FOUND\r\n"]).map(|which| which == 0)
    }

    fn expect(&mut self, request: &[u8], answers: &[&[u8]]) -> Result<usize, ClientError> {
        let answer = self.ask(request)?;
        answers.iter().position(|&one| one == answer).ok_or_else(|| ClientError::Invalid {
            request: String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned(),
            reason: String::from_utf8_lossy(&answer).into_owned(),
        })
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            // An ICMP answer to an earlier datagram: nobody listens at this moment.
            | io::ErrorKind::ConnectionRefused
    )
}

/// `VALUE <key> <flags> <bytes>[ <cas>]\r\n<data>\r\nEND\r\n` or `END\r\n`.
pub fn parse_get(answer: &[u8], key: &str) -> Result<Option<Value>, String> {
    if answer == b"END\r\n" {
        return Ok(None);
    }
    let line_end = answer.windows(2).position(|two| two == b"\r\n").ok_or("no line")?;
    let line = std::str::from_utf8(&answer[..line_end]).map_err(|error| error.to_string())?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["VALUE", found, flags, length, ..] = words[..] else {
        return Err(format!("answered {line:?}"));
    };
    if found != key {
        return Err(format!("the value of {found:?}"));
    }
    let flags = flags.parse().map_err(|_| format!("flags {flags:?}"))?;
    let length: usize = length.parse().map_err(|_| format!("length {length:?}"))?;
    let data = &answer[line_end + 2..];
    if data.len() != length + 7 || &data[length..] != b"\r\nEND\r\n" {
        return Err(format!("{length} bytes announced"));
    }
    Ok(Some(Value { flags, bytes: data[..length].to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_exactly() {
        let hit = parse_get(b"VALUE k 5 3\r\na\r\n\r\nEND\r\n", "k").unwrap();
        assert_eq!(hit, Some(Value { flags: 5, bytes: b"a\r\n".to_vec() }));
        assert_eq!(parse_get(b"END\r\n", "k").unwrap(), None);
        for bad in [
            b"VALUE j 5 3\r\nabc\r\nEND\r\n".as_slice(),
            b"VALUE k 5 4\r\nabc\r\nEND\r\n",
            b"VALUE k 5 3\r\nabc\r\n",
            b"ERROR\r\n",
            b"",
        ] {
            assert!(parse_get(bad, "k").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parts_are_put_together_in_order_and_twins_refused() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            for order in [[1_u16, 0], [0, 0]] {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let id = header(&buffer[..length]).unwrap()[0];
                for sequence in order {
                    let mut datagram = Vec::new();
                    for word in [id, sequence, 2, 0] {
                        datagram.extend_from_slice(&word.to_be_bytes());
                    }
                    datagram.extend_from_slice(if sequence == 0 { b"EN" } else { b"D\r\n" });
                    server.send_to(&datagram, from).unwrap();
                }
            }
        });
        let mut client = Client::connect(address, Duration::from_secs(5)).unwrap();
        assert_eq!(client.get("k").unwrap(), None);
        assert!(matches!(client.get("k"), Err(ClientError::Invalid { .. })));
        thread.join().unwrap();
    }
}
