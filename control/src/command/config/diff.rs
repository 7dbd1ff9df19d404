//! What runs against what a file says, key by key, and what each difference takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::flat::{Flat, caches, flat};
use super::running::Told;
use crate::command::table::table;
use crate::status::{CacheStatus, NodeStatus};

/// What has to be done for a key to be as the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `config apply` does it while the node runs.
    Nothing,
    /// `config apply --remove` does it, and what is in the cache goes.
    Removal,
    /// The process has to be started anew.
    Restart,
}

impl Takes {
    /// As it is shown.
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "at run time",
            Self::Removal => "at run time, with --remove",
            Self::Restart => "restart",
        }
    }
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub key: String,
    /// What runs; none where it is left out, or not there.
    pub running: Option<String>,
    /// What the file says.
    pub file: Option<String>,
    /// What it takes.
    pub takes: Takes,
}

/// What is known of the other side.
pub struct Other<'a> {
    /// What it read when it was started.
    pub told: &'a Told,
    /// What its region says, of a node.
    pub status: Option<&'a NodeStatus>,
}

/// Every difference, by key. `table` is the file.
pub fn differences(table: &toml::Table, other: &Other<'_>) -> Vec<Difference> {
    let wanted = flat(table);
    let mut all: BTreeMap<String, Difference> = BTreeMap::new();
    let mut started_with = BTreeMap::new();
    if let Told::Text(text) = other.told
        && let Ok(then) = text.parse::<toml::Table>()
    {
        started_with = caches(&then);
        let has = flat(&then);
        for key in has.keys().chain(wanted.keys()) {
            if has.get(key) != wanted.get(key) {
                let difference = Difference {
                    key: key.clone(),
                    running: has.get(key).cloned(),
                    file: wanted.get(key).cloned(),
                    takes: Takes::Restart,
                };
                all.insert(key.clone(), difference);
            }
        }
    }
    if let Some(status) = other.status {
        let knows = matches!(other.told, Told::Text(_));
        compare_caches(table, &wanted, status, (knows, &started_with), &mut all);
        compare_rest(&wanted, status, &mut all);
    }
    all.into_values().collect()
}

type StartedWith<'a> = (bool, &'a BTreeMap<String, toml::Table>);

/// Caches are what a node's region tells, whatever its file was.
fn compare_caches(
    table: &toml::Table,
    wanted: &Flat,
    status: &NodeStatus,
    (knows, started_with): StartedWith<'_>,
    all: &mut BTreeMap<String, Difference>,
) {
    let sections = caches(table);
    let serving = |id: &str| status.caches.iter().find(|cache| cache.cache_id == id);
    for id in sections.keys() {
        let front = format!("cache[{id}].");
        let keys = wanted.keys().filter(|key| key.starts_with(&front));
        match serving(id) {
            None => {
                for key in keys {
                    let file = wanted.get(key).cloned();
                    let takes = Takes::Nothing;
                    let one = Difference { key: key.clone(), running: None, file, takes };
                    all.insert(key.clone(), one);
                }
            }
            Some(cache) => {
                // Made since the start: it is compared by what the region tells alone.
                if !started_with.contains_key(id) {
                    all.retain(|key, _| !key.starts_with(&front));
                }
                for (name, value) in told_of(cache) {
                    let key = format!("{front}{name}");
                    // `auto` has become what it became.
                    let differs = |file: &&String| **file != value && **file != "\"auto\"";
                    let Some(file) = wanted.get(&key).filter(differs) else { continue };
                    let (running, takes) = (Some(value), Takes::Restart);
                    let one = Difference { key: key.clone(), running, file: Some(file.clone()), takes };
                    all.insert(key, one);
                }
            }
        }
    }
    for cache in &status.caches {
        let id = &cache.cache_id;
        if sections.contains_key(id) {
            continue;
        }
        let key = format!("cache[{id}]");
        all.retain(|other, _| !other.starts_with(&format!("{key}.")));
        let in_file = !knows || started_with.contains_key(id);
        let takes = if in_file { Takes::Restart } else { Takes::Removal };
        let running = Some(format!("port {}, {} items", cache.port, cache.items));
        all.insert(key.clone(), Difference { key, running, file: None, takes });
    }
}

fn told_of(cache: &CacheStatus) -> [(&'static str, String); 4] {
    [
        ("port", cache.port.to_string()),
        ("max_memory_mb", cache.max_memory_mb.to_string()),
        ("max_value_bytes", cache.max_value_bytes.to_string()),
        ("hot_set", cache.hot_set.to_string()),
    ]
}

/// What else a region tells, where the file says something to it and nothing better is known.
fn compare_rest(wanted: &Flat, status: &NodeStatus, all: &mut BTreeMap<String, Difference>) {
    let active = status.workers.iter().find(|worker| worker.state == "active");
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut told = vec![("node.id".to_owned(), quoted(&status.node_id))];
    if let Some(worker) = active {
        told.push(("worker.poll".into(), quoted(worker.poll)));
    }
    for (key, running) in told {
        let file = wanted.get(&key).filter(|file| **file != running).cloned();
        if let Some(file) = file {
            let takes = Takes::Restart;
            let one = Difference { key: key.clone(), running: Some(running), file: Some(file), takes };
            all.entry(key).or_insert(one);
        }
    }
    let named = wanted.keys().filter_map(|key| {
        key.strip_prefix("interface[")?.strip_suffix("].name").map(|name| (key.clone(), name.to_owned()))
    });
    for (key, name) in named {
        if !status.interfaces.iter().any(|interface| interface.name == name) {
            let file = wanted.get(&key).cloned();
            let one = Difference { key: key.clone(), running: None, file, takes: Takes::Restart };
            all.entry(key).or_insert(one);
        }
    }
}

/// For people.
pub fn text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "no differences\n".into();
    }
    let mut rows = vec![["KEY", "RUNNING", "FILE", "TAKES"].map(str::to_owned).to_vec()];
    for Difference { key, running, file, takes } in differences {
        let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        rows.push(vec![key.clone(), or_dash(running), or_dash(file), takes.name().into()]);
    }
    table(&rows)
}

/// For scripts.
pub fn document(differences: &[Difference]) -> Value {
    let one = |difference: &Difference| {
        let takes = match difference.takes {
            Takes::Nothing => "nothing",
            Takes::Removal => "removal",
            Takes::Restart => "restart",
        };
        let Difference { key, running, file, .. } = difference;
        json!({ "key": key, "running": running, "file": file, "takes": takes })
    };
    json!({ "differences": differences.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_differs_key_by_key() {
        let then = Told::Text("[control]\nlisten = \"127.0.0.1:1\"\n[[node]]\nrun_dir = \"/a\"\n".into());
        let now = "[control]\nlisten = \"127.0.0.1:2\"\nsocket = \"/s\"\n[[node]]\nrun_dir = \"/a\"\n";
        let found = differences(&now.parse().unwrap(), &Other { told: &then, status: None });
        assert_eq!(
            text(&found),
            "KEY             RUNNING        FILE           TAKES\n\
             control.listen  \"127.0.0.1:1\"  \"127.0.0.1:2\"  restart\n\
             control.socket  -              \"/s\"           restart\n"
        );
        let same = differences(&now.parse().unwrap(), &Other { told: &Told::Text(now.into()), status: None });
        assert_eq!(text(&same), "no differences\n");
        assert_eq!(document(&found)["differences"][1]["takes"], "restart");
    }
}
