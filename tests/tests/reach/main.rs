//! What another user of a node's host, and the holder of a viewer's certificate, can write: nothing. Everything that was
//! tried is printed. Needs root.

mod stranger;

use std::collections::BTreeSet;
use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nautilus_control::roles::{Role, TABLE};
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::client::{ClientIdentity, Connection, Trust, config};
use nautilus_control::tls::identity::{Identity, Kind};
use nautilus_control::tls::pem;
use nautilus_shm::attach::{CLAIM_FILE, SUPERVISOR_SOCKET};
use nautilus_tests::lab::node_file::{CACHE_ID, CACHE_PORT};
use nautilus_tests::lab::{Folder, Lab, Node, RunId, Service, binary};
use nautilus_tests::memcached::Client;
use nautilus_tests::wait::wait_until;
use stranger::Targets;

const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(20);
/// Neither root, nor the workers', nor the reader's.
const STRANGER: u32 = 65_533;
const READER: u32 = 65_532;
const KEY: &str = "not:for:strangers";
const CONTROL: &str = "127.0.0.1:9478";

/// Mutations of the API, each with names in place of what a route leaves open.
fn mutations() -> Vec<(String, String)> {
    let looks = |method: &str| ["GET", "HEAD"].contains(&method);
    let own = ["/api/v1/edge/enrol", "/api/v1/edge/renew"];
    let rows = TABLE.iter().filter(|(method, path, _)| !looks(method) && !own.contains(path));
    let filled = rows.map(|(method, path, _)| {
        let parts = path.split('/').map(|part| if part.starts_with('{') { CACHE_ID } else { part });
        ((*method).to_owned(), parts.collect::<Vec<_>>().join("/"))
    });
    filled.collect()
}

/// A control with TLS, its own socket and a trail, in the node's namespace.
struct Site {
    authority: Authority,
    folder: PathBuf,
    control: Service,
}

impl Site {
    fn start(run: RunId, node: &Node, folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Authority::init(&folder.join("ca"), "lab").unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        write(&authority, (Role::Viewer, Kind::Control, "control"), &folder.join("control.pem"));
        let text = format!(
            "[control]\nlisten = \"{CONTROL}\"\nauthority = {:?}\nsocket = {:?}\n\
             [control.tls]\ncertificate = {pem:?}\nkey = \"file:{pem}\"\nca = {:?}\n\
             [control.audit]\ndir = {:?}\n[control.store]\nfile = {:?}\n[[node]]\nid = {:?}\n\
             run_dir = {:?}\n",
            path("ca"),
            path("control.sock"),
            path("ca/ca.pem"),
            path("audit"),
            path("store.redb"),
            node.member.name,
            node.run_dir,
            pem = path("control.pem"),
        );
        let file = folder.join("control.toml");
        std::fs::write(&file, text).unwrap();
        let words = vec!["--config".into(), file.into()];
        let log = folder.join("control.log");
        let namespace = Some(&node.member.namespace);
        let control = Service::start(run, namespace, binary("nautilus-control"), words, log);
        Self { authority, folder, control: control.unwrap() }
    }

    /// A control that is to deploy to the same node, from a store of its own: its exit code, and what it said.
    fn second(&self, inside: &nautilus_tests::lab::NetNs) -> (Option<i32>, String) {
        let own = |name: &str| self.folder.join(format!("second-{name}")).display().to_string();
        let text = std::fs::read_to_string(self.folder.join("control.toml")).unwrap();
        let text = text.replace(CONTROL, "127.0.0.1:0");
        let text = ["control.sock", "audit", "store.redb"].into_iter().fold(text, |text, name| {
            let first = format!("{:?}", self.folder.join(name));
            text.replace(&first, &format!("{:?}", own(name)))
        });
        let file = own("control.toml");
        std::fs::write(&file, text).unwrap();
        // One that starts would never end.
        let mut command = Command::new("timeout");
        command.arg("20").arg(binary("nautilus-control"));
        command.args(["--config", &file]).stdin(Stdio::null());
        let output = inside.run(|| command.output()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn certificate(&self, role: Role, name: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.pem"));
        write(&self.authority, (role, Kind::Person, name), &path);
        path
    }

    fn connect(&self, certificate: &Path) -> Result<Connection, String> {
        let identity = Arc::new(ClientIdentity::open(certificate).unwrap());
        let ca = self.folder.join("ca/ca.pem");
        let setting = config(Trust::Authority(&ca), Some(identity)).unwrap();
        Connection::open(CONTROL, setting).map_err(|error| error.to_string())
    }
}

fn write(authority: &Authority, (role, kind, name): (Role, Kind, &str), path: &Path) {
    let names = match kind {
        Kind::Control => vec!["127.0.0.1".to_owned()],
        _ => Vec::new(),
    };
    let identity = Identity { site: authority.site().into(), role, kind, name: name.into() };
    let (key, request) = request().unwrap();
    let chain = authority.issue(&identity, &names, &request, DAY).unwrap();
    pem::replace(path, 0o600, format!("{}{chain}", *key).as_bytes()).unwrap();
}

/// Everything below a folder, the folder too.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

/// Local addresses in one of the kernel's tables of this namespace; `state` as it stands there.
fn addresses(table: &str, state: &str) -> Vec<SocketAddr> {
    let text =
        std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.get(3) == Some(&state));
    rows.filter_map(|row| address(row.get(1)?)).collect()
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words =
        (0..ip.len()).step_by(8).map(|at| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok());
    let words: Vec<u32> = words.collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

/// Everything that a stranger on the node's host could try.
fn targets(node: &Node, site: &Site) -> Targets {
    let mut paths = Vec::new();
    below(&node.run_dir, &mut paths);
    below(&site.folder, &mut paths);
    paths.push(node.file.clone());
    let own = node.member.address.both();
    let (tcp, udp, names) = node.member.namespace.run(|| {
        let listening = ["tcp", "tcp6"].map(|table| addresses(table, "0A")).concat();
        let mut udp = ["udp", "udp6"].map(|table| addresses(table, "07")).concat();
        // XDP serves these ports without a socket that the kernel lists.
        udp.push(SocketAddr::new(own[0], CACHE_PORT));
        let text = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let names = text.lines().filter_map(|line| Some(line.split_once(" @")?.1.to_owned()));
        (listening, udp, names.collect::<Vec<_>>())
    });
    // What listens on every address is tried at two of them.
    let everywhere = |list: Vec<SocketAddr>| -> Vec<SocketAddr> {
        let expand = |at: SocketAddr| match at.ip().is_unspecified() {
            true => vec![
                SocketAddr::new(own[0], at.port()),
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port()),
            ],
            false => vec![at],
        };
        let all: BTreeSet<SocketAddr> = list.into_iter().flat_map(expand).collect();
        all.into_iter().collect()
    };
    let pids = node.member.namespace.processes();
    let cache = CACHE_ID.to_owned();
    let (tcp, udp) = (everywhere(tcp), everywhere(udp));
    Targets { paths, pids, tcp, udp, names, mutations: mutations(), cache, key: KEY.into() }
}

/// What must be the same afterwards: names, sizes and times, but of what grows by itself.
fn fingerprint(site: &Site, node: &Node) -> BTreeSet<String> {
    let mut paths = Vec::new();
    below(&site.folder, &mut paths);
    below(&node.run_dir, &mut paths);
    let grows = |path: &Path| {
        let name = path.display().to_string();
        name.ends_with(".log") || path.is_dir()
    };
    let still = paths.into_iter().filter(|path| !grows(path));
    let one = |path: PathBuf| {
        let found = path.symlink_metadata().unwrap();
        format!("{} {} {} {}", path.display(), found.len(), found.mtime_nsec(), found.mode())
    };
    still.map(one).collect()
}

/// Only as the process that the test below starts.
#[test]
#[ignore = "privileged: is started by the test below, as another user"]
fn as_a_stranger() {
    let Some(file) = std::env::var_os("NAUTILUS_REACH_TARGETS") else { return };
    assert!(!nix::unistd::geteuid().is_root());
    let text = std::fs::read_to_string(file).unwrap();
    stranger::try_all(&serde_json::from_str(&text).unwrap());
    println!("TRIED ALL");
}

#[test]
#[ignore = "privileged: makes network namespaces, a node and a control"]
fn nobody_else_can_write_anything() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED nobody_else_can_write_anything: needs root");
        return;
    }
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    let site_folder = folder.join("site");
    let lab = Lab::start(folder, run, 1, |_, _, file| {
        file.sources = vec![
            format!("{}/32", nautilus_tests::lab::CLIENT.v4()),
            format!("{}/128", nautilus_tests::lab::CLIENT.both()[1]),
        ];
        file.cache_readers = vec![READER.to_string()];
        Ok(())
    })
    .unwrap();
    let node = &lab.nodes()[0];
    let server = SocketAddr::new(node.member.address.v4().into(), CACHE_PORT);
    let client = || Client::connect(server, Duration::from_secs(2)).unwrap();
    lab.client().namespace.run(|| client().set(KEY, 0, b"ours").unwrap());
    let site = Site::start(run, node, site_folder);
    let (viewer, admin) =
        (site.certificate(Role::Viewer, "stolen"), site.certificate(Role::Admin, "admin"));
    let inside = &node.member.namespace;
    let answers = || {
        let asked = |mut own: Connection| own.ask("GET", "/livez", b"").ok();
        inside.run(|| site.connect(&admin).ok().and_then(asked)).is_some()
    };
    wait_until("the control answers", SOON, answers).unwrap();

    // The control has claimed the node, so the claim's file is among what is tried.
    let claim = node.run_dir.join(CLAIM_FILE);
    assert_eq!(claim.metadata().unwrap().mode() & 0o777, 0o600);
    let targets = targets(node, &site);
    let before = fingerprint(&site, node);
    let said = try_as(STRANGER, inside, &targets);
    print!("{said}");
    assert!(said.contains("TRIED ALL"), "it did not come to its end");

    // Whoever stole a certificate may look, and nothing else.
    let mut through = Vec::new();
    for (method, path) in mutations() {
        let (status, _) =
            inside.run(|| site.connect(&viewer).unwrap().ask(&method, &path, b"{}")).unwrap();
        println!("viewer's certificate {method} {path}: status {status}");
        if ![401, 403].contains(&status) {
            through.push(format!("{method} {path}: {status}"));
        }
    }
    let status = inside.run(|| site.connect(&viewer).unwrap().ask("GET", "/readyz", b""));
    assert!(status.is_ok_and(|(status, _)| status == 200), "it is a good certificate otherwise");

    let reached: Vec<&str> = said.lines().filter(|line| line.starts_with("REACHED")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert!(through.is_empty(), "{through:#?}");
    let refused = said.lines().filter(|line| line.starts_with("refused")).count();
    assert!(refused > 150, "only {refused} attempts");
    // That an attempt which gets through is seen: the cache's reader gets what is his, and no more.
    let said = try_as(READER, inside, &targets);
    let reached: Vec<&str> = said.lines().filter(|line| line.starts_with("REACHED")).collect();
    println!("the reader: {reached:#?}");
    let own = ["supervisor.sock cache: ", "supervisor.sock hits: "];
    assert_eq!(reached.len(), own.len(), "{reached:#?}");
    assert!(own.iter().zip(&reached).all(|(own, line)| line.contains(own)), "{reached:#?}");
    assert_eq!(fingerprint(&site, node), before, "files");
    // Nor can anybody keep the control out of its node by being there first.
    site.control.kill_and_hold();
    let socket = node.run_dir.join(SUPERVISOR_SOCKET);
    let first = Targets { paths: vec![claim.clone(), socket], ..Targets::default() };
    let said = try_as(STRANGER, inside, &first);
    print!("{said}");
    let of_claim = format!("refused claim {}", claim.display());
    assert!(said.lines().any(|line| line.starts_with(&of_claim)), "{said}");
    assert!(said.contains("supervisor.sock claim: "), "{said}");
    assert!(!said.contains("REACHED"), "{said}");
    site.control.release();
    wait_until("the control answers again", SOON, answers).unwrap();
    let (code, said) = site.second(inside);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another control on this host deploys to this node"), "{said}");
    lab.client().namespace.run(|| {
        assert_eq!(client().get(KEY).unwrap().unwrap().bytes, b"ours");
    });
    let status = nautilus_tests::lab::status(&node.run_dir).unwrap();
    assert!(!status.contains("kill switch") && !status.contains("stranger"), "{status}");
}

/// Runs the attempts in a process of this user in the node's namespace; everything it printed.
fn try_as(user: u32, inside: &nautilus_tests::lab::NetNs, targets: &Targets) -> String {
    // A program that this user can execute, wherever this one lies.
    let folder = tempfile::Builder::new().prefix("reach").tempdir().unwrap();
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder.path(), open(0o755)).unwrap();
    let (program, list) = (folder.path().join("reach"), folder.path().join("targets.json"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, open(0o755)).unwrap();
    std::fs::write(&list, serde_json::to_string(targets).unwrap()).unwrap();
    std::fs::set_permissions(&list, open(0o644)).unwrap();
    let mut command = Command::new(&program);
    command.args(["--exact", "as_a_stranger", "--include-ignored", "--nocapture"]);
    command.env("NAUTILUS_REACH_TARGETS", &list).current_dir("/");
    command.uid(user).gid(user).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = inside.run(|| command.spawn()).unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let said: String = lines.map(|line| line.unwrap() + "\n").collect();
    child.wait().unwrap();
    said
}
