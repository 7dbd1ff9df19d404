//! What the kernel must have, probed before anything is opened, and what is withdrawn without it.

use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::mirror::Mirror;
use super::sys::realtime;
use crate::config::{Auto, ConfigError, HostFacts, NodeConfig, Resolved};

/// Oldest kernel that is served at all.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Mapping the rings of a bound socket works from here on (EBUSY before).
const KERNEL_HAND_OVER: (u32, u32) = (6, 4);
/// Every promise holds from here on.
const KERNEL_FULL: (u32, u32) = (6, 6);

/// Why the host cannot run an `xdp` port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The kernel is too old.
    #[error("kernel {0} is older than 6.1; upgrade it, or write port.kind = \"socket\"")]
    Kernel(String),
    /// The kernel's release could not be read as a version.
    #[error("kernel release {0:?} does not start with a version")]
    Release(String),
    /// No type information for the steering program.
    #[error(
        "/sys/kernel/btf/vmlinux is missing: the kernel lacks CONFIG_DEBUG_INFO_BTF; take one that \
         has it, or write port.kind = \"socket\""
    )]
    Btf,
    /// Opening sockets and loading programs needs root.
    #[error("uid {0} may not open AF_XDP; run as root, or write port.kind = \"socket\"")]
    NotRoot(u32),
}

/// A host that can run the `xdp` port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Kernel release as it names itself.
    pub release: String,
    /// The standby can go on with the sockets of a dead worker.
    pub hand_over: bool,
    /// What does not hold here, each a full sentence.
    pub withdrawn: Vec<String>,
}

impl Host {
    /// Looks at the running kernel.
    pub fn probe() -> Result<Self, HostError> {
        let release = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
        Self::judge(&release, btf, nix::unistd::geteuid().as_raw())
    }

    fn judge(release: &str, btf: bool, uid: u32) -> Result<Self, HostError> {
        let version = version(release).ok_or_else(|| HostError::Release(release.into()))?;
        if version < KERNEL_MIN {
            return Err(HostError::Kernel(release.into()));
        }
        if !btf {
            return Err(HostError::Btf);
        }
        if uid != 0 {
            return Err(HostError::NotRoot(uid));
        }
        let mut withdrawn = Vec::new();
        if version < KERNEL_HAND_OVER {
            withdrawn.push(format!(
                "kernel {release} is older than 6.4: the promise \"no rebind\" is withdrawn; a dead \
                 worker's successor binds new sockets (20 ms and more), and what waited in the old \
                 ones is lost"
            ));
        } else if version < KERNEL_FULL {
            withdrawn.push(format!("kernel {release} is older than 6.6: not tested by this build"));
        }
        Ok(Self { release: release.into(), hand_over: version >= KERNEL_HAND_OVER, withdrawn })
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// CPUs this process may run on, ascending.
pub fn allowed_cores() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .map(|cpu| cpu as u32)
        .collect()
}

/// (free bytes, bytes of one page) of the default huge page size; zeros where there are none.
pub fn huge_pages() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let free = field("HugePages_Free:").unwrap_or(0);
    let reserved = field("HugePages_Rsvd:").unwrap_or(0);
    let page_bytes = field("Hugepagesize:").unwrap_or(0) * 1024;
    (free.saturating_sub(reserved) * page_bytes, page_bytes)
}

/// What the host offers to the node file of this text.
pub fn facts(mirror: &Mirror, text: &str, path: &Path) -> Result<HostFacts, ConfigError> {
    let config: NodeConfig = crate::config::parse(text, &path.display().to_string())?;
    let links: Vec<_> =
        config.interface.iter().filter_map(|wanted| mirror.link_named(&wanted.name)).collect();
    let queues = config.interface.iter().map(|wanted| {
        match (&wanted.queues, mirror.link_named(&wanted.name)) {
            (Auto::Is(queues), _) => queues.len() as u32,
            (Auto::Auto, link) => link.map_or(0, |link| link.rx_queues),
        }
    });
    // An MTU no frame carries is refused with the interface's name, not with the frame's size.
    let mtu = links.iter().map(|link| link.mtu).filter(|mtu| *mtu <= super::inspect::MTU_MAX);
    let (huge_bytes_free, huge_page_bytes) = huge_pages();
    let program = std::env::current_exe().unwrap_or_default();
    Ok(HostFacts {
        cores: allowed_cores(),
        huge_bytes_free,
        huge_page_bytes,
        mtu_max: mtu.max().unwrap_or(1500),
        queue_count: queues.sum::<u32>().max(1),
        program_dir: program.parent().map(PathBuf::from).unwrap_or_default(),
        uid: nix::unistd::geteuid().as_raw(),
    })
}

/// Lets the calling thread run on these CPUs. A refusal leaves it where it is.
pub fn run_on(cores: &[u32]) {
    let mut set = CpuSet::new();
    for core in cores {
        let _ = set.set(*core as usize);
    }
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

/// Scheduling of the supervisor itself; what is refused is said and survived.
pub fn settle(resolved: &Resolved) -> Vec<String> {
    let mut notes = Vec::new();
    let cores = allowed_cores();
    let mut set = CpuSet::new();
    let own: Vec<u32> =
        cores.iter().copied().filter(|core| !resolved.cores.contains(core)).collect();
    for core in &own {
        let _ = set.set(*core as usize);
    }
    if !own.is_empty()
        && let Err(errno) = sched_setaffinity(Pid::from_raw(0), &set)
    {
        notes.push(format!("the supervisor stays on the worker's core too: {errno}"));
    }
    let priority = resolved.config.supervisor.realtime_priority;
    if priority > 0
        && let Err(error) = realtime(priority)
    {
        notes.push(format!(
            "SCHED_FIFO {priority} refused ({error}): under load a promotion may wait milliseconds"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_or_lose_promises_in_words() {
        assert!(matches!(Host::judge("5.10.0-28-amd64", true, 0), Err(HostError::Kernel(_))));
        assert!(matches!(Host::judge("6.0.19", true, 0), Err(HostError::Kernel(_))));
        assert!(matches!(Host::judge("six", true, 0), Err(HostError::Release(_))));
        let stock = Host::judge("6.1.0-41-amd64", true, 0).unwrap();
        assert!(!stock.hand_over);
        assert!(stock.withdrawn[0].contains("\"no rebind\" is withdrawn"));
        let mid = Host::judge("6.4.0", true, 0).unwrap();
        assert!(mid.hand_over && mid.withdrawn.len() == 1);
        let full = Host::judge("6.18.44", true, 0).unwrap();
        assert!(full.hand_over && full.withdrawn.is_empty());
        assert_eq!(Host::judge("6.18.44", false, 0), Err(HostError::Btf));
        assert_eq!(Host::judge("6.18.44", true, 1000), Err(HostError::NotRoot(1000)));
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed_cores().is_empty());
    }
}
