//! `nautilus host check`: what this host can keep of the promises, and what is lost where it cannot.
//! Looks only; needs no privilege.

use std::path::Path;

use serde::Serialize;

/// The kernel every promise needs.
const KERNEL_FULL: (u32, u32) = (6, 6);
/// The kernel that can map the rings of a bound socket: a standby goes on without a rebind.
const KERNEL_NO_REBIND: (u32, u32) = (6, 4);
/// Below this the product is refused.
const KERNEL_LEAST: (u32, u32) = (6, 1);

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something is lost.
    Warning,
    /// The node cannot run.
    Fatal,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Name in snake case.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was seen.
    pub seen: String,
    /// What is lost, and what to do; empty when nothing is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub lost: &'static str,
}

/// Where to look; a test looks elsewhere.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    /// Root of `/proc` and `/sys`.
    pub root: &'a Path,
    /// Kernel release.
    pub release: String,
}

impl Host<'static> {
    /// This host.
    pub fn here() -> Self {
        let release = nix::sys::utsname::uname()
            .map_or(String::new(), |uname| uname.release().to_string_lossy().into_owned());
        Self { root: Path::new("/"), release }
    }
}

impl Host<'_> {
    /// Everything looked at.
    pub fn check(&self) -> Vec<Finding> {
        vec![
            self.kernel(),
            self.exists(
                "btf",
                "sys/kernel/btf/vmlinux",
                "the steering program may not load: use a kernel with CONFIG_DEBUG_INFO_BTF",
            ),
            self.af_xdp(),
            self.veth(),
            self.huge_pages(),
            self.isolated(),
            self.cores(),
            self.clock_source(),
            self.privilege(),
        ]
    }

    fn read(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.root.join(path)).ok()?.trim().to_owned())
    }

    fn kernel(&self) -> Finding {
        let seen = self.release.clone();
        let mut numbers = seen.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
        let version = numbers.next().flatten().zip(numbers.next().flatten());
        let (level, lost) = match version {
            None => (Level::Warning, "the kernel's version could not be read"),
            Some(version) if version < KERNEL_LEAST => {
                (Level::Fatal, "kernels below 6.1 are refused: install 6.6 or later")
            }
            Some(version) if version < KERNEL_NO_REBIND => (
                Level::Warning,
                "below 6.4 a standby cannot map the rings of a bound socket: a worker's death costs \
                 a rebind, some 30 ms whose packets are lost; install 6.6 or later",
            ),
            Some(version) if version < KERNEL_FULL => {
                (Level::Warning, "tested from 6.6 on: install 6.6 or later")
            }
            Some(_) => (Level::Ok, ""),
        };
        Finding { name: "kernel", level, seen, lost }
    }

    fn exists(&self, name: &'static str, path: &str, lost: &'static str) -> Finding {
        let there = self.root.join(path).exists();
        let seen = format!("/{path} {}", if there { "is there" } else { "is not there" });
        let level = if there { Level::Ok } else { Level::Warning };
        Finding { name, level, seen, lost: if there { "" } else { lost } }
    }

    fn af_xdp(&self) -> Finding {
        let (name, lost) =
            ("af_xdp", "only the kernel-socket port works: use [port] kind = \"socket\"");
        let found = self.read("proc/net/protocols").map(|protocols| {
            protocols.lines().any(|line| line.starts_with("XDP ") || line.starts_with("XDP\t"))
        });
        match found {
            Some(true) => Finding { name, level: Level::Ok, seen: "registered".into(), lost: "" },
            Some(false) => {
                Finding { name, level: Level::Fatal, seen: "not registered".into(), lost }
            }
            None => Finding {
                name,
                level: Level::Warning,
                seen: "/proc/net/protocols cannot be read".into(),
                lost: "whether AF_XDP works shows only when a node starts",
            },
        }
    }

    fn veth(&self) -> Finding {
        let seen = self
            .read("sys/module/veth/initstate")
            .or_else(|| self.root.join("sys/module/veth").exists().then(|| "built in".to_owned()));
        let builtin = self
            .read(&format!("lib/modules/{}/modules.builtin", self.release))
            .is_some_and(|list| list.contains("veth.ko"));
        match seen.or(builtin.then(|| "built in".into())) {
            Some(seen) => Finding { name: "veth", level: Level::Ok, seen, lost: "" },
            None => Finding {
                name: "veth",
                level: Level::Warning,
                seen: "the module is not loaded".into(),
                lost: "the lab needs veth: load the module, or let scripts/lab.sh do it",
            },
        }
    }

    fn huge_pages(&self) -> Finding {
        let free = self.read("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        let free: u64 = free.and_then(|free| free.parse().ok()).unwrap_or(0);
        let level = if free > 0 { Level::Ok } else { Level::Warning };
        let lost = if free > 0 {
            ""
        } else {
            "packet memory on 4 KiB pages: killing a worker takes 0.5 to 0.75 instead of 0.2 to \
             0.3 ms; set vm.nr_hugepages"
        };
        Finding { name: "huge_pages", level, seen: format!("{free} free pages of 2 MiB"), lost }
    }

    fn isolated(&self) -> Finding {
        let list = self.read("sys/devices/system/cpu/isolated").unwrap_or_default();
        let (level, lost) = if list.is_empty() {
            (Level::Warning, "other work runs on the worker's core: boot with isolcpus=")
        } else {
            (Level::Ok, "")
        };
        let seen = if list.is_empty() { "none".into() } else { list };
        Finding { name: "isolated_cores", level, seen, lost }
    }

    fn cores(&self) -> Finding {
        let list = self.read("sys/devices/system/cpu/online").unwrap_or_default();
        let count = cores_in(&list);
        let (level, lost) = match count {
            Some(0 | 1) => (
                Level::Warning,
                "a busy worker leaves no core for the rest: use poll = \"interrupt\"",
            ),
            None => (Level::Warning, "the number of cores could not be read"),
            Some(_) => (Level::Ok, ""),
        };
        Finding { name: "cores", level, seen: list, lost }
    }

    fn clock_source(&self) -> Finding {
        let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let seen = self.read(path).unwrap_or_else(|| "unknown".into());
        let fast = ["tsc", "kvm-clock", "arch_sys_counter"].contains(&seen.as_str());
        let level = if fast { Level::Ok } else { Level::Warning };
        let lost = if fast { "" } else { "each look at the clock enters the kernel: use the TSC" };
        Finding { name: "clock_source", level, seen, lost }
    }

    fn privilege(&self) -> Finding {
        // CapEff, proc(5); CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_SYS_ADMIN 21, CAP_BPF 39.
        const NEEDED: [(u32, &str); 4] =
            [(12, "net_admin"), (13, "net_raw"), (21, "sys_admin"), (39, "bpf")];
        let status = self.read("proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        let missing: Vec<&str> =
            NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, n)| *n).collect();
        if missing.is_empty() {
            return Finding {
                name: "capabilities",
                level: Level::Ok,
                seen: "all the supervisor needs".into(),
                lost: "",
            };
        }
        Finding {
            name: "capabilities",
            level: Level::Warning,
            seen: format!("missing {}", missing.join(", ")),
            lost: "this user can only run the kernel-socket port: run the supervisor as root",
        }
    }
}

/// How many cores a list such as `0-3,8` names.
fn cores_in(list: &str) -> Option<u32> {
    let mut count = 0u32;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(host: &Host<'_>, name: &str) -> Level {
        host.check().into_iter().find(|finding| finding.name == name).unwrap().level
    }

    #[test]
    fn kernels_are_judged_by_what_they_keep() {
        let root = tempfile::tempdir().unwrap();
        for (release, expected) in [
            ("5.15.0-91-generic", Level::Fatal),
            ("6.1.0-18-amd64", Level::Warning),
            ("6.5.13", Level::Warning),
            ("6.6.0", Level::Ok),
            ("6.18.44-x", Level::Ok),
            ("10.0", Level::Ok),
            ("odd", Level::Warning),
        ] {
            let host = Host { root: root.path(), release: release.into() };
            assert_eq!(level(&host, "kernel"), expected, "{release}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_there_is_not() {
        let root = tempfile::tempdir().unwrap();
        let host = Host { root: root.path(), release: "6.6.0".into() };
        for finding in host.check() {
            assert_eq!(finding.level == Level::Ok, finding.lost.is_empty(), "{finding:?}");
        }
        assert_eq!(level(&host, "huge_pages"), Level::Warning);
        let folder = root.path().join("sys/kernel/mm/hugepages/hugepages-2048kB");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("free_hugepages"), "64\n").unwrap();
        assert_eq!(level(&host, "huge_pages"), Level::Ok);
    }

    #[test]
    fn core_lists_are_counted() {
        for (list, count) in [("0", Some(1)), ("0-3,8", Some(5)), ("", None), ("3-0", None)] {
            assert_eq!(cores_in(list), count, "{list}");
        }
        assert_eq!(cores_in("0-4294967295"), None);
    }
}
