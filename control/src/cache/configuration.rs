//! `CacheConfiguration`: what an operator asks for, and the section of a node file that comes of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::deploy::fields::{FieldProblem, Fields};
use crate::id;
use crate::spelling::spelled_enum;

/// Longest value of any cache.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Most users that may map one cache.
const READERS_MAX: usize = 64;

/// Most prefixes of one cache's list.
const SOURCES_MAX: usize = 256;

spelled_enum! {
    /// What a cache does with an origin. This version has no origins: none of these is taken.
    pub enum CacheStrategy {
        /// A write is the origin's first.
        WriteThrough = "write_through",
        /// A write is journaled, and the origin's later.
        WriteBehind = "write_behind",
        /// A miss is fetched from the origin.
        ReadThrough = "read_through",
        /// A write is the origin's alone.
        WriteAround = "write_around",
    }
}

spelled_enum! {
    /// What reads may show of writes.
    pub enum ConsistencyLevel {
        /// Linearizable per key.
        StrongConsistency = "strong_consistency",
        /// Converges.
        EventualConsistency = "eventual_consistency",
        /// Session guarantees.
        CausalConsistency = "causal_consistency",
    }
}

/// Who may do what with a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSource {
    /// Prefix of addresses.
    pub prefix: String,
    /// `read`, `write`, `admin`; empty: nothing.
    pub allow: Vec<String>,
}

/// One cache as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheConfiguration {
    /// Its id, unique in the site.
    pub cache_id: String,
    /// The node that has it; the only one unless said.
    pub node_id: String,
    /// That node's region, if one is configured.
    pub region: Option<String>,
    /// UDP and TCP port, unique on the node.
    pub port: u16,
    /// Memory of the table, 8 to 65,536 MiB.
    pub max_memory_mb: u32,
    /// Copies; 1 in this version.
    pub replication_factor: u64,
    /// None in this version: what clients write is in the cache alone.
    #[schema(value_type = Option<String>)]
    pub cache_strategy: Option<CacheStrategy>,
    /// `strong_consistency` in this version: linearizable per key, all paths together.
    #[schema(value_type = String)]
    pub consistency_level: ConsistencyLevel,
    /// Longest value that clients may store, 1 to 1,048,576.
    pub max_value_bytes: u32,
    /// Memory on huge pages that the host has reserved.
    pub huge_pages: bool,
    /// Whether keys that are asked for often are answered in XDP; the node's choice unless said.
    pub hot_set: Option<bool>,
    /// Users of the node's host that may map it read-only.
    pub readers: Vec<String>,
    /// Who may do what, in place of the node's list.
    pub sources: Option<Vec<CacheSource>>,
}

/// What is wrong with a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// What no version takes.
    pub invalid: Vec<FieldProblem>,
    /// What this version has not got.
    pub not_available: Vec<FieldProblem>,
}

impl CacheConfiguration {
    /// Reads a document. `nodes` are the nodes of the site, each with its region if that is configured.
    pub fn from_json(value: &Value, nodes: &[(String, Option<String>)]) -> Result<Self, Refused> {
        let mut refused = Refused::default();
        let found = read(value, nodes, &mut refused);
        match found {
            Some(found) if refused == Refused::default() => Ok(found),
            _ => Err(refused),
        }
    }

    /// Its section of a node file.
    pub fn section(&self) -> Result<String, toml::ser::Error> {
        #[derive(Serialize)]
        struct Section<'a> {
            id: &'a str,
            port: u16,
            max_memory_mb: u32,
            max_value_bytes: u32,
            huge_pages: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            hot_set: Option<bool>,
            readers: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            sources: Option<&'a [CacheSource]>,
        }
        toml::to_string(&Section {
            id: &self.cache_id,
            port: self.port,
            max_memory_mb: self.max_memory_mb,
            max_value_bytes: self.max_value_bytes,
            huge_pages: self.huge_pages,
            hot_set: self.hot_set,
            readers: &self.readers,
            sources: self.sources.as_deref(),
        })
    }

    /// The fields in which another differs.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |one: &Self| serde_json::to_value(one).unwrap_or_default();
        let (ours, theirs) = (fields(self), fields(other));
        let Some(ours) = ours.as_object() else { return Vec::new() };
        ours.iter()
            .filter(|(key, value)| theirs[*key] != **value)
            .map(|(key, _)| key.clone())
            .collect()
    }
}

fn read(
    value: &Value,
    nodes: &[(String, Option<String>)],
    refused: &mut Refused,
) -> Option<CacheConfiguration> {
    let not_available = &mut refused.not_available;
    let mut fields = Fields::of(value, "", &mut refused.invalid)?;
    let cache_id = fields.text("cache_id").map(str::to_owned);
    if cache_id.as_deref().is_some_and(|id| !id::is_valid(id)) {
        fields.refuse("cache_id", id::RULE);
    }
    let node = read_node(&mut fields, nodes);
    let region = read_region(&mut fields, node);
    let port = fields.number("port", 1, 65_535);
    let max_memory_mb = fields.number_or("max_memory_mb", 8, 65_536, 64);
    let max_value_bytes = fields.number_or("max_value_bytes", 1, VALUE_BYTES_MAX, VALUE_BYTES_MAX);
    if max_value_bytes > max_memory_mb << 20 {
        fields.refuse("max_value_bytes", "is more than the cache's memory");
    }
    let replication_factor = fields.number_or("replication_factor", 1, 5, 1);
    match replication_factor {
        1 => {}
        3 | 5 => lack(not_available, "replication_factor", "copies on several nodes"),
        _ => fields.refuse("replication_factor", "1, 3 or 5 is needed"),
    }
    let cache_strategy = fields.optional("cache_strategy").and_then(|_| {
        let all = CacheStrategy::ALL;
        fields.spelled("cache_strategy", all, CacheStrategy::spelled, CacheStrategy::name)
    });
    if let Some(strategy) = cache_strategy {
        let what = format!("an origin, which {strategy} is about; leave it out");
        lack(not_available, "cache_strategy", &what);
    }
    let strong = ConsistencyLevel::StrongConsistency;
    let consistency_level = fields.optional("consistency_level").map(|_| {
        let all = ConsistencyLevel::ALL;
        fields.spelled("consistency_level", all, ConsistencyLevel::spelled, ConsistencyLevel::name)
    });
    let consistency_level = consistency_level.unwrap_or(Some(strong));
    if consistency_level.is_some_and(|level| level != strong) {
        let what = "copies that may differ; strong_consistency is what there is";
        lack(not_available, "consistency_level", what);
    }
    let flag = |fields: &mut Fields<'_>, name| match fields.optional(name) {
        None => None,
        Some(_) => fields.boolean(name),
    };
    let huge_pages = flag(&mut fields, "huge_pages").unwrap_or(false);
    let hot_set = flag(&mut fields, "hot_set");
    let readers = read_texts(&mut fields, "readers", READERS_MAX);
    let sources = read_sources(&mut fields);
    fields.finish();
    Some(CacheConfiguration {
        cache_id: cache_id?,
        node_id: node?.0.clone(),
        region: region?,
        port: u16::try_from(port?).ok()?,
        max_memory_mb: u32::try_from(max_memory_mb).ok()?,
        replication_factor,
        cache_strategy,
        consistency_level: consistency_level?,
        max_value_bytes: u32::try_from(max_value_bytes).ok()?,
        huge_pages,
        hot_set,
        readers: readers?,
        sources: sources?,
    })
}

fn lack(problems: &mut Vec<FieldProblem>, path: &str, what: &str) {
    let reason = format!("this version has not got {what}");
    problems.push(FieldProblem { path: path.into(), reason });
}

fn read_node<'n>(
    fields: &mut Fields<'_>,
    nodes: &'n [(String, Option<String>)],
) -> Option<&'n (String, Option<String>)> {
    if fields.optional("node_id").is_none() {
        if let [only] = nodes {
            return Some(only);
        }
        fields.refuse("node_id", "is missing, and there are several nodes");
        return None;
    }
    let text = fields.text("node_id")?;
    let found = nodes.iter().find(|(id, _)| id == text);
    if found.is_none() {
        let ids: Vec<&str> = nodes.iter().map(|(id, _)| id.as_str()).collect();
        fields.refuse("node_id", format!("is none of {}", ids.join(", ")));
    }
    found
}

/// The region, which is the node's; `None` where something is wrong with it.
fn read_region(
    fields: &mut Fields<'_>,
    node: Option<&(String, Option<String>)>,
) -> Option<Option<String>> {
    let own = node.and_then(|(_, region)| region.clone());
    if fields.optional("region").is_none() {
        return Some(own);
    }
    let text = fields.text("region")?;
    match (node, own) {
        (_, Some(own)) if own == text => Some(Some(own)),
        (Some((id, _)), Some(own)) => {
            fields.refuse("region", format!("{id} stands in {own}"));
            None
        }
        (Some((id, _)), None) => {
            fields.refuse("region", format!("no region is configured for {id}; leave it out"));
            None
        }
        (None, _) => None,
    }
}

/// A list of texts; `None` where something is wrong with it.
fn read_texts(fields: &mut Fields<'_>, name: &'static str, most: usize) -> Option<Vec<String>> {
    let Some(value) = fields.optional(name) else { return Some(Vec::new()) };
    let texts: Option<Vec<String>> = value
        .as_array()
        .and_then(|list| list.iter().map(|one| one.as_str().map(str::to_owned)).collect());
    match texts {
        Some(texts) if texts.len() <= most => Some(texts),
        _ => {
            fields.refuse(name, format!("a list of at most {most} texts is needed"));
            None
        }
    }
}

fn read_sources(fields: &mut Fields<'_>) -> Option<Option<Vec<CacheSource>>> {
    let Some(value) = fields.optional("sources") else { return Some(None) };
    let Some(list) = value.as_array().filter(|list| list.len() <= SOURCES_MAX) else {
        fields.refuse("sources", format!("a list of at most {SOURCES_MAX} is needed"));
        return None;
    };
    let mut sources = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("sources[{index}]");
        let mut source = Fields::of(value, &path, fields.problems())?;
        let prefix = source.text("prefix").map(str::to_owned);
        let allow = read_texts(&mut source, "allow", 3);
        let known = ["read", "write", "admin"];
        if allow.iter().flatten().any(|right| !known.contains(&right.as_str())) {
            source.refuse("allow", "read, write and admin are all there is");
        }
        source.finish();
        sources.push(CacheSource { prefix: prefix?, allow: allow? });
    }
    Some(Some(sources))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> Vec<(String, Option<String>)> {
        vec![("n1".into(), Some("ny4".into())), ("n2".into(), None)]
    }

    fn parsed(value: Value) -> Result<CacheConfiguration, Refused> {
        CacheConfiguration::from_json(&value, &nodes())
    }

    #[test]
    fn what_is_left_out_is_filled_in_and_a_section_is_made() {
        let sources = json!([{"prefix": "198.18.0.0/16", "allow": ["read"]}]);
        let found = parsed(json!({
            "cache_id": "q\u{61}", "node_id": "n1", "port": 7, "readers": ["al\"ice"],
            "consistency_level": "StrongConsistency", "sources": sources, "cache_strategy": null,
        }))
        .unwrap();
        assert_eq!((found.region.as_deref(), found.replication_factor), (Some("ny4"), 1));
        let section: toml::Table = toml::from_str(&found.section().unwrap()).unwrap();
        assert_eq!(section["id"].as_str(), Some("qa"));
        assert_eq!(section["max_memory_mb"].as_integer(), Some(64));
        assert_eq!(section["readers"][0].as_str(), Some("al\"ice"));
        assert_eq!(section["sources"][0]["prefix"].as_str(), Some("198.18.0.0/16"));
        assert!(!section.contains_key("hot_set"));
        let again = parsed(serde_json::to_value(&found).unwrap()).unwrap();
        assert_eq!(again, found, "what is shown can be sent back");
        let other = CacheConfiguration { port: 8, hot_set: Some(true), ..found.clone() };
        assert_eq!(found.differences(&other), ["hot_set", "port"]);
        assert!(found.differences(&found).is_empty());
    }

    #[test]
    fn everything_wrong_is_said_by_its_path() {
        let base = || json!({"cache_id": "q", "node_id": "n1", "port": 7});
        assert!(parsed(base()).is_ok());
        for (field, value, path) in [
            ("cache_id", json!("Q"), "cache_id"),
            ("cache_id", json!(null), "cache_id"),
            ("node_id", json!("n3"), "node_id"),
            ("node_id", json!(null), "node_id"),
            ("region", json!("ld4"), "region"),
            ("port", json!(0), "port"),
            ("port", json!(65_536), "port"),
            ("max_memory_mb", json!(7), "max_memory_mb"),
            ("max_value_bytes", json!((1 << 20) + 1), "max_value_bytes"),
            ("replication_factor", json!(2), "replication_factor"),
            ("replication_factor", json!(0), "replication_factor"),
            ("cache_strategy", json!("write_up"), "cache_strategy"),
            ("consistency_level", json!(1), "consistency_level"),
            ("huge_pages", json!("yes"), "huge_pages"),
            ("readers", json!([1]), "readers"),
            ("sources", json!([{"prefix": "::/0", "allow": ["all"]}]), "sources[0].allow"),
            ("sources", json!([{"prefix": "::/0", "what": 1}]), "sources[0].what"),
            ("sources", json!(["::/0"]), "sources[0]"),
            ("max_memory", json!(64), "max_memory"),
        ] {
            let mut document = base();
            document[field] = value.clone();
            let refused = parsed(document).unwrap_err();
            let paths: Vec<&str> = refused.invalid.iter().map(|one| one.path.as_str()).collect();
            assert_eq!(paths, [path], "{field} {value}");
        }
        assert_eq!(parsed(json!([])).unwrap_err().invalid.len(), 1);
    }

    #[test]
    fn what_is_not_built_is_told_from_what_is_wrong() {
        for (field, value) in [
            ("replication_factor", json!(3)),
            ("cache_strategy", json!("WriteThrough")),
            ("consistency_level", json!("CAUSAL_CONSISTENCY")),
        ] {
            let mut document = json!({"cache_id": "q", "node_id": "n1", "port": 7});
            document[field] = value;
            let refused = parsed(document).unwrap_err();
            assert_eq!(refused.invalid, []);
            assert_eq!(refused.not_available[0].path, field);
        }
    }
}
