//! `rows.toml`: what each figure is judged by. Unknown keys and figures that contradict each other
//! are refused at start, with the row and measure named.

use serde::Deserialize;

/// The file as it is built into the command: a figure is judged by the source it was built from.
pub const ROWS_TOML: &str = include_str!("../rows.toml");

/// All rows of the scoreboard that are built.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// In the order of the scoreboard.
    pub row: Vec<Row>,
}

/// One id of the scoreboard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Letter and number, such as `A2`.
    pub id: String,
    /// What is measured and how: printed above the figures.
    pub conditions: String,
    /// Printed with every figure: device, copy mode, cores.
    pub mode: String,
    /// Pairs (or runs, without a peer) of the long form, at least 9.
    pub pairs: u32,
    /// Pairs of `--quick`, at least 3.
    pub quick_pairs: u32,
    /// What it is compared with; absent where the figure is absolute.
    pub peer: Option<Peer>,
    /// A second one, where a row has two.
    pub other_peer: Option<Peer>,
    /// At least one; A1 and B1 have two.
    pub measure: Vec<Measure>,
}

/// The other side of a pair.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Printed name.
    pub name: String,
    /// The program looked for on the path.
    pub program: String,
    /// Debian packages that bring it.
    pub packages: Vec<String>,
    /// Its command line; words in braces are filled in where it is started (`stage.rs`).
    pub command: String,
}

/// One figure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// What the JSON line calls it.
    pub name: String,
    /// Unit of `ours` and `peer`.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// What `must` and `goal` are compared with.
    pub judged: Judged,
    /// The figure that has to hold.
    pub must: Option<f64>,
    /// The figure aimed at.
    pub goal: Option<f64>,
    /// The peer's value at its worst: beyond it the row is void, for the peer is broken.
    pub peer_floor: Option<f64>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and costs.
    Lower,
}

/// What a figure is compared by.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Median of paired ratios, ours over peer.
    Ratio,
    /// Our value itself; there is no peer.
    Absolute,
    /// Printed and never judged.
    Shown,
}

impl Better {
    /// The operator a limit of this figure is written with.
    pub fn operator(self) -> &'static str {
        match self {
            Self::Higher => ">=",
            Self::Lower => "<=",
        }
    }

    /// Whether `value` is on the good side of `limit`.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Higher => value >= limit,
            Self::Lower => value <= limit,
        }
    }

    /// The worse end of an interval.
    pub fn worse(self, (low, high): (f64, f64)) -> f64 {
        match self {
            Self::Higher => low,
            Self::Lower => high,
        }
    }
}

impl Rows {
    /// Reads the file and checks it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let rows: Self = toml::from_str(text)?;
        let mut ids = std::collections::BTreeSet::new();
        for row in &rows.row {
            let id = &row.id;
            anyhow::ensure!(ids.insert(id), "rows.toml: {id} appears twice");
            anyhow::ensure!(row.pairs >= 9, "rows.toml: {id}: pairs is below 9");
            anyhow::ensure!(row.quick_pairs >= 3, "rows.toml: {id}: quick_pairs is below 3");
            anyhow::ensure!(!row.measure.is_empty(), "rows.toml: {id} has no measure");
            for measure in &row.measure {
                let at = format!("rows.toml: {id}: {}", measure.name);
                measure
                    .check(row.peer.is_some())
                    .map_err(|what| anyhow::anyhow!("{at}: {what}"))?;
            }
        }
        Ok(rows)
    }

    /// The row of this id.
    pub fn get(&self, id: &str) -> Option<&Row> {
        self.row.iter().find(|row| row.id.eq_ignore_ascii_case(id))
    }
}

impl Measure {
    fn check(&self, has_peer: bool) -> Result<(), &'static str> {
        match self.judged {
            Judged::Ratio if !has_peer => return Err("judged by ratio, but the row has no peer"),
            Judged::Ratio if self.peer_floor.is_none() => {
                return Err("the peer's floor is missing");
            }
            Judged::Ratio | Judged::Absolute if self.must.is_none() => {
                return Err("it is judged, but has no must");
            }
            Judged::Shown if self.must.is_some() => return Err("it has a must, but is only shown"),
            _ => {}
        }
        match (self.must, self.goal) {
            (Some(must), Some(goal)) if !self.better.holds(goal, must) => {
                Err("the goal is easier than the must")
            }
            (None, Some(_)) => Err("a goal needs a must"),
            _ => Ok(()),
        }
    }

    /// A limit as the scoreboard writes it, such as `>= 1.8`.
    pub fn limit(&self, value: f64) -> String {
        format!("{} {value}", self.better.operator())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole() {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let ids: Vec<_> = rows.row.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "A1", "A2", "A3", "A4", "A5", "A6", "A7", "B1", "B3", "C1", "C2", "C3", "C4", "I1",
                "I2", "H1"
            ]
        );
        assert!(rows.get("a2").is_some() && rows.get("A9").is_none());
    }

    /// What the scoreboard promises for these rows; a change here is a change of the promise.
    #[test]
    fn must_and_goal_are_the_scoreboards() {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let limits = |id: &str, name: &str| {
            let measure = rows.get(id).unwrap().measure.iter().find(|m| m.name == name).unwrap();
            (measure.must.unwrap(), measure.goal.unwrap())
        };
        assert_eq!(limits("A1", "p50"), (0.33, 0.20));
        assert_eq!(limits("A1", "p99"), (0.12, 0.067));
        assert_eq!(limits("A2", "requests_per_s"), (1.8, 2.2));
        assert_eq!(limits("A3", "keys_per_s_over_udp"), (4.0, 8.0));
        assert_eq!(limits("A3", "keys_per_s_over_tcp"), (1.5, 3.0));
        assert_eq!(limits("A4", "p50_over_memcached"), (0.02, 0.01));
        assert_eq!(limits("A4", "p50_over_redis"), (0.02, 0.01));
        for measure in &rows.get("A5").unwrap().measure[..8] {
            assert_eq!((measure.must, measure.judged), (Some(1.0), Judged::Ratio));
        }
        assert_eq!(limits("A5", "hit_ratio_market_day"), (0.95, 0.95));
        assert_eq!(limits("A6", "ns_per_op"), (200.0, 100.0));
        assert_eq!(limits("A7", "requests_per_s"), (1.0, 1.5));
        assert_eq!(limits("A7", "p99"), (1.0, 0.7));
        assert_eq!(limits("B1", "packets_per_s"), (0.9, 1.0));
        assert_eq!(limits("B1", "p99"), (1.1, 0.9));
        assert_eq!(limits("B3", "busy_allocations_per_burst"), (0.0, 0.0));
        assert_eq!(limits("B3", "busy_syscalls_per_burst"), (0.0, 0.0));
        assert_eq!(limits("B3", "preferred_allocations_per_burst"), (0.0, 0.0));
        assert_eq!(limits("B3", "preferred_syscalls_per_burst"), (1.0, 1.0));
        assert_eq!(limits("C1", "decode_over_itch5"), (1.0, 0.8));
        assert_eq!(limits("C1", "decode_over_itchy"), (1.0, 0.8));
        assert_eq!(limits("C1", "book"), (0.5, 0.3));
        assert_eq!(limits("C2", "wrong_books"), (0.0, 0.0));
        assert_eq!(limits("C2", "undetected_gaps"), (0.0, 0.0));
        assert_eq!(limits("C2", "healed_without_request"), (99.3, 99.3));
        assert_eq!(limits("C3", "p99"), (1.0, 0.8));
        assert_eq!(limits("C3", "p99_above_spin_probe"), (50.0, 15.0));
        assert_eq!(limits("C4", "healed_ms"), (1000.0, 250.0));
        assert_eq!(limits("I1", "errors"), (0.0, 0.0));
        assert_eq!(limits("I1", "reconnects"), (0.0, 0.0));
        assert_eq!(limits("I2", "events_per_s"), (100_000.0, 500_000.0));
        assert_eq!(limits("I2", "undetected"), (0.0, 0.0));
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let refused = |change: &dyn Fn(&str) -> String, why: &str| {
            let message = format!("{:#}", Rows::parse(&change(ROWS_TOML)).unwrap_err());
            assert!(message.contains(why), "{message}");
        };
        refused(&|text| text.replacen("conditions", "condition", 1), "condition");
        refused(&|text| text.replacen("must = 1.8", "must = 2.5", 1), "easier");
        refused(&|text| text.replacen("must = 1.8", "", 1), "no must");
        refused(&|text| text.replacen("id = \"A6\"", "id = \"A2\"", 1), "twice");
        refused(&|text| text.replacen("pairs = 9", "pairs = 5", 1), "below 9");
        refused(&|text| text.replacen("peer_floor =", "# peer_floor =", 1), "floor is missing");
    }
}
