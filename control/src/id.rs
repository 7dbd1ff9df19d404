//! The rule for ids of nodes and caches.

/// Words that are paths of the API and therefore no ids.
const RESERVED: [&str; 4] = ["create", "status", "deploy", "summary"];

/// What an id must look like, for messages.
pub const RULE: &str =
    "ids are [a-z0-9][a-z0-9_.-]{0,62} and none of create, status, deploy, summary";

/// Whether `id` is one.
pub fn is_valid(id: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = id.bytes();
    bytes.next().is_some_and(word)
        && id.len() <= 63
        && bytes.all(|byte| word(byte) || b"_.-".contains(&byte))
        && !RESERVED.contains(&id)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn the_rule_holds_at_its_edges() {
        let longest = "a".repeat(63);
        for id in ["a", "0", "node-1", "ld4.slough_2", longest.as_str()] {
            assert!(is_valid(id), "{id}");
        }
        let too_long = "a".repeat(64);
        for id in ["", "-a", ".", "_", "Node", "a b", "a/b", "é", "status", "deploy", &too_long] {
            assert!(!is_valid(id), "{id}");
        }
    }
}
