//! A cache as the command line describes it: the section of a node file for a node's supervisor, or the
//! document for a control. They check all of it; nothing is decided here.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::attach::{ReachError, create_cache, remove_cache};

/// A cache that is to be made. What is left out is as in a node file.
#[derive(Args, Debug)]
pub struct CacheToCreate {
    /// Id, unique on the node: [a-z0-9] first, then [a-z0-9_.-], at most 63 in all
    id: String,
    /// Run directory of the node, which is asked without a control
    #[arg(long, value_name = "RUN_DIR", requires = "port")]
    pub node: Option<PathBuf>,
    /// UDP and TCP port, unique on the node
    #[arg(long)]
    port: Option<u16>,
    /// Memory of the table, 8..=65536 MiB
    #[arg(long)]
    max_memory_mb: Option<u32>,
    /// Longest value that clients may store
    #[arg(long)]
    max_value_bytes: Option<u32>,
    /// Memory on huge pages that the host has reserved
    #[arg(long)]
    huge_pages: bool,
    /// Whether keys that are asked for often are answered in XDP
    #[arg(long)]
    hot_set: Option<bool>,
    /// User name or uid that may map it read-only; may be repeated
    #[arg(long = "reader", value_name = "USER")]
    readers: Vec<String>,
    /// Who may do what with it, in place of the node's sources: PREFIX=read,write,admin; may be repeated
    #[arg(long = "source", value_name = "PREFIX=RIGHTS")]
    sources: Vec<String>,
}

/// A cache that is to go.
#[derive(Args, Debug)]
pub struct CacheToRemove {
    /// Its id
    id: String,
    /// Run directory of the node
    #[arg(long, value_name = "RUN_DIR")]
    node: PathBuf,
}

impl CacheToCreate {
    /// Its section of a node file.
    fn section(&self) -> String {
        let mut text = format!("id = {}\n", quoted(&self.id));
        // Writing to a string does not fail.
        for (key, value) in [
            ("port", self.port.map(|value| value.to_string())),
            ("max_memory_mb", self.max_memory_mb.map(|value| value.to_string())),
            ("max_value_bytes", self.max_value_bytes.map(|value| value.to_string())),
            ("huge_pages", self.huge_pages.then(|| "true".into())),
            ("hot_set", self.hot_set.map(|value| value.to_string())),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        let readers: Vec<String> = self.readers.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(text, "readers = [{}]", readers.join(", "));
        if !self.sources.is_empty() {
            let sources: Vec<String> =
                self.sources.iter().map(|source| source_entry(source)).collect();
            let _ = writeln!(text, "sources = [{}]", sources.join(", "));
        }
        text
    }

    /// Has the node of this run directory make it, and says what it said.
    pub fn create(&self, run_dir: &Path) -> Result<String, ReachError> {
        create_cache(run_dir, &self.section())
    }

    /// The fields of it that were said, as a control reads them.
    pub fn fields(&self) -> Map<String, Value> {
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|source| {
                let (prefix, rights) = split_source(source);
                json!({ "prefix": prefix, "allow": rights })
            })
            .collect();
        let fields = [
            ("cache_id", Some(json!(self.id))),
            ("port", self.port.map(Value::from)),
            ("max_memory_mb", self.max_memory_mb.map(Value::from)),
            ("max_value_bytes", self.max_value_bytes.map(Value::from)),
            ("huge_pages", self.huge_pages.then_some(Value::Bool(true))),
            ("hot_set", self.hot_set.map(Value::from)),
            ("readers", (!self.readers.is_empty()).then(|| json!(self.readers))),
            ("sources", (!sources.is_empty()).then_some(Value::Array(sources))),
        ];
        let said = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        said.collect()
    }
}

impl CacheToRemove {
    /// Has it removed, and says what the node said.
    pub fn remove(&self) -> Result<String, ReachError> {
        remove_cache(&self.node, &self.id)
    }
}

/// `PREFIX=read,write`; without rights, none.
fn split_source(source: &str) -> (&str, Vec<&str>) {
    let (prefix, rights) = source.split_once('=').unwrap_or((source, ""));
    (prefix, rights.split(',').filter(|right| !right.is_empty()).collect())
}

/// The same as an entry of a node file's list.
fn source_entry(source: &str) -> String {
    let (prefix, rights) = split_source(source);
    let rights: Vec<String> = rights.into_iter().map(quoted).collect();
    format!("{{ prefix = {}, allow = [{}] }}", quoted(prefix), rights.join(", "))
}

/// A TOML string: only what is printed as itself stands in it as itself.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(id: &str) -> CacheToCreate {
        CacheToCreate {
            id: id.into(),
            node: Some("/run/n".into()),
            port: Some(7),
            max_memory_mb: Some(8),
            max_value_bytes: None,
            huge_pages: true,
            hot_set: Some(false),
            readers: vec!["alice".into(), "61".into()],
            sources: vec!["198.18.0.0/16=read,write".into(), "198.18.1.0/24".into()],
        }
    }

    #[test]
    fn a_section_is_what_the_node_file_would_have() {
        let expected = "id = \"q\"\nport = 7\nmax_memory_mb = 8\nhuge_pages = true\nhot_set = false\n\
                        readers = [\"alice\", \"61\"]\n\
                        sources = [{ prefix = \"198.18.0.0/16\", allow = [\"read\", \"write\"] }, \
                        { prefix = \"198.18.1.0/24\", allow = [] }]\n";
        assert_eq!(wanted("q").section(), expected);
    }

    #[test]
    fn a_control_is_told_what_was_said_and_no_more() {
        let expected = json!({
            "cache_id": "q", "port": 7, "max_memory_mb": 8, "huge_pages": true, "hot_set": false,
            "readers": ["alice", "61"],
            "sources": [{"prefix": "198.18.0.0/16", "allow": ["read", "write"]},
                        {"prefix": "198.18.1.0/24", "allow": []}],
        });
        assert_eq!(Value::Object(wanted("q").fields()), expected);
    }

    #[test]
    fn an_id_stays_one_string_whatever_is_in_it() {
        for id in ["q\"\nport = 9\n#", "\\", "\u{7f}\t\0", "ü"] {
            let section = wanted(id).section();
            let parsed: toml::Table = toml::from_str(&section).unwrap();
            assert_eq!(parsed["id"].as_str(), Some(id), "{section}");
            assert_eq!(parsed["port"].as_integer(), Some(7));
        }
    }
}
