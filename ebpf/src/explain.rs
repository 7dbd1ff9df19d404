//! Where would this frame go, and why? The verdict is the program's own; what stands around it is read
//! from the same maps and told in the order in which the program looks at things.
//!
//! ```text
//!   running program ─┬─ lists, ports, lines, interfaces, sockets, limits, hot set ─┬─ second instance ◄─ frame
//!                    └─ verdicts, judged, buckets, feeds, hot_hits                 └─ its own of these
//! ```
//!
//! The second instance is the same program on the same maps, but for those the program writes: so nothing
//! of the running one's counters, memories or buckets is touched, and packets that arrive meanwhile are not
//! taken for the frame. The bucket of the frame's source and the slot of its feed are copied
//! before the run.

mod facts;
mod steps;

use std::net::IpAddr;

use crate::feed::FeedShown;
use crate::intf::{Bucket, Service};
use crate::steering::{Options, Steering, SteeringError};
use crate::sys;
use crate::tables::Map;
use crate::test_run::{TestContext, TestOutcome};
use crate::verdict::{VERDICTS, Verdict};
use facts::Facts;
pub use steps::Step;

/// Longest frame the kernel runs a program on in memory: a page less headroom and bookkeeping.
pub const FRAME_BYTES_MAX: usize = 4096 - 256 - 320;

/// What things are called by whoever filled the maps.
pub trait Names {
    /// The service on a port.
    fn service(&self, port: u16, service: &Service) -> String;
    /// A list of sources.
    fn list(&self, list: u16) -> String;
    /// Who serves a socket of this place.
    fn socket(&self, place: u32) -> String;
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The program's.
    pub verdict: Verdict,
    /// What the program returned, and the frame it left.
    pub outcome: TestOutcome,
    /// What it looked at on the way, up to where it decided.
    pub steps: Vec<Step>,
}

/// The second instance.
#[derive(Debug)]
pub struct Explainer {
    copy: Steering,
    is_same: bool,
}

impl Explainer {
    /// Loads it beside a running program, which was loaded with these options. Takes the verifier's tens of
    /// milliseconds.
    pub fn beside(live: &Steering, options: Options) -> Result<Self, SteeringError> {
        let copy = Steering::load_beside(live, options)?;
        let tag = |steering: &Steering| {
            sys::program_tag(steering.fds()[0]).map_err(SteeringError::Descriptor)
        };
        let is_same = tag(&copy)? == tag(live)?;
        Ok(Self { copy, is_same })
    }

    /// Whether the running program is the one of this build. Otherwise the verdict is what this build's
    /// would be on the running one's maps.
    pub fn is_same_program(&self) -> bool {
        self.is_same
    }

    /// Runs a frame of 14 to [`FRAME_BYTES_MAX`] bytes.
    pub fn explain(
        &self,
        live: &Steering,
        frame: &[u8],
        context: TestContext,
        names: &impl Names,
    ) -> Result<Explanation, SteeringError> {
        let facts = Facts::of(frame);
        let source = facts.ip.map(|ip| ip.source);
        let bucket = match source {
            Some(source) => self.copy_bucket(live, source)?,
            None => None,
        };
        let feed = match (facts.ip, facts.ports) {
            (Some(ip), Some((_, port))) => self.copy_feed(live, ip.destination, port)?,
            _ => None,
        };
        let before = self.copy.verdicts()?;
        let outcome = self.copy.test_run(frame, context)?;
        let after = self.copy.verdicts()?;
        let changed = VERDICTS.iter().find(|row| after.get(row.verdict) != before.get(row.verdict));
        let verdict = changed.expect("every packet counts one verdict").verdict;
        let told = steps::Told { live, frame, facts: &facts, context, bucket, feed, names };
        let steps = told.until(verdict)?;
        Ok(Explanation { verdict, outcome, steps })
    }

    /// The slot of the feed that a frame may be of, as its owner has left it.
    fn copy_feed(
        &self,
        live: &Steering,
        group: IpAddr,
        port: u16,
    ) -> Result<Option<FeedShown>, SteeringError> {
        let shown = FeedShown::of(live, group, port)?;
        if let Some(FeedShown { at, slot }) = &shown {
            self.copy.put(Map::Feeds, &at.feed, slot.as_ref(), at.feed)?;
        }
        Ok(shown)
    }

    /// As the running program has it at this moment.
    fn copy_bucket(
        &self,
        live: &Steering,
        source: IpAddr,
    ) -> Result<Option<Bucket>, SteeringError> {
        let bucket = live.bucket(source)?;
        self.copy.forget_buckets()?;
        if let Some(bucket) = bucket {
            self.copy.set_bucket(source, bucket)?;
        }
        Ok(bucket)
    }
}
