//! Caches that are created and removed while a real node runs, under load and through every death. Needs
//! root.
#![allow(missing_docs)]

#[path = "support/run_time.rs"]
mod run_time;
#[path = "support/supervised.rs"]
mod supervised;
#[path = "support/tcp.rs"]
mod tcp;

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nautilus_shm::attach::{CACHES_MAX, Code, cache_name, create_request, remove_request};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::region::Access;
use nautilus_shm::table::{ReadError, TableReader, TableRegion};

use run_time::*;
use supervised::{Supervised, ask, ask_for_cache, ip, privileged, wait_until};
use tcp::{Client, inside};

/// Writes and reads one cache over UDP and TCP until told to stop; every answer has to be the right one.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, Duration)>,
}

impl Load {
    fn start(node: &Supervised, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (udp, mut tcp) = (over_udp(node, port), over_tcp(node, port));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let (key, value) = (format!("load{}", count % 100), format!("{count}"));
                assert_eq!(ask(&udp, &set(&key, &value)), "STORED\r\n");
                tcp.ask(format!("get {key}\r\n").as_bytes(), item(&key, &value).as_bytes());
                (count, longest) = (count + 1, longest.max(began.elapsed()));
            }
            (count, longest)
        });
        Self { stop, thread }
    }

    /// How many rounds there were, and the longest.
    fn stop(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_cache_comes_and_goes_under_load() {
    if !privileged("a_cache_comes_and_goes_under_load") {
        return;
    }
    let mut node = started(NODE);
    let region = node.attach().unwrap();
    let front = front_pid(&node);
    let load = Load::start(&node, OLD.1);
    let mut generations = Vec::new();
    for round in 0..4 {
        assert_created(&node, &section(NEW, ""));
        let (place, generation) = identity(&region, NEW.0).unwrap();
        generations.push(generation);
        assert_eq!(hits(&region, place), 0, "counters begin anew");
        for key in ["key", "udp"] {
            // Nothing of the one before.
            assert_everywhere(&node, NEW, key, None);
        }
        let value = format!("of round {round}");
        let mut tcp = over_tcp(&node, NEW.1);
        tcp.ask(set("key", &value).as_bytes(), b"STORED\r\n");
        assert_eq!(ask(&over_udp(&node, NEW.1), &set("udp", &value)), "STORED\r\n");
        assert_everywhere(&node, NEW, "key", Some(&value));
        assert_everywhere(&node, NEW, "udp", Some(&value));
        assert_everywhere(&node, OLD, "key", None);
        wait_until("hits are counted", PATIENCE, || hits(&region, place) > 0);
        let status = node.status().unwrap();
        assert!(status.contains("cache orders port 11300 memory 16 MiB serving"), "{status}");

        // A reader, and the memory it maps.
        let (code, mut fds) = ask_for_cache(&node.run_dir(), NEW.0);
        assert_eq!(code, Code::Ok);
        let file = File::from(fds.remove(0));
        let memory = file.as_fd().try_clone_to_owned().unwrap();
        let memory = TableRegion::attach(memory, Access::ReadOnly).unwrap();
        let reader = TableReader::attach(memory).unwrap();
        assert!(reader.get(b"key", monotonic_ns(), &mut [0; 64]).is_ok());
        let held = |file: &File| file.metadata().unwrap().blocks() * 512;
        assert!(held(&file) >= 16 << 20, "{} bytes", held(&file));

        let began = Instant::now();
        assert_removed(&node, NEW.0);
        let detached = reader.get(b"key", monotonic_ns(), &mut [0; 64]);
        assert_eq!(detached, Err(ReadError::Detached), "at once");
        assert_eq!(tcp.rest(), b"", "its connections end");
        let refused = Client::connect(&node.client_ns, address(NEW.1)).err();
        let refused = refused.map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
        let udp = over_udp(&node, NEW.1);
        let _ = udp.send(b"\0\x01\0\0\0\x01\0\0get key\r\n");
        assert!(udp.recv(&mut [0; 64]).is_err(), "nobody answers");
        assert_eq!(ask_for_cache(&node.run_dir(), NEW.0).0, Code::NoCache);
        wait_until("the memory is given back", PATIENCE, || held(&file) < 1 << 20);
        println!("memory given back {:?} after the request, with a reader", began.elapsed());
        assert_eq!(reader.get(b"key", monotonic_ns(), &mut [0; 64]), Err(ReadError::Detached));
    }
    assert!(generations.is_sorted_by(|one, next| one < next), "{generations:?}");
    let (rounds, longest) = load.stop();
    println!("{rounds} rounds on the other cache, the longest {longest:?}");
    assert!(rounds > 100);
    assert_eq!(front_pid(&node), front, "its front, and connections, were left alone");
    assert!(log(&node).contains("memory of cache orders is given back: 16 MiB"), "{}", log(&node));
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_was_created_outlives_every_death() {
    if !privileged("what_was_created_outlives_every_death") {
        return;
    }
    let mut node = started(NODE);
    assert_created(&node, &section(NEW, ""));
    for round in 0..6 {
        let value = format!("of round {round}");
        for (_, port) in [OLD, NEW] {
            over_tcp(&node, port).ask(set("key", &value).as_bytes(), b"STORED\r\n");
        }
        match round % 3 {
            0 => node.replace_worker(),
            1 => replace_front(&node),
            _ => {
                node.kill_supervisor();
                node.start();
                assert!(log(&node).contains("took the node over from worker"), "{}", log(&node));
                let said = create(&node, &section(NEW, ""));
                assert_eq!(said, (Code::Ok, "cache orders is served already".into()));
            }
        }
        assert_everywhere(&node, OLD, "key", Some(&value));
        assert_everywhere(&node, NEW, "key", Some(&value));
    }
    // By a supervisor that has not made it, with a front that it cannot tell.
    node.kill_supervisor();
    node.start();
    let (third, port) = ("trades", 11_400);
    assert_created(&node, &section((third, port), ""));
    over_tcp(&node, port).ask(set("key", "v").as_bytes(), b"STORED\r\n");
    assert_removed(&node, NEW.0);
    for _ in 0..2 {
        assert_everywhere(&node, OLD, "key", Some("of round 5"));
        assert_everywhere(&node, (third, port), "key", Some("v"));
        assert_eq!(ask_for_cache(&node.run_dir(), NEW.0).0, Code::NoCache);
        node.replace_worker();
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn deaths_in_the_middle_lose_nothing() {
    if !privileged("deaths_in_the_middle_lose_nothing") {
        return;
    }
    let mut node = started(NODE);
    // Large enough that its creation takes a while.
    let large = "id = \"orders\"\nport = 11300\nmax_memory_mb = 256\n";
    for round in 0..9u32 {
        let value = format!("of round {round}");
        over_tcp(&node, OLD.1).ask(set("key", &value).as_bytes(), b"STORED\r\n");
        let after = Duration::from_millis(20 + 130 * u64::from(round / 3));
        match round % 3 {
            2 => {
                let run_dir = node.run_dir();
                std::thread::scope(|scope| {
                    let asked =
                        scope.spawn(|| supervised::exchange(&run_dir, &create_request(large)));
                    std::thread::sleep(after);
                    node.kill_supervisor();
                    let _ = asked.join();
                });
                node.start();
            }
            which => std::thread::scope(|scope| {
                let asked = scope.spawn(|| create(&node, large));
                std::thread::sleep(after);
                end(if which == 0 { node.active().unwrap() } else { front_pid(&node).unwrap() });
                let (code, said) = asked.join().unwrap();
                assert_eq!(code, Code::Ok, "{said}");
            }),
        }
        // Whoever had no answer asks again.
        assert_created(&node, large);
        over_tcp(&node, NEW.1).ask(set("key", &value).as_bytes(), b"STORED\r\n");
        assert_everywhere(&node, NEW, "key", Some(&value));
        assert_everywhere(&node, OLD, "key", Some(&value));
        if round % 3 == 2 {
            let run_dir = node.run_dir();
            std::thread::scope(|scope| {
                let request = remove_request(&cache_name(NEW.0));
                let asked = scope.spawn(move || supervised::exchange(&run_dir, &request));
                std::thread::sleep(Duration::from_millis(u64::from(round)));
                node.kill_supervisor();
                let _ = asked.join();
            });
            node.start();
            assert!(matches!(remove(&node, NEW.0).0, Code::Ok | Code::NoCache));
        } else {
            std::thread::scope(|scope| {
                let asked = scope.spawn(|| remove(&node, NEW.0));
                end(node.active().unwrap());
                let (code, said) = asked.join().unwrap();
                assert_eq!(code, Code::Ok, "{said}");
            });
        }
        assert_everywhere(&node, OLD, "key", Some(&value));
        wait_until("a standby is ready", PATIENCE, || {
            node.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
        });
    }
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn bad_requests_are_refused_with_the_reason() {
    if !privileged("bad_requests_are_refused_with_the_reason") {
        return;
    }
    let feed = "[[feed]]\nvenue = \"nasdaq\"\nchannel = 1\ngroup = \"233.54.12.111\"\nport = 26477\n\
                max_orders = 1024\n";
    let mut node = started(&format!("{NODE}{feed}"));
    let _other = inside(&node.server_ns, || TcpListener::bind("0.0.0.0:11999").unwrap());
    assert_created(&node, &section(NEW, ""));
    let third = |more: &str| section(("trades", 11_400), more);
    for (text, reason) in [
        (section(NEW, "max_value_bytes = 9\n"), "is there with other settings"),
        (section(("trades", NEW.1), ""), "port 11300 is that of cache orders"),
        (section(("trades", OLD.1), ""), "port 11211 is that of cache quotes"),
        (section(("trades", 7), ""), "port: 7 is also echo.port"),
        (section(("trades", 26_477), ""), "port 26477 is that of the feed of nasdaq"),
        (section(("trades", 11_999), ""), "cannot bind to 0.0.0.0:11999"),
        (section(("trades", 0), ""), "port: 0 is not a port"),
        (section(("Trades", 11_400), ""), "is not an id"),
        (section(("status", 11_400), ""), "is a reserved word"),
        (third("max_value_bytes = 0\n"), "max_value_bytes: 0 is not 1..="),
        (third("colour = 1\n"), "unknown field `colour`"),
        (third("readers = [\"nobody-of-this-name\"]\n"), "nobody-of-this-name"),
        (third("huge_pages = true\n"), "huge_pages"),
        ("id = \"trades\"\nport = 11400\nmax_memory_mb = 7\n".into(), "max_memory_mb: 7 is not"),
        (
            "id = \"trades\"\nport = 11400\nmax_memory_mb = 65536\n".into(),
            "max_memory_mb: 65536 MiB",
        ),
        ("port = 11400\n".into(), "missing field `id`"),
        ("\0\x01".into(), "the cache's section"),
    ] {
        let (code, said) = create(&node, &text);
        assert!(code == Code::Impossible && said.contains(reason), "{text:?}: {code:?} {said}");
    }
    assert_eq!(create(&node, "").0, Code::BadRequest);
    assert_eq!(create(&node, &"#".repeat(4001)).0, Code::BadRequest);
    assert_eq!(remove(&node, "trades").0, Code::NoCache);
    let (code, said) = remove(&node, OLD.0);
    let reason = "cache quotes is one of the node file (the feed of nasdaq writes it)";
    assert!(code == Code::Impossible && said.contains(reason), "{said}");
    for port in 0..CACHES_MAX as u16 - 2 {
        assert_created(&node, &section((&format!("more{port}"), 12_000 + port), ""));
    }
    let (code, said) = create(&node, &third(""));
    assert!(code == Code::Impossible && said.contains("at most 8 caches"), "{said}");
    assert_everywhere(&node, OLD, "key", None);
    assert_everywhere(&node, ("more5", 12_005), "key", None);
    assert_removed(&node, "more3");
    assert_created(&node, &third(""));
    assert_everywhere(&node, ("trades", 11_400), "key", None);
    node.stop();
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn every_worker_of_several_serves_what_was_created() {
    if !privileged("every_worker_of_several_serves_what_was_created") {
        return;
    }
    let extra = format!("queues = [0, 1]\n[worker]\ncount = 2\n[port]\nframes = 1024\n{NODE}");
    let mut node = Supervised::new(&extra);
    ip(&format!("-n {} link del s0", node.server_ns));
    node.make_link(0, 2);
    node.start();
    let actives = |node: &Supervised| -> Vec<u32> {
        let status = node.status().unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.strip_prefix("active worker "));
        lines
            .filter(|line| line.contains("Serving"))
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect()
    };
    let all_serve = |node: &Supervised| {
        let ready = node.status().is_some_and(|text| text.matches("Ready").count() == 2);
        ready && actives(node).len() == 2
    };
    wait_until("both workers serve", PATIENCE, || all_serve(&node));
    for round in 0..4 {
        assert_created(&node, &section(NEW, ""));
        let flows: Vec<UdpSocket> = (0..8).map(|_| over_udp(&node, NEW.1)).collect();
        for key in 0..32 {
            let value = format!("{round} {key}");
            let set = set(&format!("k{key}"), &value);
            assert_eq!(ask(&flows[key % flows.len()], &set), "STORED\r\n");
        }
        let read = |node: &Supervised| {
            for key in 0..32 {
                let value = item(&format!("k{key}"), &format!("{round} {key}"));
                let get = format!("get k{key}\r\n");
                assert_eq!(ask(&flows[(key + 3) % flows.len()], &get), value);
                over_tcp(node, NEW.1).ask(get.as_bytes(), value.as_bytes());
            }
        };
        read(&node);
        if round < 2 {
            end(actives(&node)[round]);
        } else {
            node.kill_supervisor();
            node.start();
        }
        wait_until("both workers serve again", PATIENCE, || all_serve(&node));
        read(&node);
        assert_removed(&node, NEW.0);
        assert_everywhere(&node, OLD, "key", None);
    }
    node.stop();
}
