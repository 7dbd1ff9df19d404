//! What a verified trail says, for other programs; and copies of its closed files, with the receipts
//! that let them go.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::line::Line;
use super::{Expected, Files, VerifierError, verify};

/// How records are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, as recorded.
    Json,
    /// A header and one row a record.
    Csv,
}

/// From when to when: `since` is inside, `until` is not.
#[derive(Clone, Debug, Default)]
pub struct Window {
    since: Option<String>,
    until: Option<String>,
}

/// Fields of a row; what else a record has stands in the last.
const COLUMNS: [&str; 9] =
    ["sequence", "time", "kind", "actor", "verb", "object", "outcome", "request_id", "reason"];

impl Window {
    /// Times are RFC 3339 in UTC, or the front of one, such as `2026-11-29`.
    pub fn new(since: Option<&str>, until: Option<&str>) -> Result<Self, VerifierError> {
        let front = |text: &str| {
            let text = text.strip_suffix('Z').unwrap_or(text);
            let shape = "dddd-dd-ddTdd:dd:dd.ddddddddd";
            let fits = text.len() >= 4 && text.len() <= shape.len();
            let same = text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                mark => byte == mark,
            });
            let wrong = format!("{text:?} is no time such as 2026-11-29T10:00:00Z");
            if fits && same { Ok(text.to_owned()) } else { Err(VerifierError::Usage(wrong)) }
        };
        Ok(Self { since: since.map(front).transpose()?, until: until.map(front).transpose()? })
    }

    /// Times of records have one width, so their texts order as they do.
    fn holds(&self, time: &str) -> bool {
        self.since.as_deref().is_none_or(|since| time >= since)
            && self.until.as_deref().is_none_or(|until| time < until)
    }
}

/// Verifies the trail, then writes the records of the window.
pub fn export(
    files: &Files,
    expected: &Expected,
    window: &Window,
    format: Format,
    out: &mut dyn Write,
) -> Result<u64, VerifierError> {
    verify(files, expected)?;
    let wrong = |source| VerifierError::Io { path: "output".into(), source };
    if format == Format::Csv {
        writeln!(out, "{},more", COLUMNS.join(",")).map_err(wrong)?;
    }
    let mut count = 0;
    for bytes in files.iter().flat_map(|(_, bytes)| bytes.split(|byte| *byte == b'\n')) {
        let Ok(line) = Line::read(bytes) else { continue };
        if !line.text("time").is_ok_and(|time| window.holds(time)) {
            continue;
        }
        match format {
            Format::Json => out.write_all(line.json).and_then(|()| out.write_all(b"\n")),
            Format::Csv => writeln!(out, "{}", row(line.fields)),
        }
        .map_err(wrong)?;
        count += 1;
    }
    Ok(count)
}

fn row(mut fields: Map<String, Value>) -> String {
    let mut cells: Vec<String> = Vec::new();
    for column in COLUMNS {
        cells.push(match fields.remove(column) {
            None => String::new(),
            Some(Value::String(text)) => cell(&text),
            Some(other) => cell(&other.to_string()),
        });
    }
    cells.push(cell(&Value::Object(fields).to_string()));
    cells.join(",")
}

/// A field of a row. What a spreadsheet would take for a formula gets an apostrophe: paths are
/// written by strangers.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\""))
}

/// Copies every file but the last, which is still written to, and leaves a receipt with each. Returns
/// the names of those that were copied.
pub fn archive(
    files: &Files,
    expected: &Expected,
    dir: &Path,
    destination: &Path,
) -> Result<Vec<String>, VerifierError> {
    verify(files, expected)?;
    let wrong = |path: &Path| {
        let path = path.display().to_string();
        move |source| VerifierError::Io { path, source }
    };
    let mut copied = Vec::new();
    for (name, bytes) in files.iter().rev().skip(1).rev() {
        let receipt = dir.join(format!("{name}.exported"));
        if receipt.exists() {
            continue;
        }
        let copy = destination.join(name);
        write_durably(&copy, bytes).map_err(wrong(&copy))?;
        std::fs::File::open(destination).and_then(|dir| dir.sync_all()).map_err(wrong(&copy))?;
        let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let hash = last.and_then(|line| line.get(..64)).unwrap_or_default();
        write_durably(&receipt, hash).map_err(wrong(&receipt))?;
        copied.push(name.clone());
    }
    Ok(copied)
}

fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
