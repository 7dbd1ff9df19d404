//! The recorded trace: block requests of a virtual machine (`cache/cloudphysics` in the data folder),
//! 24-byte little-endian records of time, object, bytes, next use.

use std::path::Path;

use anyhow::Context;

use super::{Access, Key};

/// Bytes of a record.
const RECORD_BYTES: usize = 24;

/// Sizes the published figures are for, in MiB.
pub const SIZES_MIB: [u32; 8] = [128, 256, 384, 512, 640, 768, 896, 1024];

/// Every object's size is a multiple of this many bytes.
pub const BLOCK_BYTES: u32 = 512;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which object.
    pub object: u64,
    /// Its size, which never changes.
    pub bytes: u32,
}

impl Request {
    /// The read it is to a key-value cache.
    pub fn access(&self) -> Access {
        let key = Key::new(&format!("{:016x}", self.object));
        Access { key, value_bytes: self.bytes, write: false }
    }
}

/// Reads the trace from the data folder.
pub fn read(data: &Path) -> anyhow::Result<Vec<Request>> {
    let path = data.join("cache/cloudphysics/cloudPhysicsIO.oracleGeneral.bin");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    anyhow::ensure!(rest.is_empty(), "{}: a record is cut off", path.display());
    let requests = records.iter().map(|record| {
        let [_, _, _, _, o0, o1, o2, o3, o4, o5, o6, o7, b0, b1, b2, b3, ..] = *record;
        let object = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        Request { object, bytes: u32::from_le_bytes([b0, b1, b2, b3]) }
    });
    let requests: Vec<Request> = requests.collect();
    anyhow::ensure!(
        requests.iter().all(|request| request.bytes.is_multiple_of(BLOCK_BYTES)),
        "{}: an object is no multiple of {BLOCK_BYTES} bytes",
        path.display()
    );
    Ok(requests)
}
