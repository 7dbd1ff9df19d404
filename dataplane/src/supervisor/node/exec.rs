//! One supervisor becomes another: the same process, another program.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::config::Resolved;
use crate::supervisor::releases::find;
use crate::supervisor::remembered::Remembered;
use crate::supervisor::run_dir::RunDir;
use crate::supervisor::sys::close_all_on_exec;

/// What this process was started as.
#[derive(Debug, Default)]
pub struct Origin {
    /// The release that it is, as the supervisor before it says; none where it was started by the host.
    pub release: Option<String>,
    /// Connections that wait for the end of a swap.
    pub waiting: Vec<OwnedFd>,
    /// Those that wait until everything is exchanged.
    pub waiting_soon: Vec<OwnedFd>,
    /// The connection to the front.
    pub front: Option<OwnedFd>,
}

/// What a supervisor that was started by the host goes on with: that of the release that is to run, which it
/// becomes. Returns, with what there is to say, where it is that one itself.
pub(super) fn become_remembered(
    known: &mut Remembered,
    origin: &Origin,
    (run_dir, resolved): (&RunDir, &Resolved),
    path: &Path,
) -> Option<String> {
    if origin.release.is_some() {
        return None;
    }
    known.host_program = std::env::current_exe().ok();
    let wanted = known.begin_anew();
    let written = if known.swap.is_some() { known.write(run_dir) } else { Ok(()) };
    let Some(name) = wanted else { return written.err().map(|error| error.to_string()) };
    let problem = match (written, find(resolved.config.supervisor.releases.as_deref(), &name)) {
        // Not counted: one that dies each time would be started for ever.
        (Err(error), _) => error.to_string(),
        (Ok(()), Ok(program)) => execute(&program, path, &name, &[]),
        (Ok(()), Err(error)) => error.to_string(),
    };
    // Nobody else is there: the host's programs have to do.
    known.release = None;
    known.turn_back(problem.clone());
    Some(format!("release {name} cannot go on: {problem}; the host's programs do"))
}

/// Whether a process runs this very program, not one of the same name.
pub(super) fn runs(pid: u32, program: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    let running = file(Path::new(&format!("/proc/{pid}/exe")));
    running.is_some() && running == file(program)
}

/// Becomes another supervisor: the same process, whose open files all close but those that are left to it, each
/// behind a word of its command line. Returns why not.
pub(super) fn execute(
    program: &Path,
    config: &Path,
    release: &str,
    left: &[(&str, BorrowedFd<'_>)],
) -> String {
    close_all_on_exec();
    let text = |bytes: &[u8]| CString::new(bytes).ok();
    let mut words: Vec<Vec<u8>> = vec![
        b"nautilus-supervisor".to_vec(),
        b"--config".to_vec(),
        config.as_os_str().as_bytes().to_vec(),
        b"--release".to_vec(),
        release.as_bytes().to_vec(),
    ];
    for (word, fd) in left {
        if fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).is_ok() {
            words.extend([word.as_bytes().to_vec(), fd.as_raw_fd().to_string().into_bytes()]);
        }
    }
    let words: Option<Vec<CString>> = words.iter().map(|word| text(word)).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let (Some(path), Some(words)) = (text(program.as_os_str().as_bytes()), words) else {
        return format!("{}: not a path", program.display());
    };
    let errno = match nix::unistd::execve(&path, &words, &environment) {
        Err(errno) => errno,
        Ok(never) => match never {},
    };
    for (_, fd) in left {
        let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    format!("{}: {errno}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, HostFacts};
    use crate::supervisor::remembered::SwapUnderWay;
    use crate::supervisor::run_dir::REMEMBERED;

    #[test]
    fn a_swap_whose_deaths_cannot_be_counted_is_turned_back() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::take(&root.path().join("n")).unwrap();
        let text = "[node]\nid = \"n\"\n[port]\nkind = \"socket\"\n[[interface]]\nname = \"lo\"\n";
        let facts = HostFacts {
            cores: vec![0],
            huge_bytes_free: 0,
            huge_page_bytes: 0,
            mtu_max: 1500,
            queue_count: 1,
            program_dir: root.path().into(),
            uid: 1000,
        };
        let resolved = Resolved::new(config::parse(text, "n.toml").unwrap(), &facts).unwrap();
        let swap = SwapUnderWay { to: Some("r2".into()), tries: 1, failed: None };
        let mut known =
            Remembered { release: Some("r1".into()), swap: Some(swap), ..Remembered::default() };
        // What is written first is not a file that could be written.
        std::fs::create_dir(run_dir.path().join(format!("{REMEMBERED}.new"))).unwrap();
        let path = root.path().join("n.toml");
        let place = (&run_dir, &resolved);
        let said = become_remembered(&mut known, &Origin::default(), place, &path).unwrap();
        assert!(said.contains("release r2 cannot go on: cannot make"), "{said}");
        // By what this process has: not by a name that none of it is.
        assert_eq!(known.release, None);
        let swap = known.swap.unwrap();
        assert!(swap.to.is_none() && swap.failed.is_some(), "{swap:?}");
    }
}
