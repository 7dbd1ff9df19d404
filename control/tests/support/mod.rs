//! A node's control region with somebody who hands it out: the supervisor's end of the protocol,
//! over a real region and a real socket.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use nautilus_shm::attach::{
    CLAIM_FILE, Code, HostAnswer, Probed, REQUEST_BYTES, ReplyHeader, Request, SUPERVISOR_SOCKET,
    Verb, cache_name,
};
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};
use nautilus_shm::cells::{
    InterfaceState, PollPolicy, SupervisorIdentity, WorkerIdentity, WorkerState, XdpMode,
};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, FRONT_PROCESS, HistogramId, SUPERVISOR_PROCESS};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::metrics::labels::{CacheVerb, RxDrop, XdpVerdict};
use nautilus_shm::metrics::table::{
    BUSY_NS, CACHE_HITS, CACHE_ITEMS, CACHE_MISSES, CACHE_REQUESTS, FRONT_HITS, IDLE_NS,
    RX_DROPPED_PACKETS, RX_PACKETS, XDP_PACKETS,
};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen,
    recv, send, sendmsg, socket,
};

/// A region as a node in service leaves it.
pub fn region(node_id: &str) -> Arc<ControlRegion> {
    let region = ControlRegion::create(c"test-control").unwrap();
    let now_ns = monotonic_ns();
    region.supervisor().set_identity(&SupervisorIdentity {
        pid: std::process::id(),
        generation: 1,
        started_ns: now_ns,
        node_id: node_id.into(),
    });
    region.supervisor().set_serving(true);
    region.supervisor().set_interface(
        0,
        &InterfaceState {
            name: "eth0".into(),
            ifindex: 7,
            up: true,
            xdp_mode: XdpMode::Native,
            zero_copy: false,
            queues: 1,
            mtu_bytes: 1500,
        },
    );
    for (slot, state) in [(0, WorkerState::Active), (1, WorkerState::Standby)] {
        region.set_confinement(slot, nautilus_sandbox::Confinement::WHOLE.0);
        region.worker(slot).set_identity(&WorkerIdentity {
            pid: 1000 + slot as u32,
            state,
            core: 1,
            generation: 1,
            started_ns: now_ns,
            promoted_ns: now_ns,
        });
        region.worker(slot).begin(now_ns, PollPolicy::Busy);
    }
    for (place, id) in [(0, "quotes"), (3, "orders")] {
        let generation = place as u32 + 1;
        region.cache(place).set_identity(&CacheIdentity {
            id: id.into(),
            generation,
            state: CacheState::Serving,
            port: 11_211 + place as u16,
            max_memory_mb: 64,
            max_value_bytes: 1 << 20,
            has_hot_set: place == 0,
        });
        let bank = region.cache_metrics(0, place);
        bank.add(CACHE_HITS, 30 + place as u64);
        bank.add(CACHE_MISSES, 10);
        bank.set(CACHE_ITEMS, 5);
        bank.add(CACHE_REQUESTS.of(CacheVerb::Set), 7);
        region.cache_metrics(FRONT_PROCESS, place).add(FRONT_HITS, 100);
    }
    let bank = region.metrics(0);
    bank.add(RX_PACKETS, 1_000);
    bank.add(RX_DROPPED_PACKETS.of(RxDrop::UdpChecksum), 3);
    bank.add(BUSY_NS, 250_000_000);
    bank.add(IDLE_NS, 750_000_000);
    for value_ns in [4_000, 8_000, 90_000] {
        region.histogram(0, HistogramId::XdpToTx).record(value_ns);
    }
    region.metrics(SUPERVISOR_PROCESS).add(XDP_PACKETS.of(XdpVerdict::Redirected), 1_000);
    region.metrics(SUPERVISOR_PROCESS).add(XDP_PACKETS.of(XdpVerdict::SourceUnlisted), 5);
    region.events().append(now_ns, EventKind::WorkerStarted, Some(0), (0, 0), "it\nbegan");
    beat(&region);
    Arc::new(region)
}

/// What supervisor and workers do all the time.
pub fn beat(region: &ControlRegion) {
    let now_ns = monotonic_ns();
    region.region().beat(now_ns).unwrap();
    region.supervisor().beat(now_ns);
    region.worker(0).beat(now_ns);
    region.worker(1).beat(now_ns);
}

/// Beats for as long as the test process lives.
pub fn keep_beating(region: &Arc<ControlRegion>) {
    let region = region.clone();
    std::thread::spawn(move || {
        loop {
            beat(&region);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
}

/// Answers that a probe has timed, apart from one for each of its milliseconds.
pub const PROBED_MIN: u64 = 2_000;

/// Listens in `run_dir` and answers requests with `reply` and a read-only descriptor of the region, until the test
/// process ends. Who claims the node is given its claim; its host lacks nothing.
pub fn hand_out(
    run_dir: &Path,
    region: Arc<ControlRegion>,
    reply: impl Fn() -> Vec<u8> + Send + 'static,
) {
    hand_out_by_verb(run_dir, region, move |_| reply());
}

/// The same, with an answer by what is asked; a probe has its own.
pub fn hand_out_by_verb(
    run_dir: &Path,
    region: Arc<ControlRegion>,
    reply: impl Fn(Verb) -> Vec<u8> + Send + 'static,
) {
    hand_out_of_host(run_dir, region, reply, || Some("[]".into()));
}

/// The same, of a node whose host lacks this, in JSON; none where its supervisor is too old to judge it.
pub fn hand_out_of_host(
    run_dir: &Path,
    region: Arc<ControlRegion>,
    reply: impl Fn(Verb) -> Vec<u8> + Send + 'static,
    lacking: impl Fn() -> Option<String> + Send + 'static,
) {
    let listener =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&run_dir.join(SUPERVISOR_SOCKET)).unwrap()).unwrap();
    listen(&listener, Backlog::new(8).unwrap()).unwrap();
    let listener = UnixListener::from(listener);
    let claimed = run_dir.to_owned();
    std::thread::spawn(move || {
        loop {
            let (connection, _) = listener.accept().unwrap();
            let mut packet = [0; REQUEST_BYTES + 4];
            let read = recv(connection.as_raw_fd(), &mut packet, MsgFlags::empty());
            if read.unwrap_or(0) < REQUEST_BYTES {
                continue;
            }
            // Of a longer request this is the head.
            let (request, rest) = packet.split_at(REQUEST_BYTES);
            let asked = Request::decode(request).unwrap();
            if asked.verb == Verb::Probe {
                // Enough to judge, and how long it was to take.
                let period_ms = u32::from_le_bytes(rest.try_into().unwrap());
                let (samples, ns) = (PROBED_MIN + u64::from(period_ms), 20_000);
                let payload = Probed { samples, p50_ns: ns, p99_ns: ns, p999_ns: ns }.encode();
                let packet = reply_of(0, &payload);
                let _ = send(connection.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
                continue;
            }
            let (packet, file): (Vec<u8>, File) = match asked.verb {
                Verb::Claim => (reply_of(1, &[]), claim(&claimed)),
                Verb::HostCheck => match lacking() {
                    Some(lacking) => {
                        let answer = HostAnswer { digest: 0, changes: 0, left: 0 };
                        (reply_of(1, &answer.encode()), memory(lacking.as_bytes()))
                    }
                    None => (not_understood(), memory(b"")),
                },
                verb => (reply(verb), region.reopen_read_only().unwrap().into()),
            };
            let fds: [RawFd; 1] = [file.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let slices = [IoSlice::new(&packet)];
            let fd = connection.as_raw_fd();
            let _ = sendmsg::<UnixAddr>(fd, &slices, &rights, MsgFlags::MSG_NOSIGNAL, None);
        }
    });
}

/// A node's claim as its supervisor opens it.
fn claim(run_dir: &Path) -> File {
    let path = run_dir.join(CLAIM_FILE);
    let _ = File::options().append(true).create(true).open(&path).unwrap();
    File::open(path).unwrap()
}

/// Bytes in a file without a name.
fn memory(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The reply of a supervisor that does not know what it was asked.
pub fn not_understood() -> Vec<u8> {
    let (code, pid) = (Code::BadRequest, std::process::id());
    ReplyHeader { code, generation: 1, pid, fds: 0, payload_bytes: 0 }.encode().to_vec()
}

/// The reply of a supervisor that hands out the control region and names `names` caches.
pub fn reply(fds: u32, names: &[&str]) -> Vec<u8> {
    let payload: Vec<u8> = names.iter().flat_map(|name| cache_name(name)).collect();
    reply_of(fds, &payload)
}

fn reply_of(fds: u32, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = payload.len() as u32;
    let header =
        ReplyHeader { code: Code::Ok, generation: 1, pid: std::process::id(), fds, payload_bytes };
    [&header.encode()[..], payload].concat()
}
