//! Where a demonstration's market data comes from, and which symbols occur in it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nautilus_dataplane::feed::moldudp64::Packet;
use nautilus_dataplane::feed::record::{Key, Value};
use nautilus_dataplane::feed::{Symbol, Venue};
use nautilus_dataplane::replay::binary_file::BinaryFile;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::pcap::PcapReader;

use crate::forge;

/// Symbols that are read; more would not change the picture.
const SYMBOLS_MAX: usize = 200;

/// One source of ITCH 5.0 messages.
#[derive(Clone, Debug)]
pub enum FeedSource {
    /// The seeded generator.
    Generator(GeneratorSpec),
    /// A capture of MoldUDP64 frames.
    Capture(PathBuf),
    /// A BinaryFILE.
    BinaryFile(PathBuf),
}

impl FeedSource {
    /// The kind of `file`, by its first bytes: a capture or else a BinaryFILE.
    pub fn of_file(file: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let capture = [
            [0xd4, 0xc3, 0xb2, 0xa1],
            [0xa1, 0xb2, 0xc3, 0xd4],
            [0x4d, 0x3c, 0xb2, 0xa1],
            [0xa1, 0xb2, 0x3c, 0x4d],
        ];
        Ok(match bytes.get(..4) {
            None => bail!("{}: empty", file.display()),
            Some(magic) if capture.iter().any(|one| one == magic) => Self::Capture(file.into()),
            Some(_) => Self::BinaryFile(file.into()),
        })
    }

    /// What `nautilus-replay` is told to send it.
    pub fn replay_arguments(&self) -> Vec<OsString> {
        match self {
            Self::Generator(spec) => [
                ("--seed", spec.seed),
                ("--symbols", spec.symbols.into()),
                ("--messages", spec.messages),
                ("--rate", spec.rate),
            ]
            .iter()
            .flat_map(|(name, value)| [OsString::from(name), value.to_string().into()])
            .chain([OsString::from("--generate")])
            .collect(),
            Self::Capture(file) => vec!["--pcap".into(), file.into()],
            Self::BinaryFile(file) => vec!["--itch".into(), file.into()],
        }
    }

    /// The keys of the best bid/offer of the symbols that occur, at most 200.
    pub fn bbo_keys(&self, venue: &str) -> anyhow::Result<Vec<String>> {
        let venue = Venue::new(venue).context("a venue is lower-case letters")?;
        let mut symbols = BTreeSet::new();
        match self {
            Self::Generator(spec) => {
                let mut generator = Generator::new(*spec)?;
                while symbols.len() < usize::from(spec.symbols).min(SYMBOLS_MAX) {
                    let Some(message) = generator.next_message() else { break };
                    symbols.extend(symbol_of(message));
                }
            }
            Self::BinaryFile(path) => {
                let mut file = BinaryFile::open(path)?;
                while let Some(message) = file.next_message()? {
                    symbols.extend(symbol_of(message));
                }
            }
            Self::Capture(path) => {
                let mut reader = PcapReader::open(path)?;
                while let Some(record) = reader.next_record()? {
                    let Some(offsets) = forge::udp_offsets(record.data) else { continue };
                    let Ok(packet) = Packet::parse(&record.data[offsets.udp + 8..]) else {
                        continue;
                    };
                    symbols.extend(packet.messages().flatten().filter_map(symbol_of));
                }
            }
        }
        let keys: Vec<String> = symbols
            .into_iter()
            .take(SYMBOLS_MAX)
            .filter_map(|symbol| {
                let key = Key::new(&venue, Symbol(symbol), Value::Bbo)?;
                String::from_utf8(key.as_bytes().to_vec()).ok()
            })
            .collect();
        if keys.is_empty() {
            bail!("no message with a symbol: is this ITCH 5.0?");
        }
        Ok(keys)
    }
}

/// The symbol that an order-adding message names: `A` and `F` of ITCH 5.0, sections 1.3.1 and 1.3.2
/// (stock at offset 24). Only these give a symbol a best bid/offer.
fn symbol_of(message: &[u8]) -> Option<[u8; 8]> {
    match message.first()? {
        b'A' | b'F' => message.get(24..32)?.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::data_or_skip;

    #[test]
    fn every_generated_symbol_is_read() {
        let spec = GeneratorSpec { seed: 1, symbols: 20, messages: 100_000, rate: 10_000 };
        let keys = FeedSource::Generator(spec).bbo_keys("nasdaq").unwrap();
        assert_eq!(keys.len(), 20);
        assert!(keys.iter().all(|key| key.starts_with("md:nasdaq:") && key.ends_with(":bbo")));
    }

    #[test]
    fn files_are_told_apart_by_their_bytes() {
        let Some(data) = data_or_skip("files_are_told_apart_by_their_bytes") else { return };
        let folder = data.join("marketdata");
        let itch = FeedSource::of_file(&folder.join("itch-binaryfile/ex20101224.TEST_ITCH_50"));
        let itch = itch.unwrap();
        assert!(matches!(itch, FeedSource::BinaryFile(_)));
        assert!(!itch.bbo_keys("nasdaq").unwrap().is_empty());
        let captures = folder.join("omi-pcap/Nasdaq.Equities.TotalView.Itch.v5.0");
        let capture = std::fs::read_dir(captures)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().contains("AddOrderNoMpid"));
        let capture = FeedSource::of_file(&capture.expect("a capture of added orders")).unwrap();
        assert!(matches!(capture, FeedSource::Capture(_)));
        assert!(!capture.bbo_keys("nasdaq").unwrap().is_empty());
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(FeedSource::of_file(empty.path()).is_err());
    }
}
