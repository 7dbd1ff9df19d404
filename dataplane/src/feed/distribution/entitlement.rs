//! Who may have what of a feed, by source address. Made at start and never changed.

use super::super::Symbol;
use super::wire::{Reason, Records, Request};
use crate::net::Prefix;
use std::net::IpAddr;

/// What the sources of a prefix may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// Whose it is.
    pub prefix: Prefix,
    /// Kinds of records.
    pub records: Records,
    /// Levels a side, at most.
    pub depth_max: u8,
    /// Subscriptions of one address, at most.
    pub subscriptions_max: u32,
    /// Symbols, in their order; `None`: all.
    pub symbols: Option<Box<[Symbol]>>,
}

impl Entitlement {
    /// What is against a request, if anything. `depth_published` levels are there at all.
    pub fn judge(&self, request: &Request<'_>, depth_published: u8) -> Result<(), Reason> {
        if request.records == Records::default() || !self.records.has(request.records) {
            return Err(Reason::Records);
        }
        let wants_depth = request.records.has(Records(1 << 4));
        let depth_max = self.depth_max.min(depth_published);
        if wants_depth && !(1..=depth_max).contains(&request.depth) {
            return Err(Reason::Depth);
        }
        match request.symbols().all(|symbol| self.covers(symbol)) {
            true => Ok(()),
            false => Err(Reason::Symbols),
        }
    }

    /// Whether records of a symbol may be had.
    #[inline]
    pub fn covers(&self, symbol: Symbol) -> bool {
        self.symbols.as_ref().is_none_or(|symbols| symbols.binary_search(&symbol).is_ok())
    }
}

/// Those of all prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// Longest prefixes first.
    entries: Vec<Entitlement>,
}

impl Entitlements {
    /// Of these; a prefix that stands twice counts as it stands first.
    pub fn new(mut entries: Vec<Entitlement>) -> Self {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.bits()));
        for symbols in entries.iter_mut().filter_map(|entry| entry.symbols.as_mut()) {
            symbols.sort_unstable();
        }
        Self { entries }
    }

    /// Place of what the longest prefix of a source has.
    pub fn place_of(&self, source: IpAddr) -> Option<usize> {
        self.entries.iter().position(|entry| entry.prefix.contains(source))
    }

    /// What is at a place that [`Self::place_of`] said.
    pub fn at(&self, place: usize) -> &Entitlement {
        &self.entries[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entitlement(prefix: &str, records: u8, depth_max: u8, symbols: &[&str]) -> Entitlement {
        let symbols: Box<[Symbol]> =
            symbols.iter().map(|symbol| Symbol::new(symbol).unwrap()).collect();
        Entitlement {
            prefix: prefix.parse().unwrap(),
            records: Records(records),
            depth_max,
            subscriptions_max: 1,
            symbols: (!symbols.is_empty()).then_some(symbols),
        }
    }

    #[test]
    fn the_longest_prefix_says_what_a_source_may_have() {
        let list = Entitlements::new(vec![
            entitlement("198.18.0.0/15", 1, 0, &[]),
            entitlement("198.18.0.7/32", 0x11, 5, &["MSFT", "AAPL"]),
        ]);
        let judge = |source: [u8; 4], records: u8, depth: u8, symbols: &[&str]| {
            let place = list.place_of(source.into()).ok_or(Reason::NotEntitled)?;
            let symbols: Vec<_> = symbols.iter().map(|name| Symbol::new(name).unwrap()).collect();
            let bytes = Request::to_all(1, Records(records), depth).encode(&symbols);
            list.at(place).judge(&Request::parse(&bytes).unwrap(), 3)
        };
        assert_eq!(judge([198, 18, 0, 1], 1, 0, &["ZVZZT"]), Ok(()));
        assert_eq!(judge([198, 18, 0, 1], 2, 0, &[]), Err(Reason::Records));
        assert_eq!(judge([198, 18, 0, 1], 0, 0, &[]), Err(Reason::Records));
        assert_eq!(judge([198, 20, 0, 1], 1, 0, &[]), Err(Reason::NotEntitled));
        assert_eq!(judge([198, 18, 0, 7], 0x11, 3, &["AAPL"]), Ok(()));
        // Everything is everything that the source may have.
        assert_eq!(judge([198, 18, 0, 7], 0x11, 3, &[]), Ok(()));
        for depth in [0, 4] {
            assert_eq!(judge([198, 18, 0, 7], 0x10, depth, &[]), Err(Reason::Depth));
        }
        assert_eq!(judge([198, 18, 0, 7], 1, 0, &["AAPL", "IBM"]), Err(Reason::Symbols));
    }
}
