//! Everything wrong with a file, each with line and key: what a reader finds first is taken out, and the rest
//! is read again. Nothing is judged here but by the programs that read these files.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use super::place::{Entry, covers, entries, key_at, line_of, line_of_key, without};
use crate::catalogue::Catalogue;
use crate::command::exit::{Exit, Failure};
use crate::config::{Config, ConfigError};

/// Problems that are listed at most. Too high: a file that is none at all is read again for each of its lines.
const PROBLEMS_MAX: usize = 64;

/// Whom a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A node: read by its supervisor.
    Node,
    /// A control, and `nautilus status`.
    Control,
}

impl Kind {
    /// By what stands in it: a control's file lists nodes, a node's file is about one.
    pub fn of(text: &str) -> Self {
        let table = entries(text);
        let has = |name: &str| table.iter().any(|entry| entry.key == name);
        let lists_nodes = has("node[0]");
        let of_nodes = ["node", "worker", "supervisor", "port", "interface[0]", "access", "echo"];
        let of_nodes = of_nodes.iter().chain(&["cache[0]", "cache", "front", "feed[0]", "capture"]);
        match !lists_nodes && of_nodes.into_iter().any(|name| has(name)) {
            true => Self::Node,
            false => Self::Control,
        }
    }
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1; none where it is about the whole file, or this host.
    pub line: Option<usize>,
    /// Path of the key; empty as above.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl Problem {
    /// As one line, behind the file's name.
    pub fn show(&self, file: &str) -> String {
        let line = self.line.map_or(String::new(), |line| format!("{line}:"));
        let key = if self.key.is_empty() { String::new() } else { format!(" {}:", self.key) };
        let text = format!("{file}:{line}{key} {}", self.reason);
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of the lines.
    pub problems: Vec<Problem>,
    /// What its reader says besides, such as what `auto` becomes.
    pub notes: Vec<String>,
}

/// Looks at a whole text; `path` is for messages.
pub fn check(path: &Path, text: &str, kind: Kind) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut rest = text.to_owned();
    let mut gone: Vec<Entry> = Vec::new();
    while found.problems.len() < PROBLEMS_MAX {
        let problem = match kind {
            Kind::Control => control_problem(path, &rest),
            Kind::Node => match node_problem(&rest)? {
                Ok(notes) => {
                    found.notes = notes;
                    None
                }
                Err(problem) => Some(problem),
            },
        };
        let Some(problem) = problem else { break };
        let problem = as_in(text, problem);
        // What is missing, or differs, since something wrong was taken out, is no problem of the file.
        let follows = gone
            .iter()
            .any(|entry| covers(&problem.key, &entry.key) || covers(&entry.key, &problem.key));
        let out = match taken_out(&rest, text, &problem, follows) {
            Some(out) if !problem.key.is_empty() => out,
            _ => {
                if !follows {
                    found.problems.push(problem);
                }
                break;
            }
        };
        if !follows {
            found.problems.push(problem);
        }
        rest = without(
            &rest,
            &out.iter().map(|entry| entry.span.clone()).collect::<Vec<Range<usize>>>(),
        );
        gone.extend(out);
    }
    found.problems.sort_by_key(|problem| problem.line);
    found.problems.dedup();
    Ok(found)
}

/// The problem with the key as the whole file has it: of a list, sections may have been taken out before.
fn as_in(text: &str, problem: Problem) -> Problem {
    let Some(line) = problem.line else { return problem };
    let all = entries(text);
    let on_line = |entry: &&Entry| {
        let first = line_of(text, entry.span.start);
        let last = line_of(text, entry.span.end);
        (first..=last).contains(&line)
    };
    let here = all.iter().filter(on_line).min_by_key(|entry| entry.span.len());
    let Some(here) = here else { return problem };
    let (front, rest) = match (here.key.find(']'), problem.key.find(']')) {
        (Some(ours), Some(theirs)) => (&here.key[..=ours], &problem.key[theirs + 1..]),
        _ => return problem,
    };
    let key = format!("{front}{rest}");
    Problem { key, ..problem }
}

/// What has to go so that the rest can be read: the entry of the key; where that is a section, or what is
/// wrong follows from what went before, the whole section.
fn taken_out(rest: &str, text: &str, problem: &Problem, follows: bool) -> Option<Vec<Entry>> {
    let line = problem.line?;
    let now = entries(rest);
    let lies_here = |entry: &&Entry| {
        let (first, last) = (line_of(rest, entry.span.start), line_of(rest, entry.span.end));
        (first..=last).contains(&line)
    };
    let here = now.iter().filter(lies_here).min_by_key(|entry| entry.span.len())?;
    let whole = |entry: &Entry| {
        let inside = now.iter().filter(|other| covers(&entry.key, &other.key));
        let inside = inside.map(|other| as_entry_in(text, rest, other));
        inside.collect::<Vec<_>>()
    };
    if here.is_section {
        return Some(whole(here));
    }
    if follows {
        let around = now.iter().filter(|entry| entry.is_section && covers(&entry.key, &here.key));
        return around.max_by_key(|entry| entry.key.len()).map(whole);
    }
    Some(vec![as_entry_in(text, rest, here)])
}

/// The entry with its key as the whole file has it; its place is the same.
fn as_entry_in(text: &str, rest: &str, entry: &Entry) -> Entry {
    let line = line_of(rest, entry.span.start);
    let all = entries(text);
    let same = all.iter().find(|other| {
        other.is_section == entry.is_section && line_of(text, other.span.start) == line
    });
    let key = same.map_or_else(|| entry.key.clone(), |other| other.key.clone());
    Entry { key, ..entry.clone() }
}

fn control_problem(path: &Path, text: &str) -> Option<Problem> {
    let at_key = |key: String, reason: String| {
        let line = Some(line_of_key(text, &key));
        Some(Problem { line, key, reason })
    };
    let error = match Config::parse(path, text) {
        Ok(config) => match config.check_listen(path) {
            Ok(()) => {
                // Without it, or with one that is wrong, the daemon would not start.
                let error = Catalogue::load(config.deploy.catalogue.as_deref()?).err()?;
                return at_key("control.catalogue.file".into(), error.to_string());
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    match error {
        ConfigError::Read { source, .. } => {
            Some(Problem { line: None, key: String::new(), reason: source.to_string() })
        }
        ConfigError::Parse { at, reason, .. } => {
            let at = at.unwrap_or(0);
            let key = key_at(text, at);
            Some(Problem { line: Some(line_of(text, at)), key, reason })
        }
        ConfigError::UnknownKey { key, .. } => at_key(key, "unknown key".into()),
        ConfigError::Value { key, reason, .. } => at_key(key, reason),
    }
}

/// What the supervisor program beside this one says of a node file.
fn node_problem(text: &str) -> Result<Result<Vec<String>, Problem>, Failure> {
    const GIVEN: &str = "/dev/stdin";
    let ours = std::env::current_exe().unwrap_or_default();
    let program = ours.with_file_name("nautilus-supervisor");
    let failed = |error: std::io::Error| {
        let text = format!("cannot run {}, which reads node files: {error}", program.display());
        Failure::new(Exit::Unreachable, text)
    };
    let mut child = Command::new(&program)
        .args(["--check", "--config", GIVEN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().map(|line| line.replace(GIVEN, "").trim().to_owned()).collect()
    };
    if output.status.success() {
        let mut notes = lines(&output.stdout);
        notes.retain(|line| line != ": fine" && !line.is_empty());
        return Ok(Ok(notes));
    }
    let said = lines(&output.stderr).join(" ");
    let said = said.trim_start_matches("nautilus-supervisor: ").trim().to_owned();
    Ok(Err(parsed(&said).unwrap_or(Problem { line: None, key: String::new(), reason: said })))
}

/// `:LINE: KEY: REASON`.
fn parsed(said: &str) -> Option<Problem> {
    let (line, rest) = said.strip_prefix(':')?.split_once(": ")?;
    let line = line.parse().ok()?;
    let (key, reason) = rest.split_once(": ")?;
    if key == "(top level)" || key.contains(' ') {
        return Some(Problem { line: Some(line), key: String::new(), reason: rest.into() });
    }
    Some(Problem { line: Some(line), key: key.into(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> Vec<String> {
        let path = Path::new("c.toml");
        let found = check(path, text, Kind::Control).unwrap();
        found.problems.iter().map(|problem| problem.show("c.toml")).collect()
    }

    #[test]
    fn every_problem_of_a_control_file_is_found() {
        let text = "[control]\nlisten = \"nowhere\"\nsocket = 7\nport = 1\n[control.audit]\n\
                    dir = \"/a\"\nrotate_mb = 0\n\n[[node]]\nid = \"a\"\n\n[[node]]\nrun_dir = \"/r\"\n\
                    tier = \"fast\"\nid = \"NO\"\n\n[[node]]\nrun_dir = \"/s\"\nrundir = 1\nid = \"b\"\n";
        let found = control(text);
        // Without the list of all that would be right.
        let fronts = found.iter().map(|line| line.split(", expected one of").next().unwrap());
        assert_eq!(
            fronts.collect::<Vec<_>>(),
            [
                "c.toml:2: control.listen: invalid socket address syntax",
                "c.toml:3: control.socket: invalid type: integer `7`, expected path string",
                "c.toml:4: control.port: unknown key",
                "c.toml:7: control.audit.rotate_mb: 0 is not in 1..=1024",
                "c.toml:9: node[0]: missing field `run_dir`",
                "c.toml:14: node[1].tier: unknown variant `fast`",
                "c.toml:15: node[1].id: \"NO\": ids are [a-z0-9][a-z0-9_.-]{0,62} and none of create, \
                 status, deploy, summary",
                "c.toml:19: node[2].rundir: unknown key",
            ]
        );
        assert!(control("[[node]]\nrun_dir = \"/r\"\n").is_empty());
        assert_eq!(control("[control\n").len(), 1);
        assert_eq!(control(""), ["c.toml:1: node: there is no [[node]]: name at least one"]);
    }

    #[test]
    fn the_file_that_a_control_file_names_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("regions.toml");
        let text = format!(
            "[[node]]\nrun_dir = \"/r\"\n[control.catalogue]\nfile = \"{}\"\n[control.deploy]\njudge_s = 1\n",
            file.display()
        );
        let found = control(&text);
        let front = format!("c.toml:4: control.catalogue.file: {}: ", file.display());
        assert!(found.len() == 1 && found[0].contains("No such file"), "{found:?}");
        for (text_of_it, said) in [
            ("[[group]]\nid = \"g\"\nregions = [\"atlantis\"]\n", "there is no region atlantis"),
            ("[[region]\n", "line 1"),
            ("[[venue]]\n", "unknown field `venue`"),
        ] {
            std::fs::write(&file, text_of_it).unwrap();
            let found = control(&text);
            assert!(found.len() == 1 && found[0].starts_with(&front), "{found:?}");
            assert!(found[0].contains(said), "{found:?}");
        }
        std::fs::write(&file, "[[group]]\nid = \"g\"\nregions = [\"equinix_ny4\"]\n").unwrap();
        assert!(control(&text).is_empty());
    }

    #[test]
    fn whom_a_file_is_for_is_seen() {
        for (text, kind) in [
            ("[[node]]\nrun_dir = \"/r\"\n", Kind::Control),
            ("[node]\nid = \"a\"\n", Kind::Node),
            ("[[interface]]\nname = \"eth0\"\n[control]\nlisten = \"x\"\n", Kind::Node),
            ("[control]\nlisten = \"127.0.0.1:1\"\n", Kind::Control),
            ("[cache]\nid = \"q\"\n", Kind::Node),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn a_supervisors_words_are_read() {
        let problem = parsed(":5: cache.port: 7 is also echo.port").unwrap();
        assert_eq!(problem.show("n"), "n:5: cache.port: 7 is also echo.port");
        assert_eq!(parsed(":3: (top level): expected `=`").unwrap().key, "");
        assert_eq!(parsed("cannot read: no"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "(\\[\\[?(node|control|x)\\]?\\]\n|(id|run_dir|tier|listen) = (1|\"a\"|\\[\n\\])\n|.{0,5}\n){0,12}") {
            let found = check(Path::new("c"), &text, Kind::Control).unwrap();
            proptest::prop_assert!(found.problems.len() <= PROBLEMS_MAX);
        }
    }
}
