//! What becomes of subscribers when the venue's session changes or is doubted, and what images hold.

use nautilus_dataplane::feed::distribution::DistributionSpec;
use nautilus_dataplane::feed::distribution::subscriber::SILENCE_LIMIT_NS;
use nautilus_dataplane::feed::distribution::wire::State;

use super::world::*;
use super::{MONDAY, TUESDAY, play, settle};

#[test]
fn what_the_channel_doubts_subscribers_doubt_in_the_same_order() {
    let monday = Day::new(MONDAY, 1, 5, 3_000);
    let tuesday = Day::new(TUESDAY, 2, 5, 3_000);
    let mut node = Node::new(spec());
    let mut clients = [Client::new(source(10, 4_000), 1, everything(), 0, 1)];
    turns(&mut node, &mut clients, 10);
    assert!(!clients[0].subscriber.is_believable(node.now_ns), "there is nothing to believe");
    play(&mut node, &mut clients, &monday.packets[..40]);
    assert!(clients[0].subscriber.is_believable(node.now_ns));
    // The lines are silent for longer than their limit, and the worker is not.
    turns(&mut node, &mut clients, 8_200);
    assert!(!clients[0].subscriber.is_believable(node.now_ns));
    play(&mut node, &mut clients, &monday.packets[40..60]);
    assert!(clients[0].subscriber.is_believable(node.now_ns));
    // A gap, which nothing heals but another session.
    play(&mut node, &mut clients, &monday.packets[61..]);
    assert!(!clients[0].subscriber.is_believable(node.now_ns));
    play(&mut node, &mut clients, &tuesday.packets);
    assert!(clients[0].subscriber.is_believable(node.now_ns));
    clients[0].seen.assert_is_of(&node.keyspace, &everything());
    let expected = [
        State::Session,
        State::Live,
        State::Suspect,
        State::Live,
        State::Suspect,
        State::Session,
        State::Live,
    ];
    assert_eq!(clients[0].seen.states, expected);
    // The worker is gone: the subscriber hears no heartbeat.
    assert!(!clients[0].subscriber.is_believable(node.now_ns + SILENCE_LIMIT_NS + TURN_NS));
}

#[test]
fn an_image_has_nothing_of_the_session_before() {
    let (stocks, messages) = (400, 20_000);
    let monday = Day::new(MONDAY, 1, stocks, messages);
    let tuesday = Day::new(TUESDAY, 2, stocks, messages);
    let mut node = Node::new(spec());
    let mut both = vec![Client::new(source(10, 4_000), 1, everything(), 0, 1)];
    play(&mut node, &mut both, &monday.packets);
    // Most stocks are listed by now, and nothing else is known of them.
    let (early, late) = tuesday.packets.split_at(60);
    play(&mut node, &mut both, early);
    both.push(Client::new(source(11, 4_000), 2, everything(), 0, 1));
    for _ in 0..2_000 {
        turn(&mut node, &mut both);
        if both[1].seen.images > 0 {
            break;
        }
    }
    assert_eq!(both[1].seen.images, 1);
    assert!(both[0].seen.records.len() < 3 * usize::from(stocks), "most are not there yet");
    assert_eq!(both[1].seen.records, both[0].seen.records);
    play(&mut node, &mut both, late);
    settle(&mut node, &mut both, &tuesday.heartbeat);
    for client in both {
        client.seen.assert_is_of(&node.keyspace, &everything());
    }
}

#[test]
fn an_image_waits_for_a_port_that_takes_nothing() {
    let day = Day::new(MONDAY, 1, 2_000, 20_000);
    let mut node = Node::new(DistributionSpec { history_bytes: 1 << 16, ..spec() });
    play(&mut node, &mut [], &day.packets);
    let mut late = [Client::new(source(10, 4_000), 1, everything(), 0, 1)];
    turns(&mut node, &mut late, 20);
    assert_eq!((late[0].seen.images, !late[0].seen.records.is_empty()), (0, true), "it has begun");
    // For as long as the whole image would take, three times over.
    node.wire.room = 0;
    turns(&mut node, &mut late, 3_000);
    node.wire.room = usize::MAX;
    settle(&mut node, &mut late, &day.heartbeat);
    late[0].seen.assert_is_of(&node.keyspace, &everything());
    assert_eq!((node.counts().images, node.counts().gone), (1, 0), "it went on where it was");
}
