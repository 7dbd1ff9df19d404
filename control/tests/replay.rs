//! `nautilus replay` becomes the program that stands beside it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn the_program_beside_it_gets_the_arguments_and_gives_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let command = folder.path().join("nautilus");
    std::fs::copy(env!("CARGO_BIN_EXE_nautilus"), &command).unwrap();
    let run = || {
        let arguments = ["replay", "day.pcapng", "--offline", "node.toml", "--help"];
        Command::new(&command).args(arguments).output().unwrap()
    };
    let alone = run();
    assert_eq!(alone.status.code(), Some(3));
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(said.contains("nautilus-replay: No such file"), "{said}");

    let beside = folder.path().join("nautilus-replay");
    std::fs::write(&beside, "#!/bin/sh\necho \"$@\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"day.pcapng --offline node.toml --help\n");
}
