//! RFC 1071 pair by pair, and checksums put right in a frame: slow, and shared with nothing.

/// The ones'-complement sum of whole messages, each from an even offset on.
pub fn sum(messages: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in messages.iter().flat_map(|message| message.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The UDP checksum's sum over addresses and datagram; 0xffff for one with a right checksum in it.
pub fn udp_sum(addresses: &[u8], datagram: &[u8]) -> u16 {
    let bytes = (datagram.len() as u16).to_be_bytes();
    sum(&[addresses, &[0, 17], &bytes, datagram])
}

/// Makes the IPv4 header's and the UDP checksum right where the frame is whole enough to have them.
pub fn repair(frame: &mut [u8]) -> Option<()> {
    let mut at = 12;
    while [[0x81, 0x00], [0x88, 0xa8]].contains(&[*frame.get(at)?, *frame.get(at + 1)?]) {
        at += 4;
    }
    let ethertype = [*frame.get(at)?, *frame.get(at + 1)?];
    at += 2;
    let (addresses, mut protocol, mut transport) = match ethertype {
        [0x08, 0x00] => {
            let header_bytes = usize::from(*frame.get(at)? & 15) * 4;
            let header = frame.get_mut(at..at + header_bytes.max(20))?;
            header[10..12].fill(0);
            let checksum = !sum(&[header]);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            (header[12..20].to_vec(), header[9], at + header_bytes)
        }
        [0x86, 0xdd] => {
            let header = frame.get(at..at + 40)?;
            (header[8..40].to_vec(), header[6], at + 40)
        }
        _ => return None,
    };
    while ethertype == [0x86, 0xdd] && [0, 43, 60].contains(&protocol) {
        let header = frame.get(transport..transport + 2)?;
        protocol = header[0];
        transport += 8 * (usize::from(header[1]) + 1);
    }
    let udp = frame.get_mut(transport..).filter(|_| protocol == 17)?;
    let bytes = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let datagram = udp.get_mut(..bytes).filter(|datagram| datagram.len() >= 8)?;
    datagram[6..8].fill(0);
    let checksum = match !udp_sum(&addresses, datagram) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
