//! Front and worker are killed under load: nothing acknowledged is lost, order is kept, and what has no
//! known outcome is said to have none. Needs root.
#![allow(missing_docs)]

#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nautilus_shm::control_region::{FRONT_PROCESS, SUPERVISOR_PROCESS};
use nautilus_shm::metrics::table;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use supervised::{SERVER, Supervised, privileged, wait_until};
use tcp::Client;

const PORT: u16 = 11_211;
const UNKNOWN: &str = "SERVER_ERROR outcome unknown";

fn server() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), PORT)
}

fn front_pid(node: &Supervised) -> Option<u32> {
    let status = node.status()?;
    let line = status.lines().find(|line| line.starts_with("front "))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    rounds: u64,
    unknown: u64,
    broken: u64,
    longest: Duration,
}

/// Writes rising numbers under a key of its own, several a round, and reads them back in the same
/// pipeline. The value read must be the last acknowledged one, or a later one whose outcome is unknown.
fn client(namespace: String, key: String, stop: Arc<AtomicBool>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        let (mut next, mut acknowledged) = (1_u64, 0_u64);
        let mut connection: Option<Client> = None;
        while !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let Some(client) = &mut connection else {
                connection = Client::connect(&namespace, server()).ok();
                continue;
            };
            let first = next;
            let mut text = String::new();
            for _ in 0..4 {
                text += &format!("set {key} 0 0 8\r\n{next:08}\r\n");
                next += 1;
            }
            text += &format!("get {key}\r\n");
            let newest = next - 1;
            let result = (|| -> std::io::Result<bool> {
                use std::io::Write;
                client.0.write_all(text.as_bytes())?;
                for number in first..next {
                    match client.line()?.as_deref() {
                        Some("STORED") => acknowledged = number,
                        Some(UNKNOWN) => seen.unknown += 1,
                        Some(other) => panic!("{key}: {other:?} to a set"),
                        None => return Ok(false),
                    }
                }
                let Some(line) = client.line()? else { return Ok(false) };
                if line == "END" {
                    assert_eq!(acknowledged, 0, "{key}: {acknowledged} is lost");
                    return Ok(true);
                }
                if line == UNKNOWN {
                    // The read itself was the worker's.
                    seen.unknown += 1;
                    return Ok(true);
                }
                assert!(line.starts_with(&format!("VALUE {key} 0 8")), "{key}: {line:?}");
                let value = client.line()?.unwrap_or_default();
                let end = client.line()?.unwrap_or_default();
                if end != "END" {
                    return Ok(false);
                }
                let value: u64 = value.parse().unwrap();
                assert!(
                    (acknowledged..=newest).contains(&value),
                    "{key}: read {value}, {acknowledged} was acknowledged, {newest} the newest"
                );
                acknowledged = value;
                Ok(true)
            })();
            match result {
                Ok(true) => {
                    seen.rounds += 1;
                    seen.longest = seen.longest.max(begin.elapsed());
                }
                Ok(false) | Err(_) => {
                    seen.broken += 1;
                    connection = None;
                }
            }
        }
        seen
    })
}

fn kills(usual: usize) -> usize {
    let asked = std::env::var("NAUTILUS_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(usual)
}

#[test]
fn fronts_and_workers_are_killed_under_load() {
    if !privileged("fronts_and_workers_are_killed_under_load") {
        return;
    }
    let mut node = Supervised::new("[cache]\nid = \"q\"\n");
    node.start();
    let region = node.attach().unwrap();
    wait_until("the front serves", Duration::from_secs(10), || {
        Client::connect(&node.client_ns, server()).is_ok()
    });
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| client(node.client_ns.clone(), format!("key{number}"), stop.clone()))
        .collect();
    let (mut fronts, mut workers) = (0, 0);
    for round in 0..kills(30) {
        std::thread::sleep(Duration::from_millis(150));
        if round % 3 == 0 {
            let victim = front_pid(&node).expect("a front");
            kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
            wait_until("the next front", Duration::from_secs(10), || {
                front_pid(&node).is_some_and(|pid| pid != victim)
            });
            fronts += 1;
        } else {
            wait_until("a standby is ready", Duration::from_secs(20), || {
                node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
            });
            let front = front_pid(&node);
            let victim = node.active().unwrap();
            kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
            wait_until("the next worker", Duration::from_secs(20), || {
                node.active().is_some_and(|pid| pid != victim)
            });
            assert_eq!(front_pid(&node), front, "the front does not notice");
            workers += 1;
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    println!("{fronts} fronts and {workers} workers killed: {seen:?}");
    assert!(seen.iter().all(|seen| seen.rounds > 100), "{seen:?}");
    let broken: u64 = seen.iter().map(|seen| seen.broken).sum();
    assert!(broken >= fronts, "a front's death ends its connections");
    let supervisor = region.metrics(SUPERVISOR_PROCESS);
    assert_eq!(supervisor.counter(table::FRONT_DEATHS), fronts);
    assert_eq!(supervisor.counter(table::WORKER_DEATHS), workers);
    let unknown: u64 = seen.iter().map(|seen| seen.unknown).sum();
    let counted = region.metrics(FRONT_PROCESS).counter(table::FRONT_UNKNOWN);
    assert!(counted >= unknown, "{counted} {unknown}");
    node.stop();
}

#[test]
fn a_front_outlives_its_supervisor_and_is_found_by_the_next() {
    if !privileged("a_front_outlives_its_supervisor_and_is_found_by_the_next") {
        return;
    }
    let mut node = Supervised::new("[cache]\nid = \"q\"\n");
    node.start();
    let mut client = Client::connect(&node.client_ns, server()).unwrap();
    client.ask(b"set a 0 0 1\r\n1\r\n", b"STORED\r\n");
    let front = front_pid(&node).unwrap();
    node.kill_supervisor();
    // Long enough for the cache's heartbeat to be old: reads go to the worker.
    std::thread::sleep(Duration::from_millis(1300));
    client.ask(b"get a\r\nset a 0 0 1\r\n2\r\n", b"VALUE a 0 1\r\n1\r\nEND\r\nSTORED\r\n");
    node.start();
    assert_eq!(front_pid(&node), Some(front));
    client.ask(b"get a\r\n", b"VALUE a 0 1\r\n2\r\nEND\r\n");
    kill(Pid::from_raw(front as i32), Signal::SIGKILL).unwrap();
    wait_until("the next front", Duration::from_secs(10), || {
        front_pid(&node).is_some_and(|pid| pid != front)
    });
    let mut client = Client::connect(&node.client_ns, server()).unwrap();
    client.ask(b"get a\r\n", b"VALUE a 0 1\r\n2\r\nEND\r\n");
    // When nobody is left it ends by itself.
    let front = front_pid(&node).unwrap();
    node.kill_supervisor();
    kill(Pid::from_raw(node.active().unwrap() as i32), Signal::SIGKILL).unwrap();
    wait_until("the front ends", Duration::from_secs(5), || {
        let state = std::fs::read_to_string(format!("/proc/{front}/stat")).unwrap_or_default();
        !state.contains(") R ") && !state.contains(") S ")
    });
}
