//! The daemon's and the CLI's list of nodes: a TOML file, or run directories on the command line.
//!
//! ```toml
//! [control]
//! listen = "127.0.0.1:9477"      # address and port of the HTTP server
//!
//! [[node]]
//! run_dir = "/run/nautilus/ny4-1" # the node's run directory, which holds supervisor.sock
//! id = "ny4-1"                    # optional: refused when the node there says another id
//! region = "ny4"                  # optional, shown in documents
//! tier = "ultra"                  # optional: ultra, high, standard or lab
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::deploy::settings::{self, DeployKeys, DeploySettings};
use crate::security::{Security, SecurityKeys};
use crate::{id, security};

/// Where the daemon's file lies unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/nautilus/control.toml";

/// Nodes one control watches. Too low: a site needs several; too high: one turn of the watcher
/// takes longer than a node is allowed to be silent.
pub const NODES_MAX: usize = 256;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the HTTP server listens.
    pub listen: SocketAddr,
    /// Who may ask what, and where that is recorded.
    pub security: Security,
    /// How deployments are kept and made.
    pub deploy: DeploySettings,
    /// Nodes to watch.
    pub nodes: Vec<NodeSpec>,
}

/// One node to watch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeSpec {
    /// Directory with the node's `supervisor.sock`.
    pub run_dir: PathBuf,
    /// The id the node must have; taken from the node when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// Shown in documents.
    #[serde(default)]
    pub region: Option<String>,
    /// The budget health is judged by.
    #[serde(default)]
    pub tier: Tier,
}

/// Latency budget classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// p99 below 100 us.
    #[serde(alias = "ultra_edge", alias = "UltraEdge", alias = "ULTRA_EDGE", alias = "ULTRA")]
    Ultra,
    /// p99 below 500 us.
    #[serde(
        alias = "high_performance",
        alias = "HighPerformance",
        alias = "HIGH_PERFORMANCE",
        alias = "HIGH"
    )]
    High,
    /// p99 below 2 ms.
    #[serde(
        alias = "standard_edge",
        alias = "StandardEdge",
        alias = "STANDARD_EDGE",
        alias = "STANDARD"
    )]
    Standard,
    /// No budget: test fleets.
    #[default]
    #[serde(alias = "Lab", alias = "LAB")]
    Lab,
}

impl Tier {
    /// The p99 this tier allows, in nanoseconds.
    pub fn p99_budget_ns(self) -> Option<u64> {
        match self {
            Self::Ultra => Some(100_000),
            Self::High => Some(500_000),
            Self::Standard => Some(2_000_000),
            Self::Lab => None,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is not TOML, or a value has the wrong type; the message names line and key.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
        /// The byte of the text, where that is known.
        at: Option<usize>,
        /// What alone.
        reason: String,
    },
    /// A key nobody reads: probably misspelt.
    #[error("{}: unknown key {key}", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Its full path, such as `node[1].rundir`.
        key: String,
    },
    /// A value that cannot be.
    #[error("{}: {key}: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Full path of the key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
struct File {
    control: Option<Control>,
    #[serde(default)]
    node: Vec<NodeSpec>,
}

#[derive(Default, Deserialize)]
struct Control {
    listen: Option<SocketAddr>,
}

/// The same file: read side by side, since what is flattened loses its place.
#[derive(Deserialize)]
struct SecurityFile {
    control: Option<SecurityKeys>,
}

/// And once more.
#[derive(Deserialize)]
struct DeployFile {
    control: Option<DeployKeys>,
}

impl Config {
    /// Where the daemon listens unless told otherwise.
    pub const DEFAULT_LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9477);

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |error: toml::de::Error| ConfigError::Parse {
            path: path.into(),
            message: error.to_string().trim_end().into(),
            at: error.span().map(|span| span.start),
            reason: error.message().into(),
        };
        let table: toml::Table = text.parse().map_err(wrong)?;
        if let Some(key) = unknown_key(&table) {
            return Err(ConfigError::UnknownKey { path: path.into(), key });
        }
        let file: File = toml::from_str(text).map_err(wrong)?;
        let control = file.control.unwrap_or_default();
        let security: SecurityFile = toml::from_str(text).map_err(wrong)?;
        let deploy: DeployFile = toml::from_str(text).map_err(wrong)?;
        let refuse = |(key, reason): (String, String)| ConfigError::Value {
            path: path.into(),
            key: format!("control.{key}"),
            reason,
        };
        let security = Security::of(security.control.unwrap_or_default()).map_err(refuse)?;
        let deploy = DeploySettings::of(deploy.control.unwrap_or_default()).map_err(refuse)?;
        let listen = control.listen.unwrap_or(Self::DEFAULT_LISTEN);
        let config = Self { listen, security, deploy, nodes: file.node };
        config.check(path)?;
        Ok(config)
    }

    /// The configuration of these run directories alone.
    pub fn of_run_dirs(run_dirs: &[PathBuf]) -> Result<Self, ConfigError> {
        let node = |run_dir: &PathBuf| NodeSpec {
            run_dir: run_dir.clone(),
            id: None,
            region: None,
            tier: Tier::default(),
        };
        let nodes = run_dirs.iter().map(node).collect();
        let (security, deploy) = (Security::default(), DeploySettings::default());
        let config = Self { listen: Self::DEFAULT_LISTEN, security, deploy, nodes };
        config.check(Path::new("--node"))?;
        Ok(config)
    }

    /// Refuses an address that must not be served; asked once it is known where to listen.
    pub fn check_listen(&self, path: &Path) -> Result<(), ConfigError> {
        self.security.check_listen(self.listen).map_err(|reason| ConfigError::Value {
            path: path.into(),
            key: "control.listen".into(),
            reason,
        })
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key: String, reason: String| {
            Err(ConfigError::Value { path: path.into(), key, reason })
        };
        if self.nodes.is_empty() {
            return refuse("node".into(), "there is no [[node]]: name at least one".into());
        }
        if self.nodes.len() > NODES_MAX {
            return refuse("node".into(), format!("more than {NODES_MAX} nodes"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(id) = node.id.as_deref().filter(|id| !id::is_valid(id)) {
                return refuse(format!("node[{index}].id"), format!("{id:?}: {}", id::RULE));
            }
            let earlier = &self.nodes[..index];
            if earlier.iter().any(|other| other.run_dir == node.run_dir) {
                let reason = format!("{} is listed twice", node.run_dir.display());
                return refuse(format!("node[{index}].run_dir"), reason);
            }
            if node.id.is_some() && earlier.iter().any(|other| other.id == node.id) {
                return refuse(format!("node[{index}].id"), "another node has this id".into());
            }
        }
        Ok(())
    }
}

/// The first key that nothing reads, with its path.
fn unknown_key(table: &toml::Table) -> Option<String> {
    let strange = |table: &toml::Table, known: &[&str], prefix: &str| {
        let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
        Some(format!("{prefix}{key}"))
    };
    strange(table, &["control", "node"], "")
        .or_else(|| {
            let control = table.get("control")?.as_table()?;
            let known = [&["listen"], &security::KEYS[..], &settings::KEYS[..]].concat();
            let below =
                || security::unknown_key(control).or_else(|| settings::unknown_key(control));
            strange(control, &known, "control.")
                .or_else(|| below().map(|key| format!("control.{key}")))
        })
        .or_else(|| {
            let nodes = table.get("node")?.as_array()?;
            nodes.iter().enumerate().find_map(|(index, node)| {
                let known = ["run_dir", "id", "region", "tier"];
                strange(node.as_table()?, &known, &format!("node[{index}]."))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("control.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = "[control]\nlisten = \"[::1]:8\"\n[[node]]\nrun_dir = \"/run/a\"\nid = \"a\"\n\
                    region = \"ny4\"\ntier = \"UltraEdge\"\n[[node]]\nrun_dir = \"/run/b\"\n";
        let config = parse(text).unwrap();
        assert_eq!(config.listen.port(), 8);
        assert_eq!(config.nodes[0].tier, Tier::Ultra);
        assert_eq!(config.nodes[1].id, None);
    }

    #[test]
    fn what_is_wrong_is_refused_by_key() {
        let node = "[[node]]\nrun_dir = \"/r\"\n";
        for (text, message) in [
            (format!("nodes = 1\n{node}"), "unknown key nodes"),
            (format!("[control]\nport = 1\n{node}"), "unknown key control.port"),
            (format!("[control.tls]\ncert = 1\n{node}"), "unknown key control.tls.cert"),
            (format!("[control.audit]\npath = 1\n{node}"), "unknown key control.audit.path"),
            (format!("[control.local]\nroot = 1\n{node}"), "unknown key control.local.root"),
            (format!("[control.store]\npath = \"/s\"\n{node}"), "unknown key control.store.path"),
            (
                format!("[control.deploy]\njudge_s = 3601\n{node}"),
                "control.deploy.judge_s: 3601 is not in 0..=3600",
            ),
            (
                format!("[control.deploy]\nsession_margin_s = 86401\n{node}"),
                "control.deploy.session_margin_s: 86401 is not in 0..=86400",
            ),
            (
                format!("[control.deploy]\nsession_margin = 1\n{node}"),
                "unknown key control.deploy.session_margin",
            ),
            (format!("{TLS}key = \"hunter2\"\n{node}"), "control.tls.key: name the key by file:"),
            (format!("{TLS}key = \"file:/k\"\n{node}"), "control.audit: with TLS there must be"),
            (
                format!("[control]\nauthority = \"/a\"\n{node}"),
                "control.authority: certificates are issued over TLS",
            ),
            (
                format!("[control.local]\nadmins = [\"nobody-has-this-name\"]\n{node}"),
                "control.local.admins: there is no user",
            ),
            (
                format!("[control.audit]\ndir = \"/a\"\nrotate_mb = 0\n{node}"),
                "control.audit.rotate_mb: 0 is not in 1..=1024",
            ),
            (format!("{node}[[node]]\nrundir = \"/x\"\n"), "unknown key node[1].rundir"),
            (format!("{node}tier = \"fast\"\n"), "tier"),
            (format!("{node}id = \"No\"\n"), "node[0].id"),
            (format!("{node}{node}"), "node[1].run_dir: /r is listed twice"),
            (String::new(), "there is no [[node]]"),
            ("[[node]]\nid = \"a\"\n".into(), "run_dir"),
            ("[control\n".into(), "line 1"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
            assert!(error.starts_with("control.toml"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    const TLS: &str = "[control.tls]\ncertificate = \"/c\"\nca = \"/a\"\n";

    #[test]
    fn without_tls_only_this_host_is_served() {
        let node = "[[node]]\nrun_dir = \"/r\"\n";
        let path = Path::new("control.toml");
        for (listen, served) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("[::]:1", false)]
        {
            let config = parse(&format!("[control]\nlisten = \"{listen}\"\n{node}")).unwrap();
            assert_eq!(config.check_listen(path).is_ok(), served, "{listen}");
            let tls = format!(
                "[control]\nlisten = \"{listen}\"\n{TLS}key = \"env:K\"\n[control.audit]\n\
                 dir = \"/a\"\n{node}"
            );
            assert!(parse(&tls).unwrap().check_listen(path).is_ok());
        }
    }

    #[test]
    fn the_examples_that_are_installed_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/examples");
        for name in ["control.toml", "control-tls.toml"] {
            let config = Config::load(&folder.join(name)).unwrap();
            config.check_listen(Path::new(name)).unwrap();
            assert_eq!(config.nodes[0].tier, Tier::Ultra, "{name}");
            assert_eq!(config.deploy.session_margin_s, Some(900), "{name}");
        }
    }
}
