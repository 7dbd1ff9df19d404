//! What `auto` becomes on this host, and which uids the names mean. Every choice is kept as a line
//! an operator reads at start.

use std::fmt;
use std::path::PathBuf;

use nix::unistd::{Uid, User};

use super::{Auto, Cache, NodeConfig, PortKind};
use crate::limits::{
    CHUNK_BYTES_LARGE, CHUNK_BYTES_SMALL, LINK_HEADER_BYTES_MAX, XDP_HEADROOM_BYTES,
};
use crate::xsk::UmemSpec;

/// What the host offers, read once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// CPUs the supervisor may run on, ascending, at least one.
    pub cores: Vec<u32>,
    /// Free huge pages of the default size, in bytes.
    pub huge_bytes_free: u64,
    /// Bytes of one huge page of the default size.
    pub huge_page_bytes: u64,
    /// Largest MTU among the node's interfaces.
    pub mtu_max: u32,
    /// Queues served in all.
    pub queue_count: u32,
    /// Directory of the running program.
    pub program_dir: PathBuf,
    /// The supervisor's own uid.
    pub uid: u32,
}

/// One `auto` that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Key path in the node file.
    pub key: &'static str,
    /// What it became.
    pub value: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = auto -> {} ({})", self.key, self.value, self.reason)
    }
}

/// A node file with nothing left to decide.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The file as checked.
    pub config: NodeConfig,
    /// Directory of sockets and lock.
    pub run_dir: PathBuf,
    /// CPUs of the workers, one each.
    pub cores: Vec<u32>,
    /// Path of the worker program.
    pub program: PathBuf,
    /// Path of the front program.
    pub front_program: PathBuf,
    /// CPU of the front, if it is pinned.
    pub front_core: Option<u32>,
    /// Path of the capture program, where something is captured.
    pub capture_program: Option<PathBuf>,
    /// Identity of the worker, of the front and of the capture process.
    pub worker_uid: u32,
    /// Group of the worker.
    pub worker_gid: u32,
    /// Uid that may attach besides root.
    pub control_uid: u32,
    /// The supervisor's own uid.
    pub uid: u32,
    /// Bytes of one UMEM frame.
    pub chunk_bytes: u32,
    /// UMEM on huge pages.
    pub huge_pages: bool,
    /// What was decided, in the order of the file.
    pub choices: Vec<Choice>,
}

/// A value that is well formed and cannot hold on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such user in the host's user database.
    #[error("{key}: there is no user {name:?} on this host; create it or write a uid")]
    User {
        /// Key path.
        key: String,
        /// What was written.
        name: String,
    },
    /// The worker would have every privilege of the supervisor.
    #[error("worker.user: {0:?} is root; the worker needs no privilege, name an ordinary user")]
    RootWorker(String),
    /// Somebody who could do more than read, or whom the kernel cannot tell from others.
    #[error("{key}: {name:?} is {what}; give the reading program a user of its own")]
    Reader {
        /// Key path.
        key: String,
        /// What was written.
        name: String,
        /// Whom it means.
        what: &'static str,
    },
    /// The CPU is offline or outside the supervisor's affinity mask.
    #[error("{key}: CPU {core} is not one this process may use ({allowed:?})")]
    Core {
        /// Key path.
        key: &'static str,
        /// What was written.
        core: u32,
        /// What the affinity mask allows.
        allowed: Vec<u32>,
    },
    /// A packet would not fit a frame.
    #[error(
        "port.chunk_bytes: an MTU of {mtu} needs {needed} bytes and a frame has {chunk}; \
         lower the MTU to {fits} or less, or write chunk_bytes = 4096 (multi-buffer is not built)"
    )]
    Chunk {
        /// Largest MTU of the interfaces.
        mtu: u32,
        /// Bytes a full packet takes.
        needed: u32,
        /// Bytes of a frame.
        chunk: u32,
        /// Largest MTU that frame carries.
        fits: u32,
    },
}

impl ResolveError {
    /// Path of the key whose value it is.
    pub fn key(&self) -> &str {
        match self {
            Self::User { key, .. } | Self::Reader { key, .. } => key,
            Self::RootWorker(_) => "worker.user",
            Self::Core { .. } => "worker.core",
            Self::Chunk { .. } => "port.chunk_bytes",
        }
    }
}

/// Bytes a packet of `mtu` takes in a frame.
pub(crate) fn frame_bytes_needed(mtu: u32) -> u32 {
    XDP_HEADROOM_BYTES + LINK_HEADER_BYTES_MAX + mtu
}

impl Resolved {
    /// Decides every `auto` of `config`.
    pub fn new(config: NodeConfig, host: &HostFacts) -> Result<Self, ResolveError> {
        let mut choices = Vec::new();
        let mut chose = |key, value: String, reason: String| {
            choices.push(Choice { key, value, reason });
        };
        let run_dir = match config.node.run_dir.value() {
            Some(dir) => dir.clone(),
            None => {
                let dir = PathBuf::from("/run/nautilus").join(&config.node.id);
                chose("node.run_dir", dir.display().to_string(), "by node.id".into());
                dir
            }
        };
        let cores = cores(&config, host, &mut chose)?;
        let program = match config.worker.program.value() {
            Some(program) => program.clone(),
            None => {
                let program = host.program_dir.join("nautilus-worker");
                chose("worker.program", program.display().to_string(), "beside us".into());
                program
            }
        };
        let (front_program, front_core) = front(&config, host, &mut chose)?;
        let capture_program = capture(&config, host, &mut chose);
        let chunk_bytes = chunk_bytes(&config, host, &mut chose)?;
        let huge_pages = huge_pages(&config, host, chunk_bytes, &mut chose);
        let (worker_uid, worker_gid) = match config.port.kind {
            PortKind::Socket if host.uid != 0 => (host.uid, nix::unistd::getgid().as_raw()),
            _ => user("worker.user", &config.worker.user)?,
        };
        if worker_uid == 0 {
            return Err(ResolveError::RootWorker(config.worker.user.clone()));
        }
        let (control_uid, _) = user("control.user", &config.control.user)?;
        let resolved = Self {
            run_dir,
            cores,
            program,
            front_program,
            front_core,
            capture_program,
            worker_uid,
            worker_gid,
            control_uid,
            uid: host.uid,
            chunk_bytes,
            huge_pages,
            choices,
            config,
        };
        for (index, cache) in resolved.config.cache.iter().enumerate() {
            resolved.readers(cache, &format!("cache[{index}].readers"))?;
        }
        Ok(resolved)
    }

    /// Uids that may read a cache besides root and the supervisor's own user; `key` is the path of its
    /// list.
    pub fn readers(&self, cache: &Cache, key: &str) -> Result<Vec<u32>, ResolveError> {
        let mut uids = Vec::new();
        for name in &cache.readers {
            let (uid, _) = user(key, name)?;
            let refused = |what| ResolveError::Reader { key: key.into(), name: name.clone(), what };
            if uid == self.worker_uid && self.worker_uid != self.uid {
                // It could trace the worker, whose mapping is writable.
                return Err(refused("the worker's user"));
            }
            if uid == OVERFLOW_UID {
                return Err(refused("the user of everybody from another user namespace"));
            }
            uids.push(uid);
        }
        Ok(uids)
    }
}

fn cores(
    config: &NodeConfig,
    host: &HostFacts,
    chose: &mut impl FnMut(&'static str, String, String),
) -> Result<Vec<u32>, ResolveError> {
    if let Auto::Is(cores) = &config.worker.core {
        if let Some(core) = cores.all().iter().find(|core| !host.cores.contains(core)) {
            let allowed = host.cores.clone();
            return Err(ResolveError::Core { key: "worker.core", core: *core, allowed });
        }
        return Ok(cores.all().to_vec());
    }
    let count = config.worker.count as usize;
    // More workers than CPUs share them.
    let last = &host.cores[host.cores.len().saturating_sub(count)..];
    let cores: Vec<u32> = last.iter().copied().cycle().take(count).collect();
    let said = cores.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    chose("worker.core", said, format!("last of {:?}", host.cores));
    Ok(cores)
}

/// Program and CPU of the front.
fn front(
    config: &NodeConfig,
    host: &HostFacts,
    chose: &mut impl FnMut(&'static str, String, String),
) -> Result<(PathBuf, Option<u32>), ResolveError> {
    let program = match &config.front.program {
        Auto::Is(program) => program.clone(),
        Auto::Auto => host.program_dir.join("nautilus-front"),
    };
    if !config.has_front() {
        return Ok((program, None));
    }
    if config.front.program == Auto::Auto {
        chose("front.program", program.display().to_string(), "beside us".into());
    }
    match config.front.core.value() {
        Some(core) if !host.cores.contains(core) => {
            let allowed = host.cores.clone();
            Err(ResolveError::Core { key: "front.core", core: *core, allowed })
        }
        core => Ok((program, core.copied())),
    }
}

/// Program of the capture process; what it will write is said as well.
fn capture(
    config: &NodeConfig,
    host: &HostFacts,
    chose: &mut impl FnMut(&'static str, String, String),
) -> Option<PathBuf> {
    let capture = config.capture.as_ref()?;
    let program = match &capture.program {
        Auto::Is(program) => program.clone(),
        Auto::Auto => {
            let program = host.program_dir.join("nautilus-capture");
            chose("capture.program", program.display().to_string(), "beside us".into());
            program
        }
    };
    Some(program)
}

fn chunk_bytes(
    config: &NodeConfig,
    host: &HostFacts,
    chose: &mut impl FnMut(&'static str, String, String),
) -> Result<u32, ResolveError> {
    let needed = frame_bytes_needed(host.mtu_max);
    let chunk = match config.port.chunk_bytes {
        Auto::Is(chunk) => chunk,
        Auto::Auto if needed <= CHUNK_BYTES_SMALL => CHUNK_BYTES_SMALL,
        Auto::Auto => CHUNK_BYTES_LARGE,
    };
    if config.port.kind == PortKind::Socket {
        return Ok(chunk);
    }
    if needed > chunk {
        let fits = CHUNK_BYTES_LARGE - frame_bytes_needed(0);
        return Err(ResolveError::Chunk { mtu: host.mtu_max, needed, chunk, fits });
    }
    if config.port.chunk_bytes == Auto::Auto {
        let reason = format!("the largest MTU is {}", host.mtu_max);
        chose("port.chunk_bytes", chunk.to_string(), reason);
    }
    Ok(chunk)
}

fn huge_pages(
    config: &NodeConfig,
    host: &HostFacts,
    chunk_bytes: u32,
    chose: &mut impl FnMut(&'static str, String, String),
) -> bool {
    if config.port.kind == PortKind::Socket {
        return false;
    }
    match config.port.huge_pages {
        Auto::Is(huge) => huge,
        Auto::Auto => {
            let page = host.huge_page_bytes.max(1);
            let in_pages = |bytes: u64| bytes.div_ceil(page) * page;
            let umem = UmemSpec::new(config.port.frames, chunk_bytes, false).total_bytes() as u64;
            // The caches' memory is taken first.
            let caches = config.cache.iter().filter(|cache| cache.huge_pages);
            let caches = caches.map(|cache| in_pages(u64::from(cache.max_memory_mb) << 20));
            let needed = in_pages(umem) * u64::from(host.queue_count) + caches.sum::<u64>();
            let huge = host.huge_page_bytes > 0 && host.huge_bytes_free >= needed;
            let reason =
                format!("{} bytes of huge pages free, {needed} needed", host.huge_bytes_free);
            chose("port.huge_pages", huge.to_string(), reason);
            huge
        }
    }
}

/// What the kernel reports for a peer whose user has no number in our user namespace (the default of
/// `/proc/sys/kernel/overflowuid`).
const OVERFLOW_UID: u32 = 65_534;

/// A user name or uid, as (uid, gid). A bare uid unknown to the host has the gid of the same number.
fn user(key: &str, name: &str) -> Result<(u32, u32), ResolveError> {
    if let Ok(uid) = name.parse::<u32>() {
        let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        return Ok((uid, known.map_or(uid, |user| user.gid.as_raw())));
    }
    let user = User::from_name(name).ok().flatten();
    user.map(|user| (user.uid.as_raw(), user.gid.as_raw()))
        .ok_or_else(|| ResolveError::User { key: key.into(), name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::super::Cores;
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            cores: vec![0, 1],
            huge_bytes_free: 128 << 20,
            huge_page_bytes: 2 << 20,
            mtu_max: 1500,
            queue_count: 1,
            program_dir: "/opt/nautilus/bin".into(),
            uid: 0,
        }
    }

    #[test]
    fn auto_is_decided_and_said() {
        let resolved = Resolved::new(NodeConfig::default(), &host()).unwrap();
        assert_eq!(
            (resolved.cores, resolved.chunk_bytes, resolved.huge_pages),
            (vec![1], 2048, true)
        );
        assert_eq!(resolved.run_dir, PathBuf::from("/run/nautilus/node-1"));
        assert_eq!(resolved.worker_uid, 65534);
        let lines: Vec<_> = resolved.choices.iter().map(Choice::to_string).collect();
        assert_eq!(lines[1], "worker.core = auto -> 1 (last of [0, 1])");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_host_decides_what_holds() {
        let small = HostFacts { huge_bytes_free: 4 << 20, mtu_max: 3000, ..host() };
        let resolved = Resolved::new(NodeConfig::default(), &small).unwrap();
        assert_eq!((resolved.chunk_bytes, resolved.huge_pages), (4096, false));

        // 2,048 frames of 2,048 bytes are two pages, and what is written about them takes a third.
        for (pages, taken) in [(3, true), (2, false)] {
            let exact = HostFacts { huge_bytes_free: pages * (2 << 20), ..host() };
            let resolved = Resolved::new(NodeConfig::default(), &exact).unwrap();
            assert_eq!(resolved.huge_pages, taken, "{pages} pages");
        }

        let jumbo = HostFacts { mtu_max: 9000, ..host() };
        let error = Resolved::new(NodeConfig::default(), &jumbo).unwrap_err();
        assert!(error.to_string().contains("lower the MTU to 3802 or less"), "{error}");

        let mut config = NodeConfig::default();
        config.worker.core = Auto::Is(Cores::One(7));
        let error = Resolved::new(config, &host()).unwrap_err();
        let (key, allowed) = ("worker.core", vec![0, 1]);
        assert_eq!(error, ResolveError::Core { key, core: 7, allowed });
        let several = |text: &str, cores: &[u32]| {
            let config = crate::config::parse(text, "n.toml").unwrap();
            assert_eq!(Resolved::new(config, &host()).unwrap().cores, cores, "{text}");
        };
        several("[worker]\ncount = 2\n", &[0, 1]);
        several("[worker]\ncount = 3\n", &[0, 1, 0]);
        several("[worker]\ncount = 2\ncore = [1, 1]\n", &[1, 1]);
        let mut config = NodeConfig::default();
        config.front.core = Auto::Is(7);
        config.cache = vec![toml::from_str("id = \"q\"").unwrap()];
        let error = Resolved::new(config, &host()).unwrap_err();
        assert!(matches!(error, ResolveError::Core { key: "front.core", .. }), "{error}");

        let mut config = NodeConfig::default();
        config.worker.user = "no-such-user-here".into();
        assert!(matches!(Resolved::new(config, &host()), Err(ResolveError::User { .. })));
        let with_readers = |worker: &str, readers: &[&str]| {
            let text = format!(
                "[worker]\nuser = {worker:?}\n[cache]\nid = \"q\"\nreaders = {readers:?}\n"
            );
            Resolved::new(crate::config::parse(&text, "n.toml").unwrap(), &host())
        };
        let resolved = with_readers("999", &["root", "1005"]).unwrap();
        assert_eq!(resolved.readers(&resolved.config.cache[0], "readers").unwrap(), [0, 1005]);
        for (readers, says) in [
            (&["1005", "999"][..], "the worker's user"),
            (&["65534"], "another user namespace"),
            (&["no-such-user-here"], "cache[0].readers: there is no user"),
        ] {
            let message = with_readers("999", readers).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        let mut config = NodeConfig::default();
        config.worker.user = "root".into();
        assert!(matches!(Resolved::new(config, &host()), Err(ResolveError::RootWorker(_))));
    }
}
