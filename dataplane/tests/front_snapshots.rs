//! The snapshot server of a front over the real rings: a channel that shows its books on one side, clients over
//! loopback on the other. What a client is told to be whole is exact, and otherwise nothing is whole.

#[path = "support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "feed_recovery/world.rs"]
mod world;

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
use nautilus_dataplane::feed::session::Doubt;
use nautilus_dataplane::feed::soupbintcp::packet::ANY_SESSION;
use nautilus_dataplane::feed::soupbintcp::{
    ClientEvent, ClientState, Credentials, RejectReason, SoupClient,
};
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
use support::{MapKeyspace, mold_packet};
use world::{Day, MONDAY, Setting, TUESDAY, channel};

const MILLISECOND: u64 = 1_000_000;

/// A worker and its feed, as far as its front knows them.
struct Worker<'a> {
    region: &'a FrontRegion,
    requests: MessageConsumer<'a, FRONT_RING_WORDS>,
    answers: MessageProducer<'a, FRONT_RING_WORDS>,
    channel: Channel,
    keyspace: MapKeyspace,
    /// Pieces handed over before it stops, if it does.
    pieces_left: u32,
    wanted: u32,
}

impl<'a> Worker<'a> {
    fn new(region: &'a FrontRegion, generation: u64, channel: Channel) -> Self {
        let requests = region.requests().consumer();
        let mut answers = region.answers().producer(generation);
        let (tag, payload) = Answer::taken(requests.position());
        answers.push(tag, &[&payload]).unwrap();
        let keyspace = MapKeyspace::default();
        Self { region, requests, answers, channel, keyspace, pieces_left: u32::MAX, wanted: 0 }
    }

    /// Another takes its place, which has received nothing.
    fn replace(&mut self, generation: u64) {
        *self = Self::new(self.region, generation, channel(Setting::default()).showing());
    }

    fn receive(&mut self, session: Session, sequence: u64, messages: &[Vec<u8>]) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let packet = mold_packet(session, sequence, &messages);
        self.channel.handle(1, &packet, &mut self.keyspace);
    }

    fn turn(&mut self) {
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
struct Client {
    socket: TcpStream,
    soup: SoupClient,
    reader: SnapshotReader,
    messages: Vec<Vec<u8>>,
    is_closed: bool,
}

impl Client {
    fn connect(at: SocketAddr, password: &str, session: Session) -> Self {
        let mut socket = TcpStream::connect(at).unwrap();
        let mut soup = SoupClient::new(Credentials::new("NODE", password).unwrap(), session, 1);
        let mut out = Vec::new();
        soup.start(&mut out);
        socket.write_all(&out).unwrap();
        socket.set_nonblocking(true).unwrap();
        let reader = SnapshotReader::new();
        Self { socket, soup, reader, messages: Vec::new(), is_closed: false }
    }

    fn turn(&mut self) {
        let mut bytes = [0; 1 << 16];
        let Self { socket, soup, reader, messages, is_closed } = self;
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
            Err(_) => *is_closed = true,
        }
    }

    /// The number live data goes on with, if it was told a whole snapshot, whose books these are.
    fn books(&self, limits: BookLimits) -> Option<(u64, Books)> {
        let next_sequence = self.reader.next_sequence()?;
        let mut books = Books::new(limits);
        for message in &self.messages {
            assert_eq!(books.apply(&Message::decode(message).unwrap()).1, None);
        }
        Some((next_sequence, books))
    }
}

type Orders = Vec<(u16, Side, u64, u32, u32)>;

/// Every order of every book, in the order of their queues.
fn orders(books: &Books) -> Orders {
    let mut all = Vec::new();
    for (locate, _) in books.symbols() {
        for side in [Side::Buy, Side::Sell] {
            let orders = books.orders(locate, side);
            all.extend(orders.map(|o| (locate, side, o.reference, o.price, o.shares)));
        }
    }
    all
}

const LIMITS: BookLimits = BookLimits { orders_max: 1 << 12, levels_max: 1 << 12, hash_seed: 3 };

/// A front's side of it, its clock, and the folder of its password.
struct Front<'a> {
    links: Links<'a>,
    snapshots: Snapshots,
    now_ns: u64,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl<'a> Front<'a> {
    fn new(region: &'a FrontRegion, max_orders: u32) -> Self {
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
        Self { links, snapshots, now_ns: 1_000 * MILLISECOND, at, _folder: folder }
    }

    fn turn(&mut self, for_ns: u64) {
        self.now_ns += for_ns;
        let Self { links, snapshots, .. } = self;
        links.poll(|_, _| panic!("no command"), |_, heard| snapshots.hear(&heard));
        snapshots.turn(self.now_ns, links);
    }

    fn ended(&self, end: ServedSnapshot) -> u64 {
        self.snapshots.ended[end.index()]
    }
}

/// Turns of both sides and of the clients until `done`.
fn run(
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
            // Until the front has done with who does not close.
            return front.turn(1_100 * MILLISECOND);
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    panic!("never done");
}

#[test]
fn clients_at_once_share_books_that_are_exact_while_they_change() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 12);
    let mut worker = Worker::new(&region, 1, channel(Setting::default()).showing());
    let day = Day::new(3, 1_500);
    worker.receive(MONDAY, 1, &day.messages[..30]);
    let mut next = 31;
    let connect = |session| Client::connect(front.at, "secret", session);
    let (mut first, mut second) = (connect(ANY_SESSION), connect(MONDAY));
    let (mut other, mut wrong) =
        (connect(TUESDAY), Client::connect(front.at, "secrets", ANY_SESSION));
    let mut clients = [&mut first, &mut second, &mut other, &mut wrong];
    run(&mut front, &mut worker, &mut clients, |worker, clients| {
        // A message a turn, as long as there are some.
        if next < day.end() && clients.iter().any(|client| !client.is_closed) {
            worker.receive(MONDAY, next, &day.messages[next as usize - 1..next as usize]);
            next += 1;
        }
        clients.iter().all(|client| client.is_closed)
    });
    for client in [&first, &second] {
        let (next, books) = client.books(LIMITS).expect("a whole snapshot");
        assert!(next > 31, "as of when the walk ended");
        let mut expected = Books::new(LIMITS);
        for message in &day.messages[..next as usize - 1] {
            expected.apply(&Message::decode(message).unwrap());
        }
        assert_eq!(orders(&books), orders(&expected));
        assert_eq!(client.soup.state(), ClientState::Ended);
    }
    assert_eq!(first.reader.next_sequence(), second.reader.next_sequence());
    assert_eq!(other.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert_eq!(wrong.soup.state(), ClientState::Rejected(RejectReason::NotAuthorized));
    assert_eq!(worker.wanted, 1, "one walk for all");
    let ended = [ServedSnapshot::Sent, ServedSnapshot::Rejected].map(|end| front.ended(end));
    assert_eq!(ended, [2, 2]);
}

#[test]
fn books_that_are_told_in_one_go_are_as_good() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 12);
    let mut worker = Worker::new(&region, 1, channel(Setting::default()).showing());
    let day = Day::new(3, 1_500);
    worker.receive(MONDAY, 1, &day.messages[..800]);
    for round in 1..4 {
        let mut client = Client::connect(front.at, "secret", ANY_SESSION);
        run(&mut front, &mut worker, &mut [&mut client], |worker, clients| {
            // All of a walk between two looks of the front.
            (0..100).for_each(|_| worker.turn());
            clients[0].is_closed
        });
        assert_eq!(client.reader.next_sequence(), Some(801));
        assert_eq!(front.ended(ServedSnapshot::Sent), round);
    }
}

#[test]
fn a_worker_that_dies_at_any_piece_leaves_no_snapshot_or_a_right_one() {
    let day = Day::new(5, 1_500);
    let (mut whole, mut void) = (0, 0);
    for pieces in 0..12 {
        let region = FrontRegion::create(c"nautilus-front").unwrap();
        let mut front = Front::new(&region, 1 << 12);
        let mut worker = Worker::new(&region, 1, channel(Setting::default()).showing());
        worker.receive(MONDAY, 1, &day.messages[..1_200]);
        worker.pieces_left = pieces;
        let mut client = Client::connect(front.at, "secret", ANY_SESSION);
        let mut turns = 0;
        run(&mut front, &mut worker, &mut [&mut client], |worker, clients| {
            turns += 1;
            if turns == 400 {
                worker.replace(2);
            }
            clients[0].is_closed
        });
        match client.books(LIMITS) {
            Some((next, books)) => {
                whole += 1;
                assert_eq!(next, 1_201);
                let mut expected = Books::new(LIMITS);
                for message in &day.messages[..1_200] {
                    expected.apply(&Message::decode(message).unwrap());
                }
                assert_eq!(orders(&books), orders(&expected));
            }
            None => {
                void += 1;
                let end = if pieces == 0 { ServedSnapshot::NotExact } else { ServedSnapshot::Void };
                assert_eq!(front.ended(end), 1, "{pieces} {:?}", front.snapshots.ended);
            }
        }
    }
    assert!(whole > 0 && void > 3, "{whole} whole, {void} void");
}

#[test]
fn books_that_are_not_exact_are_refused_and_so_is_a_worker_that_says_nothing() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 12);
    let mut worker = Worker::new(&region, 1, channel(Setting::default()).showing());
    let day = Day::new(5, 1_500);
    worker.receive(MONDAY, 1, &[day.messages[0].clone(), b"A".to_vec()]);
    assert_eq!(worker.channel.sequencer().doubt(), Some(Doubt::Malformed));
    let mut client = Client::connect(front.at, "secret", ANY_SESSION);
    run(&mut front, &mut worker, &mut [&mut client], |_, clients| clients[0].is_closed);
    assert_eq!(client.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert_eq!(front.ended(ServedSnapshot::NotExact), 1);
    // In the middle, while the client waits.
    worker.receive(TUESDAY, 1, &day.messages[..1_000]);
    worker.pieces_left = 2;
    let mut client = Client::connect(front.at, "secret", ANY_SESSION);
    run(&mut front, &mut worker, &mut [&mut client], |worker, _| worker.pieces_left == 0);
    worker.receive(TUESDAY, 1_001, &[b"A".to_vec()]);
    worker.pieces_left = u32::MAX;
    run(&mut front, &mut worker, &mut [&mut client], |_, clients| clients[0].is_closed);
    assert_eq!((client.reader.next_sequence(), front.ended(ServedSnapshot::Void)), (None, 1));
    // And a worker that stands still.
    worker.receive(MONDAY, 1, &day.messages[..1_000]);
    let mut client = Client::connect(front.at, "secret", ANY_SESSION);
    for _ in 0..200 {
        front.turn(100 * MILLISECOND);
        client.turn();
    }
    assert!(client.is_closed && client.reader.next_sequence().is_none());
    assert_eq!(client.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert_eq!(front.ended(ServedSnapshot::NotExact), 2);
}

/// A channel of so many orders of one stock.
fn large(count: u32) -> Channel {
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

#[test]
fn clients_that_do_not_take_it_are_ended_and_others_are_not_held_up_for_longer() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 18);
    // More than the buffers of a connection hold.
    let mut worker = Worker::new(&region, 1, large(240_000));
    let mut slow = Vec::new();
    // Two take nothing, each of a snapshot of its own.
    for _ in 0..2 {
        slow.push(Client::connect(front.at, "secret", ANY_SESSION));
        let before = worker.wanted;
        for _ in 0..8_000 {
            front.turn(MILLISECOND / 10);
            worker.turn();
        }
        assert_eq!(worker.wanted, before + 1);
    }
    let mut third = Client::connect(front.at, "secret", ANY_SESSION);
    for _ in 0..8_000 {
        front.turn(MILLISECOND / 10);
        worker.turn();
        third.turn();
    }
    assert_eq!(third.soup.state(), ClientState::LoggedIn, "its books are there");
    assert_eq!(third.messages.len(), 0, "and no room to write them down");
    // It is alive, and the others are not.
    third.socket.write_all(b"\0\x01R").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    front.turn(16_000 * MILLISECOND);
    assert_eq!(front.ended(ServedSnapshot::Slow), 2);
    run(&mut front, &mut worker, &mut [&mut third], |_, clients| clients[0].is_closed);
    assert_eq!((third.messages.len(), third.reader.next_sequence()), (240_000, Some(240_001)));
    assert_eq!(front.ended(ServedSnapshot::Sent), 1);
}

#[test]
fn there_is_an_end_to_how_many_clients_there_may_be() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 12);
    let mut worker = Worker::new(&region, 1, channel(Setting::default()).showing());
    let silent: Vec<TcpStream> = (0..70).map(|_| TcpStream::connect(front.at).unwrap()).collect();
    for _ in 0..10 {
        front.turn(100 * MILLISECOND);
        worker.turn();
    }
    assert_eq!(front.ended(ServedSnapshot::Limit), 6);
    // Who does not log in leaves.
    front.turn(31_000 * MILLISECOND);
    assert_eq!(front.ended(ServedSnapshot::Left), 64);
    drop(silent);
}
