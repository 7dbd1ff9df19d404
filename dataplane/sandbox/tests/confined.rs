//! What a confined process cannot do any more, and what the kernel says of it, in processes of their own.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nautilus_sandbox::{Confinement, Files, Kind, enter};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use nix::time::{ClockId, clock_gettime};

/// Calls of which the time is taken.
const CALLS: u32 = 1_000_000;

/// The folder that a process which may have files may have, in one of which it may have nothing.
const OWN: &str = "own";
const OUTSIDE: &str = "outside";

fn kind_of(name: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name).unwrap()
}

/// The test binary again, as one kind of process. It may end in any way: what it has on the disk is its parent's,
/// and goes with this, as the process does.
struct Confined {
    child: Child,
    folder: tempfile::TempDir,
}

impl Confined {
    fn start(kind: Kind, task: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(OWN);
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("there"), "text").unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_a_child", "--include-ignored", "--nocapture"])
            .env("NAUTILUS_SANDBOX_CHILD", format!("{kind:?} {task}"))
            .env("NAUTILUS_SANDBOX_FOLDER", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// The line that begins so.
    fn line(&mut self, front: &str) -> String {
        let lines = BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        lines.find_map(|line| line.split_once(front).map(|(_, rest)| rest.to_owned())).unwrap()
    }

    /// Lets it end. What it said until then, and how it ended.
    fn ended(&mut self) -> (String, ExitStatus) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds of a call that the run loop makes, and that finds nothing.
fn receive_ns() -> f64 {
    let flags = SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
    // Of this thread's processor time: others are at work, too.
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    let begin = now();
    for _ in 0..CALLS {
        let result = recv(std::os::fd::AsRawFd::as_raw_fd(&fd), &mut [], MsgFlags::MSG_DONTWAIT);
        assert!(result.is_err());
    }
    Duration::from(now() - begin).as_nanos() as f64 / f64::from(CALLS)
}

/// What the kernel says to a call whose descriptor and pointers are none. Of `bpf` the one command that a worker may
/// give has the number [`GET_INFO`], all others [`libc::SYS_bpf`].
fn answer(number: i64) -> Option<Errno> {
    // Descriptor -1, no room for an answer.
    let nothing = [u64::from(u32::MAX), 0];
    let (number, first, second, third) = match number {
        GET_INFO => (libc::SYS_bpf, 15, nothing.as_ptr() as u64, size_of_val(&nothing) as u64),
        libc::SYS_bpf => (number, 0, nothing.as_ptr() as u64, size_of_val(&nothing) as u64),
        _ => (number, u64::MAX, 0, 0),
    };
    // SAFETY: the kernel is given no memory to write to, and none to read but `nothing`, which outlives the call.
    let result = unsafe { libc::syscall(number, first, second, third, 0, 0, 0) };
    (result < 0).then(Errno::last)
}

/// Stands for `bpf` with the command `BPF_OBJ_GET_INFO_BY_FD`.
const GET_INFO: i64 = -1;

/// What a child says once it is confined and does its task, and how it ends.
fn done(kind: Kind, task: &str) -> (String, ExitStatus) {
    let mut process = Confined::start(kind, task);
    process.line("MISSING ");
    process.ended()
}

/// What the child says to these calls, and how it ends.
fn asked(kind: Kind, numbers: &[i64]) -> (String, ExitStatus) {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    let (rest, status) = done(kind, &format!("calls {}", numbers.join(" ")));
    let said = rest.lines().find_map(|line| line.split_once("LETS "));
    (said.map_or(String::new(), |(_, said)| said.to_owned()), status)
}

/// Only as a process of the tests below.
#[test]
#[ignore = "is started by the tests below"]
fn as_a_child() {
    let Ok(words) = std::env::var("NAUTILUS_SANDBOX_CHILD") else { return };
    let (kind, task) = words.split_once(' ').unwrap();
    let around = PathBuf::from(std::env::var_os("NAUTILUS_SANDBOX_FOLDER").unwrap());
    let folder = around.join(OWN);
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
        task if task.starts_with("calls ") => {
            let numbers = task.split(' ').skip(1).map(|number| number.parse().unwrap());
            let lets = numbers.map(|number| answer(number) != Some(Errno::EPERM));
            println!("LETS {:?}", lets.collect::<Vec<_>>());
        }
        "execute" => {
            let result = nix::unistd::execv(c"/bin/true", &[c"true"]);
            println!("EXECUTED {result:?}");
        }
        _ => {
            let can = |result: std::io::Result<()>| if result.is_ok() { "yes" } else { "no" };
            let read = std::fs::read(folder.join("there")).map(drop);
            let written = std::fs::write(folder.join("new"), "text");
            let other = std::fs::read("/etc/passwd").map(drop);
            let outside = std::fs::write(around.join(OUTSIDE), "text");
            let bound = std::net::UdpSocket::bind("127.0.0.1:0").map(drop);
            println!(
                "CAN read {} write {} other {} outside {} socket {} dump {}",
                can(read),
                can(written),
                can(other),
                can(outside),
                can(bound),
                if nix::sys::prctl::get_dumpable().unwrap() { "yes" } else { "no" }
            );
            // The parent looks at us meanwhile.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn each_kind_keeps_what_it_needs_and_nothing_else() {
    for (kind, can) in [
        (Kind::Worker, "read no write no other no outside no socket yes dump no"),
        (Kind::Front, "read yes write no other no outside no socket yes dump no"),
        (Kind::Capture, "read yes write yes other no outside no socket yes dump no"),
        (Kind::Control, "read yes write yes other no outside no socket yes dump no"),
    ] {
        let mut process = Confined::start(kind, "look");
        let missing = process.line("MISSING ");
        println!("{kind:?} lacks {missing}");
        let has_landlock = !missing.contains("files");
        let said = process.line("CAN ");
        if has_landlock {
            assert_eq!(said, can, "{kind:?}");
            assert!(!process.folder.path().join(OUTSIDE).exists(), "{kind:?}");
        } else {
            println!("SKIPPED the files of {kind:?}: {missing}");
        }
        // Of the thread that has confined itself: capabilities are each thread's own.
        let pid = process.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let status = tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .find(|status| status.starts_with("Name:\tas_a_child\n"))
            .unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}")).trim_start_matches(':').trim().to_owned()
        };
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), ("1".into(), "2".into()), "{kind:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&of(set), 16), Ok(0), "{kind:?} {set}");
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!(u64::from_str_radix(&of("CapBnd"), 16), Ok(0), "{kind:?}");
        }
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
        let (rest, status) = process.ended();
        assert!(status.success(), "{kind:?}: {status}: {rest}");
    }
}

#[test]
fn an_intruder_who_executes_something_is_ended() {
    for kind in Kind::ALL {
        let (rest, status) = done(kind, "execute");
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{kind:?}: {status}: {rest}");
    }
}

#[test]
fn whatever_only_an_intruder_does_ends_the_process() {
    for kind in Kind::ALL {
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_open_by_handle_at,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_keyctl,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
        ] {
            let (said, status) = asked(kind, &[call]);
            let ended = Some(Signal::SIGSYS as i32);
            assert_eq!(status.signal(), ended, "{kind:?}, call {call}: {status}: {said}");
        }
    }
}

#[test]
fn calls_on_no_list_are_refused_and_those_of_a_kind_are_its_alone() {
    let calls = [
        // On nobody's list.
        libc::SYS_getppid,
        libc::SYS_mknodat,
        libc::SYS_symlinkat,
        // Of those that write files, of the front, of control, of workers.
        libc::SYS_fsync,
        libc::SYS_io_uring_enter,
        libc::SYS_epoll_ctl,
        GET_INFO,
    ];
    for (kind, may) in [
        (Kind::Worker, [false, false, false, false, false, false, true]),
        (Kind::Front, [false, false, false, false, true, false, false]),
        (Kind::Capture, [false, false, false, true, false, false, false]),
        (Kind::Control, [false, false, false, true, false, true, false]),
    ] {
        let (said, status) = asked(kind, &calls);
        assert!(status.success(), "{kind:?}: {status}");
        assert_eq!(said, format!("{may:?}"), "{kind:?}");
    }
}

#[test]
#[ignore = "prints times; the machine decides them"]
fn cost() {
    let mut process = Confined::start(Kind::Worker, "cost");
    println!("recvfrom that finds nothing, ns before and after: {}", process.line("COST "));
}

#[test]
fn a_word_says_what_is_missing() {
    assert_eq!(Confinement::WHOLE.missing().count(), 0);
    assert_eq!(Confinement(0).missing().count(), Confinement::NAMES.len());
    let word = Confinement(Confinement::WHOLE.0 & !Confinement::FILES);
    assert_eq!(word.missing().collect::<Vec<_>>(), ["files"]);
}
