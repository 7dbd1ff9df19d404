//! The repository as text: its files, its READMEs, the commands in them, and the data beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;

/// The repository's root.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests package lies in the root").to_owned()
}

/// The folder with real inputs that lie beside the repository: `$NAUTILUS_DATA`, else
/// `../shared/data`.
pub fn data() -> Option<PathBuf> {
    let folder = match std::env::var_os("NAUTILUS_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => root().join("../shared/data"),
    };
    folder.is_dir().then_some(folder)
}

/// [`data`], with a printed `SKIPPED` line naming `what` when it is absent.
pub fn data_or_skip(what: &str) -> Option<PathBuf> {
    let folder = data();
    if folder.is_none() {
        println!("SKIPPED {what}: no data folder beside the repository (or set NAUTILUS_DATA)");
    }
    folder
}

/// Whether the long form of the shows was asked for (`scripts/test.sh --long`).
pub fn long_shows() -> bool {
    std::env::var_os("NAUTILUS_LONG").is_some()
}

/// Every file that belongs to the repository, relative to its root, sorted. Asks git; where git is
/// missing or refuses, walks the tree without build output.
pub fn files() -> Vec<PathBuf> {
    let root = root();
    let listed = command::run(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]));
    let mut files: Vec<PathBuf> = match listed {
        Ok(names) => names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect(),
        Err(_) => {
            let mut found = Vec::new();
            walk(&root, Path::new(""), &mut found);
            found
        }
    };
    // git still lists what was deleted but not yet committed.
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    files
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(root.join(folder)).expect("a folder of the repository");
    for entry in entries.map(|entry| entry.expect("a readable folder entry")) {
        let path = folder.join(entry.file_name());
        let ignored =
            [".git", "target", "bench/results"].iter().any(|name| path == Path::new(name));
        if ignored || path.ends_with("__pycache__") {
            continue;
        }
        if entry.path().is_dir() {
            walk(root, &path, found);
        } else {
            found.push(path);
        }
    }
}

/// A fenced block of shell commands in a README.
#[derive(Debug, PartialEq, Eq)]
pub struct ShellBlock {
    /// The README, relative to the root.
    pub readme: PathBuf,
    /// Line number of the opening fence, from 1.
    pub line: usize,
    /// The command lines, continued lines joined, comments and blank lines left out.
    pub commands: Vec<String>,
}

/// The blocks fenced as `sh` in the text of `readme`.
pub fn shell_blocks(readme: &Path, text: &str) -> Vec<ShellBlock> {
    let mut blocks = Vec::new();
    let mut open: Option<ShellBlock> = None;
    let mut continued = String::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        match open.as_mut() {
            None if trimmed == "```sh" => {
                open = Some(ShellBlock {
                    readme: readme.to_owned(),
                    line: index + 1,
                    commands: Vec::new(),
                });
            }
            None => {}
            Some(_) if trimmed == "```" => blocks.extend(open.take()),
            Some(block) => {
                if let Some(front) = trimmed.strip_suffix('\\') {
                    continued.push_str(front);
                    continue;
                }
                let command = std::mem::take(&mut continued) + trimmed;
                if !command.is_empty() && !command.starts_with('#') {
                    block.commands.push(command);
                }
            }
        }
    }
    blocks.extend(open);
    blocks
}

/// The README commands that no test runs, and why. Everything else in an `sh` block is run by
/// `readme_commands.rs`.
pub const COMMANDS_NOT_RUN: &[(&str, &str)] = &[
    ("scripts/test.sh", "it is what runs the others"),
    ("scripts/bench.sh all", "takes an hour; its rows run one by one"),
    ("vagrant", "needs a hypervisor"),
    ("scripts/vm.sh", "boots a kernel in software emulation"),
];

/// Why `command` is not run by a test, or None when it is.
pub fn reason_not_run(command: &str) -> Option<&'static str> {
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    COMMANDS_NOT_RUN
        .iter()
        .find(|(front, _)| {
            command.strip_prefix(front).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_at_their_fences() {
        let text =
            "a\n```sh\n# why\nscripts/lab.sh up 2\ncargo \\\n  build\n```\n```text\nno\n```\n";
        let blocks = shell_blocks(Path::new("README.md"), text);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].line, 2);
        assert_eq!(blocks[0].commands, ["scripts/lab.sh up 2", "cargo build"]);
    }

    #[test]
    fn only_the_listed_commands_are_left_out() {
        assert!(reason_not_run("scripts/test.sh --long").is_some());
        assert!(reason_not_run("sudo scripts/test.sh").is_some());
        assert!(reason_not_run("scripts/bench.sh all").is_some());
        assert!(reason_not_run("scripts/bench.sh --quick A6").is_none());
        assert!(reason_not_run("scripts/test.shx").is_none());
        assert!(reason_not_run("scripts/demo.sh").is_none());
    }

    #[test]
    fn the_walk_finds_what_git_lists() {
        let listed = files();
        assert!(listed.iter().any(|file| file == Path::new("tests/src/repository.rs")));
        let mut walked = Vec::new();
        walk(&root(), Path::new(""), &mut walked);
        for file in &listed {
            assert!(walked.contains(file), "{} was not walked", file.display());
        }
    }
}
