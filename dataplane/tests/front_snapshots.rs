//! The snapshot server of a front over the real rings: a channel that shows its books on one side, clients over
//! loopback on the other. What a client is told to be whole is exact, and otherwise nothing is whole.

#[path = "support/snapshots.rs"]
mod snapshots;
#[path = "support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "feed_recovery/world.rs"]
mod world;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use nautilus_dataplane::feed::book::Books;
use nautilus_dataplane::feed::itch::Message;
use nautilus_dataplane::feed::session::Doubt;
use nautilus_dataplane::feed::soupbintcp::packet::ANY_SESSION;
use nautilus_dataplane::feed::soupbintcp::{ClientState, Credentials, RejectReason, SoupClient};
use nautilus_shm::control_region::FRONT_PROCESS;
use nautilus_shm::front_region::FrontRegion;
use nautilus_shm::kill_switch::KillSwitchState;
use nautilus_shm::metrics::labels::ServedSnapshot;
use snapshots::{Client, Front, LIMITS, MILLISECOND, Worker, large, orders, run};
use world::{Day, MONDAY, Setting, TUESDAY, channel};

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
        // The client's kernel acknowledges when it likes to.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(client.is_closed && client.reader.next_sequence().is_none());
    assert_eq!(client.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert_eq!(front.ended(ServedSnapshot::NotExact), 2);
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

fn halt(front: &Front<'_>, is_on: bool) {
    let since_ns = front.now_ns;
    front.switch.set(&KillSwitchState { is_on, since_ns, uid: 0, reason: String::new() });
}

/// What a client hears that reads until its connection is over.
fn read_out(client: &mut Client) {
    let begun = std::time::Instant::now();
    while !client.is_closed {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is still open");
        client.turn();
    }
}

#[test]
fn who_is_at_it_is_cut_off_by_the_kill_switch_and_nobody_is_let_in() {
    let region = FrontRegion::create(c"nautilus-front").unwrap();
    let mut front = Front::new(&region, 1 << 18);
    let mut worker = Worker::new(&region, 1, large(120_000));
    let connect = |front: &Front<'_>| Client::connect(front.at, "secret", ANY_SESSION);
    let turns = |front: &mut Front<'_>, worker: &mut Worker<'_>, count| {
        for _ in 0..count {
            front.turn(MILLISECOND / 10);
            worker.turn();
        }
    };
    // One that is given a snapshot and has not taken it, one whose books are being told, one that waits for a worker
    // that says nothing of them, and one that has not said who it is.
    let mut taking = connect(&front);
    turns(&mut front, &mut worker, 8_000);
    let mut joined = connect(&front);
    worker.pieces_left = 10;
    turns(&mut front, &mut worker, 2_000);
    joined.turn();
    assert_eq!((worker.wanted, joined.soup.state()), (2, ClientState::LoggedIn));
    let mut silent = TcpStream::connect(front.at).unwrap();
    let mut waiting = connect(&front);
    turns(&mut front, &mut worker, 2_000);
    waiting.turn();
    assert_eq!((worker.wanted, waiting.soup.state()), (2, ClientState::LoggingIn));

    assert_eq!(front.switch.obeyed_ns(FRONT_PROCESS).map(|_| ()), Some(()), "off is obeyed, too");
    // It could be given more at once.
    taking.catch_up();
    let taken = taking.messages.len();
    assert!(taken > 0);
    halt(&front, true);
    assert_eq!(front.switch.obeyed_ns(FRONT_PROCESS), None);
    front.turn(MILLISECOND);
    assert_eq!(front.switch.obeyed_ns(FRONT_PROCESS), Some(front.now_ns));
    worker.pieces_left = u32::MAX;
    for client in [&mut taking, &mut joined, &mut waiting] {
        read_out(client);
        assert_eq!(client.reader.next_sequence(), None);
    }
    assert!(taken < 120_000 && joined.messages.is_empty());
    assert_eq!(taking.messages.len(), taken, "nothing more, once the switch is obeyed");
    assert!(taking.is_reset && joined.is_reset && !waiting.is_reset);
    assert_eq!(waiting.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    // Who comes meanwhile is told that there are none, and so is who was there already.
    let mut late = connect(&front);
    run(&mut front, &mut worker, &mut [&mut late], |_, clients| clients[0].is_closed);
    assert_eq!(late.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert!(late.messages.is_empty());
    assert_eq!(worker.wanted, 2, "no worker was asked");
    let mut out = Vec::new();
    late.soup = SoupClient::new(Credentials::new("NODE", "secret").unwrap(), ANY_SESSION, 1);
    late.soup.start(&mut out);
    silent.write_all(&out).unwrap();
    silent.set_nonblocking(true).unwrap();
    (late.socket, late.is_closed) = (silent, false);
    run(&mut front, &mut worker, &mut [&mut late], |_, clients| clients[0].is_closed);
    assert_eq!(late.soup.state(), ClientState::Rejected(RejectReason::NoSession));
    assert_eq!((front.ended(ServedSnapshot::Void), front.ended(ServedSnapshot::Sent)), (5, 0));

    halt(&front, false);
    let mut after = connect(&front);
    run(&mut front, &mut worker, &mut [&mut after], |_, clients| clients[0].is_closed);
    assert_eq!((after.messages.len(), after.reader.next_sequence()), (120_000, Some(120_001)));
}

#[test]
fn what_the_kernel_has_not_sent_yet_is_taken_back_by_the_kill_switch() {
    // At once, and long after the front has nothing more to say to the client.
    for later_ns in [0, 3_000 * MILLISECOND] {
        let region = FrontRegion::create(c"nautilus-front").unwrap();
        let mut front = Front::new(&region, 1 << 18);
        // Less than the buffers of a connection hold, more than a client that does not read is sent.
        let mut worker = Worker::new(&region, 1, large(30_000));
        let mut client = Client::connect(front.at, "secret", ANY_SESSION);
        for _ in 0..5_000 {
            front.turn(MILLISECOND / 100);
            worker.turn();
        }
        front.turn(later_ns);
        front.turn(later_ns);
        halt(&front, true);
        front.turn(MILLISECOND);
        read_out(&mut client);
        assert_eq!(client.reader.next_sequence(), None, "{} messages", client.messages.len());
        assert!(client.messages.len() < 30_000);
    }
}
