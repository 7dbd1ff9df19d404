//! Real frames against what an independent dissector says is in them.

mod support;

use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::{Kind, MoldError, Packet};
use nautilus_dataplane::replay::binary_file::BinaryFile;
use std::collections::BTreeMap;
use support::expected::expected_packets;
use support::{captures, frames, market_data, udp_payload};

const NASDAQ: &str = "Nasdaq.Equities.TotalView.Itch.v5.0";
const PSX: &str = "Psx.Equities.TotalView.Itch.v5.0.20230822";

#[test]
fn every_field_of_every_capture_equals_the_expected_decode() {
    let Some(data) = market_data("every_field_of_every_capture_equals_the_expected_decode") else {
        return;
    };
    let root = data.join("omi-pcap");
    let (mut packets, mut messages) = (0, 0);
    for folder in [NASDAQ, PSX] {
        for capture in captures(&root.join(folder)) {
            let name = capture.file_stem().unwrap().to_str().unwrap().to_owned();
            let expected =
                expected_packets(&root.join(format!("expected-decode/{folder}_{name}.txt")));
            let frames = frames(&capture);
            assert_eq!(frames.len(), expected.len(), "{name}");
            for (frame, expected) in frames.iter().zip(&expected) {
                let payload = udp_payload(frame).expect("UDP");
                let packet = Packet::parse(&payload).unwrap();
                expected.assert_header(&packet, &name);
                messages += expected.assert_messages(&packet, &name);
                packets += 1;
            }
        }
    }
    assert_eq!((packets, messages), (60, 97));
}

/// The note that comes with the data gives one frame's raw timestamp.
#[test]
fn the_add_order_frame_holds_the_noted_timestamp() {
    let Some(data) = market_data("the_add_order_frame_holds_the_noted_timestamp") else { return };
    let path = data.join(format!("omi-pcap/{NASDAQ}/AddOrderNoMpidAttributionMessage.pcap"));
    let payload = udp_payload(&frames(&path)[0]).unwrap();
    let message = Packet::parse(&payload).unwrap().messages().next().unwrap().unwrap();
    let timestamp = Message::decode(message).unwrap().common().timestamp;
    assert_eq!(timestamp.0, 0x1f1a_ced8_5306);
    assert_eq!(timestamp.0, 34_199_999_894_278);
}

#[test]
fn packets_messages_and_types_are_as_listed() {
    let Some(data) = market_data("packets_messages_and_types_are_as_listed") else { return };
    let root = data.join("omi-pcap");
    let list = std::fs::read_to_string(root.join("expected.csv")).unwrap();
    let mut files = 0;
    for line in list.lines().skip(1) {
        let [file, packets, messages, types] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let frames = frames(&root.join(file));
        assert_eq!(frames.len().to_string(), packets, "{file}");
        let mut counts: BTreeMap<char, u32> = BTreeMap::new();
        for payload in frames.iter().filter_map(|frame| udp_payload(frame)) {
            let packet = Packet::parse(&payload).unwrap();
            let claimed = packet.message_count();
            match packet.messages().collect::<Result<Vec<_>, _>>() {
                Ok(blocks) => {
                    assert_eq!(blocks.len(), usize::from(claimed), "{file}");
                    for block in blocks {
                        let code = Message::decode(block).unwrap().code();
                        *counts.entry(char::from(code)).or_default() += 1;
                    }
                }
                // Another venue's protocol: a packet that is dropped whole, never decoded.
                Err(_) => assert_eq!(messages, "", "{file}"),
            }
        }
        let total: u32 = counts.values().sum();
        let found: Vec<_> = counts.iter().map(|(code, count)| format!("{code}:{count}")).collect();
        assert_eq!(found.join(" "), types, "{file}");
        assert_eq!(total, messages.parse().unwrap_or(0), "{file}");
        files += 1;
    }
    assert_eq!(files, 35);
}

#[test]
fn concatenated_packets_with_a_truncated_tail() {
    let Some(data) = market_data("concatenated_packets_with_a_truncated_tail") else { return };
    let bytes = std::fs::read(data.join("mold/mold.sample.dat")).unwrap();
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let packet = Packet::parse(rest).unwrap();
        assert_eq!(packet.session.0, [0; 10]);
        let Kind::Messages(count) = packet.kind else { panic!("{packet:?}") };
        let mut blocks = packet.messages();
        let whole = blocks.by_ref().take_while(Result::is_ok).count();
        found.push((packet.sequence, count, whole));
        rest = match packet.check() {
            Ok(used) => &rest[nautilus_dataplane::feed::moldudp64::HEADER_BYTES + used..],
            Err(error) => {
                assert_eq!(error, MoldError::TruncatedMessage { index: 12, count: 13 });
                &[]
            }
        };
    }
    assert_eq!(found, [(1, 15, 15), (16, 13, 13), (29, 13, 12)]);
}

#[test]
fn the_binary_file_with_blank_lengths_is_read_whole() {
    let Some(data) = market_data("the_binary_file_with_blank_lengths_is_read_whole") else {
        return;
    };
    let path = data.join("itch-binaryfile/ex20101224.TEST_ITCH_50");
    let mut file = BinaryFile::open(&path).unwrap();
    let mut counts: BTreeMap<char, u32> = BTreeMap::new();
    while let Some(message) = file.next_message().unwrap() {
        *counts.entry(char::from(Message::decode(message).unwrap().code())).or_default() += 1;
    }
    let expected = [
        ('A', 4997),
        ('D', 1745),
        ('E', 198),
        ('F', 3),
        ('H', 3),
        ('P', 5000),
        ('R', 3),
        ('S', 6),
        ('U', 12),
        ('X', 45),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(counts.values().sum::<u32>(), 12_012);
}
