//! A channel that recovers, its clock, and what is on its way to it.

use std::collections::{BTreeMap, BTreeSet};

use nautilus_dataplane::feed::Venue;
use nautilus_dataplane::feed::book::{Bbo, BookLimits};
use nautilus_dataplane::feed::channel::{Channel, ChannelSpec, SnapshotPiece};
use nautilus_dataplane::feed::held::HeldLimits;
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_dataplane::feed::recovery::requests::{PieceRequest, TRIES_MAX};
use nautilus_dataplane::feed::recovery::{Recovery, RecoveryCounts, RecoverySpec};
use nautilus_dataplane::feed::session::Start;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::random::Random;

use crate::support::{MapKeyspace, mold_packet};

pub const MONDAY: Session = Session(*b"000000MON1");
pub const TUESDAY: Session = Session(*b"000000TUE1");
pub const HOLD_NS: u64 = 1_000_000;
pub const AFTER_NS: u64 = 200_000;
pub const TIMEOUT_NS: u64 = 1_000_000;
/// Between two packets of the exchange.
pub const PACE_NS: u64 = 100_000;
pub const SILENCE_NS: u64 = 3_000_000_000;

pub fn server(index: u8) -> Endpoint {
    Endpoint::v4([198, 18, 0, 10 + index], 26_500)
}

/// What the tests vary of a recovering feed.
#[derive(Clone, Copy)]
pub struct Setting {
    pub servers: u8,
    pub has_snapshot: bool,
    pub messages_max: u64,
    pub queue: HeldLimits,
}

impl Default for Setting {
    fn default() -> Self {
        let queue = HeldLimits { packets_max: 1 << 14, bytes_max: 4 << 20 };
        Self { servers: 2, has_snapshot: false, messages_max: u64::MAX, queue }
    }
}

pub fn channel(setting: Setting) -> Channel {
    let spec = ChannelSpec {
        venue: Venue::new("nasdaq").unwrap(),
        protocol: Default::default(),
        channel: 1,
        start: Start::Session,
        silence_limit_ns: SILENCE_NS,
        depth: 0,
        hold_limit_ns: HOLD_NS,
        books: BookLimits { orders_max: 1 << 12, levels_max: 1 << 12, hash_seed: 3 },
    };
    let mut servers = [None; 4];
    for index in 0..setting.servers {
        servers[usize::from(index)] = Some(server(index));
    }
    let recovery = RecoverySpec {
        servers,
        from: Endpoint::v4([198, 18, 0, 1], 26_400),
        interface: 0,
        request_after_ns: AFTER_NS,
        timeout_ns: TIMEOUT_NS,
        messages_max: setting.messages_max,
        queue: setting.queue,
        has_snapshot: setting.has_snapshot,
    };
    Channel::with_recovery(spec, 2, Some(Recovery::new(recovery, 1)))
}

/// A day of the exchange: every message, and the packets it sends of them.
pub struct Day {
    pub messages: Vec<Vec<u8>>,
    /// (first number, number behind the last).
    pub packets: Vec<(u64, u64)>,
}

impl Day {
    pub fn new(seed: u64, count: u64) -> Self {
        let spec = GeneratorSpec { seed, symbols: 6, messages: count, rate: 100_000 };
        let mut generator = Generator::new(spec).unwrap();
        let mut messages = Vec::new();
        while let Some(message) = generator.next_message() {
            messages.push(message.to_vec());
        }
        let mut random = Random::new(seed);
        let (mut packets, mut next) = (Vec::new(), 1);
        while next <= messages.len() as u64 {
            let end = (next + 1 + u64::from(random.below(9))).min(messages.len() as u64 + 1);
            packets.push((next, end));
            next = end;
        }
        Self { messages, packets }
    }

    pub fn end(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    pub fn packet(&self, session: Session, (sequence, next): (u64, u64)) -> Vec<u8> {
        let messages = &self.messages[sequence as usize - 1..next as usize - 1];
        let blocks: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        mold_packet(session, sequence, &blocks)
    }

    /// What a request server answers: as much as fits.
    pub fn reply(&self, session: Session, request: &PieceRequest) -> Vec<u8> {
        let last = (request.sequence + u64::from(request.count)).min(self.end());
        let (mut next, mut bytes) = (request.sequence, 20);
        while next < last {
            bytes += 2 + self.messages[next as usize - 1].len();
            if bytes > 600 && next > request.sequence {
                break;
            }
            next += 1;
        }
        self.packet(session, (request.sequence, next))
    }

    /// The state of all books when everything before `next` was applied, as a snapshot has it.
    pub fn snapshot(&self, next: u64) -> Vec<Vec<u8>> {
        let mut orders: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut state = Vec::new();
        for bytes in &self.messages[..next as usize - 1] {
            let reduce = |orders: &mut BTreeMap<u64, Vec<u8>>, order: u64, shares: u32| {
                let Some(add) = orders.get_mut(&order) else { return };
                let left = u32::from_be_bytes(add[20..24].try_into().unwrap());
                if shares >= left {
                    orders.remove(&order);
                } else {
                    add[20..24].copy_from_slice(&(left - shares).to_be_bytes());
                }
            };
            match Message::decode(bytes).unwrap() {
                Message::StockDirectory(_) => state.push(bytes.clone()),
                Message::AddOrder(add) => drop(orders.insert(add.order(), bytes.clone())),
                Message::AddOrderAttributed(add) => drop(orders.insert(add.order(), bytes.clone())),
                Message::OrderExecuted(done) => reduce(&mut orders, done.order(), done.shares()),
                Message::OrderExecutedWithPrice(done) => {
                    reduce(&mut orders, done.order(), done.shares());
                }
                Message::OrderCancel(done) => reduce(&mut orders, done.order(), done.shares()),
                Message::OrderDelete(done) => drop(orders.remove(&done.order())),
                Message::OrderReplace(replace) => {
                    let Some(mut add) = orders.remove(&replace.order()) else { continue };
                    add[11..19].copy_from_slice(&replace.new_order().to_be_bytes());
                    add[20..24].copy_from_slice(&replace.shares().to_be_bytes());
                    add[32..36].copy_from_slice(&replace.price().0.to_be_bytes());
                    orders.insert(replace.new_order(), add);
                }
                _ => {}
            }
        }
        state.extend(orders.into_values());
        state
    }
}

/// Best bids and offers as published: prices, sizes, order counts.
pub fn published(keyspace: &MapKeyspace) -> BTreeMap<Vec<u8>, String> {
    let bbo = |(key, (value, _)): (&Vec<u8>, &(Vec<u8>, u8))| {
        let is_bbo = key.ends_with(b":bbo");
        is_bbo.then(|| (key.clone(), format!("{:?}", BboRecord::decode(value).unwrap().bbo)))
    };
    let mut all: BTreeMap<_, _> = keyspace.values.iter().filter_map(bbo).collect();
    // An empty book is nothing in a snapshot.
    let nothing = format!("{:?}", Bbo::default());
    all.retain(|_, bbo| *bbo != nothing);
    all
}

/// What an undisturbed channel has published when it has applied all before each number.
pub fn truth(day: &Day) -> BTreeMap<u64, BTreeMap<Vec<u8>, String>> {
    let (mut channel, mut keyspace) = (channel(Setting::default()), MapKeyspace::default());
    let mut truth = BTreeMap::new();
    truth.insert(1, BTreeMap::new());
    for sequence in 1..day.end() {
        let packet = day.packet(MONDAY, (sequence, sequence + 1));
        channel.handle(1, &packet, &mut keyspace);
        truth.insert(sequence + 1, published(&keyspace));
    }
    assert_eq!(channel.sequencer().doubt(), None);
    truth
}

/// Something on its way to the channel.
pub enum Arrival {
    Line(usize, Vec<u8>),
    Reply(Endpoint, Vec<u8>),
}

/// A channel, its clock, and what is on its way to it.
pub struct World<'a> {
    pub day: &'a Day,
    pub truth: &'a BTreeMap<u64, BTreeMap<Vec<u8>, String>>,
    pub channel: Channel,
    pub keyspace: MapKeyspace,
    pub now_ns: u64,
    pub coming: BTreeMap<(u64, u64), Arrival>,
    pub arrivals: u64,
    pub random: Random,
    /// Of 1,000 requests or replies; of one piece never so many in a row that it is given up.
    pub request_loss: u32,
    lost_in_a_row: BTreeMap<u64, u32>,
    pub deaf_servers: BTreeSet<Endpoint>,
    pub asked: Vec<(Endpoint, PieceRequest)>,
    pub was_suspect: bool,
}

impl<'a> World<'a> {
    pub fn new(
        day: &'a Day,
        truth: &'a BTreeMap<u64, BTreeMap<Vec<u8>, String>>,
        setting: Setting,
    ) -> Self {
        Self {
            day,
            truth,
            channel: channel(setting),
            keyspace: MapKeyspace::default(),
            now_ns: 1_000_000_000,
            coming: BTreeMap::new(),
            arrivals: 0,
            random: Random::new(11),
            request_loss: 0,
            lost_in_a_row: BTreeMap::new(),
            deaf_servers: BTreeSet::new(),
            asked: Vec::new(),
            was_suspect: false,
        }
    }

    pub fn at(&mut self, at_ns: u64, arrival: Arrival) {
        self.arrivals += 1;
        self.coming.insert((at_ns, self.arrivals), arrival);
    }

    /// The exchange sends these packets at its pace; each line loses what `loses` says.
    pub fn send(
        &mut self,
        packets: &[(u64, u64)],
        mut loses: impl FnMut(usize, (u64, u64)) -> bool,
    ) {
        for (place, packet) in packets.iter().enumerate() {
            for line in [0, 1] {
                if !loses(line, *packet) {
                    let at_ns = self.now_ns + place as u64 * PACE_NS + line as u64 * 20_000;
                    self.at(at_ns, Arrival::Line(line, self.day.packet(MONDAY, *packet)));
                }
            }
        }
    }

    /// Lets time pass, with everything that comes, housekeeping each 100 us and the requests answered.
    pub fn run(&mut self, for_ns: u64) {
        let until_ns = self.now_ns + for_ns;
        let mut housekeeping_ns = self.now_ns;
        loop {
            let next = self.coming.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns);
            self.now_ns = next.min(housekeeping_ns).max(self.now_ns);
            if self.now_ns > until_ns {
                break;
            }
            if housekeeping_ns <= self.now_ns {
                housekeeping_ns = self.now_ns + 100_000;
                self.channel.housekeeping(self.now_ns, &mut self.keyspace);
            }
            if next <= self.now_ns
                && let Some((_, arrival)) = self.coming.pop_first()
            {
                match arrival {
                    Arrival::Line(line, bytes) => {
                        self.channel.handle_from(line, self.now_ns, &bytes, &mut self.keyspace);
                    }
                    Arrival::Reply(from, bytes) => {
                        self.channel.handle_reply(&from, self.now_ns, &bytes, &mut self.keyspace);
                    }
                }
            }
            self.channel.turn(self.now_ns, &mut self.keyspace);
            self.answer();
            self.check();
        }
        self.now_ns = until_ns;
    }

    pub fn answer(&mut self) {
        while let Some((to, session, request)) = self.channel.next_request(self.now_ns) {
            assert_eq!(session, MONDAY);
            assert!((1..=32).contains(&request.count));
            self.asked.push((to, request));
            let lost = self.lost_in_a_row.entry(request.sequence).or_default();
            let is_lost = self.random.below(1_000) < self.request_loss && *lost < TRIES_MAX - 2;
            *lost = if is_lost { *lost + 1 } else { 0 };
            if is_lost || self.deaf_servers.contains(&to) {
                continue;
            }
            let delay_ns = u64::from(self.random.below(150_000));
            let reply = self.day.reply(session, &request);
            self.at(self.now_ns + 50_000 + delay_ns, Arrival::Reply(to, reply));
        }
    }

    /// What is live is the truth.
    pub fn check(&mut self) {
        if !self.channel.is_live(self.now_ns) {
            self.was_suspect = true;
            return;
        }
        let expected = self.channel.sequencer().expected();
        let truth = &self.truth[&expected];
        assert_eq!(published(&self.keyspace), *truth, "live at {expected} and not the truth");
    }

    pub fn piece(&mut self, attempt: u64, piece: SnapshotPiece<'_>) {
        self.channel.take_snapshot(attempt, self.now_ns, piece, &mut self.keyspace);
        self.check();
    }

    pub fn counts(&self) -> RecoveryCounts {
        *self.channel.recovery_counts().unwrap()
    }

    pub fn is_live(&self) -> bool {
        self.channel.is_live(self.now_ns)
    }
}
