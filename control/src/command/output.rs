//! What goes to the terminal, or into a pipe that may be closed at any time.

use std::io::{IsTerminal, Write};

/// Width of tables where nobody says one.
const WIDTH: usize = 160;

/// Writes to stdout, a line end behind it if it has none; false when nobody reads it any more.
pub fn print(bytes: impl AsRef<[u8]>) -> bool {
    let bytes = bytes.as_ref();
    let end: &[u8] = if bytes.is_empty() || bytes.ends_with(b"\n") { b"" } else { b"\n" };
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.write_all(end)).and_then(|()| out.flush()).is_ok()
}

/// Writes to stdout as it is; false when nobody reads it any more.
pub fn print_exactly(bytes: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

/// A line for the operator. That nobody reads it is no reason to end.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "nautilus: {text}");
}

/// A line on how far it is, without more.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Columns that a table may have: `COLUMNS` where it is set, else the terminal's, else 160.
pub fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let said = said.filter(|columns| (20..=10_000).contains(columns));
    said.unwrap_or_else(|| {
        let terminal = console::Term::stdout();
        match std::io::stdout().is_terminal().then(|| terminal.size_checked()).flatten() {
            Some((_, columns)) if columns >= 20 => usize::from(columns),
            _ => WIDTH,
        }
    })
}
