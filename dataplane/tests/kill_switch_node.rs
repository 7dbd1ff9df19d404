//! The kill switch of a node that publishes a venue in every way it has: silent, and without a price on any path,
//! whatever is killed while it is on. Needs root.
#![allow(missing_docs)]

#[path = "support/heard.rs"]
mod heard;
#[path = "support/supervised.rs"]
mod supervised;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heard::{Heard, Offset};
use nautilus_dataplane::feed::distribution::wire::{Reason, Records, Reply, Request, Verdict};
use nautilus_ebpf::PassProgram;
use nautilus_shm::attach::{Code, kill_switch_request};
use nautilus_shm::cells::WorkerState;
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlReader, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::labels::XdpVerdict;
use nautilus_shm::metrics::table;
use nautilus_shm::table::{ReadError, TableReader, TableRegion};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use supervised::{CACHE_PORT, CLIENT, SERVER, Supervised, ask, ip, privileged, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const LINE: &str = "233.54.12.111:26477";
const REQUESTS: u16 = 26_500;
const GROUP: &str = "239.255.70.1";
const OWN_LINE: u16 = 26_700;
const OWN_REQUESTS: u16 = 26_800;
const OWN_SNAPSHOTS: u16 = 26_900;
const ENDPOINT: u16 = 26_600;
const KEY: &str = "md:nasdaq:NAAAAA:bbo";

/// The two clocks are compared to within this.
const CLOCK_SLACK_NS: u64 = 500_000;

fn node() -> Supervised {
    let node = Supervised::new(&format!(
        "[port]\nframes = 1024\n[cache]\nid = \"q\"\nmax_memory_mb = 64\nhot_set = true\n\
         [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 26477\n\
         channel = 1\nmax_orders = 65536\n\
         [feed.recovery]\nservers = [\"{CLIENT}:{REQUESTS}\"]\nfrom = \"{SERVER}:26499\"\n\
         [feed.distribution]\nendpoint = \"{SERVER}:{ENDPOINT}\"\nlease_ms = 60000\n\
         entitled = [{{ prefix = \"{CLIENT}/32\" }}]\n\
         [feed.republish]\ngroup = \"{GROUP}\"\nport = {OWN_LINE}\nfrom = \"{SERVER}:26701\"\n\
         requests = \"{SERVER}:{OWN_REQUESTS}\"\nhistory_mb = 16\n\
         [feed.republish.snapshot]\nlisten = \"{SERVER}:{OWN_SNAPSHOTS}\"\nuser = \"DOWN\"\n\
         password_file = \"/dev/null\"\n"
    ));
    ip(&format!("-n {} route add 224.0.0.0/4 dev c0", node.client_ns));
    node
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn venue(node: &Supervised) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.client_ns, env!("CARGO_BIN_EXE_nautilus-venue")]);
    let options = format!(
        "--line {LINE} --interface-address {CLIENT} --seed 5 --symbols 8 --rate 2000 \
         --session VENUE --messages 400000 --begin-after-ms 200 --linger-ms 1000 \
         --request {CLIENT}:{REQUESTS}"
    );
    command.args(options.split_whitespace());
    Running(command.stdout(Stdio::null()).spawn().unwrap())
}

/// Every way to a price.
struct Paths {
    udp: UdpSocket,
    tcp: SocketAddr,
    namespace: String,
}

impl Paths {
    fn new(node: &Supervised) -> Self {
        let udp = Supervised::udp(&node.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
        udp.connect((SERVER, CACHE_PORT)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let tcp = SocketAddr::new(SERVER.parse().unwrap(), CACHE_PORT);
        Self { udp, tcp, namespace: node.client_ns.clone() }
    }

    fn over_udp(&self) -> String {
        ask(&self.udp, &format!("get {KEY}\r\n"))
    }

    fn over_tcp(&self) -> String {
        let tcp = self.tcp;
        let asked = Supervised::inside(&self.namespace, move || {
            let mut stream = TcpStream::connect_timeout(&tcp, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("get {KEY}\r\nquit\r\n").as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            std::io::Result::Ok(answer)
        });
        String::from_utf8_lossy(&asked.unwrap()).into_owned()
    }
}

fn read(reader: &TableReader<TableRegion>) -> Result<(), ReadError> {
    reader.get(KEY.as_bytes(), monotonic_ns(), &mut [0; 1024]).map(|_| ())
}

fn hot_hits(region: &ControlReader) -> u64 {
    region.metrics(SUPERVISOR_PROCESS).counter(table::XDP_PACKETS.of(XdpVerdict::HotHit))
}

fn obeyed_ns(region: &ControlReader) -> Option<u64> {
    let active = |slot: &usize| {
        region.worker(*slot).identity().is_ok_and(|row| row.state == WorkerState::Active)
    };
    region.kill_switch_obeyed_ns((0..WORKERS_MAX).find(active)?)
}

/// No path shows a price, and the switch says that it is on.
fn assert_halted(node: &Supervised, paths: &Paths, when: &str) {
    wait_until("the worker answers", PATIENCE, || node.serving().len() == 1);
    for _ in 0..30 {
        assert_eq!(paths.over_udp(), "END\r\n", "{when}");
    }
    assert_eq!(paths.over_tcp(), "END\r\n", "{when}");
    let flagged = ask(&paths.udp, &format!("mg {KEY} v\r\n"));
    assert!(["EN @s\r\n", "EN\r\n"].contains(&flagged.as_str()), "{when}: {flagged}");
    let reader = node.reader("q").unwrap();
    let said = read(&reader);
    assert!(matches!(said, Err(ReadError::Suspect | ReadError::Miss)), "{when}: {said:?}");
    assert!(node.attach().unwrap().kill_switch().unwrap().is_on, "{when}");
    let status = node.status().unwrap();
    assert!(status.contains("kill switch on"), "{when}: {status}");
}

fn await_prices(paths: &Paths, node: &Supervised) {
    wait_until("prices over UDP", PATIENCE, || paths.over_udp().starts_with("VALUE"));
    wait_until("prices over TCP", PATIENCE, || paths.over_tcp().starts_with("VALUE"));
    let reader = node.reader("q").unwrap();
    wait_until("prices in memory", PATIENCE, || read(&reader).is_ok());
}

/// Subscribes, and hears everything that is sent; asks for republished messages again and again besides.
fn listen(node: &Supervised) -> Heard {
    let (subscriber, line, requests) = Supervised::inside(&node.client_ns, || {
        let subscriber = UdpSocket::bind((CLIENT, 0)).unwrap();
        let line = UdpSocket::bind(("0.0.0.0", OWN_LINE)).unwrap();
        line.join_multicast_v4(&GROUP.parse().unwrap(), &CLIENT.parse().unwrap()).unwrap();
        (subscriber, line, UdpSocket::bind((CLIENT, 0)).unwrap())
    });
    subscriber.connect((SERVER, ENDPOINT)).unwrap();
    requests.connect((SERVER, OWN_REQUESTS)).unwrap();
    Heard::start([("subscriber", subscriber), ("line", line), ("requests", requests)])
}

/// One request to subscribe; the caller sends it again with the cookie.
fn subscribe(heard: &Heard, number: u64) {
    let mut request = Request::to_all(number, Records::ALL, 0);
    request.records = Records(0x6f);
    request.cookie = heard
        .of("subscriber")
        .iter()
        .rev()
        .filter_map(|packet| Reply::parse(&packet.bytes))
        .find(|reply| reply.verdict == Verdict::Cookie && reply.number == number)
        .map_or(0, |reply| reply.cookie);
    heard.send("subscriber", &request.encode(&[]));
}

/// Asks for the first messages of what is republished.
fn ask_again(heard: &Heard) {
    let Some(packet) = heard.of("line").into_iter().next() else { return };
    let mut request = packet.bytes[..10].to_vec();
    request.extend(1u64.to_be_bytes());
    request.extend(5u16.to_be_bytes());
    heard.send("requests", &request);
}

/// What was published, not what subscriptions were told.
fn published(heard: &Heard) -> Vec<(&'static str, u64)> {
    let names = ["subscriber", "line", "requests"];
    let all = names.into_iter().flat_map(|name| heard.of(name).into_iter().map(move |p| (name, p)));
    let is_reply = |packet: &heard::Packet| Reply::parse(&packet.bytes).is_some();
    all.filter(|(_, packet)| !is_reply(packet)).map(|(name, packet)| (name, packet.at_ns)).collect()
}

/// Every publisher has been heard since this moment.
fn await_published(heard: &Heard, number: u64, since_ns: u64) {
    wait_until("every publisher is heard", PATIENCE, || {
        subscribe(heard, number);
        ask_again(heard);
        std::thread::sleep(Duration::from_millis(10));
        let published = published(heard);
        ["subscriber", "line", "requests"]
            .iter()
            .all(|name| published.iter().any(|(by, at_ns)| by == name && *at_ns > since_ns))
    });
}

fn turn(node: &Supervised, on: bool, reason: &str) -> String {
    let (code, said) = node.request(&kill_switch_request(on, reason));
    assert_eq!(code, Code::Ok, "{said}");
    said
}

/// Nothing was published later than `after_ns`.
fn assert_silent(heard: &Heard, after_ns: u64, when: &str) {
    subscribe(heard, 9);
    ask_again(heard);
    std::thread::sleep(Duration::from_millis(300));
    let late: Vec<_> =
        published(heard).into_iter().filter(|(_, at_ns)| *at_ns > after_ns).collect();
    assert!(late.is_empty(), "{when}: {} packets, first {:?}", late.len(), late.first());
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn no_price_leaves_a_node_that_was_halted_whatever_dies() {
    if !privileged("no_price_leaves_a_node_that_was_halted_whatever_dies") {
        return;
    }
    let mut node = node();
    // Without a program on this end too, what XDP sends to it vanishes.
    let _far_end = Supervised::inside(&node.client_ns, || {
        let ifindex = nix::net::if_::if_nametoindex("c0").unwrap();
        PassProgram::load().unwrap().attach(ifindex).unwrap()
    });
    node.start();
    let paths = Paths::new(&node);
    let heard = listen(&node);
    let _venue = venue(&node);
    await_prices(&paths, &node);
    await_published(&heard, 1, 0);
    let region = node.attach().unwrap();
    wait_until("the price is hot", PATIENCE, || {
        let before = hot_hits(&region);
        (0..50).for_each(|_| drop(paths.over_udp()));
        std::thread::sleep(Duration::from_millis(150));
        hot_hits(&region) > before + 20
    });

    let offset = Offset::measure();
    let asked_ns = offset.wall_ns(monotonic_ns());
    println!("{}", turn(&node, true, "a test\nof it"));
    assert_eq!(paths.over_udp(), "END\r\n", "at once, hot or not");
    wait_until("the worker obeys", PATIENCE, || obeyed_ns(&region).is_some());
    let obeyed_ns = offset.wall_ns(obeyed_ns(&region).unwrap());
    let until_ns = obeyed_ns + CLOCK_SLACK_NS;
    assert_silent(&heard, until_ns, "at first");
    let last_ns = published(&heard).into_iter().map(|(_, at_ns)| at_ns).max().unwrap();
    println!(
        "from the verb: obeyed after {:.3} ms, last packet after {:.3} ms",
        (obeyed_ns - asked_ns) as f64 / 1e6,
        last_ns.saturating_sub(asked_ns) as f64 / 1e6
    );
    let told = heard.of("subscriber").into_iter().filter_map(|packet| Reply::parse(&packet.bytes));
    let ended = told.rev().find(|reply| reply.verdict == Verdict::Ended).unwrap();
    assert_eq!(ended.reason, Reason::Halted, "subscribers hear why");
    let state = region.kill_switch().unwrap();
    assert_eq!((state.uid, state.reason.as_str()), (0, "a testof it"));
    assert_eq!(region.metrics(SUPERVISOR_PROCESS).gauge(table::KILL_SWITCH), 1);
    assert_halted(&node, &paths, "nothing was killed");

    let hits = hot_hits(&region);
    for round in 0..2 {
        Supervised::kill_worker(node.serving()[0]);
        node.await_workers(1);
        assert_halted(&node, &paths, "the worker was killed");
        node.kill_supervisor();
        node.start();
        assert_halted(&node, &paths, "the supervisor was killed");
        Supervised::kill_worker(front(&node));
        wait_until("another front", PATIENCE, || {
            std::panic::catch_unwind(|| paths.over_tcp()).is_ok()
        });
        assert_halted(&node, &paths, "the front was killed");
        assert_silent(&heard, until_ns, &format!("round {round}"));
    }
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(hot_hits(&node.attach().unwrap()), hits, "XDP has answered");

    // All memory goes: only the file says that it was on.
    node.signal_supervisor(Signal::SIGSTOP);
    let workers = node_processes(&node);
    node.kill_supervisor();
    workers.into_iter().for_each(Supervised::kill_worker);
    std::thread::sleep(Duration::from_millis(100));
    node.start();
    assert_halted(&node, &paths, "everything was killed");
    assert_silent(&heard, until_ns, "everything was killed");
    // And so it is for who stops the node and starts it again.
    node.stop();
    node.start();
    assert_halted(&node, &paths, "the node was stopped");
    assert_silent(&heard, until_ns, "the node was stopped");

    let released_ns = Offset::measure().wall_ns(monotonic_ns());
    println!("{}", turn(&node, false, "over"));
    await_prices(&paths, &node);
    await_published(&heard, 2, released_ns);
    assert_eq!(turn(&node, false, ""), "the kill switch is off already");
    let region = node.attach().unwrap();
    let kinds: Vec<_> = region.events(0).events.iter().filter_map(|event| event.kind).collect();
    assert!(kinds.contains(&EventKind::Released), "{kinds:?}");
    assert!(!node.run_dir().join("halted.toml").exists());
    node.stop();
}

/// Has a process refused all new mappings of memory for as long as this is there.
struct NoMappings(Child);

impl NoMappings {
    /// None where it cannot be had.
    fn of(pid: u32) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-o", "/dev/null", "-e", "trace=mmap", "-e", "inject=mmap:error=ENOMEM"]);
        let mut tracer = Self(command.arg("-p").arg(pid.to_string()).spawn().ok()?);
        let status = format!("/proc/{pid}/status");
        let mut is_traced = false;
        wait_until("strace is there, or gone", PATIENCE, || {
            let text = std::fs::read_to_string(&status).unwrap();
            is_traced = !text.contains("TracerPid:\t0\n");
            is_traced || tracer.0.try_wait().unwrap().is_some()
        });
        is_traced.then_some(tracer)
    }
}

impl Drop for NoMappings {
    fn drop(&mut self) {
        // So that it lets go of the process first.
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn what_cannot_be_said_to_xdp_is_said_to_all_others_and_to_who_asked() {
    let test = "what_cannot_be_said_to_xdp_is_said_to_all_others_and_to_who_asked";
    if !privileged(test) {
        return;
    }
    let mut node = node();
    node.start();
    let Some(tracer) = NoMappings::of(node.supervisor_pid()) else {
        println!("SKIPPED {test}: strace cannot be used here");
        return;
    };
    let (code, said) = node.request(&kill_switch_request(true, "a test"));
    drop(tracer);
    assert_eq!(code, Code::Impossible, "{said}");
    assert!(said.contains("is on, but not all of this is done: hot set: "), "{said}");
    assert!(node.attach().unwrap().kill_switch().unwrap().is_on);
    assert!(node.run_dir().join("halted.toml").exists(), "the next supervisor knows, too");
    // The same again, now that it can be.
    turn(&node, true, "");
    turn(&node, false, "over");
    node.stop();
}

/// The front's process.
fn front(node: &Supervised) -> i32 {
    let status = node.status().unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("front ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// Every process of the node but its supervisor, which has been stopped.
fn node_processes(node: &Supervised) -> Vec<i32> {
    let pid = node.supervisor_pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let mut processes: Vec<i32> =
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    // Those whose supervisor died before this one are nobody's children.
    processes.extend(node.active().map(|pid| pid as i32));
    processes.sort_unstable();
    processes.dedup();
    processes
}
