//! The body of a question: a file, fields named on the command line, or both.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use super::document;
use super::exit::Failure;
use crate::client::Call;

/// Where a document comes from.
#[derive(Args, Clone, Debug)]
pub struct Body {
    /// The document in JSON or TOML; - for standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Sets a field of it; VALUE is JSON, or else text; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Says what would come of it, and changes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Body {
    /// The document.
    pub fn document(&self) -> Result<Map<String, Value>, Failure> {
        let mut fields = match &self.file {
            None => Map::new(),
            Some(path) => match document::read(path)? {
                Value::Object(fields) => fields,
                _ => {
                    return Err(Failure::usage(format!("{}: an object is needed", path.display())));
                }
            },
        };
        for pair in &self.set {
            document::set(&mut fields, pair)?;
        }
        Ok(fields)
    }

    /// The question with it.
    pub fn of(&self, call: Call) -> Result<Call, Failure> {
        let document = Value::Object(self.document()?);
        Ok(self.asks_only(call.json(&document)))
    }

    /// The question, so that nothing is changed where that is what was asked for.
    pub fn asks_only(&self, call: Call) -> Call {
        call.with_flag("dry_run", self.dry_run)
    }
}
