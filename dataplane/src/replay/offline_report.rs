//! What a replay without a network prints: the books as they stand, and whether they are those of the node.

use std::fmt::Write;

use super::offline::Offline;
use crate::feed::book::Level;
use crate::feed::record::BboRecord;

/// A key and its record, for programs.
pub fn record_line(key: &[u8], record: &[u8]) -> String {
    let mut line = format!("{} ", String::from_utf8_lossy(key));
    for byte in record {
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    line
}

/// Best bids and offers for people, with what was replayed.
pub fn report(offline: &Offline<'_>) -> String {
    let mut text = String::new();
    let mut records = 0;
    for (key, record) in offline.keyspace().records() {
        records += 1;
        if !key.ends_with(b":bbo") {
            continue;
        }
        let Some(BboRecord { origin, bbo }) = BboRecord::decode(record) else { continue };
        let key = String::from_utf8_lossy(key);
        let (bid, ask) = (side(bbo.bid), side(bbo.ask));
        let sequence = origin.source_sequence;
        let _ = writeln!(text, "{key} bid {bid} ask {ask} sequence {sequence}");
    }
    let summary = offline.summary();
    for feed in offline.feeds() {
        for channel in feed.channels() {
            let Some(session) = channel.sequencer().session() else { continue };
            let number = channel.spec().channel;
            let until_ns = offline.keyspace().live_until_ns(number);
            let state = if until_ns >= summary.last_ns { "live" } else { "suspect" };
            let (expected, counters) = (channel.sequencer().expected(), channel.counters());
            let _ = writeln!(
                text,
                "channel {number} session {session} next {expected} messages {} gaps {} {state}",
                counters.messages, counters.gaps
            );
        }
    }
    let found = summary.found;
    let _ = writeln!(
        text,
        "replayed packets={} events={} records={records} other={} repeated={} missing={} cut={}",
        summary.packets,
        summary.events,
        summary.other_frames,
        found.repeated,
        found.missing,
        found.cut
    );
    let _ = writeln!(
        text,
        "{}",
        match (summary.is_exact(), summary.workers) {
            (true, 0) => "no node's capture: housekeeping by the stamps of the packets",
            (true, _) => "exact: every packet and event of the node since its workers began",
            (false, _) if summary.begun_before > 0 =>
                "not exact: the recording begins after the node's workers did",
            (false, _) => "not exact: packets or channels of the node are missing",
        }
    );
    text
}

fn side(level: Option<Level>) -> String {
    let Some(level) = level else { return "-".into() };
    format!("{} x {} ({})", price(level.price), level.shares, level.orders)
}

fn price(price: u32) -> String {
    format!("{}.{:04}", price / 10_000, price % 10_000)
}
