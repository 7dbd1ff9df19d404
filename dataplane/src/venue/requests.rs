//! The request server's thread: lost messages over UDP.

use super::shared::Shared;
use crate::feed::moldudp64::REQUEST_BYTES;
use crate::feed::request_server::{RequestCounts, RequestServer};
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

/// How long a thread waits for a datagram before it looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// Answers until the venue stops, and returns what was done and how many answers could not be sent.
pub fn serve(
    socket: &UdpSocket,
    mut server: RequestServer,
    shared: &Shared,
) -> io::Result<(RequestCounts, u64)> {
    socket.set_read_timeout(Some(TURN))?;
    // One byte more than a request, so that a longer datagram is not taken for one.
    let mut datagram = [0; REQUEST_BYTES + 1];
    let (mut answer, mut failures) = (Vec::new(), 0);
    while !shared.is_stopped() {
        // An error is the turn's end, or what came back for an answer to a port that is closed.
        let Ok((bytes, from)) = socket.recv_from(&mut datagram) else { continue };
        let answered = server.answer(
            &datagram[..bytes],
            from.ip(),
            shared.now_ns(),
            shared.read().history(),
            &mut answer,
        );
        if answered.is_ok() && socket.send_to(&answer, from).is_err() {
            failures += 1;
        }
    }
    Ok((server.counts(), failures))
}
