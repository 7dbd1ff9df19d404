//! The OpenAPI document: as checked in, and as the table of roles has it.

use std::collections::BTreeSet;
use std::path::Path;

use nautilus_control::api::document;
use nautilus_control::roles::{Needs, TABLE};

#[test]
fn the_document_that_is_checked_in_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let text = document::text();
    if std::env::var_os("NAUTILUS_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).position(|(found, made)| found != made);
    assert!(
        found == text,
        "control/openapi.json is not what the code says, from line {} on; write it anew: \
         NAUTILUS_WRITE=1 cargo test -p nautilus-control --test openapi",
        differs.map_or(0, |line| line + 1)
    );
}

#[test]
fn routes_and_roles_are_the_same_both_ways() {
    let document = document::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut routed = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routed.insert((method.to_uppercase(), path.clone()));
            let role = operation["x-nautilus-role"].as_str();
            assert!(role.is_some(), "{method} {path} stands in no row of roles.rs");
        }
    }
    let mut ids = BTreeSet::new();
    for (method, path, needs) in TABLE {
        let row = ((*method).to_owned(), (*path).to_owned());
        assert!(routed.contains(&row), "{method} {path} of roles.rs is not routed");
        let operation = &document["paths"][*path][method.to_lowercase()];
        let role = match needs {
            Needs::Nothing => "nobody",
            Needs::Role(role) => role.name(),
        };
        assert_eq!(operation["x-nautilus-role"], role, "{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} twice");
    }
    assert_eq!(routed.len(), TABLE.len());
}
