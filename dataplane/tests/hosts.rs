//! Hosts on which something is wrong: a full disk, a log nobody can write, no type information,
//! interfaces that cannot be served. A clear error or service, never a panic.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;

use std::process::Command;

use nautilus_shm::attach::{Code, Request, Verb};
use supervised::{Supervised, ip};

/// The supervisor of `node` in a mount namespace of its own, after `prepare`.
fn behind_mounts(node: &Supervised, prepare: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &node.server_ns, "unshare", "--mount", "sh", "-ec"])
        .arg(format!("{prepare}\nexec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_nautilus-supervisor"), "--config"])
        .arg(&node.config);
    command
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_full_disk_under_the_run_directory_is_told() {
    let node = Supervised::new("");
    let run_dir = node.run_dir();
    let (dir, full) = (run_dir.display(), "No space left on device (os error 28)");
    let mounted = format!("mkdir -p {dir}\nmount -t tmpfs -o size=4k,nr_inodes=4 tmpfs {dir}\n");
    let fill = format!("{mounted}head -c 4096 /dev/zero >{dir}/other");
    let message = node.refuses(behind_mounts(&node, &fill));
    assert!(message.contains(&format!("cannot write {dir}/lock: {full}")), "{message}");

    // No room for another name in it.
    let fill = format!("{mounted}touch {dir}/a {dir}/b {dir}/c");
    let message = node.refuses(behind_mounts(&node, &fill));
    assert!(message.contains(&format!("cannot open {dir}/lock: {full}")), "{message}");
    let fill = format!("{mounted}touch {dir}/a {dir}/b");
    let message = node.refuses(behind_mounts(&node, &fill));
    assert!(message.contains(&format!("cannot bind {dir}/supervisor.sock: {full}")), "{message}");
    assert!(!node.has_program(), "the interface is as it was");
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_log_that_cannot_be_written_ends_nothing() {
    let mut node = Supervised::new("");
    std::os::unix::fs::symlink("/dev/full", node.log()).unwrap();
    node.start();
    node.await_echo();
    node.replace_worker();
    node.await_echo();
    let (sockets, worker) = (node.shared_sockets(), node.active());
    // The worker has something to say when its supervisor dies, and gives back what it holds all
    // the same.
    node.kill_supervisor();
    node.start();
    assert_eq!(node.active(), worker, "the same worker serves on");
    assert_eq!(node.shared_sockets(), sockets, "taken back, not bound anew");
    node.await_echo();
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_kernel_without_type_information_is_refused() {
    let node = Supervised::new("");
    let hidden = "mount -t tmpfs tmpfs /sys/kernel/btf";
    let message = node.refuses(behind_mounts(&node, hidden));
    assert!(message.contains("/sys/kernel/btf/vmlinux is missing"), "{message}");
    assert!(message.contains("port.kind = \"socket\""), "{message}");
    assert!(!node.has_program() && !node.run_dir().exists());
}

/// The supervisor in a mount namespace of its own, without type information of the kernel.
fn start_without_type_information(node: &mut Supervised) {
    let log = std::fs::File::options().create(true).append(true).open(node.log()).unwrap();
    let mut command = behind_mounts(node, "mount -t tmpfs tmpfs /sys/kernel/btf");
    node.supervisor = Some(command.stderr(log).spawn().unwrap());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn kernel_sockets_need_no_type_information() {
    let text = "[port]\nkind = \"socket\"\n[[cache]]\nid = \"quotes\"\nmax_memory_mb = 8\n";
    let mut node = Supervised::new(text);
    // The echo port of these nodes is one of root's.
    let allow = "sysctl -q -w net.ipv4.ip_unprivileged_port_start=0";
    ip(&format!("netns exec {} {allow}", node.server_ns));
    start_without_type_information(&mut node);
    node.await_workers(1);
    node.await_echo();
    let cache = node.client();
    cache.connect((supervised::SERVER, supervised::CACHE_PORT)).unwrap();
    assert_eq!(supervised::ask(&cache, "set k 0 0 1\r\nv\r\n"), "STORED\r\n");
    assert_eq!(supervised::ask(&cache, "get k\r\n"), "VALUE k 0 1\r\nv\r\nEND\r\n");
    assert!(!node.has_program());

    // Nor does a node that is started later get by with a file that says something else.
    let verb = |verb: Verb| node.request(&Request { verb }.encode());
    assert_eq!(verb(Verb::Park).0, Code::Ok);
    let text = std::fs::read_to_string(&node.config).unwrap();
    std::fs::write(&node.config, text.replace("kind = \"socket\"\n", "")).unwrap();
    let (code, said) = verb(Verb::Start);
    assert_eq!(code, Code::Impossible, "{said}");
    assert!(said.contains("/sys/kernel/btf/vmlinux is missing"), "{said}");
    assert!(!node.has_program() && node.status().unwrap().contains("phase parked"));
    std::fs::write(&node.config, text).unwrap();
    let (code, said) = verb(Verb::Start);
    assert_eq!(code, Code::Ok, "{said}");
    node.await_echo();
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_check_says_that_type_information_is_missing() {
    let node = Supervised::new("");
    let mut command = behind_mounts(&node, "mount -t tmpfs tmpfs /sys/kernel/btf");
    let output = command.arg("--check").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let refusal = "cannot start here: /sys/kernel/btf/vmlinux is missing";
    assert!(said.contains(refusal) && said.contains("port.kind = \"socket\""), "{said}");
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn interfaces_without_native_xdp_are_refused() {
    let node = Supervised::new("");
    let text = std::fs::read_to_string(&node.config).unwrap();
    ip(&format!("-n {} link add nobr type bridge", node.server_ns));
    ip(&format!("-n {} link set nobr up", node.server_ns));
    ip(&format!("netns exec {} ip tuntap add dev notun mode tun", node.server_ns));
    for (name, expected) in [
        ("lo", "interface lo: the loopback has no native XDP; write port.kind = \"socket\""),
        ("notun", "interface notun: has no Ethernet address"),
        ("nobr", "interface nobr: cannot attach"),
    ] {
        std::fs::write(&node.config, text.replace("\"s0\"", &format!("{name:?}"))).unwrap();
        let message = node.refused();
        assert!(message.contains(expected), "{message}");
        println!("{}", message.lines().last().unwrap_or_default());
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_value_that_does_not_hold_here_is_told_with_its_line() {
    for (extra, expected) in [
        (
            "[worker]\nuser = \"no-such-user\"\n",
            ":11: worker.user: there is no user \"no-such-user\"",
        ),
        ("[worker]\nuser = \"root\"\n", ":11: worker.user: \"root\" is root"),
        ("[worker]\npoll = \"adaptive\"\ncore = 1000\n", ":12: worker.core: CPU 1000 is not one"),
        ("queues = [0, 5]\n", "interface s0: has queues 0..=0, the node file names queue 5"),
        ("queues = [0, 99]\n", ":10: interface[0].queues: queue 99"),
    ] {
        let message = Supervised::new(extra).refused();
        assert!(message.contains(expected), "{message}");
    }
}
