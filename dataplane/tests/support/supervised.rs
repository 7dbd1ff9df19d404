//! A node of one veth pair in two namespaces of its own, with the real supervisor. Everything is
//! taken away again when it is dropped.
#![allow(dead_code)]

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nautilus_dataplane::supervisor::sys::{recv_packet, send_packet};
use nautilus_shm::attach::{
    CacheRequest, Code, PACKET_BYTES_MAX, ReplyHeader, Request, Verb, cache_ids, cache_name,
};
use nautilus_shm::control_region::ControlReader;
use nautilus_shm::region::Access;
use nautilus_shm::table::{TableReader, TableRegion};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, sockopt};
use nix::unistd::Pid;

pub const SERVER: &str = "198.18.0.1";
pub const CLIENT: &str = "198.18.0.2";
pub const ECHO_PORT: u16 = 7;
/// Port of a `[cache]` section in the tests' node files.
pub const CACHE_PORT: u16 = 11211;

/// Whether privileged tests can run; prints what is missing.
pub fn privileged(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let ip = Command::new("ip").arg("-V").output().is_ok();
    if !root || !ip {
        println!("SKIPPED {test}: needs root and iproute2 (root: {root}, iproute2: {ip})");
    }
    root && ip
}

pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

/// Polls until `predicate` holds.
pub fn wait_until(what: &str, timeout: Duration, mut predicate: impl FnMut() -> bool) {
    let end = Instant::now() + timeout;
    while !predicate() {
        assert!(Instant::now() < end, "waited {timeout:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One memcached command over UDP; `client` is connected to the cache.
pub fn ask(client: &UdpSocket, text: &str) -> String {
    // Answers to an earlier request that was asked twice carry another number.
    static REQUEST: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1);
    let id = REQUEST.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    for _ in 0..5 {
        let request = [&id[..], &[0, 0, 0, 1, 0, 0], text.as_bytes()].concat();
        client.send(&request).unwrap();
        let mut reply = [0; 1500];
        while let Ok(length) = client.recv(&mut reply) {
            if reply[..2] == id {
                return String::from_utf8_lossy(&reply[8..length]).into_owned();
            }
        }
    }
    panic!("no answer to {text:?}");
}

/// What the supervisor of this directory answers to whoever asks for one cache.
pub fn ask_for_cache(run_dir: &Path, id: &str) -> (Code, Vec<OwnedFd>) {
    let request = CacheRequest { verb: Verb::Cache, name: cache_name(id) }.encode();
    let (header, _, fds) = exchange(run_dir, &request).expect("an answer");
    (header.code, fds)
}

pub fn exchange(run_dir: &Path, request: &[u8]) -> Option<(ReplyHeader, Vec<u8>, Vec<OwnedFd>)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let address = UnixAddr::new(&run_dir.join("supervisor.sock")).unwrap();
    connect(fd.as_raw_fd(), &address).ok()?;
    send_packet(fd.as_fd(), request, &[]).ok()?;
    let packet = recv_packet(fd.as_fd(), PACKET_BYTES_MAX).ok()?;
    let (header, payload) = ReplyHeader::decode(&packet.bytes).ok()?;
    Some((header, payload.to_vec(), packet.fds))
}

pub struct Supervised {
    pub server_ns: String,
    pub client_ns: String,
    pub dir: tempfile::TempDir,
    pub supervisor: Option<Child>,
    pub config: PathBuf,
    /// Added to the environment of its processes.
    pub environment: Vec<(String, String)>,
    extra: String,
}

impl Supervised {
    /// Namespaces and veth, no supervisor yet. `extra` is appended to the node file.
    pub fn new(extra: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let run = format!("{:x}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (server_ns, client_ns) = (format!("ne{run}s"), format!("ne{run}c"));
        let dir = tempfile::Builder::new().prefix("ne").tempdir().unwrap();
        // Readers of another user must reach the socket in it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        for namespace in [&server_ns, &client_ns] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        let config = dir.path().join("node.toml");
        let (supervisor, environment, extra) = (None, Vec::new(), extra.into());
        let this = Self { server_ns, client_ns, dir, supervisor, config, environment, extra };
        this.make_veth();
        this.write_config();
        this
    }

    /// A node that was started elsewhere: no namespace is its own.
    pub fn around(dir: tempfile::TempDir, config: PathBuf, supervisor: Child) -> Self {
        Self {
            server_ns: String::new(),
            client_ns: String::new(),
            dir,
            supervisor: Some(supervisor),
            config,
            environment: Vec::new(),
            extra: String::new(),
        }
    }

    pub fn make_veth(&self) {
        self.make_link(0, 1);
    }

    /// Connects `s<number>` of the server with `c<number>` of the client, in subnets of their own:
    /// 198.18.<number>.0/24 and fd00:6e61:0:<number>::/64, the server being host 1.
    pub fn make_link(&self, number: u8, queues: u32) {
        let (server, client) = (&self.server_ns, &self.client_ns);
        let width = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!(
            "link add s{number} netns {server} {width} type veth \
             peer name c{number} netns {client} {width}"
        ));
        for (end, namespace, host) in [('s', server, 1), ('c', client, 2)] {
            ip(&format!("-n {namespace} addr add 198.18.{number}.{host}/24 dev {end}{number}"));
            ip(&format!(
                "-n {namespace} addr add fd00:6e61:0:{number}::{host}/64 dev {end}{number} nodad"
            ));
        }
        ip(&format!("-n {server} link set s{number} up"));
        ip(&format!("-n {client} link set c{number} up"));
        let ethtool =
            ["netns", "exec", client, "ethtool", "-K", &format!("c{number}"), "tx", "off"];
        assert!(Command::new("ip").args(ethtool).output().unwrap().status.success());
    }

    fn write_config(&self) {
        let text = format!(
            "[node]\nid = \"test\"\nrun_dir = \"{}\"\n[access]\nsources = [\"198.18.0.0/15\", \"fd00:6e61::/32\"]\n\
             [echo]\nport = {ECHO_PORT}\n[[interface]]\nname = \"s0\"\n{}",
            self.run_dir().display(),
            self.extra
        );
        fs::write(&self.config, text).unwrap();
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.server_ns, env!("CARGO_BIN_EXE_nautilus-supervisor")])
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the supervisor: `ip netns exec` becomes it.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let child = self.command().stderr(Stdio::from(log)).spawn().unwrap();
        self.supervisor = Some(child);
    }

    /// The same, and waits until a worker serves.
    pub fn start(&mut self) {
        self.spawn();
        wait_until("a worker serves", Duration::from_secs(20), || {
            self.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
        });
    }

    /// What a start that is refused says.
    pub fn refused(&self) -> String {
        self.refuses(self.command())
    }

    /// What `command` says, which must end by itself, and not well.
    pub fn refuses(&self, mut command: Command) -> String {
        let errors = self.dir.path().join("errors");
        let file = fs::File::create(&errors).unwrap();
        let mut child = command.stderr(file).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > end => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        let said = fs::read_to_string(&errors).unwrap();
        assert!(status.is_some_and(|status| !status.success()), "{status:?}, not refused: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let parts: Vec<&str> = said.lines().last().unwrap_or_default().split(": ").collect();
        assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "a cause stands twice: {said}");
        said
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.as_ref().unwrap().id()
    }

    pub fn signal_supervisor(&self, signal: Signal) {
        kill(Pid::from_raw(self.supervisor_pid() as i32), signal).unwrap();
    }

    /// Kills the supervisor and reaps it.
    pub fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the supervisor must end well.
    pub fn stop(&mut self) {
        self.signal_supervisor(Signal::SIGTERM);
        let status = self.supervisor.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Pid of the worker that serves, by its socket.
    pub fn active(&self) -> Option<u32> {
        let exists = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).exists();
        self.socket_pids().into_iter().max_by_key(exists)
    }

    /// Pids that socket files of workers carry.
    fn socket_pids(&self) -> Vec<u32> {
        let files = fs::read_dir(self.run_dir()).into_iter().flatten().flatten();
        let pid = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("worker-")?.strip_suffix(".sock")?.parse().ok()
        };
        files.filter_map(pid).collect()
    }

    /// Pids of the workers that serve, in the order of their numbers.
    pub fn serving(&self) -> Vec<i32> {
        let status = self.status().unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.strip_prefix("active worker "));
        lines
            .filter(|line| line.contains("Serving"))
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect()
    }

    /// Waits until so many workers serve, with a standby each. One that is dead does not, although its supervisor
    /// may not have heard of it.
    pub fn await_workers(&self, count: usize) {
        wait_until("every worker serves, with a standby", Duration::from_secs(20), || {
            self.serving().into_iter().filter(|pid| is_alive(*pid)).count() == count
                && self.status().is_some_and(|text| text.matches("Ready").count() == count)
        });
    }

    /// Kills a worker, which is dead when this comes back.
    pub fn kill_worker(pid: i32) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_until("a killed worker is dead", Duration::from_secs(20), || !is_alive(pid));
    }

    fn ask(&self, verb: Verb) -> Option<(ReplyHeader, Vec<u8>, Vec<OwnedFd>)> {
        exchange(&self.run_dir(), &Request { verb }.encode())
    }

    /// How a request that carries no descriptors was answered.
    pub fn request(&self, packet: &[u8]) -> (Code, String) {
        let (header, payload, fds) = exchange(&self.run_dir(), packet).expect("an answer");
        assert!(fds.is_empty());
        (header.code, String::from_utf8(payload).unwrap())
    }

    pub fn status(&self) -> Option<String> {
        let (_, payload, _) = self.ask(Verb::Status)?;
        String::from_utf8(payload).ok()
    }

    /// The control region, attached as a reader.
    pub fn attach(&self) -> Result<ControlReader, ReplyHeader> {
        let (header, _, mut fds) = self.ask(Verb::Attach).expect("an answer");
        if fds.is_empty() { Err(header) } else { Ok(ControlReader::attach(fds.remove(0)).unwrap()) }
    }

    /// A reader of the cache of this id, as a program on the host has it.
    pub fn reader(&self, id: &str) -> Option<TableReader<TableRegion>> {
        let (_, payload, mut fds) = self.ask(Verb::Attach)?;
        let place = cache_ids(&payload).ok()?.iter().position(|known| known == id)?;
        let memory = TableRegion::attach(fds.remove(1 + place), Access::ReadOnly).ok()?;
        TableReader::attach(memory).ok()
    }

    /// Inodes of sockets that supervisor and active worker share: the AF_XDP sockets.
    pub fn shared_sockets(&self) -> Vec<String> {
        let sockets = |pid: u32| -> Vec<String> {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter_map(|entry| fs::read_link(entry.path()).ok())
                .map(|target| target.display().to_string())
                .filter(|target| target.starts_with("socket:"))
                .collect()
        };
        let worker = sockets(self.active().expect("a worker"));
        let mut shared: Vec<String> = sockets(self.supervisor_pid())
            .into_iter()
            .filter(|inode| worker.contains(inode))
            .collect();
        shared.sort();
        shared.dedup();
        shared
    }

    /// Whether an XDP program is on the server's interface.
    pub fn has_program(&self) -> bool {
        let output = Command::new("ip")
            .args(["-n", &self.server_ns, "link", "show", "s0"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains("xdp")
    }

    /// Runs `action` inside a namespace, on a thread of its own.
    pub fn inside<T: Send>(namespace: &str, action: impl FnOnce() -> T + Send) -> T {
        let run = || {
            let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// A UDP socket made inside a namespace.
    pub fn udp(namespace: &str, bind: SocketAddr) -> UdpSocket {
        Self::inside(namespace, || UdpSocket::bind(bind).unwrap())
    }

    /// A client socket connected to the echo service.
    pub fn client(&self) -> UdpSocket {
        let socket = Self::udp(&self.client_ns, SocketAddr::new(CLIENT.parse().unwrap(), 0));
        socket.connect((SERVER, ECHO_PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // A client thread that gets no core for a while must not lose answers for the service.
        nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        socket
    }

    /// A client socket connected to the echo service over one link and family; what comes by another
    /// interface does not reach it.
    pub fn client_over(&self, number: u8, v6: bool) -> UdpSocket {
        let host = |host: u8| -> IpAddr {
            match v6 {
                true => format!("fd00:6e61:0:{number}::{host}").parse().unwrap(),
                false => [198, 18, number, host].into(),
            }
        };
        let socket = Self::udp(&self.client_ns, SocketAddr::new(host(2), 0));
        let device = OsString::from(format!("c{number}"));
        nix::sys::socket::setsockopt(&socket, sockopt::BindToDevice, &device).unwrap();
        socket.connect((host(1), ECHO_PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    /// Kills the worker that serves and waits for the next.
    pub fn replace_worker(&self) {
        let victim = self.active().unwrap();
        kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
        wait_until("the next worker", Duration::from_secs(20), || {
            self.active().is_some_and(|pid| pid != victim)
        });
        wait_until("it serves, and a standby is ready", Duration::from_secs(20), || {
            self.status().is_some_and(|text| text.contains("Serving") && text.contains("Ready"))
        });
    }

    /// Waits until the service answers at all (first the neighbour must be known).
    pub fn await_echo(&self) {
        let client = self.client();
        wait_until("an echo", Duration::from_secs(10), || {
            let _ = client.send(b"ping");
            client.recv(&mut [0; 16]).is_ok_and(|length| length == 4)
        });
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(child) = &mut self.supervisor {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Workers outlive a supervisor that is killed. By their name, which a confined one keeps from nobody.
        let is_worker = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name == "nautilus-worker\n")
        };
        for pid in self.socket_pids().into_iter().filter(is_worker) {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        // What a test has mounted there would keep the folder. Elsewhere nothing is: an error means nothing.
        let _ = umount2(&self.run_dir(), MntFlags::MNT_DETACH);
        if std::thread::panicking()
            && let Ok(log) = fs::File::open(self.log())
        {
            // Bounded: a test's log may be /dev/full, which reads as zeros without end.
            let mut text = Vec::new();
            let _ = log.take(1 << 18).read_to_end(&mut text);
            eprintln!("--- supervisor's log\n{}", String::from_utf8_lossy(&text));
        }
        for namespace in [&self.server_ns, &self.client_ns].into_iter().filter(|n| !n.is_empty()) {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// Whether a process can still do anything.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
