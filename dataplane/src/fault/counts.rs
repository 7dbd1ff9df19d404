//! What became of the packets on a wire.

use std::fmt::{self, Write as _};

use nautilus_ebpf::fault::FaultCounts;

/// What became of the packets of a line that were held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Found no room to wait in.
    pub full: u64,
    /// Left, each once.
    pub left: u64,
    /// Left, each copy.
    pub copies: u64,
    /// Were overtaken.
    pub reordered: u64,
    /// Shortest, longest and all time from coming to leaving.
    pub least_ns: u64,
    /// Longest.
    pub most_ns: u64,
    /// All together.
    pub sum_ns: u64,
}

impl Held {
    /// One left so long after it had come.
    pub(super) fn leave(&mut self, delay_ns: u64) {
        self.least_ns = if self.left == 0 { delay_ns } else { self.least_ns.min(delay_ns) };
        self.most_ns = self.most_ns.max(delay_ns);
        self.sum_ns = self.sum_ns.saturating_add(delay_ns);
        self.left += 1;
    }
}

/// What became of the packets of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineReport {
    /// Its name.
    pub name: String,
    /// Came.
    pub received: u64,
    /// Went on, each once.
    pub passed: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Bursts of losses.
    pub bursts: u64,
    /// Of those not lost: had one bit turned.
    pub corrupted: u64,
    /// Of those passed: went on twice.
    pub duplicated: u64,
    /// Of those passed: were overtaken.
    pub reordered: u64,
    /// Of those passed: were held; for no moment, perhaps.
    pub held: u64,
    /// Were to be held and found no room, in the socket or in the hold.
    pub queue_full: u64,
    /// Wait still.
    pub waiting: u64,
    /// Shortest, mean and longest time that they were held, nanoseconds.
    pub held_ns: [u64; 3],
}

impl LineReport {
    /// From what the program counted and, of a line that holds, the user-space half.
    pub(super) fn new(name: String, counts: &FaultCounts, held: Option<(Held, u64)>) -> Self {
        let report = Self {
            name,
            received: counts.received,
            lost: counts.lost,
            bursts: counts.bursts,
            corrupted: counts.corrupted,
            ..Self::default()
        };
        match held {
            None => Self {
                passed: counts.received - counts.lost,
                duplicated: counts.duplicated,
                ..report
            },
            Some((held, waiting)) => Self {
                passed: held.left,
                duplicated: held.copies.saturating_sub(held.left),
                reordered: held.reordered,
                held: held.left,
                queue_full: counts.handed.saturating_sub(held.left + waiting),
                waiting,
                held_ns: [
                    held.least_ns,
                    held.sum_ns.checked_div(held.left).unwrap_or(0),
                    held.most_ns,
                ],
                ..report
            },
        }
    }
}

/// What became of all packets of a wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By line, in the file's order.
    pub lines: Vec<LineReport>,
    /// Packets of no line, forward and back.
    pub others: [u64; 2],
    /// Packets that the second and the first interface did not take since the start; None where its statistics
    /// are out of sight.
    pub undelivered: [Option<u64>; 2],
}

impl Report {
    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        let mut out = "{\"lines\":[".to_owned();
        for (index, line) in self.lines.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let [least, mean, most] = line.held_ns;
            write!(
                out,
                "{comma}{{\"name\":{},\"received\":{},\"passed\":{},\"lost\":{},\"bursts\":{},\
                 \"corrupted\":{},\"duplicated\":{},\"reordered\":{},\"held\":{},\"queue_full\":{},\
                 \"waiting\":{},\"held_ns_min\":{least},\"held_ns_mean\":{mean},\"held_ns_max\":{most}}}",
                quoted(&line.name),
                line.received,
                line.passed,
                line.lost,
                line.bursts,
                line.corrupted,
                line.duplicated,
                line.reordered,
                line.held,
                line.queue_full,
                line.waiting,
            )
            .expect("a String takes everything");
        }
        let undelivered =
            self.undelivered.map(|count| count.map_or("null".into(), |n| n.to_string()));
        write!(
            out,
            "],\"others\":{{\"forward\":{},\"back\":{}}},\"undelivered\":{{\"forward\":{},\"back\":{}}}}}",
            self.others[0], self.others[1], undelivered[0], undelivered[1]
        )
        .expect("a String takes everything");
        out
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => {
                write!(out, "\\u{:04x}", character as u32).expect("a String takes everything");
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEADS: [&str; 9] = [
            "received",
            "passed",
            "lost",
            "bursts",
            "corrupted",
            "duplicated",
            "reordered",
            "held",
            "queue full",
        ];
        write!(f, "{:<24}", "line")?;
        for head in HEADS {
            write!(f, "{head:>12}")?;
        }
        writeln!(f, "{:>30}", "held us, min/mean/max")?;
        for line in &self.lines {
            write!(f, "{:<24}", line.name)?;
            for count in [
                line.received,
                line.passed,
                line.lost,
                line.bursts,
                line.corrupted,
                line.duplicated,
                line.reordered,
                line.held,
                line.queue_full,
            ] {
                write!(f, "{count:>12}")?;
            }
            if line.held == 0 {
                writeln!(f, "{:>30}", "-")?;
            } else {
                let times = line.held_ns.map(|ns| format!("{:.1}", ns as f64 / 1e3)).join("/");
                writeln!(f, "{times:>30}")?;
            }
        }
        writeln!(f, "others: {} forward, {} back, unharmed", self.others[0], self.others[1])?;
        for (way, count) in ["forward", "back"].into_iter().zip(self.undelivered) {
            match count {
                Some(0) => {}
                Some(count) => writeln!(f, "not taken by the interface {way} leads to: {count}")?,
                None => writeln!(f, "what the interface {way} leads to did not take is not known")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_json_whatever_a_line_is_called() {
        let name = "a \"line\" \\ \u{1}".to_owned();
        let counts = FaultCounts { received: 10, lost: 3, duplicated: 1, ..FaultCounts::default() };
        let line = LineReport::new(name, &counts, None);
        let report = Report { lines: vec![line], others: [1, 2], undelivered: [Some(0), None] };
        assert_eq!(
            report.to_json(),
            "{\"lines\":[{\"name\":\"a \\\"line\\\" \\\\ \\u0001\",\"received\":10,\"passed\":7,\
             \"lost\":3,\"bursts\":0,\"corrupted\":0,\"duplicated\":1,\"reordered\":0,\"held\":0,\
             \"queue_full\":0,\"waiting\":0,\"held_ns_min\":0,\"held_ns_mean\":0,\"held_ns_max\":0}],\
             \"others\":{\"forward\":1,\"back\":2},\"undelivered\":{\"forward\":0,\"back\":null}}"
        );
    }

    #[test]
    fn what_neither_left_nor_waits_found_no_room() {
        let counts = FaultCounts { received: 10, lost: 1, handed: 9, ..FaultCounts::default() };
        let mut held = Held { copies: 5, ..Held::default() };
        [5, 3, 10, 2].into_iter().for_each(|ns| held.leave(ns));
        let line = LineReport::new("a".into(), &counts, Some((held, 2)));
        assert_eq!((line.passed, line.duplicated, line.queue_full), (4, 1, 3));
        assert_eq!(line.held_ns, [2, 5, 10]);
    }
}
