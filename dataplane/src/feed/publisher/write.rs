//! Records on their way into the keyspace.

use super::super::book::Level;
use super::super::itch::Side;
use super::super::moldudp64::Session;
use super::super::record::depth::{DEPTH_BYTES_MAX, DEPTH_MAX, Depth, DepthRecord};
use super::super::record::statistics::{STATISTICS_BYTES, StatisticsRecord};
use super::super::record::status::{StatusRecord, VENUE_STATUS_BYTES, VenueStatusRecord};
use super::super::record::tops::{QuoteRecord, TradeRecord};
use super::super::record::{
    About, BboRecord, FLAG_CROSSED, FLAG_PARTIAL, Key, LastRecord, Origin, Value,
};
use super::super::statistics::Statistics;
use super::super::status::Stamp;
use super::super::{Symbol, book};
use super::{Publisher, Stored};
use crate::app::Keyspace;

/// Between two records of what was traded on a venue. Too low: a record for each trade of every stock. Too high:
/// it is behind by so much.
const VENUE_STATISTICS_NS: u64 = 100_000_000;

/// The records of a venue by their place in [`Publisher::venue_stored`].
const VENUE_STATUS: usize = 0;
const VENUE_STATISTICS: usize = 1;

/// Symbol of a venue's own records.
const NO_SYMBOL: Symbol = Symbol([b' '; 8]);

impl Publisher {
    /// Writes one record as the books stand now.
    pub(super) fn write<K: Keyspace>(
        &mut self,
        locate: u16,
        value: Value,
        capture_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        let symbol = self.symbol(locate);
        let key = symbol.and_then(|symbol| Key::new(&self.spec.venue, symbol, value));
        let (Some(symbol), Some(key)) = (symbol, key) else {
            self.counters.unnamed += 1;
            return;
        };
        let publication = &mut self.publications[usize::from(locate)];
        publication.captured_ns[value.kind()] = capture_ns;
        if value == Value::Bbo {
            publication.bbo = self.books.bbo(locate);
            publication.bbo_sequence = publication.book_sequence;
            publication.bbo_exchange_ns = publication.book_exchange_ns;
            let is_crossed = match &self.tops {
                Some(tops) => tops.quotes.quote(locate).is_crossed(),
                None => publication.bbo.is_crossed(),
            };
            self.counters.crossed_records += u64::from(is_crossed);
        }
        if value == Value::Statistics {
            publication.orders_written = publication.statistics.orders;
        }
        let (about, channel) = (About { stock: Some((locate, symbol)), value }, self.spec.channel);
        let result = self.with_record(locate, symbol, value, session, |record| {
            keyspace.put_record(&about, key.as_bytes(), record, channel, capture_ns)
        });
        let publication = &mut self.publications[usize::from(locate)];
        let stored = &mut publication.stored[value.kind()];
        let before = *stored;
        *stored = before.after(result.is_ok());
        let is_older = *stored == Stored::Older;
        match result {
            Ok(()) => self.counters.published += 1,
            Err(_) => self.counters.publish_failures += 1,
        }
        self.older -= u32::from(before == Stored::Older);
        if is_older {
            self.older += 1;
            self.set_suspect(keyspace);
            if !std::mem::replace(&mut self.publications[usize::from(locate)].retried, true) {
                self.retries.push(locate);
            }
        }
    }

    /// The symbol of a stock locate, or of a place among the quotes.
    pub fn symbol(&self, locate: u16) -> Option<Symbol> {
        match &self.tops {
            Some(tops) => tops.quotes.symbol(locate),
            None => self.books.symbol(locate),
        }
    }

    /// Hands over the record of a stock as books and facts stand now.
    #[inline]
    fn with_record<R>(
        &self,
        locate: u16,
        symbol: Symbol,
        value: Value,
        session: Session,
        take: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let publication = &self.publications[usize::from(locate)];
        let of_book = (publication.book_sequence, publication.book_exchange_ns);
        let of_trade = (publication.trade_sequence, publication.trade_exchange_ns);
        // The place of a quote is no number of the venue's.
        let stock_locate = if self.tops.is_some() { 0 } else { locate };
        let origin = |(source_sequence, exchange_ns): (u64, u64)| Origin {
            locate: stock_locate,
            flags: if self.partial { FLAG_PARTIAL } else { 0 },
            source_sequence,
            capture_ns: publication.captured_ns[value.kind()],
            exchange_ns,
            symbol,
            session,
        };
        let of_bbo = (publication.bbo_sequence, publication.bbo_exchange_ns);
        match (value, &self.tops) {
            (Value::Bbo, Some(tops)) => {
                let quote = tops.quotes.quote(locate);
                take(&QuoteRecord { origin: origin(of_bbo), quote }.encode())
            }
            (Value::Last, Some(tops)) => {
                let trade = tops.quotes.trade(locate).unwrap_or_default();
                let origin = origin((of_trade.0, trade.exchange_ns));
                take(&TradeRecord { origin, trade }.encode())
            }
            (Value::Bbo, None) => {
                let (mut origin, bbo) = (origin(of_bbo), publication.bbo);
                origin.flags |= if bbo.is_crossed() { FLAG_CROSSED } else { 0 };
                take(&BboRecord { origin, bbo }.encode())
            }
            (Value::Depth(levels), _) => {
                let depth = depth_of(&self.books, locate, levels);
                let record = DepthRecord { origin: origin(of_book), depth };
                take(record.encode(&mut [0; DEPTH_BYTES_MAX]))
            }
            (Value::Last, None) => {
                let trade = self.books.last_trade(locate);
                let exchange_ns = trade.map_or(0, |trade| trade.exchange_ns);
                let origin = origin((of_trade.0, exchange_ns));
                take(&LastRecord { origin, trade }.encode())
            }
            (Value::Statistics, _) => {
                let orders = publication.orders_written;
                let statistics = Statistics { orders, ..publication.statistics };
                take(&StatisticsRecord { origin: origin(of_trade), statistics }.encode())
            }
            (Value::Status, _) => {
                let status = self.facts.statuses.get(locate);
                let Stamp { sequence, exchange_ns } = status.newest();
                take(&StatusRecord { origin: origin((sequence, exchange_ns)), status }.encode())
            }
        }
    }

    /// Hands over a record of a stock as it would be written now, if there was one in this session. To be called
    /// between two packets.
    pub fn published<R>(
        &self,
        locate: u16,
        value: Value,
        session: Session,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let publication = &self.publications[usize::from(locate)];
        let is_there =
            publication.epoch == self.epoch && publication.captured_ns[value.kind()] != 0;
        let symbol = self.symbol(locate).filter(|_| is_there)?;
        Some(self.with_record(locate, symbol, value, session, take))
    }

    /// The same of the venue, of which there are status and statistics.
    pub fn published_of_venue<R>(
        &self,
        value: Value,
        session: Session,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let captured_ns = |place: usize| {
            Some(self.venue_captured_ns[place]).filter(|captured_ns| *captured_ns != 0)
        };
        match value {
            Value::Status => {
                Some(take(&self.venue_status_record(captured_ns(VENUE_STATUS)?, session)))
            }
            Value::Statistics => {
                Some(take(&self.venue_statistics_record(captured_ns(VENUE_STATISTICS)?, session)))
            }
            _ => None,
        }
    }

    /// Writes what the venue says of itself.
    pub(super) fn publish_venue_status<K: Keyspace>(
        &mut self,
        capture_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        let record = self.venue_status_record(capture_ns, session);
        self.write_venue(VENUE_STATUS, Value::Status, &record, capture_ns, keyspace);
    }

    /// Writes what is due of the venue: what was refused before, and now and then what was traded.
    pub(super) fn publish_venue<K: Keyspace>(
        &mut self,
        now_ns: u64,
        session: Session,
        keyspace: &mut K,
    ) {
        if self.venue_changed[VENUE_STATUS] {
            self.publish_venue_status(now_ns, session, keyspace);
        }
        if now_ns.saturating_sub(self.venue_published_ns) < VENUE_STATISTICS_NS {
            return;
        }
        let statistics = self.facts.statistics;
        if statistics == self.venue_statistics && !self.venue_changed[VENUE_STATISTICS] {
            return;
        }
        self.venue_published_ns = now_ns;
        self.venue_statistics = statistics;
        let record = self.venue_statistics_record(now_ns, session);
        self.write_venue(VENUE_STATISTICS, Value::Statistics, &record, now_ns, keyspace);
    }

    fn venue_status_record(&self, capture_ns: u64, session: Session) -> [u8; VENUE_STATUS_BYTES] {
        let status = *self.facts.statuses.venue();
        let origin = self.origin_of_venue(status.newest(), capture_ns, session);
        VenueStatusRecord { origin, status }.encode()
    }

    /// As they were published last.
    fn venue_statistics_record(&self, capture_ns: u64, session: Session) -> [u8; STATISTICS_BYTES] {
        let origin = self.origin_of_venue(Stamp::default(), capture_ns, session);
        StatisticsRecord { origin, statistics: self.venue_statistics }.encode()
    }

    fn origin_of_venue(&self, stamp: Stamp, capture_ns: u64, session: Session) -> Origin {
        Origin {
            locate: 0,
            flags: if self.partial { FLAG_PARTIAL } else { 0 },
            source_sequence: stamp.sequence,
            capture_ns,
            exchange_ns: stamp.exchange_ns,
            symbol: NO_SYMBOL,
            session,
        }
    }

    fn write_venue<K: Keyspace>(
        &mut self,
        place: usize,
        value: Value,
        record: &[u8],
        capture_ns: u64,
        keyspace: &mut K,
    ) {
        let key = Key::of_venue(&self.spec.venue, value);
        self.venue_captured_ns[place] = capture_ns;
        let about = About { stock: None, value };
        let channel = self.spec.channel;
        let result = keyspace.put_record(&about, key.as_bytes(), record, channel, capture_ns);
        match result {
            Ok(()) => self.counters.published += 1,
            Err(_) => self.counters.publish_failures += 1,
        }
        self.venue_stored[place] = self.venue_stored[place].after(result.is_ok());
        self.venue_changed[place] = result.is_err();
        if self.venue_stored[place] == Stored::Older {
            self.set_suspect(keyspace);
        }
    }
}

/// The best levels of a stock.
fn depth_of(books: &book::Books, locate: u16, levels: u8) -> Depth {
    let mut depth =
        Depth { levels, bids: [Level::default(); DEPTH_MAX], asks: [Level::default(); DEPTH_MAX] };
    let count = usize::from(levels).min(DEPTH_MAX);
    let sides = [(Side::Buy, &mut depth.bids), (Side::Sell, &mut depth.asks)];
    for (side, places) in sides {
        for (place, level) in places[..count].iter_mut().zip(books.levels(locate, side)) {
            *place = *level;
        }
    }
    depth
}
