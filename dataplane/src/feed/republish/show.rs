//! The worker's half of a snapshot server: its books told to the front, exactly, a bounded piece a turn and without
//! ever standing still.
//!
//! ```text
//!   wanted -> begin -> S | stock by stock: R H Y, orders as A | .... between them, as it happens: .... | end
//!                                                               what changes of what has been told:
//!                                                               A where the walk has passed, E C X D, R H Y S
//! ```
//!
//! Everything is said in messages of ITCH, in the order in which it became true: whoever applies them to empty
//! books has, at each instant, exactly the part of the books that the walk has passed, queues in order, and at
//! the end all of them, as of the number that the end names. A change of an order that was not told yet names
//! a reference that nobody knows, and does nothing. An order that is replaced is told as one that goes and one
//! that comes, for only this side knows where both of them rest.
//!
//! Nothing waits for the reader. What it does not take is kept in fixed memory; when that is full, or the books
//! cannot be believed any more, the showing is void and says so. Owned by the channel's publisher.

use nautilus_shm::front_region::{SnapshotContent, SnapshotMessage};

use super::stocks::Stocks;
use crate::feed::Symbol;
use crate::feed::book::{Books, Order, Step, Walk};
use crate::feed::itch::messages::{AddOrder, Common, OrderDelete};
use crate::feed::itch::{Message, Nanoseconds, Price4, Side};
use crate::feed::moldudp64::Session;

/// Orders told in one turn. Too low: a showing takes long, and more is told twice. Too high: packets wait, for
/// some 100 ns an order.
const ORDERS_A_TURN: usize = 64;

/// Steps of the walk in one turn, most of them over locates without a book.
const STEPS_A_TURN: usize = 2_048;

/// Bytes that the front has not taken. Too low: a burst, or a front that is busy, makes the showing void. Too
/// high: memory.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Bytes handed over in one message.
const PIECE_BYTES: usize = 16 << 10;

/// Symbol of an order whose book has none, which no order's has.
const NO_SYMBOL: Symbol = Symbol([b' '; 8]);

/// What of the channel a showing depends on.
#[derive(Clone, Copy, Debug)]
pub struct ShowStanding {
    /// The session, unless the books cannot be believed.
    pub session: Option<Session>,
    /// Number of the next message to apply.
    pub next_sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Somebody wants it.
    Wanted,
    Walking(Session),
    /// All was told, as of before this number.
    Over(u64),
    /// Of no use; to be said.
    Void,
}

/// Showings begun, ended well and void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShowCounts {
    /// Wanted.
    pub wanted: u64,
    /// Told to the end.
    pub complete: u64,
    /// Refused, or void in their middle.
    pub void: u64,
}

/// The showing of one channel's books, one at a time.
pub struct Show {
    stocks: Stocks,
    state: State,
    orders_a_turn: usize,
    channel: u8,
    attempt: u64,
    walk: Walk,
    /// Orders added where the walk has not been since it went on last: it goes on by as many more, so that no
    /// queue grows faster than it is walked along.
    ahead: usize,
    /// Messages that the front has not taken, each behind its length, and where they begin.
    waiting: Vec<u8>,
    taken: usize,
    /// The exchange's time of the last message applied: that of orders that are told.
    now: Nanoseconds,
    counts: ShowCounts,
}

impl Show {
    /// Nobody wants anything. Makes all it will ever need.
    pub fn new(channel: u8) -> Self {
        Self::with_pace(channel, ORDERS_A_TURN)
    }

    /// The same that tells so many orders a turn.
    pub fn with_pace(channel: u8, orders_a_turn: usize) -> Self {
        // Written once, so that no page of it is missing when it is needed.
        let mut waiting = vec![1; WAITING_BYTES_MAX];
        waiting.clear();
        Self {
            stocks: Stocks::new(),
            state: State::Idle,
            orders_a_turn,
            channel,
            attempt: 0,
            walk: Walk::default(),
            ahead: 0,
            waiting,
            taken: 0,
            now: Nanoseconds(0),
            counts: ShowCounts::default(),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> ShowCounts {
        self.counts
    }

    /// Whether there is something to do in [`Self::turn`].
    #[inline]
    pub fn is_open(&self) -> bool {
        self.state != State::Idle
    }

    /// The front wants the books; what it wanted before is over.
    pub fn want(&mut self, attempt: u64) {
        self.counts.wanted += 1;
        self.counts.void += u64::from(self.is_open());
        (self.attempt, self.state) = (attempt, State::Wanted);
    }

    /// The books are being forgotten.
    pub fn clear(&mut self) {
        self.stocks.clear();
        self.make_void();
    }

    fn make_void(&mut self) {
        if matches!(self.state, State::Walking(_) | State::Over(_)) {
            self.state = State::Void;
        }
    }

    /// A message is about to be applied to the books.
    #[inline]
    pub fn note(&mut self, books: &Books, message: &Message<'_>, bytes: &[u8]) {
        let is_kept = self.stocks.keep(message, bytes);
        self.now = message.common().timestamp;
        if matches!(self.state, State::Walking(_)) {
            self.note_while_walking(books, message, bytes, is_kept);
        }
    }

    fn note_while_walking(
        &mut self,
        books: &Books,
        message: &Message<'_>,
        bytes: &[u8],
        is_kept: bool,
    ) {
        if is_kept {
            return self.tell(bytes);
        }
        let common = message.common();
        match message {
            Message::AddOrder(_) | Message::AddOrderAttributed(_) => {
                let Some(new) = NewOrder::of(message) else { return };
                // One whose reference is in use is not added.
                if books.order(new.reference).is_some() {
                    return;
                }
                match self.walk.has_passed(common.stock_locate, new.side, new.price) {
                    true => self.tell(bytes),
                    false => self.ahead += 1,
                }
            }
            Message::OrderExecuted(done) => {
                self.note_less(books, done.order(), done.shares(), bytes);
            }
            Message::OrderExecutedWithPrice(done) => {
                self.note_less(books, done.order(), done.shares(), bytes);
            }
            Message::OrderCancel(done) => self.note_less(books, done.order(), done.shares(), bytes),
            Message::OrderDelete(done) => self.note_less(books, done.order(), u32::MAX, bytes),
            Message::OrderReplace(replace) => {
                let Some(&old) = books.order(replace.order()) else { return };
                self.walk.note_removal(books, old.reference);
                self.tell(&OrderDelete::encode(common, old.reference));
                let new = replace.new_order();
                let is_free = new == old.reference || books.order(new).is_none();
                let (shares, price) = (replace.shares(), replace.price().0);
                if shares == 0 || !is_free {
                    return;
                }
                if self.walk.has_passed(old.locate, old.side, price) {
                    let order = Order { reference: new, price, shares, ..old };
                    self.tell_order(books, &order, common);
                } else {
                    self.ahead += 1;
                }
            }
            _ => {}
        }
    }

    /// So many shares go of an order, which goes with the last.
    fn note_less(&mut self, books: &Books, reference: u64, shares: u32, bytes: &[u8]) {
        let Some(order) = books.order(reference) else { return };
        if shares >= order.shares {
            self.walk.note_removal(books, reference);
        }
        self.tell(bytes);
    }

    fn tell_order(&mut self, books: &Books, order: &Order, common: Common) {
        let common = Common { stock_locate: order.locate, ..common };
        let symbol = books.symbol(order.locate).unwrap_or(NO_SYMBOL);
        let (reference, shares, price) = (order.reference, order.shares, Price4(order.price));
        let side = order.side.code();
        self.tell(&AddOrder::encode(common, reference, side, shares, symbol, price));
    }

    fn tell(&mut self, bytes: &[u8]) {
        if !push(&mut self.waiting, bytes) {
            self.make_void();
        }
    }

    /// Tells some more, and hands over what `push` takes: `false` of it means later. To be called every turn while
    /// it [is open](Self::is_open), and not between two messages of one burst.
    pub fn turn(
        &mut self,
        books: &Books,
        standing: &ShowStanding,
        mut push: impl FnMut(&SnapshotMessage<'_>) -> bool,
    ) {
        let (channel, attempt) = (self.channel, self.attempt);
        let mut say =
            |content: SnapshotContent<'_>| push(&SnapshotMessage { channel, attempt, content });
        if let State::Walking(session) = self.state
            && standing.session != Some(session)
        {
            self.make_void();
        }
        if self.state == State::Wanted {
            self.empty();
            match standing.session {
                None => self.state = State::Void,
                Some(session) if say(SnapshotContent::Begin(session.0)) => {
                    self.state = State::Walking(session);
                    (self.walk, self.ahead) = (Walk::default(), 0);
                    if let Some(event) = self.stocks.event() {
                        push_block(&mut self.waiting, event);
                    }
                }
                Some(_) => return,
            }
        }
        if let State::Walking(_) = self.state
            && self.hand_over(&mut say)
        {
            self.walk_on(books, standing.next_sequence);
        }
        if let State::Over(next_sequence) = self.state
            && self.hand_over(&mut say)
            && say(SnapshotContent::End(next_sequence))
        {
            self.counts.complete += 1;
            self.state = State::Idle;
        }
        if self.state == State::Void && say(SnapshotContent::Failed) {
            self.counts.void += 1;
            self.state = State::Idle;
        }
    }

    fn empty(&mut self) {
        self.waiting.clear();
        self.taken = 0;
    }

    /// Hands over what waits; whether that was all.
    fn hand_over(&mut self, say: &mut impl FnMut(SnapshotContent<'_>) -> bool) -> bool {
        while self.taken < self.waiting.len() {
            let rest = &self.waiting[self.taken..];
            let bytes = whole_blocks(rest, PIECE_BYTES);
            if !say(SnapshotContent::Messages(&rest[..bytes])) {
                // What was taken makes room only when it is all there is: it is moved rarely.
                if self.taken >= WAITING_BYTES_MAX / 2 {
                    self.waiting.drain(..self.taken);
                    self.taken = 0;
                }
                return false;
            }
            self.taken += bytes;
        }
        self.empty();
        true
    }

    fn walk_on(&mut self, books: &Books, next_sequence: u64) {
        let orders_max = self.orders_a_turn + std::mem::take(&mut self.ahead);
        let mut orders = 0;
        for _ in 0..STEPS_A_TURN + orders_max {
            match self.walk.step(books) {
                Step::Nothing => {}
                Step::Stock(locate) => {
                    orders += 1;
                    let Self { stocks, waiting, .. } = self;
                    for message in stocks.directory(locate).into_iter().chain(stocks.states(locate))
                    {
                        push_block(waiting, message);
                    }
                }
                Step::Order(&order) => {
                    orders += 1;
                    let common = Common { timestamp: self.now, ..Common::default() };
                    self.tell_order(books, &order, common);
                }
                Step::Over => {
                    self.state = State::Over(next_sequence);
                    return;
                }
            }
            if orders >= orders_max {
                return;
            }
        }
    }
}

/// What a message adds, if it does.
struct NewOrder {
    reference: u64,
    side: Side,
    price: u32,
}

impl NewOrder {
    fn of(message: &Message<'_>) -> Option<Self> {
        let (reference, side, shares, price) = match message {
            Message::AddOrder(add) => (add.order(), add.side(), add.shares(), add.price()),
            Message::AddOrderAttributed(add) => {
                (add.order(), add.side(), add.shares(), add.price())
            }
            _ => return None,
        };
        let side = Side::from_code(side).filter(|_| shares != 0)?;
        Some(Self { reference, side, price: price.0 })
    }
}

/// Appends a message behind its length; `false` without room.
fn push(blocks: &mut Vec<u8>, message: &[u8]) -> bool {
    let has_room = blocks.len() + 2 + message.len() <= WAITING_BYTES_MAX;
    if has_room {
        push_block(blocks, message);
    }
    has_room
}

/// The same of a message for which there is room, as while nothing waits.
fn push_block(blocks: &mut Vec<u8>, message: &[u8]) {
    blocks.extend_from_slice(&(message.len() as u16).to_be_bytes());
    blocks.extend_from_slice(message);
}

/// Bytes of the whole blocks at the front, at most `bytes_max` of them; no block is longer than that.
fn whole_blocks(blocks: &[u8], bytes_max: usize) -> usize {
    let mut end = 0;
    while let Some((length, _)) = blocks[end..].split_first_chunk::<2>() {
        let next = end + 2 + usize::from(u16::from_be_bytes(*length));
        if next > blocks.len() || next > bytes_max {
            break;
        }
        end = next;
    }
    end
}
