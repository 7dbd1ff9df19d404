//! What the feed's tests share: where the external data is, and how a capture becomes payloads.
#![allow(dead_code)]

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
