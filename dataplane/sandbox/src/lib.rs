//! A process gives up what it does not need, once it has been given everything by descriptors.
//!
//! ```text
//!   no new privileges -> no core dump, no ptrace -> no capability -> files (landlock) -> system calls (seccomp)
//! ```
//!
//! What the kernel does not have is said once and survived. A system call that is on no list fails with `EPERM`, and one
//! that only an intruder makes ends the process with `SIGSYS`, which the supervisor sees and says. The kernel keeps a
//! bitmap of the calls that are allowed whatever their arguments, so that those cost no run of the filter.

mod files;
mod privileges;
mod system_calls;

use std::path::PathBuf;

/// What kind of process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets; no file at all.
    Worker,
    /// TCP by io_uring.
    Front,
    /// Writes capture files.
    Capture,
    /// The control daemon: HTTP, its store, its trail.
    Control,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Worker, Self::Front, Self::Capture, Self::Control];
}

/// Files and folders, and what is below those. One that does not exist gives nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// May be read.
    pub read: Vec<PathBuf>,
    /// May be read, written, made and removed.
    pub write: Vec<PathBuf>,
}

/// What a process has given up, as one word for shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement(pub u64);

impl Confinement {
    /// Names by bit, as documents have them.
    pub const NAMES: [&str; 6] =
        ["known", "no_new_privileges", "no_dump", "no_capabilities", "files", "system_calls"];
    /// The word means something: a process that never said a thing leaves 0.
    pub const KNOWN: u64 = 1;
    /// Executing something gives it nothing.
    pub const NO_NEW_PRIVILEGES: u64 = 1 << 1;
    /// No core file, and no ptrace by its own user.
    pub const NO_DUMP: u64 = 1 << 2;
    /// Its capability sets are empty.
    pub const NO_CAPABILITIES: u64 = 1 << 3;
    /// Landlock.
    pub const FILES: u64 = 1 << 4;
    /// Seccomp.
    pub const SYSTEM_CALLS: u64 = 1 << 5;
    /// All of it.
    pub const WHOLE: Self = Self((1 << Self::NAMES.len()) - 1);

    /// Names of what it lacks.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 0)
            .map(|(_, name)| name)
    }
}

/// How entering went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// What was given up.
    pub confinement: Confinement,
    /// What was not, and why: for the log.
    pub notes: Vec<String>,
}

/// Confines the calling process, for good. To be called while it has one thread: what it starts later is confined
/// as well, threads that are there already only in their system calls.
pub fn enter(kind: Kind, files: &Files) -> Entered {
    let mut entered = Entered::default();
    entered.confinement.0 |= Confinement::KNOWN;
    let mut step = |bit: u64, what: &str, result: Result<(), String>| match result {
        Ok(()) => entered.confinement.0 |= bit,
        Err(why) => entered.notes.push(format!("not confined in {what}: {why}")),
    };
    step(Confinement::NO_NEW_PRIVILEGES, "privileges", privileges::no_new());
    step(Confinement::NO_DUMP, "dumps", privileges::no_dump());
    step(Confinement::NO_CAPABILITIES, "capabilities", privileges::no_capabilities());
    step(Confinement::FILES, "files", files::confine(files));
    step(Confinement::SYSTEM_CALLS, "system calls", {
        system_calls::confine(kind, !files.write.is_empty())
    });
    entered
}

/// Empties the bounding set: what the calling process executes later gains no capability, whoever it runs as. It
/// keeps its own. For a thread that starts processes: the sets are each thread's own.
pub fn leave_children_without_capabilities() -> Result<(), String> {
    privileges::empty_bounding_set()
}
