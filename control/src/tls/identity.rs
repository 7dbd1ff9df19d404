//! Who a certificate is for: one URI among its names,
//! `spiffe://SITE/ROLE/KIND/NAME`, such as `spiffe://ny4/operator/person/alice`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::id;
use crate::roles::Role;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A node's supervisor.
    Node,
    /// Somebody.
    Person,
    /// A control daemon: the only kind that may serve.
    Control,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Person => "person",
            Self::Control => "control",
        }
    }

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Node, Self::Person, Self::Control].into_iter().find(|kind| kind.name() == name)
    }
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The site whose authority speaks for it.
    pub site: String,
    /// What it may do.
    pub role: Role,
    /// What it is.
    pub kind: Kind,
    /// Its name, by the rule for ids.
    pub name: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, kind) = (self.role.name(), self.kind.name());
        write!(formatter, "spiffe://{}/{role}/{kind}/{}", self.site, self.name)
    }
}

impl Identity {
    /// Reads a URI, strictly.
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let (site, role, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let identity = Self {
            site: site.into(),
            role: Role::of(role)?,
            kind: Kind::of(kind)?,
            name: name.into(),
        };
        let whole = parts.next().is_none() && id::is_valid(site) && id::is_valid(name);
        whole.then_some(identity)
    }
}

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Who it is for.
    pub identity: Identity,
    /// Its serial number, as hexadecimal.
    pub serial: String,
    /// When it ends, in seconds since 1970.
    pub not_after_s: i64,
}

impl Subject {
    /// Reads a certificate that has been verified. It must have exactly one URI.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err("the certificate does not have exactly one URI among its names".into());
        };
        let identity = Identity::parse(uri)
            .ok_or_else(|| format!("{uri:?} is no spiffe://SITE/ROLE/KIND/NAME"))?;
        Ok(Self {
            identity,
            serial: serial_text(certificate.raw_serial()),
            not_after_s: certificate.validity().not_after.timestamp(),
        })
    }

    /// The same of a file whose first certificate it is.
    pub fn of_file(path: &Path) -> Result<Self, TlsError> {
        let chain = super::pem::certificates(path)?;
        Self::of(&chain[0]).map_err(|reason| TlsError::Content { path: path.into(), reason })
    }
}

/// A serial number as it is written everywhere here: hexadecimal without leading zero bytes.
pub fn serial_text(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    crate::audit::hex(&bytes[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_identities_are_read() {
        let text = "spiffe://ny4/operator/person/alice";
        let identity = Identity::parse(text).unwrap();
        assert_eq!((identity.role, identity.kind), (Role::Operator, Kind::Person));
        assert_eq!(identity.to_string(), text);
        for wrong in [
            "",
            "spiffe://ny4/operator/person",
            "spiffe://ny4/operator/person/alice/",
            "spiffe://ny4/owner/person/alice",
            "spiffe://ny4/admin/host/alice",
            "spiffe://NY4/admin/person/alice",
            "spiffe:///admin/person/alice",
            "https://ny4/admin/person/alice",
            "spiffe://ny4/admin/person/alice?role=viewer",
            "spiffe://ny4/admin/person/%61lice",
        ] {
            assert_eq!(Identity::parse(wrong), None, "{wrong}");
        }
    }
}
