//! `scripts/install.sh` below folders of their own: what it puts there, what it leaves alone, what an upgrade
//! is that dies half way, and that nothing is left of it. On a whole system: `scripts/vm.sh metal`.

use std::path::Path;

mod stage;
use stage::{Stage, installer};

#[test]
fn a_second_run_changes_nothing_and_a_dry_one_never_does() {
    let stage = Stage::new();
    let before = stage.tree();
    let said = stage.run(&["install", "--dry-run"]).unwrap();
    assert!(said.contains("would folder /etc/nautilus/nodes (755, root)"), "{said}");
    assert_eq!(stage.tree(), before, "a dry run");

    stage.run(&[]).unwrap();
    let installed = stage.tree();
    for path in [
        "/usr/lib/nautilus/current/nautilus-supervisor",
        "/usr/lib/systemd/system/nautilus-supervisor@.service",
        "/etc/nautilus/control.toml",
        "/usr/bin/nautilus",
    ] {
        assert!(stage.path(path).exists(), "{path}");
    }
    assert!(stage.run(&[]).unwrap().ends_with("\n0 changes\n"));
    assert_eq!(stage.tree(), installed, "a second run");
    assert!(stage.run(&["verify"]).unwrap().contains("all as installed"));
}

#[test]
fn verify_names_whatever_is_not_as_it_was_installed() {
    let stage = Stage::new();
    assert!(stage.run(&["verify"]).unwrap_err().contains("nothing is installed"));
    stage.run(&[]).unwrap();
    let unit = "/usr/lib/systemd/system/nautilus-control.service";
    let program = "/usr/lib/nautilus/current/nautilus-front";
    stage.append(unit, "# mine\n");
    stage.append(program, "# mine\n");
    std::fs::remove_file(stage.path("/usr/bin/nautilus")).unwrap();
    stage.set_mode("/var/lib/nautilus/control", 0o755);
    let wrong = stage.run(&["verify"]).unwrap_err();
    for word in [
        format!("{unit}: was changed"),
        "nautilus-front: FAILED".into(),
        "/usr/bin/nautilus: does not lead".into(),
        "/var/lib/nautilus/control: mode 755".into(),
        "4 wrong".into(),
    ] {
        assert!(wrong.contains(&word), "{word} in {wrong}");
    }
    // A release is never mended in place: it may be running.
    assert!(stage.run(&[]).unwrap_err().contains("is not what its manifest says"));
}

#[test]
fn what_somebody_wrote_is_kept_over_an_upgrade_and_an_uninstall() {
    let stage = Stage::new();
    stage.run(&[]).unwrap();
    let (config, example) = ("/etc/nautilus/control.toml", "/etc/nautilus/examples/control.toml");
    stage.append(config, "# mine\n");
    stage.append(example, "# mine\n");
    let node = stage.path("/etc/nautilus/nodes/ny4-1.toml");
    std::fs::write(&node, "[node]\n").unwrap();
    let (mine, my_example) = (stage.read(config), stage.read(example));
    stage.release("9.9.9");
    let said = stage.run(&["--version", "9.9.9"]).unwrap();
    assert!(said.contains("9.9.9 (yours is kept)"), "{said}");
    assert_eq!((stage.read(config), stage.read(example)), (mine.clone(), my_example));
    assert!(stage.path(&format!("{example}.9.9.9")).is_file());

    stage.run(&["uninstall"]).unwrap();
    assert_eq!(stage.read(config), mine);
    assert!(node.is_file() && !stage.path("/usr/lib/nautilus").exists());
    // What was kept is known to be ours, also to a later purge.
    stage.run(&["uninstall", "--purge"]).unwrap();
    assert_eq!(stage.tree(), Stage::new().tree());
}

#[test]
fn old_releases_are_kept_in_number_and_the_one_before_always() {
    let stage = Stage::new();
    for number in 1..=5 {
        stage.release(&format!("1.0.{number}"));
        let version = format!("1.0.{number}");
        stage.run(&["--version", &version, "--keep", "1"]).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(stage.path("/usr/lib/nautilus/releases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["1.0.3", "1.0.4", "1.0.5"]);
    // Back to one that is kept: the same script, and nothing is copied.
    stage.release("1.0.4");
    let said = stage.run(&["--version", "1.0.4"]).unwrap();
    assert!(said.contains("current -> releases/1.0.4") && !said.contains("release /usr"), "{said}");
    stage.release("1.0.4 of another build");
    let refused = stage.run(&["--version", "1.0.4"]).unwrap_err();
    assert!(refused.contains("with other programs"), "{refused}");
}

#[test]
fn what_cannot_be_installed_is_refused_with_the_reason() {
    let stage = Stage::new();
    for (arguments, reason) in [
        (&["--root", "/no/such/folder"][..], "no such folder"),
        (&["--version", "../x"][..], "[a-z0-9] first"),
        (&["--from", "/usr/lib"][..], "there is no such program"),
        (&["--keep", "many"][..], "usage:"),
        (&["--verbose"][..], "usage:"),
    ] {
        let before = stage.tree();
        let error = stage.run(arguments).unwrap_err();
        assert!(error.contains(reason), "{arguments:?}: {error}");
        assert_eq!(stage.tree(), before, "{arguments:?}");
    }
    // Two at once: the second one goes.
    stage.run(&[]).unwrap();
    let folder = std::fs::File::open(stage.path("/var/lib/nautilus")).unwrap();
    folder.lock().unwrap();
    assert!(stage.run(&[]).unwrap_err().contains("another install.sh"));
}

/// The host's own answers, given by programs that stand before the real ones on the path.
#[test]
fn a_host_that_cannot_run_a_node_is_refused_before_the_first_change() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED a host that cannot run a node: needs root to get so far");
        return;
    }
    let stage = Stage::new();
    for (machine, kernel, reason) in [
        ("aarch64", "6.6.1", "this is aarch64"),
        ("x86_64", "5.15.0-91", "below 6.1"),
        ("x86_64", "6.0.19", "below 6.1"),
    ] {
        let path = stage.host(machine, kernel);
        let mut command = installer(&["install", "--dry-run"]);
        command.env("PATH", path).args(["--from".as_ref(), stage.programs.as_os_str()]);
        let error = stage::outcome(&mut command).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    if Path::new("/run/systemd/system").exists() {
        println!("SKIPPED no systemd: there is one");
        return;
    }
    let mut command = installer(&["install", "--dry-run"]);
    command.args(["--from".as_ref(), stage.programs.as_os_str()]);
    assert!(stage::outcome(&mut command).unwrap_err().contains("systemd does not run here"));
}

/// Killed at each command that changes something: the release in use is whole, and a second run makes the
/// same of it as one that was left alone.
#[test]
fn an_upgrade_that_dies_anywhere_leaves_a_whole_release() {
    let whole = Stage::new();
    whole.run(&[]).unwrap();
    whole.release("2.0.0");
    whole.run(&["--version", "2.0.0"]).unwrap();
    let wanted = whole.tree();
    let count = {
        let stage = Stage::new();
        stage.run(&[]).unwrap();
        stage.release("2.0.0");
        stage.killed_at(0, &["--version", "2.0.0"])
    };
    assert!(count > 20, "{count} places to die at");
    let (mut old, mut new) = (0, 0);
    for place in stage::places(count) {
        let stage = Stage::new();
        stage.run(&[]).unwrap();
        let first = stage.current();
        stage.release("2.0.0");
        stage.killed_at(place, &["--version", "2.0.0"]);
        let current = stage.current();
        if current == first {
            old += 1;
        } else {
            assert_eq!(current, "releases/2.0.0", "place {place}");
            new += 1;
        }
        stage.assert_whole(place);
        stage.run(&["--version", "2.0.0"]).unwrap();
        assert_eq!(stage.tree(), wanted, "place {place}");
        assert!(stage.run(&["verify"]).is_ok(), "place {place}");
        stage.run(&["uninstall", "--purge"]).unwrap();
        assert_eq!(stage.tree(), Stage::new().tree(), "place {place}");
    }
    assert!(old >= 1 && new >= 1, "{old} deaths before the moment, {new} after it");
}

#[test]
fn a_first_installation_and_an_uninstall_that_die_are_finished_by_the_next() {
    let empty = Stage::new().tree();
    let count = Stage::new().killed_at(0, &[]);
    for place in stage::places(count) {
        let stage = Stage::new();
        stage.killed_at(place, &[]);
        stage.run(&[]).unwrap();
        stage.run(&["verify"]).unwrap();
        stage.run(&["uninstall", "--purge"]).unwrap();
        assert_eq!(stage.tree(), empty, "installation, place {place}");
    }
    let installed = || {
        let stage = Stage::new();
        stage.run(&[]).unwrap();
        stage
    };
    let count = installed().killed_at(0, &["uninstall", "--purge"]);
    for place in stage::places(count) {
        let stage = installed();
        stage.killed_at(place, &["uninstall", "--purge"]);
        stage.run(&["uninstall", "--purge"]).unwrap();
        // Without its manifest it cannot be told whose the last empty folders are.
        let left: Vec<_> =
            stage.tree().into_iter().filter(|line| !line.starts_with("dir")).collect();
        assert!(left.is_empty(), "uninstall, place {place}: {left:?}");
    }
}

/// Worst exposure by `systemd-analyze security`, of 10. Lower is better; more means that a line of the sandbox
/// went. A supervisor's 0.3 above its other needs is CAP_SYS_PTRACE, with which it reads where a worker's memory lies.
const EXPOSURE_MAX: [(&str, f64); 2] =
    [("nautilus-control.service", 1.5), ("nautilus-supervisor@ny4-1.service", 4.0)];

#[test]
fn the_units_are_clean_and_closed() {
    let units = Path::new("/usr/lib/systemd/system/sysinit.target");
    let has_analyze =
        std::process::Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !units.is_file() || !has_analyze {
        println!("SKIPPED units: systemd-analyze and systemd's own units are not installed");
        return;
    }
    let stage = Stage::new();
    stage.run(&[]).unwrap();
    stage.copy_units(units.parent().unwrap());
    let root = format!("--root={}", stage.path("").display());
    let analyze = |arguments: &[&str]| {
        let mut command = std::process::Command::new("systemd-analyze");
        let output = command.args(arguments).arg(&root).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (unit, most) in EXPOSURE_MAX {
        assert_eq!(analyze(&["verify", unit]), "", "{unit}");
        let table = analyze(&["security", "--offline=true", unit]);
        let level = table.lines().find_map(|line| line.split("exposure level for ").nth(1));
        let level =
            level.and_then(|rest| rest.split(": ").nth(1)).unwrap_or_else(|| panic!("{table}"));
        let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
        println!("{unit}: exposure {level} of 10");
        assert!(level <= most, "{unit}: {level} > {most}");
    }
    // A key that nobody reads is seen.
    stage.append("/usr/lib/systemd/system/nautilus-control.service", "[Service]\nPrivatTmp=yes\n");
    assert!(analyze(&["verify", "nautilus-control.service"]).contains("Unknown key"));
}

/// Every key of every example is read by the program it is for.
#[test]
fn every_key_of_the_examples_is_known() {
    let programs = std::env::current_exe().unwrap();
    let programs = programs.parent().and_then(Path::parent).unwrap();
    let supervisor = programs.join("nautilus-supervisor");
    if !supervisor.is_file() {
        println!("SKIPPED examples: {} is not built", supervisor.display());
        return;
    }
    let examples = nautilus_tests::repository::root().join("scripts/examples");
    let check = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut command = std::process::Command::new(&supervisor);
        command.args(["--check", "--elsewhere", "--config"]).arg(file.path());
        stage::outcome(&mut command)
    };
    for name in ["node-e810.toml", "node-connectx6.toml"] {
        let text = std::fs::read_to_string(examples.join(name)).unwrap();
        let said = check(&text).unwrap();
        for word in ["its host must have interface[0].name", "worker.user: a user nautilus", "fine"]
        {
            assert!(said.contains(word), "{name}: {said}");
        }
        // Each key, misspelt, is refused by name: none is there for nothing.
        let lines: Vec<&str> = text.lines().collect();
        let mut keys = 0;
        for (index, line) in lines.iter().enumerate() {
            let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) else {
                continue;
            };
            let mut wrong = lines.clone();
            let misspelt = line.replacen(key, &format!("{key}_"), 1);
            wrong[index] = &misspelt;
            let error = check(&wrong.join("\n")).unwrap_err();
            assert!(error.contains(&format!("{key}_")), "{name}:{}: {error}", index + 1);
            keys += 1;
        }
        assert!(keys > 30, "{name}: {keys} keys");
    }
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
}
