//! `nautilus cache get` and `put`: values as they are, and what is known of them.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use super::connect::Connect;
use super::document;
use super::exit::{Exit, Failure};
use super::output::{note, print, print_exactly};
use super::sheet::sheet;
use crate::audit::hex;
use crate::client::{Answer, Call};

/// What a value's headers say, and the field that shows it.
const TOLD: [(&str, &str); 5] = [
    ("etag", "etag"),
    ("age-us", "age_us"),
    ("expires-ms", "expires_ms"),
    ("source-sequence", "source_sequence"),
    ("suspect", "suspect"),
];

/// A key of a cache.
#[derive(Args, Debug)]
pub struct Item {
    /// The cache
    cache_id: String,
    /// The key
    key: String,
    /// The node, where several have a cache of this id
    #[arg(long, value_name = "NODE_ID")]
    node: Option<String>,
    /// Takes the value even if its feed has a gap or is silent
    #[arg(long)]
    allow_suspect: bool,
    /// Says on standard error what is known of it: version, age, end, source
    #[arg(long)]
    told: bool,
}

impl Item {
    /// Writes its value to stdout; with `--json` a document of value and headers.
    pub fn get(&self, connect: &Connect) -> Result<Exit, Failure> {
        let suspect = self.allow_suspect.then_some("allow");
        let call = Call::get("cache/{}", &[&self.cache_id])
            .with("key", &self.key)
            .with_some("node", self.node.as_deref())
            .with_some("suspect", suspect)
            .header("accept", Some("*/*".into()));
        let answer = connect.ask(&connect.client()?, &call)?;
        if connect.json {
            let mut document = told(&answer);
            document.insert("key".into(), self.key.as_str().into());
            match std::str::from_utf8(&answer.body) {
                Ok(text) => document.insert("value".into(), text.into()),
                Err(_) => document.insert("value_hex".into(), hex(&answer.body).into()),
            };
            print(Value::Object(document).to_string());
            return Ok(Exit::Done);
        }
        if self.told {
            note(sheet(&Value::Object(told(&answer))).trim_end());
        }
        print_exactly(&answer.body);
        Ok(Exit::Done)
    }
}

/// What the headers of an answer say of its value; numbers as numbers.
fn told(answer: &Answer) -> Map<String, Value> {
    let said = TOLD.iter().filter_map(|(header, field)| {
        let text = answer.header(header)?;
        let value = text.parse::<u64>().map_or_else(|_| text.into(), Value::from);
        Some(((*field).to_owned(), value))
    });
    said.collect()
}

/// A value that is to be stored.
#[derive(Args, Debug)]
pub struct ItemToPut {
    /// The cache
    cache_id: String,
    /// The key
    key: String,
    /// The value
    #[arg(required_unless_present = "file")]
    value: Option<String>,
    /// A file that holds the value; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// The node, where several have a cache of this id
    #[arg(long, value_name = "NODE_ID")]
    node: Option<String>,
    /// Milliseconds until it ends
    #[arg(long)]
    ttl_ms: Option<u64>,
    /// Only in place of this version
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only if there is none
    #[arg(long, conflicts_with = "if_match")]
    add: bool,
    /// Says what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
}

impl ItemToPut {
    /// Stores it and says its version.
    pub fn put(&self, connect: &Connect) -> Result<Exit, Failure> {
        let value = match (&self.file, &self.value) {
            (Some(path), _) => document::bytes(path)?,
            (None, value) => value.clone().unwrap_or_default().into_bytes(),
        };
        let call = Call::new(hyper::Method::PUT, "cache/{}", &[&self.cache_id])
            .with("key", &self.key)
            .with_some("node", self.node.as_deref())
            .with_some("ttl_ms", self.ttl_ms)
            .with_flag("dry_run", self.dry_run)
            .header("if-match", self.if_match.clone())
            .header("if-none-match", self.add.then(|| "*".into()))
            .bytes("application/octet-stream", value);
        let client = connect.client()?;
        let answer = connect.ask(&client, &call)?;
        if answer.body.is_empty() {
            let told = Value::Object(told(&answer));
            match connect.json {
                true => print(told.to_string()),
                false => print(sheet(&told)),
            };
            return Ok(Exit::Done);
        }
        connect.show(&client, &call, &answer, sheet)
    }
}
