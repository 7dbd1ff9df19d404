//! Makes what runs be as a file says, as far as that can be done while it runs, and puts the file in place.
//!
//! ```text
//!   caches that are missing are made --one cannot be--> those just made go again, nothing is changed
//!          | all there
//!   the file in use is replaced, what runs is kept beside it --cannot be--> the same
//!          |
//!   with --remove: caches that are not in the file go
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::diff::{Difference, Takes};
use super::flat::caches;
use super::running::{Running, Told, kept};
use crate::attach::{create_cache, remove_cache};
use crate::command::cache::node_exit;
use crate::command::exit::{Exit, Failure};
use crate::tls::pem::replace;

/// What is to be done.
pub struct Apply<'a> {
    /// The file's text.
    pub text: &'a str,
    /// The same, read.
    pub table: &'a toml::Table,
    /// How it differs from what runs.
    pub differences: &'a [Difference],
    /// The node's run directory; none for a control.
    pub run_dir: Option<&'a Path>,
    /// What runs.
    pub running: &'a Running,
    /// The file that is replaced.
    pub target: &'a Path,
    /// Whether caches that are not in the file go.
    pub removes: bool,
}

impl Apply<'_> {
    /// Does it, and says line by line what was done.
    pub fn run(&self) -> Result<Vec<String>, Failure> {
        let mut said = Vec::new();
        let made = self.create(&mut said)?;
        if let Err(reason) = self.put_in_place(&mut said) {
            self.take_back(&made);
            let text = format!("{}: {reason}; nothing was changed", self.target.display());
            return Err(Failure::new(Exit::SaidNo, text));
        }
        self.remove(&mut said)?;
        Ok(said)
    }

    /// Ids of the caches made.
    fn create(&self, said: &mut Vec<String>) -> Result<Vec<String>, Failure> {
        let mut made = Vec::new();
        let Some(run_dir) = self.run_dir else { return Ok(made) };
        for (id, section) in caches(self.table) {
            let key = format!("cache[{id}].id");
            let missing = |one: &Difference| one.key == key && one.takes == Takes::Nothing;
            if !self.differences.iter().any(missing) {
                continue;
            }
            match create_cache(run_dir, &section.to_string()) {
                Ok(line) => {
                    said.push(line);
                    made.push(id);
                }
                Err(error) => {
                    self.take_back(&made);
                    let text = format!("cache {id}: {error}; nothing was changed");
                    return Err(Failure::new(node_exit(&error), text));
                }
            }
        }
        Ok(made)
    }

    fn take_back(&self, made: &[String]) {
        for id in made.iter().rev() {
            if let Some(run_dir) = self.run_dir
                && let Err(error) = remove_cache(run_dir, id)
            {
                crate::command::output::say(&format!("cache {id} was made and stays: {error}"));
            }
        }
    }

    fn put_in_place(&self, said: &mut Vec<String>) -> Result<(), String> {
        let target = self.target.display();
        let before = match std::fs::read_to_string(self.target) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.to_string()),
        };
        if before.as_deref() == Some(self.text) {
            return Ok(());
        }
        let mode = self.target.metadata().map_or(0o644, |found| found.permissions().mode() & 0o777);
        let put = |path: &PathBuf, text: &str| {
            replace(path, mode, text.as_bytes()).map_err(|error| error.to_string())
        };
        // What runs is known from there once its own file says something else.
        if self.running.file.as_deref() == Some(self.target)
            && let Told::Text(text) = self.running.told()
        {
            put(&kept(self.target), &self.running.marked(&text))?;
        }
        put(&self.target.to_owned(), self.text)?;
        said.push(format!("{target} was replaced"));
        Ok(())
    }

    fn remove(&self, said: &mut Vec<String>) -> Result<(), Failure> {
        let Some(run_dir) = self.run_dir else { return Ok(()) };
        for one in self.differences.iter().filter(|one| one.takes == Takes::Removal) {
            let id = one.key.trim_start_matches("cache[").trim_end_matches(']');
            if !self.removes {
                said.push(format!(
                    "cache {id} is not in the file and stays: --remove takes it away"
                ));
                continue;
            }
            match remove_cache(run_dir, id) {
                Ok(line) => said.push(line),
                Err(error) => {
                    let text = format!("cache {id}: {error}; all else was done");
                    return Err(Failure::new(node_exit(&error), text));
                }
            }
        }
        Ok(())
    }
}

/// What is left for a restart, in one line; none if nothing is.
pub fn left(differences: &[Difference], whom: &str) -> Option<String> {
    let left: Vec<&str> = differences
        .iter()
        .filter(|one| one.takes == Takes::Restart)
        .map(|one| one.key.as_str())
        .collect();
    match left.is_empty() {
        true => None,
        false => Some(format!("{whom} has to be started anew for {}", left.join(", "))),
    }
}
