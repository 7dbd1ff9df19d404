//! What a channel has applied, given out again: one clean line of the same session and numbers, and answers to
//! those who lost some of it.
//!
//! ```text
//!   messages applied, in order -> history -> packets -> Transmit (the group)
//!                                    |
//!                        requests -> answers ---------> Transmit (whoever asked)
//! ```
//!
//! The stream is what the venue sent, without what this node itself has not got: every message that was
//! applied in order, as it came and under its own number, whatever the books made of it. Numbers that were
//! given up, or that a snapshot stands for, are missing here too, and a receiver sees a hole. Heartbeats are sent
//! only while nothing is missing and the venue is heard, so that a receiver does not take the silence of a
//! channel in trouble for that of its venue.
//!
//! Packets are made where they are sent, out of the history: a message that waits for the port takes no
//! second room, and one that waited for too long is still there to be asked for. No I/O, no clock, and nothing is
//! allocated after it was made. Written by the worker that owns the channel.

pub mod answers;
mod parting;
pub mod shadow;
pub mod show;
pub mod stocks;

use super::history::History;
use super::moldudp64::{COUNT_END_OF_SESSION, HEADER_BYTES, Packet, Session, write_header};
use super::pack::{BLOCK_OVERHEAD_BYTES, HEARTBEAT_NS, MESSAGES_MAX, PAYLOAD_BYTES_MAX};
use super::request_server::{RequestCounts, RequestLimits};
use crate::limits::REPLY_PAYLOAD_BYTES_MAX;
use crate::net::Endpoint;
use crate::port::{Datagram, Link, Path, SendError, Transmit};
use answers::Answers;
use parting::Parting;

/// Packets sent in one go. Too low: a catch-up is behind for longer. Too high: frames are missing for everything
/// else of the worker.
const PACKETS_A_TURN: usize = 64;

/// Messages that may wait to be sent. Too low: a short stop of the port is a loss on the line. Too high: after a
/// long one the line is behind for as long as it takes to send them.
const WAITING_MAX: u64 = 16_384;

/// Least memory of a history: what may wait to be sent is in it.
pub const HISTORY_BYTES_MIN: usize = 4 << 20;

/// Bytes of a payload that every link takes; a link of a smaller MTU than an Ethernet's makes them fewer, down to
/// here.
const PAYLOAD_BYTES_MIN: usize = 508;

/// What a payload is made smaller by when a link does not take it.
const PAYLOAD_BYTES_STEP: usize = 64;

/// How a feed is given out again.
#[derive(Clone, Copy, Debug)]
pub struct RepublishSpec {
    /// Multicast group and port.
    pub group: Endpoint,
    /// The node's own address and port that packets come from.
    pub from: Endpoint,
    /// Interface, by its place in the node file, that they leave by.
    pub interface: u16,
    /// How long a message may wait for others to share its packet; 0: until the end of its burst.
    pub flush_ns: u64,
    /// Memory of what can be asked for, at least [`HISTORY_BYTES_MIN`].
    pub history_bytes: usize,
    /// Where requests come to, and how often they are answered.
    pub requests: Option<(Endpoint, RequestLimits)>,
    /// Makes the table of those who ask unpredictable; any value.
    pub hash_seed: u64,
}

/// What was given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepublishCounts {
    /// Packets with messages.
    pub packets: u64,
    /// Messages in them.
    pub messages: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Announcements of the end of a session.
    pub ends: u64,
    /// Messages that were not sent: the port took nothing for too long, or they fit no packet.
    pub unsent: u64,
    /// Times that the port did not take a packet, which is tried again.
    pub refused_packets: u64,
    /// Requests.
    pub requests: RequestCounts,
    /// Answers that the port did not take.
    pub unsent_answers: u64,
}

impl RepublishCounts {
    /// Adds another channel's counts.
    pub fn add(&mut self, other: &Self) {
        // Without `..`: a new count cannot be forgotten here.
        let Self {
            packets,
            messages,
            heartbeats,
            ends,
            unsent,
            refused_packets,
            requests,
            unsent_answers,
        } = other;
        self.packets += packets;
        self.messages += messages;
        self.heartbeats += heartbeats;
        self.ends += ends;
        self.unsent += unsent;
        self.refused_packets += refused_packets;
        self.requests.add(requests);
        self.unsent_answers += unsent_answers;
    }
}

/// Where the channel stands when something is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of the next message to apply.
    pub next_sequence: u64,
    /// Nothing before it is missing for too long, and the venue is heard.
    pub is_current: bool,
    /// The end of the session was announced, and everything before it applied.
    pub has_ended: bool,
}

/// The republisher of one channel.
pub struct Republisher {
    spec: RepublishSpec,
    session: Option<Session>,
    history: History,
    /// Number of the next message to send, or before it.
    cursor: u64,
    /// Messages from there on that were not pushed out of the history when it was looked at last.
    waiting: u64,
    /// When the first of them came.
    waiting_since_ns: u64,
    /// When something was sent last.
    sent_ns: u64,
    /// The end of this session was sent.
    has_sent_end: bool,
    payload_bytes_max: usize,
    parting: Parting,
    answers: Option<Answers>,
    counts: RepublishCounts,
}

impl Republisher {
    /// Nothing was applied. Makes all it will ever need. Panics on a history that is too small.
    pub fn new(spec: RepublishSpec) -> Self {
        assert!(spec.history_bytes >= HISTORY_BYTES_MIN, "{} bytes", spec.history_bytes);
        let headers_more = if spec.group.is_v4() { 0 } else { 20 };
        let payload_bytes_max = PAYLOAD_BYTES_MAX - headers_more;
        let answers = |(at, limits)| Answers::new(at, limits, payload_bytes_max, spec.hash_seed);
        Self {
            session: None,
            history: History::new(spec.history_bytes, 1),
            cursor: 1,
            waiting: 0,
            waiting_since_ns: 0,
            sent_ns: 0,
            has_sent_end: false,
            payload_bytes_max,
            parting: Parting::new(),
            answers: spec.requests.map(answers),
            counts: RepublishCounts::default(),
            spec,
        }
    }

    /// How the feed is given out.
    pub fn spec(&self) -> &RepublishSpec {
        &self.spec
    }

    /// What was done so far.
    pub fn counts(&self) -> RepublishCounts {
        let (requests, unsent_answers) =
            self.answers.as_ref().map(Answers::counts).unwrap_or_default();
        RepublishCounts { requests, unsent_answers, ..self.counts }
    }

    /// The messages that can be asked for.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The channel begins another session; `before` is where it stood. What was not sent of the session before
    /// leaves first.
    pub fn begin_session(&mut self, session: Session, before: &Standing) {
        self.part(before);
        self.session = Some(session);
        self.history.restart(1);
        (self.cursor, self.waiting, self.has_sent_end) = (1, 0, false);
        if let Some(answers) = &mut self.answers {
            answers.begin_session(session);
        }
    }

    fn part(&mut self, before: &Standing) {
        let Some(session) = self.session else { return };
        while self.is_waiting() {
            let (history, sequence) = (&self.history, self.cursor);
            let bytes_max = self.payload_bytes_max.min(REPLY_PAYLOAD_BYTES_MAX);
            let filled = self.parting.push(|out| {
                let (count, bytes) = packet(history, session, sequence, &mut out[..bytes_max]);
                (count > 0).then_some((count, bytes))
            });
            let Some(count) = filled else { break };
            self.sent(count);
        }
        self.counts.unsent += self.waiting;
        if before.has_ended && !self.has_sent_end {
            let end = self.parting.push(|out| {
                let header = out.first_chunk_mut::<HEADER_BYTES>()?;
                write_header(header, session, before.next_sequence, COUNT_END_OF_SESSION);
                Some((0, HEADER_BYTES))
            });
            self.counts.ends += u64::from(end.is_some());
        }
    }

    /// The messages of a packet behind the first `skip` are being applied, the first of them with number
    /// `sequence`.
    #[inline]
    pub fn take(&mut self, now_ns: u64, packet: &Packet<'_>, skip: u16, sequence: u64) {
        self.history.skip_to(sequence);
        if self.waiting == 0 {
            (self.cursor, self.waiting_since_ns) = (self.history.next_sequence(), now_ns);
        }
        // Behind a snapshot that was older than what had been applied before, messages come again.
        let known = self.history.next_sequence().saturating_sub(sequence);
        let skip = usize::from(skip).saturating_add(usize::try_from(known).unwrap_or(usize::MAX));
        for message in packet.messages().skip(skip).flatten() {
            self.history.append(message);
            self.waiting += 1;
        }
        if self.waiting > WAITING_MAX {
            // The younger half is worth more than the older.
            while self.waiting > WAITING_MAX / 2 && self.is_waiting() {
                self.leave_out();
            }
        }
    }

    /// Whether a message waits to be sent; then the cursor is its number.
    fn is_waiting(&mut self) -> bool {
        if self.cursor < self.history.first_sequence() {
            // What was pushed out before it could be sent.
            let there = self.waiting.min(self.history.len());
            self.counts.unsent += self.waiting - there;
            self.waiting = there;
        }
        self.cursor = self.history.at_or_behind(self.cursor);
        self.waiting > 0
    }

    /// The message at the cursor will not be sent.
    fn leave_out(&mut self) {
        self.counts.unsent += 1;
        self.waiting -= 1;
        self.cursor += 1;
    }

    /// So many messages from the cursor on were sent in a packet.
    fn sent(&mut self, count: u16) {
        self.cursor += u64::from(count);
        self.waiting -= u64::from(count);
        self.counts.messages += u64::from(count);
        self.counts.packets += 1;
    }

    /// Takes in a datagram that came to the endpoint of requests; it is answered by [`Self::send`].
    pub fn take_request(&mut self, datagram: &Datagram<'_>) {
        if let Some(answers) = &mut self.answers {
            answers.take(datagram);
        }
    }

    /// Sends what is due: messages, a heartbeat, answers. Bounded. What the port does not take is tried again, an
    /// answer is not. The error is what the port said of a packet.
    pub fn send(
        &mut self,
        now_ns: u64,
        standing: &Standing,
        tx: &mut impl Transmit,
    ) -> Result<(), SendError> {
        let Some(session) = self.session else { return Ok(()) };
        let sent = self.try_send(now_ns, session, standing, tx);
        self.counts.refused_packets += u64::from(sent.is_err());
        // Where a packet has no way, an answer has none either.
        if sent != Err(SendError::NoNeighbour)
            && let Some(answers) = &mut self.answers
        {
            answers.send(now_ns, &self.history, tx);
        }
        sent
    }

    /// In place of [`Self::send`] while the kill switch is on: nothing leaves, answers and heartbeats included. What was
    /// applied meanwhile can be asked for afterwards, and receivers see that it is missing.
    pub fn fall_silent(&mut self) {
        self.parting.forget();
        if self.waiting > 0 {
            self.counts.unsent += self.waiting;
            self.cursor = self.history.next_sequence();
            self.waiting = 0;
        }
        if let Some(answers) = &mut self.answers {
            answers.forget();
        }
    }

    fn try_send(
        &mut self,
        now_ns: u64,
        session: Session,
        standing: &Standing,
        tx: &mut impl Transmit,
    ) -> Result<(), SendError> {
        let path = self.path();
        if !self.parting.is_empty() {
            self.parting.send(&path, tx)?;
            self.sent_ns = now_ns;
        }
        for _ in 0..PACKETS_A_TURN {
            let is_due = now_ns.saturating_sub(self.waiting_since_ns) >= self.spec.flush_ns;
            let is_full = self.waiting >= u64::from(MESSAGES_MAX);
            if !(is_due || is_full) || !self.is_waiting() {
                break;
            }
            self.send_packet(session, &path, tx)?;
            self.sent_ns = now_ns;
        }
        let is_silent = now_ns.saturating_sub(self.sent_ns) >= HEARTBEAT_NS;
        if self.waiting > 0 || !(is_silent || standing.has_ended && !self.has_sent_end) {
            return Ok(());
        }
        if !standing.is_current && !standing.has_ended {
            return Ok(());
        }
        let count = if standing.has_ended { COUNT_END_OF_SESSION } else { 0 };
        tx.send(&path, |out| {
            let Some(header) = out.first_chunk_mut::<HEADER_BYTES>() else { return 0 };
            write_header(header, session, standing.next_sequence, count);
            HEADER_BYTES
        })?;
        self.sent_ns = now_ns;
        self.has_sent_end |= standing.has_ended;
        self.counts.ends += u64::from(standing.has_ended);
        self.counts.heartbeats += u64::from(!standing.has_ended);
        Ok(())
    }

    fn send_packet(
        &mut self,
        session: Session,
        path: &Path,
        tx: &mut impl Transmit,
    ) -> Result<(), SendError> {
        let (history, cursor, bytes_max) = (&self.history, self.cursor, self.payload_bytes_max);
        let fits = history
            .get(cursor)
            .is_ok_and(|first| HEADER_BYTES + BLOCK_OVERHEAD_BYTES + first.len() <= bytes_max);
        if !fits {
            self.leave_out();
            return Ok(());
        }
        let mut count = 0;
        let sent = tx.send(path, |out| {
            let room = bytes_max.min(out.len());
            let (filled, bytes) = packet(history, session, cursor, &mut out[..room]);
            count = filled;
            bytes
        });
        if sent == Err(SendError::TooLong) {
            // The link's MTU is smaller than was thought.
            let less = bytes_max.saturating_sub(PAYLOAD_BYTES_STEP);
            self.payload_bytes_max = less.max(PAYLOAD_BYTES_MIN);
            if let Some(answers) = &mut self.answers {
                answers.limit(self.payload_bytes_max);
            }
        }
        sent?;
        match count {
            // The way has less room than a packet may have; what was sent says nothing but the number.
            0 => self.leave_out(),
            count => self.sent(count),
        }
        Ok(())
    }

    fn path(&self) -> Path {
        let RepublishSpec { group, from, interface, .. } = self.spec;
        Path { from, to: group, link: Link { interface, vlans: [0; 2] } }
    }
}

/// Makes a packet of messages from this number on in the front of `out`; returns how many, and its bytes.
fn packet(history: &History, session: Session, sequence: u64, out: &mut [u8]) -> (u16, usize) {
    let Some((header, rest)) = out.split_first_chunk_mut::<HEADER_BYTES>() else { return (0, 0) };
    let (count, bytes) = history.fill(sequence, MESSAGES_MAX, rest);
    write_header(header, session, sequence, count);
    (count, HEADER_BYTES + bytes)
}
