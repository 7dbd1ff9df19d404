//! What leaves in a turn: replies, images, rounds of conflation, messages again, new messages, heartbeats.

use super::subscription::Resend;
use super::wire::{FLAG_IMAGE, Kind, Mode, Reason, Records};
use super::{Distribution, bits, values};
use crate::feed::channel::Channel;
use crate::feed::history::History;
use crate::feed::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, Session, write_header};
use crate::feed::record::Value;
use crate::limits::REPLY_PAYLOAD_BYTES_MAX;
use crate::port::{SendError, Transmit};

/// Packets of one subscriber in a turn. Too low: a burst takes turns to leave. Too high: one subscriber holds up
/// the others.
const PACKETS_A_TURN: usize = 4;

/// Between two heartbeats of a quiet subscription. Too low: packets that say nothing. Too high: the death of the
/// worker is noticed later.
pub const HEARTBEAT_NS: u64 = 100_000_000;

/// From the last message to the first heartbeat; each waits twice as long as the one before. Too low: as above.
/// Too high: a loss at the end of a burst is noticed later.
const FIRST_HEARTBEAT_NS: u64 = 1_000_000;

/// Messages that may wait while an image or a round of conflation adds more. Too low: they take longer. Too high:
/// a port that takes nothing for a moment costs the subscriber its history.
const BACKLOG_MAX: u64 = 64;

/// An image goes on once in so long, and no faster. Too low: it overruns the subscriber's buffers. Too high: it
/// takes longer.
const WALK_NS: u64 = 1_000_000;

/// Stocks looked at, and records sent, each time it does: 5 MB a second at most.
const WALK_LOCATES: u32 = 2_048;
const WALK_RECORDS: usize = 32;

/// Stocks of a round of conflation sent in a turn.
const ROUND_STOCKS: usize = 32;

impl Distribution {
    /// Sends what is due, as far as the port takes it; `false` when that has no way to a subscriber. To be called
    /// every turn; bounded.
    pub fn pump(&mut self, now_ns: u64, channel: &Channel, tx: &mut impl Transmit) -> bool {
        self.look(now_ns);
        self.is_halted = false;
        self.has_way = true;
        self.send_replies(tx);
        if self.active == 0 {
            return self.has_way;
        }
        // In turns from another one on: who is last finds least room.
        self.first = (self.first + 1) % self.subscriptions.len();
        let later = self.active & (u64::MAX << self.first);
        for place in bits(later).chain(bits(self.active & !later)) {
            self.serve(place, now_ns, channel, tx);
        }
        self.has_way
    }

    /// In place of [`Self::pump`] while the kill switch is on: every subscription is ended, whoever asks hears why, and
    /// nothing else leaves.
    pub fn fall_silent(&mut self, now_ns: u64, tx: &mut impl Transmit) {
        self.look(now_ns);
        if !self.is_halted {
            self.is_halted = true;
            // What waits was said before. A reply has no price in it, but makes others expect some.
            self.replies.clear();
        }
        for place in self.places() {
            self.end(place, Reason::Halted);
        }
        self.send_replies(tx);
    }

    fn send_replies(&mut self, tx: &mut impl Transmit) {
        while let Some((path, bytes)) = self.replies.front() {
            let sent = tx.send(path, |out| {
                out[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            });
            // One that cannot be reached asks again; only for want of a frame the others wait with it.
            if sent == Err(SendError::NoFrame) {
                return;
            }
            self.has_way &= sent != Err(SendError::NoNeighbour);
            self.replies.pop_front();
        }
    }

    fn serve(&mut self, place: usize, now_ns: u64, channel: &Channel, tx: &mut impl Transmit) {
        let subscription = &mut self.subscriptions[place];
        if now_ns > subscription.lease_until_ns {
            return self.end(place, Reason::Lease);
        }
        if subscription.is_slow(now_ns, self.spec.lease_ns) {
            self.slow(place, now_ns);
            if self.active & (1 << place) == 0 {
                return;
            }
        }
        self.walk(place, now_ns, channel);
        self.round(place, now_ns, channel);
        self.send(place, now_ns, tx);
    }

    /// Goes on with an image.
    fn walk(&mut self, place: usize, now_ns: u64, channel: &Channel) {
        let flags = self.flags() | FLAG_IMAGE;
        let subscription = &mut self.subscriptions[place];
        let Some(first) = subscription.walk.filter(|_| now_ns >= subscription.walk_due_ns) else {
            return;
        };
        if subscription.backlog() > BACKLOG_MAX {
            return;
        }
        subscription.walk_due_ns = now_ns.saturating_add(WALK_NS);
        let (mut next, mut records) = (first, 0);
        if let Some(session) = channel.sequencer().session() {
            if first == 0 {
                for value in [Value::Status, Value::Statistics] {
                    if subscription.records.has(Records::of(value, true)) {
                        channel.publisher().published_of_venue(value, session, |record| {
                            subscription.append_record(value, true, record, flags, 0);
                        });
                    }
                }
            }
            let end = (first + WALK_LOCATES).min(1 << 16);
            while next < end && records < WALK_RECORDS {
                records += self.walk_over(place, next as u16, session, channel, flags);
                next += 1;
            }
        } else {
            next = 1 << 16;
        }
        let subscription = &mut self.subscriptions[place];
        subscription.walk = (next < 1 << 16).then_some(next);
        if subscription.walk.is_none() {
            subscription.append_note(Kind::Image, b'E', flags);
        }
    }

    /// One stock of an image; returns how many records it had.
    fn walk_over(
        &mut self,
        place: usize,
        locate: u16,
        session: Session,
        channel: &Channel,
        flags: u8,
    ) -> usize {
        let Self { subscriptions, interest, spec, .. } = self;
        let subscription = &mut subscriptions[place];
        let entitled = spec.entitlements.at(subscription.entitlement);
        let symbol = channel.publisher().symbol(locate);
        let is_wanted =
            symbol.is_some_and(|symbol| entitled.covers(symbol) && subscription.wants(symbol));
        interest.set(locate, place, is_wanted);
        if !is_wanted {
            return 0;
        }
        let mut count = 0;
        for value in values(spec.depth) {
            if subscription.records.has(Records::of(value, false)) {
                let sent = channel.publisher().published(locate, value, session, |record| {
                    subscription.append_record(value, false, record, flags, 0);
                });
                count += usize::from(sent.is_some());
            }
        }
        count
    }

    /// Goes on with a round of a conflated subscription, or begins one that is due.
    fn round(&mut self, place: usize, now_ns: u64, channel: &Channel) {
        let flags = self.flags();
        let subscription = &mut self.subscriptions[place];
        let Some(session) = channel.sequencer().session() else { return };
        if subscription.mode != Mode::Conflated || subscription.backlog() > BACKLOG_MAX {
            return;
        }
        if subscription.round == 0 {
            if now_ns < subscription.round_due_ns {
                return;
            }
            subscription.round = subscription.changes.len();
            subscription.round_due_ns = now_ns.saturating_add(subscription.interval_ns);
            let venue = subscription.changes.take_venue();
            for value in [Value::Status, Value::Statistics] {
                if venue.has(Records::of(value, true)) {
                    channel.publisher().published_of_venue(value, session, |record| {
                        subscription.append_record(value, true, record, flags, 0);
                    });
                }
            }
        }
        for _ in 0..ROUND_STOCKS.min(subscription.round) {
            subscription.round -= 1;
            let Some(change) = subscription.changes.take() else { break };
            self.counts.left_out += u64::from(change.left_out);
            for value in values(self.spec.depth) {
                if change.records.has(Records::of(value, false)) {
                    channel.publisher().published(change.locate, value, session, |record| {
                        subscription.append_record(value, false, record, flags, change.left_out);
                    });
                }
            }
        }
    }

    /// Sends messages that were asked for again, new ones, or a heartbeat.
    fn send(&mut self, place: usize, now_ns: u64, tx: &mut impl Transmit) {
        let Self { subscriptions, counts, has_way, .. } = self;
        let subscription = &mut subscriptions[place];
        let (path, session) = (subscription.path, subscription.session);
        while let Some(Resend { sequence, count }) = subscription.next_resend() {
            if subscription.history.get(sequence).is_err() {
                // Overtaken meanwhile; who still wants it hears so.
                subscription.resent();
                continue;
            }
            let count_max = u64::from(count).min(subscription.unsent.saturating_sub(sequence));
            let mut sent = 0;
            let result = tx.send(&path, |out| {
                let packed = pack(&subscription.history, session, sequence, count_max, out);
                sent = packed.count;
                packed.bytes
            });
            if let Err(error) = result {
                *has_way &= error != SendError::NoNeighbour;
                counts.delayed_packets += 1;
                return;
            }
            subscription.resent();
            counts.resent_messages += u64::from(sent);
        }
        for _ in 0..PACKETS_A_TURN {
            let waiting = subscription.backlog();
            if waiting == 0 {
                break;
            }
            let mut sent = 0;
            let result = tx.send(&path, |out| {
                let first = subscription.unsent;
                let packed = pack(&subscription.history, session, first, waiting, out);
                sent = packed.count;
                packed.bytes
            });
            if let Err(error) = result {
                *has_way &= error != SendError::NoNeighbour;
                counts.delayed_packets += 1;
                return;
            }
            subscription.unsent += u64::from(sent);
            subscription.heartbeat_ns = FIRST_HEARTBEAT_NS;
            subscription.sent_ns = now_ns;
            counts.packets += 1;
            counts.messages += u64::from(sent);
        }
        if now_ns.saturating_sub(subscription.sent_ns) >= subscription.heartbeat_ns {
            subscription.heartbeat_ns = (2 * subscription.heartbeat_ns).min(HEARTBEAT_NS);
            subscription.sent_ns = now_ns;
            let next_sequence = subscription.unsent;
            // One that is not taken is followed by another.
            let _ = tx.send(&path, |out| header(out, session, next_sequence, 0));
        }
    }
}

/// A packet that was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    bytes: usize,
    count: u16,
}

fn header(out: &mut [u8], session: Session, sequence: u64, count: u16) -> usize {
    if let Some(header) = out.first_chunk_mut::<HEADER_BYTES>() {
        write_header(header, session, sequence, count);
    }
    HEADER_BYTES
}

/// Fills a packet with messages of a history from a number on: as many as fit, and at most `count_max`. The
/// first must be there; every message of a subscription fits.
fn pack(
    history: &History,
    session: Session,
    sequence: u64,
    count_max: u64,
    out: &mut [u8],
) -> Packed {
    let room = out.len().min(REPLY_PAYLOAD_BYTES_MAX);
    // A count of 0xFFFF would say that the session is over.
    let count_max = count_max.min(u64::from(COUNT_END_OF_SESSION - 1)) as u16;
    let (count, bytes) = history.fill(sequence, count_max, &mut out[HEADER_BYTES..room]);
    Packed { bytes: header(out, session, sequence, count) + bytes, count }
}
