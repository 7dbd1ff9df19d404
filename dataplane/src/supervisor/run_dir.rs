//! The node's run directory: one supervisor at a time, and nothing left behind.
//!
//! ```text
//!   <run_dir>/                   made 0755: readers of another user must reach the socket
//!   <run_dir>/lock               0600, held (flock) while a supervisor lives; its pid inside
//!   <run_dir>/control.lock       0600: held by the control that deploys here, which gets it by its credentials
//!   <run_dir>/supervisor.sock    0666: readers attach here, by their credentials
//!   <run_dir>/worker-<pid>.sock  0600: where a worker gives everything back to the next supervisor
//!   <run_dir>/remembered.toml    0600: what the next supervisor must know (`remembered.rs`)
//!   <run_dir>/halted.toml        0600, while the kill switch is on (`kill_switch.rs`); stays when the node stops
//! ```
//!
//! Only these names are ever removed. A clean stop removes them all and the directory if that
//! leaves it empty; after a crash the next start removes the sockets nobody listens on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt,
    socket, sockopt,
};

use nautilus_shm::attach::{CLAIM_FILE, SUPERVISOR_SOCKET};
use nautilus_shm::table::DETACHED_AGE_NS;

/// What the next supervisor must know.
pub const REMEMBERED: &str = "remembered.toml";
/// The same while it is being written.
const REMEMBERED_FRESH: &str = "remembered.toml.new";

/// Connections waiting to be accepted.
const BACKLOG: i32 = 16;

/// Why the run directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another supervisor holds it.
    #[error(
        "{path}: supervisor {pid} runs this node already; stop it, or give this node its own \
         node.run_dir"
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// Pid in the lock file.
        pid: String,
    },
    /// Someone else could plant files in it.
    #[error("{path}: is owned by uid {uid}, not by uid {ours}; remove it or name another run_dir")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
        /// Who runs the supervisor.
        ours: u32,
    },
    /// One step on one file.
    #[error("cannot {step} {path}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The directory, held by this process.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    left_by_dead: bool,
    /// Dropped last: the lock goes when everything else has gone.
    _lock: File,
}

impl RunDir {
    /// Takes the directory, making it where it is missing.
    pub fn take(path: &Path) -> Result<Self, RunDirError> {
        let file = |step, source| RunDirError::File { step, path: path.to_owned(), source };
        make(path).map_err(|source| file("make", source))?;
        let ours = nix::unistd::geteuid().as_raw();
        let uid = path.metadata().map_err(|source| file("look at", source))?.uid();
        if uid != ours {
            return Err(RunDirError::Owner { path: path.to_owned(), uid, ours });
        }
        let lock = Self::lock(path)?;
        let left_by_dead = path.join(SUPERVISOR_SOCKET).exists();
        Ok(Self { path: path.to_owned(), left_by_dead, _lock: lock })
    }

    fn lock(dir: &Path) -> Result<File, RunDirError> {
        let path = dir.join("lock");
        let failed = |step, source| RunDirError::File { step, path: path.clone(), source };
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|source| failed("open", source))?;
            // Whoever can open it can lock it, and keep the next supervisor out.
            let private = file.set_permissions(std::fs::Permissions::from_mode(0o600));
            private.map_err(|source| failed("set the mode of", source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    let _ = file.read_to_string(&mut pid);
                    let pid = pid.trim().to_owned();
                    return Err(RunDirError::Held { path: dir.to_owned(), pid });
                }
                Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock", source)),
            }
            // A supervisor that was just stopping may have removed the name we opened.
            let held = file.metadata().map_err(|source| failed("look at", source))?;
            if path.metadata().is_ok_and(|named| named.ino() == held.ino()) {
                let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                written.map_err(|source| failed("write", source))?;
                return Ok(file);
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that one control at a time holds locked, opened anew: each that is asked for can be locked by
    /// another. Made when it is first asked for; one that a control holds outlives a supervisor's death.
    pub fn claim(&self) -> io::Result<OwnedFd> {
        let path = self.path.join(CLAIM_FILE);
        let made =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // Whoever can open it can lock it, and keep the control out.
        made.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        // To be locked, not to be written.
        Ok(File::open(&path)?.into())
    }

    /// Waits until whoever still maps the cache of a dead node takes it for dead: a new cache must not
    /// acknowledge a write while the old value can be read. The old heartbeat stands still since the lock
    /// is ours. Returns at once where no supervisor died that had begun to hand out memory: a clean stop
    /// takes the socket away.
    pub fn outlast_readers(&self) {
        if self.left_by_dead {
            std::thread::sleep(std::time::Duration::from_nanos(DETACHED_AGE_NS));
        }
    }

    /// The socket through which worker `pid` gives its descriptors back.
    pub fn worker_socket(&self, pid: u32) -> PathBuf {
        self.path.join(format!("worker-{pid}.sock"))
    }

    /// A `SOCK_SEQPACKET` listener of `mode` at `path`, replacing a stale one.
    pub fn listen(&self, path: &Path, mode: u32) -> Result<OwnedFd, RunDirError> {
        let failed =
            |step, source: io::Error| RunDirError::File { step, path: path.into(), source };
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", source));
            }
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
            .map_err(|errno| failed("make a socket for", errno.into()))?;
        let address = UnixAddr::new(path).map_err(|errno| failed("name", errno.into()))?;
        // Nobody but us may connect between bind and chmod.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let bound = bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address);
        nix::sys::stat::umask(before);
        bound.map_err(|errno| failed("bind", errno.into()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|source| failed("set the mode of", source))?;
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        listen(&fd, backlog).map_err(|errno| failed("listen on", errno.into()))?;
        Ok(fd)
    }

    /// Connections to the workers of a dead supervisor that still listen, by pid. Sockets that
    /// nobody listens on are removed.
    pub fn orphans(&self) -> Result<Vec<(u32, OwnedFd)>, RunDirError> {
        let failed = |step, source| RunDirError::File { step, path: self.path.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|source| failed("read", source))? {
            let entry = entry.map_err(|source| failed("read", source))?;
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(worker_pid) else { continue };
            match connect_to(&entry.path()) {
                Ok(fd) => found.push((pid, fd)),
                Err(_) => self.remove(&entry.path()),
            }
        }
        found.sort_unstable_by_key(|(pid, _)| *pid);
        Ok(found)
    }

    /// Writes a file of ours as a whole, or not at all: whoever reads it next finds the old or the new text.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RunDirError> {
        let (path, fresh) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let failed = |step, source| RunDirError::File { step, path: path.clone(), source };
        self.remove(&fresh);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(|source| failed("make", source))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.map_err(|source| failed("write", source)).and_then(|()| {
            std::fs::rename(&fresh, &path).map_err(|source| failed("replace", source))
        });
        if placed.is_err() {
            // On a full disk even an empty file is in the way of somebody.
            self.remove(&fresh);
        }
        placed
    }

    /// Removes a file of ours; one that is gone already is no matter.
    pub fn remove(&self, path: &Path) {
        let _ = std::fs::remove_file(path);
    }

    /// Removes everything of ours, and the directory when that leaves it empty.
    pub fn clear(self) {
        self.remove(&self.path.join(SUPERVISOR_SOCKET));
        if let Ok(entries) = std::fs::read_dir(&self.path) {
            for entry in entries.flatten() {
                if entry.file_name().to_str().and_then(worker_pid).is_some() {
                    self.remove(&entry.path());
                }
            }
        }
        for name in [REMEMBERED, REMEMBERED_FRESH, CLAIM_FILE, "lock"] {
            self.remove(&self.path.join(name));
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Makes a directory and its parents where they are missing, open to readers whatever the umask is.
/// One that exists keeps the mode it was given.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)),
    }
}

fn worker_pid(name: &str) -> Option<u32> {
    name.strip_prefix("worker-")?.strip_suffix(".sock")?.parse().ok()
}

fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // The worker's pid comes from the kernel with its first packet, not from the file's name.
    setsockopt(&fd, sockopt::PassCred, &true)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_supervisor_at_a_time_and_nothing_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/node-1");
        let dir = RunDir::take(&path).unwrap();
        let message = RunDir::take(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("supervisor {} runs", std::process::id())), "{message}");

        assert!(!dir.left_by_dead);
        let live = dir.listen(&dir.worker_socket(7), 0o600).unwrap();
        drop(dir.listen(&dir.worker_socket(8), 0o600).unwrap());
        std::fs::write(path.join("notes"), "not ours").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.worker_socket(7)), 0o600);
        assert_eq!(mode(&path.join("lock")), 0o600);
        let claims = [(); 2].map(|()| File::from(dir.claim().unwrap()));
        assert_eq!(mode(&path.join(CLAIM_FILE)), 0o600);
        claims[0].try_lock().unwrap();
        assert!(claims[1].try_lock().is_err(), "one at a time");
        assert!((&claims[1]).write(b"x").is_err(), "it is there to be locked");
        drop(claims);
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o755, 0o755));
        let orphans = dir.orphans().unwrap();
        assert_eq!(orphans.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [7]);
        assert!(!dir.worker_socket(8).exists());
        drop((live, orphans));
        dir.clear();
        let left: Vec<_> = std::fs::read_dir(&path).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        std::fs::remove_file(path.join("notes")).unwrap();
        RunDir::take(&path).unwrap().clear();
        assert!(!path.exists());

        // As a supervisor that is killed leaves it.
        let dir = RunDir::take(&path).unwrap();
        drop(dir.listen(&path.join(SUPERVISOR_SOCKET), 0o666).unwrap());
        drop(dir);
        let dir = RunDir::take(&path).unwrap();
        let begun = std::time::Instant::now();
        dir.outlast_readers();
        assert!(begun.elapsed().as_nanos() >= u128::from(DETACHED_AGE_NS));
        dir.clear();

        // What the operator made stays as it is, and so does the umask.
        let private = root.path().join("private");
        DirBuilder::new().mode(0o700).create(&private).unwrap();
        let dir = RunDir::take(&private).unwrap();
        assert_eq!(mode(&private), 0o700);
        dir.clear();
    }
}
