//! I1's site: an authority, and the control daemon with TLS and a trail in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nautilus_control::roles::Role;
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::identity::{Identity, Kind};
use nautilus_control::tls::pem;
use nautilus_tests::lab::binary;

use crate::ground::Ground;

const LIFETIME: Duration = Duration::from_secs(86_400);

/// A control that answers.
pub struct Site {
    authority: Authority,
    /// Where it listens.
    pub address: String,
    child: Child,
    ground: Ground,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    /// Starts one on loopback.
    pub fn start() -> anyhow::Result<Self> {
        let ground = Ground::new()?;
        let folder = ground.folder.path();
        let authority = Authority::init(&folder.join("ca"), "bench")?;
        write(&authority, Kind::Control, "control", &folder.join("control.pem"))?;
        let path = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\n\
             [control.tls]\ncertificate = \"{0}\"\nkey = \"file:{0}\"\nca = \"{1}\"\n\
             [control.audit]\ndir = \"{2}\"\n[[node]]\nrun_dir = \"{3}\"\n",
            path("control.pem"),
            path("ca/ca.pem"),
            path("audit"),
            path("none"),
        );
        std::fs::write(folder.join("control.toml"), text)?;
        let program = binary("nautilus-control");
        let mut child = Command::new(&program)
            .arg("--config")
            .arg(folder.join("control.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let line = lines.next().context("the control says nothing")??;
        let address = line.split("https://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.with_context(|| line.clone())?.to_owned();
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { authority, address, child, ground })
    }

    /// The control's own certificate and key, anew.
    pub fn write_control(&self) -> anyhow::Result<()> {
        let path = self.ground.folder.path().join("control.pem");
        write(&self.authority, Kind::Control, "control", &path)
    }

    /// A viewer's, anew in the same file.
    pub fn write_client(&self) -> anyhow::Result<PathBuf> {
        let path = self.ground.folder.path().join("viewer.pem");
        write(&self.authority, Kind::Person, "viewer", &path)?;
        Ok(path)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.ground.folder.path().join("ca/ca.pem")
    }
}

fn write(
    authority: &Authority,
    kind: Kind,
    name: &str,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let names = match kind {
        Kind::Control => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        _ => Vec::new(),
    };
    let site = authority.site().to_owned();
    let identity = Identity { site, role: Role::Viewer, kind, name: name.into() };
    let (key, request) = request()?;
    let chain = authority.issue(&identity, &names, &request, LIFETIME)?;
    pem::replace(path, 0o600, format!("{}{chain}", *key).as_bytes())?;
    Ok(())
}
