//! The records of a channel to subscribers, each with a sequence of its own.
//!
//! ```text
//!   publisher -> Outlet -> Keyspace
//!                  |
//!                  +-> interest -> full: its history -------+-> MoldUDP64 packets -> the worker's port
//!                              \-> conflated: its changes --+          ^
//!                                     (newest record, now and then)    |
//!   subscriber: subscribe, renew, unsubscribe, messages again ---------+
//! ```
//!
//! Written by the worker that owns the channel. Bounded in memory and in work a turn; nothing is allocated
//! after start. `README.md` beside this file says what a subscriber has to know.

mod conflation;
mod counts;
mod entitlement;
mod interest;
mod outlet;
mod requests;
mod send;
pub mod subscriber;
mod subscription;
pub mod wire;

use super::moldudp64::Session;
use super::record::{About, Value};
use crate::app::ChannelState;
use crate::net::Endpoint;
use crate::port::Path;
use conflation::Changes;
use interest::Interest;
use std::collections::VecDeque;
use std::hash::RandomState;
use subscription::Subscription;
use wire::{FLAG_SUSPECT, Kind, Mode, REPLY_BYTES, Reason, Records, Reply, State, Verdict};

pub use counts::DistributionCounts;
pub use entitlement::{Entitlement, Entitlements};
pub use interest::SUBSCRIBERS_MAX;
pub use outlet::Outlet;

/// Replies that wait to be sent. Too low: a subscriber asks again when many ask at once. Too high: memory.
const REPLIES_MAX: usize = 64;

/// What becomes of a subscriber that does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is conflated, and ended when that is too much as well.
    #[default]
    Conflate,
    /// It is ended.
    End,
}

/// How a channel is distributed.
#[derive(Clone, Debug)]
pub struct DistributionSpec {
    /// Where subscribers ask, and where everything they are sent comes from.
    pub endpoint: Endpoint,
    /// Subscribers at once, 1 to [`SUBSCRIBERS_MAX`].
    pub subscribers_max: usize,
    /// Memory for the messages of each, 1,024 bytes or more.
    pub history_bytes: usize,
    /// In which each is renewed, and what was sent acknowledged; at most 65 s.
    pub lease_ns: u64,
    /// What becomes of one that does not keep up.
    pub slow: SlowPolicy,
    /// Between two rounds of one that was conflated for being slow, and the shortest that may be asked for.
    pub conflate_ns: u64,
    /// Levels a side of the depth records there are.
    pub depth: u8,
    /// Who may have what.
    pub entitlements: Entitlements,
}

/// The subscribers of one channel.
pub struct Distribution {
    spec: DistributionSpec,
    subscriptions: Box<[Subscription]>,
    /// Which of them somebody has.
    active: u64,
    /// The subscriber that is served first in the next turn.
    first: usize,
    interest: Interest,
    /// Until when what was sent holds true; 0: it does not.
    live_until_ns: u64,
    /// What subscribers were told.
    is_live: bool,
    replies: VecDeque<(Path, [u8; REPLY_BYTES])>,
    /// The kill switch is on.
    is_halted: bool,
    /// Whether the port had a way to every receiver when something was sent last.
    has_way: bool,
    cookies: RandomState,
    last_session: u64,
    now_ns: u64,
    counts: DistributionCounts,
}

impl Distribution {
    /// Nobody has subscribed. Makes all the memory there will ever be. Panics on limits outside their bounds.
    pub fn new(spec: DistributionSpec) -> Self {
        assert!((1..=SUBSCRIBERS_MAX).contains(&spec.subscribers_max), "{}", spec.subscribers_max);
        let place = |_| Subscription::new(spec.history_bytes);
        Self {
            subscriptions: (0..spec.subscribers_max).map(place).collect(),
            spec,
            active: 0,
            first: 0,
            interest: Interest::new(),
            live_until_ns: 0,
            is_live: false,
            replies: VecDeque::with_capacity(REPLIES_MAX),
            is_halted: false,
            has_way: true,
            cookies: RandomState::new(),
            last_session: 0,
            now_ns: 0,
            counts: DistributionCounts::default(),
        }
    }

    /// Bytes that so many subscribers take, with a history of so many each.
    pub const fn memory_bytes(subscribers_max: usize, history_bytes: usize) -> u64 {
        let each = history_bytes + Changes::BYTES;
        (subscribers_max * each + Interest::BYTES) as u64
    }

    /// Where subscribers ask.
    pub fn endpoint(&self) -> Endpoint {
        self.spec.endpoint
    }

    /// How many there are.
    pub fn subscribers(&self) -> u32 {
        self.active.count_ones()
    }

    /// What was done so far.
    pub fn counts(&self) -> &DistributionCounts {
        &self.counts
    }

    /// Places of the subscribers.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        bits(self.active)
    }

    /// Flags of a message that is added now.
    fn flags(&self) -> u8 {
        if self.is_live { 0 } else { FLAG_SUSPECT }
    }

    /// A session of the venue begins.
    pub fn begin_session(&mut self) {
        self.interest.forget();
        self.tell(State::Session);
    }

    /// What the channel's keys are has changed, or was renewed.
    pub fn set_state(&mut self, state: ChannelState) {
        match state {
            ChannelState::LiveUntil(until_ns) => {
                self.live_until_ns = until_ns;
                if !self.is_live {
                    self.is_live = true;
                    self.tell(State::Live);
                }
            }
            ChannelState::Suspect => self.doubt(),
        }
    }

    fn doubt(&mut self) {
        self.live_until_ns = 0;
        if self.is_live {
            self.is_live = false;
            self.tell(State::Suspect);
        }
    }

    /// Looks whether what was sent still holds true.
    fn look(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if self.is_live && now_ns > self.live_until_ns {
            self.doubt();
        }
    }

    fn tell(&mut self, state: State) {
        let (flags, now_ns) = (self.flags(), self.now_ns);
        for place in self.places() {
            self.subscriptions[place].append_state(state, flags, now_ns);
        }
    }

    /// Gives a record to those who want it.
    #[inline]
    pub fn publish(&mut self, about: &About, record: &[u8]) {
        if self.active == 0 {
            return;
        }
        let kind = Records::of(about.value, about.stock.is_none());
        let (locate, wanted_by) = match about.stock {
            None => (None, self.active),
            Some((locate, symbol)) => {
                let Self { interest, subscriptions, spec, active, .. } = self;
                let wants = |symbol| {
                    let wants = |place: &usize| {
                        let subscription = &subscriptions[*place];
                        let entitled = spec.entitlements.at(subscription.entitlement);
                        entitled.covers(symbol) && subscription.wants(symbol)
                    };
                    bits(*active).filter(wants).fold(0, |all, place| all | 1 << place)
                };
                (Some(locate), interest.of(locate, symbol, wants) & *active)
            }
        };
        let flags = self.flags();
        for place in bits(wanted_by) {
            let subscription = &mut self.subscriptions[place];
            if !subscription.records.has(kind)
                || locate.is_some_and(|locate| subscription.is_before(locate))
            {
                continue;
            }
            match (subscription.mode, locate) {
                (Mode::Full, _) => {
                    let is_of_venue = locate.is_none();
                    subscription.append_record(about.value, is_of_venue, record, flags, 0);
                }
                (Mode::Conflated, Some(locate)) => subscription.changes.note(locate, kind),
                (Mode::Conflated, None) => subscription.changes.note_venue(kind),
            }
        }
    }

    fn reply(&mut self, path: Path, reply: &Reply) {
        if self.replies.len() < REPLIES_MAX {
            self.replies.push_back((path, reply.encode()));
        } else {
            self.counts.replies_dropped += 1;
        }
    }

    /// What is said of a subscription that is there.
    fn reply_of(&self, place: usize, verdict: Verdict) -> Reply {
        let subscription = &self.subscriptions[place];
        Reply {
            mode: subscription.mode,
            session: subscription.session,
            lease_ms: (self.spec.lease_ns / 1_000_000) as u16,
            next_sequence: subscription.history.next_sequence(),
            first_sequence: subscription.history.first_sequence(),
            image_sequence: subscription.image_sequence,
            ..Reply::new(subscription.number, verdict, Reason::None)
        }
    }

    /// Ends a subscription and says why.
    fn end(&mut self, place: usize, reason: Reason) {
        let reply = Reply { reason, ..self.reply_of(place, Verdict::Ended) };
        self.reply(self.subscriptions[place].path, &reply);
        self.active &= !(1 << place);
        self.counts.ended[reason as usize] += 1;
    }

    /// An image is sent from its beginning on.
    fn begin_image(&mut self, place: usize, now_ns: u64) {
        let flags = self.flags();
        self.subscriptions[place].begin_image(flags, now_ns);
        self.counts.images += 1;
    }

    /// Does what is to be done with one that does not keep up.
    fn slow(&mut self, place: usize, now_ns: u64) {
        let is_full = self.subscriptions[place].mode == Mode::Full;
        if self.spec.slow == SlowPolicy::End || !is_full {
            return self.end(place, Reason::Slow);
        }
        self.counts.slowed += 1;
        let flags = self.flags();
        let subscription = &mut self.subscriptions[place];
        subscription.mode = Mode::Conflated;
        subscription.interval_ns = self.spec.conflate_ns;
        self.begin_image(place, now_ns);
        self.subscriptions[place].append_note(Kind::Mode, Mode::Conflated.code(), flags);
    }

    /// A session that no subscriber of this node had before: the microseconds since it booted, and in
    /// which it is by itself.
    fn new_session(&mut self, now_ns: u64) -> Session {
        self.last_session = (now_ns / 1_000).max(self.last_session + 1);
        let mut text = [b'0'; 10];
        let mut rest = self.last_session;
        for digit in text.iter_mut().rev() {
            *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(rest % 36) as usize];
            rest /= 36;
        }
        Session(text)
    }
}

/// Places of the bits that are set.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let place = rest.trailing_zeros() as usize;
        (rest != 0).then(|| {
            rest &= rest - 1;
            place
        })
    })
}

/// The kinds of records of a stock, by their bit.
fn values(depth: u8) -> [Value; Value::KINDS] {
    [Value::Bbo, Value::Last, Value::Status, Value::Statistics, Value::Depth(depth)]
}
