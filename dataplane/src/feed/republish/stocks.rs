//! What a venue has said of itself and its stocks beside orders, as it was sent: what a snapshot begins with.
//!
//! Directory, trading action and Reg SHO restriction of each stock, and the last system event; of each the last.
//! Written by the worker that owns the channel, and again by a front that shows the books.

use crate::feed::itch::Message;
use crate::feed::itch::messages::{
    RegShoRestriction, StockDirectory, StockTradingAction, SystemEvent,
};

/// Stock locates are 16 bits.
const LOCATES: usize = 1 << 16;

/// Messages of one stock.
#[derive(Clone, Copy)]
struct Stock {
    epoch: u32,
    has_directory: bool,
    has_action: bool,
    has_reg_sho: bool,
    directory: [u8; StockDirectory::BYTES],
    action: [u8; StockTradingAction::BYTES],
    reg_sho: [u8; RegShoRestriction::BYTES],
}

/// All of them.
pub struct Stocks {
    stocks: Box<[Stock]>,
    event: Option<[u8; SystemEvent::BYTES]>,
    epoch: u32,
}

impl Default for Stocks {
    fn default() -> Self {
        Self::new()
    }
}

impl Stocks {
    /// The most bytes of messages of one stock.
    pub const STOCK_BYTES_MAX: usize =
        StockDirectory::BYTES + StockTradingAction::BYTES + RegShoRestriction::BYTES;

    /// Nothing was said. Allocates all there will ever be and touches it.
    pub fn new() -> Self {
        let stock = Stock {
            epoch: 0,
            has_directory: false,
            has_action: false,
            has_reg_sho: false,
            // Not all zero, so that the pages are written here and not faulted in by the run loop.
            directory: [1; _],
            action: [1; _],
            reg_sho: [1; _],
        };
        Self { stocks: vec![stock; LOCATES].into_boxed_slice(), event: None, epoch: 1 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.event = None;
        self.epoch += 1;
    }

    /// Keeps a message if it is one of those; says whether it is.
    #[inline]
    pub fn keep(&mut self, message: &Message<'_>, bytes: &[u8]) -> bool {
        let locate = message.common().stock_locate;
        match message {
            Message::SystemEvent(_) => self.event = bytes.try_into().ok(),
            Message::StockDirectory(_) => {
                let stock = self.stock_mut(locate);
                stock.has_directory = copy(&mut stock.directory, bytes);
            }
            Message::StockTradingAction(_) => {
                let stock = self.stock_mut(locate);
                stock.has_action = copy(&mut stock.action, bytes);
            }
            Message::RegShoRestriction(_) => {
                let stock = self.stock_mut(locate);
                stock.has_reg_sho = copy(&mut stock.reg_sho, bytes);
            }
            _ => return false,
        }
        true
    }

    /// The last system event.
    pub fn event(&self) -> Option<&[u8]> {
        self.event.as_ref().map(|event| &event[..])
    }

    /// The directory message of a stock.
    pub fn directory(&self, locate: u16) -> Option<&[u8]> {
        let stock = self.stock(locate)?;
        stock.has_directory.then_some(&stock.directory[..])
    }

    /// The other messages of a stock.
    pub fn states(&self, locate: u16) -> impl Iterator<Item = &[u8]> {
        let stock = self.stock(locate);
        let action = stock.filter(|stock| stock.has_action).map(|stock| &stock.action[..]);
        let reg_sho = stock.filter(|stock| stock.has_reg_sho).map(|stock| &stock.reg_sho[..]);
        action.into_iter().chain(reg_sho)
    }

    fn stock(&self, locate: u16) -> Option<&Stock> {
        let stock = &self.stocks[usize::from(locate)];
        (stock.epoch == self.epoch).then_some(stock)
    }

    fn stock_mut(&mut self, locate: u16) -> &mut Stock {
        let stock = &mut self.stocks[usize::from(locate)];
        if stock.epoch != self.epoch {
            stock.epoch = self.epoch;
            (stock.has_directory, stock.has_action, stock.has_reg_sho) = (false, false, false);
        }
        stock
    }
}

fn copy<const N: usize>(to: &mut [u8; N], bytes: &[u8]) -> bool {
    let whole = <[u8; N]>::try_from(bytes);
    whole.map(|whole| *to = whole).is_ok()
}
