//! A node that goes on serving while its programs are exchanged: for a release that is good, for some that are
//! not, and with deaths in the middle. Clients read and write meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_control::attach::{exchange_node, park_node, settle_node, start_node, swap_node};
use nautilus_shm::attach::HOST_RELEASE;
use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::{Folder, Lab, RunId, active_worker, attach, binary};
use nautilus_tests::memcached::Client;
use nautilus_tests::steady::{Steady, nobody_noticed, over_tcp, over_udp};
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(30);
const PROGRAMS: [&str; 4] =
    ["nautilus-supervisor", "nautilus-worker", "nautilus-front", "nautilus-capture"];

/// A folder of releases, each with its own copies of worker and front.
struct Releases(PathBuf);

impl Releases {
    fn make(folder: &Folder) -> Self {
        let this = Self(folder.make("releases").unwrap());
        set_mode(&this.0);
        for name in ["r1", "r2", "crashes", "other", "dies"] {
            this.add(name);
        }
        // Workers that end at once; a contract that nobody has; a supervisor that ends as soon as it is one.
        this.script("crashes", "nautilus-worker", "exit 1");
        this.script("other", "nautilus-supervisor", "echo 'contract: another'");
        let real = binary("nautilus-supervisor");
        let dies =
            format!("case \"$*\" in *--describe*) exec {} \"$@\" ;; esac; exit 7", real.display());
        this.script("dies", "nautilus-supervisor", &dies);
        this
    }

    fn add(&self, name: &str) {
        let release = self.0.join(name);
        std::fs::create_dir(&release).unwrap();
        set_mode(&release);
        for program in PROGRAMS {
            let (from, to) = (binary(program), release.join(program));
            // Who runs is told by the file, so links will not do for all.
            let is_told = ["nautilus-worker", "nautilus-front"].contains(&program);
            if is_told || std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).unwrap();
            }
            set_mode(&to);
        }
    }

    fn script(&self, release: &str, program: &str, text: &str) {
        let path = self.0.join(release).join(program);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        set_mode(&path);
    }

    fn worker(&self, release: &str) -> PathBuf {
        self.0.join(release).join("nautilus-worker")
    }
}

fn set_mode(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

struct Rig {
    lab: Lab,
    releases: Releases,
    run_dir: PathBuf,
}

impl Rig {
    fn start() -> Self {
        let run = RunId::draw();
        let folder = Arc::new(Folder::create(run).unwrap());
        let releases = Releases::make(&folder);
        let below = releases.0.clone();
        let lab = Lab::start(folder, run, 1, |_, _, file| {
            file.releases = Some(below.clone());
            Ok(())
        })
        .unwrap();
        let run_dir = lab.nodes()[0].run_dir.clone();
        Self { lab, releases, run_dir }
    }

    fn cache(&self) -> SocketAddr {
        SocketAddr::new(self.lab.nodes()[0].member.address.v4().into(), CACHE_PORT)
    }

    /// Has clients read and write while something happens.
    fn under_load<T: Send>(&self, happens: impl FnOnce() -> T + Send) -> (Steady, T) {
        let stop = AtomicBool::new(false);
        let namespace = &self.lab.client().namespace;
        std::thread::scope(|scope| {
            let udp = scope.spawn(|| namespace.run(|| over_udp(self.cache(), "udp", &stop)));
            let tcp = scope.spawn(|| namespace.run(|| over_tcp(&[self.cache()], "tcp", &stop)));
            std::thread::sleep(Duration::from_millis(300));
            let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happens));
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            let steady = udp.join().unwrap().and(tcp.join().unwrap());
            let happened = happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (steady, happened)
        })
    }

    fn release(&self) -> Option<String> {
        Some(attach(&self.run_dir).ok()?.supervisor().release().ok()?.name)
    }

    /// The program of the worker that serves.
    fn worker_program(&self) -> Option<PathBuf> {
        let pid = active_worker(&attach(&self.run_dir).ok()?)?.pid;
        std::fs::read_link(format!("/proc/{pid}/exe")).ok()
    }

    fn supervisor_pid(&self) -> Option<i32> {
        self.lab.nodes()[0].supervisor.status().pid
    }

    fn settled_as(&self, release: &str) -> bool {
        let remembered = self.run_dir.join("remembered.toml");
        let settled =
            std::fs::read_to_string(remembered).is_ok_and(|text| !text.contains("[swap]"));
        settled && self.release().as_deref() == Some(release)
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_release_is_exchanged_and_nobody_notices() {
    let rig = Rig::start();
    let host_worker = rig.worker_program().unwrap();
    let before = rig.supervisor_pid();
    for (release, worker) in [
        ("r1", rig.releases.worker("r1")),
        ("r2", rig.releases.worker("r2")),
        (HOST_RELEASE, host_worker),
    ] {
        let (steady, said) = rig.under_load(|| swap_node(&rig.run_dir, release));
        println!("{}", said.unwrap());
        nobody_noticed(release, &steady);
        assert_eq!(rig.worker_program(), Some(worker));
        assert_eq!(
            rig.release().as_deref(),
            Some(if release == HOST_RELEASE { "" } else { release })
        );
        assert!(swap_node(&rig.run_dir, release).unwrap().contains("already"));
    }
    assert_eq!(rig.supervisor_pid(), before, "one process all the way");
    assert_eq!(rig.lab.nodes()[0].supervisor.status().restarts, 0);

    // A node file that a running node can follow, and one that it cannot.
    let file = &rig.lab.nodes()[0].file;
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("poll = \"adaptive\"", "poll = \"interrupt\"")).unwrap();
    let (steady, said) = rig.under_load(|| swap_node(&rig.run_dir, ""));
    println!("{}", said.unwrap());
    nobody_noticed("another node file", &steady);
    let region = attach(&rig.run_dir).unwrap();
    let polls = (0..2).map(|slot| region.worker(slot).pulse().poll_policy.name());
    assert!(polls.collect::<Vec<_>>().contains(&"interrupt"));
    std::fs::write(file, text.replace("frames = 2048", "frames = 4096")).unwrap();
    let error = swap_node(&rig.run_dir, "").unwrap_err().to_string();
    assert!(error.contains("port: cannot change while the node runs"), "{error}");
    std::fs::write(file, &text).unwrap();

    // A parked node is given a release, too; it is a clean start.
    park_node(&rig.run_dir).unwrap();
    println!("{}", swap_node(&rig.run_dir, "r2").unwrap());
    start_node(&rig.run_dir).unwrap();
    assert_eq!(rig.worker_program(), Some(rig.releases.worker("r2")));
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_release_that_is_no_good_leaves_the_old_one_serving() {
    let rig = Rig::start();
    swap_node(&rig.run_dir, "r1").unwrap();
    let good = rig.worker_program();
    for name in ["../r2", "", "R2", "absent"] {
        let refused = swap_node(&rig.run_dir, name);
        assert!(refused.is_err() || name.is_empty(), "{name}: {refused:?}");
    }
    let open = rig.releases.0.join("r2/nautilus-front");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = swap_node(&rig.run_dir, "r2").unwrap_err().to_string();
    assert!(error.contains("written by others"), "{error}");
    for (release, reason) in [
        ("other", "cannot take over from what runs"),
        ("crashes", "went back, release r1"),
        ("dies", ""),
    ] {
        let (steady, said) = rig.under_load(|| {
            let said = swap_node(&rig.run_dir, release);
            let back = format!("r1 serves again after {release}");
            wait_until(back, SOON, || rig.settled_as("r1")).unwrap();
            said
        });
        let error = said.unwrap_err().to_string();
        println!("{release}: {error}");
        assert!(error.contains(reason), "{error}");
        nobody_noticed(release, &steady);
        assert_eq!(rig.worker_program(), good);
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn deaths_in_the_middle_of_a_swap_leave_one_release_serving() {
    let rig = Rig::start();
    let mut asker = rig
        .lab
        .client()
        .namespace
        .run(|| Client::connect(rig.cache(), Duration::from_secs(2)))
        .unwrap();
    asker.set("kept", 0, b"v1").unwrap();
    // The supervisor, at one moment after the other.
    for (number, after_ms) in [20, 150, 400, 900, 1500].into_iter().enumerate() {
        let release = if number % 2 == 0 { "r1" } else { "r2" };
        let (steady, ()) = rig.under_load(|| {
            std::thread::scope(|scope| {
                let asked = scope.spawn(|| swap_node(&rig.run_dir, release));
                std::thread::sleep(Duration::from_millis(after_ms));
                rig.lab.nodes()[0].supervisor.kill();
                println!("killed after {after_ms} ms: {:?}", asked.join().unwrap());
            });
            wait_until("somebody answers", SOON, || rig.release().is_some()).unwrap();
            // Asked again, as whoever had no answer does.
            wait_until("it is swapped", SOON, || swap_node(&rig.run_dir, release).is_ok()).unwrap();
        });
        nobody_noticed(&format!("a death after {after_ms} ms"), &steady);
        assert_eq!(rig.worker_program(), Some(rig.releases.worker(release)));
    }
    // A worker of the new release that ends as soon as it serves: the old one is brought back.
    let good = rig.worker_program();
    let bad = rig.releases.worker("r2");
    let said = std::thread::scope(|scope| {
        let asked = scope.spawn(|| swap_node(&rig.run_dir, "r2"));
        wait_until("the new release serves", SOON, || rig.worker_program().as_ref() == Some(&bad))
            .unwrap();
        let pid = active_worker(&attach(&rig.run_dir).unwrap()).unwrap().pid;
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        asked.join().unwrap()
    });
    let error = said.unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("went back"), "{error}");
    assert_eq!(rig.worker_program(), good);
    assert!(asker.get("kept").unwrap().is_some(), "no value is lost");
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_is_exchanged_is_watched_on_and_taken_back_if_it_ends() {
    let rig = Rig::start();
    assert!(settle_node(&rig.run_dir).is_ok(), "nothing was asked for");
    swap_node(&rig.run_dir, "r1").unwrap();
    let (good, bad) = (rig.releases.worker("r1"), rig.releases.worker("r2"));
    let (steady, error) = rig.under_load(|| {
        println!("{}", exchange_node(&rig.run_dir, "r2").unwrap());
        assert_eq!(rig.worker_program().as_ref(), Some(&bad), "answered when it serves");
        assert_eq!(rig.release().as_deref(), Some("r1"), "and not yet when it has proven itself");
        let pid = active_worker(&attach(&rig.run_dir).unwrap()).unwrap().pid;
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        // One that asks meanwhile waits; one that is on its way back may be away for a moment.
        wait_until("it is told", SOON, || {
            settle_node(&rig.run_dir).is_err_and(|error| error.to_string().contains("went back"))
        })
        .unwrap();
        settle_node(&rig.run_dir).unwrap_err().to_string()
    });
    println!("{error}");
    assert!(error.contains("went back"), "said as often as it is asked: {error}");
    nobody_noticed("a worker's death in the watch", &steady);
    assert_eq!(rig.worker_program().as_ref(), Some(&good));
    // What is asked for next is another matter.
    assert!(exchange_node(&rig.run_dir, "r1").unwrap().contains("already"));
    assert!(settle_node(&rig.run_dir).is_ok());
    println!("{}", exchange_node(&rig.run_dir, "r2").unwrap());
    println!("{}", settle_node(&rig.run_dir).unwrap());
    assert_eq!(rig.release().as_deref(), Some("r2"));
}

/// How a client fared that connects, asks once and goes, again and again.
#[derive(Debug, Default)]
struct Fared {
    answered: u32,
    refused: u32,
    /// Connected, and ended without an answer.
    ended: Vec<String>,
}

/// How long a TCP client waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for the version, and reads the whole answer.
fn asks_version(stream: &mut TcpStream) -> Result<(), String> {
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    let mut ask = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"version\r\n")?;
        while !answer.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        Ok::<_, std::io::Error>(())
    };
    ask().map_err(|error| error.to_string())?;
    let is_right = answer.starts_with(b"VERSION ");
    is_right.then_some(()).ok_or_else(|| format!("{:?}", String::from_utf8_lossy(&answer)))
}

fn connecting(server: SocketAddr, stop: &AtomicBool) -> Fared {
    let mut fared = Fared::default();
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&server, PATIENCE) {
            Err(_) => fared.refused += 1,
            Ok(mut stream) => match asks_version(&mut stream) {
                Ok(()) => fared.answered += 1,
                Err(error) => fared.ended.push(error),
            },
        }
    }
    fared
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn nobody_who_connects_is_refused_while_fronts_change() {
    let rig = Rig::start();
    let front = || {
        let supervisor = rig.supervisor_pid()?;
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let children = std::fs::read_to_string(children).ok()?;
        let is_front = |pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "nautilus-front")
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_front)
    };
    let changes: [(&str, &(dyn Fn() + Sync)); 4] = [
        ("a swap", &|| drop(swap_node(&rig.run_dir, "r1").unwrap())),
        ("a release that is no good", &|| drop(swap_node(&rig.run_dir, "crashes").unwrap_err())),
        ("a front's death", &|| {
            let pid = front().expect("a front");
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
            wait_until("the next front", SOON, || front().is_some_and(|next| next != pid)).unwrap();
        }),
        ("a supervisor's death", &|| {
            let before = rig.supervisor_pid();
            rig.lab.nodes()[0].supervisor.kill();
            let is_next = || rig.supervisor_pid() != before && rig.release().is_some();
            wait_until("the next supervisor", SOON, is_next).unwrap();
        }),
    ];
    for (what, change) in changes {
        let stop = AtomicBool::new(false);
        let namespace = &rig.lab.client().namespace;
        let clients = std::thread::scope(|scope| {
            let client = || namespace.run(|| connecting(rig.cache(), &stop));
            let clients = [scope.spawn(client), scope.spawn(client)];
            std::thread::sleep(Duration::from_millis(200));
            let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            let clients = clients.map(|client| client.join().unwrap());
            changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            clients
        });
        println!("{what}: {clients:?}");
        for fared in clients {
            assert_eq!(fared.refused, 0, "{what}: {fared:?}");
            assert!(fared.answered > 100, "{what}: {fared:?}");
            // The one that a front had taken when it left.
            assert!(fared.ended.len() <= 1, "{what}: {fared:?}");
        }
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_release_that_is_no_good_ends_no_connection() {
    let rig = Rig::start();
    swap_node(&rig.run_dir, "r1").unwrap();
    let connect = || TcpStream::connect_timeout(&rig.cache(), PATIENCE);
    let mut client = rig.lab.client().namespace.run(connect).unwrap();
    asks_version(&mut client).unwrap();
    let error = swap_node(&rig.run_dir, "crashes").unwrap_err().to_string();
    assert!(error.contains("went back"), "{error}");
    asks_version(&mut client).expect("its front never stopped");
}
