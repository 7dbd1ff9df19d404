//! What one channel counts. Plain integers of the worker that owns the channel; the run loop copies
//! them to shared memory.

use super::book::Problem;
use super::moldudp64::MoldError;

/// Counts since the channel was made. None is ever reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams addressed to the channel.
    pub packets: u64,
    /// Messages applied.
    pub messages: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Packets that announced the end of a session.
    pub ends: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Datagrams dropped because they are shorter than a MoldUDP64 header.
    pub short_headers: u64,
    /// Packets dropped whole because a message reaches past their end.
    pub truncated_packets: u64,
    /// Packets dropped because their sequence number is 0 or runs over.
    pub bad_sequences: u64,
    /// Packets in which nothing was new, be it applied or held.
    pub duplicate_packets: u64,
    /// Packets of an earlier session.
    pub stale_packets: u64,
    /// Packets that came before their turn and were held.
    pub held_packets: u64,
    /// Holes before held packets that were filled in time.
    pub healed_holes: u64,
    /// Holes given up, and so gaps, because their limit was over.
    pub late_holes: u64,
    /// Holes given up because no more could be held.
    pub full_holes: u64,
    /// Holes given up because another session began.
    pub session_holes: u64,
    /// Gaps.
    pub gaps: u64,
    /// Messages missing in those gaps.
    pub gap_messages: u64,
    /// Messages that had been applied already, or are held.
    pub duplicate_messages: u64,
    /// Messages of a type this version of ITCH does not have.
    pub unknown_messages: u64,
    /// Messages of a known type with a wrong length.
    pub malformed_messages: u64,
    /// Changes of orders that are not in the book.
    pub unknown_orders: u64,
    /// Orders under a reference in use.
    pub duplicate_orders: u64,
    /// Executions and cancels of more shares than were left.
    pub over_reductions: u64,
    /// Orders, executions and cancels of 0 shares.
    pub zero_shares: u64,
    /// Messages with an impossible side, or under another symbol's locate.
    pub invalid_messages: u64,
    /// Messages the books had no room for.
    pub no_room: u64,
    /// Changes of books whose symbol is not known, or cannot stand in a key.
    pub unnamed: u64,
    /// Orders added.
    pub orders_added: u64,
    /// Trades, their shares, and price (1e-4) times shares. Of broken ones nothing is taken out.
    pub trades: u64,
    /// See [`Self::trades`].
    pub traded_shares: u64,
    /// See [`Self::trades`]. Wraps, as its metric does.
    pub traded_value: u64,
    /// Best bids and offers published that crossed or were locked.
    pub crossed_records: u64,
    /// Records published.
    pub published: u64,
    /// Records the keyspace refused.
    pub publish_failures: u64,
    /// Times the channel turned from live to suspect for another reason than silence.
    pub suspects: u64,
}

impl Counters {
    /// Adds another channel's counts.
    pub fn add(&mut self, other: &Self) {
        // Without `..`: a new count cannot be forgotten here.
        let Self {
            packets,
            messages,
            heartbeats,
            ends,
            sessions,
            short_headers,
            truncated_packets,
            bad_sequences,
            duplicate_packets,
            stale_packets,
            held_packets,
            healed_holes,
            late_holes,
            full_holes,
            session_holes,
            gaps,
            gap_messages,
            duplicate_messages,
            unknown_messages,
            malformed_messages,
            unknown_orders,
            duplicate_orders,
            over_reductions,
            zero_shares,
            invalid_messages,
            no_room,
            unnamed,
            orders_added,
            trades,
            traded_shares,
            traded_value,
            crossed_records,
            published,
            publish_failures,
            suspects,
        } = *other;
        self.packets += packets;
        self.messages += messages;
        self.heartbeats += heartbeats;
        self.ends += ends;
        self.sessions += sessions;
        self.short_headers += short_headers;
        self.truncated_packets += truncated_packets;
        self.bad_sequences += bad_sequences;
        self.duplicate_packets += duplicate_packets;
        self.stale_packets += stale_packets;
        self.held_packets += held_packets;
        self.healed_holes += healed_holes;
        self.late_holes += late_holes;
        self.full_holes += full_holes;
        self.session_holes += session_holes;
        self.gaps += gaps;
        self.gap_messages = self.gap_messages.wrapping_add(gap_messages);
        self.duplicate_messages += duplicate_messages;
        self.unknown_messages += unknown_messages;
        self.malformed_messages += malformed_messages;
        self.unknown_orders += unknown_orders;
        self.duplicate_orders += duplicate_orders;
        self.over_reductions += over_reductions;
        self.zero_shares += zero_shares;
        self.invalid_messages += invalid_messages;
        self.no_room += no_room;
        self.unnamed += unnamed;
        self.orders_added += orders_added;
        self.trades += trades;
        self.traded_shares = self.traded_shares.wrapping_add(traded_shares);
        self.traded_value = self.traded_value.wrapping_add(traded_value);
        self.crossed_records += crossed_records;
        self.published += published;
        self.publish_failures += publish_failures;
        self.suspects += suspects;
    }

    /// Counts a gap. Of a peer that lies two gaps may lack more messages than a number holds: the sum wraps,
    /// as its metric does.
    pub fn add_gap(&mut self, messages: u64) {
        self.gaps += 1;
        self.gap_messages = self.gap_messages.wrapping_add(messages);
    }

    /// Counts a trade. Sums wrap, as their metrics do: a peer that lies trades what it likes.
    pub fn add_trade(&mut self, price: u32, shares: u64) {
        self.trades += 1;
        self.traded_shares = self.traded_shares.wrapping_add(shares);
        self.traded_value = self.traded_value.wrapping_add(u64::from(price).wrapping_mul(shares));
    }

    /// Datagrams dropped whole because they are not MoldUDP64.
    pub fn malformed_packets(&self) -> u64 {
        self.short_headers + self.truncated_packets + self.bad_sequences
    }

    /// Counts why a datagram is not MoldUDP64.
    pub fn count_malformed(&mut self, error: MoldError) {
        let counter = match error {
            MoldError::ShortHeader { .. } => &mut self.short_headers,
            MoldError::TruncatedMessage { .. } => &mut self.truncated_packets,
            MoldError::BadSequence { .. } => &mut self.bad_sequences,
        };
        *counter += 1;
    }

    /// Counts what a message could not do.
    pub fn count(&mut self, problem: Problem) {
        let counter = match problem {
            Problem::UnknownOrder => &mut self.unknown_orders,
            Problem::DuplicateOrder => &mut self.duplicate_orders,
            Problem::OverReduction => &mut self.over_reductions,
            Problem::ZeroShares => &mut self.zero_shares,
            Problem::BadSide | Problem::SymbolConflict => &mut self.invalid_messages,
            Problem::OrdersFull | Problem::LevelsFull => &mut self.no_room,
        };
        *counter += 1;
    }
}
