//! What a certificate or a token is good for, and what it is not: time, purpose, site.

#[path = "support/site.rs"]
mod site;

use std::sync::Arc;
use std::time::Duration;

use nautilus_control::roles::Role;
use nautilus_control::secret::Secret;
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::client::Connection;
use nautilus_control::tls::enrolment::enrol_at;
use nautilus_control::tls::identity::{Identity, Kind};
use nautilus_control::tls::token::{TOKEN_LIFETIME, Token};
use site::{DAY, Site, json, of, until};

const STATUS: &str = "/api/v1/edge/nodes/status";
const RENEW: &str = "/api/v1/edge/renew";

/// Status and detail of the wish for another certificate.
fn renewal(connection: &mut Connection) -> (u16, String) {
    let (_, request) = request().unwrap();
    let body = serde_json::json!({ "request": request }).to_string();
    let (status, body) = connection.ask("POST", RENEW, body.as_bytes()).unwrap();
    (status, json(&body)["detail"].to_string())
}

#[test]
fn a_connection_outlives_its_certificate_and_what_it_may_does_not() {
    let site = Site::start("");
    let short = site.certificate(Role::Viewer, "alice", Duration::from_secs(6));
    let mut connection = site.connect(Some(&short)).unwrap();
    assert_eq!(connection.ask("GET", STATUS, b"").unwrap().0, 200);
    let refusal = until("its end", || {
        let (status, body) = connection.ask("GET", STATUS, b"").unwrap();
        (status == 401).then(|| String::from_utf8(body).unwrap())
    });
    assert!(refusal.contains("the certificate has expired"), "{refusal}");
    assert_eq!(renewal(&mut connection).0, 401, "too late for another");
}

#[test]
fn a_person_does_not_pass_for_a_control() {
    let site = Site::start("");
    let alice = site.certificate(Role::Admin, "alice", DAY);
    let bob = site.certificate(Role::Viewer, "bob", DAY);
    assert!(site.connect(Some(&bob)).is_ok());
    // Whoever has a certificate of the site presents it where its control was.
    std::fs::copy(&alice, site.folder.path().join("control.pem")).unwrap();
    let error = until("another certificate", || site.connect(Some(&bob)).err());
    let said = "does not allow extended key usage for server authentication";
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn only_what_this_site_issued_to_nodes_and_people_is_renewed() {
    let site = Site::start("");
    let control = site.folder.path().join("control.pem");
    let refused = renewal(&mut site.connect(Some(&control)).unwrap());
    assert!(refused.0 == 403 && refused.1.contains("where its authority is"), "{refused:?}");

    // One of an authority that this site trusts as well.
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::init(folder.path(), "other").unwrap();
    for name in ["ca.pem", "revoked.pem"] {
        let ours = site.folder.path().join("ca").join(name);
        let both =
            [std::fs::read(&ours).unwrap(), std::fs::read(folder.path().join(name)).unwrap()];
        std::fs::write(&ours, both.concat()).unwrap();
    }
    let mut identity = site.identity(Role::Operator, Kind::Person, "carol");
    identity.site = "other".into();
    let carol = of(&other, &identity, DAY, folder.path());
    let mut connection = until("it is trusted", || {
        let mut connection = site.connect(Some(&carol)).ok()?;
        connection
            .ask("GET", STATUS, b"")
            .is_ok_and(|(status, _)| status == 200)
            .then_some(connection)
    });
    let refused = renewal(&mut connection);
    assert!(refused.0 == 403 && refused.1.contains("of this site"), "{refused:?}");
    let issued = site.authority.issued().unwrap();
    assert!(!issued.iter().any(|one| one.identity.contains("carol")), "{issued:?}");
}

#[test]
fn a_request_that_is_none_does_not_use_a_token_up() {
    let site = Site::start("enrolment = true");
    let identity = site.identity(Role::Viewer, Kind::Node, "ny4-1");
    let token = site.authority.token(&identity, TOKEN_LIFETIME).unwrap();
    let text = String::from_utf8(token.expose().to_vec()).unwrap();
    let body = serde_json::json!({
        "token": text, "kind": "node", "name": "ny4-1", "request": "no request",
    });
    let mut stranger = site.connect(None).unwrap();
    let asked = stranger.ask("POST", "/api/v1/edge/enrol", body.to_string().as_bytes()).unwrap();
    assert_eq!(asked.0, 400, "{}", String::from_utf8_lossy(&asked.1));
    let out = site.folder.path().join("node");
    enrol_at(&site.address, &token, Kind::Node, "ny4-1", &out).unwrap();

    // Nor is it good for anything when it says that it is of another authority.
    let token = site.authority.token(&identity, TOKEN_LIFETIME).unwrap();
    let text = String::from_utf8(token.expose().to_vec()).unwrap();
    let (front, _) = text.rsplit_once('.').unwrap();
    let other = Secret::new(format!("{front}.{}", "0".repeat(64)).into_bytes());
    let error = site.authority.redeem(&Token::parse(&other).unwrap(), "node", "ny4-1").unwrap_err();
    assert!(error.to_string().contains("of another authority"), "{error}");
    assert!(site.authority.redeem(&Token::parse(&token).unwrap(), "node", "ny4-1").is_ok());
}

#[test]
fn of_many_that_revoke_at_once_none_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::init(folder.path(), "test").unwrap());
    let identity = Identity::parse("spiffe://test/viewer/person/bob").unwrap();
    for round in 1..=20 {
        for _ in 0..4 {
            authority.issue(&identity, &[], &request().unwrap().1, DAY).unwrap();
        }
        let valid = authority.issued().unwrap().into_iter().filter(|one| one.revoked_s.is_none());
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for one in valid {
                let (authority, barrier) = (&authority, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    authority.revoke(&one.serial).unwrap();
                });
            }
        });
        let bytes = std::fs::read(folder.path().join("revoked.pem")).unwrap();
        let path = folder.path().join("revoked.pem");
        let lists = nautilus_control::tls::pem::revocation_lists_in(&path, &bytes).unwrap();
        use x509_parser::prelude::{CertificateRevocationList, FromDer};
        let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
        assert_eq!(list.iter_revoked_certificates().count(), 4 * round);
    }
}
