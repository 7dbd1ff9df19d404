//! `nautilus config`: files of nodes and of controls: whether they are right, how they differ from what runs,
//! and making it so.

mod apply;
mod check;
mod diff;
mod flat;
mod place;
mod running;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{print, say};
use crate::client::DEFAULT_SOCKET;
use crate::config::DEFAULT_PATH;
use check::{Found, Kind};
use diff::{Difference, Other, differences};
use running::{Running, Told};

/// Files of nodes and controls: checked, compared with what runs, applied
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says everything that is wrong with files, by line and key
    Check {
        /// Node files and control files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Whom they are for; seen from what stands in them unless said
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        /// Prints one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Shows how a file differs from what runs, and what each difference takes; 1 if it differs
    Diff {
        #[command(flatten)]
        what: What,
    },
    /// Changes what can be changed while it runs, and puts the file in the place of the one in use
    Apply {
        #[command(flatten)]
        what: What,
        /// Shows what would be done, and does nothing
        #[arg(long)]
        dry_run: bool,
        /// Removes caches that were made at run time and are not in the file, with all that is in them
        #[arg(long)]
        remove: bool,
        /// The file that is replaced; the one in use unless said
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct What {
    /// A node file or a control file
    file: PathBuf,
    /// Whom it is for; seen from what stands in it unless said
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Run directory of the node; as the file says unless said
    #[arg(long, value_name = "RUN_DIR")]
    node: Option<PathBuf>,
    /// Socket of the control; as the file says unless said
    #[arg(long, value_name = "PATH", conflicts_with = "node")]
    socket: Option<PathBuf>,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// A file that is right, and what runs.
struct Compared {
    text: String,
    table: toml::Table,
    run_dir: Option<PathBuf>,
    running: Running,
    found: Vec<Difference>,
}

impl Config {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Check { files, kind, json } => check_all(&files, kind, json),
            Verb::Diff { what } => {
                let compared = compare(&what)?;
                show(&what, &compared, &[]);
                Ok(if compared.found.is_empty() { Exit::Done } else { Exit::SaidNo })
            }
            Verb::Apply { what, dry_run, remove, to } => {
                let compared = compare(&what)?;
                apply_it(&what, &compared, dry_run, remove, to)
            }
        }
    }
}

fn read(path: &Path, kind: Option<Kind>) -> Result<(String, Kind, Found), Failure> {
    let wrong = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
    let bytes = super::document::bytes(path)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("this is no text in UTF-8".into()))?;
    let kind = kind.unwrap_or_else(|| Kind::of(&text));
    let found = check::check(path, &text, kind)?;
    Ok((text, kind, found))
}

fn check_all(files: &[PathBuf], kind: Option<Kind>, as_json: bool) -> Result<Exit, Failure> {
    let (mut exit, mut documents, mut said) = (Exit::Done, Vec::new(), String::new());
    for path in files {
        let name = path.display().to_string();
        let (_, _, found) = read(path, kind)?;
        if !found.problems.is_empty() {
            exit = Exit::Usage;
        }
        let problems = found.problems.iter();
        documents.push(json!({
            "file": name,
            "problems": problems
                .map(|one| json!({ "line": one.line, "key": one.key, "reason": one.reason }))
                .collect::<Vec<_>>(),
            "notes": found.notes,
        }));
        for problem in &found.problems {
            said += &(problem.show(&name) + "\n");
        }
        if found.problems.is_empty() {
            for note in &found.notes {
                said += &format!("{name}: {note}\n");
            }
            said += &format!("{name}: fine\n");
        }
    }
    match as_json {
        true => print(json!({ "files": documents }).to_string()),
        false => print(said),
    };
    Ok(exit)
}

fn compare(what: &What) -> Result<Compared, Failure> {
    let name = what.file.display().to_string();
    let (text, kind, found) = read(&what.file, what.kind)?;
    if !found.problems.is_empty() {
        let lines: Vec<String> = found.problems.iter().map(|problem| problem.show(&name)).collect();
        return Err(Failure::usage(lines.join("\n")));
    }
    // It was read already.
    let table: toml::Table = text.parse().unwrap_or_default();
    let said = |section: &str, key: &str| {
        table.get(section)?.get(key)?.as_str().filter(|text| *text != "auto").map(PathBuf::from)
    };
    let (run_dir, running, status) = match kind {
        Kind::Node => {
            let usual = || {
                let id = said("node", "id").unwrap_or_else(|| "node-1".into());
                Path::new("/run/nautilus").join(id)
            };
            let run_dir = what.node.clone().or_else(|| said("node", "run_dir")).unwrap_or_else(usual);
            let (_, status) = running::node(&run_dir)?;
            let pid = status.supervisor.as_ref().map_or(0, |supervisor| supervisor.pid);
            (Some(run_dir), Running::of(pid)?, Some(status))
        }
        Kind::Control => {
            let socket = what.socket.clone().or_else(|| said("control", "socket"));
            let socket = socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
            (None, Running::at_socket(&socket)?, None)
        }
    };
    let told = running.told();
    if let Told::Unknown(reason) = &told {
        say(&format!("process {}: {reason}; only what it tells itself is compared", running.pid));
    }
    let found = differences(&table, &Other { told: &told, status: status.as_ref() });
    Ok(Compared { text, table, run_dir, running, found })
}

fn show(what: &What, compared: &Compared, said: &[String]) {
    if what.json {
        let mut document = diff::document(&compared.found);
        document["pid"] = compared.running.pid.into();
        document["done"] = said.into();
        print(document.to_string());
        return;
    }
    print(diff::text(&compared.found));
}

fn apply_it(
    what: &What,
    compared: &Compared,
    dry_run: bool,
    removes: bool,
    to: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let usual = || match compared.run_dir {
        None => Some(PathBuf::from(DEFAULT_PATH)),
        Some(_) => None,
    };
    let target = to.or_else(|| compared.running.file.clone()).or_else(usual);
    let target = target.ok_or_else(|| {
        Failure::usage("the node was started without a file that can be told: name one by --to FILE")
    })?;
    if !what.json {
        show(what, compared, &[]);
    }
    let mut said = Vec::new();
    if !dry_run {
        let apply = apply::Apply {
            text: &compared.text,
            table: &compared.table,
            differences: &compared.found,
            run_dir: compared.run_dir.as_deref(),
            running: &compared.running,
            target: &target,
            removes,
        };
        said = apply.run()?;
    }
    let whom = if compared.run_dir.is_some() { "the node" } else { "the control" };
    said.extend(apply::left(&compared.found, whom));
    match what.json {
        true => show(what, compared, &said),
        false => said.iter().for_each(|line| {
            print(line);
        }),
    }
    Ok(Exit::Done)
}
