//! A real node: a supervisor with kernel sockets on the loopback, which needs no privilege.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program beside the command; none where it was not built.
pub fn supervisor() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_nautilus")).with_file_name("nautilus-supervisor");
    if !path.exists() {
        eprintln!("SKIPPED: {} was not built (cargo build -p nautilus-dataplane)", path.display());
        return None;
    }
    Some(path)
}

/// Runs the command; `file` is its last word. Code, stdout, stderr.
pub fn nautilus(words: &[&str], file: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus"));
    told(command.args(words).arg(file).env("COLUMNS", "400").output().unwrap())
}

/// Code, stdout, stderr.
pub fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// One that nobody has just now.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The node; it is stopped when this goes.
pub struct Node {
    pub dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// A node file with these caches.
    pub fn text(dir: &Path, caches: &[(&str, u16)]) -> String {
        let mut text = format!(
            "[node]\nid = \"cli\"\nrun_dir = \"{}\"\n[port]\nkind = \"socket\"\n[access]\n\
             sources = [\"127.0.0.0/8\"]\n[[interface]]\nname = \"lo\"\n\
             addresses = [\"127.0.0.1\"]\n",
            dir.join("run").display()
        );
        for (id, port) in caches {
            text += &format!("[[cache]]\nid = \"{id}\"\nport = {port}\nmax_memory_mb = 8\n");
        }
        text
    }

    /// One that has a cache of its file.
    pub fn start(program: &Path, port: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("ne").tempdir().unwrap();
        let config = dir.path().join("node.toml");
        std::fs::write(&config, Self::text(dir.path(), &[("first", port)])).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let node = Self { dir, child };
        let run = node.path("run");
        let end = Instant::now() + Duration::from_secs(30);
        let status = ["status", "--node"];
        while nautilus(&status, &run).0 != Some(0) {
            let log = std::fs::read_to_string(node.path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "it never served: {:?} {log}", nautilus(&status, &run));
            std::thread::sleep(Duration::from_millis(100));
        }
        node
    }

    /// A file or folder of the node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ids of its caches.
    pub fn caches(&self) -> Vec<String> {
        let (_, document, said) =
            nautilus(&["cache", "list", "--json", "--node"], &self.path("run"));
        let document: serde_json::Value =
            serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {said}"));
        let caches = document["cli"].as_array().unwrap().iter();
        let mut ids: Vec<_> = caches.map(|c| c["cache_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}
