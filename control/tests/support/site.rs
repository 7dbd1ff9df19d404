//! A site for tests: an authority, a control with TLS in a process of its own, and certificates.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nautilus_control::roles::Role;
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::client::{ClientIdentity, Connection, Trust, config};
use nautilus_control::tls::identity::{Identity, Kind};
use nautilus_control::tls::{TlsError, pem};
use nautilus_control::verifier::{self, Expected, keys_in};
use serde_json::Value;

pub const DAY: Duration = Duration::from_secs(86_400);

pub struct Site {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub address: String,
    child: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Site {
    /// A control that answers; `more` are lines of `[control.tls]`.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("ca"), "test").unwrap();
        let mut site = Self {
            folder,
            authority,
            address: String::new(),
            child: Command::new("true").spawn().unwrap(),
        };
        site.write_control(DAY);
        let path = |name: &str| site.folder.path().join(name).display().to_string();
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\nauthority = \"{}\"\nsocket = \"{}\"\n\
             [control.tls]\ncertificate = \"{}\"\nkey = \"file:{}\"\nca = \"{}\"\nrevoked = \"{}\"\n\
             {more}\n[control.audit]\ndir = \"{}\"\n[[node]]\nrun_dir = \"{}\"\n",
            path("ca"),
            path("control.sock"),
            path("control.pem"),
            path("control.pem"),
            path("ca/ca.pem"),
            path("ca/revoked.pem"),
            path("audit"),
            path("none"),
        );
        std::fs::write(site.folder.path().join("control.toml"), text).unwrap();
        site.start_again(&[]);
        site
    }

    /// Starts the daemon; `front` stands before it on the command line.
    pub fn start_again(&mut self, front: &[&str]) {
        self.kill();
        let daemon = env!("CARGO_BIN_EXE_nautilus-control");
        let mut words = front.iter().copied().chain([daemon]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .arg("--config")
            .arg(self.folder.path().join("control.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line.split("https://").nth(1).and_then(|rest| rest.split(',').next());
        self.address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        self.child = child;
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, so that the trail is signed to its end.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }

    /// The control's own certificate, anew.
    pub fn write_control(&self, lifetime: Duration) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (key, request) = request().unwrap();
        let identity = self.identity(Role::Viewer, Kind::Control, "control");
        let chain = self.authority.issue(&identity, &names, &request, lifetime).unwrap();
        let path = self.folder.path().join("control.pem");
        pem::replace(&path, 0o600, format!("{}{chain}", *key).as_bytes()).unwrap();
    }

    pub fn identity(&self, role: Role, kind: Kind, name: &str) -> Identity {
        Identity { site: self.authority.site().into(), role, kind, name: name.into() }
    }

    /// A certificate with its key in a file.
    pub fn certificate(&self, role: Role, name: &str, lifetime: Duration) -> PathBuf {
        of(&self.authority, &self.identity(role, Kind::Person, name), lifetime, self.folder.path())
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca/ca.pem")
    }

    /// A connection with this certificate.
    pub fn connect(&self, certificate: Option<&Path>) -> Result<Connection, TlsError> {
        let identity = certificate.map(|path| Arc::new(ClientIdentity::open(path).unwrap()));
        let ca = self.ca();
        Connection::open(&self.address, config(Trust::Authority(&ca), identity).unwrap())
    }

    /// One request on a connection of its own: status and detail, or why there was no answer.
    pub fn ask(
        &self,
        certificate: Option<&Path>,
        method: &str,
        path: &str,
    ) -> Result<(u16, String), String> {
        let mut connection = self.connect(certificate).map_err(|error| error.to_string())?;
        let (status, body) =
            connection.ask(method, path, b"").map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8(body).unwrap()))
    }

    /// The records of the trail, which must be whole. A record that is being written is waited for.
    pub fn records(&self) -> Vec<Value> {
        let expected = Expected {
            keys: keys_in(&self.folder.path().join("audit.key.pub")).unwrap(),
            head: None,
        };
        let files = until("a trail without a half record", || {
            let files = verifier::load(&self.folder.path().join("audit")).unwrap();
            verifier::verify(&files, &expected).is_ok().then_some(files)
        });
        let lines = files.iter().flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n'));
        lines.filter(|line| !line.is_empty()).map(|line| json(&line[65..])).collect()
    }

    /// Records of actions with this outcome whose reason holds this text.
    pub fn count(&self, outcome: &str, reason: &str) -> usize {
        let holds = |record: &Value| {
            record["outcome"] == outcome && record["reason"].as_str().unwrap().contains(reason)
        };
        self.records().iter().filter(|record| holds(record)).count()
    }
}

/// A certificate of an authority, with its key in a file.
pub fn of(authority: &Authority, identity: &Identity, lifetime: Duration, dir: &Path) -> PathBuf {
    let (key, request) = request().unwrap();
    let chain = authority.issue(identity, &[], &request, lifetime).unwrap();
    let path = dir.join(format!("{}-{}.pem", identity.role.name(), identity.name));
    pem::replace(&path, 0o600, format!("{}{chain}", *key).as_bytes()).unwrap();
    path
}

pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// What comes to be within ten seconds.
pub fn until<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = get() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
