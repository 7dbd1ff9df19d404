//! What runs: which process it is, the file it was started with as that file was then, and, of a node, what
//! its region tells.
//!
//! ```text
//!   region --> supervisor's pid --> /proc: file, time of start --> FILE, or FILE.running where FILE was
//!   socket --> control's pid    --'                                replaced since by `config apply`
//! ```
//!
//! The first line of FILE.running says of which process it is, so that no clock decides between the two: a
//! process that was started and whose file was replaced within a few milliseconds is told apart from one that
//! was started right after.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::time::{ClockId, clock_gettime};

use crate::command::exit::{Exit, Failure};
use crate::config::Config;
use crate::link::{Attachment, Link};
use crate::status::NodeStatus;
use crate::view::NodeView;

/// A process reads its file right after its start. Too low: its own file seems changed; too high: a change
/// right after is not seen.
const READING: Duration = Duration::from_millis(100);

/// A process and its file.
#[derive(Debug)]
pub struct Running {
    /// Which process.
    pub pid: u32,
    /// The file it was started with; none where it had none, or it cannot be told.
    pub file: Option<PathBuf>,
    /// When it was started.
    pub started: SystemTime,
    /// The same in the kernel's own ticks since boot: with the pid, which process of all it is.
    ticks: u64,
}

/// What it was told when it started, as far as that can be known.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The text it read.
    Text(String),
    /// It is not known, and why.
    Unknown(String),
}

impl Running {
    /// The process of this id, from what the kernel says of it.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        let gone = |error: std::io::Error| {
            Failure::new(Exit::Unreachable, format!("process {pid}: {error}"))
        };
        let folder = Path::new("/proc").join(pid.to_string());
        let line = std::fs::read(folder.join("cmdline")).map_err(gone)?;
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into())
            .collect();
        let file = words.iter().enumerate().find_map(|(index, word)| {
            let value = word.strip_prefix("--config=");
            value
                .or_else(|| (word == "--config").then(|| words.get(index + 1))?.map(String::as_str))
        });
        let file = match file {
            None => None,
            Some(file) => {
                let inside = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
                Some(inside.join(file))
            }
        };
        let stat = std::fs::read_to_string(folder.join("stat")).map_err(gone)?;
        // Behind the name, which may hold anything: field 22 of them all, 20 of these.
        let ticks =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok());
        let per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).ok();
        let (Some(ticks), Some(per_s), Some(since_boot)) = (ticks, per_s, since_boot) else {
            let text = format!("process {pid}: when it was started cannot be told");
            return Err(Failure::new(Exit::Unreachable, text));
        };
        let ticks: u64 = ticks;
        let after_boot = Duration::from_secs_f64(ticks as f64 / per_s.max(1) as f64);
        let age = since_boot.saturating_sub(after_boot);
        Ok(Self { pid, file, started: SystemTime::now() - age, ticks })
    }

    /// The control that answers at a socket of this host.
    pub fn at_socket(path: &Path) -> Result<Self, Failure> {
        let gone =
            |error: String| Failure::new(Exit::Unreachable, format!("{}: {error}", path.display()));
        let stream = UnixStream::connect(path).map_err(|error| gone(error.to_string()))?;
        let peer = getsockopt(&stream.as_fd(), PeerCredentials).map_err(|e| gone(e.to_string()))?;
        match u32::try_from(peer.pid()) {
            Ok(pid) if pid > 0 => Self::of(pid),
            _ => Err(gone("who listens there cannot be told".into())),
        }
    }

    /// What it read when it started.
    pub fn told(&self) -> Told {
        let Some(file) = &self.file else {
            return Told::Unknown("it was started without a file".into());
        };
        let kept = std::fs::read_to_string(kept(file)).ok();
        if let Some(text) = kept.as_deref().and_then(|kept| kept.strip_prefix(&self.mark())) {
            return Told::Text(text.to_owned());
        }
        let same = |path: &Path| -> Option<String> {
            let changed = path.metadata().ok()?.modified().ok()?;
            let text = std::fs::read_to_string(path).ok()?;
            (changed <= self.started + READING).then_some(text)
        };
        let unknown = || {
            let file = file.display();
            Told::Unknown(format!("{file} was changed since it was started, by other hands"))
        };
        same(file).map_or_else(unknown, Told::Text)
    }

    /// `text`, which it read, as it is kept beside its file.
    pub fn marked(&self, text: &str) -> String {
        self.mark() + text
    }

    fn mark(&self) -> String {
        format!("# What process {} read, started {} ticks after the boot.\n", self.pid, self.ticks)
    }
}

/// Where what runs is kept when its file is replaced.
pub fn kept(file: &Path) -> PathBuf {
    file.with_added_extension("running")
}

/// A node as its region tells it.
pub fn node(run_dir: &Path) -> Result<(NodeView, NodeStatus), Failure> {
    let usage = |error: crate::config::ConfigError| Failure::usage(error.to_string());
    let config = Config::of_run_dirs(&[run_dir.to_owned()]).map_err(usage)?;
    let mut links: Vec<Link> = config.nodes.into_iter().map(Link::new).collect();
    let views = crate::command::local::look(&mut links);
    let Some(view) = views.into_iter().next() else {
        return Err(Failure::new(Exit::Unreachable, "there is no node"));
    };
    if view.attachment == Attachment::Unreachable {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("{}: {}", run_dir.display(), view.reason),
        ));
    }
    let status = NodeStatus::of(&view);
    Ok((view, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_file_and_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("n.toml");
        std::fs::write(&file, "a = 1\n").unwrap();
        let begun = SystemTime::now();
        std::thread::sleep(Duration::from_millis(30));
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", "x", "--config", "n.toml"])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Right after its start a process has no arguments yet.
        let mut looks = (0..50).filter_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Running::of(child.id()).ok()
        });
        let running = looks.find(|one| one.file.is_some());
        std::thread::sleep(Duration::from_millis(300));
        let told = running.as_ref().map(Running::told);
        std::fs::write(&file, "a = 2\n").unwrap();
        let changed = running.as_ref().map(Running::told);
        // Of another process, then of this one, even where its file was replaced right after its start.
        std::fs::write(kept(&file), "# What process 1 read\na = 3\n").unwrap();
        let of_another = running.as_ref().map(Running::told);
        std::fs::write(kept(&file), running.as_ref().unwrap().marked("a = 1\n")).unwrap();
        let replaced = running.as_ref().map(Running::told);
        let at_once = running.as_ref().map(|one| {
            let changed = std::fs::File::options().write(true).open(&file).unwrap();
            changed.set_modified(one.started + READING / 2).unwrap();
            one.told()
        });
        drop(child.stdin.take());
        child.wait().unwrap();
        let running = running.unwrap();
        assert_eq!(running.file.as_deref(), Some(file.canonicalize().unwrap().as_path()));
        let apart = running.started.duration_since(begun).unwrap_or_default();
        assert!(apart < Duration::from_secs(5), "{apart:?}");
        assert_eq!(told.unwrap(), Told::Text("a = 1\n".into()));
        assert!(matches!(changed.unwrap(), Told::Unknown(_)));
        assert!(matches!(of_another.unwrap(), Told::Unknown(_)));
        assert_eq!(replaced.unwrap(), Told::Text("a = 1\n".into()));
        assert_eq!(at_once.unwrap(), Told::Text("a = 1\n".into()));
        assert_eq!(Running::of(child.id()).unwrap_err().exit, Exit::Unreachable);
    }
}
