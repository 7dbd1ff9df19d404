//! Ours, `itch5` and `itchy` read the same values out of the same bytes: of every message of the real
//! captures, of the binary file, and of generated days. (The sample of MoldUDP64 packets among the data
//! carries an older ITCH.) The two are independent of ours and of each other;
//! where they differ from the specification or from us is said at the top of each file.

#[path = "../support/mod.rs"]
mod support;

mod itch5_agrees;
mod itchy_agrees;

use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::replay::binary_file::BinaryFile;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use std::collections::BTreeMap;
use support::{captures, frames, market_data, udp_payload};

/// Messages compared, by type; and those `itchy` refused for a code it does not know.
#[derive(Default)]
struct Compared {
    by_type: BTreeMap<char, u32>,
    refused: u32,
    unknown: u32,
}

impl Compared {
    fn message(&mut self, bytes: &[u8]) {
        let code = bytes[0];
        *self.by_type.entry(char::from(code)).or_default() += 1;
        itch5_agrees::agree(bytes);
        match itchy_agrees::is_known(code) {
            true => self.refused += u32::from(!itchy_agrees::agree(bytes)),
            false => self.unknown += 1,
        }
    }

    fn total(&self) -> u32 {
        self.by_type.values().sum()
    }
}

#[test]
fn all_read_a_generated_day_alike() {
    let mut compared = Compared::default();
    for seed in [1, 2] {
        let spec = GeneratorSpec { seed, symbols: 40, messages: 60_000, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        while let Some(message) = generator.next_message() {
            compared.message(message);
        }
    }
    assert_eq!((compared.total(), compared.refused), (120_000, 0));
    assert_eq!(compared.by_type.len(), 23, "every type occurs: {:?}", compared.by_type);
    assert_eq!(compared.unknown, compared.by_type[&'h'] + compared.by_type[&'O']);
}

#[test]
fn all_read_every_message_of_the_captures_alike() {
    let Some(data) = market_data("all_read_every_message_of_the_captures_alike") else { return };
    let mut compared = Compared::default();
    let mut payload = |payload: &[u8]| {
        for message in Packet::parse(payload).unwrap().messages().flatten() {
            compared.message(message);
        }
    };
    for folder in
        ["Nasdaq.Equities.TotalView.Itch.v5.0", "Psx.Equities.TotalView.Itch.v5.0.20230822"]
    {
        for capture in captures(&data.join("omi-pcap").join(folder)) {
            frames(&capture)
                .iter()
                .filter_map(|frame| udp_payload(frame))
                .for_each(|p| payload(&p));
        }
    }
    assert_eq!((compared.total(), compared.refused), (97, 0), "{:?}", compared.by_type);
}

#[test]
fn all_read_the_binary_file_alike() {
    let Some(data) = market_data("all_read_the_binary_file_alike") else { return };
    let mut file = BinaryFile::open(&data.join("itch-binaryfile/ex20101224.TEST_ITCH_50")).unwrap();
    let mut compared = Compared::default();
    // Its lengths are blank: the peers get the true ones.
    while let Some(message) = file.next_message().unwrap() {
        compared.message(message);
    }
    assert_eq!(compared.total(), 12_012);
    assert_eq!((compared.refused, compared.unknown), (0, 0));
}

/// The difference that keeps two types from the comparison, so that it is noticed when it goes.
#[test]
fn itchy_knows_all_types_but_two() {
    for &code in nautilus_dataplane::feed::itch::messages::CODES {
        let length = nautilus_dataplane::feed::itch::length_of(code).unwrap();
        // Spaces are no value of most codes: refused, but without a panic.
        let mut bytes = vec![b' '; length];
        bytes[0] = code;
        assert!(Message::decode(&bytes).is_ok());
        let mut framed = (length as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        framed.resize(128, 0);
        let read = || itchy::MessageStream::from_reader(framed.as_slice()).next().is_some();
        let panics = std::panic::catch_unwind(read).is_err();
        assert_eq!(panics, !itchy_agrees::is_known(code), "{:?}", char::from(code));
    }
}
