//! Every boundary of the OpenAPI document that is checked in, against the real daemon.

#[path = "support/site.rs"]
mod site;

use nautilus_control::roles::Role;
use serde_json::Value;
use site::{DAY, Site, json};

/// Method, a path that the route answers, and the role that the document names; none for everybody.
fn operations() -> Vec<(String, String, Option<Role>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let document: Value = json(&std::fs::read(path).unwrap());
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "some-1" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["x-nautilus-role"].as_str().unwrap();
            let role = Role::of(name);
            assert!(role.is_some() || name == "nobody", "{name}");
            assert_eq!(role.is_none(), operation["security"] == serde_json::json!([]), "{path}");
            found.push((method.to_uppercase(), path.clone(), role));
        }
    }
    found
}

#[test]
fn whoever_is_below_an_operation_is_refused_and_recorded() {
    let site = Site::start("enrolment = true");
    let operations = operations();
    assert!(operations.len() >= 40, "{}", operations.len());
    let (mut unknown, mut below) = (0, 0);
    let mut stranger = site.connect(None).unwrap();
    for (method, path, needed) in &operations {
        let (status, body) = stranger.ask(method, path, b"").unwrap();
        let said = String::from_utf8_lossy(&body);
        assert_eq!(status == 401, needed.is_some(), "{method} {path}: {status} {said}");
        unknown += usize::from(status == 401);
    }
    for role in Role::ALL {
        let certificate = site.certificate(role, "somebody", DAY);
        let mut connection = site.connect(Some(&certificate)).unwrap();
        for (method, path, needed) in &operations {
            let Some(needed) = needed else { continue };
            if role >= *needed {
                continue;
            }
            let (status, body) = connection.ask(method, path, b"").unwrap();
            let said = String::from_utf8_lossy(&body);
            assert_eq!(status, 403, "{} {method} {path}: {said}", role.name());
            assert!(said.contains(&format!("needs the role {}", needed.name())), "{said}");
            below += 1;
        }
    }
    let records = site.records();
    let denied = |actor: &str| {
        let of =
            |record: &&Value| record["outcome"] == "denied" && record["actor"]["kind"] == actor;
        records.iter().filter(of).count()
    };
    assert_eq!((denied("unknown"), denied("certificate")), (unknown, below));
    assert!(unknown > 35 && below > 25, "{unknown} {below}");
}
