//! Roles, this host's users, and records before answers: against the real daemon.

#[path = "support/site.rs"]
mod site;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nautilus_control::roles::{Needs, Role, TABLE, needs};
use site::{DAY, Site, until};

/// A path that the route answers.
fn example(route: &str) -> String {
    let parts = route.split('/').map(|part| if part.starts_with('{') { "some-1" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_role_boundary_is_refused_and_recorded() {
    let site = Site::start("");
    let mut refusals = 0;
    for role in Role::ALL {
        let certificate = site.certificate(role, "somebody", DAY);
        let mut connection = site.connect(Some(&certificate)).unwrap();
        for (method, route, needed) in TABLE {
            let allowed = match needed {
                Needs::Nothing => true,
                Needs::Role(needed) => role >= *needed,
            };
            let (status, body) = connection.ask(method, &example(route), b"").unwrap();
            let refused =
                status == 403 && String::from_utf8_lossy(&body).contains("needs the role");
            assert_eq!(refused, !allowed, "{} {method} {route}: {status}", role.name());
            refusals += usize::from(refused);
        }
        // What stands in no row.
        let (status, _) = connection.ask("PATCH", "/api/v1/edge/cache/a", b"").unwrap();
        assert_eq!(status == 403, role < Role::Admin, "{status}");
        refusals += usize::from(status == 403);
    }
    assert!(refusals >= 15, "{refusals}");
    assert_eq!(needs("PATCH", Some("/metrics")), Needs::Role(Role::Admin));
    assert_eq!(site.count("denied", "this needs the role"), refusals);
    let records = site.records();
    let viewer = |record: &&serde_json::Value| record["actor"]["role"] == "viewer";
    let denied =
        records.iter().filter(viewer).find(|record| record["outcome"] == "denied").unwrap();
    assert!(denied["actor"]["name"].as_str().unwrap().starts_with("spiffe://test/viewer/person/"));
    // Every change that was begun ended.
    let ids = |outcomes: &[&str]| -> BTreeSet<String> {
        let of = |record: &&serde_json::Value| outcomes.iter().any(|o| record["outcome"] == **o);
        records.iter().filter(of).map(|record| record["request_id"].to_string()).collect()
    };
    let begun = ids(&["begun"]);
    assert!(begun.len() > 10 && begun.is_subset(&ids(&["done", "failed", "denied"])));
}

/// Status and body of a request through the socket in the file system, as this user.
fn ask_locally(site: &Site, uid: u32, method: &str, path: &str) -> (u16, String) {
    let socket = site.folder.path().join("control.sock");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = if uid == nix::unistd::geteuid().as_raw() {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    } else {
        let output = Command::new("setpriv")
            .args(["--clear-groups", &format!("--reuid={uid}"), "curl", "-si", "-X", method])
            .arg("--unix-socket")
            .arg(socket)
            .arg(format!("http://x{path}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn the_daemons_own_user_is_an_admin_by_the_kernels_word() {
    let site = Site::start("");
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(ask_locally(&site, uid, "POST", "/api/v1/edge/nodes/deploy").0, 501);
    let records = site.records();
    let deploy: Vec<_> =
        records.iter().filter(|record| record["object"] == "/api/v1/edge/nodes/deploy").collect();
    assert_eq!(deploy.len(), 2, "begun and failed");
    assert_eq!(deploy[0]["actor"]["name"], format!("uid {uid}"));
    assert_eq!(deploy[0]["actor"]["role"], "admin");
    assert_eq!(deploy[1]["reason"], "status 501");
}

#[test]
#[ignore = "privileged: becomes another user"]
fn another_user_of_this_host_only_looks() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED another user's requests: curl is not installed");
        return;
    }
    let site = Site::start("");
    std::fs::set_permissions(
        site.folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(ask_locally(&site, 65_534, "GET", "/api/v1/edge/nodes/status").0, 200);
    for (method, route, needed) in TABLE {
        if matches!(needed, Needs::Role(needed) if *needed > Role::Viewer) {
            let (status, answer) = ask_locally(&site, 65_534, method, &example(route));
            assert_eq!(status, 403, "{method} {route}: {answer}");
        }
    }
    assert!(site.count("denied", "this needs the role") > 5);
}

#[test]
fn with_a_full_disk_nothing_is_done_and_nothing_claimed() {
    let mut site = Site::start("enrolment = true");
    let admin = site.certificate(Role::Admin, "root", DAY);
    // Files of this process end at 8 KiB.
    let limit = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    site.start_again(&["sh", "-c", limit]);
    let deploy = || site.ask(Some(&admin), "POST", "/api/v1/edge/nodes/deploy").unwrap();
    let refusal = until("a full disk", || {
        let (status, body) = deploy();
        assert!(matches!(status, 501 | 503 | 500), "{status} {body}");
        (status == 503).then_some(body)
    });
    assert!(refusal.contains("nothing was done, since it could not be recorded"), "{refusal}");
    assert!(refusal.contains("File too large"), "{refusal}");
    // A token is not used up, nor anything issued, by what could not be recorded.
    let identity = site.identity(Role::Viewer, nautilus_control::tls::identity::Kind::Node, "n");
    let token =
        site.authority.token(&identity, nautilus_control::tls::token::TOKEN_LIFETIME).unwrap();
    let out = site.folder.path().join("n");
    let enrol = |site: &Site| {
        let kind = nautilus_control::tls::identity::Kind::Node;
        nautilus_control::tls::enrolment::enrol_at(&site.address, &token, kind, "n", &out)
    };
    let issued = site.authority.issued().unwrap().len();
    assert!(enrol(&site).unwrap_err().to_string().contains("nothing was done"));
    assert_eq!(site.authority.issued().unwrap().len(), issued);
    // Looking goes on, and so does all once there is room again.
    assert_eq!(site.ask(Some(&admin), "GET", "/api/v1/edge/nodes/status").unwrap().0, 200);
    let answered = site.records().len();
    site.start_again(&[]);
    enrol(&site).unwrap();
    assert!(site.records().len() > answered);
}

#[test]
fn what_was_answered_before_a_kill_is_in_the_trail() {
    let mut site = Site::start("");
    let admin = site.certificate(Role::Admin, "root", DAY);
    let mut answered = 0;
    for round in 0..5 {
        let done = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    let mut connection = site.connect(Some(&admin)).unwrap();
                    let done = &done;
                    scope.spawn(move || {
                        let mut paths = Vec::new();
                        for number in 0.. {
                            let path = format!("/api/v1/edge/cache/a-{round}-{worker}-{number}");
                            match connection.ask("PUT", &path, b"") {
                                Ok((428, _)) => {
                                    paths.push(path);
                                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                }
                                Ok(other) => panic!("{other:?}"),
                                Err(_) => break,
                            }
                        }
                        paths
                    })
                })
                .collect();
            let pid = nix::unistd::Pid::from_raw(site.pid() as i32);
            until("answers", || {
                let done = done.load(std::sync::atomic::Ordering::Relaxed);
                (done > 3 + round).then_some(())
            });
            std::thread::sleep(std::time::Duration::from_millis(17 * round as u64));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            let paths: Vec<_> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
            answered += paths.len();
            assert!(!paths.is_empty());
            let bytes =
                nautilus_control::verifier::load(&site.folder.path().join("audit")).unwrap();
            let text: String =
                bytes.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect();
            for path in paths {
                assert_eq!(text.matches(&format!("\"{path}\"")).count(), 2, "{path}");
            }
        });
        site.start_again(&[]);
    }
    site.stop();
    assert!(site.records().iter().filter(|record| record["kind"] == "start").count() >= 6);
    assert!(answered > 20, "{answered}");
}

#[test]
#[ignore = "privileged: mounts a small tmpfs in a namespace of its own"]
fn a_full_file_system_refuses_until_there_is_room_again() {
    let mut site = Site::start("");
    let admin = site.certificate(Role::Admin, "root", DAY);
    site.stop();
    let audit = site.folder.path().join("audit").display().to_string();
    let mount = format!(
        "mount -t tmpfs -o size=96k none {audit} && head -c 65536 /dev/zero > {audit}/ballast && \
         exec \"$0\" \"$@\""
    );
    site.start_again(&["unshare", "--mount", "sh", "-c", &mount]);
    let deploy = || site.ask(Some(&admin), "POST", "/api/v1/edge/nodes/deploy").unwrap();
    let refusal = until("a full disk", || {
        let (status, body) = deploy();
        (status == 503).then_some(body)
    });
    assert!(refusal.contains("No space left on device"), "{refusal}");
    assert_eq!(deploy().0, 503);
    let inside = format!("/proc/{}/root{audit}", site.pid());
    std::fs::remove_file(format!("{inside}/ballast")).unwrap();
    assert_eq!(deploy().0, 501, "there is room again");
    let files = nautilus_control::verifier::load(Path::new(&inside)).unwrap();
    let keys = nautilus_control::verifier::keys_in(&site.folder.path().join("audit.key.pub"));
    let expected = nautilus_control::verifier::Expected { keys: keys.unwrap(), head: None };
    let report = nautilus_control::verifier::verify(&files, &expected).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("work was refused")), "{report:?}");
}

#[test]
fn a_record_is_flushed_before_the_answer_goes_out() {
    let mut site = Site::start("");
    let trace = site.folder.path().join("trace").display().to_string();
    let calls = "trace=write,writev,sendto,sendmsg,fdatasync";
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED the order of flush and answer: strace cannot be used here");
        return;
    }
    site.start_again(&["strace", "-D", "-f", "-s", "4096", "-e", calls, "-o", &trace]);
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(ask_locally(&site, uid, "POST", "/api/v1/edge/nodes/deploy").0, 501);
    let trace = until("the answer in the trace", || {
        let text = std::fs::read_to_string(&trace).unwrap();
        text.contains("HTTP/1.1 501").then_some(text)
    });
    let lines: Vec<&str> = trace.lines().collect();
    let at = |what: &str, from: usize| {
        let found = lines[from..].iter().position(|line| line.contains(what));
        from + found.unwrap_or_else(|| panic!("{what} is not in the trace"))
    };
    // A call that another thread's interrupts in the trace ends in a line of its own.
    let begun = at("outcome\\\":\\\"begun", 0);
    let first_flush = at("fdatasync", begun);
    let ended = at("outcome\\\":\\\"failed", first_flush);
    let second_flush = at("fdatasync", ended);
    assert!(at("HTTP/1.1 501", 0) > second_flush);
}

#[test]
fn what_was_done_and_could_not_be_recorded_is_not_claimed() {
    let mut site = Site::start("");
    site.start_again(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    let uid = nix::unistd::geteuid().as_raw();
    let audit = site.folder.path().join("audit");
    let limit = |bytes: &str| {
        let (pid, limit) = (site.pid().to_string(), format!("--fsize={bytes}"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    let answer = until("room for the first record of a request and none for its second", || {
        limit("unlimited:");
        assert_eq!(ask_locally(&site, uid, "POST", "/api/v1/edge/nodes/deploy").0, 501);
        let files = nautilus_control::verifier::load(&audit).unwrap();
        let bytes = &files.last().unwrap().1;
        // As long as those of the request before, and half as much again; a signature may come in between.
        let last = bytes.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().len();
        limit(&format!("{}:", bytes.len() + last + last / 2));
        let (status, answer) = ask_locally(&site, uid, "POST", "/api/v1/edge/nodes/deploy");
        assert!([500, 503].contains(&status), "{answer}");
        (status == 500).then_some(answer)
    });
    assert!(answer.contains("urn:nautilus:problem:outcome-unknown"), "{answer}");
    assert!(answer.contains("it ended with status 501"), "{answer}");
    limit("unlimited:");
    assert_eq!(ask_locally(&site, uid, "POST", "/api/v1/edge/nodes/deploy").0, 501);
    site.stop();
    assert!(site.records().iter().any(|record| record["kind"] == "unrecorded"));
}

#[test]
#[ignore = "privileged: becomes another user"]
fn another_user_only_looks_over_loopback_too() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED another user's requests: curl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nautilus-control"))
        .args(["--listen", "127.0.0.1:0", "--node"])
        .arg(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let line =
        lines.find_map(|line| line.unwrap().split_once("http://").map(|(_, at)| at.to_owned()));
    let line = line.unwrap();
    let address = line.split(',').next().unwrap();
    let ask = |uid: u32, method: &str, path: &str| {
        let output = Command::new("setpriv")
            .args(["--clear-groups", &format!("--reuid={uid}"), "curl", "-si", "-X", method])
            .arg(format!("http://{address}{path}"))
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        (answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()), answer)
    };
    let deploy = "/api/v1/edge/nodes/deploy";
    let seen = [(0, "POST", deploy), (65_534, "POST", deploy), (65_534, "GET", "/metrics")];
    let seen = seen.map(|(uid, method, path)| ask(uid, method, path));
    child.kill().unwrap();
    child.wait().unwrap();
    let statuses = seen.each_ref().map(|(status, _)| *status);
    assert_eq!(statuses, [Some(501), Some(403), Some(200)], "{seen:?}");
    assert!(seen[1].1.contains("needs the role admin, not viewer"), "{seen:?}");
}
