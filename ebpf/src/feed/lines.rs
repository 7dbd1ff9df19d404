//! Which group and port is which line of which feed: the supervisor's table.

use std::net::IpAddr;

use crate::intf::{FEED_LINES_MAX, FEEDS_MAX, FeedLine, FeedLineKey};
use crate::steering::{Steering, SteeringError};
use crate::tables::Map;

/// Where a line is received, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLineAt {
    /// Its group.
    pub group: IpAddr,
    /// Its UDP port, of a service with `FEED`.
    pub port: u16,
    /// The slot of its feed, below [`FEEDS_MAX`].
    pub feed: u32,
    /// Which line of the feed it is, below [`FEED_LINES_MAX`].
    pub line: u32,
}

impl Steering {
    /// Makes the lines of feeds exactly these. A line that changes hands is nobody's for a moment.
    pub fn replace_feed_lines(&self, lines: &[FeedLineAt]) -> Result<(), SteeringError> {
        for (place, line) in lines.iter().enumerate() {
            let FeedLineAt { group, port, feed, line: number } = *line;
            let twice =
                lines[..place].iter().any(|other| (other.group, other.port) == (group, port));
            if twice || feed >= FEEDS_MAX || number >= FEED_LINES_MAX || port == 0 {
                let problem = format!("{group} port {port} cannot be line {number} of feed {feed}");
                return Err(SteeringError::Refused(problem));
            }
        }
        let kept = |at: &FeedLineAt| lines.contains(at);
        for at in self.feed_lines()?.iter().filter(|at| !kept(at)) {
            self.take(Map::FeedLines, &key(at), at.group)?;
        }
        for at in lines {
            let line = FeedLine { feed: at.feed, line: at.line };
            self.put(Map::FeedLines, &key(at), &line, at.group)?;
        }
        Ok(())
    }

    /// The lines of feeds, in no order.
    pub fn feed_lines(&self) -> Result<Vec<FeedLineAt>, SteeringError> {
        let entries = self.list::<FeedLineKey, FeedLine>(Map::FeedLines)?;
        let at = |(key, value): (FeedLineKey, FeedLine)| FeedLineAt {
            group: key.group.into(),
            port: key.port as u16,
            feed: value.feed,
            line: value.line,
        };
        Ok(entries.into_iter().map(at).collect())
    }
}

fn key(at: &FeedLineAt) -> FeedLineKey {
    FeedLineKey { group: at.group.to_canonical().into(), port: at.port.into() }
}
