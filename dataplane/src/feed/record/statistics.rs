//! `md:{venue}:{symbol}:stats` and `md:{venue}:stats`.

use super::{FLAG_SATURATED, Origin, Reader, Writer};
use crate::feed::statistics::Statistics;

/// Bytes of a statistics record.
pub const STATISTICS_BYTES: usize = 104;

/// What was added and traded in the session so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsRecord {
    /// Where it comes from. In that of a venue the symbol is blank and the locate 0.
    pub origin: Origin,
    /// The counts. A value that does not fit 64 bits stands at the largest that does.
    pub statistics: Statistics,
}

impl StatisticsRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; STATISTICS_BYTES] {
        let mut out = [0; STATISTICS_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let counts = self.statistics;
        let value = u64::try_from(counts.value);
        let flags = if value.is_err() { FLAG_SATURATED } else { 0 };
        self.origin.write(&mut writer, STATISTICS_BYTES, flags);
        writer.put([0; 6]);
        let value = value.unwrap_or(u64::MAX);
        for count in [counts.orders, counts.trades, counts.shares, value, counts.broken] {
            writer.put(count.to_le_bytes());
        }
        writer.put(counts.unknown_breaks.to_le_bytes());
        debug_assert_eq!(writer.at, STATISTICS_BYTES);
        out
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, STATISTICS_BYTES)?;
        reader.get::<6>();
        let statistics = Statistics {
            orders: reader.u64(),
            trades: reader.u64(),
            shares: reader.u64(),
            value: reader.u64().into(),
            broken: reader.u64(),
            unknown_breaks: reader.u64(),
        };
        Some(Self { origin, statistics })
    }
}
