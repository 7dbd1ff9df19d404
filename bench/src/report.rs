//! What comes out: one JSON line a measure, or one table.

use serde::Serialize;

use crate::order;
use crate::row::{Judged, Measure, Row};

/// One measure of one run, with the scoreboard's keys in the scoreboard's order.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Row, such as `A2`.
    pub id: String,
    /// Figure, such as `requests_per_s`.
    pub measure: String,
    /// Unit of `ours`, `peer` and `floor`.
    pub unit: String,
    /// Median of our halves.
    pub ours: Option<f64>,
    /// Median of the peer's halves; null without a peer.
    pub peer: Option<f64>,
    /// What it was compared with; "peer missing: ..." or "peer broken: ..." when it was not.
    pub peer_name: Option<String>,
    /// Median of the paired ratios, ours over peer.
    pub ratio: Option<f64>,
    /// Beyond this value of the peer the row is void.
    pub floor: Option<f64>,
    /// Such as `>= 1.8`; of the ratio, or of `ours` where there is no peer.
    pub must: Option<String>,
    /// As `must`.
    pub goal: Option<String>,
    /// Whether `must` holds at the worse end of the interval; null when that cannot be said.
    pub passed: Option<bool>,
    /// Pairs, or runs where there is no peer.
    pub runs: usize,
    /// Commit the command was run from.
    pub commit: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model and number of cores.
    pub cpu: String,
    /// Device, copy mode, cores; printed with every figure.
    pub mode: String,
}

/// Where a run happened.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Commit, with `-dirty` when the tree differs from it.
    pub commit: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model and number of cores.
    pub cpu: String,
    /// `, VM` when the processor says it is virtual.
    pub virtual_machine: &'static str,
}

/// The values of one measure, one a pair, in the order they were taken.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Our halves.
    pub ours: Vec<f64>,
    /// The peer's halves; as many as ours, or none.
    pub peer: Vec<f64>,
    /// What the peer is called; why there is none, when there is none.
    pub peer_name: Option<String>,
}

impl Samples {
    /// Ours over the peer's, pair by pair.
    pub fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer).collect()
    }

    /// The line of this measure.
    pub fn line(&self, row: &Row, measure: &Measure, machine: &Machine) -> Line {
        let peer = order::median(&self.peer);
        let broken = match (peer, measure.peer_floor) {
            (Some(peer), Some(floor)) => !measure.better.holds(peer, floor),
            _ => false,
        };
        let judged = match measure.judged {
            Judged::Ratio if broken => Vec::new(),
            Judged::Ratio => self.ratios(),
            Judged::Absolute => self.ours.clone(),
            Judged::Shown => Vec::new(),
        };
        let passed = order::interval(&judged)
            .zip(measure.must)
            .map(|(ends, must)| measure.better.holds(measure.better.worse(ends), must));
        let name = self.peer_name.clone();
        Line {
            id: row.id.clone(),
            measure: measure.name.clone(),
            unit: measure.unit.clone(),
            ours: order::median(&self.ours),
            peer,
            peer_name: if broken { name.map(|n| format!("peer broken: {n}")) } else { name },
            ratio: order::median(&self.ratios()).filter(|ratio| ratio.is_finite()),
            floor: measure.peer_floor,
            must: measure.must.map(|value| measure.limit(value)),
            goal: measure.goal.map(|value| measure.limit(value)),
            passed,
            runs: self.ours.len(),
            commit: machine.commit.clone(),
            kernel: machine.kernel.clone(),
            cpu: machine.cpu.clone(),
            mode: format!("{}{}", row.mode, machine.virtual_machine),
        }
    }
}

impl Machine {
    /// Looks around: git in the source tree, uname, /proc/cpuinfo. What is not found is "unknown".
    pub fn here() -> Self {
        let git = |arguments: &[&str]| {
            let output = std::process::Command::new("git")
                .args(["-C", env!("CARGO_MANIFEST_DIR")])
                .args(arguments)
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
        };
        let dirty = git(&["status", "--porcelain", "--untracked-files=no"])
            .is_some_and(|changes| !changes.is_empty());
        let commit = git(&["rev-parse", "--short=12", "HEAD"])
            .map_or("unknown".into(), |id| if dirty { format!("{id}-dirty") } else { id });
        let kernel = nix::sys::utsname::uname()
            .map_or("unknown".into(), |uname| uname.release().to_string_lossy().into_owned());
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|pair| pair.1))
            .map_or("unknown", str::trim);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let is_virtual = info
            .lines()
            .any(|line| line.starts_with("flags") && line.split(' ').any(|f| f == "hypervisor"));
        let virtual_machine = if is_virtual { ", VM" } else { "" };
        Self { commit, kernel, cpu: format!("{model}, {cores} cores"), virtual_machine }
    }
}

/// The table an operator reads.
pub fn table(lines: &[Line]) -> String {
    let head = ["id", "measure", "ours", "peer", "ratio", "must", "goal", "passed", "runs", "unit"];
    let mut rows = vec![head.map(String::from)];
    for line in lines {
        rows.push([
            line.id.clone(),
            line.measure.clone(),
            number(line.ours),
            number(line.peer),
            number(line.ratio),
            line.must.clone().unwrap_or_else(|| "-".into()),
            line.goal.clone().unwrap_or_else(|| "-".into()),
            line.passed.map_or("null".into(), |passed| passed.to_string()),
            line.runs.to_string(),
            line.unit.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.len());
            let left = column < 2;
            text += &if left { format!("{cell}{pad}  ") } else { format!("{pad}{cell}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for line in lines {
        let peer = line.peer_name.as_deref().unwrap_or("no peer");
        text += &format!("{} {}: {}; {}\n", line.id, line.measure, peer, line.mode);
    }
    if let Some(line) = lines.first() {
        text += &format!("{}; Linux {}; commit {}\n", line.cpu, line.kernel, line.commit);
    }
    text
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{ROWS_TOML, Rows};

    fn machine() -> Machine {
        let text = |text: &str| text.to_string();
        Machine { commit: text("c"), kernel: text("k"), cpu: text("p"), virtual_machine: ", VM" }
    }

    fn a2(ours: &[f64], peer: &[f64]) -> Line {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let row = rows.get("A2").unwrap();
        let peer_name = Some("memcached UDP".to_string());
        let samples = Samples { ours: ours.to_vec(), peer: peer.to_vec(), peer_name };
        samples.line(row, &row.measure[0], &machine())
    }

    #[test]
    fn the_json_line_has_the_scoreboards_keys_in_its_order() {
        let text = serde_json::to_string(&a2(&[1.0], &[2.0])).unwrap();
        let keys = [
            "id",
            "measure",
            "unit",
            "ours",
            "peer",
            "peer_name",
            "ratio",
            "floor",
            "must",
            "goal",
            "passed",
            "runs",
            "commit",
            "kernel",
            "cpu",
            "mode",
        ];
        let mut at = 0;
        for key in keys {
            let found =
                text[at..].find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {text}"));
            at += found;
        }
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), keys.len());
        assert!(!text.contains('\n'));
        assert_eq!(value["must"], ">= 1.8");
        assert!(value["passed"].is_null());
        assert!(value["mode"].as_str().unwrap().ends_with(", VM"));
    }

    #[test]
    fn passed_uses_the_worse_end_of_the_interval() {
        let peer = [100_000.0; 9];
        // The second smallest ratio decides: 1.8 holds, 1.79 does not.
        let mut ours = [100_000.0, 180_000.0, 2e5, 2e5, 2e5, 2e5, 2e5, 2e5, 2e5];
        assert_eq!(a2(&ours, &peer).passed, Some(true));
        ours[1] = 179_000.0;
        let line = a2(&ours, &peer);
        assert_eq!(line.passed, Some(false));
        assert_eq!(line.ratio, Some(2.0));
    }

    #[test]
    fn under_six_pairs_nothing_is_said() {
        assert_eq!(a2(&[5e5; 5], &[1e5; 5]).passed, None);
        assert_eq!(a2(&[5e5; 6], &[1e5; 6]).passed, Some(true));
    }

    #[test]
    fn a_peer_below_its_floor_voids_the_row() {
        let line = a2(&[5e5; 9], &[1_000.0; 9]);
        assert_eq!(line.passed, None);
        assert_eq!(line.peer_name.as_deref(), Some("peer broken: memcached UDP"));
    }

    #[test]
    fn a_row_without_a_peer_is_judged_by_its_own_value() {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let row = rows.get("A6").unwrap();
        let samples = |value: f64| Samples { ours: vec![value; 9], ..Samples::default() };
        assert_eq!(samples(199.0).line(row, &row.measure[0], &machine()).passed, Some(true));
        assert_eq!(samples(201.0).line(row, &row.measure[0], &machine()).passed, Some(false));
    }

    #[test]
    fn the_table_names_peer_and_mode_under_the_figures() {
        let text = table(&[a2(&[2e5; 9], &[1e5; 9])]);
        assert!(text.contains("A2 requests_per_s: memcached UDP; veth"), "{text}");
        assert!(text.lines().next().unwrap().starts_with("id"), "{text}");
    }
}
