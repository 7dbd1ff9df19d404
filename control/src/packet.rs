//! A frame as an operator writes it: hexadecimal digits, a record of a capture, or a description.
//!
//! ```text
//!   021122334455...                                             hexadecimal; blanks and colons between
//!   capture.pcap:7                                              the 7th frame (1 without a number)
//!   udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'              to the interface's own MAC
//!   tcp [fd00:6e61::2]:4000 > [fd00:6e61::1]:11211              a segment that opens a connection
//!   udp 198.18.0.3:9 > 233.54.12.111:26477 hex:00112233         any payload; to the group's MAC
//! ```
//!
//! What a description's text asks is asked of the cache: it is given memcached's UDP frame header and a line
//! end.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Shortest and longest frame that can be asked about.
use nautilus_shm::attach::{EXPLAIN_FRAME_BYTES_MAX, EXPLAIN_FRAME_BYTES_MIN};

/// Largest capture that is read.
const CAPTURE_BYTES_MAX: u64 = 1 << 30;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// A frame to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// The destination MAC is still to be filled in: the interface's own.
    pub to_us: bool,
}

/// Why a text is no frame.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// None of the forms.
    #[error(
        "{0:?} is neither hexadecimal, nor a capture, nor a description such as \
         \"udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'\""
    )]
    Form(String),
    /// Half a description.
    #[error("{0:?} is not ADDRESS:PORT (IPv6 in brackets)")]
    Endpoint(String),
    /// One family for both ends.
    #[error("{0} and {1} are of different families")]
    Families(SocketAddr, SocketAddr),
    /// Hexadecimal that is none.
    #[error("hexadecimal digits come in pairs: {0:?}")]
    Hex(String),
    /// No such file, or it cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not a classic pcap of Ethernet frames.
    #[error("{0}: {1}")]
    Capture(String, &'static str),
    /// Not so many frames.
    #[error("{path}: has {frames} frames, there is no number {wanted}")]
    Number {
        /// The file.
        path: String,
        /// Frames found.
        frames: usize,
        /// Asked for.
        wanted: usize,
    },
    /// Longer or shorter than can be run.
    #[error(
        "a frame of {0} bytes; {EXPLAIN_FRAME_BYTES_MIN} to {EXPLAIN_FRAME_BYTES_MAX} can be run"
    )]
    Length(usize),
}

impl Packet {
    /// Reads any of the forms.
    pub fn parse(text: &str) -> Result<Self, PacketError> {
        let text = text.trim();
        let verb = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        let packet = match verb.as_str() {
            "udp" => described(text[3..].trim(), UDP)?,
            "tcp" => described(text[3..].trim(), TCP)?,
            _ => match hex(text) {
                Some(frame) => Self { frame, to_us: false },
                None => Self { frame: captured(text)?, to_us: false },
            },
        };
        if !(EXPLAIN_FRAME_BYTES_MIN..=EXPLAIN_FRAME_BYTES_MAX).contains(&packet.frame.len()) {
            return Err(PacketError::Length(packet.frame.len()));
        }
        Ok(packet)
    }
}

/// Pairs of digits, blanks and colons between them; None for anything else, or nothing.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b':').collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn described(text: &str, protocol: u8) -> Result<Packet, PacketError> {
    let form = || PacketError::Form(text.into());
    let (source, rest) = text.split_once('>').ok_or_else(form)?;
    let rest = rest.trim();
    let (destination, what) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let endpoint =
        |text: &str| text.parse::<SocketAddr>().map_err(|_| PacketError::Endpoint(text.into()));
    let (source, destination) = (endpoint(source.trim())?, endpoint(destination)?);
    let payload = payload(what.trim(), protocol)?;
    let transport = transport(protocol, source, destination, &payload);
    let (ethertype, ip) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0];
            ip.extend(((20 + transport.len()) as u16).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            ip.extend(from.octets());
            ip.extend(to.octets());
            let sum = !sum(&[&ip]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            (0x0800_u16, ip)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend((transport.len() as u16).to_be_bytes());
            ip.extend([protocol, 64]);
            ip.extend(from.octets());
            ip.extend(to.octets());
            (0x86dd, ip)
        }
        _ => return Err(PacketError::Families(source, destination)),
    };
    let group = group_mac(destination.ip());
    let mut frame = group.unwrap_or([0; 6]).to_vec();
    frame.extend([0x02, 0x6e, 0x61, 0, 0, 0xfe]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(ip);
    frame.extend(transport);
    Ok(Packet { frame, to_us: group.is_none() })
}

/// What stands behind the addresses: a quoted request, `hex:` digits, or nothing.
fn payload(what: &str, protocol: u8) -> Result<Vec<u8>, PacketError> {
    if let Some(digits) = what.strip_prefix("hex:") {
        return hex(digits).ok_or_else(|| PacketError::Hex(digits.into()));
    }
    let quoted = |quote| what.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let text = quoted('\'').or_else(|| quoted('"')).unwrap_or(what);
    if text.is_empty() || protocol != UDP {
        return Ok(Vec::new());
    }
    Ok([&[0, 1, 0, 0, 0, 1, 0, 0], text.replace("\\r\\n", "\r\n").as_bytes(), b"\r\n"].concat())
}

fn transport(protocol: u8, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = from.port().to_be_bytes().to_vec();
    bytes.extend(to.port().to_be_bytes());
    if protocol == TCP {
        // SYN, a window, no options.
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        return bytes;
    }
    let length = ((8 + payload.len()) as u16).to_be_bytes();
    bytes.extend(length);
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, UDP], length.to_vec()].concat();
    let checksum = match !sum(&[&pseudo, &bytes]) {
        0 => 0xffff,
        checksum => checksum,
    };
    bytes[6..8].copy_from_slice(&u16::to_be_bytes(checksum));
    bytes
}

/// RFC 1071, over parts of even length but the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// RFC 1112 6.4, RFC 2464 7.
fn group_mac(address: IpAddr) -> Option<[u8; 6]> {
    match address {
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            Some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

/// `FILE` or `FILE:NUMBER`, a classic pcap file of either byte order (manual page `pcap-savefile`).
fn captured(text: &str) -> Result<Vec<u8>, PacketError> {
    let (path, wanted) = match text.rsplit_once(':') {
        Some((path, number)) if !Path::new(text).exists() => match number.parse() {
            Ok(number) => (path, number),
            Err(_) => return Err(PacketError::Form(text.into())),
        },
        _ => (text, 1),
    };
    if !Path::new(path).is_file() {
        return Err(PacketError::Form(text.into()));
    }
    let failed = |source| PacketError::Read { path: path.into(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > CAPTURE_BYTES_MAX {
        return Err(PacketError::Capture(path.into(), "larger than 1 GiB"));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let little = match bytes.first_chunk::<4>() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => true,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => false,
        _ => return Err(PacketError::Capture(path.into(), "not a classic pcap file")),
    };
    let word = |at: usize| {
        let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    if word(20).is_none_or(|link| link & 0xffff != 1) {
        return Err(PacketError::Capture(path.into(), "its frames are not Ethernet"));
    }
    let (mut at, mut frames) = (24, 0);
    while let Some(kept) = word(at + 8) {
        let frame = bytes.get(at + 16..).map(|rest| &rest[..rest.len().min(kept as usize)]);
        let Some(frame) = frame.filter(|frame| frame.len() == kept as usize) else { break };
        frames += 1;
        if frames == wanted {
            return Ok(frame.to_vec());
        }
        at += 16 + kept as usize;
    }
    Err(PacketError::Number { path: path.into(), frames, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_sound_frames() {
        let text = "udp 198.18.0.2:4000 > 198.18.0.1:11211 'get k'";
        let Packet { frame, to_us } = Packet::parse(text).unwrap();
        assert!(to_us);
        assert_eq!(frame[12..14], [0x08, 0]);
        assert_eq!(sum(&[&frame[14..34]]), 0xffff);
        let pseudo = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
        assert_eq!(sum(&[&pseudo, &frame[34..]]), 0xffff);
        assert_eq!(&frame[42..], b"\0\x01\0\0\0\x01\0\0get k\r\n");
        assert_eq!(frame[34..38], [0x0f, 0xa0, 0x2b, 0xcb]);

        let v6 = Packet::parse("UDP [fd00::2]:1 > [fd00::1]:11211 \"mg k v\"").unwrap().frame;
        let pseudo = [&v6[22..54], &[0, 17], &v6[58..60]].concat();
        assert_eq!(sum(&[&pseudo, &v6[54..]]), 0xffff);
        assert_eq!(&v6[v6.len() - 8..], b"mg k v\r\n");

        let tcp = Packet::parse("tcp 198.18.0.2:4000 > 198.18.0.1:11211").unwrap().frame;
        assert_eq!((tcp.len(), tcp[23], tcp[47]), (54, 6, 2));
        let group = Packet::parse("udp 198.18.0.3:9 > 233.54.12.111:26477 hex:00 11 22").unwrap();
        assert!(!group.to_us);
        assert_eq!(group.frame[..6], [0x01, 0, 0x5e, 0x36, 0x0c, 0x6f]);
        assert_eq!(group.frame[42..], [0, 0x11, 0x22]);
    }

    #[test]
    fn hexadecimal_and_captures_are_frames() {
        let frame = Packet::parse("02:6e:61:00:00:01 026e61000002 0806 00").unwrap();
        assert_eq!((frame.frame.len(), frame.to_us), (15, false));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.pcap");
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1];
        file.extend([0; 16]);
        file.extend(1_u32.to_le_bytes());
        for byte in [7_u8, 9] {
            file.extend([0; 8]);
            file.extend(20_u32.to_le_bytes());
            file.extend(20_u32.to_le_bytes());
            file.extend([byte; 20]);
        }
        std::fs::write(&path, &file).unwrap();
        let parse = |text: String| Packet::parse(&text).map(|packet| packet.frame);
        assert_eq!(parse(path.display().to_string()).unwrap(), [7; 20]);
        assert_eq!(parse(format!("{}:2", path.display())).unwrap(), [9; 20]);
        let error = parse(format!("{}:3", path.display())).unwrap_err().to_string();
        assert!(error.ends_with("has 2 frames, there is no number 3"), "{error}");
        // Cut short, and not a capture at all.
        for length in 0..file.len() {
            std::fs::write(&path, &file[..length]).unwrap();
            assert!(parse(format!("{}:2", path.display())).is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_no_frame_is_said() {
        for (text, part) in [
            ("", "neither hexadecimal"),
            ("nonsense", "neither hexadecimal"),
            ("no-such-file.pcap:3", "neither hexadecimal"),
            ("02", "a frame of 1 bytes"),
            ("udp", "neither hexadecimal"),
            ("udp 198.18.0.2 > 198.18.0.1:7", "is not ADDRESS:PORT"),
            ("udp 198.18.0.2:1 > [fd00::1]:7", "different families"),
            ("udp 198.18.0.2:1 > 198.18.0.1:7 hex:0", "come in pairs"),
        ] {
            let error = Packet::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("udp 198.18.0.2:1 > 198.18.0.1:7 '{}'", "x".repeat(4000));
        assert!(matches!(Packet::parse(&long), Err(PacketError::Length(4052))));
    }
}
