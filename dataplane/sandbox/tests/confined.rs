//! What a confined process cannot do any more, and what the kernel says of it, in processes of their own.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nautilus_sandbox::{Confinement, Files, Kind, enter};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};

/// Calls of which the time is taken.
const CALLS: u32 = 1_000_000;

fn kind_of(name: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name).unwrap()
}

/// The test binary again, as one kind of process.
fn child(kind: Kind, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child", "--include-ignored", "--nocapture"])
        .env("NAUTILUS_SANDBOX_CHILD", format!("{kind:?} {task}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The line that begins so.
fn line(child: &mut Child, front: &str) -> String {
    let lines = BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    lines.find_map(|line| line.split_once(front).map(|(_, rest)| rest.to_owned())).unwrap()
}

/// Nanoseconds of a call that the run loop makes, and that finds nothing.
fn receive_ns() -> f64 {
    let flags = SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
    let begin = Instant::now();
    for _ in 0..CALLS {
        let result = recv(std::os::fd::AsRawFd::as_raw_fd(&fd), &mut [], MsgFlags::MSG_DONTWAIT);
        assert!(result.is_err());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// Only as a process of the tests below.
#[test]
#[ignore = "is started by the tests below"]
fn as_a_child() {
    let Ok(words) = std::env::var("NAUTILUS_SANDBOX_CHILD") else { return };
    let (kind, task) = words.split_once(' ').unwrap();
    let folder = std::env::temp_dir().join(format!("nautilus-sandbox-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("there"), "text").unwrap();
    let before_ns = if task == "cost" { receive_ns() } else { 0.0 };
    let write = match kind_of(kind) {
        Kind::Capture | Kind::Control => vec![folder.clone()],
        Kind::Worker | Kind::Front => Vec::new(),
    };
    let read: Vec<PathBuf> = if kind == "Front" { vec![folder.clone()] } else { Vec::new() };
    let entered = enter(kind_of(kind), &Files { read, write });
    let missing: Vec<&str> = entered.confinement.missing().collect();
    println!("MISSING {}, {:?}", missing.join(" "), entered.notes);
    match task {
        "cost" => println!("COST {before_ns:.1} {:.1}", receive_ns()),
        "execute" => {
            let result = nix::unistd::execv(c"/bin/true", &[c"true"]);
            println!("EXECUTED {result:?}");
        }
        _ => {
            let can = |result: std::io::Result<()>| if result.is_ok() { "yes" } else { "no" };
            let read = std::fs::read(folder.join("there")).map(drop);
            let written = std::fs::write(folder.join("new"), "text");
            let other = std::fs::read("/etc/passwd").map(drop);
            let outside = std::fs::write("/tmp/nautilus-sandbox-outside", "text");
            let bound = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
            println!(
                "CAN read {} write {} other {} outside {} socket {}",
                can(read),
                can(written),
                can(other),
                can(outside),
                can(bound)
            );
            // The parent looks at us meanwhile, and takes the folder away.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
    }
}

fn remove_folder(child: &Child) {
    let folder = std::env::temp_dir().join(format!("nautilus-sandbox-{}", child.id()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn each_kind_keeps_what_it_needs_and_nothing_else() {
    for (kind, can) in [
        (Kind::Worker, "read no write no other no outside no socket yes"),
        (Kind::Front, "read yes write no other no outside no socket yes"),
        (Kind::Capture, "read yes write yes other no outside no socket yes"),
        (Kind::Control, "read yes write yes other no outside no socket yes"),
    ] {
        let mut child = child(kind, "look");
        let missing = line(&mut child, "MISSING ");
        println!("{kind:?} lacks {missing}");
        let has_landlock = !missing.contains("files");
        let said = line(&mut child, "CAN ");
        if has_landlock {
            assert_eq!(said, can, "{kind:?}");
        } else {
            println!("SKIPPED the files of {kind:?}: {missing}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}")).trim_start_matches(':').trim().to_owned()
        };
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), ("1".into(), "2".into()), "{kind:?}");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        remove_folder(&child);
    }
    assert!(!PathBuf::from("/tmp/nautilus-sandbox-outside").exists());
}

#[test]
fn an_intruder_who_executes_something_is_ended() {
    for kind in Kind::ALL {
        let mut child = child(kind, "execute");
        line(&mut child, "MISSING ");
        drop(child.stdin.take());
        let mut rest = String::new();
        child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        let status = child.wait().unwrap();
        remove_folder(&child);
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{kind:?}: {status}: {rest}");
    }
}

#[test]
#[ignore = "prints times; the machine decides them"]
fn cost() {
    let mut child = child(Kind::Worker, "cost");
    println!("recvfrom that finds nothing, ns before and after: {}", line(&mut child, "COST "));
    child.wait().unwrap();
    remove_folder(&child);
}

#[test]
fn a_word_says_what_is_missing() {
    assert_eq!(Confinement::WHOLE.missing().count(), 0);
    assert_eq!(Confinement(0).missing().count(), Confinement::NAMES.len());
    let word = Confinement(Confinement::WHOLE.0 & !Confinement::FILES);
    assert_eq!(word.missing().collect::<Vec<_>>(), ["files"]);
}
