//! How often a subscriber renews its lease: again soon without an answer, and never without end.

use super::world::*;
use nautilus_dataplane::feed::distribution::subscriber::Subscriber;
use std::path::Path;
use std::process::Command;

const SUBSCRIBE: u8 = b'S';
const RENEW: u8 = b'R';

/// A reply of 64 bytes that accepts number 1, as the README lays it out.
fn accepted(lease_ms: u16) -> [u8; 64] {
    let mut reply = [0; 64];
    reply[..8].copy_from_slice(b"NXR1A\0F\0");
    reply[8] = 1;
    reply[24..34].copy_from_slice(b"0000000001");
    reply[34..36].copy_from_slice(&lease_ms.to_le_bytes());
    reply
}

#[test]
fn a_lease_lasts_over_a_line_that_loses_much() {
    let mut node = Node::new(spec());
    let mut clients = [1, 2].map(|port| {
        let subscriber = source(10, port);
        Client::new(subscriber, 1, everything(), 400, u64::from(port))
    });
    turns(&mut node, &mut clients, 60 * (LEASE_NS / TURN_NS) as usize);
    assert_eq!(node.counts().ended, [0; _], "{:?}", node.counts());
    assert_eq!(node.subscribers(), 2);
}

#[test]
fn what_is_not_answered_is_said_again_and_what_is_answered_is_not() {
    let mut subscriber = Subscriber::new(1, everything());
    assert_eq!(subscriber.poll(0).unwrap()[4], SUBSCRIBE);
    let mut renewals_in = |from_ms: u64, to_ms: u64, answers: bool, lease_ms: u16| {
        let mut renewals = 0;
        for at_ns in (from_ms * 1_000_000..to_ms * 1_000_000).step_by(1_000_000) {
            // Ends, whatever lease was said.
            for datagram in std::iter::from_fn(|| subscriber.poll(at_ns)).take(100) {
                renewals += u32::from(datagram[4] == RENEW);
            }
            if answers {
                subscriber.receive(at_ns, &accepted(lease_ms), |_| {});
            }
        }
        renewals
    };
    assert_eq!(renewals_in(1, 2_001, true, 2_000), 4);
    // After a quarter of the lease each 50 ms.
    assert_eq!(renewals_in(2_001, 4_001, false, 2_000), 31);
}

#[test]
fn a_lease_of_nothing_does_not_keep_a_subscriber_busy() {
    let mut subscriber = Subscriber::new(1, everything());
    assert_eq!(subscriber.poll(0).unwrap()[4], SUBSCRIBE);
    subscriber.receive(0, &accepted(0), |_| {});
    let sent = std::iter::from_fn(|| subscriber.poll(10_000_000)).take(100);
    assert_eq!(sent.count(), 1);
}

#[test]
fn the_one_in_python_renews_alike() {
    if Command::new("python3").arg("-V").output().is_err() {
        println!("SKIPPED the_one_in_python_renews_alike: python3 is not installed");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/support/renewals.py");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", root.join("client/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.arg(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "4 30 1", "{}", String::from_utf8_lossy(&output.stderr));
}
