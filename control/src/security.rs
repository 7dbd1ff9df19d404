//! What `[control]` says about access: TLS, the authority, the users of this host, the audit trail.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::audit::AuditOptions;
use crate::peer::LocalRoles;
use crate::tls::server::TlsFiles;

/// Keys of `[control]` that are read here.
pub const KEYS: [&str; 5] = ["socket", "tls", "authority", "local", "audit"];

/// How access is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// A socket in the file system that answers too.
    pub socket: Option<PathBuf>,
    /// TLS; without it only loopback is listened on.
    pub tls: Option<TlsFiles>,
    /// The folder of the site's authority, if this control enrols and renews.
    pub authority: Option<PathBuf>,
    /// Roles of this host's users.
    pub local: LocalRoles,
    /// The audit trail.
    pub audit: Option<AuditOptions>,
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The keys as they stand in the file.
#[derive(Default, Deserialize)]
pub struct SecurityKeys {
    socket: Option<PathBuf>,
    tls: Option<TlsKeys>,
    authority: Option<PathBuf>,
    local: Option<LocalKeys>,
    audit: Option<AuditKeys>,
}

#[derive(Deserialize)]
struct TlsKeys {
    certificate: PathBuf,
    key: String,
    ca: PathBuf,
    revoked: Option<PathBuf>,
    #[serde(default)]
    enrolment: bool,
}

#[derive(Deserialize)]
struct LocalKeys {
    admins: Option<Vec<User>>,
    #[serde(default)]
    operators: Vec<User>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum User {
    Uid(u32),
    Name(String),
}

#[derive(Deserialize)]
struct AuditKeys {
    dir: PathBuf,
    key: Option<PathBuf>,
    rotate_mb: Option<u64>,
    keep_files: Option<usize>,
    checkpoint_records: Option<u64>,
    checkpoint_s: Option<u64>,
}

/// The first key that nothing reads, with its path below `[control]`.
pub fn unknown_key(control: &toml::Table) -> Option<String> {
    let sections: [(&str, &[&str]); 3] = [
        ("tls", &["certificate", "key", "ca", "revoked", "enrolment"]),
        ("local", &["admins", "operators"]),
        ("audit", &["dir", "key", "rotate_mb", "keep_files", "checkpoint_records", "checkpoint_s"]),
    ];
    sections.iter().find_map(|(section, known)| {
        let table = control.get(*section)?.as_table()?;
        let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
        Some(format!("{section}.{key}"))
    })
}

impl Security {
    /// Folders that the daemon writes in: of the trail and its key, of a certificate that it renews, of its socket; and
    /// the authority's.
    pub fn written(&self) -> Vec<PathBuf> {
        let mut files: Vec<&PathBuf> = self.socket.iter().collect();
        files.extend(self.tls.iter().map(|tls| &tls.certificate));
        files.extend(self.audit.iter().flat_map(|audit| [&audit.dir, &audit.key]));
        files.into_iter().map(|file| folder_of(file)).chain(self.authority.clone()).collect()
    }

    /// Checks what the file says. An error is the key's path below `[control]`, and what is wrong.
    pub fn of(keys: SecurityKeys) -> Result<Self, (String, String)> {
        let tls = keys.tls.map(|tls| TlsFiles {
            certificate: tls.certificate,
            key: tls.key,
            ca: tls.ca,
            revoked: tls.revoked,
            enrolment: tls.enrolment,
        });
        if let Some(tls) = &tls {
            let named = tls.key.starts_with("file:") || tls.key.starts_with("env:");
            if !named {
                // What stands there may be the key itself, so it is not shown.
                let reason = "name the key by file:PATH or env:NAME; it is never written here";
                return Err(("tls.key".into(), reason.into()));
            }
            if keys.audit.is_none() {
                let reason = "with TLS there must be an audit trail: add [control.audit]";
                return Err(("audit".into(), reason.into()));
            }
        }
        if keys.authority.is_some() && tls.is_none() {
            let reason = "certificates are issued over TLS: add [control.tls]";
            return Err(("authority".into(), reason.into()));
        }
        let enrolment = tls.as_ref().is_some_and(|tls| tls.enrolment);
        if enrolment && keys.authority.is_none() {
            let reason = "enrolment needs control.authority, which issues";
            return Err(("tls.enrolment".into(), reason.into()));
        }
        let local = keys.local.map(roles).transpose()?.unwrap_or_default();
        let audit = keys.audit.map(options).transpose()?;
        Ok(Self { socket: keys.socket, tls, authority: keys.authority, local, audit })
    }

    /// Refuses to serve the network without TLS.
    pub fn check_listen(&self, listen: SocketAddr) -> Result<(), String> {
        if self.tls.is_some() || listen.ip().is_loopback() {
            return Ok(());
        }
        Err(format!("{listen} is not loopback: without [control.tls] only this host is served"))
    }
}

fn roles(keys: LocalKeys) -> Result<LocalRoles, (String, String)> {
    let uids = |key: &str, users: Vec<User>| -> Result<Vec<u32>, (String, String)> {
        let uid = |user| match user {
            User::Uid(uid) => Ok(uid),
            User::Name(name) => match nix::unistd::User::from_name(&name) {
                Ok(Some(user)) => Ok(user.uid.as_raw()),
                _ => Err((format!("local.{key}"), format!("there is no user {name:?}"))),
            },
        };
        users.into_iter().map(uid).collect()
    };
    let default = LocalRoles::default();
    let admins = keys.admins.map(|users| uids("admins", users)).transpose()?;
    let operators = uids("operators", keys.operators)?;
    Ok(LocalRoles { admins: admins.unwrap_or(default.admins), operators })
}

fn options(keys: AuditKeys) -> Result<AuditOptions, (String, String)> {
    let mut options = AuditOptions::of(keys.dir);
    let bounded = |key: &str, value: Option<u64>, default: u64, max: u64| match value {
        Some(value) if !(1..=max).contains(&value) => {
            Err((format!("audit.{key}"), format!("{value} is not in 1..={max}")))
        }
        value => Ok(value.unwrap_or(default)),
    };
    options.key = keys.key.unwrap_or(options.key);
    options.rotate_bytes = bounded("rotate_mb", keys.rotate_mb, 16, 1024)? << 20;
    let keep = keys.keep_files.map(|files| files as u64);
    let default = options.keep_files as u64;
    // At most the default of 64, or the million asked for: it fits.
    options.keep_files = bounded("keep_files", keep, default, 1_000_000)? as usize;
    let default = options.checkpoint_records;
    options.checkpoint_records =
        bounded("checkpoint_records", keys.checkpoint_records, default, 100_000)?;
    let default = options.checkpoint_age.as_secs();
    options.checkpoint_age =
        Duration::from_secs(bounded("checkpoint_s", keys.checkpoint_s, default, 3600)?);
    Ok(options)
}
