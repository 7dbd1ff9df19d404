//! The verifier of audit trails. It shares no code with what writes them: both follow the format in
//! `../audit/README.md`, and this one trusts nothing but the keys it is given.

mod chain;
mod export;
mod line;

use std::path::Path;

pub use chain::{Expected, Report, verify};
pub use export::{Format, Window, archive, export};

/// Files of one trail: name and bytes, in the order of their names.
pub type Files = Vec<(String, Vec<u8>)>;

/// The first thing that does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}, byte {at_bytes}, after record {after}: {what}")]
pub struct Fault {
    /// In which file.
    pub file: String,
    /// Where its line begins.
    pub at_bytes: usize,
    /// The last record that held.
    pub after: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a trail was not verified or exported.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// It does not hold.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A key, a head or a time is not written as one.
    #[error("{0}")]
    Usage(String),
}

/// Reads the files of a trail.
pub fn load(dir: &Path) -> Result<Files, VerifierError> {
    let wrong = |path: &Path| {
        let path = path.display().to_string();
        move |source| VerifierError::Io { path, source }
    };
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).map_err(wrong(dir))? {
        let path = entry.map_err(wrong(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("audit-") && name.ends_with(".log") {
            files.push((name, std::fs::read(&path).map_err(wrong(&path))?));
        }
    }
    files.sort();
    Ok(files)
}

/// The public keys in a file: one a line, 64 hexadecimal digits.
pub fn keys_in(path: &Path) -> Result<Vec<[u8; 32]>, VerifierError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| VerifierError::Io { path: path.display().to_string(), source })?;
    let wrong =
        || VerifierError::Usage(format!("{}: not 64 hexadecimal digits a line", path.display()));
    let keys: Option<Vec<_>> = text.split_whitespace().map(line::digits).collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(wrong)
}

/// A hash from 64 hexadecimal digits.
pub fn hash_of(text: &str) -> Option<[u8; 32]> {
    line::digits(text)
}

/// A hash as 64 hexadecimal digits.
pub fn hash_text(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
