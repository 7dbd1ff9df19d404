//! What the packets of both ends say, and their encoding.

use super::SoupError;
use super::frame::{Frame, write_packet};
use crate::feed::moldudp64::Session;
use std::fmt;

/// Bytes of a sequence number: ASCII digits, right-aligned.
pub const NUMBER_BYTES: usize = 20;
/// Bytes of a user name.
pub const USER_BYTES: usize = 6;
/// Bytes of a password.
pub const PASSWORD_BYTES: usize = 10;

const ACCEPTED_BYTES: usize = 10 + NUMBER_BYTES;
const LOGIN_BYTES: usize = USER_BYTES + PASSWORD_BYTES + 10 + NUMBER_BYTES;

/// The session of whoever does not care which: ten spaces.
pub const ANY_SESSION: Session = Session([b' '; 10]);

/// Why a name or a password cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The user name.
    #[error("a user name has 1 to {USER_BYTES} printable characters without spaces")]
    User,
    /// The password.
    #[error("a password has 1 to {PASSWORD_BYTES} printable characters without spaces")]
    Password,
}

/// Who logs in. Padded with spaces on the right, as the wire has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    user: [u8; USER_BYTES],
    password: [u8; PASSWORD_BYTES],
}

fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [b' '; N];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(bytes)
}

impl Credentials {
    /// These, if they fit their fields.
    pub fn new(user: &str, password: &str) -> Result<Self, CredentialsError> {
        Ok(Self {
            user: padded(user).ok_or(CredentialsError::User)?,
            password: padded(password).ok_or(CredentialsError::Password)?,
        })
    }

    /// Whether these are the same, by the specification without regard to case. Takes as long for a
    /// wrong password as for a right one.
    pub fn admits(&self, other: &Self) -> bool {
        let bytes = |who: &Self| who.user.into_iter().chain(who.password);
        let difference = bytes(self).zip(bytes(other)).fold(0, |difference, (a, b)| {
            difference | (a.to_ascii_lowercase() ^ b.to_ascii_lowercase())
        });
        difference == 0
    }
}

impl fmt::Debug for Credentials {
    /// Never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.user.trim_ascii_end().escape_ascii())
    }
}

/// What a client asks for when it logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// Who it is.
    pub credentials: Credentials,
    /// The session, [`ANY_SESSION`] for the present one.
    pub session: Session,
    /// Number of the first message wanted, 0 for the next one to come.
    pub sequence: u64,
}

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// `A`: wrong user name or password.
    NotAuthorized,
    /// `S`: no such session, or none at this time.
    NoSession,
}

/// A packet a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    /// Text for humans.
    Debug(&'a [u8]),
    /// Logged in.
    LoginAccepted {
        /// The session.
        session: Session,
        /// Number of the next sequenced message.
        sequence: u64,
    },
    /// Not logged in; the server closes.
    LoginRejected(RejectReason),
    /// The next message of the session.
    Sequenced(&'a [u8]),
    /// A message outside the sequence (4.00).
    Unsequenced(&'a [u8]),
    /// Nothing new.
    Heartbeat,
    /// The session is over: no message will follow.
    EndOfSession,
}

/// A packet a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPacket<'a> {
    /// Text for humans.
    Debug(&'a [u8]),
    /// The first packet of a connection.
    Login(LoginRequest),
    /// A message to the server.
    Unsequenced(&'a [u8]),
    /// Nothing new.
    Heartbeat,
    /// The client is about to close.
    Logout,
}

fn wrong_length(frame: Frame<'_>) -> SoupError {
    SoupError::WrongLength { kind: frame.kind, bytes: frame.payload.len() }
}

fn sized<'a, const N: usize>(frame: Frame<'a>) -> Result<&'a [u8; N], SoupError> {
    frame.payload.try_into().map_err(|_| wrong_length(frame))
}

/// The field of `N` bytes at `offset`, which lies within `bytes`.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

/// A number of ASCII digits with spaces before or behind them.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    let digit = |number: u64, byte: &u8| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, digit))?
}

/// The digits of a number, right-aligned. Every u64 has at most 20.
pub fn number(value: u64) -> [u8; NUMBER_BYTES] {
    let mut text = [b' '; NUMBER_BYTES];
    let mut rest = value;
    for byte in text.iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text
}

impl<'a> ServerPacket<'a> {
    /// What a frame from a server says.
    pub fn parse(frame: Frame<'a>) -> Result<Self, SoupError> {
        match frame.kind {
            b'+' => Ok(Self::Debug(frame.payload)),
            b'A' => {
                let bytes = sized::<ACCEPTED_BYTES>(frame)?;
                let sequence = parse_number(&bytes[10..])
                    .filter(|sequence| *sequence != 0)
                    .ok_or(SoupError::BadNumber { kind: b'A' })?;
                Ok(Self::LoginAccepted { session: Session(field(bytes, 0)), sequence })
            }
            b'J' => match sized::<1>(frame)? {
                b"A" => Ok(Self::LoginRejected(RejectReason::NotAuthorized)),
                b"S" => Ok(Self::LoginRejected(RejectReason::NoSession)),
                [code] => Err(SoupError::UnknownReason { code: *code }),
            },
            b'S' => Ok(Self::Sequenced(frame.payload)),
            b'U' => Ok(Self::Unsequenced(frame.payload)),
            b'H' => sized::<0>(frame).map(|_| Self::Heartbeat),
            b'Z' => sized::<0>(frame).map(|_| Self::EndOfSession),
            kind => Err(SoupError::UnknownType { kind }),
        }
    }

    /// Appends the packet. A message has at most 65,534 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Debug(text) => write_packet(out, b'+', text),
            Self::LoginAccepted { session, sequence } => {
                let mut payload = [0; ACCEPTED_BYTES];
                payload[..10].copy_from_slice(&session.0);
                payload[10..].copy_from_slice(&number(*sequence));
                write_packet(out, b'A', &payload);
            }
            Self::LoginRejected(RejectReason::NotAuthorized) => write_packet(out, b'J', b"A"),
            Self::LoginRejected(RejectReason::NoSession) => write_packet(out, b'J', b"S"),
            Self::Sequenced(message) => write_packet(out, b'S', message),
            Self::Unsequenced(message) => write_packet(out, b'U', message),
            Self::Heartbeat => write_packet(out, b'H', b""),
            Self::EndOfSession => write_packet(out, b'Z', b""),
        }
    }
}

impl<'a> ClientPacket<'a> {
    /// What a frame from a client says.
    pub fn parse(frame: Frame<'a>) -> Result<Self, SoupError> {
        match frame.kind {
            b'+' => Ok(Self::Debug(frame.payload)),
            b'L' => {
                let bytes = sized::<LOGIN_BYTES>(frame)?;
                let credentials = Credentials { user: field(bytes, 0), password: field(bytes, 6) };
                let session = Session(field(bytes, 16));
                let sequence =
                    parse_number(&bytes[26..]).ok_or(SoupError::BadNumber { kind: b'L' })?;
                Ok(Self::Login(LoginRequest { credentials, session, sequence }))
            }
            b'U' => Ok(Self::Unsequenced(frame.payload)),
            b'R' => sized::<0>(frame).map(|_| Self::Heartbeat),
            b'O' => sized::<0>(frame).map(|_| Self::Logout),
            kind => Err(SoupError::UnknownType { kind }),
        }
    }

    /// Appends the packet. A message has at most 65,534 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Debug(text) => write_packet(out, b'+', text),
            Self::Login(LoginRequest { credentials, session, sequence }) => {
                let mut payload = [0; LOGIN_BYTES];
                payload[..6].copy_from_slice(&credentials.user);
                payload[6..16].copy_from_slice(&credentials.password);
                payload[16..26].copy_from_slice(&session.0);
                payload[26..].copy_from_slice(&number(*sequence));
                write_packet(out, b'L', &payload);
            }
            Self::Unsequenced(message) => write_packet(out, b'U', message),
            Self::Heartbeat => write_packet(out, b'R', b""),
            Self::Logout => write_packet(out, b'O', b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Session = Session(*b"  20261128");

    fn frame(bytes: &[u8]) -> Frame<'_> {
        assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
        Frame { kind: bytes[2], payload: &bytes[3..] }
    }

    #[test]
    fn bytes_are_the_specifications() {
        let mut out = Vec::new();
        let credentials = Credentials::new("abc", "secret").unwrap();
        let login =
            ClientPacket::Login(LoginRequest { credentials, session: ANY_SESSION, sequence: 1 });
        login.write(&mut out);
        assert_eq!(
            out,
            *b"\0\x2fLabc   secret                                 1",
            "{}",
            out.escape_ascii()
        );
        assert_eq!(ClientPacket::parse(frame(&out)), Ok(login));

        out.clear();
        let accepted = ServerPacket::LoginAccepted { session: SESSION, sequence: u64::MAX };
        accepted.write(&mut out);
        assert_eq!(out, *b"\0\x1fA  2026112818446744073709551615");
        assert_eq!(ServerPacket::parse(frame(&out)), Ok(accepted));
    }

    #[test]
    fn every_packet_comes_back() {
        for packet in [
            ServerPacket::Debug(b"hello"),
            ServerPacket::LoginRejected(RejectReason::NotAuthorized),
            ServerPacket::LoginRejected(RejectReason::NoSession),
            ServerPacket::Sequenced(b""),
            ServerPacket::Unsequenced(b"u"),
            ServerPacket::Heartbeat,
            ServerPacket::EndOfSession,
        ] {
            let mut out = Vec::new();
            packet.write(&mut out);
            assert_eq!(ServerPacket::parse(frame(&out)), Ok(packet));
        }
        for packet in [
            ClientPacket::Debug(b""),
            ClientPacket::Unsequenced(b"u"),
            ClientPacket::Heartbeat,
            ClientPacket::Logout,
        ] {
            let mut out = Vec::new();
            packet.write(&mut out);
            assert_eq!(ClientPacket::parse(frame(&out)), Ok(packet));
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        fn server(kind: u8, payload: &[u8]) -> SoupError {
            ServerPacket::parse(Frame { kind, payload }).unwrap_err()
        }
        fn client(kind: u8, payload: &[u8]) -> SoupError {
            ClientPacket::parse(Frame { kind, payload }).unwrap_err()
        }
        assert_eq!(server(b'L', b""), SoupError::UnknownType { kind: b'L' });
        assert_eq!(client(b'S', b""), SoupError::UnknownType { kind: b'S' });
        assert_eq!(server(b'H', b"x"), SoupError::WrongLength { kind: b'H', bytes: 1 });
        assert_eq!(client(b'O', b"x"), SoupError::WrongLength { kind: b'O', bytes: 1 });
        assert_eq!(server(b'J', b"X"), SoupError::UnknownReason { code: b'X' });
        for bytes in 0..60 {
            if bytes != ACCEPTED_BYTES {
                let error = SoupError::WrongLength { kind: b'A', bytes };
                assert_eq!(server(b'A', &[b'1'; 60][..bytes]), error);
            }
            if bytes != LOGIN_BYTES {
                let error = SoupError::WrongLength { kind: b'L', bytes };
                assert_eq!(client(b'L', &[b'1'; 60][..bytes]), error);
            }
        }
        for text in [
            &b"                    "[..],
            b"                   0",
            b"                  -1",
            b"                 1 1",
            b"18446744073709551616",
            b"99999999999999999999",
        ] {
            let payload = [&SESSION.0[..], text].concat();
            assert_eq!(server(b'A', &payload), SoupError::BadNumber { kind: b'A' });
        }
    }

    #[test]
    fn numbers_may_be_aligned_either_way() {
        assert_eq!(parse_number(b"42                  "), Some(42));
        assert_eq!(parse_number(b"00000000000000000042"), Some(42));
        for value in [0, 1, 9, 10, 12_345, u64::MAX] {
            assert_eq!(parse_number(&number(value)), Some(value));
        }
    }

    #[test]
    fn credentials_fit_their_fields_and_hide_the_password() {
        assert_eq!(Credentials::new("seventy", "x"), Err(CredentialsError::User));
        assert_eq!(Credentials::new("", "x"), Err(CredentialsError::User));
        assert_eq!(Credentials::new("a b", "x"), Err(CredentialsError::User));
        assert_eq!(Credentials::new("a", "elevenchars"), Err(CredentialsError::Password));
        let known = Credentials::new("User", "passWORD").unwrap();
        assert!(known.admits(&Credentials::new("uSER", "PASSword").unwrap()));
        assert!(!known.admits(&Credentials::new("User", "passWORd1").unwrap()));
        assert!(!known.admits(&Credentials::new("Use", "passWORD").unwrap()));
        assert_eq!(format!("{known:?}"), "Credentials(User)");
    }
}
