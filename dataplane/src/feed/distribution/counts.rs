//! What the distribution of a channel counts.

use super::wire::Reason;

/// Written by the worker that owns the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DistributionCounts {
    /// Subscriptions begun.
    pub begun: u64,
    /// Requests refused, by the code of the [`Reason`].
    pub refused: [u64; Reason::ALL.len()],
    /// Subscriptions ended, by the same.
    pub ended: [u64; Reason::ALL.len()],
    /// Subscriptions conflated because they did not keep up.
    pub slowed: u64,
    /// Images begun.
    pub images: u64,
    /// Packets of messages sent, those sent again not among them.
    pub packets: u64,
    /// Messages in them.
    pub messages: u64,
    /// Messages sent again.
    pub resent_messages: u64,
    /// Requests for messages that are not there any more.
    pub gone: u64,
    /// Requests for messages that were not taken: of no subscriber, of none that will be, or too many at once.
    pub refused_resends: u64,
    /// Records that newer ones took the place of in conflated subscriptions.
    pub left_out: u64,
    /// Packets the port did not take; they are sent later.
    pub delayed_packets: u64,
    /// Replies that found no room.
    pub replies_dropped: u64,
}

impl DistributionCounts {
    /// Adds those of another channel.
    pub fn add(&mut self, other: &Self) {
        let Self { begun, refused, ended, slowed, images, packets, messages, .. } = other;
        self.begun += begun;
        for (own, other) in self.refused.iter_mut().zip(refused) {
            *own += other;
        }
        for (own, other) in self.ended.iter_mut().zip(ended) {
            *own += other;
        }
        self.slowed += slowed;
        self.images += images;
        self.packets += packets;
        self.messages += messages;
        self.resent_messages += other.resent_messages;
        self.gone += other.gone;
        self.refused_resends += other.refused_resends;
        self.left_out += other.left_out;
        self.delayed_packets += other.delayed_packets;
        self.replies_dropped += other.replies_dropped;
    }
}
