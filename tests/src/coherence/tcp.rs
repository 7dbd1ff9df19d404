//! memcached's protocol over one TCP connection, one request at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a front may take to answer. Too low: a busy machine looks like a lost command; too high: a
/// dead front holds its clients up.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects from the calling thread's namespace.
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends one request and returns the text of its answer. After an error the connection is of no
    /// more use.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.0.get_mut().write_all(request)?;
        let mut answer = Vec::new();
        let mut start = 0;
        loop {
            if self.0.read_until(b'\n', &mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&answer[start..]).into_owned();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let place = match words.first() {
                Some(&"VALUE") => 3,
                Some(&"VA") => 1,
                _ => return Ok(answer),
            };
            let bytes: Option<usize> = words.get(place).and_then(|word| word.parse().ok());
            let Some(bytes) = bytes else { return Ok(answer) };
            start = answer.len() + bytes + 2;
            (&mut self.0).take(bytes as u64 + 2).read_to_end(&mut answer)?;
            if answer.len() < start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if place == 1 {
                return Ok(answer);
            }
        }
    }
}
