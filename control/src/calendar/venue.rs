//! The calendar of one venue, and the one question that is asked of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span as Length, Timestamp};

use super::{Phase, Span};

/// A venue's sessions, in local time.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Of the venue.
    pub(super) zone: TimeZone,
    /// First and last day that is covered.
    pub(super) days: (Date, Date),
    /// Days with sessions, from Monday.
    pub(super) weekdays: [bool; 7],
    /// Usual hours, from a day on; the first is `days.0`.
    pub(super) hours: BTreeMap<Date, Hours>,
    /// Days without a session.
    pub(super) holidays: BTreeSet<Date>,
    /// Days with one although their weekday has none.
    pub(super) sessions: BTreeSet<Date>,
    /// Days with another open or close, in minutes as [`Hours`] has them.
    pub(super) opens: BTreeMap<Date, i32>,
    /// Likewise.
    pub(super) closes: BTreeMap<Date, i32>,
    /// [`Self::known_ns`].
    pub(super) known_ns: (u64, u64),
}

/// Minutes from the midnight at which a session's day begins; negative is the evening before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    pub open: i32,
    pub close: i32,
    /// Begin and end.
    pub recess: Option<(i32, i32)>,
}

/// A part of a session, ns since 1970.
struct Part {
    phase: Phase,
    from_ns: u64,
    until_ns: u64,
}

impl Calendar {
    /// What the venue does at an instant, and until when. The phase is the same for every instant before
    /// `until_ns`, and another one there.
    pub fn at(&self, at_ns: u64) -> Span {
        let (first_ns, end_ns) = self.known_ns;
        if at_ns < first_ns {
            return Span { phase: Phase::Unknown, until_ns: Some(first_ns) };
        }
        if at_ns >= end_ns {
            return Span { phase: Phase::Unknown, until_ns: None };
        }
        let mut parts = self.parts(at_ns).skip_while(|part| part.until_ns <= at_ns);
        let found = parts.next().filter(|part| part.from_ns < end_ns);
        let (phase, mut until_ns) = match found {
            Some(part) if part.from_ns <= at_ns => (part.phase, part.until_ns),
            Some(next) => (Phase::Closed, next.from_ns),
            None => (Phase::Closed, end_ns),
        };
        if phase != Phase::Closed {
            // A venue that opens again the moment it closes has not closed.
            let touch = |part: &Part, until_ns| part.from_ns <= until_ns && part.phase == phase;
            for part in parts {
                if until_ns >= end_ns || !touch(&part, until_ns) {
                    break;
                }
                until_ns = until_ns.max(part.until_ns);
            }
        }
        Span { phase, until_ns: Some(until_ns.min(end_ns)) }
    }

    /// What is covered, ns since 1970 UTC: from the first instant to before the second.
    pub fn known_ns(&self) -> (u64, u64) {
        self.known_ns
    }

    /// What [`Self::at`] says, where a break is part of its session: open, closed or unknown.
    pub fn session_at(&self, at_ns: u64) -> Span {
        let mut span = self.at(at_ns);
        let is_session = |phase| matches!(phase, Phase::Open | Phase::Break);
        if !is_session(span.phase) {
            return span;
        }
        while let Some(until_ns) = span.until_ns {
            let next = self.at(until_ns);
            if !is_session(next.phase) {
                break;
            }
            span.until_ns = next.until_ns;
        }
        Span { phase: Phase::Open, ..span }
    }

    /// Hours of the session of a day; none where it has none.
    pub(super) fn hours_of(&self, day: Date) -> Option<Hours> {
        let is_weekday =
            self.weekdays[usize::from(day.weekday().to_monday_zero_offset().unsigned_abs())];
        let is_session =
            (is_weekday && !self.holidays.contains(&day)) || self.sessions.contains(&day);
        if !is_session || day < self.days.0 || day > self.days.1 {
            return None;
        }
        let (_, usual) = self.hours.range(..=day).next_back()?;
        let mut hours = *usual;
        if let Some(open) = self.opens.get(&day) {
            hours.open = *open;
        }
        if let Some(close) = self.closes.get(&day) {
            hours.close = *close;
        }
        // What opens after its break, or closes before it, has none.
        hours.recess =
            hours.recess.filter(|(from, until)| hours.open < *from && *until < hours.close);
        Some(hours)
    }

    /// Parts of sessions in the order of time, from those that may hold this instant on.
    fn parts(&self, at_ns: u64) -> impl Iterator<Item = Part> {
        let at = Timestamp::from_nanosecond(at_ns.into()).unwrap_or(Timestamp::MAX);
        // Every session ends by its day's midnight, so that yesterday's are over.
        let first = self.zone.to_datetime(at).date().max(self.days.0);
        std::iter::successors(Some(first), |day| day.tomorrow().ok())
            .take_while(|day| *day <= self.days.1)
            .flat_map(|day| self.parts_of(day))
    }

    fn parts_of(&self, day: Date) -> Vec<Part> {
        let Some(hours) = self.hours_of(day) else { return Vec::new() };
        let part = |phase, from, until| Part {
            phase,
            from_ns: instant_ns(&self.zone, day, from),
            until_ns: instant_ns(&self.zone, day, until),
        };
        match hours.recess {
            None => vec![part(Phase::Open, hours.open, hours.close)],
            Some((from, until)) => vec![
                part(Phase::Open, hours.open, from),
                part(Phase::Break, from, until),
                part(Phase::Open, until, hours.close),
            ],
        }
    }
}

/// When a day's clock shows these minutes after its midnight, ns since 1970. Of two such instants the earlier; where
/// the clock leaps over them, as late as the leap is wide.
pub(super) fn instant_ns(zone: &TimeZone, day: Date, minutes: i32) -> u64 {
    let midnight = day.to_datetime(Time::midnight());
    let local = midnight.saturating_add(Length::new().minutes(minutes));
    // The days of a calendar are all within what an instant can be.
    let instant = zone.to_ambiguous_timestamp(local).compatible().unwrap_or(Timestamp::MAX);
    u64::try_from(instant.as_nanosecond()).unwrap_or_default()
}

/// Monday to Friday.
pub(super) fn usual_weekdays() -> [bool; 7] {
    let mut days = [true; 7];
    for day in [Weekday::Saturday, Weekday::Sunday] {
        days[usize::from(day.to_monday_zero_offset().unsigned_abs())] = false;
    }
    days
}
