//! One operation as memcached's text, and what its answer says.

use super::text::{id_of, key_text, value_text};
use crate::history::{Input, Output};

/// Seconds of a deadline that lies beyond every run.
pub const FAR_SECONDS: u32 = 86_400;

/// In which words an operation is asked. Not all operations have all forms; the nearest is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `get`, `set`, `delete` ...
    Classic,
    /// `gets`: the answer tells the version.
    Versioned,
    /// `mg`, `ms`, `md`, `ma`, with the version where they tell one.
    Meta,
}

/// An operation to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Which key.
    pub key: u64,
    /// What is asked.
    pub input: Input,
    /// How it is put.
    pub form: Form,
    /// Length of a value that is stored, bytes, about.
    pub bytes: usize,
    /// Seconds to the deadline of what is stored or touched; 0 for none.
    pub seconds: u32,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the store answered.
    Known(Output),
    /// The server says that it does not know.
    Unknown,
    /// Nothing that a cache may answer.
    Wrong(String),
}

impl Ask {
    /// A read.
    pub fn get(key: u64, form: Form) -> Self {
        Self { key, input: Input::Get, form, bytes: 0, seconds: 0 }
    }

    /// The request.
    pub fn request(&self) -> Vec<u8> {
        let key = key_text(self.key);
        let is_meta = self.form == Form::Meta;
        let seconds = self.seconds;
        let line = |text: String| (text + "\r\n").into_bytes();
        let store = |verb: &str, version: Option<u64>, value: Vec<u8>| {
            let version = version.map_or(String::new(), |version| format!(" {version}"));
            let head = line(format!("{verb} {key} 0 {seconds} {}{version}", value.len()));
            [&head, &value[..], b"\r\n"].concat()
        };
        match self.input {
            Input::Get if is_meta => line(format!("mg {key} v c")),
            Input::Get if self.form == Form::Versioned => line(format!("gets {key}")),
            Input::Get => line(format!("get {key}")),
            Input::Set { value } if is_meta => {
                let value = value_text(value, self.bytes);
                let head = line(format!("ms {key} {} c T{seconds}", value.len()));
                [&head, &value[..], b"\r\n"].concat()
            }
            Input::Set { value } => store("set", None, value_text(value, self.bytes)),
            Input::Add { value } => store("add", None, value_text(value, self.bytes)),
            Input::Replace { value } => store("replace", None, value_text(value, self.bytes)),
            Input::Cas { value, version } => {
                store("cas", Some(version), value_text(value, self.bytes))
            }
            Input::Append { piece } => store("append", None, format!(" {piece}").into_bytes()),
            Input::Prepend { piece } => store("prepend", None, format!("{piece} ").into_bytes()),
            Input::Incr { delta } if is_meta => line(format!("ma {key} v D{delta}")),
            Input::Incr { delta } => line(format!("incr {key} {delta}")),
            Input::Decr { delta } if is_meta => line(format!("ma {key} v MD D{delta}")),
            Input::Decr { delta } => line(format!("decr {key} {delta}")),
            Input::Touch if is_meta => line(format!("mg {key} T{seconds}")),
            Input::Touch => line(format!("touch {key} {seconds}")),
            Input::Delete if is_meta => line(format!("md {key}")),
            Input::Delete => line(format!("delete {key}")),
            Input::Flush => line("flush_all".into()),
        }
    }

    /// What an answer to it says.
    pub fn answer(&self, text: &[u8]) -> Answer {
        let wrong = || Answer::Wrong(format!("{self:?} -> {:?}", String::from_utf8_lossy(text)));
        if text.starts_with(b"SERVER_ERROR outcome unknown") {
            return Answer::Unknown;
        }
        self.output(text).map_or_else(wrong, Answer::Known)
    }

    fn output(&self, text: &[u8]) -> Option<Output> {
        let line_end = text.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&text[..line_end]).ok()?;
        let data = &text[line_end + 2..];
        let words: Vec<&str> = line.split(' ').collect();
        let version = words.last()?.strip_prefix('c').and_then(|version| version.parse().ok());
        let counts = matches!(self.input, Input::Incr { .. } | Input::Decr { .. });
        let output = match (self.input, words[0]) {
            (Input::Get, "END" | "EN") => Output::Miss,
            (Input::Get, "VALUE") => {
                if words[1] != key_text(self.key) {
                    return None;
                }
                let bytes: usize = words.get(3)?.parse().ok()?;
                let version = words.get(4).map(|version| version.parse()).transpose().ok()?;
                let value = data.strip_suffix(b"\r\nEND\r\n")?;
                return hit(value, bytes, version);
            }
            (Input::Get, "VA") => {
                return hit(data.strip_suffix(b"\r\n")?, words.get(1)?.parse().ok()?, version);
            }
            (Input::Set { .. }, "HD") => Output::Stored { version },
            (_, "STORED") => Output::Stored { version: None },
            (_, "NOT_STORED") => Output::NotStored,
            (Input::Cas { .. }, "EXISTS") => Output::Exists,
            (Input::Touch, "EN") | (_, "NOT_FOUND" | "NF") => Output::NotFound,
            (Input::Touch, "TOUCHED" | "HD") => Output::Touched,
            (Input::Delete, "DELETED" | "HD") => Output::Deleted,
            (Input::Flush, "OK") => Output::Flushed,
            (_, "CLIENT_ERROR") if counts => Output::Refused,
            (_, "VA") if counts => {
                let number = std::str::from_utf8(data.strip_suffix(b"\r\n")?).ok()?;
                Output::Number { value: number.parse().ok()? }
            }
            (_, number) if counts => Output::Number { value: number.parse().ok()? },
            _ => return None,
        };
        Some(output)
    }
}

/// A value that was read, if it is whole.
fn hit(value: &[u8], bytes: usize, version: Option<u64>) -> Option<Output> {
    let id = id_of(value).filter(|_| value.len() == bytes)?;
    Some(Output::Value { value: id, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_what_they_say_and_nonsense_is_seen() {
        let known = |input, form, text: &[u8]| {
            let ask = Ask { key: 5, input, form, bytes: 0, seconds: 0 };
            match ask.answer(text) {
                Answer::Known(output) => Some(output),
                Answer::Unknown | Answer::Wrong(_) => None,
            }
        };
        let value = |value, version| Some(Output::Value { value, version });
        use Form::{Classic, Meta, Versioned};
        assert_eq!(known(Input::Get, Classic, b"VALUE h5 0 2\r\n17\r\nEND\r\n"), value(17, None));
        assert_eq!(
            known(Input::Get, Versioned, b"VALUE h5 0 2 9\r\n17\r\nEND\r\n"),
            value(17, Some(9))
        );
        assert_eq!(known(Input::Get, Meta, b"VA 2 c9\r\n17\r\n"), value(17, Some(9)));
        assert_eq!(known(Input::Get, Classic, b"END\r\n"), Some(Output::Miss));
        assert_eq!(known(Input::Get, Classic, b"VALUE h6 0 2\r\n17\r\nEND\r\n"), None);
        assert_eq!(known(Input::Get, Classic, b"VALUE h5 0 3\r\n17\r\nEND\r\n"), None);
        assert_eq!(known(Input::Get, Classic, b"SERVER_ERROR\r\n"), None);
        let set = Input::Set { value: 1 };
        assert_eq!(known(set, Meta, b"HD c7\r\n"), Some(Output::Stored { version: Some(7) }));
        assert_eq!(known(set, Classic, b"STORED\r\n"), Some(Output::Stored { version: None }));
        assert_eq!(known(set, Classic, b"DELETED\r\n"), None);
        let incr = Input::Incr { delta: 1 };
        assert_eq!(known(incr, Classic, b"18\r\n"), Some(Output::Number { value: 18 }));
        assert_eq!(known(incr, Meta, b"VA 2\r\n18\r\n"), Some(Output::Number { value: 18 }));
        assert_eq!(known(Input::Touch, Meta, b"HD\r\n"), Some(Output::Touched));
        let unknown = b"SERVER_ERROR outcome unknown\r\n";
        assert_eq!(Ask::get(5, Classic).answer(unknown), Answer::Unknown);
    }
}
