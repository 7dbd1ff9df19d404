//! The C ABI as a C program uses it: `c/check.c`, compiled by gcc against the header, linked both ways.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nautilus_shm::table::ChannelState;
use support::{CACHE, Host, library_folder, package};

/// What a static library of Rust leaves to its linker (`rustc --print native-static-libs`).
const NATIVE: [&str; 7] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

fn compile(program: &Path, link: &[&str]) {
    let folder = library_folder();
    let status = Command::new("gcc")
        .args(["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(package("include"))
        .arg(package("tests/c/check.c"))
        .arg("-o")
        .arg(program)
        .arg(format!("-L{}", folder.display()))
        .arg(format!("-Wl,-rpath,{}", folder.display()))
        .args(link)
        .arg("-lpthread")
        .status()
        .unwrap();
    assert!(status.success(), "gcc: {status}");
}

/// Runs the program on a node that does what it is told.
fn run(program: &Path) {
    let mut host = Host::start(8);
    let live = ChannelState::Live { valid_until_ns: u64::MAX };
    host.put(b"plain", b"plain value");
    host.put(b"empty", b"");
    host.put_as(b"suspect", b"of a feed", 3);
    host.put_as(b"live", b"of another", 4);
    host.table.set_channel(4, live);
    host.put(b"changing", b"before");
    for number in (0..50).step_by(2) {
        let key = format!("many{number}");
        host.put(key.as_bytes(), key.as_bytes());
    }
    assert_eq!(CACHE, "quotes", "the program's own");
    let mut child =
        Command::new(program).arg(host.run_dir()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.as_str() {
            "waiting" => {
                std::thread::sleep(std::time::Duration::from_millis(5));
                host.put(b"changing", b"changed");
            }
            "anew" => host.start_anew(),
            _ => {}
        }
        said.push(line);
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(said, ["waiting", "anew", "all as expected"]);
}

#[test]
fn a_c_program_reads_through_the_shared_library() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("check");
    compile(&program, &["-lnautilus_client"]);
    run(&program);
}

#[test]
fn a_c_program_reads_through_the_static_library() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("check");
    let link: Vec<&str> = ["-l:libnautilus_client.a"].into_iter().chain(NATIVE).collect();
    compile(&program, &link);
    run(&program);
}
