//! The body of an action, written at the rate of requests: the same bytes as `serde_json` makes of it.
//!
//! Texts that need no escaping, which nearly all are, are copied whole; the others are left to the library.

use super::record::{Entry, Outcome};

/// Bytes looked at together. Too low: a step each; too high: short texts are looked at one by one.
const LANES: usize = 16;

/// Appends what is in the record behind its time: `"kind":"action","actor":{...},...}`.
pub(super) fn push_action(out: &mut Vec<u8>, entry: &Entry) {
    let Entry { actor, verb, object, outcome, request_id, reason } = entry;
    for (name, text) in [
        (r#""kind":"action","actor":{"kind":"#, actor.kind),
        (r#","name":"#, &actor.name),
        (r#","role":"#, &actor.role),
        (r#","address":"#, &actor.address),
        (r#"},"verb":"#, verb),
        (r#","object":"#, object),
        (r#","outcome":"#, name_of(*outcome)),
        (r#","request_id":"#, request_id),
        (r#","reason":"#, reason),
    ] {
        out.extend_from_slice(name.as_bytes());
        push_text(out, text);
    }
    out.push(b'}');
}

fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Begun => "begun",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Denied => "denied",
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if needs_escape(text.as_bytes()) {
        // Texts always serialize, and memory takes every write.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether one of the bytes is not itself in a JSON string (RFC 8259, section 7).
fn needs_escape(bytes: &[u8]) -> bool {
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let (chunks, rest) = bytes.as_chunks::<LANES>();
    // Without an early end inside of a chunk, so that its bytes are compared at once.
    chunks.iter().any(|chunk| chunk.iter().fold(false, |found, byte| found | is_special(byte)))
        || rest.iter().any(is_special)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Actor, Body};
    use super::*;
    use proptest::prelude::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        proptest::sample::select(vec![
            Outcome::Begun,
            Outcome::Done,
            Outcome::Failed,
            Outcome::Denied,
        ])
    }

    proptest! {
        #[test]
        fn a_body_is_what_the_library_makes_of_it(
            [name, role, address, verb, object, request_id, reason] in
                proptest::array::uniform7("[ -~]{0,40}|[a-z/]{0,80}[\0-\u{1f}\"\\\\]?\\PC{0,20}"),
            outcome in outcome(),
        ) {
            let actor = Actor { kind: "certificate", name, role, address };
            let entry = Entry { actor, verb, object, outcome, request_id, reason };
            let mut body = b"{".to_vec();
            push_action(&mut body, &entry);
            let expected = serde_json::to_string(&Body::Action(&entry)).unwrap();
            prop_assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
    }

    #[test]
    fn each_byte_that_has_to_be_escaped_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..3 * LANES {
                let mut bytes = vec![b'a'; 3 * LANES];
                bytes[at] = byte;
                let text: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).collect();
                let is_ascii = byte < 0x80;
                let is_escaped = serde_json::to_string(&text).unwrap().len() > text.len() + 2;
                assert_eq!(needs_escape(&bytes), is_ascii && is_escaped, "{byte} at {at}");
            }
        }
    }
}
