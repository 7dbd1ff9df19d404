//! A datagram on its way from one worker of the node to another: its addresses as bytes, in front of its
//! payload.

use nautilus_ebpf::intf::Permissions;

use super::{Datagram, Link, Path};
use crate::net::Endpoint;

/// Bytes in front of the payload: two endpoints, interface, tags, arrival, permissions.
pub const PARCEL_HEADER_BYTES: usize = 18 + 18 + 2 + 4 + 8 + 2;

/// In place of permissions that nobody has looked up.
const UNKNOWN: u16 = u16::MAX;

/// The addresses of a datagram.
pub fn header(datagram: &Datagram<'_>) -> [u8; PARCEL_HEADER_BYTES] {
    let mut out = [0; PARCEL_HEADER_BYTES];
    let [outer, inner] = datagram.link.vlans;
    let permissions = datagram.permissions.map_or(UNKNOWN, |known| known.0 as u16);
    let pieces: [&[u8]; 9] = [
        &datagram.source.address,
        &datagram.source.port.to_le_bytes(),
        &datagram.destination.address,
        &datagram.destination.port.to_le_bytes(),
        &datagram.link.interface.to_le_bytes(),
        &outer.to_le_bytes(),
        &inner.to_le_bytes(),
        &datagram.rx_ns.to_le_bytes(),
        &permissions.to_le_bytes(),
    ];
    let mut at = 0;
    for piece in pieces {
        out[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    out
}

/// The same of an answer that leaves on `path`.
pub fn answer_header(path: &Path) -> [u8; PARCEL_HEADER_BYTES] {
    let Path { from: destination, to: source, link } = *path;
    header(&Datagram { source, destination, link, rx_ns: 0, permissions: None, payload: &[] })
}

/// Reads a parcel; `None` for one that is too short to be one.
pub fn read(parcel: &[u8]) -> Option<Datagram<'_>> {
    let (header, payload) = parcel.split_first_chunk::<PARCEL_HEADER_BYTES>()?;
    let mut rest: &[u8] = header;
    let source = endpoint(&mut rest)?;
    let destination = endpoint(&mut rest)?;
    let interface = short(&mut rest)?;
    let vlans = [short(&mut rest)?, short(&mut rest)?];
    let (rx_ns, mut rest) = rest.split_first_chunk()?;
    let rx_ns = u64::from_le_bytes(*rx_ns);
    let permissions = match short(&mut rest)? {
        UNKNOWN => None,
        known => Some(Permissions::masked(known.into())),
    };
    let link = Link { interface, vlans };
    Some(Datagram { source, destination, link, rx_ns, permissions, payload })
}

fn short(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_le_bytes(*bytes))
}

fn endpoint(rest: &mut &[u8]) -> Option<Endpoint> {
    let (address, after) = rest.split_first_chunk::<16>()?;
    *rest = after;
    Some(Endpoint { address: *address, port: short(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_survives_the_way() {
        let datagram = Datagram {
            source: Endpoint::v4([198, 18, 0, 2], 4000),
            destination: Endpoint::new("fd00:6e61::1".parse().unwrap(), 11211),
            link: Link { interface: 3, vlans: [0x8064, 7] },
            rx_ns: u64::MAX - 5,
            permissions: Some(Permissions::READ),
            payload: b"payload",
        };
        let parcel = [&header(&datagram)[..], datagram.payload].concat();
        let back = read(&parcel).unwrap();
        assert_eq!(header(&back), header(&datagram));
        assert_eq!(
            (back.source, back.link, back.rx_ns),
            (datagram.source, datagram.link, u64::MAX - 5)
        );
        assert_eq!((back.destination, back.payload), (datagram.destination, datagram.payload));
        assert_eq!(back.permissions, datagram.permissions);
        let unknown = header(&Datagram { permissions: None, ..datagram });
        assert_eq!(read(&unknown).unwrap().permissions, None);
        assert!(read(&parcel[..PARCEL_HEADER_BYTES - 1]).is_none());
        assert_eq!(read(&parcel[..PARCEL_HEADER_BYTES]).unwrap().payload, b"");
        let path = datagram.reply_path();
        let answer = answer_header(&path);
        assert_eq!(read(&answer).unwrap().reply_path(), path);
    }
}
