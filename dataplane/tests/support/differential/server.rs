//! The real server, asked over UDP and TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SENTINEL: u16 = 0xffff;

pub struct Memcached {
    process: Child,
    socket: UdpSocket,
    address: SocketAddr,
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Memcached {
    /// `None` when it is not installed.
    pub fn start() -> Option<Self> {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        // Without the threads that walk its lists: an item that one of them holds at the moment is not
        // incremented in place, and then its value has another length.
        let process = Command::new("memcached")
            .args(["-o", "no_lru_crawler,no_lru_maintainer"])
            .args(["-u", "nobody", "-l", "127.0.0.1", "-t", "1", "-m", "64", "-B", "ascii"])
            .args(["-p", &port, "-U", &port])
            // Its threads hold items now and then, which shows: a number is not changed in its place.
            .args(["-o", "no_lru_maintainer,no_lru_crawler"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        let memcached = Self { process, socket, address };
        let start = Instant::now();
        while memcached.try_ask(b"", Duration::from_millis(50)).is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "memcached does not answer");
        }
        Some(memcached)
    }

    /// The joined text of all answers to one datagram.
    pub fn ask(&self, text: &[u8]) -> Vec<u8> {
        self.try_ask(text, Duration::from_secs(5)).expect("an answer")
    }

    /// What comes before the answer to a second datagram.
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

    /// Everything that is answered to a text that is all one connection says. Either it ends with
    /// `quit`, or `fences` is how often `MN` is answered before half a command: what comes before must
    /// have been executed when the connection is closed, and what the half does, too.
    pub fn ask_stream(&self, text: &[u8], fences: Option<usize>) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut sender = stream.try_clone().unwrap();
        let text = text.to_vec();
        // It may close while it is still being told.
        let sending = std::thread::spawn(move || _ = sender.write_all(&text));
        let mut answer = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..bytes]);
            let seen = answer.split(|&byte| byte == b'\n').filter(|line| *line == b"MN\r").count();
            if fences.is_some_and(|count| seen >= count) {
                // One thread serves all: what came before this has been looked at after it.
                self.ask(b"");
                self.ask(b"");
                stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        sending.join().unwrap();
        answer
    }
}

pub fn datagram(id: u16, text: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), &[0, 0, 0, 1, 0, 0][..], text].concat()
}
