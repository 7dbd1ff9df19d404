//! Where in the text of a TOML file a key stands, and which key stands at a place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// An entry: the path of its key (`interface[0].name`), and all of its text, key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path.
    pub key: String,
    /// From the begin of its line, or of the section's header, to the end of its value.
    pub span: Range<usize>,
    /// Whether it is a section, whose own text is its header alone.
    pub is_section: bool,
}

/// Every section and every key that has a line of its own, in no order.
pub fn entries(text: &str) -> Vec<Entry> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    walk(text, root.get_ref(), "", &mut found);
    found
}

fn walk(text: &str, table: &DeTable<'_>, path: &str, found: &mut Vec<Entry>) {
    for (key, value) in table.iter() {
        let name = key.get_ref();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        match value.get_ref() {
            DeValue::Table(inner) if !begins_with(text, &value.span(), "{") => {
                section(text, value, &path, found);
                walk(text, inner, &path, found);
            }
            DeValue::Array(items) if items.iter().any(|item| begins_with(text, &item.span(), "[[")) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    section(text, item, &path, found);
                    if let DeValue::Table(inner) = item.get_ref() {
                        walk(text, inner, &path, found);
                    }
                }
            }
            _ => {
                let span = line_start(text, key.span().start)..value.span().end;
                found.push(Entry { key: path, span, is_section: false });
            }
        }
    }
}

fn section(text: &str, value: &Spanned<DeValue<'_>>, path: &str, found: &mut Vec<Entry>) {
    let span = value.span();
    found.push(Entry { key: path.into(), span: line_start(text, span.start)..span.end, is_section: true });
}

fn begins_with(text: &str, span: &Range<usize>, front: &str) -> bool {
    text.get(span.clone()).is_some_and(|part| part.starts_with(front))
}

fn line_start(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default();
    before.rfind('\n').map_or(0, |at| at + 1)
}

/// The line of a byte, counted from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The line of a key, or of the nearest section around it that is there.
pub fn line_of_key(text: &str, key: &str) -> usize {
    let all = entries(text);
    let around = |entry: &&Entry| covers(&entry.key, key);
    let nearest = all.iter().filter(around).max_by_key(|entry| entry.key.len());
    nearest.map_or(1, |entry| line_of(text, entry.span.start))
}

/// The key of the innermost entry whose text holds this byte; empty where there is none.
pub fn key_at(text: &str, offset: usize) -> String {
    let all = entries(text);
    let holds = |entry: &&Entry| entry.span.start <= offset && offset <= entry.span.end;
    let found = all.iter().filter(holds).min_by_key(|entry| entry.span.len());
    found.map_or(String::new(), |entry| entry.key.clone())
}

/// Whether `key` is `outer` or lies below it. The only section of a list may be named without its number.
pub fn covers(outer: &str, key: &str) -> bool {
    let below = |outer: &str, ends: &[char]| {
        key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends))
    };
    below(outer, &['.', '[']) || outer.strip_suffix("[0]").is_some_and(|outer| below(outer, &['.']))
}

/// The same text without these entries: every byte but line ends becomes a space, so that all else stays
/// where it is.
pub fn without(text: &str, spans: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        for byte in bytes.get_mut(span.clone()).into_iter().flatten() {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "top = 1\n[node]\nid = \"a\" # why\n\n[[cache]]\nid = \"q\"\nsources = [\n  \
                        { prefix = \"10.0.0.0/8\" },\n]\n[[cache]]\nid = \"r\"\n[access.limit]\nx.y = 2\n";

    #[test]
    fn keys_are_found_by_place_and_places_by_key() {
        let mut keys: Vec<String> = entries(FILE).into_iter().map(|entry| entry.key).collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "access", "access.limit", "access.limit.x", "access.limit.x.y", "cache[0]",
                "cache[0].id", "cache[0].sources", "cache[1]", "cache[1].id", "node", "node.id", "top"
            ]
        );
        assert_eq!(key_at(FILE, FILE.find("10.0").unwrap()), "cache[0].sources");
        assert_eq!(key_at(FILE, FILE.find("\"r\"").unwrap()), "cache[1].id");
        for (key, line) in [
            ("top", 1), ("node.id", 3), ("node.tier", 2), ("cache[0].sources[0].prefix", 7),
            ("cache[1].port", 10), ("feed[0].venue", 1),
        ] {
            assert_eq!(line_of_key(FILE, key), line, "{key}");
        }
        assert!(covers("cache[0]", "cache.port") && covers("cache", "cache[1].id"));
        assert!(!covers("cache[1]", "cache[10].id") && !covers("cache[0]", "cache[1].id"));
    }

    #[test]
    fn what_is_left_out_leaves_the_rest_where_it_is() {
        let all = entries(FILE);
        let spans: Vec<_> = all.iter().filter(|e| e.key == "cache[0].sources").map(|e| e.span.clone()).collect();
        let text = without(FILE, &spans);
        assert_eq!((text.len(), text.lines().count()), (FILE.len(), FILE.lines().count()));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["cache"].as_array().unwrap().len(), 2);
        assert_eq!(key_at(&text, text.find("\"r\"").unwrap()), "cache[1].id");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_walked(text in "[a-z\\[\\]{}=\"., \n#1]{0,80}") {
            for entry in entries(&text) {
                line_of(&text, entry.span.start);
                without(&text, &[entry.span]);
            }
            key_at(&text, 7);
            line_of_key(&text, "a[0].b");
        }
    }
}
