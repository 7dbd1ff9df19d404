//! The front's half of a snapshot server: books made of what the worker tells of its own, and the snapshot
//! written from them.
//!
//! ```text
//!   begin -> messages, in the order in which they became true -> end(next): the worker's books, as of before next
//!                                                                 |
//!                                          S | R | H Y | orders | G   as packets of SoupBinTCP, once for all
//! ```
//!
//! What is told again costs less than to follow what changes while nobody asks, so the books are of no use from
//! the moment on that they are written down. Sequenced packets carry no number, so that the bytes are the
//! same for every client. No I/O. Owned by the front.

use nautilus_shm::front_region::SnapshotContent;

use super::stocks::Stocks;
use crate::feed::Symbol;
use crate::feed::book::{BookLimits, Books, Problem, Step, Walk};
use crate::feed::glimpse::{END_BYTES, end_message};
use crate::feed::itch::messages::{AddOrder, Common, SystemEvent};
use crate::feed::itch::{DecodeError, Message, Nanoseconds, Price4};
use crate::feed::moldudp64::{Messages, MoldError, Session};
use crate::feed::soupbintcp::ServerPacket;

/// Stock locates are 16 bits.
const LOCATES: u32 = 1 << 16;

/// Bytes of a sequenced packet besides its message.
const PACKET_OVERHEAD_BYTES: usize = 3;

/// Symbol of an order whose book has none, which no order's has.
const NO_SYMBOL: Symbol = Symbol([b' '; 8]);

/// Why what is told cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// A piece that has no place here.
    #[error("a piece out of turn")]
    OutOfTurn,
    /// The worker says that it is of no use.
    #[error("void")]
    Void,
    /// Not messages behind their lengths.
    #[error("a piece that is cut: {0}")]
    Cut(#[from] MoldError),
    /// A message that is none.
    #[error("a message that is none: {0}")]
    Message(#[from] DecodeError),
    /// A message that the worker's books took and these do not.
    #[error("books that do not agree: {0:?}")]
    Books(Problem),
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowState {
    /// Nothing that is of use.
    Empty,
    /// Being told, of this session.
    Loading(Session),
    /// All of the worker's books, as of before this number.
    Whole(Session, u64),
}

/// Books as they are told.
pub struct Shadow {
    books: Books,
    stocks: Stocks,
    state: ShadowState,
    now: Nanoseconds,
}

impl Shadow {
    /// Empty. Allocates all it will ever need; `limits` are those of the worker's books.
    pub fn new(limits: BookLimits) -> Self {
        Self {
            books: Books::new(limits),
            stocks: Stocks::new(),
            state: ShadowState::Empty,
            now: Nanoseconds(0),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> ShadowState {
        self.state
    }

    /// The books.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Makes them of no use.
    pub fn forget(&mut self) {
        self.state = ShadowState::Empty;
    }

    /// Takes in what is told next. After an error nothing is of use but a beginning.
    pub fn take(&mut self, content: &SnapshotContent<'_>) -> Result<(), ShadowError> {
        let taken = self.try_take(content);
        if taken.is_err() {
            self.forget();
        }
        taken
    }

    fn try_take(&mut self, content: &SnapshotContent<'_>) -> Result<(), ShadowError> {
        match (*content, self.state) {
            (SnapshotContent::Begin(session), _) => {
                self.books.clear();
                self.stocks.clear();
                self.state = ShadowState::Loading(Session(session));
            }
            (SnapshotContent::Messages(blocks), ShadowState::Loading(_)) => {
                for block in Messages::of_blocks(blocks) {
                    self.apply(block?)?;
                }
            }
            (SnapshotContent::End(next_sequence), ShadowState::Loading(session))
                if next_sequence > 0 =>
            {
                self.state = ShadowState::Whole(session, next_sequence);
            }
            (SnapshotContent::Failed, _) => return Err(ShadowError::Void),
            _ => return Err(ShadowError::OutOfTurn),
        }
        Ok(())
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<(), ShadowError> {
        let message = Message::decode(bytes)?;
        self.stocks.keep(&message, bytes);
        self.now = message.common().timestamp;
        match self.books.apply(&message).1 {
            // Of an order that was not told yet; or what the worker's books made nothing else of.
            None | Some(Problem::UnknownOrder | Problem::OverReduction | Problem::ZeroShares) => {
                Ok(())
            }
            Some(problem) => Err(ShadowError::Books(problem)),
        }
    }

    /// The most bytes that a snapshot of books of these limits has.
    pub const fn snapshot_bytes_max(limits: &BookLimits) -> usize {
        let orders = limits.orders_max as usize * (AddOrder::BYTES + PACKET_OVERHEAD_BYTES);
        let stock = Stocks::STOCK_BYTES_MAX + 3 * PACKET_OVERHEAD_BYTES;
        let rest = SystemEvent::BYTES + END_BYTES + 3 * PACKET_OVERHEAD_BYTES;
        orders + LOCATES as usize * stock + rest
    }

    /// Writes some more of the snapshot, behind what is in `out`; `true` when that is all of it. Nothing is written
    /// and all is done unless the books are [whole](ShadowState::Whole).
    pub fn write(&self, writing: &mut Writing, steps: usize, out: &mut Vec<u8>) -> bool {
        let ShadowState::Whole(_, next_sequence) = self.state else { return true };
        let mut give = |message: &[u8]| ServerPacket::Sequenced(message).write(out);
        for _ in 0..steps {
            match writing {
                Writing::Event => {
                    self.stocks.event().into_iter().for_each(&mut give);
                    *writing = Writing::Directories(0);
                }
                Writing::Directories(LOCATES) => *writing = Writing::States(0),
                Writing::Directories(locate) => {
                    self.stocks.directory(*locate as u16).into_iter().for_each(&mut give);
                    *locate += 1;
                }
                Writing::States(LOCATES) => *writing = Writing::Orders(Walk::default()),
                Writing::States(locate) => {
                    self.stocks.states(*locate as u16).for_each(&mut give);
                    *locate += 1;
                }
                Writing::Orders(walk) => match walk.step(&self.books) {
                    Step::Order(order) => {
                        let common = Common {
                            stock_locate: order.locate,
                            tracking_number: 0,
                            timestamp: self.now,
                        };
                        let symbol = self.books.symbol(order.locate).unwrap_or(NO_SYMBOL);
                        let price = Price4(order.price);
                        let (side, shares) = (order.side.code(), order.shares);
                        let reference = order.reference;
                        give(&AddOrder::encode(common, reference, side, shares, symbol, price));
                    }
                    Step::Stock(_) | Step::Nothing => {}
                    Step::Over => *writing = Writing::End,
                },
                Writing::End => {
                    give(&end_message(next_sequence));
                    ServerPacket::EndOfSession.write(out);
                    return true;
                }
            }
        }
        false
    }
}

/// How far a snapshot is written.
#[derive(Clone, Copy, Debug, Default)]
pub enum Writing {
    /// Nothing of it.
    #[default]
    Event,
    /// The directory, as far as this locate.
    Directories(u32),
    /// What else is known of stocks, as far as this locate.
    States(u32),
    /// Orders.
    Orders(Walk),
    /// All but its end.
    End,
}
