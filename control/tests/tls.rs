//! The control over TLS as strangers, the revoked and the enrolled meet it: real processes, real sockets.

#[path = "support/site.rs"]
mod site;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nautilus_control::roles::Role;
use nautilus_control::secret::Secret;
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::client::{ClientIdentity, Connection, Trust, config};
use nautilus_control::tls::enrolment::{enrol_at, renew_at};
use nautilus_control::tls::identity::{Identity, Kind, Subject};
use nautilus_control::tls::pem;
use nautilus_control::tls::token::TOKEN_LIFETIME;
use site::{DAY, Site, of, until};

const STATUS: &str = "/api/v1/edge/nodes/status";

#[test]
fn certificates_rotate_on_both_sides_under_open_connections() {
    let site = Site::start("");
    let path = site.certificate(Role::Viewer, "alice", DAY);
    let identity = Arc::new(ClientIdentity::open(&path).unwrap());
    let ca = site.ca();
    let setting = config(Trust::Authority(&ca), Some(Arc::clone(&identity))).unwrap();
    let connect = || Connection::open(&site.address, Arc::clone(&setting)).unwrap();

    let mut old = connect();
    assert_eq!(old.ask("GET", STATUS, b"").unwrap().0, 200);
    let first = old.server_certificate().unwrap().clone();
    let first_serial = Subject::of_file(&path).unwrap().serial;

    site.write_control(DAY);
    let mut new = until("the control's new certificate", || {
        let connection = connect();
        (connection.server_certificate().unwrap() != &first).then_some(connection)
    });
    assert_eq!(new.ask("GET", STATUS, b"").unwrap().0, 200);
    assert_eq!(old.ask("GET", STATUS, b"").unwrap().0, 200, "the old connection goes on");

    site.certificate(Role::Viewer, "alice", DAY);
    identity.reload().unwrap();
    let mut newest = connect();
    assert_eq!(newest.ask("GET", STATUS, b"").unwrap().0, 200);
    assert_eq!(old.ask("GET", STATUS, b"").unwrap().0, 200, "the old connection goes on");

    // The new connection does use the new certificate: revoking the first touches only the others.
    site.authority.revoke(&first_serial).unwrap();
    let refusal = until("the revocation on an open connection", || {
        let (status, body) = old.ask("GET", STATUS, b"").unwrap();
        (status == 401).then(|| String::from_utf8(body).unwrap())
    });
    assert!(refusal.contains("the certificate was revoked"), "{refusal}");
    assert_eq!(newest.ask("GET", STATUS, b"").unwrap().0, 200);
    assert_eq!(connect().ask("GET", STATUS, b"").unwrap().0, 200);
    assert_eq!(site.count("denied", "the certificate was revoked"), 1);
}

#[test]
fn a_certificate_that_would_not_do_is_not_taken_over() {
    let site = Site::start("");
    let alice = site.certificate(Role::Viewer, "alice", DAY);
    for (content, reason) in [("not a certificate", "no certificate in it"), ("", "no certificate")]
    {
        std::fs::write(site.folder.path().join("control.pem"), content).unwrap();
        until("the record of it", || (site.count("failed", reason) > 0).then_some(()));
        assert_eq!(site.ask(Some(&alice), "GET", STATUS).unwrap().0, 200);
    }
    // Not one of a control, so it is not renewed either.
    let late = site.certificate(Role::Viewer, "late", Duration::ZERO);
    std::fs::copy(late, site.folder.path().join("control.pem")).unwrap();
    until("the record of it", || (site.count("failed", "has expired") > 0).then_some(()));
    assert_eq!(site.ask(Some(&alice), "GET", STATUS).unwrap().0, 200);
}

#[test]
fn who_has_no_good_certificate_is_refused_with_the_reason_and_recorded() {
    let site = Site::start("");
    let expired = site.certificate(Role::Admin, "late", Duration::ZERO);
    let revoked = site.certificate(Role::Admin, "gone", DAY);
    site.authority.revoke(&Subject::of_file(&revoked).unwrap().serial).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let identity = site.identity(Role::Admin, Kind::Person, "eve");
    // One of another name, and one that calls itself as ours does.
    let strangers = ["other", "test"].map(|name| {
        let dir = folder.path().join(name);
        let stranger = Authority::init(&dir, name).unwrap();
        of(&stranger, &identity, DAY, &dir)
    });
    until("expiry and revocation", || {
        let seen = [&expired, &revoked].map(|path| site.ask(Some(path), "GET", STATUS).is_err());
        (seen == [true, true]).then_some(())
    });
    for (certificate, told, recorded) in [
        (None, "CertificateRequired", "peer sent no certificates"),
        (Some(&expired), "CertificateExpired", "invalid peer certificate: certificate expired"),
        (Some(&revoked), "CertificateRevoked", "invalid peer certificate: Revoked"),
        (Some(&strangers[0]), "UnknownCA", "invalid peer certificate: UnknownIssuer"),
        (Some(&strangers[1]), "DecryptError", "invalid peer certificate: BadSignature"),
    ] {
        let before = site.count("denied", recorded);
        let error = site.ask(certificate.map(|path| path.as_path()), "GET", "/livez").unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
        until(recorded, || (site.count("denied", recorded) > before).then_some(()));
    }
    // A certificate of the site that says nothing of a role.
    let (key, request) = request().unwrap();
    let mut odd = identity.clone();
    odd.name = "a b".into();
    let chain = site.authority.issue(&odd, &[], &request, DAY).unwrap();
    let path = folder.path().join("odd.pem");
    pem::replace(&path, 0o600, format!("{}{chain}", *key).as_bytes()).unwrap();
    let (status, detail) = site.ask(Some(&path), "GET", STATUS).unwrap();
    assert!(status == 401 && detail.contains("is no spiffe://SITE/ROLE/KIND/NAME"), "{detail}");
    assert_eq!(site.count("denied", "is no spiffe"), 1);
}

#[test]
fn strangers_do_not_fill_the_trail() {
    let site = Site::start("");
    let before = site.records().len();
    for _ in 0..60 {
        assert!(site.ask(None, "GET", "/livez").is_err());
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert!(site.ask(None, "GET", "/livez").is_err());
    until("how many were not recorded", || {
        (site.count("denied", "more were refused") > 0).then_some(())
    });
    let recorded = site.records().len() - before;
    assert!(recorded < 55, "{recorded}");
}

#[test]
fn a_token_enrols_one_once() {
    let site = Site::start("enrolment = true");
    let out = site.folder.path().join("node");
    let token = |name: &str, lifetime| {
        let identity = site.identity(Role::Viewer, Kind::Node, name);
        site.authority.token(&identity, lifetime).unwrap()
    };
    let enrol = |token: &Secret, kind, name: &str| {
        enrol_at(&site.address, token, kind, name, &out).map_err(|error| error.to_string())
    };
    let good = token("ny4-1", TOKEN_LIFETIME);
    let late = token("ny4-1", Duration::ZERO);
    assert!(enrol(&late, Kind::Node, "ny4-1").unwrap_err().contains("the token has expired"));
    assert!(enrol(&good, Kind::Node, "ny4-2").unwrap_err().contains("is for another name"));
    assert!(enrol(&good, Kind::Person, "ny4-1").unwrap_err().contains("is for another name"));
    enrol(&good, Kind::Node, "ny4-1").unwrap();
    assert!(enrol(&good, Kind::Node, "ny4-1").unwrap_err().contains("unknown or was used"));

    let path = out.join("identity.pem");
    let subject = Subject::of_file(&path).unwrap();
    assert_eq!(subject.identity.to_string(), "spiffe://test/viewer/node/ny4-1");
    let lives_s = subject.not_after_s - nautilus_control::tls::authority::now_s() as i64;
    assert!((29 * 86_400..=30 * 86_400).contains(&lives_s), "{lives_s}");
    assert_eq!(site.ask(Some(&path), "GET", STATUS).unwrap().0, 200);
    assert_eq!(site.ask(Some(&path), "PUT", "/api/v1/edge/cache/a").unwrap().0, 403);
    renew_at(&site.address, &out).unwrap();
    let renewed = Subject::of_file(&path).unwrap();
    assert_eq!(renewed.identity, subject.identity);
    assert_ne!(renewed.serial, subject.serial);
    assert_eq!(site.ask(Some(&path), "GET", STATUS).unwrap().0, 200);

    // Without a certificate nothing else answers.
    assert_eq!(site.ask(None, "GET", STATUS).unwrap().0, 401);
    assert_eq!(site.ask(None, "POST", "/api/v1/edge/renew").unwrap().0, 401);
    assert_eq!(site.ask(None, "GET", "/livez").unwrap().0, 200);

    assert_eq!(site.count("done", "issued spiffe://test/viewer/node/ny4-1"), 2);
    assert_eq!(site.count("denied", "the token"), 4);
    // Neither the trail nor the authority's folder holds a token.
    let text = String::from_utf8(good.expose().to_vec()).unwrap();
    let secret = text.split('.').nth(1).unwrap();
    for dir in ["audit", "ca/tokens", "ca/issued"] {
        for entry in std::fs::read_dir(site.folder.path().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let content = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
            let shown = content.contains(secret) || path.display().to_string().contains(secret);
            assert!(!shown, "{}", path.display());
        }
    }
}

#[test]
fn an_admin_gives_tokens_and_revokes_and_the_trail_says_so() {
    let site = Site::start("enrolment = true");
    let admin = site.certificate(Role::Admin, "root", DAY);
    let operator = site.certificate(Role::Operator, "bob", DAY);
    let tokens = "/api/v1/edge/certificates/tokens";
    let ask = |who: &std::path::Path, method: &str, path: &str, body: &str| {
        let mut connection = site.connect(Some(who)).unwrap();
        let (status, body) = connection.ask(method, path, body.as_bytes()).unwrap();
        (status, site::json(&body))
    };
    let wanted = r#"{"kind": "node", "name": "ny4-1", "role": "viewer"}"#;
    assert_eq!(ask(&operator, "POST", tokens, wanted).0, 403);
    for (wrong, status) in [
        ("{}", 400),
        (r#"{"kind": "node", "name": "NY4", "role": "viewer"}"#, 403),
        (r#"{"kind": "node", "name": "ny4-1", "role": "owner"}"#, 400),
        (r#"{"kind": "node", "name": "ny4-1", "role": "viewer", "days": 9}"#, 400),
        (r#"{"kind": "control", "name": "ny4-1", "role": "viewer"}"#, 403),
    ] {
        assert_eq!(ask(&admin, "POST", tokens, wrong).0, status, "{wrong}");
    }
    let (status, answer) = ask(&admin, "POST", tokens, wanted);
    assert_eq!(status, 200, "{answer}");
    let token = Secret::new(answer["token"].as_str().unwrap().as_bytes().to_vec());
    let out = site.folder.path().join("node");
    enrol_at(&site.address, &token, Kind::Node, "ny4-1", &out).unwrap();
    let node = out.join("identity.pem");
    let (_, list) = ask(&admin, "GET", "/api/v1/edge/certificates", "");
    let serial = Subject::of_file(&node).unwrap().serial;
    let listed = list["certificates"].as_array().unwrap();
    assert!(listed.iter().any(|one| one["serial"] == serial.as_str()), "{list}");
    let path = format!("/api/v1/edge/certificates/{serial}/revoke");
    assert_eq!(ask(&admin, "POST", &path, "").0, 200);
    assert_eq!(ask(&admin, "POST", "/api/v1/edge/certificates/..%2Fca/revoke", "").0, 403);
    until("the revocation", || site.ask(Some(&node), "GET", STATUS).is_err().then_some(()));
    assert_eq!(site.count("done", "a token for spiffe://test/viewer/node/ny4-1"), 1);
    assert_eq!(site.count("done", "revoked spiffe://test/viewer/node/ny4-1"), 1);
}

#[test]
fn of_many_with_one_token_one_is_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(folder.path(), "test").unwrap();
    let identity = Identity::parse("spiffe://test/operator/person/bob").unwrap();
    for _ in 0..20 {
        let token = authority.token(&identity, TOKEN_LIFETIME).unwrap();
        let token = nautilus_control::tls::token::Token::parse(&token).unwrap();
        let barrier = std::sync::Barrier::new(8);
        let enrolled = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    if authority.redeem(&token, "person", "bob").is_ok() {
                        enrolled.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(enrolled.into_inner(), 1);
    }
}

#[test]
fn who_enrols_talks_to_the_authority_of_the_token_alone() {
    let site = Site::start("enrolment = true");
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::init(folder.path(), "test").unwrap();
    let identity = site.identity(Role::Viewer, Kind::Node, "ny4-1");
    let token = other.token(&identity, TOKEN_LIFETIME).unwrap();
    let error = enrol_at(&site.address, &token, Kind::Node, "ny4-1", folder.path()).unwrap_err();
    assert!(error.to_string().contains("not of the authority that the token names"), "{error}");
}

#[test]
fn tls_is_1_3_and_the_key_exchange_holds_against_quantum_computers() {
    let site = Site::start("");
    let alice = site.certificate(Role::Viewer, "alice", DAY);
    let connection = site.connect(Some(&alice)).unwrap();
    assert_eq!(connection.version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.key_exchange(), Some(rustls::NamedGroup::X25519MLKEM768));
    // Another implementation, which would speak 1.2 if it could.
    for (version, spoken) in [("-tls1_2", false), ("-tls1_3", true)] {
        let output = Command::new("openssl")
            .args(["s_client", "-brief", version, "-connect", &site.address, "-cert"])
            .arg(&alice)
            .arg("-CAfile")
            .arg(site.ca())
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else {
            eprintln!("SKIPPED openssl s_client: openssl is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.contains("CONNECTION ESTABLISHED"), spoken, "{version}: {text}");
    }
}

#[test]
fn what_is_no_tls_is_refused_and_the_rest_goes_on() {
    let site = Site::start("");
    let alice = site.certificate(Role::Viewer, "alice", DAY);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(std::net::TcpStream::connect(&site.address).unwrap());
    }
    let mut plain = std::net::TcpStream::connect(&site.address).unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(site.ask(Some(&alice), "GET", "/livez").unwrap(), (200, "ok\n".into()));
    until("the record of it", || (site.count("denied", "corrupt message") > 0).then_some(()));
}

#[test]
fn a_control_beside_its_authority_renews_its_own_certificate() {
    let site = Site::start("");
    let alice = site.certificate(Role::Viewer, "alice", DAY);
    // Valid since five minutes ago and for two more: in the last third of its life.
    site.write_control(Duration::from_secs(120));
    let ending = Subject::of_file(&site.folder.path().join("control.pem")).unwrap();
    let renewed = until("the renewal", || {
        let connection = site.connect(Some(&alice)).unwrap();
        let subject = Subject::of(connection.server_certificate().unwrap()).unwrap();
        let end_s = ending.not_after_s + 200;
        (subject.serial != ending.serial && subject.not_after_s < end_s + 300).then_some(subject)
    });
    assert_eq!(renewed.identity, ending.identity);
    assert!(renewed.not_after_s >= ending.not_after_s + 290, "{renewed:?}");
    // It does so once.
    let certificates = site.authority.issued().unwrap().len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(site.authority.issued().unwrap().len(), certificates);
}

/// The commands of the walk in the README beside the code, as written.
#[test]
fn the_walk_in_the_readme_is_walked() {
    let site = Site::start("enrolment = true");
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tls/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let folder = site.folder.path();
    let bins = std::path::Path::new(env!("CARGO_BIN_EXE_nautilus-ca")).parent().unwrap();
    let path = format!("{}:{}", bins.display(), std::env::var("PATH").unwrap());
    let run = |command: &str| {
        let output = Command::new("sh")
            .args(["-ec", command])
            .current_dir(folder)
            .env("PATH", &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    };
    // The control of this test has its authority in "ca" already, and a port of its own.
    std::fs::rename(folder.join("ca"), folder.join("kept")).unwrap();
    let port = site.address.rsplit_once(':').unwrap().1;
    let mut walked = 0;
    let mut serial = String::new();
    for line in readme.lines().filter(|line| line.starts_with("nautilus-ca ")) {
        if line.contains(" init ") {
            assert!(run(line).0, "{line}");
            std::fs::remove_dir_all(folder.join("ca")).unwrap();
            std::fs::rename(folder.join("kept"), folder.join("ca")).unwrap();
        } else {
            let line = line.replace(":9477", &format!(":{port}")).replace("SERIAL", &serial);
            // The walk's control has a file that this one reads: it takes the new certificate over.
            if line.contains(" token ") {
                std::fs::write(folder.join("token"), "").unwrap();
                std::fs::set_permissions(
                    folder.join("token"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o600),
                )
                .unwrap();
            }
            let (done, text) = run(&line);
            assert!(done, "{line}: {text}");
            if line.contains(" list ") {
                let last = text.lines().rfind(|line| line.contains("/node/ny4-1")).unwrap();
                serial = last.split(' ').next().unwrap().to_owned();
            }
        }
        walked += 1;
    }
    assert_eq!(walked, 8);
    let (done, text) = run("nautilus-ca renew localhost:1 node");
    assert!(!done && text.contains("Connection refused"), "{text}");
}
