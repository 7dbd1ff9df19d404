//! `nautilus-bench`: runs rows of the scoreboard. `scripts/bench.sh` builds and calls it.
//!
//! Exit codes: 0 every row ran; 1 a row could not be measured; 2 bad usage.

use std::process::ExitCode;

use clap::Parser;
use nautilus_bench::report::{self, Machine};
use nautilus_bench::row::{ROWS_TOML, Row, Rows};
use nautilus_bench::{clock, results, rows, run};

/// Measures rows of the scoreboard, ours and the peer in the same run on the same core.
#[derive(Parser)]
#[command(name = "nautilus-bench", version)]
struct Arguments {
    /// Fewer pairs and shorter ones: at most a minute a row, nothing is judged on fewer than six
    #[arg(long)]
    quick: bool,
    /// Prints only JSON lines on stdout
    #[arg(long)]
    json: bool,
    /// Rows, such as A2, or all
    #[arg(required = true)]
    id: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let table = match Rows::parse(ROWS_TOML) {
        Ok(table) => table,
        Err(error) => {
            eprintln!("nautilus-bench: {error:#}");
            return ExitCode::from(2);
        }
    };
    let mut chosen: Vec<&Row> = Vec::new();
    for id in &arguments.id {
        if id.eq_ignore_ascii_case("all") {
            chosen.extend(&table.row);
        } else if let Some(row) = table.get(id) {
            chosen.push(row);
        } else {
            let known: Vec<&str> = table.row.iter().map(|row| row.id.as_str()).collect();
            eprintln!("nautilus-bench: no row {id}; there are {} and all", known.join(", "));
            return ExitCode::from(2);
        }
    }
    let machine = Machine::here();
    let mut lines = Vec::new();
    let mut failed = false;
    for row in chosen {
        eprintln!("{}: {}", row.id, row.conditions);
        match measure(row, &machine, arguments.quick) {
            Ok(measured) => {
                if arguments.json {
                    for line in &measured {
                        // Strings and numbers of ours: always a document.
                        println!("{}", serde_json::to_string(line).unwrap_or_default());
                    }
                }
                lines.extend(measured);
            }
            Err(error) => {
                eprintln!("{}: not measured: {error:#}", row.id);
                failed = true;
            }
        }
    }
    if !arguments.json {
        print!("{}", report::table(&lines));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure(row: &Row, machine: &Machine, quick: bool) -> anyhow::Result<Vec<report::Line>> {
    // Rows pin the generator; what the next one starts must not inherit that.
    let cores = clock::cores()?;
    let measured =
        rows::set_up(row, quick).and_then(|mut bench| run::run(row, bench.as_mut(), quick));
    clock::use_cores(&cores)?;
    let measured = measured?;
    let lines: Vec<report::Line> = row
        .measure
        .iter()
        .zip(&measured.samples)
        .filter(|(_, samples)| !samples.ours.is_empty())
        .map(|(measure, samples)| samples.line(row, measure, machine))
        .collect();
    let folder = results::keep(&results::folder(), row, &measured, &lines)?;
    eprintln!("{}: kept in {}", row.id, folder.display());
    Ok(lines)
}
