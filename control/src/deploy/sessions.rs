//! Whether a session concerns a region: what its venues do now, a margin to both sides.
//!
//! ```text
//!            | margin |                                  | margin |
//!   ---------+--------[ opens      session      closes )--------+---------
//!   closed      open     open, its breaks included        open     closed
//! ```
//!
//! A plan that begins just before the open would run into it; calendars know continuous trading alone, and the
//! closing auctions of many venues run for some minutes after it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::planner::SessionState;
use crate::calendar::{Calendar, Phase, utc};
use crate::catalogue::{Catalogue, TradingRegion};

const NS_PER_S: u64 = 1_000_000_000;

/// Whether a region's markets are trading, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegionSession {
    /// Open: one of its venues is, or was or will be within the margin. Unknown: none is open, and of one it is not
    /// known. Closed: all are, or there are none.
    pub state: SessionState,
    /// Which venue does what, and until when.
    pub reason: String,
}

impl From<SessionState> for RegionSession {
    fn from(state: SessionState) -> Self {
        Self { state, reason: String::new() }
    }
}

/// The sessions of every region at an instant, by the region's id.
pub fn sessions(
    catalogue: &Catalogue,
    now_ns: u64,
    margin_s: u64,
) -> BTreeMap<String, RegionSession> {
    let of = |region: &TradingRegion| session(region, catalogue, now_ns, margin_s);
    catalogue.regions().iter().map(|region| (region.id.clone(), of(region))).collect()
}

fn session(
    region: &TradingRegion,
    catalogue: &Catalogue,
    now_ns: u64,
    margin_s: u64,
) -> RegionSession {
    let (mut open, mut unknown, mut closed) = (None, Vec::new(), None);
    for venue in &region.venues {
        let Some(calendar) = catalogue.calendars().get(venue) else {
            unknown.push(format!("{venue} has no calendar"));
            continue;
        };
        let found = look(calendar, now_ns, margin_s);
        match found.state {
            // The one that is longest in the way.
            SessionState::Open => {
                open = open.max(Some((found.rank, found.until_ns, venue, found.text)))
            }
            SessionState::Unknown => unknown.push(format!("{venue} {}", found.text)),
            // The one that opens first.
            SessionState::Closed => {
                let next = (found.until_ns, venue, found.text);
                closed = Some(closed.map_or(next.clone(), |known| next.min(known)));
            }
        }
    }
    let (state, reason) = match (open, closed) {
        (Some((_, _, venue, text)), _) => (SessionState::Open, format!("{venue} {text}")),
        _ if !unknown.is_empty() => (SessionState::Unknown, unknown.join(", ")),
        (None, Some((_, venue, text))) => (SessionState::Closed, format!("{venue} {text}")),
        (None, None) => (SessionState::Closed, "it has no venues".into()),
    };
    RegionSession { state, reason }
}

/// What a venue does, the margin included.
struct Found {
    state: SessionState,
    /// Of several open ones: it is now, it will be, it was.
    rank: u8,
    until_ns: u64,
    text: String,
}

fn look(calendar: &Calendar, now_ns: u64, margin_s: u64) -> Found {
    let margin_ns = margin_s.saturating_mul(NS_PER_S);
    let (mut at_ns, end_ns) = (now_ns.saturating_sub(margin_ns), now_ns.saturating_add(margin_ns));
    let mut worst: Option<Found> = None;
    loop {
        let span = calendar.session_at(at_ns);
        let until_ns = span.until_ns.unwrap_or(u64::MAX);
        let (from, until) = (utc(at_ns), utc(until_ns));
        use SessionState::{Closed, Open, Unknown};
        let (state, rank, text) = match span.phase {
            Phase::Closed => (Closed, 0, format!("is closed until {until}")),
            Phase::Unknown => {
                let (first, end) = calendar.known_ns();
                (Unknown, 1, format!("has a calendar from {} to {} alone", utc(first), utc(end)))
            }
            _ if until_ns <= now_ns => (Open, 2, format!("closed at {until}")),
            _ if at_ns > now_ns => (Open, 3, format!("opens at {from}")),
            _ if calendar.at(now_ns).phase == Phase::Break => {
                (Open, 4, format!("is in its break, and open until {until}"))
            }
            _ => (Open, 4, format!("is open until {until}")),
        };
        if worst.as_ref().is_none_or(|worst| (worst.rank, worst.until_ns) < (rank, until_ns)) {
            worst = Some(Found { state, rank, until_ns, text });
        }
        if until_ns >= end_ns {
            break;
        }
        at_ns = until_ns;
    }
    // The loop has looked at least once.
    worst.unwrap_or(Found {
        state: SessionState::Unknown,
        rank: 1,
        until_ns: 0,
        text: String::new(),
    })
}

#[cfg(test)]
mod tests;
