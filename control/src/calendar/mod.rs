//! When venues trade: a data file in the program, which a site's own file adds to.
//!
//! ```text
//!   calendars.toml, [[calendar]] of control.catalogue.file --Section::calendar()--> Calendar, by venue
//!
//!   Calendar::at(instant) -> phase, and until when         pure: no clock, no host's time zones
//! ```
//!
//! Read by whoever asks whether a session concerns a region (`deploy/sessions.rs`). Nothing writes it while the
//! program runs. Instants are nanoseconds since 1970 UTC. A venue without a calendar, and any instant that its
//! calendar does not cover, is unknown: nothing is guessed.

mod section;
mod venue;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

pub use section::Section;
pub use venue::Calendar;

/// The file in the program.
pub const BUILT_IN: &str = include_str!("calendars.toml");

/// What a venue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It trades.
    Open,
    /// A break in the middle of a session (lunch in Tokyo and Hong Kong). For deployments it is part of the
    /// session: a plan that begins in it need not end in it.
    Break,
    /// It does not trade.
    Closed,
    /// Its calendar does not cover this.
    Unknown,
}

/// A phase, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which.
    pub phase: Phase,
    /// The first instant that is not of it, ns since 1970 UTC; none where it never ends.
    pub until_ns: Option<u64>,
}

/// The calendars of venues, by market identifier code in lower case.
#[derive(Clone, Debug, Default)]
pub struct Calendars(BTreeMap<String, Arc<Calendar>>);

impl Calendars {
    /// The calendar of a venue.
    pub fn get(&self, venue: &str) -> Option<&Calendar> {
        self.0.get(venue).map(|calendar| &**calendar)
    }

    /// Venues that have one.
    pub fn venues(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Adds a file's sections; a venue's calendar replaces the one it had. An error is the key's path, and what is
    /// wrong with it.
    pub fn add(&mut self, sections: Vec<Section>) -> Result<(), (String, String)> {
        let mut made: BTreeMap<String, Arc<Calendar>> = BTreeMap::new();
        for (index, section) in sections.into_iter().enumerate() {
            let at = |(key, reason): (String, String)| (format!("calendar[{index}].{key}"), reason);
            // Like what the file itself has said, or else what was there before.
            let known = |venue: &str| made.get(venue).or_else(|| self.0.get(venue)).cloned();
            let calendar = Arc::new(section.calendar(known).map_err(at)?);
            for (place, venue) in section.venues.into_iter().enumerate() {
                if made.insert(venue.clone(), Arc::clone(&calendar)).is_some() {
                    let key = format!("venues[{place}]");
                    return Err(at((key, format!("{venue} has a calendar in this file"))));
                }
            }
        }
        self.0.append(&mut made);
        Ok(())
    }
}

/// An instant for people: `2026-11-30T21:00:00Z`.
pub fn utc(ns: u64) -> String {
    // Every u64 is an instant: the last is in 2554.
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests;
