//! The frames of the captures that lie beside the repository.

use std::path::Path;

use nautilus_dataplane::replay::pcap::{PcapError, PcapReader};

/// Every frame of the `*.pcap` files in `folder`, in order of file name, as captured.
pub fn frames(folder: &Path) -> Result<Vec<Vec<u8>>, PcapError> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    files.sort();
    let mut frames = Vec::new();
    for file in files {
        let mut reader = PcapReader::open(&file)?;
        while let Some(record) = reader.next_record()? {
            frames.push(record.data.to_vec());
        }
    }
    Ok(frames)
}
