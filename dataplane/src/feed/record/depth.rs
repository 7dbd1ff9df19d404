//! `md:{venue}:{symbol}:depth{N}`: the best N levels of each side.

use super::{FLAG_SATURATED, Origin, Reader, Writer, size};
use crate::feed::book::Level;

/// Most levels of a side that are published.
pub const DEPTH_MAX: usize = 10;

/// Bytes before the levels.
const FRONT_BYTES: usize = 56;

/// Bytes of one level: price, size, orders.
pub const LEVEL_BYTES: usize = 16;

/// Bytes of the longest record.
pub const DEPTH_BYTES_MAX: usize = depth_bytes(DEPTH_MAX);

/// Bytes of a record of so many levels a side.
pub const fn depth_bytes(levels: usize) -> usize {
    FRONT_BYTES + 2 * levels * LEVEL_BYTES
}

/// The best levels of both sides. Those that are not there have price, shares and orders 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Levels a side, 1 to [`DEPTH_MAX`]; those behind them are 0.
    pub levels: u8,
    /// Best first.
    pub bids: [Level; DEPTH_MAX],
    /// Best first.
    pub asks: [Level; DEPTH_MAX],
}

/// A depth record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthRecord {
    /// Where it comes from.
    pub origin: Origin,
    /// The levels.
    pub depth: Depth,
}

impl DepthRecord {
    /// Writes the record to the front of `out` and returns its bytes.
    pub fn encode<'a>(&self, out: &'a mut [u8; DEPTH_BYTES_MAX]) -> &'a [u8] {
        let levels = usize::from(self.depth.levels).min(DEPTH_MAX);
        let bytes = depth_bytes(levels);
        let sides = [&self.depth.bids[..levels], &self.depth.asks[..levels]];
        let is_cut = sides.iter().copied().flatten().any(|level| size(level.shares).1);
        let mut writer = Writer { out: &mut out[..], at: 0 };
        self.origin.write(&mut writer, bytes, if is_cut { FLAG_SATURATED } else { 0 });
        writer.put([levels as u8, 0, 0, 0, 0, 0]);
        for level in sides.into_iter().flatten() {
            writer.put(u64::from(level.price).to_le_bytes());
            writer.put(size(level.shares).0.to_le_bytes());
            writer.put(level.orders.to_le_bytes());
        }
        debug_assert_eq!(writer.at, bytes);
        &out[..bytes]
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let levels = *bytes.get(FRONT_BYTES - 6)?;
        if !(1..=DEPTH_MAX).contains(&usize::from(levels)) {
            return None;
        }
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, depth_bytes(levels.into()))?;
        reader.get::<6>();
        let mut side = || {
            let mut side = [Level::default(); DEPTH_MAX];
            for level in &mut side[..usize::from(levels)] {
                let (price, shares) = (reader.u64() as u32, u64::from(reader.u32()));
                *level = Level { price, shares, orders: reader.u32() };
            }
            side
        };
        let (bids, asks) = (side(), side());
        Some(Self { origin, depth: Depth { levels, bids, asks } })
    }
}
