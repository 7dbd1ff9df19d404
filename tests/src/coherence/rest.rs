//! The operations of a run over REST, and what the answers say.

use super::ask::{Answer, Ask};
use super::text::{id_of, key_text, value_text};
use crate::history::{Input, Output};
use crate::lab::node_file::CACHE_ID;
use crate::rest::{RestAnswer, RestClient, percent_encoded};

/// Whether the operation can be asked over REST.
pub fn has_form(input: Input) -> bool {
    use Input::{Add, Cas, Delete, Get, Replace, Set};
    matches!(input, Get | Set { .. } | Add { .. } | Replace { .. } | Cas { .. } | Delete)
}

/// Asks it, and says what came of it.
pub fn ask(client: &mut RestClient, ask: &Ask) -> Answer {
    let key = percent_encoded(key_text(ask.key).as_bytes());
    let mut path = format!("/api/v1/edge/cache/{CACHE_ID}?key={key}");
    let (value, condition) = match ask.input {
        Input::Set { value } => (Some(value), None),
        Input::Add { value } => (Some(value), Some("If-None-Match: *".into())),
        Input::Replace { value } => (Some(value), Some("If-Match: *".into())),
        Input::Cas { value, version } => (Some(value), Some(format!("If-Match: \"{version}\""))),
        _ => (None, None),
    };
    if value.is_some() && ask.seconds > 0 {
        path += &format!("&ttl_ms={}", u64::from(ask.seconds) * 1_000);
    }
    let body = value.map_or(Vec::new(), |value| value_text(value, ask.bytes));
    let method = match (ask.input, value) {
        (Input::Get, _) => "GET",
        (_, Some(_)) => "PUT",
        _ => "DELETE",
    };
    let headers: Vec<String> = condition.into_iter().collect();
    match client.ask(method, &path, &headers, &body) {
        Ok(answer) => judge(ask, &answer),
        // Control has died, perhaps: a change may have been made.
        Err(_) => Answer::Unknown,
    }
}

fn judge(ask: &Ask, answer: &RestAnswer) -> Answer {
    let problem = answer.problem();
    let version = answer.version();
    let output = match (ask.input, answer.status, problem.as_str()) {
        (Input::Get, 200, _) => id_of(&answer.body)
            .filter(|_| version.is_some())
            .map(|value| Output::Value { value, version }),
        (Input::Get, 404, "key-not-found") => Some(Output::Miss),
        // The node was silent, or a worker died over the key: nothing is said of it.
        (Input::Get, 503, "cache-detached" | "key-busy") => return Answer::Unknown,
        (Input::Delete, 204, _) => Some(Output::Deleted),
        (Input::Delete, 404, "key-not-found") => Some(Output::NotFound),
        (Input::Add { .. }, 201, _) => version.map(|_| Output::Stored { version }),
        (Input::Set { .. } | Input::Replace { .. } | Input::Cas { .. }, 204, _) => {
            version.map(|_| Output::Stored { version })
        }
        (Input::Add { .. } | Input::Replace { .. }, 412, _) => Some(Output::NotStored),
        (Input::Cas { .. }, 412, _) if answer.text().contains("not there") => {
            Some(Output::NotFound)
        }
        (Input::Cas { .. }, 412, _) => Some(Output::Exists),
        (_, 504, "outcome-unknown") => return Answer::Unknown,
        // It says that nothing was changed, and is held to it.
        (_, 503, "not-done") => Some(Output::Refused),
        _ => None,
    };
    let wrong = || format!("{ask:?} -> {} {:?}", answer.status, answer.text());
    output.map_or_else(|| Answer::Wrong(wrong()), Answer::Known)
}

#[cfg(test)]
mod tests {
    use super::super::ask::Form;
    use super::*;

    #[test]
    fn answers_say_what_they_say_and_nonsense_is_seen() {
        let known = |input, status, tag: &str, body: &str| {
            let ask = Ask { input, ..Ask::get(5, Form::Classic) };
            let headers = vec![("etag".into(), tag.into())];
            match judge(&ask, &RestAnswer { status, headers, body: body.into() }) {
                Answer::Known(output) => Some(output),
                Answer::Unknown | Answer::Wrong(_) => None,
            }
        };
        let problem = |name: &str, detail: &str| {
            format!("{{\"type\":\"urn:nautilus:problem:{name}\",\"detail\":\"{detail}\"}}")
        };
        let value = Some(Output::Value { value: 17, version: Some(9) });
        assert_eq!(known(Input::Get, 200, "\"9\"", "17"), value);
        assert_eq!(known(Input::Get, 200, "9", "17"), None, "no tag");
        assert_eq!(known(Input::Get, 404, "", &problem("key-not-found", "")), Some(Output::Miss));
        assert_eq!(known(Input::Get, 404, "", &problem("cache-not-found", "")), None);
        assert_eq!(known(Input::Delete, 204, "", ""), Some(Output::Deleted));
        let set = Input::Set { value: 1 };
        let stored = Some(Output::Stored { version: Some(7) });
        assert_eq!(known(set, 204, "\"7\"", ""), stored);
        assert_eq!(known(set, 503, "", &problem("not-done", "")), Some(Output::Refused));
        assert_eq!(known(set, 504, "", &problem("outcome-unknown", "")), None);
        let cas = Input::Cas { value: 1, version: 3 };
        let other = problem("precondition-failed", "the key has another version");
        assert_eq!(known(cas, 412, "", &other), Some(Output::Exists));
        let gone = problem("precondition-failed", "the key is not there");
        assert_eq!(known(cas, 412, "", &gone), Some(Output::NotFound));
    }
}
