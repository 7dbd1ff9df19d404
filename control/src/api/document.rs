//! The OpenAPI document: what stands above the handlers, and what is true of all of them.

use serde_json::{Map, Value, json};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};

use crate::roles::{Needs, TABLE};
use crate::tls::enrolment;

/// The document before anything is routed.
pub(super) fn frame() -> OpenApi {
    let info = InfoBuilder::new().title("Nautilus Edge control").version("1").description(Some(
        "Nodes of a site: what they are, and bringing them about. Every error is a problem \
             document (RFC 9457); `x-nautilus-role` is the role that an operation needs.",
    ));
    OpenApiBuilder::new().info(info.build()).build()
}

/// The whole document.
pub fn document() -> Value {
    let routed = super::routes().into_openapi().merge_from(enrolment::routes().into_openapi());
    // Maps of text to documents always serialize.
    let mut document = serde_json::to_value(routed).unwrap_or_default();
    document["components"]["securitySchemes"]["certificate"] = json!({
        "type": "mutualTLS",
        "description": "A certificate of the site, whose role counts. Over loopback without TLS, and over \
                        the socket, the kernel says which user asks.",
    });
    for (name, _, description) in ANSWERS {
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let content = json!({ "application/problem+json": problem });
        document["components"]["responses"][*name] =
            json!({ "description": description, "content": content });
    }
    for (method, path, needs) in TABLE {
        let operation = &mut document["paths"][*path][method.to_lowercase()];
        if let Some(operation) = operation.as_object_mut() {
            complete(operation, method, *needs);
        }
    }
    document
}

/// The document as it is checked in and served.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// Answers that many operations have: name, status, meaning.
const ANSWERS: &[(&str, &str, &str)] = &[
    ("Invalid", "400", "`invalid-id`, `invalid-parameter` or `invalid-body`"),
    ("Unknown", "401", "`not-allowed`: nobody known"),
    ("NotAllowed", "403", "`not-allowed`: known, of another role"),
    ("TooLarge", "413", "`too-large`"),
    ("WrongMediaType", "415", "`wrong-media-type`"),
    ("OutcomeUnknown", "500", "`outcome-unknown`: done or not, and not on record how it went"),
    ("NotBuilt", "501", "`not-available`: its manager is not built"),
    ("Unavailable", "503", "`overloaded`, `not-recorded` or `store`: nothing was done; come again"),
    ("Late", "504", "`timed-out`, or `outcome-unknown` where something was to change"),
];

/// What the guard and the frame do for every operation.
fn complete(operation: &mut Map<String, Value>, method: &str, needs: Needs) {
    let (role, security) = match needs {
        Needs::Nothing => ("nobody", json!([])),
        Needs::Role(role) => (role.name(), json!([{ "certificate": [role.name()] }])),
    };
    operation.insert("x-nautilus-role".into(), role.into());
    operation.insert("security".into(), security);
    let has_body = operation.contains_key("requestBody");
    let is_built = operation.get("responses").is_some_and(|found| found != &json!({}));
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    for (name, status, _) in ANSWERS {
        let applies = match *status {
            "401" | "403" => needs != Needs::Nothing,
            "413" | "415" => has_body,
            "500" => method != "GET",
            "501" => !is_built,
            _ => true,
        };
        if applies {
            let answer = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.entry(*status).or_insert(answer);
        }
    }
}
