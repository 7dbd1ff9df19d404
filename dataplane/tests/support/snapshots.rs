//! A snapshot server of a front over the real rings: a worker and its feed on one side, clients over loopback on the
//! other, and a clock of the test's.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nautilus_dataplane::config;
use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::channel::Channel;
use nautilus_dataplane::feed::glimpse::{SnapshotItem, SnapshotReader};
use nautilus_dataplane::feed::itch::messages::{AddOrder, Common};
use nautilus_dataplane::feed::itch::{Message, Nanoseconds, Price4, Side};
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::soupbintcp::{ClientEvent, Credentials, SoupClient};
use nautilus_dataplane::feed::{Symbol, Venue};
use nautilus_dataplane::front::link::Link;
use nautilus_dataplane::front::links::Links;
use nautilus_dataplane::front::snapshots::Snapshots;
use nautilus_shm::front_region::{
    Answer, FRONT_RING_WORDS, FrontRegion, is_books_wanted, read_books_wanted,
};
use nautilus_shm::kill_switch::KillSwitch;
use nautilus_shm::message_ring::{MessageConsumer, MessageProducer};
use nautilus_shm::metrics::labels::{Label, ServedSnapshot};
use nautilus_shm::shared::zeroed_box;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::support::{MapKeyspace, mold_packet};
use crate::world::{MONDAY, Setting, channel};

pub const MILLISECOND: u64 = 1_000_000;

/// A worker and its feed, as far as its front knows them.
pub struct Worker<'a> {
    pub region: &'a FrontRegion,
    pub requests: MessageConsumer<'a, FRONT_RING_WORDS>,
    pub answers: MessageProducer<'a, FRONT_RING_WORDS>,
    pub channel: Channel,
    pub keyspace: MapKeyspace,
    /// Pieces handed over before it stops, if it does.
    pub pieces_left: u32,
    pub wanted: u32,
}

impl<'a> Worker<'a> {
    pub fn new(region: &'a FrontRegion, generation: u64, channel: Channel) -> Self {
        let requests = region.requests().consumer();
        let mut answers = region.answers().producer(generation);
        let (tag, payload) = Answer::taken(requests.position());
        answers.push(tag, &[&payload]).unwrap();
        let keyspace = MapKeyspace::default();
        Self { region, requests, answers, channel, keyspace, pieces_left: u32::MAX, wanted: 0 }
    }

    /// Another takes its place, which has received nothing.
    pub fn replace(&mut self, generation: u64) {
        *self = Self::new(self.region, generation, channel(Setting::default()).showing());
    }

    pub fn receive(&mut self, session: Session, sequence: u64, messages: &[Vec<u8>]) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let packet = mold_packet(session, sequence, &messages);
        self.channel.handle(1, &packet, &mut self.keyspace);
    }

    pub fn turn(&mut self) {
        let mut bytes = [0; 64];
        while let Some(message) = self.requests.pop(&mut bytes).unwrap() {
            assert!(is_books_wanted(message.tag));
            let (number, attempt) = read_books_wanted(&bytes[..message.bytes]).unwrap();
            assert_eq!(number, 1);
            self.wanted += 1;
            self.channel.want_books(attempt);
        }
        let Self { channel, answers, pieces_left, .. } = self;
        channel.show_books(|piece| {
            if *pieces_left == 0 {
                return false;
            }
            *pieces_left -= 1;
            let (tag, header, rest) = Answer::books(piece);
            answers.push(tag, &[&header, rest]).is_ok()
        });
    }
}

/// A client and what it was told.
pub struct Client {
    pub socket: TcpStream,
    pub soup: SoupClient,
    pub reader: SnapshotReader,
    pub messages: Vec<Vec<u8>>,
    pub is_closed: bool,
    /// Whether it was closed by a reset, which takes back what the kernel has not sent.
    pub is_reset: bool,
}

impl Client {
    pub fn connect(at: SocketAddr, password: &str, session: Session) -> Self {
        let mut socket = TcpStream::connect(at).unwrap();
        let mut soup = SoupClient::new(Credentials::new("NODE", password).unwrap(), session, 1);
        let mut out = Vec::new();
        soup.start(&mut out);
        socket.write_all(&out).unwrap();
        socket.set_nonblocking(true).unwrap();
        let reader = SnapshotReader::new();
        let (is_closed, is_reset) = (false, false);
        Self { socket, soup, reader, messages: Vec::new(), is_closed, is_reset }
    }

    pub fn turn(&mut self) {
        let mut bytes = [0; 1 << 16];
        let Self { socket, soup, reader, messages, is_closed, is_reset } = self;
        match socket.read(&mut bytes) {
            Ok(0) => *is_closed = true,
            Ok(length) => {
                soup.receive(&bytes[..length], 1, |event| {
                    if let ClientEvent::Message { bytes, .. } = event
                        && let SnapshotItem::Message(bytes) = reader.read(bytes).unwrap()
                    {
                        messages.push(bytes.to_vec());
                    }
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                *is_closed = true;
                *is_reset = error.kind() == ErrorKind::ConnectionReset;
            }
        }
    }

    /// Takes all that it was sent until now; meanwhile the front does nothing.
    pub fn catch_up(&mut self) {
        let begun = std::time::Instant::now();
        loop {
            let before = unacknowledged_bytes(&self.socket);
            let messages = self.messages.len();
            self.turn();
            if before == 0 && self.messages.len() == messages {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it is sent more and more");
        }
    }

    /// The number live data goes on with, if it was told a whole snapshot, whose books these are.
    pub fn books(&self, limits: BookLimits) -> Option<(u64, Books)> {
        let next_sequence = self.reader.next_sequence()?;
        let mut books = Books::new(limits);
        for message in &self.messages {
            assert_eq!(books.apply(&Message::decode(message).unwrap()).1, None);
        }
        Some((next_sequence, books))
    }
}

/// What the other end of this connection of IPv4 has sent, or is to send, and the kernel of ours does not have yet.
fn unacknowledged_bytes(socket: &TcpStream) -> u64 {
    let written = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => {
            let host = u32::from_ne_bytes(v4.ip().octets());
            format!("{host:08X}:{:04X}", v4.port())
        }
        SocketAddr::V6(_) => unreachable!("clients come over IPv4"),
    };
    let ends = [socket.peer_addr(), socket.local_addr()].map(|end| written(end.unwrap()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1..3] == ends).expect("the other end is of this machine");
    u64::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap()
}

pub type Orders = Vec<(u16, Side, u64, u32, u32)>;

/// Every order of every book, in the order of their queues.
pub fn orders(books: &Books) -> Orders {
    let mut all = Vec::new();
    for (locate, _) in books.symbols() {
        for side in [Side::Buy, Side::Sell] {
            let orders = books.orders(locate, side);
            all.extend(orders.map(|o| (locate, side, o.reference, o.price, o.shares)));
        }
    }
    all
}

pub const LIMITS: BookLimits =
    BookLimits { orders_max: 1 << 12, levels_max: 1 << 12, hash_seed: 3 };

/// A front's side of it, its clock, and the folder of its password.
pub struct Front<'a> {
    pub links: Links<'a>,
    pub snapshots: Snapshots,
    pub now_ns: u64,
    pub at: SocketAddr,
    /// Where an operator halts it.
    pub switch: &'static KillSwitch,
    _folder: tempfile::TempDir,
}

impl<'a> Front<'a> {
    pub fn new(region: &'a FrontRegion, max_orders: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "secret\n").unwrap();
        // A free port, taken again at once.
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[access]\nsources = [\"127.0.0.0/8\"]\n[cache]\nid = \"q\"\n\
             [[interface]]\nname = \"lo\"\n\
             [[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 1\nchannel = 1\n\
             max_orders = {max_orders}\n\
             [feed.republish]\ngroup = \"239.1.2.3\"\nport = 2\nfrom = \"198.18.0.1:3\"\n\
             [feed.republish.snapshot]\nlisten = \"0.0.0.0:{}\"\nuser = \"NODE\"\n\
             password_file = {:?}\n",
            at.port(),
            folder.path().join("password"),
        );
        let config = config::parse(&text, "n.toml").unwrap();
        let wake: OwnedFd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into();
        let links = Links::new(vec![Link::new(region, wake, region.advance_front())]);
        let mut notes = Vec::new();
        let switch: &'static KillSwitch = Box::leak(zeroed_box());
        let generation = region.front_generation();
        let snapshots = Snapshots::new(&config, generation, switch, &mut notes);
        assert!(notes.is_empty(), "{notes:?}");
        let now_ns = 1_000 * MILLISECOND;
        Self { links, snapshots, now_ns, at, switch, _folder: folder }
    }

    pub fn turn(&mut self, for_ns: u64) {
        self.now_ns += for_ns;
        let Self { links, snapshots, .. } = self;
        links.poll(|_, _| panic!("no command"), |_, heard| snapshots.hear(&heard));
        snapshots.turn(self.now_ns, links);
    }

    pub fn ended(&self, end: ServedSnapshot) -> u64 {
        self.snapshots.ended[end.index()]
    }
}

/// Turns of both sides and of the clients until `done`.
pub fn run(
    front: &mut Front<'_>,
    worker: &mut Worker<'_>,
    clients: &mut [&mut Client],
    mut done: impl FnMut(&mut Worker<'_>, &[&mut Client]) -> bool,
) {
    for _ in 0..20_000 {
        front.turn(MILLISECOND);
        worker.turn();
        clients.iter_mut().for_each(|client| client.turn());
        if done(worker, clients) {
            // Until the front has done with who does not close, and the kernel with what it was given.
            front.turn(1_100 * MILLISECOND);
            let is_over = clients.iter().any(|client| client.is_closed);
            for _ in (0..200).filter(|_| is_over) {
                if !front.snapshots.is_open() {
                    break;
                }
                std::thread::sleep(Duration::from_micros(500));
                front.turn(0);
            }
            return;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    panic!("never done");
}
/// A channel of so many orders of one stock.
pub fn large(count: u32) -> Channel {
    let spec = nautilus_dataplane::feed::channel::ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        books: BookLimits { orders_max: 1 << 18, levels_max: 1 << 16, hash_seed: 3 },
        ..*channel(Setting::default()).spec()
    };
    let mut channel = Channel::new(spec).showing();
    let mut keyspace = MapKeyspace::default();
    let common = Common { stock_locate: 7, tracking_number: 0, timestamp: Nanoseconds(5) };
    let add = |number: u32| {
        let (reference, price) = (u64::from(number) + 1, Price4(100 + number % 50));
        let symbol = Symbol(*b"TEST    ");
        AddOrder::encode(common, reference, Side::Buy.code(), 100, symbol, price)
    };
    for first in (0..count).step_by(30) {
        let messages: Vec<_> = (first..first + 30).map(add).collect();
        let messages: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
        let packet = mold_packet(MONDAY, u64::from(first) + 1, &messages);
        channel.handle(1, &packet, &mut keyspace);
    }
    channel
}
