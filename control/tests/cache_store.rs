//! Caches that are wanted, on a store that has no room: at every step at which it may run out of it, and with the
//! marks that a control which died in between has left. The node is a region of this process, and says yes or no.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/site.rs"]
mod site;
#[allow(dead_code, reason = "this node answers for itself")]
mod support;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ask::{Answer, Ask};
use nautilus_control::cache::CacheConfiguration;
use nautilus_control::store::embedded::{Embedded, Options};
use nautilus_control::store::{Store, Transaction};
use nautilus_shm::attach::{
    Ask as Asked, Code, PACKET_BYTES_MAX, ReplyHeader, SUPERVISOR_SOCKET, cache_name,
};
use nautilus_shm::cache_cell::{CacheIdentity, CacheState};
use nautilus_shm::control_region::ControlRegion;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen,
    recv, sendmsg, socket,
};
use serde_json::{Value, json};
use site::{Site, until};
use support::{keep_beating, region};

const CACHES: &str = "/api/v1/edge/cache";
/// Where the node puts the cache that is asked for.
const PLACE: usize = 5;

/// A supervisor of this process.
struct Node {
    region: Arc<ControlRegion>,
    /// Creations and removals that were asked for.
    asked: Mutex<Vec<&'static str>>,
    refuses: AtomicBool,
    /// The process whose disk is full from the next creation or removal on; 0: nobody's.
    fills: AtomicU32,
}

impl Node {
    /// Answers in `run_dir` until the test process ends.
    fn start(run_dir: &Path) -> Arc<Self> {
        let region = region("n-0");
        keep_beating(&region);
        let (asked, refuses, fills) = Default::default();
        let node = Arc::new(Self { region, asked, refuses, fills });
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        let address = UnixAddr::new(&run_dir.join(SUPERVISOR_SOCKET)).unwrap();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        let (listener, own) = (UnixListener::from(listener), node.clone());
        std::thread::spawn(move || {
            loop {
                let (connection, _) = listener.accept().unwrap();
                own.answer(connection.as_raw_fd());
            }
        });
        node
    }

    fn answer(&self, connection: i32) {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let length = recv(connection, &mut packet, MsgFlags::empty()).unwrap_or(0);
        let control: std::fs::File = self.region.reopen_read_only().unwrap().into();
        let mut fds = Vec::new();
        let (code, text) = match Asked::decode(&packet[..length]) {
            Ok(Asked::Attach) => {
                fds.push(control.as_raw_fd());
                (Code::Ok, "")
            }
            Ok(Asked::Create(section)) => {
                assert!(section.contains("id = \"fresh\""), "{section}");
                self.change("create", CacheState::Serving)
            }
            Ok(Asked::Remove(name)) if name == cache_name("fresh") => {
                match self.region.cache(PLACE).own_identity().state {
                    CacheState::Serving => self.change("remove", CacheState::None),
                    _ => (Code::NoCache, "this node has no such cache"),
                }
            }
            _ => (Code::BadRequest, ""),
        };
        let header = ReplyHeader {
            code,
            generation: 1,
            pid: std::process::id(),
            fds: fds.len() as u32,
            payload_bytes: text.len() as u32,
        };
        let packet = [&header.encode()[..], text.as_bytes()].concat();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let slices = [std::io::IoSlice::new(&packet)];
        let _ = sendmsg::<UnixAddr>(connection, &slices, rights, MsgFlags::MSG_NOSIGNAL, None);
    }

    fn change(&self, what: &'static str, state: CacheState) -> (Code, &'static str) {
        self.asked.lock().unwrap().push(what);
        let pid = self.fills.swap(0, Ordering::Relaxed);
        if pid != 0 {
            limit(pid, "32768:");
        }
        if self.refuses.load(Ordering::Relaxed) {
            return (Code::Impossible, "not today");
        }
        let identity = match state {
            CacheState::Serving => CacheIdentity {
                id: "fresh".into(),
                generation: 9,
                state,
                port: 11_300,
                max_memory_mb: 16,
                max_value_bytes: 1 << 20,
                has_hot_set: false,
            },
            _ => CacheIdentity { generation: 9, ..CacheIdentity::default() },
        };
        self.region.cache(PLACE).set_identity(&identity);
        (Code::Ok, "done")
    }

    /// What was asked for since the last look.
    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Bounds the files of a process: a store that is longer has no room for anything more.
fn limit(pid: u32, bytes: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={bytes}")])
        .status();
    assert!(status.unwrap().success());
}

struct Rig {
    site: Site,
    node: Arc<Node>,
    socket: Ask,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A control over the node; before it begins `prepare` is given the store.
    fn start(prepare: impl FnOnce(&dyn Store)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path());
        let at = folder.path().display();
        let store = folder.path().join("store.redb");
        prepare(&Embedded::open(&store, Options::default()).unwrap());
        let mut site = Site::start(&format!(
            "[control.store]\nfile = \"{at}/store.redb\"\n[[node]]\nid = \"n-0\"\nrun_dir = \"{at}\"\n"
        ));
        // A limit of file size is an error of the write, not the end.
        site.start_again(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        let socket = Ask::of(&site);
        let rig = Self { site, node, socket, folder };
        until("the node is attached", || {
            let status = rig.socket.get("/api/v1/edge/nodes/status").1;
            let nodes = status["nodes"].as_array()?;
            let is_it =
                |node: &&Value| node["node_id"] == "n-0" && node["attachment"] == "attached";
            nodes.iter().find(is_it).map(drop)
        });
        rig
    }

    fn full(&self, is_full: bool) {
        limit(self.site.pid(), if is_full { "32768:" } else { "unlimited:" });
    }

    fn create(&self) -> Answer {
        let body = wanted().to_string();
        self.socket.whole("POST", &format!("{CACHES}/create"), &[], body.as_bytes())
    }

    fn delete(&self) -> Answer {
        self.socket.whole("DELETE", &format!("{CACHES}/fresh"), &[], b"")
    }

    fn show(&self) -> (u16, Value) {
        self.socket.get(&format!("{CACHES}/fresh"))
    }

    /// What the store says when nobody has it open any more.
    fn stored(mut self) -> usize {
        self.site.kill();
        let store = self.folder.path().join("store.redb");
        let store = Embedded::open(&store, Options::default()).unwrap();
        store.list("cache/wanted/").unwrap().entries.len()
    }
}

fn wanted() -> Value {
    json!({ "cache_id": "fresh", "node_id": "n-0", "port": 11_300, "max_memory_mb": 16 })
}

/// A wish as the store has it.
fn wish(is_removing: bool) -> Transaction {
    let nodes = [("n-0".to_owned(), None)];
    let configuration = CacheConfiguration::from_json(&wanted(), &nodes).unwrap();
    let value = json!({ "configuration": configuration, "is_removing": is_removing });
    Transaction::new().put("cache/wanted/fresh", value.to_string())
}

fn refused(answer: &Answer, status: u16, kind: &str) {
    let document = answer.json();
    let found = document["type"].as_str().unwrap_or_default();
    assert_eq!(
        (answer.status, found.trim_start_matches("urn:nautilus:problem:")),
        (status, kind),
        "{document}"
    );
}

#[test]
fn without_room_no_node_is_asked_and_nothing_is_wanted() {
    let rig = Rig::start(|_| ());
    rig.full(true);
    let answer = rig.create();
    refused(&answer, 503, "store");
    assert!(answer.text().contains("no space left"), "{}", answer.text());
    assert_eq!((rig.show().0, rig.node.asked()), (404, vec![]));
    rig.full(false);
    assert_eq!(rig.create().status, 201, "without a restart");

    rig.full(true);
    refused(&rig.delete(), 503, "store");
    let (status, shown) = rig.show();
    assert_eq!(
        (status, &shown["state"], rig.node.asked()),
        (200, &json!("serving"), vec!["create"])
    );
    rig.full(false);
    assert_eq!((rig.delete().status, rig.show().0, rig.node.asked()), (204, 404, vec!["remove"]));
    assert_eq!(rig.stored(), 0);
}

#[test]
fn a_removal_that_is_done_and_cannot_be_written_down_is_gone_on_with() {
    let rig = Rig::start(|_| ());
    assert_eq!(rig.create().status, 201);
    rig.node.fills.store(rig.site.pid(), Ordering::Relaxed);
    let answer = rig.delete();
    assert_eq!(answer.status, 202, "it is gone, and nothing says otherwise: {}", answer.text());
    let (_, shown) = rig.show();
    assert_eq!(shown["state"], "removing", "{shown}");
    rig.full(false);
    until("nothing is wanted any more", || (rig.show().0 == 404).then_some(()));
    assert_eq!(rig.node.asked(), ["create", "remove"]);
    assert_eq!(rig.stored(), 0);
}

#[test]
fn what_a_node_refuses_is_not_wanted_on_whatever_the_disk() {
    let rig = Rig::start(|_| ());
    rig.node.refuses.store(true, Ordering::Relaxed);
    refused(&rig.create(), 409, "node-refused");
    assert_eq!(rig.show().0, 404);
    rig.node.fills.store(rig.site.pid(), Ordering::Relaxed);
    let answer = rig.create();
    refused(&answer, 500, "outcome-unknown");
    assert!(answer.text().contains("not today"), "{}", answer.text());
    assert!(answer.text().contains("no space left"), "{}", answer.text());
    // A node that would take it now is not asked.
    rig.node.refuses.store(false, Ordering::Relaxed);
    refused(&rig.create(), 503, "store");
    rig.full(false);
    until("nothing is wanted any more", || (rig.show().0 == 404).then_some(()));
    assert_eq!(rig.node.asked(), ["create", "create"]);

    // The same of a removal: what was there stays wanted.
    assert_eq!(rig.create().status, 201);
    rig.node.refuses.store(true, Ordering::Relaxed);
    refused(&rig.delete(), 409, "node-refused");
    rig.node.fills.store(rig.site.pid(), Ordering::Relaxed);
    refused(&rig.delete(), 500, "outcome-unknown");
    rig.node.refuses.store(false, Ordering::Relaxed);
    rig.full(false);
    until("it stays", || (rig.show().1["state"] == "serving").then_some(()));
    assert_eq!(rig.node.asked(), ["create", "remove", "remove"]);
    assert_eq!(rig.stored(), 1);
}

#[test]
fn what_a_control_that_died_has_begun_the_next_one_ends() {
    let rig = Rig::start(|store| {
        store.commit(&wish(false)).unwrap();
    });
    until("it is made", || (rig.show().1["state"] == "serving").then_some(()));
    assert_eq!(rig.stored(), 1);
    let rig = Rig::start(|store| {
        store.commit(&wish(true)).unwrap();
    });
    until("nothing is wanted any more", || (rig.show().0 == 404).then_some(()));
    assert_eq!(rig.stored(), 0);
}
