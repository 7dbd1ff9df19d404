//! A folder that something is installed below, programs to install, and an installer that dies where it is
//! told to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nautilus_tests::repository;

/// What the installer copies, as short scripts: the programs themselves are some hundred megabytes.
const PROGRAMS: [&str; 9] = [
    "nautilus",
    "nautilus-audit",
    "nautilus-ca",
    "nautilus-capture",
    "nautilus-control",
    "nautilus-front",
    "nautilus-replay",
    "nautilus-supervisor",
    "nautilus-worker",
];

const UNITS: [&str; 2] = ["nautilus-control.service", "nautilus-supervisor@.service"];

/// Sourced by bash before the script: counts commands that change files, and kills the script and what it
/// started before number `$DIE_AT`. The count is written down when the script ends.
const DYING: &str = r#"
set -T
reached=0
die_here() {
  case "$BASH_COMMAND" in
    mv\ * | ln\ * | rm\ * | rmdir\ * | mkdir\ * | install\ * | cp\ * | chmod\ * | chown\ * | sync\ * | find\ *-delete*)
      reached=$((reached + 1))
      if [ "$reached" -eq "$DIE_AT" ]; then kill -9 -- -$$; fi
      ;;
  esac
}
trap die_here DEBUG
trap 'echo "$reached" >"$COUNT_FILE"' EXIT
"#;

pub struct Stage {
    folder: tempfile::TempDir,
    /// A copy of the scripts, whose units change with the release.
    scripts: PathBuf,
    /// Where the programs lie that are installed.
    pub programs: PathBuf,
}

/// The installer with these arguments.
pub fn installer(arguments: &[&str]) -> Command {
    of_scripts(&repository::root().join("scripts"), arguments)
}

fn of_scripts(scripts: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(scripts.join("install.sh"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What it printed, when it succeeds; else that and why not.
pub fn outcome(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(said + &String::from_utf8_lossy(&output.stderr))
}

/// Which places of `count` are tried: all in the long form, else every eighth.
pub fn places(count: u32) -> impl Iterator<Item = u32> {
    let step = if repository::long_shows() { 1 } else { 8 };
    (1..=count).step_by(step)
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let scripts = folder.path().join("scripts");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(repository::root().join("scripts")).arg(&scripts);
        outcome(&mut copy).unwrap();
        let stage = Self { folder, scripts, programs };
        stage.release("1.0.0");
        stage
    }

    /// Makes programs and units those of another release.
    pub fn release(&self, version: &str) {
        for name in PROGRAMS {
            let program = self.programs.join(name);
            std::fs::write(&program, format!("#!/bin/sh\necho {name} {version}\n")).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
        for unit in UNITS {
            let text =
                std::fs::read_to_string(repository::root().join("scripts/systemd").join(unit));
            let text = format!("# {version}\n{}", text.unwrap());
            std::fs::write(self.scripts.join("systemd").join(unit), text).unwrap();
        }
    }

    /// A path below the root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    pub fn append(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), self.read(path) + text).unwrap();
    }

    pub fn set_mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (verb, rest) = match arguments {
            [verb @ ("install" | "verify" | "uninstall"), rest @ ..] => (*verb, rest),
            rest => ("install", rest),
        };
        let mut command = of_scripts(&self.scripts, &[verb, "--root"]);
        command.arg(self.path("")).arg("--from").arg(&self.programs).args(rest);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        outcome(&mut self.command(arguments))
    }

    /// Runs it and has it killed before its change number `place`; never for 0. How many there were.
    pub fn killed_at(&self, place: u32, arguments: &[&str]) -> u32 {
        let (dying, count) = (self.folder.path().join("dying"), self.folder.path().join("count"));
        std::fs::write(&dying, DYING).unwrap();
        let mut command = self.command(arguments);
        command.env("BASH_ENV", &dying).env("DIE_AT", place.to_string()).env("COUNT_FILE", &count);
        let ended = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert_eq!(ended.unwrap().success(), place == 0, "it died at place {place}");
        std::fs::read_to_string(&count).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Puts the units of systemd itself beside those that were installed.
    pub fn copy_units(&self, units: &Path) {
        let mut copy = Command::new("cp");
        copy.args(["-r", "--no-clobber"]).arg(units).arg(self.path("/usr/lib/systemd"));
        outcome(&mut copy).unwrap();
    }

    /// Where `current` leads.
    pub fn current(&self) -> String {
        let link = std::fs::read_link(self.path("/usr/lib/nautilus/current")).unwrap();
        link.to_str().unwrap().to_owned()
    }

    /// Asserts that what the units run is whole: every file of the release, and the units themselves.
    pub fn assert_whole(&self, place: u32) {
        let release = self.path("/usr/lib/nautilus/current");
        let mut check = Command::new("sha256sum");
        check.current_dir(&release).args(["--quiet", "-c", "manifest"]);
        outcome(&mut check).unwrap_or_else(|why| panic!("place {place}: {why}"));
        for unit in UNITS {
            let text = self.read(&format!("/usr/lib/systemd/system/{unit}"));
            assert!(text.ends_with("WantedBy=multi-user.target\n"), "place {place}: {unit}");
            let program = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
            let program = program.split(' ').next().unwrap();
            let run = self
                .path("/usr/lib/nautilus/current")
                .join(Path::new(program).file_name().unwrap());
            assert!(outcome(&mut Command::new(run)).is_ok(), "place {place}: {program}");
        }
    }

    /// Every file, folder and link below the root: kind, mode, path, hash of the content.
    pub fn tree(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let root = self.path("");
        let mut waiting = vec![root.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                lines.push(if kind.is_symlink() {
                    format!("link {name} -> {}", std::fs::read_link(&path).unwrap().display())
                } else if kind.is_dir() {
                    waiting.push(path);
                    format!("dir {mode:o} {name}")
                } else {
                    let mut hash = DefaultHasher::new();
                    std::fs::read(&path).unwrap().hash(&mut hash);
                    format!("file {mode:o} {name} {:016x}", hash.finish())
                });
            }
        }
        lines.sort();
        lines
    }

    /// A search path with a `uname` of another machine and kernel.
    pub fn host(&self, machine: &str, kernel: &str) -> String {
        let folder = self.folder.path().join(format!("bin-{machine}-{kernel}"));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("uname");
        let text =
            format!("#!/bin/sh\nif [ \"$1\" = -m ]; then echo {machine}; else echo {kernel}; fi\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
    }
}
