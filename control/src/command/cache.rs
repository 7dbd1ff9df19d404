//! `nautilus cache`: caches and what is in them, through a control; or, with `--node RUN_DIR`, through a
//! node's own supervisor, without one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nautilus_shm::attach::Code;
use serde_json::{Map, Value};

use super::cache_items::{Item, ItemToPut};
use super::connect::{Connect, document};
use super::exit::{Exit, Failure};
use super::filled;
use super::local::{LocalNodes, look};
use super::output::print;
use super::sheet::sheet;
use super::status::cache_table;
use super::table::{Columns, list, rows_of};
use crate::attach::ReachError;
use crate::caches::{CacheToCreate, CacheToRemove};
use crate::client::Call;
use crate::link::Attachment;
use crate::status::StatusDocument;

/// Caches, and what is in them
#[derive(Args, Debug)]
pub struct Cache {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a cache; the same one again is fine
    Create {
        #[command(flatten)]
        wanted: CacheToCreate,
        /// CacheConfiguration in JSON or TOML, for what the options leave out
        #[arg(long, value_name = "FILE", conflicts_with = "node")]
        from: Option<PathBuf>,
        /// Sets any other field; VALUE is JSON, or else text; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "node")]
        set: Vec<String>,
        /// Says what would be done, and does nothing
        #[arg(long, conflicts_with = "node")]
        dry_run: bool,
    },
    /// Removes a cache that was made at run time from a node, without a control
    Remove(CacheToRemove),
    /// Shows the caches of every node
    List {
        #[command(flatten)]
        nodes: LocalNodes,
    },
    /// Shows every cache the control has, with its state
    Status,
    /// Shows one: its configuration and state
    Show {
        /// The cache
        cache_id: String,
    },
    /// Writes the value of a key to standard output as it is
    Get(Item),
    /// Stores a value
    Put(ItemToPut),
    /// Removes a key; without --key the cache with all that is in it
    Delete {
        /// The cache
        cache_id: String,
        /// The key that is to go
        #[arg(long)]
        key: Option<String>,
        /// The node, where several have a cache of this id
        #[arg(long, value_name = "NODE_ID")]
        node: Option<String>,
        /// Only this version
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
        /// Says what would be done, and does nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives a cache a new configuration: the one it has, changed by FILE and --set
    Configure {
        /// The cache
        cache_id: String,
        #[command(flatten)]
        body: filled::Body,
        /// Only if its configuration is still this one; unless said, the one that is there now
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
        /// Takes FILE and --set as the whole configuration
        #[arg(long)]
        whole: bool,
    },
}

const CACHES: Columns<'_> = &[
    ("CACHE", "/cache_id"),
    ("NODE", "/node_id"),
    ("STATE", "/state"),
    ("PORT", "/port"),
    ("MiB", "/max_memory_mb"),
    ("ITEMS", "/items"),
    ("HITS", "/hits"),
    ("MISSES", "/misses"),
    ("EVICTED", "/evictions"),
    ("HOT", "/hot_set"),
];

impl Cache {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let connect = &self.connect;
        match self.verb {
            Verb::Create { wanted, from, set, dry_run } => {
                if let Some(run_dir) = &wanted.node {
                    return tell(wanted.create(run_dir));
                }
                let body = configuration(&wanted, from.as_deref(), &set)?;
                let call = Call::post("cache/create", &[]).json(&Value::Object(body));
                connect.perform(&call.with_flag("dry_run", dry_run), sheet)
            }
            Verb::Remove(gone) => tell(gone.remove()),
            Verb::List { nodes } if nodes.is_named() => local_list(&nodes, connect.json),
            Verb::List { .. } | Verb::Status => {
                connect.perform(&Call::get("cache/status", &[]), caches_text)
            }
            Verb::Show { cache_id } => connect.perform(&Call::get("cache/{}", &[&cache_id]), sheet),
            Verb::Get(item) => item.get(connect),
            Verb::Put(item) => item.put(connect),
            Verb::Delete { cache_id, key, node, if_match, dry_run } => {
                let call = Call::new(hyper::Method::DELETE, "cache/{}", &[&cache_id])
                    .with_some("key", key)
                    .with_some("node", node)
                    .with_flag("dry_run", dry_run)
                    .header("if-match", if_match);
                connect.perform(&call, sheet)
            }
            Verb::Configure { cache_id, body, if_match, whole } => {
                configure(connect, &cache_id, &body, if_match, whole)
            }
        }
    }
}

fn configuration(
    wanted: &CacheToCreate,
    from: Option<&Path>,
    set: &[String],
) -> Result<Map<String, Value>, Failure> {
    let mut fields = match from.map(super::document::read).transpose()? {
        None => Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(Failure::usage("--from: an object is needed")),
    };
    fields.extend(wanted.fields());
    for pair in set {
        super::document::set(&mut fields, pair)?;
    }
    Ok(fields)
}

/// Reads what is there, changes it, and puts it back if nobody else has changed it meanwhile.
fn configure(
    connect: &Connect,
    cache_id: &str,
    body: &filled::Body,
    if_match: Option<String>,
    whole: bool,
) -> Result<Exit, Failure> {
    let client = connect.client()?;
    let mut wanted = body.document()?;
    let mut if_match = if_match;
    if !whole || if_match.is_none() {
        let look = Call::get("cache/{}", &[cache_id]);
        let answer = connect.ask(&client, &look)?;
        let etag = answer.header("etag").map(str::to_owned);
        if_match = if_match.or(etag);
        let now = document(&client, &look, &answer)?;
        let now = if now["configuration"].is_object() { &now["configuration"] } else { &now };
        if !whole {
            let mut changed = now.as_object().cloned().unwrap_or_default();
            changed.extend(wanted);
            wanted = changed;
        }
    }
    let call = Call::new(hyper::Method::PUT, "cache/{}", &[cache_id]);
    let call = body.asks_only(call.json(&Value::Object(wanted))).header("if-match", if_match);
    let answer = connect.ask(&client, &call)?;
    connect.show(&client, &call, &answer, sheet)
}

fn caches_text(document: &Value) -> String {
    let caches = document.as_array().map_or(rows_of(document, "caches"), Vec::as_slice);
    if caches.is_empty() { sheet(document) } else { list(caches, CACHES) }
}

fn local_list(nodes: &LocalNodes, json: bool) -> Result<Exit, Failure> {
    let mut links = nodes.links()?;
    let views = look(&mut links);
    let nodes = StatusDocument::of(&views).nodes;
    if json {
        let caches: Vec<_> = nodes.iter().map(|node| (&node.node_id, &node.caches)).collect();
        let caches: std::collections::BTreeMap<_, _> = caches.into_iter().collect();
        print(serde_json::to_string_pretty(&caches).unwrap_or_default());
    } else {
        print(cache_table(&nodes));
    }
    match views.iter().find(|view| view.attachment == Attachment::Unreachable) {
        Some(view) => Err(Failure::new(Exit::Unreachable, format!("{}: {}", view.id, view.reason))),
        None => Ok(Exit::Done),
    }
}

/// What a node's supervisor said.
fn tell(answer: Result<String, ReachError>) -> Result<Exit, Failure> {
    match answer {
        Ok(said) => {
            print(said);
            Ok(Exit::Done)
        }
        Err(error) => Err(Failure::new(node_exit(&error), error.to_string())),
    }
}

/// 1: the node said no; 3: it could not be asked; 5: it was, and did not answer, or nobody can tell what.
pub fn node_exit(error: &ReachError) -> Exit {
    match error {
        ReachError::Refused { code: Code::Refused | Code::NoCache | Code::Impossible, .. } => {
            Exit::SaidNo
        }
        ReachError::Answer { .. } | ReachError::Reply { .. } => Exit::OutcomeUnknown,
        _ => Exit::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use nautilus_shm::attach::AttachError;
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_no_an_absence_and_a_silence_are_told_apart() {
        let path = || PathBuf::from("supervisor.sock");
        let refused = |code| ReachError::Refused { path: path(), code, said: String::new() };
        for (error, exit) in [
            (refused(Code::Refused), Exit::SaidNo),
            (refused(Code::NoCache), Exit::SaidNo),
            (refused(Code::Impossible), Exit::SaidNo),
            (refused(Code::NotReady), Exit::Unreachable),
            (refused(Code::BadRequest), Exit::Unreachable),
            (ReachError::Path(path()), Exit::Unreachable),
            (ReachError::Connect { path: path(), errno: Errno::ENOENT }, Exit::Unreachable),
            (ReachError::Answer { path: path(), errno: Errno::EAGAIN }, Exit::OutcomeUnknown),
            (
                ReachError::Reply { path: path(), source: AttachError::Magic(7) },
                Exit::OutcomeUnknown,
            ),
        ] {
            assert_eq!(node_exit(&error), exit, "{error}");
        }
    }
}
