//! memcached clients nobody here wrote, turned on a server.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::lab::{Folder, NetNs};
use crate::memcached::Client;
use crate::repository::long_shows;

/// Longest any of them may take.
const CLIENT_SECONDS_MAX: &str = "180";

/// Operations of one run of `memcaslap`, a fifth of whose values are verified; in the long form ten
/// times as many.
const SLAP_OPERATIONS: u64 = 20_000;

/// ASCII tests of `memccapable`.
const CAPABLE_TESTS: usize = 27;

/// Bytes of the file that `memccp` copies: one datagram with its command line.
const FILE_BYTES: usize = 900;

/// Runs every client that is installed from `client` against a server at `address`, and reads back
/// what they stored; one `SKIPPED` line names each that is missing. Panics where one disagrees.
pub fn run_all(test: &str, client: &NetNs, folder: &Folder, address: Ipv4Addr, port: u16) {
    let server = format!("{address}:{port}");
    let mut own = client
        .run(|| Client::connect((address, port).into(), Duration::from_secs(2)))
        .expect("a socket");
    if let Some(program) = installed(test, "memccapable") {
        // It flushes the server.
        let words = format!("-h {address} -p {port} -a -t 10");
        let mut run = inside(client, &program).arg_words(&words);
        let ended = run.0.output().expect("memccapable starts");
        let said = String::from_utf8_lossy(&ended.stdout);
        let passed = said.lines().filter(|line| line.ends_with("[pass]")).count();
        assert!(ended.status.success() && passed == CAPABLE_TESTS, "memccapable: {said}");
    }
    if let Some(program) = installed(test, "memcslap") {
        let words =
            format!("--servers={server} --udp --test=set --concurrency=2 --execute-number=500");
        inside(client, &program).arg_words(&words).run();
    }
    if let Some(program) = installed(test, "memcaslap") {
        let operations = SLAP_OPERATIONS * if long_shows() { 10 } else { 1 };
        let words = format!("-s {server} -U -T 1 -c 8 -x {operations} -v 0.2");
        let mut run = inside(client, &program).arg_words(&words);
        let said = run.0.output().expect("memcaslap starts");
        let said = String::from_utf8_lossy(&said.stdout);
        let told = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        assert_eq!(
            told("cmd_get:").zip(told("cmd_set:")).map(|(get, set)| get + set),
            Some(operations),
            "memcaslap: {said}"
        );
        for wrong in [
            "get_misses:",
            "verify_misses:",
            "verify_failed:",
            "packet_disorder:",
            "packet_drop:",
            "udp_timeout:",
        ] {
            assert_eq!(told(wrong), Some(0), "memcaslap: {said}");
        }
    }
    if let Some(program) = installed(test, "memccp") {
        let bytes: Vec<u8> = (0..FILE_BYTES).map(|index| b'a' + (index % 26) as u8).collect();
        let file = folder.join("copied");
        std::fs::write(&file, &bytes).expect("the lab's folder is writable");
        let words = format!("--servers={server} --udp --set {}", file.display());
        inside(client, &program).arg_words(&words).run();
        let found = own.get("copied").expect("an answer").expect("the copied file");
        assert_eq!(found.bytes, bytes, "memccp");
    }
    match python_client() {
        Err(reason) => println!("SKIPPED {test}, python-memcached-udp: {reason}"),
        Ok((python, library)) => {
            let script = format!(
                "import memcached_udp as m\nc = m.Client([({:?}, {port})], response_timeout=5)\n\
                 c.set('python', 'snake')\nassert c.get('python') == 'snake'\n\
                 assert c.get('absent') is None\n\
                 for i in range(20): c.set('python%d' % i, 'x' * i * 40)\n\
                 for i in range(20): assert c.get('python%d' % i) == 'x' * i * 40, i\n",
                address.to_string()
            );
            let mut run = inside(client, &python);
            run.0.env("PYTHONPATH", &library).env("PYTHONWARNINGS", "ignore").args(["-c", &script]);
            run.run();
            let found = own.get("python19").expect("an answer").expect("what python stored");
            assert_eq!(found.bytes, vec![b'x'; 760]);
        }
    }
}

struct Inside(Command);

fn inside(namespace: &NetNs, program: &Path) -> Inside {
    let mut command = namespace.command("timeout");
    command.arg(CLIENT_SECONDS_MAX).arg(program);
    Inside(command)
}

impl Inside {
    fn arg_words(mut self, words: &str) -> Self {
        self.0.args(words.split_whitespace());
        self
    }

    fn run(mut self) {
        if let Err(error) = command::run(&mut self.0) {
            panic!("{error}");
        }
    }
}

fn installed(test: &str, program: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED {test}, {program}: not installed (Debian: libmemcached-tools)");
    None
}

/// A Python and the folder of python-memcached-udp, which `scripts/install-deps.sh peers` fetches.
fn python_client() -> Result<(PathBuf, PathBuf), String> {
    let Some(peers) = std::env::var_os("NAUTILUS_PEERS") else {
        return Err("NAUTILUS_PEERS names no folder (scripts/install-deps.sh peers)".into());
    };
    let library = Path::new(&peers).join("python-memcached-udp");
    if !library.join("memcached_udp.py").exists() {
        return Err(format!("not in {}", library.display()));
    }
    let python = PathBuf::from("/usr/bin/python3");
    let import = command::run(
        Command::new(&python).env("PYTHONPATH", &library).args(["-c", "import memcached_udp"]),
    );
    import.map(|_| (python, library)).map_err(|error| error.to_string())
}
