//! TCP clients of a node in its namespaces.
#![allow(dead_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Runs `body` on a thread inside a namespace.
pub fn inside<T: Send + 'static>(namespace: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        body()
    });
    thread.join().unwrap()
}

/// A connection that speaks lines.
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(namespace: &str, address: SocketAddr) -> std::io::Result<Self> {
        let stream = inside(namespace, move || {
            TcpStream::connect_timeout(&address, Duration::from_secs(5))
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(stream))
    }

    pub fn send(&mut self, text: &[u8]) {
        self.0.write_all(text).unwrap();
    }

    /// Reads exactly this text.
    pub fn expect(&mut self, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        let result = self.0.read_exact(&mut heard);
        let short =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert!(
            result.is_ok(),
            "{result:?} instead of {:?}, after {:?}",
            short(text),
            short(&heard)
        );
        assert!(heard == text, "{:?} instead of {:?}", short(&heard), short(text));
    }

    pub fn ask(&mut self, text: &[u8], answer: &[u8]) {
        self.send(text);
        self.expect(answer);
    }

    /// Everything until the other end closes; an error is an end, too.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }

    /// A line, without its end; `None` at the end.
    pub fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.0.read(&mut byte)? {
                0 => return Ok(None),
                _ if byte[0] == b'\n' => break,
                _ => line.push(byte[0]),
            }
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}
