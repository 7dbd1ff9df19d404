//! Reads classic pcap files of either byte order, micro- or nanoseconds. Times are not kept.
//! Source: the `pcap-savefile` manual page of libpcap.

use std::fs;
use std::path::{Path, PathBuf};

/// One captured frame: as many bytes as were kept.
pub struct Captured {
    /// File name and frame number from 1.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Every frame of every `*.pcap` below `folder`, files in name order.
pub fn frames(folder: &Path) -> Vec<Captured> {
    let mut files = Vec::new();
    find(folder, &mut files);
    files.sort();
    files.iter().flat_map(|file| read(file)).collect()
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "pcap") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> Vec<Captured> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let bytes = fs::read(file).unwrap();
    let little = match bytes.first_chunk::<4>() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => true,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => false,
        other => panic!("{name}: not a pcap: {other:02x?}"),
    };
    let word = |at: usize| {
        let word = bytes[at..at + 4].try_into().unwrap();
        if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
    };
    assert_eq!(word(20) & 0xffff, 1, "{name}: not Ethernet");
    let (mut frames, mut at) = (Vec::new(), 24);
    while at + 16 <= bytes.len() {
        let end = at + 16 + word(at + 8) as usize;
        let frame = bytes[at + 16..end.min(bytes.len())].to_vec();
        frames.push(Captured { name: format!("{name} frame {}", frames.len() + 1), bytes: frame });
        at = end;
    }
    frames
}
