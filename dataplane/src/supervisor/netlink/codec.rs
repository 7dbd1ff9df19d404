//! Netlink messages and attributes as bytes. Everything is in host order and aligned to 4.

use std::net::IpAddr;

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The `N` bytes at `offset`, if they are there.
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_ne_bytes)
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_ne_bytes)
}

/// An address attribute: 4 or 16 bytes in network order.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => bytes_at::<4>(value, 0).map(IpAddr::from),
        16 => bytes_at::<16>(value, 0).map(IpAddr::from),
        _ => None,
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request it answers, 0 for a notification.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of one received datagram. A length that runs over the end stops the iteration.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 4)?;
        let flags = u16_at(self.0, 6)?;
        let sequence = u32_at(self.0, 8)?;
        let body = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, body })
    }
}

/// The attributes after a message's fixed part.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & libc::NLA_TYPE_MASK as u16;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A request being written.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u16, flags: i32, sequence: u32, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags as u16).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.resize(aligned(self.0.len()), 0);
        self.0.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::supervisor::netlink::Change;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Request::new(16, 5, 9, &[1, 2, 3, 4])
            .attribute(3, b"eth0\0")
            .attribute(4 | 0x8000, &7u32.to_ne_bytes())
            .finish();
        let one = bytes.len();
        bytes.extend_from_within(..one);
        let messages: Vec<_> = Messages(&bytes).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[1].kind, messages[1].flags, messages[1].sequence), (16, 5, 9));
        let attributes: Vec<_> = Attributes(&messages[1].body[4..]).collect();
        assert_eq!(attributes, [(3, &b"eth0\0"[..]), (4, &7u32.to_ne_bytes()[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(kind in 16u16..32, bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for message in Messages(&bytes) {
                let _ = Change::from_message(&message);
            }
            let _ = Change::from_message(&Message { kind, flags: 0, sequence: 0, body: &bytes });
        }
    }
}
