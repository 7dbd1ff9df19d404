//! What must hold before any knob matters: kernel, AF_XDP, privileges.

use serde::Serialize;

use super::machine::Machine;

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

/// Everything that must hold.
pub fn check(machine: &Machine) -> Vec<Finding> {
    let release = machine.text("proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        kernel(&release),
        type_information(machine),
        af_xdp(machine),
        veth(machine, &release),
        capabilities(machine),
    ]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
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
    Finding { name: "kernel", level, seen: release.into(), lost }
}

fn type_information(machine: &Machine) -> Finding {
    let path = "sys/kernel/btf/vmlinux";
    let there = machine.exists(path);
    let seen = format!("/{path} {}", if there { "is there" } else { "is not there" });
    let lost = "an xdp port is refused: use a kernel with CONFIG_DEBUG_INFO_BTF, or [port] kind = \"socket\"";
    let level = if there { Level::Ok } else { Level::Fatal };
    Finding { name: "btf", level, seen, lost: if there { "" } else { lost } }
}

fn af_xdp(machine: &Machine) -> Finding {
    let (name, lost) =
        ("af_xdp", "only the kernel-socket port works: use [port] kind = \"socket\"");
    let found = machine.text("proc/net/protocols").map(|protocols| {
        protocols.lines().any(|line| line.starts_with("XDP ") || line.starts_with("XDP\t"))
    });
    match found {
        Ok(true) => Finding { name, level: Level::Ok, seen: "registered".into(), lost: "" },
        Ok(false) => Finding { name, level: Level::Fatal, seen: "not registered".into(), lost },
        Err(why) => Finding {
            name,
            level: Level::Warning,
            seen: why,
            lost: "whether AF_XDP works shows only when a node starts",
        },
    }
}

fn veth(machine: &Machine, release: &str) -> Finding {
    let name = "veth";
    let built_in = || {
        let list = machine.text(&format!("lib/modules/{release}/modules.builtin"));
        list.is_ok_and(|list| list.contains("veth.ko"))
    };
    let seen = match machine.text("sys/module/veth/initstate") {
        Ok(state) => Some(state),
        Err(_) if machine.exists("sys/module/veth") || built_in() => Some("built in".into()),
        // A driver without parameters leaves no trace: a kernel without modules tells nothing.
        Err(_) if machine.exists("sys/module") && !machine.exists("proc/modules") => {
            Some("this kernel loads no modules: built in, or missing".into())
        }
        Err(_) => None,
    };
    match seen {
        Some(seen) => Finding { name, level: Level::Ok, seen, lost: "" },
        None => Finding {
            name,
            level: Level::Warning,
            seen: "the module is not loaded".into(),
            lost: "the lab needs veth: load the module, or let scripts/lab.sh do it",
        },
    }
}

fn capabilities(machine: &Machine) -> Finding {
    // CapEff, proc(5); CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_SYS_ADMIN 21, CAP_BPF 39.
    const NEEDED: [(u32, &str); 4] =
        [(12, "net_admin"), (13, "net_raw"), (21, "sys_admin"), (39, "bpf")];
    let status = machine.text("proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, n)| *n).collect();
    let (level, seen, lost) = if missing.is_empty() {
        (Level::Ok, "all the supervisor needs".into(), "")
    } else {
        (
            Level::Warning,
            format!("missing {}", missing.join(", ")),
            "this user can only run the kernel-socket port: run the supervisor as root",
        )
    };
    Finding { name: "capabilities", level, seen, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_judged_by_what_they_keep() {
        for (release, expected) in [
            ("5.15.0-91-generic", Level::Fatal),
            ("6.1.0-18-amd64", Level::Warning),
            ("6.5.13", Level::Warning),
            ("6.6.0", Level::Ok),
            ("6.18.44-x", Level::Ok),
            ("10.0", Level::Ok),
            ("odd", Level::Warning),
            ("", Level::Warning),
        ] {
            assert_eq!(kernel(release).level, expected, "{release}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_there_is_not() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::recorded(root.path());
        for finding in check(&machine) {
            assert_eq!(finding.level == Level::Ok, finding.lost.is_empty(), "{finding:?}");
        }
        assert_eq!(af_xdp(&machine).level, Level::Warning);
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        std::fs::write(root.path().join("proc/net/protocols"), "TCP 1\n").unwrap();
        assert_eq!(af_xdp(&machine).level, Level::Fatal);
        std::fs::write(root.path().join("proc/net/protocols"), "XDP 1\n").unwrap();
        assert_eq!(af_xdp(&machine).level, Level::Ok);
    }
}
