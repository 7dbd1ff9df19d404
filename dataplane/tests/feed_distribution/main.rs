//! Subscribers of a channel: every record once and in order, over lines that lose; what is refused; what becomes
//! of those that do not keep up.

mod renewals;
mod sessions;
mod world;

use nautilus_dataplane::feed::Symbol;
use nautilus_dataplane::feed::distribution::subscriber::Subscriber;
use nautilus_dataplane::feed::distribution::wire::{
    MESSAGE_BYTES_MAX, Mode, REQUEST_BYTES, Reason, Records, Reply, Request, Verb, Verdict,
};
use nautilus_dataplane::feed::distribution::{
    DistributionSpec, Entitlement, Entitlements, SlowPolicy,
};
use nautilus_dataplane::feed::moldudp64::{Kind, MessageRequest, Packet};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::random::Random;
use proptest::prelude::*;
use world::*;

const MONDAY: [u8; 10] = *b"000000MON1";
const TUESDAY: [u8; 10] = *b"000000TUE1";

/// Plays some packets of a day, a turn each.
fn play(node: &mut Node, clients: &mut [Client], packets: &[Vec<u8>]) {
    for packet in packets {
        node.receive(source(250, 1), LINE, packet);
        turn(node, clients);
    }
}

/// Turns with heartbeats of the venue, until every client has had everything for longer than a heartbeat of
/// theirs takes.
fn settle(node: &mut Node, clients: &mut [Client], heartbeat: &[u8]) {
    let mut settled = 0;
    for _ in 0..400 {
        node.receive(source(250, 1), LINE, heartbeat);
        turns(node, clients, 100);
        let now_ns = node.now_ns;
        let has_all = clients.iter().all(|client| client.subscriber.is_believable(now_ns));
        settled = if has_all { settled + 1 } else { 0 };
        if settled > 40 {
            return;
        }
    }
    let told: Vec<_> = clients.iter().map(|client| &client.subscriber).collect();
    panic!("not settled: {told:?} {:?}", node.counts());
}

#[test]
fn full_subscribers_over_lossy_lines_have_every_record_once_and_in_order() {
    for seed in 0..12 {
        let day = Day::new(MONDAY, seed, 20, 12_000);
        let mut node = Node::new(spec());
        let wants = [
            everything(),
            wanted(0x11, 1, Mode::Full, &["ZAAC", "ZAAG"]),
            wanted(0x0a, 0, Mode::Full, &[]),
        ];
        let mut clients: Vec<Client> = (0..)
            .zip(&wants)
            .map(|(place, wanted)| {
                Client::new(source(10 + place, 4_000), 7, wanted.clone(), 60, seed + 100)
            })
            .collect();
        let (early, late) = day.packets.split_at(day.packets.len() / 2);
        play(&mut node, &mut clients[..1], early);
        // The others come in its middle.
        play(&mut node, &mut clients, late);
        settle(&mut node, &mut clients, &day.heartbeat);
        for (client, wanted) in clients.iter().zip(&wants) {
            client.seen.assert_is_of(&node.keyspace, wanted);
            assert!(client.seen.images >= 1 && client.seen.modes.is_empty());
            assert!(client.lost > 3, "{}", client.lost);
        }
        assert!(clients[1].seen.records.len() <= 4 && !clients[1].seen.records.is_empty());
        let counts = node.counts();
        assert!(counts.resent_messages > 100, "{counts:?}");
        assert_eq!((counts.begun, counts.slowed, node.subscribers()), (3, 0, 3));
    }
}

#[test]
fn a_conflated_subscriber_ends_with_the_same_records_and_is_told_what_it_missed() {
    let day = Day::new(MONDAY, 5, 20, 20_000);
    let mut node = Node::new(spec());
    let full = everything();
    let conflated = nautilus_dataplane::feed::distribution::subscriber::Wanted {
        mode: Mode::Conflated,
        interval_us: 10_000,
        ..everything()
    };
    let mut clients = [
        Client::new(source(10, 4_000), 1, full.clone(), 0, 1),
        Client::new(source(11, 4_000), 1, conflated.clone(), 30, 2),
    ];
    turns(&mut node, &mut clients, 20);
    play(&mut node, &mut clients, &day.packets);
    settle(&mut node, &mut clients, &day.heartbeat);
    for client in &clients {
        client.seen.assert_is_of(&node.keyspace, &full);
    }
    let [full, conflated] = clients.map(|client| client.seen);
    assert!(conflated.changes * 4 < full.changes, "{} {}", conflated.changes, full.changes);
    assert!(conflated.left_out > 1_000 && full.left_out == 0);
    assert!(conflated.changes > 100);
}

#[test]
fn a_quiet_subscriber_hears_heartbeats_and_notices_a_lost_end() {
    let day = Day::new(MONDAY, 1, 5, 2_000);
    let mut node = Node::new(spec());
    let mut clients = [Client::new(source(10, 4_000), 1, everything(), 0, 1)];
    turns(&mut node, &mut clients, 10);
    play(&mut node, &mut clients, &day.packets[..30]);
    clients[0].deaf = true;
    play(&mut node, &mut clients, &day.packets[30..]);
    clients[0].deaf = false;
    // Nothing more comes of the venue but heartbeats.
    settle(&mut node, &mut clients, &day.heartbeat);
    clients[0].seen.assert_is_of(&node.keyspace, &everything());
    assert!(node.counts().resent_messages > 100);
}

/// Sends a request as somebody does who follows the protocol, and gives the reply.
fn ask(node: &mut Node, from: Endpoint, request: &mut Request<'_>, symbols: &[Symbol]) -> Reply {
    loop {
        node.receive(from, ASKED, &request.encode(symbols));
        let sent = std::mem::take(&mut node.wire.sent);
        let mut replies = sent.iter().filter(|(to, _)| *to == from);
        let reply = replies.find_map(|(_, bytes)| Reply::parse(bytes)).unwrap();
        if reply.verdict != Verdict::Cookie {
            return reply;
        }
        assert_ne!(reply.cookie, request.cookie);
        request.cookie = reply.cookie;
    }
}

fn verdict(node: &mut Node, from: Endpoint, number: u64, records: u8) -> (Verdict, Reason) {
    let reply = ask(node, from, &mut Request::to_all(number, Records(records), 0), &[]);
    assert_eq!(reply.number, number);
    (reply.verdict, reply.reason)
}

#[test]
fn a_source_that_does_not_answer_is_sent_one_short_reply_and_nothing_else() {
    let mut node = Node::new(spec());
    let forged = Request::to_all(1, Records(1), 0).encode(&[]);
    for _ in 0..100 {
        node.receive(source(10, 4_000), ASKED, &forged);
        let sent = std::mem::take(&mut node.wire.sent);
        assert_eq!(sent.len(), 1);
        assert!(sent[0].1.len() <= forged.len());
        assert_eq!(Reply::parse(&sent[0].1).unwrap().verdict, Verdict::Cookie);
    }
    // The cookie of one source, port or name is not another's.
    let mut request = Request::to_all(1, Records(1), 0);
    assert_eq!(ask(&mut node, source(10, 4_000), &mut request, &[]).verdict, Verdict::Accepted);
    for (from, number) in [(source(11, 4_000), 1), (source(10, 4_001), 1), (source(10, 4_000), 2)] {
        let mut other = Request::to_all(number, Records(1), 0);
        other.cookie = request.cookie;
        node.receive(from, ASKED, &other.encode(&[]));
        let sent = std::mem::take(&mut node.wire.sent);
        let reply = sent.iter().filter(|(to, _)| *to == from).find_map(|(_, b)| Reply::parse(b));
        assert_eq!(reply.unwrap().verdict, Verdict::Cookie);
    }
    assert_eq!(node.subscribers(), 1);
}

#[test]
fn what_is_not_to_be_had_is_refused_with_its_reason() {
    let narrow = Entitlement {
        prefix: "198.18.1.0/24".parse().unwrap(),
        records: Records(0x11),
        depth_max: 2,
        subscriptions_max: 9,
        symbols: Some(Box::new([Symbol::new("AAPL").unwrap()])),
    };
    let wide = spec().entitlements.at(0).clone();
    let mut node = Node::new(DistributionSpec {
        entitlements: Entitlements::new(vec![wide, narrow]),
        ..spec()
    });
    let refused = |reason| (Verdict::Refused, reason);
    assert_eq!(verdict(&mut node, source(10, 1), 1, 1), (Verdict::Accepted, Reason::None));
    // Again: it is the same one.
    assert_eq!(verdict(&mut node, source(10, 1), 1, 1), (Verdict::Accepted, Reason::None));
    assert_eq!(verdict(&mut node, source(10, 1), 1, 2), refused(Reason::Other));
    assert_eq!(verdict(&mut node, source(10, 2), 1, 1), (Verdict::Accepted, Reason::None));
    assert_eq!(verdict(&mut node, source(10, 3), 1, 1), refused(Reason::TooMany));
    assert_eq!(verdict(&mut node, source(11, 1), 1, 0), refused(Reason::Records));
    assert_eq!(verdict(&mut node, source(11, 1), 1, 0x10), refused(Reason::Depth));
    let stranger = Endpoint::v4([198, 19, 0, 1], 1);
    assert_eq!(verdict(&mut node, stranger, 1, 1), refused(Reason::NotEntitled));
    let limited = Endpoint::v4([198, 18, 1, 1], 1);
    assert_eq!(verdict(&mut node, limited, 1, 2), refused(Reason::Records));
    let symbols = ["AAPL", "MSFT"].map(|name| Symbol::new(name).unwrap());
    let mut request = Request::to_all(1, Records(0x10), 3);
    assert_eq!(ask(&mut node, limited, &mut request, &symbols[..1]).reason, Reason::Depth);
    request.depth = 2;
    assert_eq!(ask(&mut node, limited, &mut request, &symbols).reason, Reason::Symbols);
    assert_eq!(ask(&mut node, limited, &mut request, &symbols[..1]).verdict, Verdict::Accepted);
    assert_eq!(verdict(&mut node, source(12, 1), 1, 1), (Verdict::Accepted, Reason::None));
    assert_eq!(verdict(&mut node, source(13, 1), 1, 1), refused(Reason::Full));
    // One leaves, and there is room.
    let mut leaving = Request::to_all(1, Records(1), 0);
    leaving.verb = Verb::Unsubscribe;
    let reply = ask(&mut node, source(12, 1), &mut leaving, &[]);
    assert_eq!((reply.verdict, reply.reason), (Verdict::Ended, Reason::Unsubscribed));
    assert_eq!(verdict(&mut node, source(13, 1), 1, 1), (Verdict::Accepted, Reason::None));
    let reply = ask(&mut node, source(12, 1), &mut leaving, &[]);
    assert_eq!((reply.verdict, reply.reason), (Verdict::Ended, Reason::Unknown));
    // Another version is told so; noise is not answered.
    let mut other = Request::to_all(1, Records(1), 0).encode(&[]);
    other[3] = b'2';
    node.receive(source(14, 1), ASKED, &other);
    let sent = std::mem::take(&mut node.wire.sent);
    let reply = sent.iter().find(|(to, _)| *to == source(14, 1)).unwrap();
    assert_eq!(Reply::parse(&reply.1).unwrap().reason, Reason::Version);
    let counts = node.counts();
    for reason in [Reason::NotEntitled, Reason::Symbols, Reason::Full, Reason::TooMany] {
        assert_eq!(counts.refused[reason as usize], 1, "{reason:?}");
    }
    assert_eq!(node.subscribers(), 4);
}

#[test]
fn one_that_is_entitled_to_some_symbols_gets_those_of_all() {
    let day = Day::new(MONDAY, 3, 9, 3_000);
    let names = ["ZAAB", "ZAAE"].map(|name| Symbol::new(name).unwrap());
    let mut entitlement = spec().entitlements.at(0).clone();
    entitlement.symbols = Some(Box::new(names));
    let entitlements = Entitlements::new(vec![entitlement]);
    let mut node = Node::new(DistributionSpec { entitlements, ..spec() });
    let mut clients = [Client::new(source(10, 1), 1, everything(), 0, 1)];
    play(&mut node, &mut clients, &day.packets);
    settle(&mut node, &mut clients, &day.heartbeat);
    let only = wanted(0x7f, 3, Mode::Full, &["ZAAB", "ZAAE"]);
    clients[0].seen.assert_is_of(&node.keyspace, &only);
}

#[test]
fn a_place_taken_again_has_nothing_of_who_had_it_before() {
    // So many stocks that an image takes a while to come to the last.
    let day = Day::new(MONDAY, 3, 6_000, 60_000);
    let (early, late) = day.packets.split_at(day.packets.len() * 3 / 4);
    let mut node = Node::new(DistributionSpec { subscribers_max: 1, ..spec() });
    let mut before = [Client::new(source(10, 1), 1, everything(), 0, 1)];
    play(&mut node, &mut before, early);
    node.receive(source(10, 1), ASKED, &before[0].subscriber.unsubscribe());
    assert_eq!(node.subscribers(), 0);
    let only = wanted(0x7f, 3, Mode::Full, &["ZAAC"]);
    let mut after = [Client::new(source(11, 1), 1, only.clone(), 0, 1)];
    play(&mut node, &mut after, late);
    settle(&mut node, &mut after, &day.heartbeat);
    let mut seen = std::mem::take(&mut after[0].seen);
    seen.assert_is_of(&node.keyspace, &only);
    assert_eq!(seen.foreign(Symbol::new("ZAAC").unwrap()), 0);
    assert!(before[0].seen.changes > 10_000, "{}", before[0].seen.changes);
}

#[test]
fn a_lease_that_is_not_renewed_is_over() {
    let mut node = Node::new(spec());
    assert_eq!(verdict(&mut node, source(10, 1), 1, 1).0, Verdict::Accepted);
    for _ in 0..=LEASE_NS / TURN_NS {
        assert_eq!(node.subscribers(), 1);
        node.turn();
    }
    let sent = node.turn();
    assert_eq!(node.subscribers(), 0, "{sent:?}");
    assert_eq!(node.counts().ended[Reason::Lease as usize], 1);
}

/// Subscribes, and acknowledges nothing more but renews.
fn slow_one(node: &mut Node, day: &Day) -> Request<'static> {
    let mut request = Request::to_all(1, Records::ALL, 3);
    assert_eq!(ask(node, source(10, 1), &mut request, &[]).verdict, Verdict::Accepted);
    request.verb = Verb::Renew;
    for (turn, packet) in day.packets.iter().enumerate() {
        node.receive(source(250, 1), LINE, packet);
        for _ in 0..600 {
            node.turn();
        }
        if turn % 20 == 0 {
            node.receive(source(10, 1), ASKED, &request.encode(&[]));
        }
    }
    request
}

#[test]
fn one_that_does_not_keep_up_is_conflated_and_then_ended() {
    let day = Day::new(MONDAY, 3, 9, 2_000);
    let mut node = Node::new(spec());
    slow_one(&mut node, &day);
    let counts = node.counts();
    assert_eq!(counts.slowed, 1, "{counts:?}");
    assert!(counts.ended[Reason::Slow as usize] == 1 && node.subscribers() == 0, "{counts:?}");

    let mut node = Node::new(DistributionSpec { slow: SlowPolicy::End, ..spec() });
    slow_one(&mut node, &day);
    let counts = node.counts();
    assert_eq!((counts.slowed, counts.ended[Reason::Slow as usize]), (0, 1));
}

#[test]
fn one_that_was_conflated_and_hears_again_goes_on_with_whole_records() {
    let day = Day::new(MONDAY, 3, 9, 6_000);
    let mut node = Node::new(DistributionSpec { history_bytes: 1 << 16, ..spec() });
    let mut clients = [Client::new(source(10, 1), 1, everything(), 0, 1)];
    turns(&mut node, &mut clients, 20);
    // The port takes nothing for so long that the history is overrun.
    let (early, late) = day.packets.split_at(day.packets.len() / 2);
    node.wire.room = 0;
    play(&mut node, &mut clients, early);
    node.wire.room = usize::MAX;
    play(&mut node, &mut clients, late);
    settle(&mut node, &mut clients, &day.heartbeat);
    assert_eq!((node.counts().slowed, node.subscribers()), (1, 1));
    assert_eq!(clients[0].seen.modes, [Mode::Conflated]);
    clients[0].seen.assert_is_of(&node.keyspace, &everything());
}

#[test]
fn what_the_history_has_no_more_is_answered_with_an_image() {
    let day = Day::new(MONDAY, 3, 9, 20_000);
    let mut node = Node::new(DistributionSpec { history_bytes: 1 << 15, ..spec() });
    let mut clients = [Client::new(source(10, 1), 1, everything(), 0, 1)];
    turns(&mut node, &mut clients, 20);
    play(&mut node, &mut clients, &day.packets[..50]);
    clients[0].deaf = true;
    play(&mut node, &mut clients, &day.packets[50..600]);
    clients[0].deaf = false;
    play(&mut node, &mut clients, &day.packets[600..]);
    settle(&mut node, &mut clients, &day.heartbeat);
    clients[0].seen.assert_is_of(&node.keyspace, &everything());
    let counts = node.counts();
    assert!(counts.gone > 0 && clients[0].seen.images >= 2, "{counts:?}");
    assert_eq!(counts.slowed, 0);
}

#[test]
fn a_subscriber_whose_node_forgot_it_subscribes_again() {
    let day = Day::new(MONDAY, 3, 9, 6_000);
    let mut node = Node::new(spec());
    let mut clients = [Client::new(source(10, 1), 1, everything(), 0, 1)];
    play(&mut node, &mut clients, &day.packets[..100]);
    // Another worker, which was told of nobody and takes the channel over.
    let now_ns = node.now_ns;
    node = Node::new(spec());
    node.now_ns = now_ns;
    play(&mut node, &mut clients, &day.packets);
    settle(&mut node, &mut clients, &day.heartbeat);
    assert_eq!(clients[0].subscriber.ended(), Some(Reason::Unknown));
    clients[0].seen.assert_is_of(&node.keyspace, &everything());
}

#[test]
fn every_packet_is_moldudp64_of_its_subscriber_with_numbers_that_go_on() {
    let day = Day::new(MONDAY, 9, 9, 5_000);
    let mut node = Node::new(spec());
    for (last, number) in [(10, 1), (11, 1)] {
        assert_eq!(verdict(&mut node, source(last, 1), number, 0x0f).0, Verdict::Accepted);
    }
    let mut next = [0u64; 2];
    let mut sessions = [None; 2];
    for packet in &day.packets {
        node.receive(source(250, 1), LINE, packet);
        for (to, bytes) in node.turn() {
            let place = usize::from(to.v4_octets()[3] - 10);
            let packet = Packet::parse(&bytes).unwrap();
            packet.check().unwrap();
            assert_eq!(*sessions[place].get_or_insert(packet.session), packet.session);
            let text = packet.session.0;
            assert!(text.iter().all(u8::is_ascii_alphanumeric), "{text:?}");
            if let Kind::Messages(count) = packet.kind {
                let expected = next[place].max(packet.sequence);
                assert_eq!(packet.sequence, expected);
                next[place] = expected + u64::from(count);
                assert!(bytes.len() <= 1_400);
                for message in packet.messages() {
                    assert!(message.unwrap().len() <= MESSAGE_BYTES_MAX);
                }
            }
        }
    }
    assert_ne!(sessions[0], sessions[1]);
    assert!(next.iter().all(|next| *next > 1_000), "{next:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_datagram_breaks_anything(
        datagrams in prop::collection::vec(
            (0u8..8, 0u16..3, prop::collection::vec(any::<u8>(), 0..200), any::<[u8; 24]>(), 0u8..6),
            1..80,
        ),
        seed in any::<u64>(),
    ) {
        let mut node = Node::new(DistributionSpec { history_bytes: 4_096, ..spec() });
        let day = Day::new(MONDAY, 1, 3, 400);
        let mut random = Random::new(seed);
        let mut cookies = std::collections::BTreeMap::new();
        for (last, port, noise, fields, shape) in datagrams {
            let from = source(last, port);
            let number = u64::from(fields[0] % 3);
            let mut request = Request::to_all(number, Records(fields[1]), fields[2] % 12);
            request.verb = [Verb::Subscribe, Verb::Renew, Verb::Unsubscribe][usize::from(fields[3] % 3)];
            request.mode = if fields[4] % 2 == 0 { Mode::Full } else { Mode::Conflated };
            request.next_sequence = u64::from_le_bytes(fields[8..16].try_into().unwrap()) >> (fields[5] % 64);
            request.interval_us = u32::from_le_bytes(fields[16..20].try_into().unwrap());
            request.cookie = cookies.get(&(from, number)).copied().unwrap_or(0);
            let mut bytes = request.encode(&[]);
            match shape {
                0 => bytes = noise,
                1 => bytes.extend(noise),
                2 => { let at = random.below(REQUEST_BYTES as u32) as usize; bytes[at] ^= fields[6] }
                3 => bytes.truncate(usize::from(fields[6]) % REQUEST_BYTES),
                4 => {
                    bytes = MessageRequest {
                        session: nautilus_dataplane::feed::moldudp64::Session(fields[..10].try_into().unwrap()),
                        sequence: request.next_sequence,
                        count: u16::from(fields[7]),
                    }.encode().to_vec();
                }
                _ => {}
            }
            node.receive(from, ASKED, &bytes);
            let packet = &day.packets[random.below(day.packets.len() as u32) as usize];
            node.receive(source(250, 1), LINE, packet);
            for (to, bytes) in node.turn() {
                if let Some(reply) = Reply::parse(&bytes) {
                    if reply.verdict == Verdict::Cookie {
                        cookies.insert((to, reply.number), reply.cookie);
                    }
                } else {
                    let packet = Packet::parse(&bytes).unwrap();
                    prop_assert!(packet.check().is_ok());
                }
            }
            prop_assert!(node.subscribers() <= 4);
        }
    }

    #[test]
    fn no_datagram_breaks_a_subscriber(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40),
    ) {
        let mut subscriber = Subscriber::new(1, everything());
        for (turn, datagram) in datagrams.iter().enumerate() {
            let now_ns = turn as u64 * TURN_NS;
            subscriber.receive(now_ns, datagram, |_| {});
            while subscriber.poll(now_ns).is_some() {}
            prop_assert!(!subscriber.is_believable(now_ns));
        }
    }
}
