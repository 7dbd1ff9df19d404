//! What every port must do, seen from a client.

use std::time::{Duration, Instant};

use nautilus_dataplane::limits::{BURST_DATAGRAMS_MAX, REPLY_PAYLOAD_BYTES_MAX};
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::port::{Burst, Path, Port, SendError, Transmit};

/// The other side of a port.
pub trait Client {
    fn endpoint(&self) -> Endpoint;
    fn service(&self) -> Endpoint;
    fn send(&mut self, payload: &[u8]);
    /// Waits a moment.
    fn receive(&mut self) -> Option<Vec<u8>>;
    /// The clock of the port's stamps.
    fn now_ns(&self) -> u64 {
        nautilus_shm::clock::monotonic_ns()
    }
}

/// Receives until something came or a moment has passed.
fn receive<P: Port>(port: &mut P) -> usize {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let count = port.receive();
        if count != 0 || Instant::now() > end {
            return count;
        }
        port.release();
        port.flush();
    }
}

/// A payload that says which one it is.
pub fn pattern(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number.wrapping_mul(31) ^ at.wrapping_mul(7)) as u8).collect()
}

fn echo<P: Port>(port: &mut P) -> usize {
    let count = receive(port);
    let (burst, tx) = port.split();
    for index in 0..count {
        let datagram = burst.get(index);
        tx.send(&datagram.reply_path(), |buffer| {
            assert!(buffer.len() >= REPLY_PAYLOAD_BYTES_MAX);
            buffer[..datagram.payload.len()].copy_from_slice(datagram.payload);
            datagram.payload.len()
        })
        .unwrap();
    }
    drop(burst);
    port.release();
    port.flush();
    count
}

pub fn run<P: Port>(port: &mut P, client: &mut impl Client) {
    nothing_gives_nothing(port);
    a_datagram_is_what_was_sent(port, client);
    every_length_comes_back(port, client);
    a_burst_is_bounded_and_in_order(port, client);
    what_cannot_be_sent_is_refused(port, client);
    more_replies_than_requests(port, client);
    assert_eq!(port.frame_counts().held, 0, "a frame is still held");
}

fn nothing_gives_nothing<P: Port>(port: &mut P) {
    assert_eq!(port.receive(), 0);
    assert!(port.split().0.is_empty());
    port.release();
    port.flush();
}

fn a_datagram_is_what_was_sent<P: Port>(port: &mut P, client: &mut impl Client) {
    let before_ns = client.now_ns();
    client.send(b"one");
    assert_eq!(receive(port), 1);
    {
        let (burst, _) = port.split();
        let datagram = burst.get(0);
        assert_eq!(datagram.source, client.endpoint());
        assert_eq!(datagram.destination, client.service());
        assert_eq!(datagram.payload, b"one");
        let after_ns = client.now_ns();
        assert!((before_ns..=after_ns).contains(&datagram.rx_ns), "stamped {}", datagram.rx_ns);
    }
    port.release();
    port.flush();
    // At most once: it does not come again.
    assert_eq!(port.receive(), 0);
    port.release();
}

fn every_length_comes_back<P: Port>(port: &mut P, client: &mut impl Client) {
    for length in [0, 1, 2, 3, 17, 18, 64, 1399, REPLY_PAYLOAD_BYTES_MAX] {
        let payload = pattern(length, length);
        client.send(&payload);
        assert_eq!(echo(port), 1);
        assert_eq!(client.receive(), Some(payload));
    }
}

fn a_burst_is_bounded_and_in_order<P: Port>(port: &mut P, client: &mut impl Client) {
    let count = 2 * BURST_DATAGRAMS_MAX + 5;
    for number in 0..count {
        client.send(&pattern(number, 40));
    }
    let mut taken = 0;
    while taken < count {
        let burst = echo(port);
        assert!((1..=BURST_DATAGRAMS_MAX).contains(&burst), "a burst of {burst}");
        taken += burst;
    }
    for number in 0..count {
        assert_eq!(client.receive(), Some(pattern(number, 40)), "reply {number}");
    }
}

fn what_cannot_be_sent_is_refused<P: Port>(port: &mut P, client: &mut impl Client) {
    let before = port.counters().clone();
    let path = Path { from: client.service(), to: client.endpoint(), link: Default::default() };
    let (_, tx) = port.split();
    assert_eq!(tx.send(&path, |_| 70_000), Err(SendError::TooLong));
    let other = if path.to.is_v4() { "[fd00:6e61::9]:1" } else { "198.18.0.9:1" };
    let other = Endpoint::from(other.parse::<std::net::SocketAddr>().unwrap());
    let mixed = Path { to: other, ..path };
    assert_eq!(tx.send(&mixed, |_| 0), Err(SendError::NoNeighbour));
    let group = Endpoint::v4([239, 1, 1, 1], path.from.port);
    let from_group = Path { from: group, ..path };
    assert_eq!(tx.send(&from_group, |_| 0), Err(SendError::NoNeighbour));
    port.flush();
    let after = port.counters();
    assert_eq!(after.too_long_count, before.too_long_count + 1);
    assert_eq!(after.no_neighbour_count, before.no_neighbour_count + 2);
    assert_eq!(after.sent_count, before.sent_count);
}

/// One request answered by many datagrams, more than one batch of anything.
fn more_replies_than_requests<P: Port>(port: &mut P, client: &mut impl Client) {
    /// As many as a client's socket buffer of the usual size holds.
    const REPLIES: usize = 75;
    client.send(b"many");
    assert_eq!(receive(port), 1);
    let path = port.split().0.get(0).reply_path();
    for number in 0..REPLIES {
        let payload = pattern(number, 700);
        let (_, tx) = port.split();
        tx.send(&path, |buffer| {
            buffer[..payload.len()].copy_from_slice(&payload);
            payload.len()
        })
        .unwrap();
    }
    port.release();
    port.flush();
    for number in 0..REPLIES {
        assert_eq!(client.receive(), Some(pattern(number, 700)), "reply {number}");
    }
}
