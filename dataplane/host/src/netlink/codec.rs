//! Netlink messages and attributes as bytes, in host order, aligned to 4; every length is checked.

/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of an attribute's header.
const ATTRIBUTE_BYTES: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`, which are no part of an attribute's type.
const FLAGS: u16 = 0xc000;

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// The u32 at an offset, if it is there.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

/// One message of a datagram: its type, its sequence number, what follows the header.
pub type Message<'a> = (u16, u32, &'a [u8]);

/// The messages of a datagram, up to one whose length runs over the end.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let (kind, sequence) = (u16_at(bytes, 4)?, u32_at(bytes, 8)?);
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// Attributes (type, value), up to one whose length runs over the end.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & !FLAGS;
        let value = bytes.get(ATTRIBUTE_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The same attributes, this one with another value of the same length; `None` where it is absent.
pub fn replaced(bytes: &[u8], wanted: u16, value: &[u8]) -> Option<Vec<u8>> {
    let old = attribute(bytes, wanted)?;
    let offset = old.as_ptr() as usize - bytes.as_ptr() as usize;
    if old.len() != value.len() {
        return None;
    }
    let mut new = bytes.to_vec();
    new[offset..offset + value.len()].copy_from_slice(value);
    Some(new)
}

/// Attributes, or a whole message, being written.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A message of this type, with its fixed part.
    pub fn message(kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// An attribute.
    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        // Values are written here alone, from names and numbers: a few hundred bytes.
        let length = (ATTRIBUTE_BYTES + value.len()) as u16;
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// An attribute that holds attributes.
    pub fn nest(self, kind: u16, inner: Self) -> Self {
        self.put(kind | NESTED, &inner.0)
    }

    /// The attributes.
    pub fn into_attributes(self) -> Vec<u8> {
        self.0
    }

    /// The message, with its length.
    pub fn into_message(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Writer::default().put(1, b"eth0\0").put(2, &7u32.to_ne_bytes());
        let bytes = Writer::message(20, 5, 9, &[1, 2, 3, 4]).nest(3, inner).into_message();
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].0, all[0].1), (1, 20, 9));
        let nest = attribute(&all[0].2[4..], 3).unwrap();
        assert_eq!(attribute(nest, 1), Some(&b"eth0\0"[..]));
        let changed = replaced(nest, 2, &8u32.to_ne_bytes()).unwrap();
        assert_eq!(attribute(&changed, 2), Some(&8u32.to_ne_bytes()[..]));
        assert_eq!(replaced(&changed, 2, &7u32.to_ne_bytes()).unwrap(), nest);
        assert_eq!(replaced(nest, 9, &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, _, body) in messages(&bytes) {
                let _ = attributes(body).count();
            }
            let _ = attributes(&bytes).count();
            let _ = replaced(&bytes, 1, &[0; 4]);
        }
    }
}
