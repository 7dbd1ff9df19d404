//! Real frames against what an independent dissector says is in them.

mod support;

use nautilus_dataplane::feed::itch::{Code, Message, Price4, Text};
use nautilus_dataplane::feed::moldudp64::{Kind, MoldError, Packet};
use nautilus_dataplane::replay::binary_file::BinaryFile;
use std::collections::BTreeMap;
use std::path::Path;
use support::{captures, frames, market_data, udp_payload};

const NASDAQ: &str = "Nasdaq.Equities.TotalView.Itch.v5.0";
const PSX: &str = "Psx.Equities.TotalView.Itch.v5.0.20230822";

/// The dissector prints the raw time of day as if it were UTC, moved by five hours.
const PRINTED_SHIFT_NS: u64 = 5 * 3600 * 1_000_000_000;

type Fields = Vec<(String, String)>;

#[derive(Debug, Default)]
struct ExpectedPacket {
    header: Fields,
    messages: Vec<Fields>,
}

/// Reads the dissector's text: packets, in them messages, in them `name: value` lines.
fn expected_packets(path: &Path) -> Vec<ExpectedPacket> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut packets: Vec<ExpectedPacket> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let trimmed = line.trim();
        if !line.starts_with(' ') {
            packets.push(ExpectedPacket::default());
            continue;
        }
        let packet = packets.last_mut().unwrap();
        let (name, value) = trimmed.split_once(':').unwrap();
        let value = value.trim();
        if name == "Message" {
            packet.messages.push(Fields::new());
        } else if name.starts_with('[') {
            assert_eq!(value.trim_end_matches(']'), packet.messages.len().to_string());
        } else if !value.is_empty() || matches!(name, "Reserved" | "Reason") {
            let fields = packet.messages.last_mut().unwrap_or(&mut packet.header);
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    packets
}

/// `Buy (B)` is `B`: our decoder keeps codes, the dissector adds a word to them.
fn code_of(value: &str) -> String {
    let bytes = value.as_bytes();
    match bytes {
        [.., b'(', code, b')'] => char::from(*code).to_string(),
        _ => value.to_owned(),
    }
}

/// `2023-08-22 14:29:59.999894278` is the raw nanoseconds since midnight.
fn raw_timestamp(value: &str) -> String {
    let (date, time) = value.split_once(' ').unwrap();
    assert_eq!(date, "2023-08-22");
    let (hms, nanoseconds) = time.split_once('.').unwrap();
    let seconds = hms.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    let printed_ns = seconds * 1_000_000_000 + nanoseconds.parse::<u64>().unwrap();
    (printed_ns - PRINTED_SHIFT_NS).to_string()
}

fn price(price: Price4) -> String {
    let text = price.to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn code(code: Code) -> String {
    char::from(code.0).to_string().trim().to_owned()
}

fn text<const N: usize>(text: Text<N>) -> String {
    String::from_utf8(text.trimmed().to_vec()).unwrap()
}

/// Every field of a message under the dissector's names and in its order.
fn decoded_fields(bytes: &[u8], message: &Message<'_>) -> Fields {
    let locate = if message.code() == b'Y' { "Locate Code" } else { "Stock Locate" };
    let common = message.common();
    let mut fields: Vec<(&str, String)> = vec![
        ("Message Length", bytes.len().to_string()),
        ("Message Type", char::from(message.code()).to_string()),
        (locate, common.stock_locate.to_string()),
        ("Tracking Number", common.tracking_number.to_string()),
        ("Timestamp", common.timestamp.0.to_string()),
    ];
    match message {
        Message::SystemEvent(m) => fields.push(("Event Code", code(m.event_code()))),
        Message::StockTradingAction(m) => fields.extend([
            ("Stock", m.stock().to_string()),
            ("Trading State", code(m.trading_state())),
            ("Reserved", code(m.reserved())),
            ("Reason", text(m.reason())),
        ]),
        Message::RegShoRestriction(m) => fields.extend([
            ("Stock", m.stock().to_string()),
            ("Reg Sho Action", code(m.reg_sho_action())),
        ]),
        Message::MarketParticipantPosition(m) => fields.extend([
            ("Mpid", text(m.mpid())),
            ("Stock", m.stock().to_string()),
            ("Primary Market Maker", code(m.primary_market_maker())),
            ("Market Maker Mode", code(m.market_maker_mode())),
            ("Market Participant State", code(m.market_participant_state())),
        ]),
        Message::AddOrder(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Buy Sell Indicator", code(m.side())),
            ("Shares", m.shares().to_string()),
            ("Stock", m.stock().to_string()),
            ("Price", price(m.price())),
        ]),
        Message::AddOrderAttributed(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Buy Sell Indicator", code(m.side())),
            ("Shares", m.shares().to_string()),
            ("Stock", m.stock().to_string()),
            ("Price", price(m.price())),
            ("Attribution", text(m.attribution())),
        ]),
        Message::OrderExecuted(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Executed Shares", m.shares().to_string()),
            ("Match Number", m.match_number().to_string()),
        ]),
        Message::OrderExecutedWithPrice(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Executed Shares", m.shares().to_string()),
            ("Match Number", m.match_number().to_string()),
            ("Printable", code(m.printable())),
            ("Execution Price", price(m.price())),
        ]),
        Message::OrderCancel(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Canceled Shares", m.shares().to_string()),
        ]),
        Message::OrderDelete(m) => {
            fields.push(("Order Reference Number", m.order().to_string()));
        }
        Message::OrderReplace(m) => fields.extend([
            ("Original Order Reference Number", m.order().to_string()),
            ("New Order Reference Number", m.new_order().to_string()),
            ("Shares", m.shares().to_string()),
            ("Price", price(m.price())),
        ]),
        Message::Trade(m) => fields.extend([
            ("Order Reference Number", m.order().to_string()),
            ("Buy Sell Indicator", code(m.side())),
            ("Shares", m.shares().to_string()),
            ("Stock", m.stock().to_string()),
            ("Price", price(m.price())),
            ("Match Number", m.match_number().to_string()),
        ]),
        Message::NetOrderImbalance(m) => fields.extend([
            ("Paired Shares", m.paired_shares().to_string()),
            ("Imbalance Shares", m.imbalance_shares().to_string()),
            ("Imbalance Direction", code(m.imbalance_direction())),
            ("Stock", m.stock().to_string()),
            ("Far Price", price(m.far_price())),
            ("Near Price", price(m.near_price())),
            ("Current Reference Price", price(m.reference_price())),
            ("Cross Type", code(m.cross_type())),
            ("Price Variation Indicator", code(m.price_variation_indicator())),
        ]),
        other => panic!("no capture holds {other:?}"),
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

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
                let session = match packet.session.0 == [0; 10] {
                    true => "No Value".to_owned(),
                    false => packet.session.to_string(),
                };
                let header = [
                    ("Session", session),
                    ("Sequence Number", packet.sequence.to_string()),
                    ("Message Count", packet.message_count().to_string()),
                ];
                assert_eq!(
                    expected.header,
                    header.map(|(name, value)| (name.to_owned(), value)),
                    "{name}"
                );
                let mut blocks = packet.messages();
                for expected in &expected.messages {
                    let bytes = blocks.next().expect("a further message").unwrap();
                    let message = Message::decode(bytes).unwrap();
                    let expected: Fields = expected
                        .iter()
                        .map(|(field, value)| match field.as_str() {
                            "Timestamp" => (field.clone(), raw_timestamp(value)),
                            _ => (field.clone(), code_of(value)),
                        })
                        .collect();
                    assert_eq!(expected, decoded_fields(bytes, &message), "{name}");
                    messages += 1;
                }
                assert!(blocks.next().is_none() && blocks.rest().is_empty(), "{name}");
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
