//! Certificates, keys and lists of revoked certificates out of PEM, and files that are whole or not there.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsError;
use crate::secret::Secret;

/// The certificates in a file, in order; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_in(path, &read(path)?)
}

/// The same of its bytes; `path` is for messages.
pub fn certificates_in(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    some(path, found, "certificate")
}

/// The lists in a file; at least one.
pub fn revocation_lists_in(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    some(path, found, "list of revoked certificates")
}

fn some<T>(
    path: &Path,
    found: Result<Vec<T>, rustls::pki_types::pem::Error>,
    what: &str,
) -> Result<Vec<T>, TlsError> {
    let reason = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => format!("no {what} in it"),
        Err(error) => format!("{what}: {error}"),
    };
    Err(TlsError::Content { path: path.into(), reason })
}

/// A private key out of PEM.
pub fn key(secret: &Secret) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(secret.expose())
        .map_err(|_| TlsError::Refused("tls key: no private key in PEM".into()))
}

/// A whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Io { path: path.into(), source })
}

/// Puts a file in place at once: readers see the old one or the new one.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), TlsError> {
    let draft = path.with_added_extension("new");
    let written = || {
        // One that a crash left may have another mode.
        let _ = std::fs::remove_file(&draft);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        std::fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|source| TlsError::Io { path: path.into(), source })
}
