//! The Prometheus text exposition format, version 0.0.4, from snapshots.

use std::fmt::Write;

use nautilus_shm::cache_cell::CacheState;
use nautilus_shm::cells::WorkerState;
use nautilus_shm::control_region::HISTOGRAMS;
use nautilus_shm::histogram::HistogramSnapshot;
use nautilus_shm::life::NodePhase;
use nautilus_shm::metrics::{Kind, METRICS, Owner, Sample};

use crate::link::Attachment;
use crate::snapshot::Snapshot;
use crate::view::NodeView;

/// The content type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of exported buckets, in nanoseconds: 1-2.5-5 from one microsecond (less than a veth
/// round trip takes) to one second (more than any gap the product promises).
const BOUNDS_NS: [u64; 19] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// Every number of every node.
pub fn render(nodes: &[NodeView]) -> String {
    let mut text = String::with_capacity(64 << 10);
    own(&mut text, nodes);
    for spec in METRICS.iter() {
        let kind = match spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        head(&mut text, spec.name, kind, spec.help);
        for (node, snapshot) in held(nodes) {
            match spec.owner {
                Owner::Supervisor => {
                    let samples = snapshot.metrics.samples(Owner::Supervisor);
                    series(&mut text, samples.filter(|s| s.spec.name == spec.name), &node, "");
                }
                Owner::Front => {
                    let samples = snapshot.front.samples(Owner::Front);
                    series(&mut text, samples.filter(|s| s.spec.name == spec.name), &node, "");
                }
                Owner::Capture => {
                    let samples = snapshot.capture.samples(Owner::Capture);
                    series(&mut text, samples.filter(|s| s.spec.name == spec.name), &node, "");
                }
                Owner::Worker => {
                    for worker in &snapshot.workers {
                        let samples = worker.metrics.samples(Owner::Worker);
                        let samples = samples.filter(|s| s.spec.name == spec.name);
                        let labels = format!(",worker=\"{}\"", worker.slot);
                        series(&mut text, samples, &node, &labels);
                    }
                }
                Owner::Cache => {
                    for cache in &snapshot.caches {
                        let id = escape(&cache.identity.id);
                        for (slot, metrics) in &cache.workers {
                            let samples = metrics.samples(Owner::Cache);
                            let samples = samples.filter(|s| s.spec.name == spec.name);
                            let labels = format!(",worker=\"{slot}\",cache=\"{id}\"");
                            series(&mut text, samples, &node, &labels);
                        }
                    }
                }
                Owner::FrontCache | Owner::SupervisorCache => {
                    for cache in &snapshot.caches {
                        let samples = cache.beside.samples(spec.owner);
                        let samples = samples.filter(|s| s.spec.name == spec.name);
                        let labels = format!(",cache=\"{}\"", escape(&cache.identity.id));
                        series(&mut text, samples, &node, &labels);
                    }
                }
            }
        }
    }
    for (index, spec) in HISTOGRAMS.iter().enumerate() {
        head(&mut text, spec.name, "histogram", spec.help);
        for (node, snapshot) in held(nodes) {
            match spec.owner {
                Owner::Supervisor => {
                    histogram(&mut text, spec.name, &snapshot.histograms[index], &node, None);
                }
                // They have no histogram of their own.
                Owner::Front
                | Owner::Capture
                | Owner::Cache
                | Owner::FrontCache
                | Owner::SupervisorCache => {}
                Owner::Worker => {
                    for worker in &snapshot.workers {
                        let slot = Some(worker.slot);
                        histogram(&mut text, spec.name, &worker.histograms[index], &node, slot);
                    }
                }
            }
        }
    }
    text
}

/// Nodes that have been mapped, with their escaped ids.
fn held(nodes: &[NodeView]) -> impl Iterator<Item = (String, &Snapshot)> {
    nodes.iter().filter_map(|node| Some((escape(&node.id), node.snapshot.as_ref()?)))
}

/// What control itself knows.
fn own(text: &mut String, nodes: &[NodeView]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&NodeView) -> Option<f64>| {
        head(text, name, "gauge", help);
        for node in nodes {
            if let Some(value) = value(node) {
                let _ = writeln!(text, "{name}{{node=\"{}\"}} {value}", escape(&node.id));
            }
        }
    };
    let flag = |value: bool| Some(f64::from(u8::from(value)));
    gauge("nautilus_node_attached", "Whether control is attached to a live supervisor", &|node| {
        flag(node.attachment == Attachment::Attached)
    });
    gauge("nautilus_node_serving", "Whether the node is set up and a worker is active", &|node| {
        flag(node.snapshot.as_ref().is_some_and(|s| s.serving && s.active().is_some()))
    });
    gauge("nautilus_node_standby", "Whether a standby worker is running", &|node| {
        flag(node.snapshot.as_ref().is_some_and(Snapshot::has_standby))
    });
    gauge("nautilus_node_parked", "Whether only a supervisor is there, on purpose", &|node| {
        flag(node.snapshot.as_ref().is_some_and(|s| s.phase == NodePhase::Parked))
    });
    gauge("nautilus_node_draining", "Whether no new client is taken, on purpose", &|node| {
        flag(node.snapshot.as_ref().is_some_and(Snapshot::is_draining))
    });
    gauge("nautilus_node_last_gap_seconds", "Length of the last gap in service", &|node| {
        node.snapshot.as_ref().map(|snapshot| snapshot.last_gap_ns as f64 / 1e9)
    });
    gauge("nautilus_node_generation", "Supervisors that have owned the node", &|node| {
        node.snapshot.as_ref().map(|snapshot| snapshot.generation as f64)
    });
    let name = "nautilus_node_release_info";
    head(
        text,
        name,
        "gauge",
        "The release that runs; an empty one is what the node was started with",
    );
    for (node, snapshot) in held(nodes) {
        let [release, version] =
            [&snapshot.release.name, &snapshot.release.version].map(|text| escape(text));
        let _ = writeln!(
            text,
            "{name}{{node=\"{node}\",release=\"{release}\",version=\"{version}\"}} 1"
        );
    }
    let name = "nautilus_worker_active";
    head(text, name, "gauge", "Whether the worker of this slot owns the sockets");
    for (node, snapshot) in held(nodes) {
        for worker in &snapshot.workers {
            let active = u8::from(worker.identity.state == WorkerState::Active);
            let slot = worker.slot;
            let _ = writeln!(text, "{name}{{node=\"{node}\",worker=\"{slot}\"}} {active}");
        }
    }
    let name = "nautilus_cache_serving";
    head(text, name, "gauge", "Whether the cache is set up and served");
    for (node, snapshot) in held(nodes) {
        for cache in &snapshot.caches {
            let (id, identity) = (escape(&cache.identity.id), &cache.identity);
            let serving = u8::from(identity.state == CacheState::Serving);
            let _ = writeln!(text, "{name}{{node=\"{node}\",cache=\"{id}\"}} {serving}");
        }
    }
    let name = "nautilus_interface_up";
    head(text, name, "gauge", "Whether the interface is up with carrier");
    for (node, snapshot) in held(nodes) {
        for interface in &snapshot.interfaces {
            let (label, up) = (escape(&interface.name), u8::from(interface.up));
            let _ = writeln!(text, "{name}{{node=\"{node}\",interface=\"{label}\"}} {up}");
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn series(text: &mut String, samples: impl Iterator<Item = Sample>, node: &str, labels: &str) {
    for sample in samples {
        let _ = write!(text, "{}{{node=\"{node}\"{labels}", sample.spec.name);
        let keys = sample.spec.labels.map_or(&[][..], |set| set.keys);
        for (key, value) in keys.iter().zip(sample.labels) {
            let _ = write!(text, ",{key}=\"{value}\"");
        }
        let _ = writeln!(text, "}} {}", sample.exported());
    }
}

fn histogram(
    text: &mut String,
    name: &str,
    values: &HistogramSnapshot,
    node: &str,
    worker: Option<usize>,
) {
    let slot = worker.map_or(String::new(), |slot| format!(",worker=\"{slot}\""));
    let (below, count) = cumulative(values);
    for (bound_ns, below) in BOUNDS_NS.iter().zip(below) {
        let le = *bound_ns as f64 / 1e9;
        let _ = writeln!(text, "{name}_bucket{{node=\"{node}\"{slot},le=\"{le}\"}} {below}");
    }
    let _ = writeln!(text, "{name}_bucket{{node=\"{node}\"{slot},le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{node=\"{node}\"{slot}}} {}", values.sum() as f64 / 1e9);
    let _ = writeln!(text, "{name}_count{{node=\"{node}\"{slot}}} {count}");
}

/// Counts at or below each bound, and in all; saturating, so that they never fall.
fn cumulative(values: &HistogramSnapshot) -> ([u64; BOUNDS_NS.len()], u64) {
    let mut below = [0u64; BOUNDS_NS.len()];
    let mut total = 0u64;
    for (_, highest, count) in values.buckets() {
        total = total.saturating_add(count);
        if let Some(bound) = BOUNDS_NS.iter().position(|bound| highest <= *bound) {
            below[bound] = below[bound].saturating_add(count);
        }
    }
    let mut sum = 0u64;
    for below in &mut below {
        sum = sum.saturating_add(*below);
        *below = sum;
    }
    (below, total)
}

/// A label value as the format wants it.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn bounds_ascend() {
        assert!(BOUNDS_NS.is_sorted());
    }
}
