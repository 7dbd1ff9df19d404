//! ethtool's netlink family and rtnetlink's link message, as much of them as the doctor reads.
//!
//! ```text
//!   kernel --ETHTOOL_MSG_*, RTM_GETLINK--> socket.rs --attributes--> codec.rs, features.rs
//!   recorded tree: netlink/<interface>/<group>, the attributes in hexadecimal ----^
//! ```

pub mod codec;
pub mod features;
mod socket;

pub use socket::NetlinkSocket;

use super::knob::{Group, Width};

/// Why netlink gave no answer, in the words of a reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("no netlink socket: {0}")]
    Open(nix::errno::Errno),
    /// The kernel has no ethtool family (before 5.6).
    #[error("this kernel has no ethtool netlink")]
    NoFamily,
    /// The kernel or the driver said no.
    #[error("{0}")]
    Refused(nix::errno::Errno),
    /// No answer of the expected form.
    #[error("the answer was cut short")]
    Cut,
}

/// Bytes of a number in an attribute.
pub fn number_bytes(width: Width, number: u32) -> Vec<u8> {
    match width {
        Width::Byte => vec![number as u8],
        Width::Word => number.to_ne_bytes().to_vec(),
    }
}

/// The number of an attribute; `None` where it is absent or of another width.
pub fn number(answer: &[u8], attribute: u16, width: Width) -> Option<u32> {
    let value = codec::attribute(answer, attribute)?;
    match (width, value.len()) {
        (Width::Byte, 1) => Some(value[0].into()),
        (Width::Word, 4) => codec::u32_at(value, 0),
        _ => None,
    }
}

/// Name of a group's file in a recorded tree.
pub fn file_of(group: Group) -> &'static str {
    match group {
        Group::Channels => "channels",
        Group::Rings => "rings",
        Group::Coalesce => "coalesce",
        Group::Features => "features",
        Group::Pause => "pause",
        Group::Eee => "eee",
        Group::Link => "link",
    }
}

/// An answer as lines of hexadecimal, or `error N`.
pub fn to_text(answer: &Result<Vec<u8>, NetlinkError>) -> String {
    match answer {
        Ok(bytes) => {
            let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect();
            let lines: Vec<String> = bytes.chunks(48).map(line).collect();
            lines.join("\n") + "\n"
        }
        Err(NetlinkError::Refused(errno)) => format!("error {}\n", *errno as i32),
        Err(other) => format!("error 0 {other}\n"),
    }
}

/// An answer of a recorded tree.
pub fn of_text(text: &str) -> Result<Vec<u8>, String> {
    if let Some(error) = text.strip_prefix("error ") {
        let number = error.split_whitespace().next().and_then(|word| word.parse().ok());
        return Err(match number.map(nix::errno::Errno::from_raw) {
            Some(errno) if errno != nix::errno::Errno::UnknownErrno => errno.to_string(),
            _ => "there was no answer".into(),
        });
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let wrong = || "the recorded answer is no hexadecimal".to_owned();
    if digits.len() % 2 == 1 {
        return Err(wrong());
    }
    let bytes = digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    bytes.collect::<Option<Vec<u8>>>().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_from_text() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(of_text(&to_text(&Ok(bytes.clone()))), Ok(bytes));
        let refused = Err(NetlinkError::Refused(nix::errno::Errno::EOPNOTSUPP));
        assert!(of_text(&to_text(&refused)).unwrap_err().contains("not supported"));
        for text in ["error", "error x", "abc", "zz", "error 99999"] {
            assert!(of_text(text).is_err(), "{text}");
        }
    }
}
