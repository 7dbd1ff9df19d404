//! Requests through the socket in the file system, spelt out, and streams of events.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::site::Site;

/// Longest wait for an answer or an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks a site's control.
pub struct Ask {
    socket: PathBuf,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }
}

impl Ask {
    pub fn of(site: &Site) -> Self {
        Self { socket: site.folder.path().join("control.sock") }
    }

    /// Everything of an answer. `headers` may replace the content type.
    pub fn whole(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Type") {
            head += "Content-Type: application/json\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // One that is too long is refused before all of it is read.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.whole("GET", path, &[], b"");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.whole("POST", path, &[], body.to_string().as_bytes());
        (answer.status, answer.json())
    }
}

/// One event.
#[derive(Debug, PartialEq)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: Value,
}

/// An open stream of events.
pub struct Stream {
    pub status: u16,
    lines: BufReader<UnixStream>,
}

impl Stream {
    pub fn open(site: &Site, path: &str, last: Option<&str>) -> Self {
        let mut stream = UnixStream::connect(site.folder.path().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        Self { status, lines }
    }

    /// The next event; none at the end. Sizes of chunks stand in lines of their own and are no fields.
    pub fn next(&mut self) -> Option<Event> {
        let mut event = Event { id: String::new(), name: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if line == "\n" {
                if !event.name.is_empty() {
                    return Some(event);
                }
                continue;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => event.id = id.into(),
                Some(("event", name)) => event.name = name.into(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ => {}
            }
        }
    }

    pub fn to_end(mut self) -> Vec<Event> {
        assert_eq!(self.status, 200);
        std::iter::from_fn(|| self.next()).collect()
    }
}
