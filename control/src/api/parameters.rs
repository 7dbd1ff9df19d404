//! Query parameters: those that the document lists for a route, each at most once; all others are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::deploy::fields::FieldProblem;
use crate::problem::Problem;

/// Query parameters by method and path.
pub struct Known(BTreeMap<(String, String), Vec<String>>);

impl Known {
    /// Those of an OpenAPI document.
    pub fn of(document: &Value) -> Self {
        let mut known = BTreeMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let mut answers = operation["responses"].as_object().into_iter().flatten();
                // One whose manager is not built says that, whatever it is asked.
                if !answers.any(|(status, _)| status.starts_with('2')) {
                    continue;
                }
                let all = operation["parameters"].as_array().into_iter().flatten();
                let queried = all.filter(|parameter| parameter["in"] == "query");
                let names = queried.filter_map(|parameter| parameter["name"].as_str());
                let names = names.map(str::to_owned).collect();
                known.insert((method.to_uppercase(), path.clone()), names);
            }
        }
        Self(known)
    }

    /// Everything wrong with a query; nothing is said where the method is wrong anyway.
    fn wrong(&self, method: &str, path: &str, query: &str) -> Vec<FieldProblem> {
        let method = if method == "HEAD" { "GET" } else { method };
        let Some(known) = self.0.get(&(method.to_owned(), path.to_owned())) else {
            return Vec::new();
        };
        let mut seen: Vec<String> = Vec::new();
        let mut wrong = Vec::new();
        for (name, _) in pairs(query) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let is_known = known.iter().any(|known| match known.split_once('*') {
                Some((front, _)) => name.starts_with(front),
                None => *known == name,
            });
            let shown = name.chars().filter(|c| !c.is_control()).take(80).collect();
            if !is_known {
                wrong.push(FieldProblem { path: shown, reason: "is unknown".into() });
            } else if seen.contains(&name) {
                wrong.push(FieldProblem { path: shown, reason: "is given twice".into() });
            }
            seen.push(name);
        }
        wrong
    }
}

/// Refuses parameters that nobody reads.
pub async fn refuse_unknown(
    State(known): State<Arc<Known>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if let (Some(path), Some(query)) = (path, request.uri().query()) {
        let wrong = known.wrong(request.method().as_str(), &path, query);
        if !wrong.is_empty() {
            return invalid(wrong).into_response();
        }
    }
    next.run(request).await
}

/// 400 for a query, with everything that is wrong with it.
pub fn invalid(fields: Vec<FieldProblem>) -> Problem {
    let said: Vec<String> =
        fields.iter().map(|field| format!("{}: {}", field.path, field.reason)).collect();
    let detail = said.join("; ");
    Problem::new(StatusCode::BAD_REQUEST, "invalid-parameter", "Invalid parameter", detail)
        .with_fields(fields)
}

/// The parameters of a request.
pub struct Parameters(BTreeMap<String, Vec<u8>>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = pairs(parts.uri.query().unwrap_or_default());
        let text = |(name, value): (Vec<u8>, _)| (String::from_utf8_lossy(&name).into(), value);
        Ok(Self(pairs.map(text).collect()))
    }
}

impl Parameters {
    /// A value as it stands, decoded.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// `true` or `false`; false where it is left out.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.bytes(name) {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(_) => Err(refused(name, "true or false is needed".into())),
        }
    }

    /// A whole number within bounds, both included.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(refused(name, format!("a whole number from {min} to {max} is needed"))),
        }
    }
}

fn refused(name: &str, reason: String) -> Problem {
    invalid(vec![FieldProblem { path: name.into(), reason }])
}

fn pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// Percent-decoded, `+` as a space; what is no escape stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of 16 make a byte.
                decoded.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_nothing_else() {
        for (text, expected) in [
            ("a%20b+c", &b"a b c"[..]),
            ("%00%ff", b"\x00\xff"),
            ("100%", b"100%"),
            ("%4", b"%4"),
            ("%zz", b"%zz"),
            ("", b""),
        ] {
            assert_eq!(decoded(text), expected, "{text}");
        }
    }

    #[test]
    fn what_the_document_does_not_list_is_wrong() {
        let parameters = serde_json::json!([
            {"in": "query", "name": "force"}, {"in": "query", "name": "label.*"},
            {"in": "path", "name": "id"},
        ]);
        let answers = serde_json::json!({"200": {}});
        let document = serde_json::json!({"paths": {
            "/a": {"get": {"parameters": parameters, "responses": answers}},
            "/b": {"get": {"responses": {"501": {}}}},
        }});
        let known = Known::of(&document);
        let wrong = |query| -> Vec<String> {
            known.wrong("HEAD", "/a", query).into_iter().map(|f| f.path + " " + &f.reason).collect()
        };
        assert_eq!(wrong("force=true&label.x=1&label.y=2"), Vec::<String>::new());
        assert_eq!(wrong("id=1&force=1&force=2"), ["id is unknown", "force is given twice"]);
        assert_eq!(wrong("%66orce=1&Force=1"), ["Force is unknown"]);
        assert!(known.wrong("PUT", "/a", "x=1").is_empty(), "405 answers that");
        assert!(known.wrong("GET", "/b", "x=1").is_empty(), "501 answers that");
    }
}
