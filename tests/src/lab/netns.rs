//! A network namespace that goes when its guard is dropped.

use std::fs::File;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::{LabError, RunId, at, leaks};
use crate::command::{self, CommandError};

/// A named network namespace (`ip netns`), deleted on drop together with every process left in it.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes the namespace `ne<run>-<part>` with its loopback up.
    pub fn create(run: RunId, part: &str) -> Result<Self, LabError> {
        let name = run.prefix() + part;
        command::run_words("ip", &format!("netns add {name}"))?;
        let path = namespace_path(&name);
        let namespace = match File::open(&path) {
            Ok(file) => Self { name, file },
            Err(source) => {
                // No guard exists yet that would take it away again.
                let _ = command::run_words("ip", &format!("netns delete {name}"));
                return Err(LabError::File { path, source });
            }
        };
        namespace.ip("link set lo up")?;
        // Neither duplicate address detection nor router solicitations: addresses work at once and
        // nothing is sent that a test did not send.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
        Ok(namespace)
    }

    /// The name `ip netns` lists.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n <name> <words>`.
    pub fn ip(&self, words: &str) -> Result<String, CommandError> {
        command::run(Command::new("ip").args(["-n", &self.name]).args(words.split_whitespace()))
    }

    /// Runs blank-separated `words` inside.
    pub fn exec(&self, words: &str) -> Result<String, CommandError> {
        let mut words = words.split_whitespace();
        let program = words.next().expect("a program");
        command::run(self.command(program).args(words))
    }

    /// A command that will run inside, with a `/sys` of its own; the process is the program itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Sets a kernel parameter of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.run(|| at(&path, std::fs::write(&path, value)))
    }

    /// Moves the calling thread inside until the guard is dropped.
    pub fn enter(&self) -> Result<Entered, LabError> {
        let path = Path::new("/proc/thread-self/ns/net");
        let home = at(path, File::open(path))?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|source| LabError::Namespace { name: self.name.clone(), source })?;
        Ok(Entered { home, _not_send: PhantomData })
    }

    /// Runs `action` inside, on a thread of its own; sockets it opens stay in the namespace.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _inside = self.enter().expect("a namespace that exists can be entered");
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Processes that are inside now.
    pub fn processes(&self) -> Vec<i32> {
        leaks::processes_in(&self.name)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        leaks::delete_namespace(&self.name);
    }
}

/// Where `ip netns` mounts the namespace `name`.
pub(super) fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The calling thread is inside; dropping brings it back.
#[derive(Debug)]
#[must_use = "dropped at once, the thread leaves at once"]
pub struct Entered {
    home: File,
    /// The namespace belongs to the thread, so the guard may not leave it.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        setns(&self.home, CloneFlags::CLONE_NEWNET).expect("the way back to the first namespace");
    }
}
