//! Named places where a test has the process killed.
//!
//! With the feature `kill-points` (tests only) a process whose environment has
//! `NAUTILUS_KILL_POINT=<name>` gets SIGKILL the first time it passes that place. Without the
//! feature the call compiles to nothing.

/// Dies here if a test asked for it.
#[inline(always)]
pub fn kill_point(name: &str) {
    #[cfg(feature = "kill-points")]
    if std::env::var_os("NAUTILUS_KILL_POINT").is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
    #[cfg(not(feature = "kill-points"))]
    let _ = name;
}
