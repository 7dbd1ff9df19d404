//! Why a datagram of a feed is or is not dropped as applied: for people to read, by the map's descriptor.

use std::net::IpAddr;

use crate::intf::FeedSlotValue;
use crate::steering::{Steering, SteeringError};
use crate::sys;
use crate::tables::{Map, failed};

use super::FeedLineAt;

/// The slot of the line that a datagram came on, as it was at one time.
#[derive(Debug)]
pub(crate) struct FeedShown {
    pub at: FeedLineAt,
    pub slot: Box<FeedSlotValue>,
}

impl FeedShown {
    /// Of the line with this group and port, if it is one of a feed.
    pub fn of(live: &Steering, group: IpAddr, port: u16) -> Result<Option<Self>, SteeringError> {
        let lines = live.feed_lines()?;
        let Some(at) = lines.into_iter().find(|at| (at.group, at.port) == (group, port)) else {
            return Ok(None);
        };
        let slot = sys::map_value(live.map(Map::Feeds), &at.feed)
            .map_err(|source| failed(Map::Feeds, "read", at.feed, source))?;
        Ok(Some(Self { at, slot }))
    }

    /// What its owner says.
    pub fn says(&self) -> String {
        let FeedLineAt { feed, line, .. } = self.at;
        let FeedSlotValue { version, session_head, session_tail, from, next, .. } = *self.slot;
        let who = format!("line {line} of feed {feed}");
        if version == 0 || version % 2 == 1 {
            return format!("{who}: nothing is known to be applied");
        }
        let head = session_head.to_ne_bytes();
        let tail = (session_tail as u16).to_ne_bytes();
        let (head, tail) = (head.escape_ascii(), tail.escape_ascii());
        format!("{who}: {from}..{next} of session \"{head}{tail}\" are applied")
    }
}
