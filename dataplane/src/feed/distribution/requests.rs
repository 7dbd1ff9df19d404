//! What subscribers ask for: subscriptions, and messages again.

use super::Distribution;
use super::subscription::Resend;
use super::wire::{REQUEST_BYTES, REQUEST_MAGIC, Reason, Reply, Request, Verb, Verdict};
use crate::feed::history::Missing;
use crate::feed::moldudp64::MessageRequest;
use crate::net::Endpoint;
use crate::port::Datagram;
use std::hash::BuildHasher;

/// Between two images that a subscriber gets for asking for what is gone. Too low: one that asks much is sent
/// little else. Too high: one that lost much waits.
const IMAGE_AGAIN_NS: u64 = 100_000_000;

impl Distribution {
    /// Takes in a datagram that came to [`Self::endpoint`]. What is to be sent is sent by [`Self::pump`].
    pub fn handle(&mut self, datagram: &Datagram<'_>) {
        self.now_ns = self.now_ns.max(datagram.rx_ns);
        match MessageRequest::parse(datagram.payload) {
            Some(request) => self.ask_again(&datagram.source, &request),
            None => self.handle_request(datagram),
        }
    }

    fn handle_request(&mut self, datagram: &Datagram<'_>) {
        let request = match Request::parse(datagram.payload) {
            Ok(request) => request,
            Err(reason) => {
                self.counts.refused[reason as usize] += 1;
                // Who speaks another version is told; whatever else comes here is not answered.
                if reason == Reason::Version && datagram.payload.len() >= REQUEST_BYTES {
                    let reply = Reply::new(0, Verdict::Refused, reason);
                    self.reply(datagram.reply_path(), &reply);
                }
                return;
            }
        };
        let cookie = self.cookie_of(&datagram.source, request.number);
        if request.cookie != cookie {
            let reply = Reply::new(request.number, Verdict::Cookie, Reason::None);
            return self.reply(datagram.reply_path(), &Reply { cookie, ..reply });
        }
        if self.is_halted {
            self.counts.refused[Reason::Halted as usize] += 1;
            let reply = Reply::new(request.number, Verdict::Ended, Reason::Halted);
            return self.reply(datagram.reply_path(), &reply);
        }
        let known = self.find(&datagram.source, request.number);
        let refused = match (request.verb, known) {
            (Verb::Subscribe, None) => self.subscribe(datagram, &request).err(),
            (Verb::Subscribe, Some(place)) if !self.subscriptions[place].is_for(&request) => {
                Some(Reason::Other)
            }
            (Verb::Subscribe | Verb::Renew, Some(place)) => {
                self.renew(place, &request);
                None
            }
            (Verb::Unsubscribe, Some(place)) => {
                self.end(place, Reason::Unsubscribed);
                None
            }
            (Verb::Renew | Verb::Unsubscribe, None) => {
                self.counts.refused[Reason::Unknown as usize] += 1;
                let reply = Reply::new(request.number, Verdict::Ended, Reason::Unknown);
                return self.reply(datagram.reply_path(), &reply);
            }
        };
        if let Some(reason) = refused {
            self.counts.refused[reason as usize] += 1;
            let reply = Reply::new(request.number, Verdict::Refused, reason);
            self.reply(datagram.reply_path(), &reply);
        }
    }

    /// What only somebody knows who receives what is sent to a source.
    fn cookie_of(&self, source: &Endpoint, number: u64) -> u64 {
        // 0 stands for none.
        self.cookies.hash_one((REQUEST_MAGIC, source, number)).max(1)
    }

    fn find(&self, source: &Endpoint, number: u64) -> Option<usize> {
        self.places().find(|place| {
            let subscription = &self.subscriptions[*place];
            subscription.path.to == *source && subscription.number == number
        })
    }

    fn subscribe(&mut self, datagram: &Datagram<'_>, request: &Request<'_>) -> Result<(), Reason> {
        let source = datagram.source.ip();
        let entitled = self.spec.entitlements.place_of(source).ok_or(Reason::NotEntitled)?;
        let entitlement = self.spec.entitlements.at(entitled);
        entitlement.judge(request, self.spec.depth)?;
        let is_of_source =
            |place: &usize| self.subscriptions[*place].path.to.address == datagram.source.address;
        if self.places().filter(is_of_source).count() >= entitlement.subscriptions_max as usize {
            return Err(Reason::TooMany);
        }
        let place = (!self.active).trailing_zeros() as usize;
        if place >= self.subscriptions.len() {
            return Err(Reason::Full);
        }
        let now_ns = self.now_ns;
        let session = self.new_session(now_ns);
        let conflate_ns = self.spec.conflate_ns;
        let lease_ns = self.spec.lease_ns;
        let subscription = &mut self.subscriptions[place];
        subscription.begin(datagram.reply_path(), session, entitled, request, now_ns);
        subscription.interval_ns = subscription.interval_ns.max(conflate_ns);
        subscription.lease_until_ns = now_ns.saturating_add(lease_ns);
        self.active |= 1 << place;
        self.counts.begun += 1;
        self.begin_image(place, now_ns);
        let reply = self.reply_of(place, Verdict::Accepted);
        self.reply(datagram.reply_path(), &reply);
        Ok(())
    }

    fn renew(&mut self, place: usize, request: &Request<'_>) {
        let lease_until_ns = self.now_ns.saturating_add(self.spec.lease_ns);
        let subscription = &mut self.subscriptions[place];
        subscription.lease_until_ns = lease_until_ns;
        subscription.acknowledge(request.next_sequence);
        let reply = self.reply_of(place, Verdict::Accepted);
        self.reply(self.subscriptions[place].path, &reply);
    }

    fn ask_again(&mut self, source: &Endpoint, request: &MessageRequest) {
        let MessageRequest { session, sequence, count } = *request;
        let asked = self.places().find(|place| {
            let subscription = &self.subscriptions[*place];
            subscription.path.to == *source && subscription.session.is_same(&session)
        });
        let Some(place) = asked.filter(|_| count != 0) else {
            self.counts.refused_resends += 1;
            return;
        };
        let subscription = &mut self.subscriptions[place];
        let found = subscription.history.get(sequence).map(|_| ());
        match found {
            // What has not been sent is on its way.
            Ok(()) if sequence < subscription.unsent => {
                let is_taken = subscription.ask_again(Resend { sequence, count });
                self.counts.refused_resends += u64::from(!is_taken);
            }
            Ok(()) | Err(Missing::NotYet) => self.counts.refused_resends += 1,
            Err(Missing::Gone) => self.gone(place, sequence),
        }
    }

    /// A subscriber lost what cannot be sent again: it is told where to go on, and what holds there.
    fn gone(&mut self, place: usize, sequence: u64) {
        self.counts.gone += 1;
        let now_ns = self.now_ns;
        let subscription = &self.subscriptions[place];
        let is_needed = sequence >= subscription.image_sequence;
        if is_needed && now_ns.saturating_sub(subscription.image_ns) >= IMAGE_AGAIN_NS {
            self.begin_image(place, now_ns);
        }
        let reply = self.reply_of(place, Verdict::Gone);
        self.reply(self.subscriptions[place].path, &reply);
    }
}
