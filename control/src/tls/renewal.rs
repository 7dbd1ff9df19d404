//! A control beside its authority renews its own certificate in time.

use std::path::Path;
use std::time::Duration;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authority, now_s, request};
use super::identity::{Kind, Subject};
use super::server::TlsFiles;
use super::{TlsError, pem};

/// Renews when less than one part in this many of a certificate's life is left. Too low: a control that
/// was off for long comes back too late; too high: certificates without need.
const LAST_PART: i64 = 3;

/// Puts a certificate with the same names and life in the place of one that ends soon, and says whether
/// it did. Needs key and certificate in one file: two cannot be replaced at once.
pub fn renew_own(authority: &Authority, files: &TlsFiles) -> Result<bool, TlsError> {
    let path = &files.certificate;
    if files.key.strip_prefix("file:").is_none_or(|key| Path::new(key) != path) {
        return Ok(false);
    }
    let chain = pem::certificates(path)?;
    let wrong = |reason: String| TlsError::Content { path: path.clone(), reason };
    let subject = Subject::of(&chain[0]).map_err(wrong)?;
    let identity = subject.identity;
    if identity.kind != Kind::Control || identity.site != authority.site() {
        return Ok(false);
    }
    let (_, certificate) =
        X509Certificate::from_der(&chain[0]).map_err(|error| wrong(error.to_string()))?;
    let life_s = subject.not_after_s - certificate.validity().not_before.timestamp();
    let left_s = subject.not_after_s - i64::try_from(now_s()).unwrap_or(i64::MAX);
    if left_s > life_s / LAST_PART {
        return Ok(false);
    }
    let names = certificate.subject_alternative_name().map_err(|error| wrong(error.to_string()))?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let names: Vec<String> = names.iter().filter_map(text_of).collect();
    let lifetime = Duration::from_secs(u64::try_from(life_s).unwrap_or(0));
    let (key, request) = request()?;
    let chain = authority.issue(&identity, &names, &request, lifetime)?;
    let both = zeroize::Zeroizing::new(format!("{}{chain}", *key));
    pem::replace(path, 0o600, both.as_bytes())?;
    Ok(true)
}

/// A host name or address under which it serves.
fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address =
                four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
