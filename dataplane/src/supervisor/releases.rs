//! Releases: which programs a node may be given, and whether they can take it over as it runs.
//!
//! ```text
//!   supervisor.releases/<name>/nautilus-supervisor, nautilus-worker, nautilus-front, nautilus-capture
//! ```
//!
//! A name comes from the wire, a path never does. Whoever can write there is as powerful as the supervisor, so
//! folder and programs must belong to root or to its own user, be writable by nobody else, and be no links.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nautilus_shm::attach::HOST_RELEASE;
use nautilus_shm::control_region::control_spec;
use nautilus_shm::front_region::front_spec;
use nautilus_shm::ledger::LEDGER_LAYOUT_VERSION;
use nautilus_shm::region::layout_hash_bytes;
use nautilus_shm::table::table_layout_hash;

use super::handover::VERSION;

/// The program that executes all others.
pub const SUPERVISOR: &str = "nautilus-supervisor";

/// What a release has to have.
const PROGRAMS: [&str; 4] = [SUPERVISOR, "nautilus-worker", "nautilus-front", "nautilus-capture"];

/// Longest name.
const NAME_BYTES_MAX: usize = 63;

/// How long a release may take to say what it is. Too low: a loaded host refuses a good one; too high: whoever
/// asked waits for one that hangs.
const DESCRIBE_MAX: Duration = Duration::from_secs(10);

/// Longest description that is read.
const DESCRIPTION_BYTES_MAX: u64 = 4096;

/// Why a release is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Not a name.
    #[error("{0:?} is no name of a release: [a-z0-9] first, then [a-z0-9_.-], at most 63 in all")]
    Name(String),
    /// There is no folder of releases.
    #[error("supervisor.releases: the node file names no folder; release {0} cannot be found")]
    NoFolder(String),
    /// A file of it.
    #[error("release {name}: {}: {problem}", path.display())]
    File {
        /// Which release.
        name: String,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It does not say what it is.
    #[error("{name} does not say what it is: {problem}")]
    Describe {
        /// Which release.
        name: String,
        /// What happened.
        problem: String,
    },
    /// It cannot take over from what runs.
    #[error(
        "{name} cannot take over from what runs: it has {theirs}, we have {ours}; park the node, \
         swap, and start it"
    )]
    Contract {
        /// Which release.
        name: String,
        /// Its contract.
        theirs: String,
        /// What runs.
        ours: String,
    },
}

/// What a name asks for: a release, or the programs that the node was started with.
pub fn known_name(name: &str) -> Result<Option<&str>, ReleaseError> {
    if name == HOST_RELEASE {
        return Ok(None);
    }
    let inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && first(name.as_bytes()[0])
        && name.as_bytes().iter().all(inner);
    match is_name {
        true => Ok(Some(name)),
        false => Err(ReleaseError::Name(name.chars().take(80).collect())),
    }
}

/// The supervisor of a release, after a look at all of its files.
pub fn find(releases: Option<&Path>, name: &str) -> Result<PathBuf, ReleaseError> {
    let Some(folder) = releases else { return Err(ReleaseError::NoFolder(name.into())) };
    let release = folder.join(name);
    let look = |path: &Path, is_folder: bool| {
        let wrong = |problem: String| ReleaseError::File {
            name: name.into(),
            path: path.to_owned(),
            problem,
        };
        let found = path.symlink_metadata().map_err(|error| wrong(error.to_string()))?;
        is_ours(&found, is_folder).map_err(wrong)
    };
    look(folder, true)?;
    look(&release, true)?;
    for program in PROGRAMS {
        look(&release.join(program), false)?;
    }
    Ok(release.join(SUPERVISOR))
}

/// Whether nobody but root and us can have put it there.
fn is_ours(found: &Metadata, is_folder: bool) -> Result<(), String> {
    let own = nix::unistd::geteuid().as_raw();
    if is_folder != found.is_dir() || is_folder == found.is_file() {
        return Err(format!("is no {}", if is_folder { "folder" } else { "ordinary file" }));
    }
    if ![0, own].contains(&found.uid()) {
        return Err(format!("belongs to uid {}, neither to root nor to us", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("can be written by others (mode {:o})", found.mode() & 0o7777));
    }
    if !is_folder && found.mode() & 0o111 == 0 {
        return Err("cannot be executed".into());
    }
    Ok(())
}

/// What two releases must have in common for one to take a node over from the other: messages, layouts of all
/// memory they share, and the steering program's maps.
pub fn contract() -> String {
    let maps = layout_hash_bytes(0, include_bytes!("../../../ebpf/src/intf.h"));
    let regions = [control_spec().layout_hash, front_spec().layout_hash, table_layout_hash()];
    let [control, front, table] = regions;
    format!(
        "messages {VERSION}, control {control:016x}, front {front:016x}, table {table:016x}, \
         frames {LEDGER_LAYOUT_VERSION}, maps {maps:016x}"
    )
}

/// Has the supervisor of a release say its contract, and whether it takes the node file. Blocks.
pub fn described_contract(
    name: &str,
    program: &Path,
    node_file: &Path,
) -> Result<String, ReleaseError> {
    let failed = |problem: String| ReleaseError::Describe { name: name.into(), problem };
    let child = Command::new(program)
        .arg("--describe")
        .arg("--config")
        .arg(node_file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| failed(format!("{}: {error}", program.display())))?;
    let deadline = Instant::now() + DESCRIBE_MAX;
    let status = loop {
        match child.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("nothing was said within {DESCRIBE_MAX:?}")));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let said = read_some(child.stdout.take());
    if !status.success() {
        let problem = read_some(child.stderr.take());
        return Err(failed(format!("{status}: {}", problem.trim())));
    }
    let line = said.lines().find_map(|line| line.strip_prefix("contract: "));
    line.map(str::to_owned).ok_or_else(|| failed(format!("it said {:?}", said.trim())))
}

fn read_some(stream: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = std::io::Read::read_to_end(
            &mut std::io::Read::take(stream, DESCRIPTION_BYTES_MAX),
            &mut bytes,
        );
    }
    String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for name in ["r1", "2026.11-b_3", &"a".repeat(63)] {
            assert_eq!(known_name(name).unwrap(), Some(name));
        }
        assert_eq!(known_name(HOST_RELEASE).unwrap(), None);
        for name in ["", "..", ".hidden", "a/b", "/etc", "R1", "a b", "ü", &"a".repeat(64)] {
            assert!(known_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_others_can_write_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path, bits| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
        };
        mode(root.path(), 0o755);
        let release = root.path().join("r1");
        std::fs::create_dir(&release).unwrap();
        mode(&release, 0o755);
        for program in PROGRAMS {
            assert!(find(Some(root.path()), "r1").is_err(), "{program} is missing");
            std::fs::write(release.join(program), "#!/bin/sh\n").unwrap();
            assert!(find(Some(root.path()), "r1").is_err(), "{program} cannot be executed");
            mode(&release.join(program), 0o755);
        }
        assert_eq!(find(Some(root.path()), "r1").unwrap(), release.join(SUPERVISOR));
        for path in [root.path(), &release, &release.join(SUPERVISOR)] {
            mode(path, 0o775);
            let error = find(Some(root.path()), "r1").unwrap_err().to_string();
            assert!(error.contains("written by others"), "{error}");
            mode(path, 0o755);
        }
        if nix::unistd::geteuid().is_root() {
            for path in [root.path(), &release, &release.join("nautilus-worker")] {
                std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
                let error = find(Some(root.path()), "r1").unwrap_err().to_string();
                assert!(error.contains("belongs to uid 65534"), "{error}");
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
        std::os::unix::fs::symlink(&release, root.path().join("r2")).unwrap();
        assert!(find(Some(root.path()), "r2").is_err());
        assert!(find(None, "r1").is_err());
    }

    #[test]
    fn a_program_that_says_nothing_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("p");
        let says = |script: &str| {
            let _ = std::fs::remove_file(&program);
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            described_contract("r", &program, Path::new("/n.toml"))
        };
        assert_eq!(says("echo contract: x; echo more").unwrap(), "x");
        assert!(says("echo hello").is_err());
        let error = says("echo no >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("exit status: 3: no"), "{error}");
        assert!(described_contract("r", Path::new("/absent"), Path::new("/n.toml")).is_err());
    }
}
