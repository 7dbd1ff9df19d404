//! A client of control's REST, over its Unix socket: one connection, one request at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest body that is read.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// Longest line of a head.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestAnswer {
    /// Status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl RestAnswer {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The version that the entity tag says.
    pub fn version(&self) -> Option<u64> {
        self.header("etag")?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as a document; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The name of a problem, such as `key-not-found`; empty for another answer.
    pub fn problem(&self) -> String {
        let kind = self.json()["type"].as_str().unwrap_or_default().to_owned();
        kind.strip_prefix("urn:nautilus:problem:").unwrap_or_default().to_owned()
    }
}

/// A client. After an error its connection is opened anew.
#[derive(Debug)]
pub struct RestClient {
    socket: PathBuf,
    answer_max: Duration,
    connection: Option<BufReader<UnixStream>>,
}

impl RestClient {
    /// A client of the control at `socket`, which need not be there yet; an answer is waited for so long.
    pub fn new(socket: &Path, answer_max: Duration) -> Self {
        Self { socket: socket.to_owned(), answer_max, connection: None }
    }

    /// Connects if it is not; whether that worked.
    pub fn is_open(&mut self) -> bool {
        self.connected().is_ok()
    }

    fn connected(&mut self) -> io::Result<&mut BufReader<UnixStream>> {
        if self.connection.is_none() {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(self.answer_max))?;
            stream.set_write_timeout(Some(self.answer_max))?;
            self.connection = Some(BufReader::new(stream));
        }
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks and waits for the answer. `headers` are whole lines without their ends.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &[u8],
    ) -> io::Result<RestAnswer> {
        let answer = self.try_ask(method, path, headers, body);
        let closes = |answer: &RestAnswer| answer.header("connection") == Some("close");
        if answer.as_ref().map_or(true, closes) {
            self.connection = None;
        }
        answer
    }

    fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &[u8],
    ) -> io::Result<RestAnswer> {
        let connection = self.connected()?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: control\r\n");
        if !matches!(method, "GET" | "HEAD") {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        for header in headers {
            request += header;
            request += "\r\n";
        }
        request += "\r\n";
        let request = [request.as_bytes(), body].concat();
        connection.get_mut().write_all(&request)?;
        let status = line(connection)?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.ok_or_else(|| io::Error::other(format!("no status: {status:?}")))?;
        let mut headers = Vec::new();
        loop {
            let text = line(connection)?;
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(':').unwrap_or((&text, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = RestAnswer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let has_body = method != "HEAD" && !matches!(status, 204 | 304);
        if has_body {
            let length: u64 =
                length.filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(|| {
                    io::Error::other(format!("no length of the body, or too much: {length:?}"))
                })?;
            connection.take(length).read_to_end(&mut answer.body)?;
            if answer.body.len() as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(answer)
    }
}

/// Bytes as a query has them.
pub fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

fn line(connection: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut text = Vec::new();
    connection.take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    match text.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
