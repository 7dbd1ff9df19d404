//! What a control said.

use std::fmt::Write;

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

/// Lines of a problem's fields that are shown. Too high: a liar fills the terminal.
const FIELDS_MAX: usize = 100;

/// Status, headers, and the whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, as it came.
    pub body: Bytes,
}

impl Answer {
    /// A header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a document, or what is wrong with it.
    pub fn document(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| {
            format!("the answer ({}) is no JSON document: {error}", self.status.as_u16())
        })
    }

    /// The name in a problem document, such as `cache-not-found`; empty where there is none.
    pub fn problem(&self) -> String {
        let kind = self.document().ok().and_then(|d| d["type"].as_str().map(str::to_owned));
        let kind = kind.unwrap_or_default();
        kind.strip_prefix("urn:nautilus:problem:").unwrap_or(&kind).to_owned()
    }

    /// A refusal in words: what, why, which fields, and under which request the control has it on record.
    pub fn explain(&self) -> String {
        let document = self.document().unwrap_or_default();
        let title = document["title"].as_str().or(self.status.canonical_reason());
        let mut text = format!("{} ({})", title.unwrap_or("refused"), self.status.as_u16());
        let fields = document["fields"].as_array().map_or(&[][..], Vec::as_slice);
        let detail = document["detail"].as_str().unwrap_or_default();
        // Field by field it is easier to read.
        if fields.is_empty() && !detail.is_empty() {
            let _ = write!(text, ": {detail}");
        }
        for field in fields.iter().take(FIELDS_MAX) {
            let reason = field["reason"].as_str().unwrap_or_default();
            let _ = match field["path"].as_str().unwrap_or_default() {
                "" => write!(text, "\n  {reason}"),
                path => write!(text, "\n  {path}: {reason}"),
            };
        }
        if let Some(id) = self.header("x-request-id") {
            let _ = write!(text, "\n  request {id}");
        }
        text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "abc".parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn a_problem_is_shown_with_its_fields_and_request() {
        let body = r#"{"type":"urn:nautilus:problem:invalid-body","title":"Invalid body","status":400,
            "detail":"2 fields","fields":[{"path":"nodes[3].cpu_cores","reason":"is missing\u001b[2J"}]}"#;
        let answer = answer(400, body);
        assert_eq!(answer.problem(), "invalid-body");
        assert_eq!(
            answer.explain(),
            "Invalid body (400)\n  nodes[3].cpu_cores: is missing[2J\n  request abc"
        );
    }

    #[test]
    fn a_refusal_without_a_document_is_still_one() {
        assert_eq!(answer(418, "<html>").explain(), "I'm a teapot (418)\n  request abc");
        assert_eq!(answer(404, "[1]").problem(), "");
        assert!(answer(200, "{").document().unwrap_err().contains("is no JSON document"));
    }
}
