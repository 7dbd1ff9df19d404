//! The key that signs checkpoints. Its public half goes, as hexadecimal, to whoever verifies.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::AuditError;
use super::record::hex;
use crate::secret;

/// An Ed25519 key pair.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl SigningKey {
    /// The key in `path` (PKCS #8); made there, with its public half in `path` + `.pub`, when there
    /// is none.
    pub fn load_or_make(path: &Path) -> Result<Self, AuditError> {
        let wrong = |reason: String| AuditError::Key { path: path.into(), reason };
        if !path.exists() {
            let made = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
                .map_err(|_| wrong("no key could be made".into()))?;
            let key = Self::of(path, made.as_ref())?;
            let public = path.with_added_extension("pub");
            write_new(&public, 0o644, (key.public.clone() + "\n").as_bytes())
                .and_then(|()| write_new(path, 0o600, made.as_ref()))
                .map_err(|error| wrong(error.to_string()))?;
            return Ok(key);
        }
        let bytes = secret::read_private(path).map_err(|error| wrong(error.to_string()))?;
        Self::of(path, bytes.expose())
    }

    fn of(path: &Path, pkcs8: &[u8]) -> Result<Self, AuditError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| AuditError::Key {
            path: path.into(),
            reason: format!("no Ed25519 key in PKCS #8: {error}"),
        })?;
        let public = hex(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// The public half, as hexadecimal.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The signature of a checkpoint, as hexadecimal.
    pub(super) fn sign(&self, trail: &str, sequence: u64, time: &str, head: &str) -> String {
        let text = format!("nautilus audit checkpoint 1\n{trail}\n{sequence}\n{time}\n{head}\n");
        hex(self.pair.sign(text.as_bytes()).as_ref())
    }
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
