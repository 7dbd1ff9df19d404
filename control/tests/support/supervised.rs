//! A node of its real supervisor, on kernel sockets and the loopback.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nautilus_control::attach::supervisor_status;
use nautilus_control::host::recording;

use crate::trees::text_of;

/// A node that stops with the test.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub supervisor: Child,
}

/// The supervisor's program, if it has been built: it belongs to another package.
pub fn program() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_nautilus")).with_file_name("nautilus-supervisor");
    if !program.is_file() || !nix::unistd::geteuid().is_root() {
        println!("SKIPPED a real supervisor: needs root, and {} built", program.display());
        return None;
    }
    Some(program)
}

/// A supervisor that answers.
pub fn started(program: &Path, folder: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(folder.join("node.toml"));
    let supervisor = command.stderr(Stdio::from(log)).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    // Answered by this one, not by the socket of one that is dead.
    while supervisor_status(&folder.join("run")).is_err() {
        assert!(Instant::now() < end, "{}", std::fs::read_to_string(folder.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    supervisor
}

impl Node {
    /// A node whose host is this recorded machine, or the one this runs on; `more` are sections of its file, which
    /// may say `{at}` for the node's folder.
    pub fn start(program: &Path, id: &str, tree: Option<&str>, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("nh").tempdir().unwrap();
        if let Some(tree) = tree {
            recording::unpack(&text_of(tree), &folder.path().join("tree")).unwrap();
        }
        // Readable by the users that ask: they reach the socket through it.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let at = folder.path().display().to_string();
        let text = format!(
            "[node]\nid = \"{id}\"\nrun_dir = \"{at}/run\"\n[port]\nkind = \"socket\"\n[access]\n\
             sources = [\"127.0.0.0/8\"]\n{more}\n[[interface]]\n\
             name = \"lo\"\naddresses = [\"127.0.0.1\"]\n"
        );
        std::fs::write(folder.path().join("node.toml"), text.replace("{at}", &at)).unwrap();
        let supervisor = started(program, folder.path());
        Self { folder, supervisor }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Where its recorded machine lies.
    pub fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub fn kill(&mut self) {
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.supervisor.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.supervisor.wait();
    }
}
