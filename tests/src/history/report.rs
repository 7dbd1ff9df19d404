//! What a violation looks like in print: the operations around the point where no order exists.

use std::fmt::{self, Display, Formatter};

use super::check::{Checked, Found};
use super::operation::{Operation, Output};

/// Violations printed in full.
const PRINTED_MAX: usize = 3;

impl Display for Checked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations on {} keys, {} without an answer; {} keys without an order, {} undecided",
            self.operations_count,
            self.keys_count,
            self.unanswered_count,
            self.violations.len(),
            self.undecided.len()
        )?;
        self.violations.iter().take(PRINTED_MAX).try_for_each(|found| write!(f, "{found}"))
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = self.operations.len();
        let Some(blocked) = self.window.blocked else {
            return writeln!(f, "key {:#x}: no order of its {count} operations", self.key);
        };
        writeln!(
            f,
            "key {:#x}: no order of its {count} operations explains the one marked >",
            self.key
        )?;
        let shown = || self.window.order.iter().chain(&self.window.candidates).chain([&blocked]);
        let start_ns = shown().map(|&index| self.operations[index].invoke_ns).min().unwrap_or(0);
        writeln!(
            f,
            "  the end of an order of what had returned before, times from {start_ns} ns:"
        )?;
        for &index in &self.window.order {
            line(f, ' ', &self.operations[index], start_ns)?;
        }
        writeln!(f, "  after it: {}", self.window.state)?;
        writeln!(f, "  none of these can be next:")?;
        for &index in &self.window.candidates {
            let mark = if index == blocked { '>' } else { '?' };
            line(f, mark, &self.operations[index], start_ns)?;
        }
        Ok(())
    }
}

fn line(f: &mut Formatter<'_>, mark: char, operation: &Operation, start_ns: u64) -> fmt::Result {
    let invoke_ns = operation.invoke_ns - start_ns;
    let returned = operation.returned.map_or_else(
        || "never".to_owned(),
        |returned| returned.at_ns.saturating_sub(start_ns).to_string(),
    );
    let (client, path) = (operation.client, operation.path);
    write!(f, "  {mark} {invoke_ns:>10} {returned:>10}  client {client} path {path}  ")?;
    write!(f, "{:x?}", operation.input)?;
    match operation.returned.map(|returned| returned.output) {
        None => writeln!(f, " -> no answer"),
        Some(Output::Value { value, version: None }) => writeln!(f, " -> {value:#x}"),
        Some(output) => writeln!(f, " -> {output:x?}"),
    }
}
