//! A document of the operator's: JSON or TOML, from a file or from standard input (`-`).

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::exit::Failure;

/// Longest file. Too low: 380,000 activities do not fit; too high: a wrong path reads a disk.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The bytes of a file, bounded.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX + 1;
    match path == Path::new("-") {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)),
    }
    .map_err(wrong)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let mib = FILE_BYTES_MAX >> 20;
        return Err(Failure::usage(format!("{} is longer than {mib} MiB", path.display())));
    }
    Ok(bytes)
}

/// A document. TOML by its name, or because it is no JSON.
pub fn read(path: &Path) -> Result<Value, Failure> {
    let bytes = bytes(path)?;
    let wrong = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| wrong("this is no text in UTF-8".into()))?;
    let is_json = text.trim_start().starts_with(['{', '[']);
    let named_toml = path.extension().is_some_and(|extension| extension == "toml");
    let named_json = path.extension().is_some_and(|extension| extension == "json");
    if named_json || (is_json && !named_toml) {
        return serde_json::from_str(&text).map_err(|error| wrong(error.to_string()));
    }
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.to_string().trim_end().into()))?;
    Ok(json(toml::Value::Table(table)))
}

/// The same document; times become text.
pub fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}

/// `KEY=VALUE` as a field: what can be read as JSON is what it says, all else is text.
pub fn set(document: &mut Map<String, Value>, pair: &str) -> Result<(), Failure> {
    let (key, value) = pair
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| Failure::usage(format!("--set {pair}: KEY=VALUE is needed")))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    document.insert(key.into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (toml, other) = (folder.path().join("d.toml"), folder.path().join("d"));
        std::fs::write(&toml, "id = \"a\"\nat = 2026-01-02\n[[nodes]]\ncores = 4\nx = 1.5\n")
            .unwrap();
        let text = r#" {"id": "a", "at": "2026-01-02", "nodes": [{"cores": 4, "x": 1.5}]}"#;
        std::fs::write(&other, text).unwrap();
        assert_eq!(read(&toml).unwrap(), read(&other).unwrap());
        std::fs::write(&toml, "id = \n").unwrap();
        assert!(read(&toml).unwrap_err().text.contains("line 1"));
        std::fs::write(&other, "{\"id\": }").unwrap();
        assert!(read(&other).unwrap_err().text.contains("line 1 column 8"));
        std::fs::write(&other, b"\xff").unwrap();
        assert!(read(&other).unwrap_err().text.contains("UTF-8"));
    }

    #[test]
    fn a_pair_sets_a_field() {
        let mut document = Map::new();
        for pair in ["a=1", "b=true", "c=write_through", "d=[\"x\"]", "e=a=b", "f="] {
            set(&mut document, pair).unwrap();
        }
        let expected = serde_json::json!({
            "a": 1, "b": true, "c": "write_through", "d": ["x"], "e": "a=b", "f": ""
        });
        assert_eq!(Value::Object(document.clone()), expected);
        assert!(set(&mut document, "=1").is_err() && set(&mut document, "a").is_err());
    }
}
