//! One question to a control.

use hyper::Method;
use serde_json::Value;

/// Method, path, query, headers and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// GET looks; everything else changes.
    pub method: Method,
    path: String,
    query: String,
    /// Headers beside those of every question.
    pub headers: Vec<(&'static str, String)>,
    /// Media type and content.
    pub body: Option<(&'static str, Vec<u8>)>,
}

impl Call {
    /// `path` is as the API has it; each `{}` in it is the next of `parts`, whatever stands in that one.
    pub fn new(method: Method, path: &str, parts: &[&str]) -> Self {
        let mut parts = parts.iter();
        let mut whole = String::from("/api/v1/edge/");
        for (index, piece) in path.split("{}").enumerate() {
            if index > 0 {
                whole += &encoded(parts.next().copied().unwrap_or_default());
            }
            whole += piece;
        }
        Self { method, path: whole, query: String::new(), headers: Vec::new(), body: None }
    }

    /// Looks at a path of the API.
    pub fn get(path: &str, parts: &[&str]) -> Self {
        Self::new(Method::GET, path, parts)
    }

    /// Changes something by POST.
    pub fn post(path: &str, parts: &[&str]) -> Self {
        Self::new(Method::POST, path, parts)
    }

    /// Looks at a path outside the API, as it stands.
    pub fn outside(path: &str) -> Self {
        Self { path: path.into(), ..Self::get("", &[]) }
    }

    /// Adds to the query.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        let front = if self.query.is_empty() { '?' } else { '&' };
        self.query += &format!("{front}{}={}", encoded(name), encoded(&value.to_string()));
        self
    }

    /// Adds to the query what is there.
    pub fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds `name=true`.
    pub fn with_flag(self, name: &str, set: bool) -> Self {
        if set { self.with(name, true) } else { self }
    }

    /// A JSON document as its body.
    pub fn json(mut self, document: &Value) -> Self {
        self.body = Some(("application/json", document.to_string().into_bytes()));
        self
    }

    /// Bytes as its body.
    pub fn bytes(mut self, kind: &'static str, bytes: Vec<u8>) -> Self {
        self.body = Some((kind, bytes));
        self
    }

    /// One more header, where there is a value.
    pub fn header(mut self, name: &'static str, value: Option<String>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    /// Path and query.
    pub fn target(&self) -> String {
        format!("{}{}", self.path, self.query)
    }

    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

/// Percent-encoded: only unreserved characters (RFC 3986) stand as themselves.
fn encoded(text: &str) -> String {
    let mut whole = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                whole.push(char::from(byte));
            }
            byte => whole += &format!("%{byte:02X}"),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_path_stays_one_part_of_it() {
        let call = Call::get("cache/{}", &["../nodes?x#y"]).with("key", "md:nasdaq:A B&c=1");
        assert_eq!(
            call.target(),
            "/api/v1/edge/cache/..%2Fnodes%3Fx%23y?key=md%3Anasdaq%3AA%20B%26c%3D1"
        );
        let call = Call::post("nodes/{}/drain", &["n-1"]).with_flag("force", true);
        assert_eq!(call.target(), "/api/v1/edge/nodes/n-1/drain?force=true");
        assert!(call.changes() && !Call::outside("/livez").changes());
    }
}
