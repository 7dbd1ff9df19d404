//! A node that goes on serving while its programs are exchanged: for a release that is good, for some that are
//! not, and with deaths in the middle. Clients read and write meanwhile.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_control::attach::{park_node, start_node, swap_node};
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
