//! A file as keys and values. Sections of a list are named by what tells them apart, not by their place:
//! `cache[quotes].port`.

use std::collections::BTreeMap;

use toml::Value;

/// Path of each key, and its value as TOML.
pub type Flat = BTreeMap<String, String>;

/// What tells the sections of a list apart.
const NAMES: [&str; 5] = ["id", "name", "run_dir", "prefix", "venue"];

/// All of it.
pub fn flat(table: &toml::Table) -> Flat {
    let mut all = Flat::new();
    for (key, value) in table {
        walk(key, value, &mut all);
    }
    all
}

fn walk(path: &str, value: &Value, all: &mut Flat) {
    match value {
        Value::Table(table) => {
            // `[cache]` is the only one of its list.
            let is_one = path == "cache" && table.contains_key("id");
            let path = if is_one { item(path, table, 0) } else { path.to_owned() };
            for (key, value) in table {
                walk(&format!("{path}.{key}"), value, all);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            let mut seen: Vec<String> = Vec::new();
            for (index, value) in items.iter().enumerate() {
                let Value::Table(table) = value else { continue };
                let mut name = item(path, table, index);
                if seen.contains(&name) {
                    name = format!("{path}[{index}]");
                }
                seen.push(name.clone());
                for (key, value) in table {
                    walk(&format!("{name}.{key}"), value, all);
                }
            }
        }
        value => {
            all.insert(path.into(), value.to_string());
        }
    }
}

fn item(path: &str, table: &toml::Table, index: usize) -> String {
    let name = NAMES.iter().find_map(|name| table.get(*name)?.as_str());
    format!("{path}[{}]", name.map_or_else(|| index.to_string(), str::to_owned))
}

/// The sections of `[[cache]]`, or the only `[cache]`, by id, each as it stands.
pub fn caches(table: &toml::Table) -> BTreeMap<String, toml::Table> {
    let sections = match table.get("cache") {
        Some(Value::Table(table)) => vec![table],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    };
    let named = sections.into_iter().filter_map(|section| {
        Some((section.get("id")?.as_str()?.to_owned(), section.clone()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_lists_are_named_not_counted() {
        let text = "[node]\nid = \"a\"\n[[cache]]\nid = \"q\"\nport = 1\nreaders = [\"x\"]\n[[cache]]\n\
                    id = \"q\"\n[[interface]]\nname = \"eth0\"\n[[access.limit]]\nrate = 2\n";
        let flat = flat(&text.parse().unwrap());
        let keys: Vec<&str> = flat.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "access.limit[0].rate", "cache[1].id", "cache[q].id", "cache[q].port",
                "cache[q].readers", "interface[eth0].name", "node.id"
            ]
        );
        assert_eq!(flat["cache[q].readers"], "[\"x\"]");
        let one: toml::Table = "[cache]\nid = \"q\"\nport = 1\n".parse().unwrap();
        assert_eq!(super::flat(&one)["cache[q].port"], "1");
        assert_eq!(caches(&one)["q"]["port"].as_integer(), Some(1));
    }
}
