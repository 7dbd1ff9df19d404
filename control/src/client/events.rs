//! Server-sent events: a stream of bytes in, events out, whatever is in it.

/// Longest event, and longest line. Too low: a plan's step with its reasons does not fit; too high: a liar
/// fills our memory.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its kind; `message` unless the stream says another.
    pub name: String,
    /// Lines of data, joined.
    pub data: String,
}

/// Reads the stream (WHATWG HTML, "server-sent events").
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    name: String,
    data: String,
    /// A carriage return ended the line before; a line feed behind it belongs to it.
    after_return: bool,
    last_id: String,
}

impl EventReader {
    /// Begins behind the event with this id.
    pub fn after(last_id: String) -> Self {
        Self { last_id, ..Self::default() }
    }

    /// The id of the last event, for going on after it.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Takes bytes; whole events go to `events`. An error is what is wrong with the stream.
    pub fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        for &byte in bytes {
            let second_half = self.after_return && byte == b'\n';
            self.after_return = byte == b'\r';
            match byte {
                _ if second_half => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    self.end_line(&String::from_utf8_lossy(&line), events)?;
                }
                byte => {
                    self.line.push(byte);
                    if self.line.len() > EVENT_BYTES_MAX {
                        return Err(format!("a line of more than {EVENT_BYTES_MAX} bytes"));
                    }
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &str, events: &mut Vec<Event>) -> Result<(), String> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let mut data = std::mem::take(&mut self.data);
            if data.pop().is_some() {
                let name = if name.is_empty() { "message".into() } else { name };
                events.push(Event { name, data });
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.into(),
            "data" => {
                self.data += value;
                self.data.push('\n');
                if self.data.len() > EVENT_BYTES_MAX {
                    return Err(format!("an event of more than {EVENT_BYTES_MAX} bytes"));
                }
            }
            // It goes back in a header.
            "id" if value.len() <= 256 && !value.contains(|c: char| !c.is_ascii_graphic()) => {
                self.last_id = value.into();
            }
            // Comments keep the connection alive; what is not known is passed over.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\r\nid: 7\nevent: step\ndata: {\"a\":1}\ndata: b\n\n\rid:bad id\n\
                            data:x\r\r\nevent: empty\n\nid: 8\nnobody: knows\ndata\n\n";

    #[test]
    fn events_come_out_however_the_bytes_are_cut() {
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        let expected = [event("step", "{\"a\":1}\nb"), event("message", "x"), event("message", "")];
        for size in 1..=STREAM.len() {
            let (mut reader, mut events) = (EventReader::default(), Vec::new());
            for piece in STREAM.chunks(size) {
                reader.take(piece, &mut events).unwrap();
            }
            assert_eq!(events, expected, "in pieces of {size}");
            assert_eq!(reader.last_id(), "8");
        }
    }

    #[test]
    fn a_stream_without_end_is_refused() {
        let mut events = Vec::new();
        let piece = [b'x'; 4096];
        let mut reader = EventReader::default();
        let ends = (0..100).any(|_| reader.take(&piece, &mut events).is_err());
        assert!(ends, "one line");
        let mut reader = EventReader::default();
        let ends = (0..100_000).any(|_| reader.take(b"data: xxxxxxxx\n", &mut events).is_err());
        assert!(ends, "one event");
        assert!(events.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = EventReader::default().take(&bytes, &mut Vec::new());
        }
    }
}
