//! TLS 1.3 with certificates on both sides, and the site's own authority for them.
//!
//! ```text
//!   nautilus-ca init, issue, token, revoke --> ca/ (key, list of revoked)
//!                                                |
//!   node: enrol, renew --HTTPS--> nautilus-control   certificate, key, CA, revoked: read again every
//!                                 listener.rs <----- second; connections keep what they began with
//! ```

pub mod authority;
pub mod client;
pub mod enrolment;
pub mod identity;
mod issuing;
pub mod listener;
pub mod pem;
pub mod renewal;
pub mod server;
pub mod token;

use std::path::PathBuf;

use crate::secret::SecretError;

/// Why something about certificates did not work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key could not be had.
    #[error("tls key: {0}")]
    Secret(#[from] SecretError),
    /// rustls refused what it was given.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    /// The certificates of clients cannot be verified with what is configured.
    #[error("tls: client certificates: {0}")]
    Verifier(String),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// An identity, token or answer is not one.
    #[error("{0}")]
    Refused(String),
}

/// The provider, with the hybrid of X25519 and ML-KEM-768 first.
pub fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
