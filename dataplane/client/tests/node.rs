//! A real node in namespaces, read by another user's process through every death; and what that user
//! cannot do. The reading process is this test's own program, copied to where that user can run it.

mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nautilus_client::{CacheReader, ReadError, Reattached};
use nautilus_shm::control_region::SUPERVISOR_PROCESS;
use nautilus_shm::metrics::table::{ATTACHES, ATTACHES_REFUSED};
use nautilus_tests::lab::node_file::{CACHE_ID, CACHE_PORT};
use nautilus_tests::lab::{Folder, Lab, RunId, active_worker, attach};
use nautilus_tests::memcached::Client;
use nautilus_tests::values;
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{library_folder, package};

/// On the list of the node file, and not.
const READER_UID: u32 = 61_234;
const STRANGER_UID: u32 = 61_235;

const RUN_DIR: &str = "NAUTILUS_TEST_READER_RUN_DIR";
const LONG: Duration = Duration::from_secs(30);

fn lab() -> Lab {
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    Lab::start(folder, run, 1, |_, _, file| {
        file.cache_readers = vec![READER_UID.to_string()];
        Ok(())
    })
    .unwrap()
}

fn client(lab: &Lab) -> Client {
    let cache = SocketAddr::new(lab.nodes()[0].member.address.v4().into(), CACHE_PORT);
    // A request to a node that is not there yet is lost: not for long.
    let timeout = Duration::from_millis(500);
    lab.client().namespace.run(|| Client::connect(cache, timeout)).unwrap()
}

fn worker(lab: &Lab) -> i32 {
    let region = attach(&lab.nodes()[0].run_dir).unwrap();
    active_worker(&region).unwrap().pid as i32
}

/// This program as another user's, taking orders line by line.
struct Reader {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn start(lab: &Lab, uid: u32) -> Self {
        let program = lab.folder().join(format!("reader-{uid}"));
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(program)
            .args(["--ignored", "--exact", "--nocapture", "the_reading_process"])
            .env(RUN_DIR, &lab.nodes()[0].run_dir)
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, orders, answers }
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        loop {
            // The test harness talks, too.
            let line = self.answers.next().expect("the reading process lives").unwrap();
            if let Some(answer) = line.strip_prefix('@') {
                return answer.to_owned();
            }
        }
    }

    fn get(&mut self, key: &str) -> String {
        self.order(&format!("get {key}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `get` of the reading process answers for a value.
fn hit(bytes: &[u8]) -> String {
    format!("hit {}", String::from_utf8_lossy(bytes))
}

#[test]
#[ignore = "the process that the tests below start as another user"]
fn the_reading_process() {
    let Some(run_dir) = std::env::var_os(RUN_DIR) else { return };
    assert_ne!(nix::unistd::geteuid().as_raw(), 0);
    let mut reader = None;
    let mut out = [0; 4096];
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (verb, rest) = order.split_once(' ').unwrap_or((&order, ""));
        let answer = match (verb, &mut reader) {
            ("attach", _) => match CacheReader::attach(&run_dir, CACHE_ID) {
                Ok(attached) => {
                    reader = Some(attached);
                    "attached".into()
                }
                Err(error) => error.to_string(),
            },
            ("automatic", Some(reader)) => {
                reader.set_automatic(rest == "on");
                "done".into()
            }
            ("get", Some(reader)) => match reader.get(rest.as_bytes(), &mut out) {
                Ok(value) => hit(&out[..value.value_bytes]),
                Err(error) => format!("{error:?}"),
            },
            ("reattach", Some(reader)) => match reader.reattach() {
                Ok(found) => format!("{found:?}"),
                Err(error) => error.to_string(),
            },
            ("race", Some(reader)) => race(reader, Duration::from_millis(rest.parse().unwrap())),
            _ => format!("what is {order:?}?"),
        };
        println!("@{answer}");
    }
}

/// Reads the key that is written all the while: every value whole, none older than the one before.
fn race(reader: &mut CacheReader, time: Duration) -> String {
    let (begun, mut out) = (Instant::now(), [0; 4096]);
    let (mut reads, mut changes, mut busy, mut newest) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < time {
        let before = Instant::now();
        let result = reader.get(b"racing", &mut out);
        slowest = slowest.max(before.elapsed());
        match result {
            Ok(value) => match values::version_of("racing", &out[..value.value_bytes]) {
                Some(version) if version >= newest => {
                    changes += u64::from(version > newest);
                    newest = version;
                }
                other => return format!("a read gave {other:?} after {newest}"),
            },
            Err(ReadError::WriterBusy) => busy += 1,
            Err(error) => return format!("{error:?} after {reads} reads"),
        }
        reads += 1;
    }
    format!("raced {reads} {changes} {busy} {newest} {slowest:?}")
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn another_user_reads_what_clients_write_through_every_death() {
    let lab = lab();
    let node = &lab.nodes()[0];
    let mut client = client(&lab);
    let mut reader = Reader::start(&lab, READER_UID);
    assert_eq!(reader.order("attach"), "attached");

    client.set("key", 0, b"first").unwrap();
    assert_eq!(reader.get("key"), hit(b"first"));
    client.set("key", 0, b"second").unwrap();
    assert_eq!(reader.get("key"), hit(b"second"));
    assert!(client.delete("key").unwrap());
    assert_eq!(reader.get("key"), "Miss");
    client.set("key", 0, b"third").unwrap();

    // Values are whole next to a writer that never rests.
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    client.set("racing", 0, &values::value("racing", 0)).unwrap();
    let raced = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let version = written.load(Ordering::Relaxed) + 1;
                client.set("racing", 0, &values::value("racing", version)).unwrap();
                written.store(version, Ordering::Relaxed);
            }
        });
        let raced = reader.order("race 2000");
        stop.store(true, Ordering::Relaxed);
        raced
    });
    println!("reads, changes, busy, newest, slowest: {raced}; {written:?} writes");
    let numbers: Vec<&str> = raced.split(' ').collect();
    assert_eq!(numbers[0], "raced", "{raced}");
    // Two cores for reader, writer, worker and kernel: most writes come while the reader does not run.
    let [changes, newest] = [2, 4].map(|at| numbers[at].parse::<u64>().unwrap());
    assert!(changes >= 20 && newest * 2 > written.into_inner(), "{raced}");

    // The worker is dead and nobody takes its place: clients' keys stay readable.
    let supervisor = || Pid::from_raw(node.supervisor.status().pid.unwrap());
    let (dead, stopped) = (worker(&lab), supervisor());
    kill(stopped, Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(dead), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    let mut reads = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(reader.get("key"), hit(b"third"), "after {:?}", begun.elapsed());
        reads += 1;
    }
    kill(stopped, Signal::SIGCONT).unwrap();
    println!("{reads} reads while no worker lived");
    wait_until("the next worker", LONG, || worker_is_not(&lab, dead)).unwrap();
    wait_until("it answers", LONG, || client.set("key", 0, b"fourth").is_ok()).unwrap();
    assert_eq!(reader.get("key"), hit(b"fourth"));

    // The supervisor is dead for more than a second: detached, although the worker serves on.
    node.supervisor.kill_and_hold();
    let begun = Instant::now();
    wait_until("detached", LONG, || reader.get("key") == "Detached").unwrap();
    let detached = begun.elapsed();
    println!("detached {detached:?} after the supervisor's death");
    assert!((900..5000).contains(&detached.as_millis()), "{detached:?}");
    wait_until("it is stored", LONG, || client.set("key", 0, b"fifth").is_ok()).unwrap();
    assert!(reader.order("reattach").contains("no supervisor is listening"));
    assert_eq!(reader.get("key"), "Detached");
    node.supervisor.release();
    wait_until("read again", LONG, || reader.get("key") == hit(b"fifth")).unwrap();
    assert_eq!(reader.order("reattach"), format!("{:?}", Reattached::SameMemory));

    // Both are dead: another memory, found by hand and then by itself. From the first write it has
    // acknowledged on, the value of the old one is read no more.
    for automatic in [false, true] {
        assert_eq!(reader.order(if automatic { "automatic on" } else { "automatic off" }), "done");
        client.set("key", 0, b"of the old node").unwrap();
        assert_eq!(reader.get("key"), hit(b"of the old node"));
        let active = worker(&lab);
        let begun = Instant::now();
        node.supervisor.kill_and_hold();
        kill(Pid::from_raw(active), Signal::SIGKILL).unwrap();
        node.supervisor.release();
        wait_until("a new node", LONG, || client.set("key", 0, b"of the new").is_ok()).unwrap();
        println!("a new node serves {:?} after the death of both", begun.elapsed());
        assert_ne!(reader.get("key"), hit(b"of the old node"));
        if automatic {
            wait_until("found", LONG, || reader.get("key") == hit(b"of the new")).unwrap();
        } else {
            assert_eq!(reader.get("key"), "Detached");
            assert_eq!(reader.order("reattach"), format!("{:?}", Reattached::NewMemory));
            assert_eq!(reader.get("key"), hit(b"of the new"));
        }
    }
}

fn worker_is_not(lab: &Lab, pid: i32) -> bool {
    attach(&lab.nodes()[0].run_dir)
        .is_ok_and(|region| active_worker(&region).is_some_and(|worker| worker.pid as i32 != pid))
}

/// Compiles `c/attack.c` to where another user can run it.
fn attack_program(lab: &Lab) -> PathBuf {
    let program = lab.folder().join("attack");
    let library = library_folder().join("libnautilus_client.a");
    let status = Command::new("gcc")
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(package("include"))
        .arg(package("tests/c/attack.c"))
        .arg(&library)
        .args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc", "-o"])
        .arg(&program)
        .status()
        .unwrap();
    assert!(status.success(), "gcc: {status}");
    program
}

fn attacked(program: &Path, lab: &Lab, uid: u32, workers: &[String]) -> Vec<String> {
    let node = &lab.nodes()[0];
    let output = Command::new(program)
        .arg(&node.run_dir)
        .arg(node.supervisor.status().pid.unwrap().to_string())
        .args(workers)
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("-- uid {uid}\n{text}");
    assert!(output.status.success(), "{}: {text}", output.status);
    text.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn another_user_can_read_and_nothing_else() {
    let lab = lab();
    let node = &lab.nodes()[0];
    client(&lab).set("key", 0, b"value").unwrap();
    let program = attack_program(&lab);
    let supervisor = node.supervisor.status().pid.unwrap();
    let children =
        std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    let workers: Vec<String> = children.unwrap().split_whitespace().map(str::to_owned).collect();
    assert_eq!(workers.len(), 3, "active, standby and the front");
    let count =
        |counter| attach(&node.run_dir).unwrap().metrics(SUPERVISOR_PROCESS).counter(counter);
    let (attaches, refused) = (count(ATTACHES), count(ATTACHES_REFUSED));

    for (uid, may_read) in [(READER_UID, true), (STRANGER_UID, false)] {
        let lines = attacked(&program, &lab, uid, &workers);
        let of = |start: &'static str| lines.iter().filter(move |line| line.starts_with(start));
        let allowed: Vec<&String> = of("ALLOWED").chain(of("MALFORMED")).collect();
        assert!(allowed.is_empty(), "uid {uid}: {allowed:?}");
        assert!(of("control ").count() >= 35, "the calls are well formed");
        // Memory, requests, files, three processes.
        let least = if may_read { 30 } else { 0 } + 9 + 5 + 3 * 13;
        assert!(of("refused ").count() >= least, "{} of {least}", of("refused ").count());
        let attached = of("attached: ").next().unwrap();
        if may_read {
            assert_eq!(attached, "attached: ok");
        } else {
            assert!(attached.contains("uid 61235 is not in cache.readers"), "{attached}");
        }
        let memories = of("descriptor ").filter(|line| line.contains("memfd")).count();
        assert_eq!(memories, if may_read { 2 } else { 0 }, "no region but the cache and its hits");
        assert_eq!(lines.last().unwrap(), "all was tried");
    }
    // The first's requests for more than its cache; all of the second's that can be understood.
    assert_eq!(count(ATTACHES_REFUSED) - refused, 2 + 1 + 6);
    assert!(count(ATTACHES) > attaches);
    let log = std::fs::read_to_string(lab.folder().join("node1.log")).unwrap();
    for line in
        ["uid 61234 may not attach (control.user)", "uid 61235 may not attach (cache.readers)"]
    {
        assert!(log.contains(line), "the log lacks {line:?}");
    }
    // Nothing of it has touched the node.
    let mut client = client(&lab);
    assert_eq!(client.get("key").unwrap().unwrap().bytes, b"value");
    let mut stranger = Reader::start(&lab, STRANGER_UID);
    let answer = stranger.order("attach");
    assert!(answer.contains("not on the supervisor's list of readers"), "{answer}");
}
