//! One subscriber: what it wants, the messages it was sent by number, and how far it has come.
//!
//! ```text
//!   append -> history:  | asked for again ........ | sent | not yet sent |  next_sequence
//!                       first_sequence     acknowledged   ^ unsent
//! ```

use super::super::Symbol;
use super::super::history::History;
use super::super::moldudp64::Session;
use super::super::record::Value;
use super::conflation::Changes;
use super::wire::{
    HEAD_BYTES, Kind, MESSAGE_BYTES_MAX, Mode, Records, Request, SYMBOLS_MAX, State, head,
};
use crate::port::Path;

/// Requests for messages that wait for their answer. Too low: a subscriber that lost much asks more often.
/// Too high: one subscriber's answers hold up the others'.
const RESENDS_MAX: usize = 4;

/// What a message has at least, but for a few that say something of others.
const MESSAGE_BYTES: usize = 64;

/// Where levels begin in a depth record, and where their number stands.
const LEVELS_AT: usize = 56;
const LEVEL_COUNT_AT: usize = 50;
const LEVEL_BYTES: usize = super::super::record::depth::LEVEL_BYTES;

/// Messages asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resend {
    pub sequence: u64,
    pub count: u16,
}

/// A place for one subscriber, with all the memory it will ever need.
pub(super) struct Subscription {
    /// From our endpoint to the subscriber's.
    pub path: Path,
    pub number: u64,
    pub session: Session,
    pub entitlement: usize,
    pub mode: Mode,
    pub records: Records,
    pub depth: u8,
    pub interval_ns: u64,
    symbols: Vec<Symbol>,
    pub history: History,
    /// Number of the first message that has not been sent.
    pub unsent: u64,
    /// Number of the first message that the subscriber has not said it has.
    acknowledged: u64,
    resends: Vec<Resend>,
    /// The next stock of an image that is being sent.
    pub walk: Option<u32>,
    /// When the image goes on.
    pub walk_due_ns: u64,
    /// Number of the message that began the last image, and when that was.
    pub image_sequence: u64,
    pub image_ns: u64,
    pub changes: Changes,
    /// Stocks of this round of conflation that are still to be sent, and when the next one begins.
    pub round: usize,
    pub round_due_ns: u64,
    pub lease_until_ns: u64,
    /// What had been published when all before was acknowledged, and when that was.
    mark: (u64, u64),
    /// When the last packet left, and after how much silence a heartbeat follows.
    pub sent_ns: u64,
    pub heartbeat_ns: u64,
}

impl Subscription {
    /// A place that nobody has.
    pub fn new(history_bytes: usize) -> Self {
        Self {
            path: Path {
                from: Default::default(),
                to: Default::default(),
                link: Default::default(),
            },
            number: 0,
            session: Session([0; 10]),
            entitlement: 0,
            mode: Mode::Full,
            records: Records::default(),
            depth: 0,
            interval_ns: 0,
            symbols: Vec::with_capacity(SYMBOLS_MAX),
            history: History::of_messages(history_bytes, 1, MESSAGE_BYTES),
            unsent: 1,
            acknowledged: 1,
            resends: Vec::with_capacity(RESENDS_MAX),
            walk: None,
            walk_due_ns: 0,
            image_sequence: 1,
            image_ns: 0,
            changes: Changes::new(),
            round: 0,
            round_due_ns: 0,
            lease_until_ns: 0,
            mark: (1, 0),
            sent_ns: 0,
            heartbeat_ns: 0,
        }
    }

    /// Somebody takes the place.
    pub fn begin(
        &mut self,
        path: Path,
        session: Session,
        entitlement: usize,
        request: &Request<'_>,
        now_ns: u64,
    ) {
        self.path = path;
        self.number = request.number;
        self.session = session;
        self.entitlement = entitlement;
        self.mode = request.mode;
        self.records = request.records;
        self.depth = request.depth;
        self.interval_ns = u64::from(request.interval_us) * 1_000;
        self.symbols.clear();
        self.symbols.extend(request.symbols().take(SYMBOLS_MAX));
        self.symbols.sort_unstable();
        self.history.restart(1);
        (self.unsent, self.acknowledged) = (1, 1);
        self.resends.clear();
        self.changes.clear();
        (self.round, self.round_due_ns) = (0, now_ns);
        self.mark = (1, now_ns);
        (self.sent_ns, self.heartbeat_ns) = (now_ns, 0);
    }

    /// Whether a request is for what the subscriber has.
    pub fn is_for(&self, request: &Request<'_>) -> bool {
        // A slow one's mode is not what it asked for.
        self.records == request.records
            && self.depth == request.depth
            && self.symbols.len() == request.symbols().len()
            && request.symbols().all(|symbol| self.symbols.binary_search(&symbol).is_ok())
    }

    /// Whether it wants records of a symbol.
    #[inline]
    pub fn wants(&self, symbol: Symbol) -> bool {
        self.symbols.is_empty() || self.symbols.binary_search(&symbol).is_ok()
    }

    /// Whether an image that is being sent has not come to a stock yet, which is then sent as a part of it.
    #[inline]
    pub fn is_before(&self, locate: u16) -> bool {
        self.walk.is_some_and(|next| u32::from(locate) >= next)
    }

    /// Adds a record. Of a depth record as many levels as are wanted.
    pub fn append_record(
        &mut self,
        value: Value,
        is_of_venue: bool,
        record: &[u8],
        flags: u8,
        left_out: u32,
    ) {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let (front, rest) = message.split_at_mut(HEAD_BYTES);
        front.copy_from_slice(&head(Kind::Record(value, is_of_venue), flags, left_out));
        let bytes = match value {
            Value::Depth(levels) if self.depth < levels => cut(record, levels, self.depth, rest),
            _ => {
                rest[..record.len()].copy_from_slice(record);
                record.len()
            }
        };
        self.history.append(&message[..HEAD_BYTES + bytes]);
    }

    /// Adds what is said of all records.
    pub fn append_state(&mut self, state: State, flags: u8, at_ns: u64) {
        let mut message = [0; HEAD_BYTES + 16];
        message[..HEAD_BYTES].copy_from_slice(&head(Kind::State, flags, 0));
        message[HEAD_BYTES] = state as u8;
        message[HEAD_BYTES + 8..].copy_from_slice(&at_ns.to_le_bytes());
        self.history.append(&message);
    }

    /// Adds that an image begins (`B`) or ends (`E`), or another mode.
    pub fn append_note(&mut self, kind: Kind, code: u8, flags: u8) {
        let mut message = [0; HEAD_BYTES + 8];
        message[..HEAD_BYTES].copy_from_slice(&head(kind, flags, 0));
        message[HEAD_BYTES] = code;
        self.history.append(&message);
    }

    /// An image begins; what has not been sent is superseded by it.
    pub fn begin_image(&mut self, flags: u8, now_ns: u64) {
        self.image_sequence = self.history.next_sequence();
        self.image_ns = now_ns;
        self.unsent = self.image_sequence;
        self.acknowledged = self.image_sequence;
        self.mark = (self.image_sequence, now_ns);
        self.resends.clear();
        self.changes.clear();
        self.round = 0;
        self.append_note(Kind::Image, b'B', flags);
        self.walk = Some(0);
        self.walk_due_ns = now_ns;
    }

    /// The subscriber says which message it waits for.
    pub fn acknowledge(&mut self, next_sequence: u64) {
        if next_sequence <= self.unsent {
            self.acknowledged = self.acknowledged.max(next_sequence);
        }
    }

    /// Whether what is to be sent was overtaken, or the subscriber has not had for too long what there was.
    pub fn is_slow(&mut self, now_ns: u64, limit_ns: u64) -> bool {
        if self.history.first_sequence() > self.unsent {
            return true;
        }
        if self.acknowledged >= self.mark.0 {
            self.mark = (self.history.next_sequence(), now_ns);
        }
        now_ns.saturating_sub(self.mark.1) > limit_ns
    }

    /// Messages that have not been sent.
    pub fn backlog(&self) -> u64 {
        self.history.next_sequence() - self.unsent
    }

    /// Notes a request to be answered; `false` when too many wait.
    pub fn ask_again(&mut self, resend: Resend) -> bool {
        let has_room = self.resends.len() < RESENDS_MAX;
        if has_room {
            self.resends.push(resend);
        }
        has_room
    }

    /// The request that waits longest.
    pub fn next_resend(&self) -> Option<Resend> {
        self.resends.first().copied()
    }

    /// It was answered.
    pub fn resent(&mut self) {
        self.resends.remove(0);
    }
}

/// Writes a depth record of fewer levels to `out` and returns its bytes.
fn cut(record: &[u8], levels: u8, wanted: u8, out: &mut [u8]) -> usize {
    let side = usize::from(levels) * LEVEL_BYTES;
    let kept = usize::from(wanted) * LEVEL_BYTES;
    let bytes = LEVELS_AT + 2 * kept;
    out[..LEVELS_AT + kept].copy_from_slice(&record[..LEVELS_AT + kept]);
    let asks = &record[LEVELS_AT + side..][..kept];
    out[LEVELS_AT + kept..bytes].copy_from_slice(asks);
    out[2..4].copy_from_slice(&(bytes as u16).to_le_bytes());
    out[LEVEL_COUNT_AT] = wanted;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::book::Level;
    use crate::feed::record::Origin;
    use crate::feed::record::depth::{DEPTH_BYTES_MAX, DEPTH_MAX, Depth, DepthRecord};

    fn depth_record(levels: u8) -> DepthRecord {
        let level = |number: usize, is_there: bool| match is_there {
            true => Level { price: number as u32, shares: 10 * number as u64, orders: 1 },
            false => Level::default(),
        };
        let side = |first: usize| {
            std::array::from_fn(|place| level(first + place, place < usize::from(levels)))
        };
        let origin = Origin {
            locate: 9,
            flags: 0,
            source_sequence: 3,
            capture_ns: 4,
            exchange_ns: 5,
            symbol: Symbol::new("AAPL").unwrap(),
            session: Session(*b"0123456789"),
        };
        DepthRecord { origin, depth: Depth { levels, bids: side(100), asks: side(200) } }
    }

    #[test]
    fn a_depth_record_is_cut_to_what_is_wanted() {
        let mut whole = [0; DEPTH_BYTES_MAX];
        let record = depth_record(DEPTH_MAX as u8);
        let record = record.encode(&mut whole);
        for wanted in 1..=DEPTH_MAX as u8 {
            let mut subscription = Subscription::new(4_096);
            subscription.depth = wanted;
            subscription.append_record(Value::Depth(DEPTH_MAX as u8), false, record, 0, 7);
            let message = subscription.history.get(1).unwrap();
            assert_eq!(message[..HEAD_BYTES], [b'D', 0, 0, 0, 7, 0, 0, 0]);
            let read = DepthRecord::decode(&message[HEAD_BYTES..]).unwrap();
            assert_eq!(read, depth_record(wanted));
        }
    }

    #[test]
    fn a_subscriber_is_slow_when_it_has_not_had_for_too_long_what_there_was() {
        let mut subscription = Subscription::new(4_096);
        let append = |subscription: &mut Subscription| {
            subscription.append_note(Kind::Mode, 0, 0);
            subscription.unsent = subscription.history.next_sequence();
        };
        append(&mut subscription);
        assert!(!subscription.is_slow(100, 10));
        // From now on number 1 is waited for; that there is more later changes nothing.
        append(&mut subscription);
        assert!(!subscription.is_slow(110, 10));
        assert!(subscription.is_slow(111, 10));
        // A number that was never sent is no acknowledgement.
        subscription.acknowledge(4);
        assert!(subscription.is_slow(111, 10));
        subscription.acknowledge(2);
        assert!(!subscription.is_slow(111, 10));
        assert!(!subscription.is_slow(121, 10));
        subscription.acknowledge(3);
        assert!(!subscription.is_slow(131, 10));
    }

    #[test]
    fn one_whose_messages_were_overtaken_unsent_is_slow() {
        let mut subscription = Subscription::new(1_024);
        for _ in 0..200 {
            subscription.append_note(Kind::Mode, 0, 0);
        }
        assert!(subscription.is_slow(0, u64::MAX));
    }
}
