//! What the listener presents and accepts. The files are read again when they change: new connections see
//! the new ones, old connections keep what they began with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::authority::now_s;
use super::identity::{Subject, serial_text};
use super::{TlsError, pem, provider};
use crate::secret::Secret;

/// Where the listener's certificate and what it trusts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, then the rest of its chain, as PEM.
    pub certificate: PathBuf,
    /// Our key, as PEM: `file:PATH` (the same file will do) or `env:NAME`.
    pub key: String,
    /// Whose certificates clients must have, as PEM.
    pub ca: PathBuf,
    /// Certificates that no longer count, as PEM.
    pub revoked: Option<PathBuf>,
    /// Whether clients without a certificate get as far as enrolment.
    pub enrolment: bool,
}

/// What is in the files now.
pub struct ServerTls {
    files: TlsFiles,
    current: ArcSwap<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    revoked: BTreeSet<String>,
    print: [u8; 32],
}

impl ServerTls {
    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(Current::read(&files)?);
        Ok(Self { files, current })
    }

    /// What new connections are given.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Where the files lie.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Whether a certificate was revoked, also one that a connection began with.
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.current.load().revoked.contains(serial)
    }

    /// Reads the files again and says whether they changed. On an error all stays as it was: a file may
    /// be half replaced.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if Contents::read(&self.files)?.print() == self.current.load().print {
            return Ok(false);
        }
        self.current.store(Arc::new(Current::read(&self.files)?));
        Ok(true)
    }
}

struct Contents {
    certificate: Vec<u8>,
    key: Secret,
    ca: Vec<u8>,
    revoked: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: pem::read(&files.certificate)?,
            key: Secret::resolve(&files.key)?,
            ca: pem::read(&files.ca)?,
            revoked: files.revoked.as_deref().map(pem::read).transpose()?,
        })
    }

    fn print(&self) -> [u8; 32] {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let revoked = self.revoked.as_deref().unwrap_or_default();
        for part in [&self.certificate, self.key.expose(), &self.ca, revoked] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut print = [0; 32];
        print.copy_from_slice(context.finish().as_ref());
        print
    }
}

impl Current {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        let print = contents.print();
        let chain = pem::certificates_in(&files.certificate, &contents.certificate)?;
        check_our_own(&files.certificate, &chain[0])?;
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates_in(&files.ca, &contents.ca)? {
            roots.add(certificate)?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let mut revoked = BTreeSet::new();
        if let (Some(path), Some(bytes)) = (&files.revoked, &contents.revoked) {
            let lists = pem::revocation_lists_in(path, bytes)?;
            for list in &lists {
                let (_, list) = CertificateRevocationList::from_der(list).map_err(|error| {
                    TlsError::Content { path: path.clone(), reason: error.to_string() }
                })?;
                let serials = list.iter_revoked_certificates();
                revoked.extend(serials.map(|entry| serial_text(entry.raw_serial())));
            }
            verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
        }
        if files.enrolment {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build().map_err(|error| TlsError::Verifier(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, pem::key(&contents.key)?)?;
        // A resumed session would skip looking at the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), revoked, print })
    }
}

/// A certificate that nobody would accept is not put in the place of one that works.
fn check_our_own(path: &Path, der: &[u8]) -> Result<(), TlsError> {
    let wrong = |reason: String| TlsError::Content { path: path.into(), reason };
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
        .map_err(|error| wrong(error.to_string()))?;
    let validity = certificate.validity();
    let now = i64::try_from(now_s()).unwrap_or(i64::MAX);
    if now >= validity.not_after.timestamp() {
        return Err(wrong("the certificate has expired".into()));
    }
    if now < validity.not_before.timestamp() {
        return Err(wrong("the certificate is not valid yet".into()));
    }
    Ok(())
}

/// Who is on the other side, by its verified certificate.
pub fn subject_of(connection: &rustls::ServerConnection) -> Option<Result<Subject, String>> {
    Some(Subject::of(connection.peer_certificates()?.first()?))
}
