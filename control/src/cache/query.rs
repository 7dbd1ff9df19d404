//! The query of `cache/{id}`: parameters that are percent-encoded bytes, for a key may be any.
//!
//! As in forms, `+` is a space; what is to be a plus is `%2B`.

use nautilus_client::KEY_BYTES_MAX;

/// Longest time to live: 100 years.
const TTL_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// A key: 1 to 250 bytes of any value.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// What stands in the query of `cache/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `key`: one item is meant; without it the cache.
    pub key: Option<Key>,
    /// `node`: id of the node, where several have a cache of this id.
    pub node: Option<String>,
    /// `ttl_ms`: when the value ends.
    pub ttl_ms: Option<u64>,
    /// `suspect=allow`: the value is wanted even if its feed has a gap or is silent.
    pub allows_suspect: bool,
    /// `dry_run=true`: only say what would happen.
    pub dry_run: bool,
}

/// One parameter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {reason}")]
pub struct QueryError {
    /// Its name, as far as it can be shown.
    pub parameter: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Key {
    /// A key, if it is one.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({})", self.0.escape_ascii())
    }
}

impl Query {
    /// Reads a query as it came, without its question mark. No parameter stands twice, and none is unknown.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = |reason: String| {
                let parameter = name.chars().filter(|c| !c.is_control()).take(40).collect();
                QueryError { parameter, reason }
            };
            let encoding = || wrong("% stands before two hexadecimal digits".into());
            let name_bytes = decoded(name).ok_or_else(encoding)?;
            let value = decoded(value).ok_or_else(encoding)?;
            if seen.contains(&name_bytes) {
                return Err(wrong("stands twice".into()));
            }
            match name_bytes.as_slice() {
                b"key" => {
                    let bytes = value.len();
                    let reason = format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {bytes}");
                    query.key = Some(Key::new(value).ok_or_else(|| wrong(reason))?);
                }
                b"node" => {
                    let id = String::from_utf8(value).ok().filter(|id| crate::id::is_valid(id));
                    query.node = Some(id.ok_or_else(|| wrong(crate::id::RULE.into()))?);
                }
                b"ttl_ms" => {
                    let number = std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok());
                    let number = number.filter(|number| (1..=TTL_MS_MAX).contains(number));
                    let reason = format!("a whole number from 1 to {TTL_MS_MAX} is needed");
                    query.ttl_ms = Some(number.ok_or_else(|| wrong(reason))?);
                }
                b"suspect" if value == b"allow" => query.allows_suspect = true,
                b"suspect" => return Err(wrong("allow is all it can be".into())),
                b"dry_run" => {
                    query.dry_run = match value.as_slice() {
                        b"true" => true,
                        b"false" => false,
                        _ => return Err(wrong("true or false is needed".into())),
                    }
                }
                _ => return Err(wrong("is unknown".into())),
            }
            seen.push(name_bytes);
        }
        Ok(query)
    }
}

/// The bytes behind percent-encoding; `None` where a `%` has no two digits behind it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_read_and_others_refused() {
        let query = Query::parse("key=a%00b+%2B&ttl_ms=1500&node=n-1&suspect=allow&").unwrap();
        assert_eq!(query.key.unwrap().bytes(), b"a\0b +");
        assert_eq!((query.ttl_ms, query.node.as_deref()), (Some(1500), Some("n-1")));
        assert!(query.allows_suspect && !query.dry_run);
        assert_eq!(Query::parse("").unwrap(), Query::default());
        let longest = format!("key={}", "%ff".repeat(KEY_BYTES_MAX));
        assert!(Query::parse(&longest).is_ok());
        for (text, parameter) in [
            ("key=", "key"),
            ("key=%4", "key"),
            ("key=%zz", "key"),
            ("key=a&key=b", "key"),
            ("key=a&k%65y=b", "k%65y"),
            (&(longest + "a"), "key"),
            ("ttl_ms=0", "ttl_ms"),
            ("ttl_ms=-1", "ttl_ms"),
            ("ttl_ms=1e3", "ttl_ms"),
            ("ttl_ms=99999999999999999999", "ttl_ms"),
            ("node=No", "node"),
            ("suspect=yes", "suspect"),
            ("dry_run", "dry_run"),
            ("ttl=5", "ttl"),
        ] {
            assert_eq!(Query::parse(text).unwrap_err().parameter, parameter, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_its_encoding(key in prop::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX)) {
            let encoded: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
            let read = Query::parse(&format!("key={encoded}")).unwrap().key.unwrap();
            prop_assert_eq!(read.bytes(), &key[..]);
        }

        #[test]
        fn any_text_is_a_query_or_an_error(text in ".{0,80}") {
            let _ = Query::parse(&text);
            let _ = Query::parse(&format!("key={text}"));
        }
    }
}
