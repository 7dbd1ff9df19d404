//! The expected decode of real captures: text of an independent dissector, and our decoder's output
//! under the same names.
#![allow(dead_code)]

use nautilus_dataplane::feed::itch::{Code, Message, Price4, Text};
use nautilus_dataplane::feed::moldudp64::Packet;
use std::path::Path;

/// The dissector prints the raw time of day as if it were UTC, moved by five hours.
const PRINTED_SHIFT_NS: u64 = 5 * 3600 * 1_000_000_000;

/// Names and values, in the order of the wire.
pub type Fields = Vec<(String, String)>;

/// One MoldUDP64 packet as the dissector has it.
#[derive(Debug, Default)]
pub struct ExpectedPacket {
    pub header: Fields,
    pub messages: Vec<Fields>,
}

impl ExpectedPacket {
    /// Session, sequence and count are the captured ones.
    pub fn assert_header(&self, packet: &Packet<'_>, name: &str) {
        let session = match packet.session.0 == [0; 10] {
            true => "No Value".to_owned(),
            false => packet.session.to_string(),
        };
        let header = [
            ("Session", session),
            ("Sequence Number", packet.sequence.to_string()),
            ("Message Count", packet.message_count().to_string()),
        ];
        assert_eq!(self.header, header.map(|(name, value)| (name.to_owned(), value)), "{name}");
    }

    /// Every field of every message is the expected one; returns how many messages there are.
    pub fn assert_messages(&self, packet: &Packet<'_>, name: &str) -> u64 {
        let mut blocks = packet.messages();
        for expected in &self.messages {
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
        }
        assert!(blocks.next().is_none() && blocks.rest().is_empty(), "{name}");
        self.messages.len() as u64
    }
}

/// Reads the dissector's text: packets, in them messages, in them `name: value` lines.
pub fn expected_packets(path: &Path) -> Vec<ExpectedPacket> {
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
