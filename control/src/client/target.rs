//! Where a control is asked, and with which certificate: what the command line says, else the environment,
//! else a small file, else this host's own control.
//!
//! ```toml
//! control = "ny4-control:9477"          # or unix:/run/nautilus/control.sock
//! identity = "/etc/nautilus/operator"   # folder of identity.pem and ca.pem, as `nautilus ca enrol` leaves it
//! timeout_s = 30                        # how long an answer may take
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::ClientError;
use crate::config::Config;

/// Where the control of this host listens unless its file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nautilus/control.sock";

/// The client's file for the whole host; a user's own is `nautilus/client.toml` below the folder for
/// configuration.
pub const DEFAULT_FILE: &str = "/etc/nautilus/client.toml";

/// How long an answer may take unless said otherwise. Too low: a busy control counts as gone; too high: a
/// hanging one holds scripts up.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// One control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket in the file system: the kernel says who asks.
    Socket(PathBuf),
    /// Loopback without TLS: the kernel says who asks.
    Loopback(String),
    /// TLS 1.3, both sides with certificates.
    Tls(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(formatter, "unix:{}", path.display()),
            Self::Loopback(address) => write!(formatter, "http://{address}"),
            Self::Tls(address) => write!(formatter, "https://{address}"),
        }
    }
}

impl Target {
    /// Reads `unix:PATH`, `HOST:PORT`, `https://HOST:PORT` or `http://LOOPBACK:PORT`. Without a scheme, TLS is
    /// spoken where there is an identity, and to every host but this one.
    pub fn parse(text: &str, has_identity: bool) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Usage(format!("--control {text}: {reason}"));
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(wrong("the path is missing"));
            }
            return Ok(Self::Socket(path.into()));
        }
        let (tls, address) = match text.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err(wrong("only https://, http:// and unix: are known")),
            None => (None, text),
        };
        let address = address.trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("HOST:PORT is needed"))?;
        if host.is_empty() || port.parse::<u16>().is_err() || host.contains(['/', '@', '?']) {
            return Err(wrong("HOST:PORT is needed"));
        }
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = name == "localhost"
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match tls {
            Some(false) if !is_loopback => {
                Err(wrong("without TLS only this host's own control is asked"))
            }
            Some(true) => Ok(Self::Tls(address.into())),
            Some(false) => Ok(Self::Loopback(address.into())),
            None if is_loopback && !has_identity => Ok(Self::Loopback(address.into())),
            None => Ok(Self::Tls(address.into())),
        }
    }

    /// The control of this host: its socket where there is one, else its port.
    fn of_this_host() -> Self {
        let socket = Path::new(DEFAULT_SOCKET);
        match socket.exists() {
            true => Self::Socket(socket.into()),
            false => Self::Loopback(Config::DEFAULT_LISTEN.to_string()),
        }
    }
}

/// What a file of the client may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    control: Option<String>,
    identity: Option<PathBuf>,
    timeout_s: Option<u64>,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Who is asked.
    pub control: Option<String>,
    /// Folder of `identity.pem` and `ca.pem`.
    pub identity: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
    /// The file for what the others leave open.
    pub file: Option<PathBuf>,
}

/// All that is needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where {
    /// Who is asked.
    pub target: Target,
    /// Folder of `identity.pem` and `ca.pem`.
    pub identity: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Where {
    /// What is left open is read from the file: the one named, else the user's, else the host's.
    pub fn resolve(wishes: Wishes) -> Result<Self, ClientError> {
        let file = match &wishes.file {
            Some(path) => read(path)?,
            None => {
                let found = usual_files().into_iter().find(|path| path.exists());
                found.map_or(Ok(ClientFile::default()), |path| read(&path))?
            }
        };
        let identity = wishes.identity.or(file.identity);
        let target = match wishes.control.or(file.control) {
            Some(text) => Target::parse(&text, identity.is_some())?,
            None => Target::of_this_host(),
        };
        if let (Target::Tls(address), None) = (&target, &identity) {
            let reason = format!(
                "{address} is asked over TLS, which needs a certificate: name its folder by --identity DIR \
                 (`nautilus ca enrol` makes one)"
            );
            return Err(ClientError::Usage(reason));
        }
        let timeout = wishes.timeout.or(file.timeout_s.map(Duration::from_secs));
        Ok(Self { target, identity, timeout: timeout.unwrap_or(TIMEOUT) })
    }
}

fn usual_files() -> Vec<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let own = folder.map(|folder| folder.join("nautilus/client.toml"));
    own.into_iter().chain([PathBuf::from(DEFAULT_FILE)]).collect()
}

fn read(path: &Path) -> Result<ClientFile, ClientError> {
    let wrong = |reason: String| ClientError::File { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: ClientFile =
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().into()))?;
    if file.timeout_s.is_some_and(|seconds| !(1..=3600).contains(&seconds)) {
        return Err(wrong("timeout_s: 1 to 3600 are allowed".into()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_host() {
        let parse = |text: &str, identity| Target::parse(text, identity).map(|t| t.to_string());
        for (text, identity, expected) in [
            ("unix:/run/c.sock", false, "unix:/run/c.sock"),
            ("127.0.0.1:9477", false, "http://127.0.0.1:9477"),
            ("127.0.0.1:9477", true, "https://127.0.0.1:9477"),
            ("[::1]:9477", false, "http://[::1]:9477"),
            ("http://localhost:1/", true, "http://localhost:1"),
            ("ny4-control:9477", false, "https://ny4-control:9477"),
            ("https://198.18.0.1:9477", true, "https://198.18.0.1:9477"),
        ] {
            assert_eq!(parse(text, identity).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "unix:",
            "host",
            ":9477",
            "host:port",
            "host:70000",
            "ftp://host:1",
            "http://198.18.0.1:9477",
            "http://user@localhost:1",
            "https://host:1/path",
        ] {
            assert!(matches!(Target::parse(text, false), Err(ClientError::Usage(_))), "{text}");
        }
    }

    #[test]
    fn a_file_fills_what_the_command_line_leaves_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        let all = "control = \"a:1\"\nidentity = \"/i\"\ntimeout_s = 5\n";
        std::fs::write(&path, all).unwrap();
        let wishes = Wishes { file: Some(path.clone()), ..Wishes::default() };
        let found = Where::resolve(wishes.clone()).unwrap();
        assert_eq!(found.target, Target::Tls("a:1".into()));
        assert_eq!((found.identity, found.timeout.as_secs()), (Some("/i".into()), 5));
        let control = Some("unix:/s".into());
        let found = Where::resolve(Wishes { control, ..wishes.clone() }).unwrap();
        assert_eq!(found.target, Target::Socket("/s".into()));
        for (text, reason) in [
            ("control = \"a:1\"\n", "name its folder by --identity"),
            ("contrl = \"a:1\"\n", "unknown field `contrl`"),
            ("timeout_s = 0\n", "1 to 3600"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Where::resolve(wishes.clone()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
