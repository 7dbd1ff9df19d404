//! Whether a trail is whole: every record follows the one before, every signature holds, no file is
//! missing but those whose going was recorded.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::line::{Line, digits};
use super::{Fault, Files};

/// Clocks that part by more between two records are noted. Too low: slewing is; too high: a step is not.
const CLOCK_STEP_NS: i64 = 500_000_000;

/// What is known from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Public keys that may have signed.
    pub keys: Vec<[u8; 32]>,
    /// A record that was there: its number and hash, as `HEAD` of an earlier report.
    pub head: Option<(u64, [u8; 32])>,
}

/// What a whole trail is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The id in its first records.
    pub trail: String,
    /// Numbers of the first and the last record.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// The hash of the last.
    pub head: [u8; 32],
    /// The last record under a signature; those behind it could be cut or made up by who can write here.
    pub signed: u64,
    /// What an auditor should look at: repairs, moved clocks, refused work, files that went.
    pub notes: Vec<String>,
}

struct Walk<'a> {
    expected: &'a Expected,
    trail: Option<String>,
    key: [u8; 32],
    sequence: u64,
    hash: [u8; 32],
    signed: u64,
    notes: Vec<String>,
    clocks: Option<(i64, i64)>,
    boot_id: String,
    /// Where the first file begins, until a record says why nothing is before it.
    unexplained: Option<(u64, [u8; 32])>,
    head_seen: bool,
}

/// Verifies the files of a trail. The first thing that does not hold ends it.
pub fn verify(files: &Files, expected: &Expected) -> Result<Report, Fault> {
    let mut walk = Walk {
        expected,
        trail: None,
        key: [0; 32],
        sequence: 0,
        hash: [0; 32],
        signed: 0,
        notes: Vec::new(),
        clocks: None,
        boot_id: String::new(),
        unexplained: None,
        head_seen: expected.head.is_none(),
    };
    let mut first = 0;
    for (name, bytes) in files {
        let mut at_bytes = 0;
        let fault = |walk: &Walk<'_>, at_bytes: usize, what: String| Fault {
            file: name.clone(),
            at_bytes,
            after: walk.sequence,
            what,
        };
        if bytes.is_empty() {
            return Err(fault(&walk, 0, "the file is empty".into()));
        }
        while at_bytes < bytes.len() {
            let rest = &bytes[at_bytes..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                let what = format!("the last {} bytes are no whole record", rest.len());
                return Err(fault(&walk, at_bytes, what));
            };
            let opening = (at_bytes == 0).then_some(name.as_str());
            walk.step(&rest[..length], opening).map_err(|what| fault(&walk, at_bytes, what))?;
            if first == 0 {
                first = walk.sequence;
            }
            at_bytes += length + 1;
        }
    }
    let fault = |what: &str| Fault {
        file: files.last().map_or_else(String::new, |(name, _)| name.clone()),
        at_bytes: files.last().map_or(0, |(_, bytes)| bytes.len()),
        after: walk.sequence,
        what: what.into(),
    };
    if let Some((sequence, _)) = walk.unexplained {
        return Err(fault(&format!("records before {sequence} are missing, and none says why")));
    }
    if walk.signed == 0 {
        return Err(fault("there is no signature"));
    }
    if !walk.head_seen {
        return Err(fault("the head that is expected is not in the trail: its end was cut"));
    }
    let Walk { trail, sequence, hash, signed, notes, .. } = walk;
    let trail = trail.unwrap_or_default();
    Ok(Report { trail, first, last: sequence, head: hash, signed, notes })
}

impl Walk<'_> {
    /// Takes one record; `opening` is the name of the file that it is the first of.
    fn step(&mut self, bytes: &[u8], opening: Option<&str>) -> Result<(), String> {
        let line = Line::read(bytes)?;
        let sequence = u64::try_from(line.number("sequence")?).map_err(|_| "a negative number")?;
        let kind = line.text("kind")?;
        if opening.is_some() != (kind == "file") {
            return Err(format!("a record of kind {kind} does not belong here"));
        }
        if let Some(name) = opening {
            self.open(&line, sequence, name)?;
        }
        if sequence != self.sequence + 1 {
            return Err(format!("record {sequence} follows record {}", self.sequence));
        }
        let mut context = Context::new(&SHA256);
        context.update(&self.hash);
        context.update(line.json);
        if context.finish().as_ref() != line.hash {
            return Err(format!("record {sequence} is not what was written: its hash differs"));
        }
        match kind {
            "checkpoint" => self.check_signature(&line, sequence)?,
            "pruned" => self.explain(&line)?,
            "repair" => self.note(sequence, format!("a torn write was cut: {}", text_of(&line))),
            "unrecorded" => self.note(sequence, format!("work was refused: {}", text_of(&line))),
            "start" => {
                let boot_id = line.text("boot_id")?;
                if self.boot_id != boot_id {
                    (self.clocks, self.boot_id) = (None, boot_id.to_owned());
                }
            }
            "file" | "action" | "clock" => {}
            other => return Err(format!("a record of unknown kind {other}")),
        }
        (self.sequence, self.hash) = (sequence, line.hash);
        self.compare_clocks(&line, sequence, kind)?;
        if self.expected.head.is_some_and(|(number, _)| number == sequence) {
            self.head_seen = self.expected.head == Some((sequence, line.hash));
        }
        Ok(())
    }

    /// The first record of a file says where it belongs and who signs in it.
    fn open(&mut self, line: &Line<'_>, sequence: u64, name: &str) -> Result<(), String> {
        if name != format!("audit-{sequence:020}.log") {
            return Err(format!("the file's name is not that of record {sequence}"));
        }
        if line.number("format")? != 1 {
            return Err("a format of another version".into());
        }
        let previous = digits(line.text("previous")?).ok_or("previous is no hash")?;
        let trail = line.text("trail")?;
        match &self.trail {
            None => {
                self.trail = Some(trail.into());
                (self.sequence, self.hash) = (sequence.saturating_sub(1), previous);
                if sequence != 1 || previous != [0; 32] {
                    self.unexplained = Some((sequence, previous));
                }
            }
            Some(known) if known != trail => return Err("a file of another trail".into()),
            Some(_) if self.hash != previous => {
                return Err("the file does not follow the one before: one is missing".into());
            }
            Some(_) => {}
        }
        self.key = digits(line.text("key")?).ok_or("key is no key")?;
        if !self.expected.keys.contains(&self.key) {
            return Err("signed with a key that is not among those given".into());
        }
        Ok(())
    }

    fn check_signature(&mut self, line: &Line<'_>, sequence: u64) -> Result<(), String> {
        let head = line.text("head")?;
        if digits(head) != Some(self.hash) {
            return Err("a signature over another record".into());
        }
        let (trail, time) = (self.trail.as_deref().unwrap_or_default(), line.text("time")?);
        let text = format!("nautilus audit checkpoint 1\n{trail}\n{sequence}\n{time}\n{head}\n");
        let signature: [u8; 64] = digits(line.text("signature")?).ok_or("no signature")?;
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| format!("the signature of record {sequence} does not hold"))?;
        self.signed = sequence;
        Ok(())
    }

    /// A record of a file that went may say why the trail does not begin at its beginning.
    fn explain(&mut self, line: &Line<'_>) -> Result<(), String> {
        let next = u64::try_from(line.number("next_sequence")?).map_err(|_| "a negative number")?;
        let last: [u8; 32] = digits(line.text("last_hash")?).ok_or("last_hash is no hash")?;
        if self.unexplained == Some((next, last)) {
            self.unexplained = None;
            self.notes.push(format!("records before {next} were exported and removed"));
        }
        Ok(())
    }

    fn compare_clocks(&mut self, line: &Line<'_>, sequence: u64, kind: &str) -> Result<(), String> {
        let wall = ns_of(line.text("time")?).ok_or("time is not written as one")?;
        let boot = line.number("boot_ns")?;
        // The first record of a file may be of the next boot, before the record that says so.
        if kind == "file" {
            return Ok(());
        }
        if let Some((wall_before, boot_before)) = self.clocks {
            let step = (wall - wall_before) - (boot - boot_before);
            if step.abs() > CLOCK_STEP_NS {
                let seconds = step as f64 / 1e9;
                self.note(sequence, format!("the wall clock was moved by {seconds:+.3} s"));
            }
            if boot < boot_before {
                self.note(sequence, "the clock since boot went back".into());
            }
        }
        self.clocks = Some((wall, boot));
        Ok(())
    }

    fn note(&mut self, sequence: u64, what: String) {
        self.notes.push(format!("record {sequence}: {what}"));
    }
}

fn text_of(line: &Line<'_>) -> String {
    String::from_utf8_lossy(line.json).into_owned()
}

/// Nanoseconds since 1970 of a time as it stands in records.
fn ns_of(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')];
    let shaped = text.len() == 30 && marks.iter().all(|(at, mark)| text.as_bytes()[*at] == *mark);
    if !shaped {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days to the first of March, after which a month's length no longer depends on the year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(number(20, 29)?)
}

#[cfg(test)]
mod tests {
    use super::ns_of;

    #[test]
    fn times_are_read_as_the_calendar_has_them() {
        // From `date -u -d @N`.
        for (text, seconds) in [
            ("1970-01-01T00:00:00.000000007Z", 0),
            ("2000-02-29T00:00:00.000000007Z", 951_782_400),
            ("2026-11-30T23:59:59.000000007Z", 1_796_083_199),
            ("2100-01-01T00:00:00.000000007Z", 4_102_444_800),
            ("1969-12-31T23:59:59.000000007Z", -1),
        ] {
            assert_eq!(ns_of(text), Some(seconds * 1_000_000_000 + 7), "{text}");
        }
        for text in ["", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.00000000xZ"] {
            assert_eq!(ns_of(text), None, "{text}");
        }
    }
}
