//! The few blocks of pcapng that a capture is written with, each whole, into a buffer.
//!
//! Source: draft-ietf-opsawg-pcapng. Little-endian; every block repeats its length at its end, is padded to
//! four bytes, and what is in it is bounded by its caller. Read back by [`crate::replay::pcapng`].

/// Link type of Ethernet frames.
pub const LINK_TYPE_ETHERNET: u16 = 1;

/// Link type for private use (`LINKTYPE_USER0`): events.
pub const LINK_TYPE_EVENTS: u16 = 147;

/// Block types.
pub const SECTION: u32 = 0x0a0d_0d0a;
/// Of an interface.
pub const INTERFACE: u32 = 1;
/// Of what an interface counted.
pub const STATISTICS: u32 = 5;
/// Of a packet.
pub const PACKET: u32 = 6;

/// What the first words of a section say of its byte order.
pub const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Option that ends a list, and one of text for people; in every block.
pub const OPTION_END: u16 = 0;
/// A comment.
pub const OPTION_COMMENT: u16 = 1;
/// `if_tsoffset`: seconds to add to all stamps.
pub const OPTION_STAMP_OFFSET: u16 = 14;
/// `if_tsresol`: the unit of stamps.
pub const OPTION_STAMP_RESOLUTION: u16 = 9;
/// `epb_dropcount`: packets lost before this one.
pub const OPTION_DROPPED: u16 = 4;
/// `epb_packetid`.
pub const OPTION_PACKET_ID: u16 = 5;

const OPTION_SECTION_APPLICATION: u16 = 4;
const OPTION_INTERFACE_NAME: u16 = 2;
const OPTION_INTERFACE_DESCRIPTION: u16 = 3;
const OPTION_RECEIVED: u16 = 4;
const OPTION_MISSED: u16 = 5;
const OPTION_DELIVERED: u16 = 8;

/// Stamps are in nanoseconds.
const NANOSECONDS: u8 = 9;

/// Bytes of a packet's block beside its bytes and their padding, options among them.
pub const PACKET_OVERHEAD_BYTES: usize = 32 + 12 + 12 + 4;

/// Bytes of one interface's statistics.
pub const STATISTICS_BYTES: usize = 24 + 3 * 12 + 4;

/// A block that is being written.
struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        Self { out, start }
    }

    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_le_bytes());
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // Texts of ours: far below 64 KiB.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.out.extend_from_slice(&code.to_le_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.padded(value);
    }

    fn end(mut self) {
        // Blocks start at a multiple of four, as the buffer does.
        let bytes = (self.out.len() - self.start + 4) as u32;
        self.word(bytes);
        self.out[self.start + 4..self.start + 8].copy_from_slice(&bytes.to_le_bytes());
    }

    fn end_options(mut self) {
        self.word(u32::from(OPTION_END));
        self.end();
    }
}

/// The block that a file begins with.
pub fn section(out: &mut Vec<u8>, comment: &str) {
    let mut block = Block::new(out, SECTION);
    block.word(BYTE_ORDER);
    // Version 1.0, and a length that is not known.
    block.word(1);
    block.word(u32::MAX);
    block.word(u32::MAX);
    block.option(OPTION_COMMENT, comment.as_bytes());
    let application = concat!("nautilus-capture ", env!("CARGO_PKG_VERSION"));
    block.option(OPTION_SECTION_APPLICATION, application.as_bytes());
    block.end_options();
}

/// An interface: its link type, name and description for people, and a comment for programs.
pub fn interface(out: &mut Vec<u8>, link_type: u16, name: &str, description: &str, comment: &str) {
    let mut block = Block::new(out, INTERFACE);
    block.word(u32::from(link_type));
    // No limit on the bytes of a packet.
    block.word(0);
    block.option(OPTION_INTERFACE_NAME, name.as_bytes());
    block.option(OPTION_INTERFACE_DESCRIPTION, description.as_bytes());
    block.option(OPTION_STAMP_RESOLUTION, &[NANOSECONDS]);
    block.option(OPTION_COMMENT, comment.as_bytes());
    block.end_options();
}

/// A packet as its block has it, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Number of the interface in its section.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Counts the packets of its worker.
    pub identity: u64,
    /// Packets of the interface that were lost before it.
    pub dropped: u64,
}

/// A packet, whose bytes `write` appends.
pub fn packet(out: &mut Vec<u8>, header: &PacketHeader, write: impl FnOnce(&mut Vec<u8>)) {
    let mut block = Block::new(out, PACKET);
    block.word(header.interface);
    block.word((header.time_ns >> 32) as u32);
    block.word(header.time_ns as u32);
    let lengths = block.out.len();
    block.word(0);
    block.word(0);
    let start = block.out.len();
    write(block.out);
    let bytes = ((block.out.len() - start) as u32).to_le_bytes();
    block.out[lengths..lengths + 4].copy_from_slice(&bytes);
    block.out[lengths + 4..lengths + 8].copy_from_slice(&bytes);
    block.padded(&[]);
    if header.dropped > 0 {
        block.option(OPTION_DROPPED, &header.dropped.to_le_bytes());
    }
    block.option(OPTION_PACKET_ID, &header.identity.to_le_bytes());
    block.end_options();
}

/// What an interface counted since the node began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounts {
    /// Number of the interface in its section.
    pub interface: u32,
    /// Packets that were to be captured.
    pub received: u64,
    /// Those that found no room.
    pub dropped: u64,
    /// Those that were handed to the writer.
    pub delivered: u64,
}

/// The counts of an interface at a time in nanoseconds since 1970.
pub fn statistics(out: &mut Vec<u8>, time_ns: u64, counts: &InterfaceCounts) {
    let mut block = Block::new(out, STATISTICS);
    block.word(counts.interface);
    block.word((time_ns >> 32) as u32);
    block.word(time_ns as u32);
    block.option(OPTION_RECEIVED, &counts.received.to_le_bytes());
    block.option(OPTION_MISSED, &counts.dropped.to_le_bytes());
    block.option(OPTION_DELIVERED, &counts.delivered.to_le_bytes());
    block.end_options();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_as_long_as_was_said() {
        let mut out = Vec::new();
        section(&mut out, "five.");
        interface(&mut out, LINK_TYPE_ETHERNET, "s0", "a queue", "mark");
        for bytes in 0..9 {
            let header = PacketHeader { interface: 0, time_ns: 1 << 40, identity: 3, dropped: 1 };
            let before = out.len();
            packet(&mut out, &header, |out| out.resize(out.len() + bytes, 7));
            assert_eq!(out.len() - before, PACKET_OVERHEAD_BYTES + bytes.next_multiple_of(4));
        }
        let before = out.len();
        statistics(&mut out, 5, &InterfaceCounts::default());
        assert_eq!(out.len() - before, STATISTICS_BYTES);
        let (mut at, mut blocks) = (0, 0);
        let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap()) as usize;
        while at < out.len() {
            let bytes = word(at + 4);
            assert!(bytes.is_multiple_of(4) && word(at + bytes - 4) == bytes);
            (at, blocks) = (at + bytes, blocks + 1);
        }
        assert_eq!((at, blocks), (out.len(), 12));
    }
}
