//! The operator's kill switch: on at once and until he releases it, whoever dies meanwhile.
//!
//! ```text
//!   on        publishers (control region) -> XDP (hot words) -> tables -> file -> answered
//!   release   file -> tables -> XDP -> publishers -> answered
//! ```
//!
//! A value is withdrawn in XDP before the table, as every change is. What is on is on in the control region first
//! and off there last, and in a file of the run directory besides: a supervisor that finds either turns everything on
//! again, so one killed in between leaves it on. The file outlives the memory, and the node: it is only removed by a
//! release. While it is on, feeds are applied as ever, so releasing it says nothing about a price: that is as good as
//! its channel's own state.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nautilus_ebpf::{HotWords, Steering};
use nautilus_shm::clock::monotonic_ns;
use nautilus_shm::control_region::{ControlRegion, SUPERVISOR_PROCESS};
use nautilus_shm::event_log::EventKind;
use nautilus_shm::kill_switch::{KillSwitchState, REASON_BYTES_MAX};
use nautilus_shm::metrics::table as metrics;
use nautilus_shm::table::set_halted;
use serde::{Deserialize, Serialize};

use super::caches::OpenCache;
use super::journal::Event;
use super::resources::Resources;
use crate::kill_point::kill_point;

/// Name of the file in the run directory.
const FILE: &str = "halted.toml";

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    uid: u32,
    reason: String,
}

/// Why a change is not complete. The switch is on then, whatever was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KillSwitchError {
    /// The file.
    #[error("cannot {step} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hot words of the steering program.
    #[error("hot set: {0}")]
    Hot(String),
}

/// Turns it on or off for `uid`; the events to be published, and what the operator is told.
pub fn turn(
    resources: &Resources,
    run_dir: &Path,
    state: KillSwitchState,
) -> Result<(Option<Event>, String), KillSwitchError> {
    let switch = resources.control.kill_switch();
    let before = switch.state().unwrap_or_default();
    let was_on = switch.is_on();
    let KillSwitchState { is_on, uid, .. } = state;
    let reason = match said(&state.reason) {
        // Who says the same again without a reason takes none away.
        empty if empty.is_empty() && is_on && was_on => before.reason.clone(),
        reason => reason,
    };
    if !is_on && !was_on {
        return Ok((None, "the kill switch is off already".into()));
    }
    // The same again is complete again, but on since before.
    let since_ns = if is_on && was_on { before.since_ns } else { monotonic_ns() };
    let state = KillSwitchState { since_ns, reason: reason.clone(), ..state };
    let file = run_dir.join(FILE);
    if is_on {
        // What of it cannot be done keeps nothing else from being done.
        let shown = show(resources, &state);
        kill_point("supervisor.halted");
        let kept = Kept { uid, reason: reason.clone() };
        shown.and(keep(&file, &kept))?;
    } else {
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(KillSwitchError::File { step: "remove", path: file, source });
            }
            _ => {}
        }
        kill_point("supervisor.releasing");
        show(resources, &state)?;
    }
    if is_on && was_on {
        return Ok((None, format!("the kill switch is on already: {reason}")));
    }
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let (kind, text, on_ns) = match is_on {
        true => {
            resources.control.metrics(SUPERVISOR_PROCESS).add(metrics::HALTS, 1);
            (EventKind::Halted, format!("kill switch on by uid {uid}{because}"), 0)
        }
        false => {
            let on_ns = since_ns.saturating_sub(before.since_ns);
            (EventKind::Released, format!("kill switch off by uid {uid}{because}"), on_ns)
        }
    };
    Ok((Some(Event::new(kind, (uid.into(), on_ns), text.clone())), text))
}

/// Turns everything on again where a predecessor, or the node before this one, left it on; what is to be said of it.
/// A node whose file cannot be written serves all the same: it is on.
pub fn restore(resources: &Resources, run_dir: &Path) -> Vec<String> {
    let switch = resources.control.kill_switch();
    let file = run_dir.join(FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // It is there: who cannot read it does not release it.
        Err(_) => Some(String::new()),
    };
    let state = match (switch.is_on(), text) {
        (false, None) => {
            // A release whose supervisor died before it was all shown.
            let shown = show(resources, &switch.state().unwrap_or_default());
            return shown.err().map(|error| error.to_string()).into_iter().collect();
        }
        (true, _) => switch.state().unwrap_or(KillSwitchState {
            is_on: true,
            since_ns: monotonic_ns(),
            uid: 0,
            reason: String::new(),
        }),
        (false, Some(text)) => {
            let unread = |_| Kept { uid: 0, reason: format!("left on; {FILE} cannot be read") };
            let Kept { uid, reason } = toml::from_str(&text).unwrap_or_else(unread);
            let reason = said(&reason);
            KillSwitchState { is_on: true, since_ns: monotonic_ns(), uid, reason }
        }
    };
    let kept = Kept { uid: state.uid, reason: state.reason.clone() };
    let failed = [show(resources, &state), keep(&file, &kept)].into_iter().filter_map(Result::err);
    let on = format!("the kill switch is on, by uid {}: {}", state.uid, state.reason);
    std::iter::once(on).chain(failed.map(|error| format!("kill switch: {error}"))).collect()
}

/// Halts a cache that is made while the switch is on, before anybody is given it.
pub fn show_to(control: &ControlRegion, memory: &nautilus_shm::table::TableRegion) {
    set_halted(memory, control.kill_switch().is_on());
}

/// Everybody who looks is shown this state.
fn show(resources: &Resources, state: &KillSwitchState) -> Result<(), KillSwitchError> {
    let Resources { control, caches, steering, .. } = resources;
    if !state.is_on {
        let hot = hot_words(steering.as_ref())?;
        show_tables(caches, false);
        hot.iter().for_each(|words| words.set_halted(false));
        control.kill_switch().set(state);
        gauge(control, false);
        return Ok(());
    }
    control.kill_switch().set(state);
    let hot = hot_words(steering.as_ref());
    if let Ok(Some(words)) = &hot {
        words.set_halted(true);
    }
    show_tables(caches, true);
    gauge(control, true);
    hot.map(|_| ())
}

fn show_tables(caches: &[OpenCache], is_on: bool) {
    caches.iter().for_each(|cache| set_halted(&cache.memory, is_on));
}

fn hot_words(steering: Option<&Steering>) -> Result<Option<HotWords>, KillSwitchError> {
    let Some(steering) = steering else { return Ok(None) };
    let [_, words, _] = steering.hot_fds();
    HotWords::map(words).map(Some).map_err(|error| KillSwitchError::Hot(error.to_string()))
}

fn gauge(control: &ControlRegion, is_on: bool) {
    control.metrics(SUPERVISOR_PROCESS).set(metrics::KILL_SWITCH, is_on.into());
}

/// A reason as it is shown: one line, and no longer than there is room for.
fn said(reason: &str) -> String {
    let mut reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

/// Writes the file so that it is there whole after any death.
fn keep(file: &Path, kept: &Kept) -> Result<(), KillSwitchError> {
    let failed = |step| move |source| KillSwitchError::File { step, path: file.to_owned(), source };
    let text = toml::to_string(kept).unwrap_or_default();
    let new = file.with_extension("new");
    let written = write(&new, text.as_bytes())
        .and_then(|()| std::fs::rename(&new, file).map_err(|source| ("name", source)));
    if let Err((step, source)) = written {
        let _ = std::fs::remove_file(&new);
        return Err(failed(step)(source));
    }
    let dir = file.parent().unwrap_or_else(|| Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory of"))
}

/// Writes a new file that is on disk when this returns; which step failed otherwise.
fn write(file: &Path, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut open = options.open(file).map_err(|source| ("make", source))?;
    open.write_all(bytes).and_then(|()| open.sync_all()).map_err(|source| ("write", source))
}

#[cfg(test)]
mod tests {
    use nautilus_shm::table::{
        ChannelState, Mutation, Op, ReadError, TableReader, TableRegion, TableWriter,
    };

    use super::*;

    #[test]
    fn a_cache_that_is_made_meanwhile_is_halted_too() {
        let control = ControlRegion::create(c"test-control").unwrap();
        for is_on in [false, true, false] {
            control.kill_switch().set(&KillSwitchState { is_on, ..KillSwitchState::default() });
            let memory = TableRegion::create(4, false).unwrap();
            let mut table = TableWriter::create(memory, 1, 1).unwrap();
            show_to(&control, table.memory());
            let key = b"md:x:Y:bbo";
            let price = Mutation { channel: 9, text_sum: 7, ..Mutation::new(key, Op::Set(b"v")) };
            table.apply(table.hash(key), &price, 1).unwrap();
            table.set_channel(9, ChannelState::Live { valid_until_ns: 100 });
            let reader = TableReader::attach(table.memory()).unwrap();
            let read = reader.get(key, 2, &mut [0; 8]).map(|hit| hit.channel);
            assert_eq!(read, if is_on { Err(ReadError::Suspect) } else { Ok(9) });
        }
    }
}
