//! I2: the audit trail, durable before the reply: requests and writer on one core, as many in flight as a burst has;
//! and its verifier over what the run wrote, whole and altered in every way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use nautilus_control::audit::{Actor, AuditOptions, Auditor, Entry, Outcome};
use nautilus_control::verifier::{self, Expected, Files, keys_in};

use crate::clock::{GENERATOR_CORE, SERVER_CORE, pin};
use crate::probe::Beside;
use crate::run::{Bench, Half};

/// Requests that wait for their record at any time. Too low: flushes carry less than they could; too high: more than
/// the trail lets wait.
const IN_FLIGHT: usize = 4_096;

/// Records, beside the three that begin a trail, of the part that is altered bit by bit.
const ALTERED_RECORDS: usize = 8;

/// The row.
pub struct I2 {
    duration: Duration,
}

/// What one run of the writer gave.
struct Written {
    events: u64,
    elapsed: Duration,
    waited: Histogram<u64>,
}

impl I2 {
    /// Nothing to set up.
    pub fn new(quick: bool) -> Self {
        Self { duration: Duration::from_millis(if quick { 800 } else { 2_000 }) }
    }
}

/// A change as an operator makes it.
fn entry(number: u64) -> Entry {
    Entry {
        actor: Actor {
            kind: "certificate",
            name: "spiffe://ny4/operator/person/alice serial 0123456789abcdef".into(),
            role: "operator".into(),
            address: "198.18.0.7:41234".into(),
        },
        verb: "POST".into(),
        object: "/api/v1/edge/cache/create".into(),
        outcome: Outcome::Begun,
        request_id: format!("{number:024x}"),
        reason: String::new(),
    }
}

/// Where results lie, so on a disk and not in memory.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let results = crate::results::folder();
    std::fs::create_dir_all(&results)?;
    Ok(tempfile::Builder::new().prefix("i2-").tempdir_in(results)?)
}

/// Everything on the calling thread's core: tokio's one thread, and the writer's, which inherits it.
fn write(dir: &Path, duration: Duration) -> anyhow::Result<Written> {
    let auditor = Auditor::open(AuditOptions::of(dir.into()))?;
    for number in 0..ALTERED_RECORDS as u64 {
        auditor.record_blocking(entry(number)).map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let begin = Instant::now();
        let one = |task: usize| {
            let auditor = auditor.clone();
            tokio::spawn(async move {
                let (mut number, mut waited) = ((task as u64) << 40, Vec::new());
                while begin.elapsed() < duration {
                    let asked = Instant::now();
                    if let Err(error) = auditor.record(entry(number)).await {
                        return Err(anyhow::anyhow!("{error}"));
                    }
                    number += 1;
                    waited.push(asked.elapsed().as_nanos() as u64);
                }
                Ok(waited)
            })
        };
        let tasks: Vec<_> = (0..IN_FLIGHT).map(one).collect();
        let (mut events, mut waited) = (0, Histogram::new(3)?);
        for task in tasks {
            let one = task.await??;
            events += one.len() as u64;
            for waited_ns in one {
                waited.record(waited_ns)?;
            }
        }
        Ok(Written { events, elapsed: begin.elapsed(), waited })
    })
}

/// Ways in which an altered trail passed for whole, and how many ways there were.
fn alterations(files: &Files, keys: &[[u8; 32]]) -> anyhow::Result<(u64, u64)> {
    let (name, bytes) = files.first().context("no file")?;
    let whole: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let lines = whole.get(..3 + ALTERED_RECORDS).context("too few records")?;
    let last = lines.last().context("no record")?;
    let hash = std::str::from_utf8(&last[..64]).ok().and_then(verifier::hash_of);
    let head = Some((lines.len() as u64, hash.context("no hash")?));
    let expected = Expected { keys: keys.to_vec(), head };
    let passes = |bytes: Vec<u8>| verifier::verify(&vec![(name.clone(), bytes)], &expected).is_ok();
    let text = lines.concat();
    anyhow::ensure!(passes(text.clone()), "the trail does not pass unaltered");
    let (mut undetected, mut count) = (0, 0);
    let mut judge = |bytes: Vec<u8>| {
        count += 1;
        undetected += u64::from(passes(bytes));
    };
    for bit in 0..8 * text.len() {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        judge(flipped);
    }
    (0..text.len()).for_each(|length| judge(text[..length].to_vec()));
    for first in 0..lines.len() {
        let mut dropped = lines.to_vec();
        dropped.remove(first);
        judge(dropped.concat());
        let mut doubled = lines.to_vec();
        doubled.insert(first, lines[first]);
        judge(doubled.concat());
        for second in first + 1..lines.len() {
            let mut exchanged = lines.to_vec();
            exchanged.swap(first, second);
            judge(exchanged.concat());
        }
    }
    Ok((undetected, count))
}

fn verified(dir: &Path, events: u64) -> anyhow::Result<(u64, u64)> {
    let keys = keys_in(&PathBuf::from(dir).with_added_extension("key.pub"))?;
    let files = verifier::load(dir)?;
    let report = verifier::verify(&files, &Expected { keys: keys.clone(), head: None })?;
    anyhow::ensure!(report.signed == report.last, "a clean end is signed");
    let actions = b"\"kind\":\"action\"";
    let count =
        |bytes: &[u8]| bytes.windows(actions.len()).filter(|window| window == actions).count();
    let found: usize = files.iter().map(|(_, bytes)| count(bytes)).sum();
    let expected = events as usize + ALTERED_RECORDS;
    anyhow::ensure!(found == expected, "{found} records of {expected} that were answered");
    alterations(&files, &keys)
}

impl Bench for I2 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        let folder = folder()?;
        let dir = folder.path().join("audit");
        let (trail, duration) = (dir.clone(), self.duration);
        let beside = Beside::start(GENERATOR_CORE);
        let written = std::thread::spawn(move || {
            pin(SERVER_CORE)?;
            write(&trail, duration)
        });
        let written = written.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let held_share = beside.stop();
        let Written { events, elapsed, waited } = written?;
        let (undetected, alterations) = verified(&dir, events)?;
        let events_per_s = events as f64 / elapsed.as_secs_f64();
        let waited_ms = waited.value_at_quantile(0.99) as f64 / 1e6;
        let values = [events_per_s, undetected as f64, alterations as f64, waited_ms];
        Ok(Half {
            values: values.map(Some).into(),
            held_share,
            latency: Some(waited),
            ..Half::default()
        })
    }
}
