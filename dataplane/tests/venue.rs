//! The venue program as a receiver meets it: multicast with losses, lost messages from the request server,
//! a snapshot over TCP while the day goes on; what is known at the end is what the venue had.

#[path = "support/supervised.rs"]
mod supervised;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::glimpse::{SnapshotItem, SnapshotReader};
use nautilus_dataplane::feed::itch::{Message, Side};
use nautilus_dataplane::feed::moldudp64::{Kind, MessageRequest, Packet, Session};
use nautilus_dataplane::feed::soupbintcp::packet::ANY_SESSION;
use nautilus_dataplane::feed::soupbintcp::{
    ClientEvent, ClientState, Credentials, RejectReason, SoupClient,
};
use nautilus_dataplane::replay::random::Random;
use nautilus_dataplane::venue::engine::book::Level;
use nautilus_dataplane::venue::engine::stock_text;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use supervised::{Supervised, ip, privileged, wait_until};

const SESSION: Session = Session(*b"     VENUE");
const SYMBOLS: u16 = 12;
const MESSAGES: u64 = 30_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Where everything is.
#[derive(Clone)]
struct Site {
    own: IpAddr,
    /// Index of the interface, for groups of IPv6.
    interface: u32,
    lines: [SocketAddr; 2],
    requests: SocketAddr,
    snapshots: SocketAddr,
}

impl Site {
    /// Ports nobody has at this time.
    fn new(own: IpAddr, interface: u32, groups: [&str; 2]) -> Self {
        let free = || UdpSocket::bind((own, 0)).unwrap().local_addr().unwrap();
        let snapshots = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
        let lines = groups.map(|group| SocketAddr::new(group.parse().unwrap(), free().port()));
        Self { own, interface, lines, requests: free(), snapshots }
    }

    /// A socket that has joined a line.
    fn join(&self, line: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind(line).unwrap();
        match (line.ip(), self.own) {
            (IpAddr::V4(group), IpAddr::V4(own)) => socket.join_multicast_v4(&group, &own),
            (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, self.interface),
            (IpAddr::V4(_), IpAddr::V6(_)) => unreachable!("a site has one version of IP"),
        }
        .unwrap();
        // What the kernel allows without privileges is enough for a quarter of a second.
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket
    }
}

/// The running program and the files it was given.
struct Venue {
    child: Option<Child>,
    folder: tempfile::TempDir,
}

impl Venue {
    fn start(site: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "secret\n").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nautilus-venue"));
        let (messages, symbols) = (MESSAGES.to_string(), SYMBOLS.to_string());
        command.args(["--seed", "11", "--messages", &messages, "--symbols", &symbols]);
        command.args(["--rate", "20000", "--session", "VENUE", "--user", "user"]);
        for line in site.lines {
            command.args(["--line", &line.to_string()]);
            command.args(["--interface-address", &site.own.to_string()]);
        }
        command.args(["--request", &site.requests.to_string()]);
        command.args(["--snapshot", &site.snapshots.to_string(), "--password-file"]);
        command.arg(folder.path().join("password")).arg("--write-books");
        command.arg(folder.path().join("books"));
        command.args(["--begin-after-ms", "300", "--linger-ms", "60000"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child: Some(child), folder }
    }

    fn books_file(&self) -> PathBuf {
        self.folder.path().join("books")
    }

    /// Waits for its end: the line it printed, and the books it wrote.
    fn end(mut self) -> (String, String) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let books = std::fs::read_to_string(self.books_file()).unwrap();
        (String::from_utf8(output.stdout).unwrap(), books)
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What one line brought, less what was thrown away.
#[derive(Default)]
struct Line {
    messages: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// Number of the next message, once the end was announced.
    end: Mutex<Option<u64>>,
    thrown_away: Mutex<u64>,
}

impl Line {
    fn highest(&self) -> u64 {
        self.messages.lock().unwrap().last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    fn take(&self, packet: &Packet<'_>) {
        assert_eq!(packet.session, SESSION);
        packet.check().unwrap();
        let mut messages = self.messages.lock().unwrap();
        for (sequence, message) in (packet.sequence..).zip(packet.messages()) {
            let message = message.unwrap().to_vec();
            let known = messages.entry(sequence).or_insert_with(|| message.clone());
            assert_eq!(*known, message, "message {sequence} has two contents");
        }
    }
}

/// Receives a line until the end of its session, and throws one packet of `one_in` away.
fn receive<'scope>(
    scope: &'scope Scope<'scope, '_>,
    socket: UdpSocket,
    line: &'scope Line,
    one_in: u32,
) -> ScopedJoinHandle<'scope, ()> {
    scope.spawn(move || {
        let (mut bytes, mut random) = ([0; 2_048], Random::new(u64::from(one_in)));
        let started = Instant::now();
        while line.end.lock().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "no end of session");
            let Ok(length) = socket.recv(&mut bytes) else { continue };
            assert!(length <= 1_500 - 28);
            let packet = Packet::parse(&bytes[..length]).unwrap();
            match packet.kind {
                Kind::EndOfSession => *line.end.lock().unwrap() = Some(packet.sequence),
                Kind::Messages(_) if random.below(one_in) == 0 => {
                    *line.thrown_away.lock().unwrap() += 1;
                }
                Kind::Messages(_) | Kind::Heartbeat => line.take(&packet),
            }
        }
    })
}

/// Asks for everything that is missing from `first` to the end, until it is there. Returns how many
/// requests were sent.
fn get_missing(site: &Site, line: &Line, first: u64) -> u64 {
    let socket = UdpSocket::bind((site.own, 0)).unwrap();
    socket.connect(site.requests).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let end = line.end.lock().unwrap().unwrap();
    let (mut asked, mut bytes) = (0, [0; 2_048]);
    loop {
        let missing = {
            let messages = line.messages.lock().unwrap();
            let is_missing = |sequence: &u64| !messages.contains_key(sequence);
            let Some(from) = (first..end).find(is_missing) else { return asked };
            MessageRequest {
                session: SESSION,
                sequence: from,
                count: (from..end).take_while(is_missing).count().min(60_000) as u16,
            }
        };
        asked += 1;
        assert!(asked < 20_000, "the request server does not answer");
        socket.send(&missing.encode()).unwrap();
        let Ok(length) = socket.recv(&mut bytes) else { continue };
        let packet = Packet::parse(&bytes[..length]).unwrap();
        assert_eq!(packet.sequence, missing.sequence);
        assert!((1..=missing.count).contains(&packet.message_count()));
        line.take(&packet);
    }
}

/// A refused request brings no answer.
fn is_refused(site: &Site, request: &[u8]) {
    let socket = UdpSocket::bind((site.own, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.send_to(request, site.requests).unwrap();
    assert!(socket.recv(&mut [0; 2_048]).is_err(), "{request:?} was answered");
}

fn books() -> Books {
    Books::new(BookLimits { orders_max: 1 << 14, levels_max: 1 << 14, hash_seed: 3 })
}

fn apply(books: &mut Books, bytes: &[u8]) {
    let message = Message::decode(bytes).unwrap();
    assert_eq!(books.apply(&message).1, None, "{message:?}");
}

/// The books in the words of the venue.
fn text(books: &Books) -> String {
    let mut out = String::new();
    for locate in 1..=SYMBOLS {
        let [bids, offers] = [Side::Buy, Side::Sell].map(|side| {
            books.levels(locate, side).map(|level| Level {
                price: level.price,
                orders: level.orders,
                shares: level.shares,
            })
        });
        stock_text(&mut out, books.symbol(locate).unwrap(), bids, offers);
    }
    out
}

/// A snapshot, read `piece` bytes at a time: the books, and the first message to apply to them.
fn snapshot(site: &Site, piece: usize) -> (Books, u64) {
    let mut stream = TcpStream::connect(site.snapshots).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let credentials = Credentials::new("USER", "secret").unwrap();
    let mut client = SoupClient::new(credentials, SESSION, 1);
    let (mut books, mut reader, mut next) = (books(), SnapshotReader::new(), None);
    let mut out = Vec::new();
    client.start(&mut out);
    // The server may read in pieces as well.
    for byte in &out {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut bytes = vec![0; piece];
    while !client.state().is_over() {
        let length = stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "closed in the middle: {:?}", client.state());
        client.receive(&bytes[..length], 0, |event| match event {
            ClientEvent::LoggedIn { session, sequence } => {
                assert_eq!((session, sequence), (SESSION, 1));
            }
            ClientEvent::Message { bytes, .. } => match reader.read(bytes).unwrap() {
                SnapshotItem::Message(bytes) => apply(&mut books, bytes),
                SnapshotItem::End { next_sequence } => next = Some(next_sequence),
            },
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(client.state(), ClientState::Ended);
    (books, next.expect("an end of the snapshot"))
}

/// What a login is answered with.
fn login(site: &Site, user: &str, password: &str, session: Session, sequence: u64) -> ClientState {
    let mut stream = TcpStream::connect(site.snapshots).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let credentials = Credentials::new(user, password).unwrap();
    let mut client = SoupClient::new(credentials, session, sequence);
    let (mut out, mut bytes) = (Vec::new(), [0; 4_096]);
    client.start(&mut out);
    stream.write_all(&out).unwrap();
    let length = stream.read(&mut bytes).unwrap();
    client.receive(&bytes[..length], 0, |_| {})
}

/// A number of the program's line.
fn count(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{line}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Two receivers of one day: one from its start, who loses one packet of ten, and one who comes in its
/// middle with a snapshot and loses one of five.
fn scenario(site: &Site) {
    let sockets = site.lines.map(|line| site.join(line));
    let venue = Venue::start(site);
    let lines: [Line; 2] = Default::default();
    let is_late = AtomicBool::new(false);
    let (late, next_sequence, early_requests, late_requests) = std::thread::scope(|scope| {
        let receivers = sockets.into_iter().zip(&lines).zip([10, 5]);
        let receivers: Vec<_> = receivers
            .map(|((socket, line), one_in)| receive(scope, socket, line, one_in))
            .collect();
        wait_until("a third of the day", PATIENCE, || {
            lines[1].highest() > MESSAGES / 3 || lines[1].end.lock().unwrap().is_some()
        });
        let (mut late, next_sequence) = snapshot(site, 1);
        is_late.store(lines[1].end.lock().unwrap().is_none(), Ordering::Relaxed);
        receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
        let early_requests = get_missing(site, &lines[0], 1);
        let late_requests = get_missing(site, &lines[1], next_sequence);
        for (_, message) in lines[1].messages.lock().unwrap().range(next_sequence..) {
            apply(&mut late, message);
        }
        (late, next_sequence, early_requests, late_requests)
    });
    assert!(is_late.into_inner(), "the day was over before the snapshot was");
    assert!((MESSAGES / 3..MESSAGES).contains(&next_sequence), "{next_sequence}");

    let mut early = books();
    for (number, (sequence, message)) in (1..).zip(&*lines[0].messages.lock().unwrap()) {
        assert_eq!(number, *sequence);
        apply(&mut early, message);
    }
    for (sequence, message) in &*lines[1].messages.lock().unwrap() {
        assert_eq!(lines[0].messages.lock().unwrap().get(sequence), Some(message));
    }
    let (at_end, end) = snapshot(site, 4_096);

    // Whoever is not let in, and what is not answered.
    let authorized = ClientState::Rejected(RejectReason::NotAuthorized);
    let session = ClientState::Rejected(RejectReason::NoSession);
    assert_eq!(login(site, "user", "guess", ANY_SESSION, 1), authorized);
    assert_eq!(login(site, "user", "secret", Session(*b"     OTHER"), 1), session);
    assert_eq!(login(site, "user", "secret", ANY_SESSION, 7), session);
    let good = MessageRequest { session: SESSION, sequence: 1, count: 1 };
    is_refused(site, &MessageRequest { session: Session(*b"     OTHER"), ..good }.encode());
    is_refused(site, &MessageRequest { count: 0, ..good }.encode());
    is_refused(site, &MessageRequest { sequence: end, ..good }.encode());
    is_refused(site, &[good.encode().as_slice(), b"x"].concat());

    // What was sent last is still to be read.
    std::thread::sleep(Duration::from_millis(500));
    let (line, books) = venue.end();
    assert!(early_requests > 10 && late_requests > 10, "{early_requests} {late_requests}");
    assert_eq!(text(&early), books, "received from the start");
    assert_eq!(text(&late), books, "received from the snapshot on");
    assert_eq!(text(&at_end), books, "a snapshot at the end");
    assert!(books.lines().count() > 200, "too little to compare:\n{books}");
    assert_eq!(end, lines[0].end.lock().unwrap().unwrap());
    assert_eq!(count(&line, "last_sequence"), end - 1);
    assert_eq!(count(&line, "messages"), end - 1);
    assert_eq!(count(&line, "send_failures"), 0);
    assert_eq!(count(&line, "snapshots"), 2);
    assert_eq!(count(&line, "snapshots_rejected"), 3);
    assert!(count(&line, "requests_answered") >= early_requests + late_requests - 5, "{line}");
    for refusal in ["length", "session\":1,\"zero_count", "not_yet"] {
        assert_eq!(count(&line, refusal), 1, "{line}");
    }
    assert!(lines.iter().all(|line| *line.thrown_away.lock().unwrap() > 50));
}

#[test]
fn receivers_over_ipv4_end_with_the_books_of_the_venue() {
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    scenario(&Site::new(own, 0, ["239.255.71.1", "239.255.71.2"]));
}

#[test]
#[ignore = "privileged: makes a network namespace"]
fn receivers_over_ipv6_end_with_the_books_of_the_venue() {
    if !privileged("receivers_over_ipv6_end_with_the_books_of_the_venue") {
        return;
    }
    struct Namespace(String);
    impl Drop for Namespace {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
        }
    }
    let name = format!("nautilus-venue-{}", std::process::id());
    ip(&format!("netns add {name}"));
    let namespace = Namespace(name.clone());
    for words in [
        "link set lo up",
        "link add d0 type veth peer name d1",
        "address add fd00:6e61::1/64 dev d0 nodad",
        "link set d0 up",
        "link set d1 up",
    ] {
        ip(&format!("-n {name} {words}"));
    }
    Supervised::inside(&namespace.0, || {
        let interface = nix::net::if_::if_nametoindex("d0").unwrap();
        let own = "fd00:6e61::1".parse().unwrap();
        scenario(&Site::new(own, interface, ["ff15::71:1", "ff15::71:2"]));
    });
}

#[test]
fn the_same_seed_is_the_same_day_whatever_the_pace() {
    let folder = tempfile::tempdir().unwrap();
    let books = |seed: &str, pace: &str, file: &str| {
        let path = folder.path().join(file);
        let output = venue(
            &[
                &["--seed", seed, "--pace", pace, "--write-books", path.to_str().unwrap()],
                &["--line", "239.255.71.3:9", "--source", "127.0.0.1", "--messages", "4000"][..],
                &["--symbols", "3", "--rate", "10000", "--linger-ms", "0"],
            ]
            .concat(),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        (std::fs::read_to_string(path).unwrap(), count(&line, "last_sequence"))
    };
    let first = books("7", "max", "a");
    assert_eq!(first, books("7", "10", "b"));
    assert_ne!(first, books("8", "max", "c"));
    assert!(first.1 >= 4_000);
}

fn venue(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nautilus-venue")).args(arguments).output().unwrap()
}

#[test]
fn bad_options_are_one_clear_line() {
    let line = ["--line", "239.255.71.4:9"];
    let cases: &[(&[&str], &str)] = &[
        (&[], "--line <GROUP:PORT>"),
        (&["--line", "10.0.0.1:9"], "10.0.0.1:9: not a multicast group"),
        (&["--line", "239.0.0.1"], "invalid value '239.0.0.1'"),
        (&[&line[..], &line, &line, &line].concat(), "can be given 3 times"),
        (&[&line[..], &line, &["--interface-address", "127.0.0.1"]].concat(), "1 for 2"),
        (&[&line[..], &["--interface-address", "192.0.2.77"]].concat(), "192.0.2.77"),
        (&[&line[..], &["--source", "::1"]].concat(), "other version of IP"),
        (&[&line[..], &["--symbols", "0"]].concat(), "--symbols"),
        (&[&line[..], &["--rate", "1", "--messages", "99999999"]].concat(), "before midnight"),
        (&[&line[..], &["--pace", "quick"]].concat(), "is not a pace"),
        (&[&line[..], &["--session", "elevenchars"]].concat(), "at most ten characters"),
        (&[&line[..], &["--snapshot", "127.0.0.1:0"]].concat(), "--password-file"),
        (&[&line[..], &["--request", "192.0.2.77:9"]].concat(), "--request 192.0.2.77:9"),
        (&[&line[..], &["--write-books", "/no/such/file"]].concat(), "/no/such/file"),
        (
            &[
                &line[..],
                &["--snapshot", "127.0.0.1:0", "--user", "x", "--password-file", "/no/such"],
            ]
            .concat(),
            "--password-file /no/such",
        ),
    ];
    for (arguments, expected) in cases {
        let output = venue(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?} gave {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
