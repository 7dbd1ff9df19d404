//! What a process of another user tries on a node's host: everything it can name. One line an attempt.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nautilus_dataplane::supervisor::sys::{recv_packet, send_packet};
use nautilus_shm::attach::{
    CLAIM_FILE, CacheRequest, Code, ExplainRequest, HostOrder, HostRequest, PACKET_BYTES_MAX,
    ReplyHeader, Request, Verb, cache_name, create_request, drain_request, exchange_request,
    kill_switch_request, probe_request, remove_request, swap_request,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::{Deserialize, Serialize};

/// What is tried: what came of it, or how it was refused.
type Attempt<'a> = Box<dyn Fn() -> Result<String, String> + 'a>;

/// What there is to try: found by root.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Targets {
    /// Folders, files and sockets of the node and of the control.
    pub paths: Vec<PathBuf>,
    /// Processes.
    pub pids: Vec<i32>,
    /// Addresses that something listens on.
    pub tcp: Vec<SocketAddr>,
    /// The same over UDP.
    pub udp: Vec<SocketAddr>,
    /// Sockets of the abstract namespace.
    pub names: Vec<String>,
    /// Mutations of the API: method and path.
    pub mutations: Vec<(String, String)>,
    /// Cache of the node.
    pub cache: String,
    /// Key that is not to be written.
    pub key: String,
}

const PATIENCE: Duration = Duration::from_millis(300);

/// Prints what came of an attempt. What got through begins with a word that the test looks for.
fn said(what: &str, target: &str, reached: Result<String, String>) {
    match reached {
        Ok(how) => println!("REACHED {what} {target}: {how}"),
        Err(why) => println!("refused {what} {target}: {why}"),
    }
}

fn open(path: &Path, flags: i32) -> Result<String, String> {
    let mut options = OpenOptions::new();
    // Neither made nor cut.
    options.write(true).read(flags & libc::O_RDWR != 0).custom_flags(libc::O_NONBLOCK);
    options.open(path).map(|_| "opened to be written".into()).map_err(|error| error.to_string())
}

/// Reading is enough to lock a file.
fn lock(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.try_lock().map(|()| "locked".into()).map_err(|error| error.to_string())
}

/// Tries everything.
pub fn try_all(targets: &Targets) {
    for path in &targets.paths {
        try_path(path, targets);
    }
    for pid in &targets.pids {
        try_process(*pid);
    }
    for address in &targets.tcp {
        try_tcp(*address, targets);
    }
    for address in &targets.udp {
        try_udp(*address, targets);
    }
    for name in &targets.names {
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        for kind in [SockType::SeqPacket, SockType::Stream, SockType::Datagram] {
            let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let connected = connect(fd.as_raw_fd(), &address).map_err(|e| e.to_string());
            // A cache's socket takes everybody, and does nothing for those it was not made for.
            let reached = connected.and_then(|()| match kind {
                SockType::Stream => try_to_store(UnixStream::from(fd), targets),
                _ => Ok("connected".into()),
            });
            said("abstract socket", name, reached);
        }
    }
    for folder in ["/dev/shm", "/sys/fs/bpf"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = |path: &Path| path.to_string_lossy().contains("nautilus");
        entries.map(|entry| entry.path()).filter(|path| ours(path)).for_each(|path| {
            said("file", &path.display().to_string(), open(&path, libc::O_RDWR));
        });
    }
    try_bpf();
}

fn try_path(path: &Path, targets: &Targets) {
    let name = path.display().to_string();
    let kind = match path.symlink_metadata() {
        Ok(found) => found.file_type(),
        // Then by every name that it could be.
        Err(error) => {
            said("path", &name, Err(error.to_string()));
            said("file", &name, open(path, libc::O_RDWR));
            return;
        }
    };
    if kind.is_dir() {
        let made = std::fs::write(path.join("stranger"), "x");
        said("folder", &name, made.map(|()| "a file was made".into()).map_err(|e| e.to_string()));
    } else if kind.is_socket() {
        try_packets(path, targets);
        match UnixStream::connect(path) {
            Ok(_) => try_http(path, targets),
            Err(error) => said("stream socket", &name, Err(error.to_string())),
        }
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"x", path));
        said("datagram socket", &name, sent.map(|_| "sent".into()).map_err(|e| e.to_string()));
    } else {
        for flags in [libc::O_WRONLY, libc::O_RDWR] {
            said("file", &name, open(path, flags));
        }
        if path.ends_with(CLAIM_FILE) {
            said("claim", &name, lock(path));
        }
        let gone = std::fs::rename(path, path.with_extension("stranger"));
        said("name", &name, gone.map(|()| "renamed".into()).map_err(|e| e.to_string()));
    }
}

/// Every verb of the attach protocol.
fn try_packets(path: &Path, targets: &Targets) {
    let name = path.display().to_string();
    let cache = cache_name(&targets.cache);
    let explain = ExplainRequest {
        interface: String::new(),
        queue: 0,
        to_us: false,
        frame: vec![0; 64].into(),
    };
    let section = "id = \"stranger\"\nport = 11999\nmax_memory_mb = 8\n";
    let order = HostOrder {
        tier: 0,
        kernel_bypass: true,
        cpu_isolation: true,
        numa_optimization: true,
        cpu_cores: 1,
        memory_gb: 1,
    };
    let requests: [(&str, Vec<u8>); 19] = [
        ("attach", Request { verb: Verb::Attach }.encode().into()),
        ("status", Request { verb: Verb::Status }.encode().into()),
        ("cache", CacheRequest { verb: Verb::Cache, name: cache }.encode().into()),
        ("hits", CacheRequest { verb: Verb::Hits, name: cache }.encode().into()),
        ("connect", CacheRequest { verb: Verb::Connect, name: cache }.encode().into()),
        ("park", Request { verb: Verb::Park }.encode().into()),
        ("drain", drain_request(1)),
        ("swap", swap_request("stranger")),
        ("exchange", exchange_request("stranger")),
        ("settle", Request { verb: Verb::Settle }.encode().into()),
        ("probe", probe_request(1)),
        ("explain", explain.encode()),
        ("create", create_request(section)),
        ("remove", remove_request(&cache)),
        ("claim", Request { verb: Verb::Claim }.encode().into()),
        ("host-check", order.encode().into()),
        ("host-restore", HostRequest::restore(true).encode().into()),
        ("halt", kill_switch_request(true, "stranger")),
        ("release", kill_switch_request(false, "stranger")),
    ];
    for (verb, request) in requests {
        said("packet socket", &format!("{name} {verb}"), exchange(path, &request));
    }
}

fn exchange(path: &Path, request: &[u8]) -> Result<String, String> {
    use std::os::fd::AsFd;
    let error = |error: &dyn std::fmt::Display| error.to_string();
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| error(&errno))?;
    let address = UnixAddr::new(path).map_err(|errno| error(&errno))?;
    connect(fd.as_raw_fd(), &address).map_err(|errno| error(&errno))?;
    send_packet(fd.as_fd(), request, &[]).map_err(|problem| error(&problem))?;
    let packet = recv_packet(fd.as_fd(), PACKET_BYTES_MAX).map_err(|problem| error(&problem))?;
    let (header, payload) = ReplyHeader::decode(&packet.bytes).map_err(|e| error(&e))?;
    let text = String::from_utf8_lossy(payload).into_owned();
    match header.code {
        Code::Refused if packet.fds.is_empty() => Err(text),
        // Whatever is not refused got through.
        code => Ok(format!("{code:?} {text}, {} descriptors", packet.fds.len())),
    }
}

/// Every mutation of the API, as whoever the kernel says we are.
fn try_http(path: &Path, targets: &Targets) {
    for (method, route) in &targets.mutations {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(http(method, route).as_bytes())?;
            let mut answer = [0; 256];
            let length = stream.read(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or("").into())
        };
        let name = format!("{} {method} {route}", path.display());
        said("API over its socket", &name, judged(ask().map_err(|error| error.to_string())));
    }
}

/// A request with a body, so that nothing but the right is missing.
pub fn http(method: &str, route: &str) -> String {
    format!(
        "{method} {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    )
}

fn judged(line: Result<String, String>) -> Result<String, String> {
    match line {
        Ok(line) if line.contains(" 401 ") || line.contains(" 403 ") => Err(line),
        other => other,
    }
}

fn try_process(pid: i32) {
    let attempts: [(&str, Attempt<'_>); 3] = [
        ("memory of", Box::new(move || open(Path::new(&format!("/proc/{pid}/mem")), libc::O_RDWR))),
        (
            "signal to",
            Box::new(move || {
                let sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
                sent.map(|()| "would be sent".into()).map_err(|errno| errno.to_string())
            }),
        ),
        (
            "trace of",
            Box::new(move || {
                let pid = nix::unistd::Pid::from_raw(pid);
                let seized = nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty());
                seized.map(|()| "traced".into()).map_err(|errno| errno.to_string())
            }),
        ),
    ];
    for (what, attempt) in attempts {
        said(what, &pid.to_string(), attempt());
    }
    let mut last = Ok(String::new());
    for number in 0..256 {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        last = open(&path, libc::O_RDWR);
        if last.is_ok() {
            break;
        }
    }
    said("256 descriptors of", &pid.to_string(), last);
}

fn try_to_store(mut stream: UnixStream, targets: &Targets) -> Result<String, String> {
    let mut ask = || -> std::io::Result<String> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("set {} 0 0 1\r\nx\r\n", targets.key).as_bytes())?;
        let mut answer = [0; 256];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    match ask() {
        Ok(text) if text.contains("STORED") => Ok(text),
        Ok(text) => Err(format!("answered {text:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn try_tcp(address: SocketAddr, targets: &Targets) {
    let set = format!("set {} 0 0 1\r\nx\r\n", targets.key);
    let requests = std::iter::once(set.into_bytes())
        .chain(targets.mutations.iter().map(|(method, route)| http(method, route).into_bytes()));
    for request in requests {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&request)?;
            let mut answer = [0; 256];
            let length = stream.read(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or("").into())
        };
        let first = String::from_utf8_lossy(&request).lines().next().unwrap_or("").to_owned();
        let reached = match ask() {
            Ok(line) if line.starts_with("STORED") || line.contains(" 20") => Ok(line),
            Ok(line) => Err(format!("answered {line:?}")),
            Err(error) => Err(error.to_string()),
        };
        said("TCP", &format!("{address} {first}"), reached);
    }
}

fn try_udp(address: SocketAddr, targets: &Targets) {
    let set = format!("set {} 0 0 1\r\nx\r\n", targets.key);
    let set = [&[0, 1, 0, 0, 0, 1, 0, 0][..], set.as_bytes()].concat();
    let ask = || -> std::io::Result<String> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&set, address)?;
        let mut answer = [0; 256];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let reached = match ask() {
        Ok(text) if text.contains("STORED") => Ok(text),
        Ok(text) => Err(format!("answered {text:?}")),
        Err(error) => Err(error.to_string()),
    };
    said("UDP", &address.to_string(), reached);
}

/// Maps and programs by their number, as `bpftool` finds them.
fn try_bpf() {
    /// `BPF_MAP_GET_FD_BY_ID` and its neighbours (include/uapi/linux/bpf.h).
    const BY_ID: [(&str, libc::c_long); 2] = [("BPF map", 14), ("BPF program", 13)];
    for (what, command) in BY_ID {
        let mut last = Ok(String::new());
        for number in 1..512u32 {
            let attributes = [number, 0, 0, 0];
            // SAFETY: the attributes outlive the call, which reads as many bytes of them as it is told.
            let result = unsafe {
                libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes))
            };
            last = match result {
                0.. => Ok(format!("number {number} opened")),
                _ => Err(std::io::Error::last_os_error().to_string()),
            };
            if last.is_ok() {
                break;
            }
        }
        said(what, "by number", last);
    }
}
