//! Bytes that nobody else may see: they are never printed, and overwritten when they go. A
//! configuration names them (`file:PATH`, `env:NAME`) and never holds them.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest secret, in bytes. Too low: a chain of keys does not fit; too high: a wrong path reads a disk.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret. `Debug` shows nothing of it.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a secret could not be had. No message holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// What the configuration says names nothing.
    #[error("a secret is named by file:PATH or env:NAME and never written out")]
    Reference,
    /// There is no such variable.
    #[error("env:{0} is not set")]
    Variable(String),
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("{} has mode {mode:03o}: only its owner may read it (chmod 600)", path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no secret's size.
    #[error("{} is longer than {SECRET_BYTES_MAX} bytes", .0.display())]
    Long(PathBuf),
}

impl Secret {
    /// Takes bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// What `reference` names: `file:PATH`, whose end of line is cut, or `env:NAME`.
    pub fn resolve(reference: &str) -> Result<Self, SecretError> {
        match reference.split_once(':') {
            Some(("file", path)) => {
                let mut secret = read_private(Path::new(path))?;
                while secret.0.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    secret.0.pop();
                }
                Ok(secret)
            }
            Some(("env", name)) => std::env::var_os(name)
                .map(|value| Self::new(std::os::unix::ffi::OsStringExt::into_vec(value)))
                .ok_or_else(|| SecretError::Variable(name.into())),
            _ => Err(SecretError::Reference),
        }
    }

    /// The bytes, for whom they are meant.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// A file that its owner alone may read.
pub fn read_private(path: &Path) -> Result<Secret, SecretError> {
    let wrong = |source| SecretError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mode = file.metadata().map_err(wrong)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode { path: path.into(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 1));
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::Long(path.into()));
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_named_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let reference = format!("file:{}", path.display());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Secret::resolve(&reference), Err(SecretError::Mode { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = Secret::resolve(&reference).unwrap();
        assert_eq!(secret.expose(), b"hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
        for wrong in ["hunter2", "", "https://x", "env:NAUTILUS_TEST_IS_NOT_SET"] {
            let error = Secret::resolve(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Secret::resolve("env:PATH").is_ok_and(|path| !path.expose().is_empty()));
    }
}
