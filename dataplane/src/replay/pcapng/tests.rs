use proptest::prelude::*;

use super::*;
use crate::capture::blocks::{self, PacketHeader};

fn reader(bytes: &[u8]) -> PcapngReader<&[u8]> {
    PcapngReader::new(bytes, Path::new("test.pcapng"))
}

/// A packet as the tests compare it.
type Packet = (u64, usize, Option<u64>, u64, Vec<u8>);

fn packets(bytes: &[u8]) -> Result<(Vec<Packet>, u64), PcapngError> {
    let (mut reader, mut packets) = (reader(bytes), Vec::new());
    while let Some(record) = reader.next_record()? {
        let PcapngRecord { time_ns, interface, identity, dropped, data, .. } = record;
        packets.push((time_ns, interface, identity, dropped, data.to_vec()));
    }
    Ok((packets, reader.cut_bytes()))
}

/// Blocks of either byte order, by words and bytes.
struct Foreign {
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Foreign {
    fn word(&self, word: u32) -> [u8; 4] {
        if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn half(&self, half: u16) -> [u8; 2] {
        if self.big_endian { half.to_be_bytes() } else { half.to_le_bytes() }
    }

    fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let head = [self.half(code), self.half(value.len() as u16)].concat();
        let mut option = [&head, value].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let length = self.word(body.len() as u32 + 12);
        let block = [&self.word(kind), &length, body, &length].concat();
        self.bytes.extend_from_slice(&block);
    }

    fn file(big_endian: bool) -> Self {
        let mut this = Self { big_endian, bytes: Vec::new() };
        this.section();
        this
    }

    fn section(&mut self) {
        let order = self.word(BYTE_ORDER);
        let version = [self.half(1), self.half(2)].concat();
        let body = [&order[..], &version, &[0xff; 8], &self.option(OPTION_COMMENT, b"hello")];
        self.block(SECTION, &body.concat());
    }

    fn interface(&mut self, kept: u32, options: &[Vec<u8>]) {
        let body = [&self.half(1)[..], &[0; 2], &self.word(kept), &options.concat()].concat();
        self.block(INTERFACE, &body);
    }

    fn packet(&mut self, interface: u32, stamp: u64, data: &[u8], options: &[Vec<u8>]) {
        let words = [interface, (stamp >> 32) as u32, stamp as u32, data.len() as u32, 99];
        let mut body: Vec<u8> = words.iter().flat_map(|word| self.word(*word)).collect();
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(options.concat());
        self.block(PACKET, &body);
    }
}

#[test]
fn files_of_other_hands_are_read_in_both_byte_orders() {
    for big_endian in [false, true] {
        let mut file = Foreign::file(big_endian);
        let eight = |value: u64| match big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let names = [file.option(OPTION_COMMENT, b"mine"), file.option(2, b"eth0")];
        file.interface(0, &names);
        let offset = file.option(OPTION_STAMP_OFFSET, &eight(100));
        let nanoseconds = file.option(OPTION_STAMP_RESOLUTION, &[9]);
        file.interface(2, &[nanoseconds, offset, file.option(OPTION_END, &[])]);
        let binary = file.option(OPTION_STAMP_RESOLUTION, &[128 + 10]);
        file.interface(0, &[binary]);
        // Blocks and options that nobody here knows.
        file.block(0x0bad, &[1, 2, 3, 4]);
        file.block(4, &[]);
        let number = [file.option(77, b"what?"), file.option(OPTION_PACKET_ID, &eight(42))];
        file.packet(0, 5_000_007, b"abc", &number);
        let dropped = [file.option(OPTION_DROPPED, &eight(3)), file.option(OPTION_END, &[])];
        file.packet(1, 7, b"", &dropped);
        file.packet(2, 3 << 9, b"abcd", &[]);
        file.block(SIMPLE_PACKET, &[&file.word(2)[..], b"xy\0\0"].concat());
        // Another section has interfaces of its own.
        file.section();
        file.interface(0, &[]);
        file.packet(0, 1, b"z", &[]);
        let (found, cut) = packets(&file.bytes).unwrap();
        let expected: Vec<Packet> = vec![
            (5_000_007_000, 0, Some(42), 0, b"abc".into()),
            (100_000_000_007, 1, None, 3, b"".into()),
            (1_500_000_000, 2, None, 0, b"abcd".into()),
            (0, 0, None, 0, b"xy".into()),
            (1_000, 0, None, 0, b"z".into()),
        ];
        assert_eq!((found, cut), (expected, 0));
        let mut reader = reader(&file.bytes);
        reader.next_record().unwrap();
        assert_eq!(reader.comments(), ["hello"]);
        assert_eq!(reader.interfaces()[0].comments, ["mine"]);
    }
}

#[test]
fn a_cut_file_is_read_up_to_its_last_whole_block() {
    let mut file = Foreign::file(false);
    file.interface(0, &[]);
    let mut ends = vec![(0, 0), (file.bytes.len(), 0)];
    for number in 1..=3 {
        file.packet(0, number, b"12345", &[]);
        ends.push((file.bytes.len(), number as usize));
    }
    let first = 44 + 20;
    for length in 0..=file.bytes.len() {
        let (found, cut) = packets(&file.bytes[..length]).unwrap();
        let (end, count) = *ends.iter().rev().find(|(end, _)| *end <= length).unwrap();
        assert_eq!(found.len(), count, "{length}");
        if length >= first {
            assert_eq!(cut as usize, length - end, "{length}");
        }
        let mut input = io::Cursor::new(&file.bytes[..length]);
        let whole = whole_blocks(&mut input).unwrap() as usize;
        assert_eq!(whole, if length >= first { end } else { whole.min(length) }, "{length}");
    }
}

#[test]
fn lengths_that_lie_are_refused_and_where_is_said() {
    let whole = || {
        let mut file = Foreign::file(false);
        file.interface(0, &[]);
        let at = file.bytes.len();
        let option = file.option(OPTION_PACKET_ID, &[7; 8]);
        file.packet(0, 1, b"12345", &[option]);
        (file.bytes, at)
    };
    let (bytes, at) = whole();
    // (place behind the packet's beginning, word, what is said)
    for (place, word, problem) in [
        (4, 13, "a length that cannot be"),
        (4, 8, "a length that cannot be"),
        (4, u32::MAX - 3, "longer than a block may be"),
        (4, 36, "two lengths that differ"),
        (8, 1, "an interface that is not there"),
        (20, 24, "a packet longer than its block"),
        (20, u32::MAX, "a packet longer than its block"),
        (12, u32::MAX, "a stamp that cannot be"),
        (36, 200 << 16 | 5, "an option longer than its block"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at + place..at + place + 4].copy_from_slice(&word.to_le_bytes());
        let error = packets(&bytes).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(&format!("byte {at}")), "{error}");
    }
    for (bytes, problem) in [
        (b"hello, this is no capture".to_vec(), "not a pcapng file"),
        ([&SECTION.to_le_bytes()[..], &[28, 0, 0, 0, 1, 2, 3, 4]].concat(), "1a2b3c4d"),
    ] {
        assert!(packets(&bytes).unwrap_err().to_string().contains(problem));
    }
    let mut file = Foreign::file(true);
    let digits = file.option(OPTION_STAMP_RESOLUTION, &[99]);
    file.interface(0, &[digits]);
    assert!(packets(&file.bytes).unwrap_err().to_string().contains("resolution"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        written in prop::collection::vec(
            (0u64..1 << 63, 0u32..3, any::<u64>(), 0u64..3, prop::collection::vec(any::<u8>(), 0..200)),
            0..20,
        )
    ) {
        let mut bytes = Vec::new();
        blocks::section(&mut bytes, "a comment");
        for name in ["a", "bcde", ""] {
            blocks::interface(&mut bytes, blocks::LINK_TYPE_ETHERNET, name, "described", "mark");
        }
        let mut expected = Vec::new();
        for (time_ns, interface, identity, dropped, data) in written {
            let header = PacketHeader { interface, time_ns, identity, dropped };
            blocks::packet(&mut bytes, &header, |out| out.extend_from_slice(&data));
            expected.push((time_ns, interface as usize, Some(identity), dropped, data));
        }
        let counts = blocks::InterfaceCounts::default();
        blocks::statistics(&mut bytes, 1, &counts);
        prop_assert_eq!(packets(&bytes).unwrap(), (expected, 0));
    }

    #[test]
    fn no_input_is_more_than_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        begins in any::<bool>(),
        big_endian in any::<bool>(),
    ) {
        if begins {
            let mut file = Foreign::file(big_endian);
            file.interface(0, &[]);
            file.bytes.append(&mut bytes);
            bytes = file.bytes;
        }
        let _ = packets(&bytes);
        let _ = whole_blocks(&mut io::Cursor::new(&bytes));
    }
}
