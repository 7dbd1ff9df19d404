//! What is being asked of request servers, in pieces that fit a reply.
//!
//! ```text
//!   missing   [1000 ....................................... 4200)   before what is held
//!   pieces    [1000..1032) [1032..1064) ...                          at most WINDOW_PIECES at once
//!   cursor                                   ^ nothing before it is asked for a first time again
//! ```
//!
//! A reply brings as many messages as fit a packet, so a piece that is answered in part is asked for again
//! from where the reply ended. Without a reply in time a piece is asked for again, of the next server, and
//! the time doubles. Whoever answered last is asked first. Owned by a channel's recovery.
//!
//! MoldUDP64 1.00, "Request Packet": session, first sequence number, count of messages.

use super::RecoveryCounts;
use crate::feed::arbitration::Arbitration;
use crate::feed::moldudp64::{MessageRequest, REQUEST_BYTES, Session};

/// Messages of one piece. Too low: more requests than needed. Too high: a reply has room for fewer, and every
/// piece is asked for twice.
pub const PIECE_MESSAGES: u64 = 32;

/// Pieces on their way at once. Too low: a long hole takes a round trip each few messages. Too high: replies
/// come in a burst that finds no room.
pub const WINDOW_PIECES: usize = 32;

/// How often a piece is asked for before the servers are given up.
pub const TRIES_MAX: u32 = 6;

/// A piece that is to be asked for, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceRequest {
    /// Which server is asked.
    pub server: usize,
    /// First message wanted.
    pub sequence: u64,
    /// How many, 1..=[`PIECE_MESSAGES`].
    pub count: u16,
}

impl PieceRequest {
    /// The packet.
    pub fn encode(&self, session: Session) -> [u8; REQUEST_BYTES] {
        MessageRequest { session, sequence: self.sequence, count: self.count }.encode()
    }
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    sequence: u64,
    next_sequence: u64,
    /// When it is asked for again.
    due_ns: u64,
    tries: u32,
    server: usize,
}

/// The pieces of one channel.
pub struct Requests {
    servers: usize,
    timeout_ns: u64,
    pieces: Vec<Piece>,
    cursor: u64,
    /// Who is asked first.
    server: usize,
    is_exhausted: bool,
}

impl Requests {
    /// Nothing is asked for, of so many servers.
    pub fn new(servers: usize, timeout_ns: u64) -> Self {
        let pieces = Vec::with_capacity(WINDOW_PIECES);
        Self { servers, timeout_ns, pieces, cursor: 0, server: 0, is_exhausted: false }
    }

    /// Whether there is anyone to ask.
    pub fn has_servers(&self) -> bool {
        self.servers > 0
    }

    /// Whether they were given up: no piece was answered [`TRIES_MAX`] times.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Nothing is missing any more.
    pub fn forget(&mut self) {
        self.pieces.clear();
        (self.cursor, self.is_exhausted) = (0, false);
    }

    /// Whether these messages are of a piece that was asked for, and no more than that.
    pub fn is_awaited(&self, sequence: u64, next_sequence: u64) -> bool {
        next_sequence.saturating_sub(sequence) <= PIECE_MESSAGES
            && self.pieces.iter().any(|piece| {
                piece.tries > 0 && sequence < piece.next_sequence && piece.sequence < next_sequence
            })
    }

    /// This server has answered.
    pub fn prefer(&mut self, server: usize) {
        self.server = server;
    }

    /// These messages have been applied or are held.
    #[inline]
    pub fn note(&mut self, sequence: u64, next_sequence: u64) {
        if self.pieces.is_empty() {
            return;
        }
        self.pieces.retain_mut(|piece| {
            let overlaps = sequence < piece.next_sequence && piece.sequence < next_sequence;
            if overlaps && sequence <= piece.sequence {
                piece.sequence = next_sequence;
                // The rest is asked for at once: this was an answer.
                (piece.tries, piece.due_ns) = (0, 0);
            } else if overlaps && next_sequence >= piece.next_sequence {
                piece.next_sequence = sequence;
            }
            piece.sequence < piece.next_sequence
        });
    }

    /// The next request at this time. Of what is missing only that is asked for which was seen to be
    /// missing at `since_ns` or before.
    pub fn next(
        &mut self,
        now_ns: u64,
        since_ns: u64,
        arbitration: &Arbitration,
        counts: &mut RecoveryCounts,
    ) -> Option<PieceRequest> {
        let due = self.pieces.iter().position(|piece| piece.due_ns <= now_ns);
        let place = match due {
            Some(place) => {
                let piece = &self.pieces[place];
                counts.timeouts += u64::from(piece.tries > 0);
                if piece.tries >= TRIES_MAX {
                    counts.exhausted += 1;
                    self.pieces.clear();
                    self.is_exhausted = true;
                    return None;
                }
                place
            }
            None => self.begin_piece(since_ns, arbitration)?,
        };
        let piece = &mut self.pieces[place];
        piece.due_ns = now_ns.saturating_add(self.timeout_ns << piece.tries);
        piece.server = match piece.tries {
            0 => self.server,
            _ => (piece.server + 1) % self.servers.max(1),
        };
        piece.tries += 1;
        let count = (piece.next_sequence - piece.sequence) as u16;
        Some(PieceRequest { server: piece.server, sequence: piece.sequence, count })
    }

    fn begin_piece(&mut self, since_ns: u64, arbitration: &Arbitration) -> Option<usize> {
        if self.pieces.len() == WINDOW_PIECES {
            return None;
        }
        let missing = match arbitration.missing_from(self.cursor) {
            Ok(missing) => missing,
            Err(end) => {
                self.cursor = end;
                return None;
            }
        };
        self.cursor = missing.sequence;
        if missing.seen_ns > since_ns {
            return None;
        }
        let next_sequence = missing.next_sequence.min(missing.sequence + PIECE_MESSAGES);
        self.cursor = next_sequence;
        let sequence = missing.sequence;
        self.pieces.push(Piece { sequence, next_sequence, due_ns: 0, tries: 0, server: 0 });
        Some(self.pieces.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::held::HeldLimits;
    use super::super::super::moldudp64::{HEADER_BYTES, Packet, write_header};
    use super::super::super::session::Start;
    use super::*;

    const MONDAY: Session = Session(*b"000000MON1");
    const TIMEOUT_NS: u64 = 1_000;

    /// Applied up to `expected`, with messages held from `held` on, seen at `seen_ns`.
    fn missing(expected: u64, held: u64, seen_ns: u64) -> Arbitration {
        let mut arbitration = Arbitration::new(Start::Session, 1, Some(HeldLimits::default()));
        arbitration.begin(MONDAY, 1);
        for (sequence, count, rx_ns) in [(1, expected - 1, 0), (held, 1, seen_ns)] {
            let mut bytes = [0; HEADER_BYTES];
            write_header(&mut bytes, MONDAY, sequence, count as u16);
            arbitration.offer(rx_ns, &Packet::parse(&bytes).unwrap(), &bytes);
        }
        arbitration
    }

    fn all(requests: &mut Requests, now_ns: u64, arbitration: &Arbitration) -> Vec<PieceRequest> {
        let mut counts = RecoveryCounts::default();
        std::iter::from_fn(|| requests.next(now_ns, now_ns, arbitration, &mut counts)).collect()
    }

    fn ranges(requests: &[PieceRequest]) -> Vec<(usize, u64, u16)> {
        let range = |request: &PieceRequest| (request.server, request.sequence, request.count);
        requests.iter().map(range).collect()
    }

    #[test]
    fn a_packet_is_the_one_of_the_protocol() {
        let request = PieceRequest { server: 9, sequence: 0x0102_0304_0506_0708, count: 0x0910 };
        let packet = request.encode(MONDAY);
        assert_eq!(packet[..10], MONDAY.0);
        assert_eq!(packet[10..], [1, 2, 3, 4, 5, 6, 7, 8, 9, 16]);
    }

    #[test]
    fn what_is_missing_is_asked_for_once_in_pieces() {
        let arbitration = missing(10, 110, 5);
        let mut requests = Requests::new(1, TIMEOUT_NS);
        assert!(all(&mut requests, 4, &arbitration).is_empty(), "not seen yet");
        let asked = ranges(&all(&mut requests, 5, &arbitration));
        assert_eq!(asked, [(0, 10, 32), (0, 42, 32), (0, 74, 32), (0, 106, 4)]);
        assert!(all(&mut requests, 6, &arbitration).is_empty());
        // A reply in part: the rest at once. A line brings some of the next piece's end.
        requests.note(10, 30);
        requests.note(70, 80);
        let again = ranges(&all(&mut requests, 7, &arbitration));
        assert_eq!(again, [(0, 30, 12), (0, 80, 26)]);
        assert!(requests.is_awaited(42, 70) && requests.is_awaited(60, 80));
        assert!(!requests.is_awaited(70, 80) && !requests.is_awaited(42, 75), "33 are too many");
    }

    #[test]
    fn the_window_bounds_what_is_on_its_way() {
        let arbitration = missing(10, 10_000, 5);
        let mut requests = Requests::new(1, TIMEOUT_NS);
        assert_eq!(all(&mut requests, 5, &arbitration).len(), WINDOW_PIECES);
        requests.note(10, 10 + 2 * PIECE_MESSAGES);
        assert_eq!(all(&mut requests, 6, &arbitration).len(), 2);
    }

    #[test]
    fn without_an_answer_the_next_server_is_asked_and_later_each_time() {
        let arbitration = missing(10, 12, 5);
        let mut requests = Requests::new(2, TIMEOUT_NS);
        let (mut now_ns, mut asked) = (5, Vec::new());
        while !requests.is_exhausted() {
            for request in all(&mut requests, now_ns, &arbitration) {
                asked.push((now_ns - 5, request.server));
            }
            now_ns += TIMEOUT_NS;
        }
        let doubling = [(0, 0), (1, 1), (3, 0), (7, 1), (15, 0), (31, 1)];
        assert_eq!(asked, doubling.map(|(times, server)| (times * TIMEOUT_NS, server)));
        assert_eq!(asked.len() as u32, TRIES_MAX);
        requests.forget();
        requests.prefer(1);
        let first = all(&mut requests, now_ns, &arbitration);
        assert_eq!(ranges(&first), [(1, 10, 2)], "whoever answered last");
    }
}
