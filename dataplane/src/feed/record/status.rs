//! `md:{venue}:{symbol}:status` and `md:{venue}:status`.

use super::{Origin, Reader, Writer};
use crate::feed::status::{
    Collar, DeclineLevels, Flag, Imbalance, Ipo, Stamp, Status, Trading, VenueStatus,
};

/// Bytes of a stock's status record.
pub const STATUS_BYTES: usize = 272;

/// Bytes of a venue's status record.
pub const VENUE_STATUS_BYTES: usize = 128;

/// What a venue says of a stock beside its orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRecord {
    /// Where it comes from: the newest part.
    pub origin: Origin,
    /// The parts.
    pub status: Status,
}

/// What a venue says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueStatusRecord {
    /// Where it comes from: the newest part. Its symbol is blank, its locate 0.
    pub origin: Origin,
    /// The parts.
    pub status: VenueStatus,
}

impl Writer<'_> {
    fn stamp(&mut self, stamp: Stamp) {
        self.put(stamp.sequence.to_le_bytes());
        self.put(stamp.exchange_ns.to_le_bytes());
    }

    fn price(&mut self, price: u64) {
        self.put(price.to_le_bytes());
    }
}

impl Reader<'_> {
    fn stamp(&mut self) -> Stamp {
        Stamp { sequence: self.u64(), exchange_ns: self.u64() }
    }

    fn price(&mut self) -> u64 {
        self.u64()
    }
}

impl StatusRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; STATUS_BYTES] {
        let mut out = [0; STATUS_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let Status { trading, reg_sho, halts, collar, ipo, imbalance } = self.status;
        self.origin.write(&mut writer, STATUS_BYTES, 0);
        writer.put([trading.state, reg_sho.code]);
        writer.put(trading.reason);
        writer.put(halts.map(|halt| halt.code));
        writer.put([ipo.qualifier]);
        writer.put(ipo.release_s.to_le_bytes());
        writer.stamp(trading.stamp);
        writer.stamp(reg_sho.stamp);
        for halt in halts {
            writer.stamp(halt.stamp);
        }
        writer.stamp(collar.stamp);
        writer.price(collar.reference_price);
        writer.price(collar.upper_price);
        writer.price(collar.lower_price);
        writer.put(collar.extension.to_le_bytes());
        writer.put([imbalance.direction, imbalance.cross_type, imbalance.variation, 0]);
        writer.stamp(ipo.stamp);
        writer.price(ipo.price);
        writer.stamp(imbalance.stamp);
        writer.put(imbalance.paired_shares.to_le_bytes());
        writer.put(imbalance.imbalance_shares.to_le_bytes());
        writer.price(imbalance.far_price);
        writer.price(imbalance.near_price);
        writer.price(imbalance.reference_price);
        debug_assert_eq!(writer.at, STATUS_BYTES);
        out
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, STATUS_BYTES)?;
        let [state, reg_sho] = reader.get();
        let reason = reader.get();
        let halts: [u8; 3] = reader.get();
        let [qualifier] = reader.get();
        let release_s = reader.u32();
        let trading = Trading { stamp: reader.stamp(), state, reason };
        let reg_sho = Flag { stamp: reader.stamp(), code: reg_sho };
        let halts = halts.map(|code| Flag { stamp: reader.stamp(), code });
        let collar = Collar {
            stamp: reader.stamp(),
            reference_price: reader.price(),
            upper_price: reader.price(),
            lower_price: reader.price(),
            extension: reader.u32(),
        };
        let [direction, cross_type, variation, _] = reader.get();
        let ipo = Ipo { stamp: reader.stamp(), release_s, qualifier, price: reader.price() };
        let imbalance = Imbalance {
            stamp: reader.stamp(),
            paired_shares: reader.u64(),
            imbalance_shares: reader.u64(),
            far_price: reader.price(),
            near_price: reader.price(),
            reference_price: reader.price(),
            direction,
            cross_type,
            variation,
        };
        let status = Status { trading, reg_sho, halts, collar, ipo, imbalance };
        Some(Self { origin, status })
    }
}

impl VenueStatusRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; VENUE_STATUS_BYTES] {
        let mut out = [0; VENUE_STATUS_BYTES];
        let mut writer = Writer { out: &mut out, at: 0 };
        let VenueStatus { event, breach, levels } = self.status;
        self.origin.write(&mut writer, VENUE_STATUS_BYTES, 0);
        writer.put([event.code, breach.code, 0, 0, 0, 0]);
        writer.stamp(event.stamp);
        writer.stamp(breach.stamp);
        writer.stamp(levels.stamp);
        for level in levels.levels {
            writer.put(level.to_le_bytes());
        }
        debug_assert_eq!(writer.at, VENUE_STATUS_BYTES);
        out
    }

    /// Reads a record; `None` when length or layout version are others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let origin = Origin::read(&mut reader, VENUE_STATUS_BYTES)?;
        let [event, breach, ..]: [u8; 6] = reader.get();
        let event = Flag { stamp: reader.stamp(), code: event };
        let breach = Flag { stamp: reader.stamp(), code: breach };
        let stamp = reader.stamp();
        let levels = DeclineLevels { stamp, levels: [(); 3].map(|()| reader.u64()) };
        Some(Self { origin, status: VenueStatus { event, breach, levels } })
    }
}
