//! The counts of all channels of a worker, in the shared metric slots.

use super::counters::Counters;
use super::distribution::DistributionCounts;
use super::distribution::wire::Reason;
use super::lines::{LINES_MAX, LineCounts};
use super::recovery::RecoveryCounts;
use super::republish::RepublishCounts;
use super::request_server::Refusal;
use crate::app::feed::Feed;
use nautilus_shm::metrics::labels::{
    FeedError, FeedLine, HoleEnd, Label, Recovery, Republished, RequestEnd, SubscriptionReason,
};
use nautilus_shm::metrics::{MetricBank, table};

const _: () = assert!(
    SubscriptionReason::ALL.len() + 1 == Reason::ALL.len(),
    "every reason has its label, in the order of the codes"
);
const _: () = assert!(FeedLine::ALL.len() == LINES_MAX, "every line has its label");

/// What has been added to the shared slots so far. A successor of this worker goes on with the values
/// it finds there, so counts are added as differences.
#[derive(Default)]
pub struct FeedMetrics {
    reported: Counters,
    reported_lines: [LineCounts; LINES_MAX],
    reported_recovery: RecoveryCounts,
    reported_distribution: DistributionCounts,
    reported_republish: RepublishCounts,
}

/// Labels of [`Refusal::ALL`], in that order.
const REFUSALS: [RequestEnd; Refusal::ALL.len()] = [
    RequestEnd::Length,
    RequestEnd::Session,
    RequestEnd::ZeroCount,
    RequestEnd::Gone,
    RequestEnd::NotYet,
    RequestEnd::TooLong,
    RequestEnd::Flood,
];

impl FeedMetrics {
    /// Adds what was counted since the last call. For housekeeping.
    pub fn publish<'a>(
        &mut self,
        feeds: impl IntoIterator<Item = &'a Feed>,
        now_ns: u64,
        bank: &MetricBank<'_>,
    ) {
        let mut total = Counters::default();
        let mut lines = [LineCounts::default(); LINES_MAX];
        let mut recovery = RecoveryCounts::default();
        let mut republish = RepublishCounts::default();
        let (mut channels, mut suspect, mut books, mut orders) = (0, 0, 0, 0);
        let mut distribution = DistributionCounts::default();
        let mut subscribers = 0;
        let each = |feed: &'a Feed| {
            for of_channel in feed.distributions() {
                distribution.add(of_channel.counts());
                subscribers += u64::from(of_channel.subscribers());
            }
            feed.channels()
        };
        for channel in feeds.into_iter().flat_map(each) {
            total.add(channel.counters());
            if let Some(counts) = channel.recovery_counts() {
                recovery.add(counts);
            }
            if let Some(counts) = channel.republish_counts() {
                republish.add(&counts);
            }
            for (line, counts) in lines.iter_mut().zip(channel.line_counts()) {
                line.add(counts);
            }
            channels += 1;
            suspect += u64::from(!channel.is_live(now_ns));
            books += u64::from(channel.stock_count());
            orders += u64::from(channel.books().order_count());
        }
        bank.set(table::FEED_SUBSCRIBERS, subscribers);
        self.publish_distribution(distribution, bank);
        bank.set(table::FEED_CHANNELS, channels);
        bank.set(table::FEED_SUSPECT_CHANNELS, suspect);
        bank.set(table::FEED_BOOKS, books);
        bank.set(table::FEED_ORDERS, orders);

        let before = std::mem::replace(&mut self.reported, total);
        let since = |count: fn(&Counters) -> u64| count(&total).wrapping_sub(count(&before));
        bank.add(table::FEED_PACKETS, since(|counters| counters.packets));
        bank.add(table::FEED_HEARTBEATS, since(|counters| counters.heartbeats + counters.ends));
        bank.add(table::FEED_DUPLICATE_PACKETS, since(|counters| counters.duplicate_packets));
        bank.add(table::FEED_MESSAGES, since(|counters| counters.messages));
        bank.add(table::FEED_GAPS, since(|counters| counters.gaps));
        bank.add(table::FEED_HELD_PACKETS, since(|counters| counters.held_packets));
        bank.add(table::FEED_LOST_MESSAGES, since(|counters| counters.gap_messages));
        bank.add(table::FEED_UNKNOWN_ORDERS, since(|counters| counters.unknown_orders));
        bank.add(table::FEED_ORDERS_ADDED, since(|counters| counters.orders_added));
        bank.add(table::FEED_TRADES, since(|counters| counters.trades));
        bank.add(table::FEED_TRADED_SHARES, since(|counters| counters.traded_shares));
        bank.add(table::FEED_TRADED_VALUE, since(|counters| counters.traded_value));
        bank.add(table::FEED_CROSSED_RECORDS, since(|counters| counters.crossed_records));
        bank.add(table::FEED_UPDATES, since(|counters| counters.published));
        let holes = |end: HoleEnd, count: fn(&Counters) -> u64| {
            bank.add(table::FEED_HOLES.of(end), since(count));
        };
        holes(HoleEnd::Healed, |counters| counters.healed_holes);
        holes(HoleEnd::Late, |counters| counters.late_holes);
        holes(HoleEnd::NoRoom, |counters| counters.full_holes);
        holes(HoleEnd::SessionOver, |counters| counters.session_holes);
        let errors = |label: FeedError, count: fn(&Counters) -> u64| {
            bank.add(table::FEED_ERRORS.of(label), since(count));
        };
        errors(FeedError::ShortHeader, |counters| counters.short_headers);
        errors(FeedError::TruncatedMessage, |counters| counters.truncated_packets);
        errors(FeedError::BadSequence, |counters| counters.bad_sequences);
        errors(FeedError::OtherProtocol, |counters| counters.other_protocols);
        errors(FeedError::UnknownType, |counters| counters.unknown_messages);
        errors(FeedError::MessageLength, |counters| counters.malformed_messages);
        errors(FeedError::BadField, |counters| {
            counters.invalid_messages + counters.zero_shares + counters.unnamed
        });
        errors(FeedError::Inconsistent, |counters| {
            counters.duplicate_orders + counters.over_reductions
        });
        errors(FeedError::OtherSession, |counters| counters.stale_packets);
        errors(FeedError::Capacity, |counters| counters.no_room);
        errors(FeedError::Publish, |counters| counters.publish_failures);
        self.publish_lines(lines, bank);
        self.publish_recovery(recovery, bank);
        self.publish_republish(republish, bank);
    }

    fn publish_republish(&mut self, now: RepublishCounts, bank: &MetricBank<'_>) {
        let before = std::mem::replace(&mut self.reported_republish, now);
        let since = |count: fn(&RepublishCounts) -> u64| count(&now) - count(&before);
        let add = |kind: Republished, count: fn(&RepublishCounts) -> u64| {
            bank.add(table::FEED_REPUBLISHED_PACKETS.of(kind), since(count));
        };
        add(Republished::Messages, |counts| counts.packets);
        add(Republished::Heartbeats, |counts| counts.heartbeats);
        add(Republished::Ends, |counts| counts.ends);
        add(Republished::Refused, |counts| counts.refused_packets);
        bank.add(table::FEED_REPUBLISHED_MESSAGES, since(|counts| counts.messages));
        bank.add(table::FEED_UNSENT_MESSAGES, since(|counts| counts.unsent));
        bank.add(table::FEED_REQUESTED_MESSAGES, since(|counts| counts.requests.messages));
        let request = |end: RequestEnd, more: u64| bank.add(table::FEED_REQUESTS.of(end), more);
        request(RequestEnd::Answered, since(|counts| counts.requests.answered));
        request(RequestEnd::Unsent, since(|counts| counts.unsent_answers));
        let refused = now.requests.refused.iter().zip(&before.requests.refused);
        for (label, (now, before)) in REFUSALS.into_iter().zip(refused) {
            request(label, now - before);
        }
    }

    fn publish_distribution(&mut self, now: DistributionCounts, bank: &MetricBank<'_>) {
        let before = std::mem::replace(&mut self.reported_distribution, now);
        let since = |count: fn(&DistributionCounts) -> u64| count(&now) - count(&before);
        bank.add(table::FEED_SUBSCRIPTIONS, since(|counts| counts.begun));
        bank.add(table::FEED_SUBSCRIPTION_SLOWED, since(|counts| counts.slowed));
        bank.add(table::FEED_SUBSCRIPTION_IMAGES, since(|counts| counts.images));
        bank.add(table::FEED_DISTRIBUTED_PACKETS, since(|counts| counts.packets));
        bank.add(table::FEED_DISTRIBUTED_MESSAGES, since(|counts| counts.messages));
        bank.add(table::FEED_RESENT_MESSAGES, since(|counts| counts.resent_messages));
        bank.add(table::FEED_RESEND_GONE, since(|counts| counts.gone));
        bank.add(table::FEED_RESEND_REFUSED, since(|counts| counts.refused_resends));
        bank.add(table::FEED_LEFT_OUT, since(|counts| counts.left_out));
        bank.add(table::FEED_DISTRIBUTION_DELAYED, since(|counts| counts.delayed_packets));
        // The first of the codes stands for no reason.
        for (place, label) in (1..).zip(SubscriptionReason::ALL) {
            let refused = now.refused[place] - before.refused[place];
            bank.add(table::FEED_SUBSCRIPTION_REFUSED.of(*label), refused);
            let ended = now.ended[place] - before.ended[place];
            bank.add(table::FEED_SUBSCRIPTION_ENDED.of(*label), ended);
        }
    }

    fn publish_recovery(&mut self, now: RecoveryCounts, bank: &MetricBank<'_>) {
        let before = std::mem::replace(&mut self.reported_recovery, now);
        let since = |count: fn(&RecoveryCounts) -> u64| count(&now) - count(&before);
        bank.add(table::FEED_RECOVERED_MESSAGES, since(|counts| counts.recovered_messages));
        bank.add(table::FEED_SNAPSHOT_MESSAGES, since(|counts| counts.snapshot_messages));
        let add = |what: Recovery, count: fn(&RecoveryCounts) -> u64| {
            bank.add(table::FEED_RECOVERY.of(what), since(count));
        };
        add(Recovery::Requests, |counts| counts.requests);
        add(Recovery::Timeouts, |counts| counts.timeouts);
        add(Recovery::Replies, |counts| counts.replies);
        add(Recovery::RefusedReplies, |counts| counts.refused_replies);
        add(Recovery::Exhausted, |counts| counts.exhausted);
        add(Recovery::Snapshots, |counts| counts.snapshots);
        add(Recovery::SnapshotsLoaded, |counts| counts.snapshots_loaded);
        add(Recovery::SnapshotsFailed, |counts| counts.snapshots_failed);
        add(Recovery::QueueDropped, |counts| counts.queue_dropped);
    }

    fn publish_lines(&mut self, lines: [LineCounts; LINES_MAX], bank: &MetricBank<'_>) {
        let before = std::mem::replace(&mut self.reported_lines, lines);
        for ((label, now), before) in FeedLine::ALL.iter().zip(lines).zip(before) {
            bank.add(table::FEED_LINE_MESSAGES.of(*label), now.received - before.received);
            bank.add(table::FEED_LINE_FIRST.of(*label), now.first - before.first);
            bank.add(table::FEED_LINE_LOST.of(*label), now.lost.wrapping_sub(before.lost));
            bank.add(table::FEED_LINE_DUPLICATES.of(*label), now.duplicates - before.duplicates);
            let packets = now.dropped_packets - before.dropped_packets;
            bank.add(table::FEED_LINE_DROPPED_PACKETS.of(*label), packets);
            let messages = now.dropped_messages - before.dropped_messages;
            bank.add(table::FEED_LINE_DROPPED_MESSAGES.of(*label), messages);
        }
    }
}
