//! What the feed's tests share: where the external data is, and how a capture becomes payloads.
#![allow(dead_code)]

pub mod expected;

use nautilus_dataplane::app::{ChannelState, Keyspace, PutError};
use nautilus_dataplane::feed::moldudp64::{HEADER_BYTES, Session, write_header};
use nautilus_dataplane::replay::pcap::{LINK_TYPE_ETHERNET, PcapReader};
use std::path::{Path, PathBuf};

/// The market data folder, or `None` after printing why the test is skipped.
pub fn market_data(test: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("NAUTILUS_DATA") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let folder = root.join("marketdata");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED {test}: no external data at {} (set NAUTILUS_DATA)", folder.display());
    None
}

/// The captures of one folder, sorted by name.
pub fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

/// The frames of one capture.
pub fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::open(path).unwrap();
    assert_eq!(reader.link_type(), LINK_TYPE_ETHERNET);
    let mut frames = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        assert_eq!(record.wire_bytes as usize, record.data.len());
        frames.push(record.data.to_vec());
    }
    frames
}

/// The UDP payload of a frame by a parser that is not ours; `None` for anything but UDP.
pub fn udp_payload(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    match packet.transport {
        Some(etherparse::TransportSlice::Udp(udp)) => Some(udp.payload().to_vec()),
        _ => None,
    }
}

/// A keyspace in a map, which can be told to refuse writes.
#[derive(Default)]
pub struct MapKeyspace {
    /// Values by key, with their channel.
    pub values: std::collections::BTreeMap<Vec<u8>, (Vec<u8>, u8)>,
    /// Instant until which each channel is live; absent when suspect.
    pub live_until_ns: std::collections::BTreeMap<u8, u64>,
    /// Whether writes fail.
    pub full: bool,
    /// Writes tried.
    pub puts: u64,
}

impl MapKeyspace {
    /// What a reader gets at this instant.
    pub fn get(&self, key: &str, now_ns: u64) -> Option<&[u8]> {
        let (value, channel) = self.values.get(key.as_bytes())?;
        let live = *channel == 0
            || self.live_until_ns.get(channel).is_some_and(|until_ns| now_ns <= *until_ns);
        live.then_some(value)
    }
}

impl Keyspace for MapKeyspace {
    fn begin_channel(&mut self, channel: u8) {
        self.values.retain(|_, (_, owner)| *owner != channel);
        self.live_until_ns.remove(&channel);
    }

    fn put(&mut self, key: &[u8], value: &[u8], channel: u8, _: u64) -> Result<(), PutError> {
        self.puts += 1;
        if self.full {
            return Err(PutError::NoRoom);
        }
        self.values.insert(key.to_vec(), (value.to_vec(), channel));
        Ok(())
    }

    fn set_channel(&mut self, channel: u8, state: ChannelState) {
        match state {
            ChannelState::Suspect => self.live_until_ns.remove(&channel),
            ChannelState::LiveUntil(until_ns) => self.live_until_ns.insert(channel, until_ns),
        };
    }
}

/// One MoldUDP64 packet of these messages.
pub fn mold_packet(session: Session, sequence: u64, messages: &[&[u8]]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES];
    write_header(&mut header, session, sequence, messages.len() as u16);
    let mut packet = header.to_vec();
    for message in messages {
        packet.extend_from_slice(&(message.len() as u16).to_be_bytes());
        packet.extend_from_slice(message);
    }
    packet
}
