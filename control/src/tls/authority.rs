//! The site's own certificate authority: a folder with its key, what it issued and what it revoked.
//!
//! ```text
//!   ca.pem  ca.key (0600)  revoked.pem     issued/SERIAL.json     tokens/HASH.json
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, Kind, serial_text};
use super::{TlsError, pem};
use crate::id;
use crate::secret::read_private;

/// Clocks that differ by less accept a new certificate at once. Too low: a slow clock refuses it; too
/// high: a certificate is valid before it was asked for.
const SKEW: Duration = Duration::from_secs(300);

/// How long the authority itself is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// An open authority.
pub struct Authority {
    dir: PathBuf,
    site: String,
    certificate_pem: String,
    fingerprint: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
}

/// What was issued, and whether it still counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Issued {
    /// Serial number, as hexadecimal.
    pub serial: String,
    /// Who it is for.
    pub identity: String,
    /// When it ends, seconds since 1970.
    pub not_after_s: u64,
    /// When it was revoked.
    pub revoked_s: Option<u64>,
}

impl Authority {
    /// Makes an authority in a folder that has none.
    pub fn init(dir: &Path, site: &str) -> Result<Self, TlsError> {
        if !id::is_valid(site) {
            return Err(TlsError::Refused(format!("site {site:?}: {}", id::RULE)));
        }
        if dir.join("ca.key").exists() {
            let reason = format!("{} has an authority already", dir.display());
            return Err(TlsError::Refused(reason));
        }
        for folder in [dir.to_owned(), dir.join("issued"), dir.join("tokens")] {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(&folder);
            made.map_err(|source| TlsError::Io { path: folder, source })?;
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let (from, until) = validity(AUTHORITY_LIFETIME);
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(1970, 1, 1) + until;
        params.serial_number = Some(serial()?);
        params.distinguished_name.push(DnType::CommonName, format!("Nautilus {site}"));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{site}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        pem::replace(&dir.join("ca.pem"), 0o644, certificate.pem().as_bytes())?;
        pem::replace(&dir.join("site"), 0o644, site.as_bytes())?;
        let secret = zeroize::Zeroizing::new(key.serialize_pem());
        pem::replace(&dir.join("ca.key"), 0o600, secret.as_bytes())?;
        let authority = Self::load(dir)?;
        authority.write_revoked()?;
        Ok(authority)
    }

    /// Opens the authority of a folder.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let path = dir.join("ca.key");
        let secret = read_private(&path)?;
        let text = std::str::from_utf8(secret.expose());
        let text = text.map_err(|_| TlsError::Content { path, reason: "not PEM".into() })?;
        let key = KeyPair::from_pem(text)?;
        let path = dir.join("ca.pem");
        let bytes = pem::read(&path)?;
        let certificate = pem::certificates_in(&path, &bytes)?.remove(0);
        let site = pem::read(&dir.join("site"))?;
        Ok(Self {
            dir: dir.into(),
            site: String::from_utf8_lossy(&site).trim().into(),
            certificate_pem: String::from_utf8_lossy(&bytes).into_owned(),
            fingerprint: fingerprint(&certificate),
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
        })
    }

    /// The site it speaks for.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Issues a certificate for a key that signed `request`, which decides nothing else. Returns the
    /// chain: the certificate, then the authority's own, by which who enrols knows it. `names` are
    /// host names and addresses under which a control serves.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[String],
        request: &str,
        lifetime: Duration,
    ) -> Result<String, TlsError> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
        let (from, until) = validity(lifetime);
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(1970, 1, 1) + until;
        let serial = serial()?;
        params.serial_number = Some(serial.clone());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, identity.name.clone());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.kind == Kind::Control {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        // Known before it is given away: what is not listed cannot be revoked.
        self.write_issued(&Issued {
            serial: serial_text(&serial.to_bytes()),
            identity: identity.to_string(),
            not_after_s: now_s() + lifetime.as_secs(),
            revoked_s: None,
        })?;
        Ok(certificate.pem() + &self.certificate_pem)
    }

    /// Revokes by serial number, and writes the list anew.
    pub fn revoke(&self, serial: &str) -> Result<Issued, TlsError> {
        // Two at once would each write the list without what the other revoked.
        let _one = self.lock()?;
        let mut issued = self.issued()?.into_iter().find(|issued| issued.serial == serial);
        let Some(issued) = &mut issued else {
            return Err(TlsError::Refused(format!(
                "no certificate with serial {serial} was issued"
            )));
        };
        issued.revoked_s = Some(issued.revoked_s.unwrap_or_else(now_s));
        self.write_issued(issued)?;
        self.write_revoked()?;
        Ok(issued.clone())
    }

    /// All that was issued.
    pub fn issued(&self) -> Result<Vec<Issued>, TlsError> {
        let dir = self.dir.join("issued");
        let wrong = |source| TlsError::Io { path: dir.clone(), source };
        let mut issued = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let read = serde_json::from_slice(&pem::read(&path)?);
                issued.push(
                    read.map_err(|error| TlsError::Content { path, reason: error.to_string() })?,
                );
            }
        }
        issued.sort_by(|one: &Issued, other| one.serial.cmp(&other.serial));
        Ok(issued)
    }

    fn lock(&self) -> Result<std::fs::File, TlsError> {
        let path = self.dir.join("lock");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        file.and_then(|file| file.lock().map(|()| file))
            .map_err(|source| TlsError::Io { path, source })
    }

    fn write_issued(&self, issued: &Issued) -> Result<(), TlsError> {
        let path = self.dir.join("issued").join(format!("{}.json", issued.serial));
        // Strings and numbers of ours always serialize.
        pem::replace(&path, 0o600, &serde_json::to_vec(issued).unwrap_or_default())
    }

    fn write_revoked(&self) -> Result<(), TlsError> {
        let revoked = self.issued()?.into_iter().filter_map(|issued| {
            let at = Duration::from_secs(issued.revoked_s?);
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes_of(&issued.serial)),
                revocation_time: date_time_ymd(1970, 1, 1) + at,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let (from, until) = validity(AUTHORITY_LIFETIME);
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + from,
            next_update: date_time_ymd(1970, 1, 1) + until,
            crl_number: SerialNumber::from_slice(&now_s().to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer)?;
        pem::replace(&self.dir.join("revoked.pem"), 0o644, list.pem()?.as_bytes())
    }
}

/// A new key, as PEM, and the request that it signs.
pub fn request() -> Result<(zeroize::Zeroizing<String>, String), TlsError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok((zeroize::Zeroizing::new(key.serialize_pem()), request))
}

/// SHA-256 of a certificate.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// From a little before now until `lifetime` from now, both since 1970.
fn validity(lifetime: Duration) -> (Duration, Duration) {
    let now = Duration::from_secs(now_s());
    (now.saturating_sub(SKEW), now + lifetime)
}

/// A serial number of 16 random bytes; the first bit is 0 and the first byte is not, so that it is one
/// number in every notation.
fn serial() -> Result<SerialNumber, TlsError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TlsError::Refused("no random numbers".into()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
