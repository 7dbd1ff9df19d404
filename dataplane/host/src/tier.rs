//! Latency budget classes, as far as a host is concerned.

use serde::Serialize;

/// What a host is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// p99 below 100 us.
    Ultra,
    /// p99 below 500 us.
    High,
    /// p99 below 2 ms.
    Standard,
    /// No budget: test fleets.
    Lab,
}
