//! Enrolment tokens: they let one node or person ask once, within a quarter of an hour, for the certificate
//! that the token names. Stored as a hash; a token also says which authority it is of, so that who enrols
//! can tell that it talks to that one.
//!
//! `nautilus1.SECRET.FINGERPRINT`, both 64 hexadecimal digits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::authority::{Authority, fingerprint, now_s};
use super::identity::Identity;
use super::{TlsError, pem};
use crate::audit::hex;
use crate::secret::Secret;

/// How long a token may be used. Too low: who enrols a rack by hand does not get there; too high: a
/// token left in a terminal is worth stealing.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);

const FRONT: &str = "nautilus1";

#[derive(Serialize, Deserialize)]
struct Stored {
    identity: Identity,
    expires_s: u64,
}

/// A token as its holder has it.
pub struct Token {
    secret: Secret,
    /// SHA-256 of the authority's certificate.
    pub fingerprint: [u8; 32],
}

impl Token {
    /// Reads a token.
    pub fn parse(text: &Secret) -> Result<Self, TlsError> {
        let wrong = || TlsError::Refused("this is no enrolment token".into());
        let text = std::str::from_utf8(text.expose()).map_err(|_| wrong())?;
        let mut parts = text.trim().split('.');
        let (front, secret, print) = (parts.next(), parts.next(), parts.next());
        let (Some(FRONT), Some(secret), Some(print), None) = (front, secret, print, parts.next())
        else {
            return Err(wrong());
        };
        let fingerprint = digits(print).ok_or_else(wrong)?;
        digits(secret).ok_or_else(wrong)?;
        Ok(Self { secret: Secret::new(secret.as_bytes().to_vec()), fingerprint })
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join("tokens").join(format!("{}.json", hex(&fingerprint(self.secret.expose()))))
    }
}

impl Authority {
    /// Makes a token for one identity.
    pub fn token(&self, identity: &Identity, lifetime: Duration) -> Result<Secret, TlsError> {
        let mut random = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *random)
            .map_err(|_| TlsError::Refused("no random numbers".into()))?;
        let secret = zeroize::Zeroizing::new(hex(&*random));
        let print = hex(&self.fingerprint());
        let text = Secret::new(format!("{FRONT}.{}.{print}", *secret).into_bytes());
        let stored = Stored { identity: identity.clone(), expires_s: now_s() + lifetime.as_secs() };
        // Strings and numbers of ours always serialize.
        let bytes = serde_json::to_vec(&stored).unwrap_or_default();
        pem::replace(&Token::parse(&text)?.path(self.dir()), 0o600, &bytes)?;
        Ok(text)
    }

    /// Uses a token up, for the identity of this kind and name. Of two that try at once one succeeds.
    pub fn redeem(&self, token: &Token, kind: &str, name: &str) -> Result<Identity, TlsError> {
        let refuse = |reason: &str| Err(TlsError::Refused(reason.into()));
        if token.fingerprint != self.fingerprint() {
            return refuse("the token is of another authority");
        }
        let path = token.path(self.dir());
        let Ok(bytes) = std::fs::read(&path) else {
            return refuse("the token is unknown or was used");
        };
        let stored: Stored = serde_json::from_slice(&bytes)
            .map_err(|error| TlsError::Content { path: path.clone(), reason: error.to_string() })?;
        if stored.expires_s <= now_s() {
            return refuse("the token has expired");
        }
        let identity = stored.identity;
        if super::identity::Kind::of(kind) != Some(identity.kind) || identity.name != name {
            return refuse("the token is for another name");
        }
        // The one place where a token is spent: a second rename finds nothing.
        let used = path.with_extension("used");
        if std::fs::rename(&path, &used).is_err() {
            return refuse("the token is unknown or was used");
        }
        let synced = std::fs::File::open(self.dir().join("tokens")).and_then(|dir| dir.sync_all());
        synced.map_err(|source| TlsError::Io { path: used, source })?;
        Ok(identity)
    }
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
