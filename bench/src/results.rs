//! What is kept of a run, below `bench/results/`: the lines, every half, histograms and plots.
//!
//! ```text
//!   results/lines.jsonl                       every line ever, appended
//!   results/<seconds>-<id>/halves.csv          pair, side, share held, values
//!                         /<side>.hdr          HdrHistogram V2, nanoseconds, all its halves
//!                         /latency.svg pairs.svg
//! ```

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use crate::plot;
use crate::report::Line;
use crate::row::Row;
use crate::run::Measured;

/// Where results are kept.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// Keeps one row's run and returns its folder.
pub fn keep(
    root: &Path,
    row: &Row,
    measured: &Measured,
    lines: &[Line],
) -> anyhow::Result<PathBuf> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let folder = root.join(format!("{}-{}", now.as_secs(), row.id));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = root.join("lines.jsonl");
    let mut all = OpenOptions::new().create(true).append(true).open(path)?;
    for line in lines {
        writeln!(all, "{}", serde_json::to_string(line)?)?;
    }

    let mut table = String::from("pair,side,held_share");
    for measure in &row.measure {
        let _ = write!(table, ",{}", measure.name);
    }
    for (pair, side, half) in &measured.halves {
        let _ = write!(table, "\n{},{},{}", pair + 1, measured.sides[*side], half.held_share);
        for index in 0..row.measure.len() {
            match half.values.get(index).copied().flatten() {
                Some(value) => write!(table, ",{value}")?,
                None => table.push(','),
            }
        }
    }
    std::fs::write(folder.join("halves.csv"), table + "\n")?;

    let mut curves = Vec::new();
    for (side, name) in measured.sides.iter().enumerate() {
        let mut total: Option<Histogram<u64>> = None;
        for (_, _, half) in measured.halves.iter().filter(|(_, other, _)| *other == side) {
            match (&mut total, &half.latency) {
                (Some(total), Some(latency)) => total.add(latency)?,
                (None, Some(latency)) => total = Some(latency.clone()),
                (_, None) => {}
            }
        }
        if let Some(total) = total {
            let file_name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let mut file = File::create(folder.join(format!("{file_name}.hdr")))?;
            V2Serializer::new()
                .serialize(&total, &mut file)
                .map_err(|error| anyhow::anyhow!("writing {file_name}.hdr: {error:?}"))?;
            curves.push((name.clone(), plot::percentiles(&total)));
        }
    }
    if !curves.is_empty() {
        let title = format!("{}: latency by percentile", row.id);
        let svg = plot::svg(&title, "percentile as 1/(1-p)", "us", &curves, true);
        std::fs::write(folder.join("latency.svg"), svg)?;
    }
    let mut series = Vec::new();
    for (side, name) in measured.sides.iter().enumerate() {
        let halves = measured.halves.iter().filter(|(_, other, _)| *other == side);
        let points = halves.filter_map(|(pair, _, half)| {
            Some((f64::from(pair + 1), half.values.first().copied().flatten()?))
        });
        series.push((name.clone(), points.collect::<Vec<_>>()));
    }
    let measure = &row.measure[0];
    let title = format!("{}: {} by pair", row.id, measure.name);
    let svg = plot::svg(&title, "pair", &measure.unit, &series, false);
    std::fs::write(folder.join("pairs.svg"), svg)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Machine, Samples};
    use crate::row::{ROWS_TOML, Rows};
    use crate::run::Half;

    #[test]
    fn a_run_leaves_lines_halves_histograms_and_plots() {
        let rows = Rows::parse(ROWS_TOML).unwrap();
        let row = rows.get("B1").unwrap();
        let mut latency = crate::generator::open::histogram();
        (1..2_000).for_each(|us| latency.saturating_record(us * 1_000));
        let half = Half {
            values: vec![Some(250_000.0), Some(11.0)],
            held_share: 0.001,
            latency: Some(latency.clone()),
            lost: None,
        };
        let sides = vec!["ours".to_owned(), "DPDK testpmd".to_owned()];
        let halves = vec![(0, 0, half.clone()), (0, 1, half)];
        let samples = vec![Samples::default(); 2];
        let measured = Measured { samples, halves, sides, reruns: 0 };
        let line = measured.samples[0].line(row, &row.measure[0], &Machine::here());
        let root = tempfile::tempdir().unwrap();
        let folder = keep(root.path(), row, &measured, &[line]).unwrap();
        let lines = std::fs::read_to_string(root.path().join("lines.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 1);
        let halves = std::fs::read_to_string(folder.join("halves.csv")).unwrap();
        assert_eq!(halves.lines().count(), 3, "{halves}");
        let bytes = std::fs::read(folder.join("DPDK-testpmd.hdr")).unwrap();
        let read: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(read, latency);
        for name in ["latency.svg", "pairs.svg"] {
            let svg = std::fs::read_to_string(folder.join(name)).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
