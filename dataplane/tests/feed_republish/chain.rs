//! A venue, a node that receives its lines and gives out one of its own, and a receiver of that line alone.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_dataplane::feed::book::Books;
use nautilus_dataplane::feed::channel::{Channel, SnapshotPiece};
use nautilus_dataplane::feed::itch::Side;
use nautilus_dataplane::feed::moldudp64::{Packet, Session};
use nautilus_dataplane::feed::recovery::requests::TRIES_MAX;
use nautilus_dataplane::feed::republish::RepublishSpec;
use nautilus_dataplane::feed::request_server::RequestLimits;
use nautilus_dataplane::limits::REPLY_PAYLOAD_BYTES_MAX;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Datagram, Filled, Link, Path, SendError, Transmit};
use nautilus_dataplane::replay::random::Random;

use crate::support::{MapKeyspace, mold_packet};
use crate::world::{self, Day, Setting, channel, published, server};

pub const PACE_NS: u64 = world::PACE_NS;

const GROUP: Endpoint = Endpoint::v4([239, 1, 2, 3], 26_700);
const FROM: Endpoint = Endpoint::v4([198, 18, 0, 10], 26_701);

/// What is published when everything before a number is applied.
pub type Truth = BTreeMap<u64, BTreeMap<Vec<u8>, String>>;

/// A channel and its keyspace.
pub struct Node {
    pub channel: Channel,
    pub keyspace: MapKeyspace,
    now_ns: u64,
}

impl Node {
    fn new(channel: Channel) -> Self {
        Self { channel, keyspace: MapKeyspace::default(), now_ns: 0 }
    }

    pub fn piece(&mut self, attempt: u64, piece: SnapshotPiece<'_>) {
        self.channel.take_snapshot(attempt, self.now_ns, piece, &mut self.keyspace);
    }
}

/// What a node has sent in one go.
struct Wire<'a> {
    sent: Vec<(Path, Vec<u8>)>,
    random: &'a mut Random,
    /// Room for a payload: the least there is.
    room: usize,
    /// Of 1,000 sends.
    full_port: u32,
}

impl Transmit for Wire<'_> {
    fn send<F: Into<Filled>>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut [u8]) -> F,
    ) -> Result<(), SendError> {
        if self.random.below(1_000) < self.full_port {
            return Err(SendError::NoFrame);
        }
        let mut payload = vec![0; self.room];
        let filled: Filled = write(&mut payload).into();
        payload.truncate(filled.bytes);
        self.sent.push((*path, payload));
        Ok(())
    }
}

/// All of it, and its clock.
pub struct Chain<'a> {
    day: Option<(Session, &'a Day, &'a Truth)>,
    pub node: Node,
    pub receiver: Node,
    pub now_ns: u64,
    /// Of 1,000 packets on each way; of one piece that is asked for never so many that it is given up.
    pub loss: u32,
    /// How often pieces were asked for, by the node and by the receiver.
    asked: [BTreeMap<u64, u32>; 2],
    /// Of 1,000 packets that the node wants to send.
    pub full_port: u32,
    random: Random,
    /// Every packet that the node sent to its group.
    pub sent: Vec<Vec<u8>>,
    /// Times that the receiver was looked at and live.
    pub was_live: u64,
}

impl<'a> Chain<'a> {
    pub fn new(seed: u64, node: Setting, receiver: Setting, flush_ns: u64) -> Self {
        let spec = RepublishSpec {
            group: GROUP,
            from: FROM,
            interface: 3,
            flush_ns,
            history_bytes: 4 << 20,
            requests: Some((server(0), RequestLimits::default())),
            hash_seed: 1,
        };
        Self {
            day: None,
            node: Node::new(channel(node).republishing(spec)),
            receiver: Node::new(channel(receiver)),
            now_ns: 1_000_000_000,
            loss: 0,
            asked: [BTreeMap::new(), BTreeMap::new()],
            full_port: 0,
            random: Random::new(seed),
            sent: Vec::new(),
            was_live: 0,
        }
    }

    /// The venue's day from here on, and what is true of it after each number; empty where that is not looked at.
    pub fn begin(&mut self, session: Session, day: &'a Day, truth: &'a Truth) {
        self.day = Some((session, day, truth));
        self.asked = Default::default();
        self.was_live = 0;
    }

    fn loses(&mut self) -> bool {
        self.random.below(1_000) < self.loss
    }

    /// Whether a piece has been asked for so often that neither request nor reply may be lost.
    fn is_due(&self, who: usize, sequence: u64) -> bool {
        self.asked[who].get(&sequence).is_some_and(|times| *times >= TRIES_MAX - 1)
    }

    /// One packet of the venue over both lines.
    pub fn venue_sends(&mut self, packet: (u64, u64)) {
        let (session, day, _) = self.day.unwrap();
        self.venue_says(day.packet(session, packet));
    }

    pub fn venue_ends(&mut self) {
        let (session, day, _) = self.day.unwrap();
        let mut end = mold_packet(session, day.end(), &[]);
        end[18..].fill(0xff);
        self.venue_says(end);
    }

    pub fn venue_says(&mut self, bytes: Vec<u8>) {
        for line in [0, 1] {
            if !self.loses() {
                let Node { channel, keyspace, .. } = &mut self.node;
                channel.handle_from(line, self.now_ns, &bytes, keyspace);
            }
        }
        self.send();
    }

    /// Lets time pass: housekeeping each 100 us, and everything asked and answered at once.
    pub fn pass(&mut self, for_ns: u64) {
        let until_ns = self.now_ns + for_ns;
        while self.now_ns < until_ns {
            self.now_ns = (self.now_ns + 100_000).min(until_ns);
            for node in [&mut self.node, &mut self.receiver] {
                node.now_ns = self.now_ns;
                node.channel.housekeeping(self.now_ns, &mut node.keyspace);
                node.channel.turn(self.now_ns, &mut node.keyspace);
            }
            self.ask();
            self.send();
            self.check();
        }
    }

    /// The node asks the venue, the receiver the node.
    fn ask(&mut self) {
        let Some((of, day, _)) = self.day else { return };
        while let Some((to, session, request)) = self.node.channel.next_request(self.now_ns) {
            *self.asked[0].entry(request.sequence).or_default() += 1;
            let is_lost = self.loses() | self.loses();
            if session == of && (!is_lost || self.is_due(0, request.sequence)) {
                let reply = day.reply(session, &request);
                let Node { channel, keyspace, .. } = &mut self.node;
                channel.handle_reply(&to, self.now_ns, &reply, keyspace);
            }
        }
        while let Some((to, session, request)) = self.receiver.channel.next_request(self.now_ns) {
            *self.asked[1].entry(request.sequence).or_default() += 1;
            if self.loses() && !self.is_due(1, request.sequence) {
                continue;
            }
            let from = self.receiver.channel.recovery_spec().unwrap().from;
            let payload = request.encode(session);
            self.node.channel.take_request(&Datagram {
                source: from,
                destination: to,
                link: Link { interface: 7, vlans: [0; 2] },
                rx_ns: self.now_ns,
                permissions: None,
                payload: &payload,
            });
        }
    }

    /// What the node has to send reaches the receiver, or is lost.
    fn send(&mut self) {
        let mut wire = Wire {
            sent: Vec::new(),
            room: REPLY_PAYLOAD_BYTES_MAX,
            random: &mut self.random,
            full_port: self.full_port,
        };
        let _ = self.node.channel.republish(self.now_ns, &mut wire);
        for (path, payload) in wire.sent {
            let is_reply = path.to != GROUP;
            if is_reply {
                assert_eq!((path.from, path.link.interface), (server(0), 7));
            } else {
                assert_eq!((path.from, path.link.interface), (FROM, 3));
                self.sent.push(payload.clone());
            }
            self.compare(&payload);
            if self.loses() && !(is_reply && self.is_due(1, packet_of(&payload).sequence)) {
                continue;
            }
            let Node { channel, keyspace, .. } = &mut self.receiver;
            match is_reply {
                true => channel.handle_reply(&path.from, self.now_ns, &payload, keyspace),
                false => channel.handle(self.now_ns, &payload, keyspace),
            }
        }
    }

    /// A packet holds what the venue sent under these numbers.
    fn compare(&self, payload: &[u8]) {
        let packet = packet_of(payload);
        packet.check().unwrap();
        let (session, day, _) = self.day.unwrap();
        if packet.session == session {
            for (sequence, message) in (packet.sequence..).zip(packet.messages()) {
                assert_eq!(message.unwrap(), day.messages[sequence as usize - 1], "{sequence}");
            }
        }
    }

    /// What is live at the receiver is the truth.
    fn check(&mut self) {
        let Some((session, _, truth)) = self.day else { return };
        let sequencer = self.receiver.channel.sequencer();
        if !self.receiver.channel.is_live(self.now_ns)
            || sequencer.session() != Some(session)
            || truth.is_empty()
        {
            return;
        }
        self.was_live += 1;
        let expected = sequencer.expected();
        let found = published(&self.receiver.keyspace);
        assert_eq!(found, truth[&expected], "live at {expected} and not the truth");
    }

    /// Numbers that were sent to the group.
    pub fn numbers_sent(&self) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::new();
        for packet in self.sent.iter().map(|packet| packet_of(packet)) {
            for number in packet.sequence..packet.next_sequence() {
                assert!(numbers.insert(number), "{number} twice");
            }
        }
        numbers
    }
}

pub fn packet_of(payload: &[u8]) -> Packet<'_> {
    Packet::parse(payload).unwrap()
}

/// Every order of every book, in the order of their queues.
pub fn books(channel: &Channel) -> Vec<(u16, Side, u64, u32, u32)> {
    books_of(channel.books())
}

pub fn books_of(books: &Books) -> Vec<(u16, Side, u64, u32, u32)> {
    let mut all = Vec::new();
    for (locate, _) in books.symbols() {
        for side in [Side::Buy, Side::Sell] {
            let orders = books.orders(locate, side);
            all.extend(orders.map(|o| (locate, side, o.reference, o.price, o.shares)));
        }
    }
    all
}
