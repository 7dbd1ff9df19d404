//! The house rules, checked over the source tree: each test is one rule, and a failure lists every
//! place that breaks it.

use std::path::{Path, PathBuf};

use nautilus_tests::repository;

/// Lines of one source file. Above it the file holds more than one noun.
const LINES_MAX: usize = 500;

/// What may lie in the top level.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "Vagrantfile",
    "bench",
    "clippy.toml",
    "control",
    "dataplane",
    "ebpf",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "scripts",
    "tests",
];

/// Where `unsafe` may stand, and why. Everywhere else a crate root forbids or denies it.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("dataplane/shm/", "shared memory: mappings and structs of atomics"),
    ("dataplane/src/xsk/", "AF_XDP rings and UMEM mapped from received descriptors"),
    (
        "dataplane/src/supervisor/sys.rs",
        "system calls without a safe wrapper, received descriptors",
    ),
    (
        "dataplane/src/front/ring.rs",
        "io_uring: the kernel reads and writes memory that is named to it",
    ),
    ("dataplane/src/port/mmsg.rs", "recvmmsg and sendmmsg have no safe wrapper"),
    ("ebpf/", "mirrors of the C layouts, casts of map values"),
    ("dataplane/tests/support/counting.rs", "an allocator that counts"),
    ("dataplane/sandbox/src/privileges.rs", "capset and prctl have no safe wrapper"),
    ("dataplane/sandbox/tests/confined.rs", "calls that are on no list have no safe wrapper"),
    ("dataplane/src/front/unsent.rs", "SIOCOUTQ has no safe wrapper"),
    ("tests/tests/reach/stranger.rs", "bpf has no safe wrapper"),
    ("control/src/attach.rs", "descriptors received from a supervisor"),
    ("dataplane/client/src/attach.rs", "descriptors received from a supervisor"),
    ("dataplane/client/src/ffi.rs", "the C ABI: pointers of its caller"),
    ("dataplane/client/src/ffi/", "the C ABI: pointers of its caller"),
    ("bench/src/syscalls.rs", "perf_event_open has no safe wrapper"),
    ("bench/src/allocations.rs", "an allocator that counts"),
    ("dataplane/tests/loop_allocations.rs", "an allocator that counts"),
    ("dataplane/tests/supervisor.rs", "a child that gives its privileges up"),
    ("control/tests/support/mod.rs", "received descriptors"),
    ("tests/src/wire.rs", "xsk-rs leaves ring and frame access to its caller"),
    ("tests/src/wire/", "bpf_prog_load has no safe wrapper for a program without an object file"),
];

fn text(file: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(repository::root().join(file)).expect("a listed file")).ok()
}

/// Every text file with one of these extensions; all text files for none.
fn sources(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    repository::files()
        .into_iter()
        .filter(|file| {
            extensions.is_empty()
                || file
                    .extension()
                    .is_some_and(|extension| extensions.iter().any(|&wanted| extension == wanted))
        })
        .filter_map(|file| text(&file).map(|text| (file, text)))
        .collect()
}

/// The places (file:line) whose line satisfies `broken`.
fn places(sources: &[(PathBuf, String)], broken: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut places = Vec::new();
    for (file, text) in sources {
        for (index, line) in text.lines().enumerate() {
            if broken(file, line) {
                places.push(format!("{}:{}: {}", file.display(), index + 1, line.trim()));
            }
        }
    }
    places
}

fn assert_none(rule: &str, places: &[String]) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

/// The line without a trailing `//` comment, so that prose may name what code may not use.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn is_this_file(file: &Path) -> bool {
    file == Path::new("tests/tests/tidy.rs")
}

#[test]
fn files_hold_one_noun() {
    let long: Vec<String> = sources(&["rs", "c", "h", "sh", "py"])
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert_none("files longer than 500 lines", &long);
}

#[test]
fn nothing_is_left_to_do() {
    let words =
        ["todo!", "unimplemented!", "dbg!(", "FIXME", "XXX", "HACK", "placeholder", "for now"];
    let sources = sources(&["rs", "c", "h", "sh", "py", "md", "toml"]);
    let found = places(&sources, |file, line| {
        !is_this_file(file) && words.iter().any(|word| line.contains(word))
    });
    assert_none("markers of unfinished work", &found);
}

#[test]
fn a_test_switched_off_says_why() {
    let bare = "#[ignore]";
    let found = places(&sources(&["rs"]), |file, line| !is_this_file(file) && line.contains(bare));
    assert_none("ignored tests without a reason", &found);
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let found = places(&sources(&["rs"]), |file, line| {
        let allowed = UNSAFE_ALLOWED.iter().any(|(front, _)| file.starts_with(front));
        !allowed
            && !is_this_file(file)
            && code(line)
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
    });
    assert_none("unsafe outside the listed places (tests/tests/tidy.rs)", &found);
}

#[test]
fn what_makes_programs_die_or_err_is_for_tests_alone() {
    let feature = "kill-points";
    let declares = |line: &str| {
        ["kill-points = [", "required-features = ["].iter().any(|front| line.starts_with(front))
    };
    let manifests = places(&sources(&["toml"]), |_, line| {
        line.contains(feature) && !declares(line) && !line.trim_start().starts_with('#')
    });
    let commands = places(&sources(&["sh"]), |_, line| {
        // A lint builds no program.
        let is_allowed = line.contains("cargo test") || line.contains("cargo clippy");
        line.contains(feature) && (!is_allowed || line.contains("--release"))
    });
    assert_none(
        "kill-points in a default, a dependency or a build",
        &[manifests, commands].concat(),
    );
}

#[test]
fn the_top_level_holds_only_what_is_listed() {
    let mut strangers: Vec<String> = repository::files()
        .iter()
        .filter_map(|file| file.components().next())
        .map(|entry| entry.as_os_str().to_string_lossy().into_owned())
        .filter(|entry| !TOP_LEVEL.contains(&entry.as_str()))
        .collect();
    strangers.dedup();
    assert_none("top-level entries that are not listed", &strangers);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let fronts = ["/work/", "/root/", "/home/", "/farm/", "/Users/"];
    let found = places(&sources(&[]), |file, line| {
        !is_this_file(file) && fronts.iter().any(|front| line.contains(front))
    });
    assert_none("paths that exist on one machine only", &found);
}

#[test]
fn the_licence_stands_in_one_file() {
    let marks = ["SPDX-", "Copyright", "All rights reserved"];
    let found = places(&sources(&["rs", "c", "h", "sh", "py"]), |file, line| {
        !is_this_file(file) && marks.iter().any(|mark| line.contains(mark))
    });
    assert_none("licence headers (LICENSE says it for all)", &found);
}

#[test]
fn scripts_stop_at_the_first_error() {
    let mut broken = Vec::new();
    for (file, text) in sources(&["sh"]) {
        // A file of functions is sourced by a script that has set this.
        let sourced = ["lib.sh", "vm-lib.sh", "install-plan.sh", "install-undo.sh"]
            .iter()
            .any(|known| file == Path::new("scripts").join(known));
        let strict =
            text.starts_with("#!/usr/bin/env bash\n") && text.contains("\nset -euo pipefail\n");
        if !strict && !sourced {
            broken.push(file.display().to_string());
        }
    }
    assert_none("scripts without `#!/usr/bin/env bash` and `set -euo pipefail`", &broken);
}

#[test]
fn every_link_in_a_readme_leads_somewhere() {
    let root = repository::root();
    let mut dead = Vec::new();
    for (file, text) in sources(&["md"]) {
        let folder = root.join(file.parent().expect("a file has a folder"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or(link);
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !folder.join(target).exists() {
                dead.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert_none("README links that lead nowhere", &dead);
}

#[test]
fn every_command_left_untested_says_why() {
    let allowed = ["scripts/test.sh", "scripts/bench.sh all", "vagrant", "scripts/vm.sh"];
    for (command, reason) in repository::COMMANDS_NOT_RUN {
        assert!(allowed.contains(command), "{command} must be run by readme_commands.rs");
        assert!(!reason.is_empty());
    }
}

#[test]
fn shell_fences_are_marked_sh() {
    // A block marked otherwise would escape readme_commands.rs.
    let found = places(&sources(&["md"]), |_, line| {
        let line = line.trim();
        ["```bash", "```shell", "```console", "```zsh"].contains(&line)
    });
    assert_none("shell blocks must be fenced as sh", &found);
}
