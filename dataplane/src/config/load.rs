//! Reading a node file, and errors that name file, line and key.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::NodeConfig;

/// Why a node file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the node file {path}: {source}")]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The text is not TOML, a key is unknown, or a value has the wrong type or is out of bounds.
    #[error("{file}:{line}: {key}: {problem}")]
    Value {
        /// The file, as given.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Path of the key (`interface[0].name`), or the section that lacks it.
        key: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// Reads and checks the node file at `path`.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string())
}

/// Checks `text`; `file` is the name errors carry.
pub fn parse(text: &str, file: &str) -> Result<NodeConfig, ConfigError> {
    let config: NodeConfig = toml::from_str(text).map_err(|error| misread(text, file, &error))?;
    super::check::check(&config)
        .map_err(|problem| refused(text, file, problem.key, problem.text))?;
    Ok(config)
}

/// What the parser says of a text that is not what it should be, with the place.
pub(crate) fn misread(text: &str, file: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let (root, _) = DeTable::parse_recoverable(text);
    let key = path_at(&root, &span);
    ConfigError::Value {
        file: file.into(),
        line: line_of(text, span.start),
        key: if key.is_empty() { "(top level)".into() } else { key },
        problem: error.message().into(),
    }
}

/// What is wrong with the value of a key (`interface[0].name`) of a text that was parsed, with the place.
pub(crate) fn refused(text: &str, file: &str, key: String, problem: String) -> ConfigError {
    let (root, _) = DeTable::parse_recoverable(text);
    let offset = span_of(&root, &key).map_or(0, |(span, _)| span.start);
    ConfigError::Value {
        file: file.into(),
        line: line_of(text, offset),
        key: as_written(&root, key),
        problem,
    }
}

/// Where a key (`worker.user`) stands in a node file that has been parsed: `file:line`, or `file` when
/// its default is what counts.
pub fn place_of(text: &str, file: &str, key: &str) -> String {
    let (root, _) = DeTable::parse_recoverable(text);
    match span_of(&root, key) {
        Some((span, true)) => format!("{file}:{}", line_of(text, span.start)),
        _ => file.to_owned(),
    }
}

/// The key path as the file would write it: the only section of a list may stand in single brackets.
fn as_written(root: &Spanned<DeTable<'_>>, key: String) -> String {
    let Some((section, rest)) = key.split_once("[0]") else { return key };
    let written = root.get_ref().iter().find(|(known, _)| known.get_ref() == section);
    match written.map(|(_, value)| value.get_ref()) {
        Some(DeValue::Table(_)) => format!("{section}{rest}"),
        _ => key,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// The path of the innermost key whose name or value contains `span`.
fn path_at(root: &Spanned<DeTable<'_>>, span: &Range<usize>) -> String {
    let mut path = String::new();
    descend_table(root.get_ref(), span, &mut path);
    path
}

fn descend_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut String) {
    let within = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table.iter() {
        let by_name = within(key.span());
        let inner = descend(value, span);
        if by_name || inner.is_some() {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key.get_ref());
            path.push_str(&inner.unwrap_or_default());
            return;
        }
    }
}

/// The path below `value` of what contains `span`; a table's own span is only its header, so its
/// members are asked too.
fn descend(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    let own = value.span();
    let mine = own.start <= span.start && span.end <= own.end;
    match value.get_ref() {
        DeValue::Table(table) => {
            let mut below = String::new();
            descend_table(table, span, &mut below);
            if below.is_empty() { mine.then(String::new) } else { Some(format!(".{below}")) }
        }
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(below) = descend(item, span) {
                    return Some(format!("[{index}]{below}"));
                }
            }
            mine.then(String::new)
        }
        _ => mine.then(String::new),
    }
}

/// Where the key path (`interface[0].name`) stands, and `true`; where its parent does, and `false`, if it
/// is absent.
fn span_of(root: &Spanned<DeTable<'_>>, path: &str) -> Option<(Range<usize>, bool)> {
    let mut found = None;
    let mut table = root.get_ref();
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            return found.map(|span| (span, false));
        };
        found = Some(key.span());
        let mut value = value;
        if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
            let Some(item) = items.get(index) else { return found.map(|span| (span, false)) };
            found = Some(item.span());
            value = item;
        }
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found.map(|span| (span, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (node file, what the whole message must say)
    const REFUSED: &[(&str, &str)] = &[
        ("[node]\nid = \"Edge 1\"\n", "n.toml:2: node.id: \"Edge 1\" is not an id"),
        ("[node]\nid = \"status\"\n", "n.toml:2: node.id: \"status\" is a reserved word"),
        ("\n[worker]\ncoer = 1\n", "n.toml:3: worker.coer: unknown field `coer`"),
        ("[worker]\ncore = \"last\"\n", "n.toml:2: worker.core: data did not match"),
        ("[worker]\ncount = 0\n", "n.toml:2: worker.count: 0 is not 1..=8"),
        ("[worker]\ncount = 9\n", "n.toml:2: worker.count: 9 is not 1..=8"),
        ("[worker]\ncount = 2\ncore = 1\n", "n.toml:3: worker.core: 1 CPUs for 2 workers"),
        ("[worker]\ncount = 2\ncore = [1, 2000]\n", "n.toml:3: worker.core: 2000 is not"),
        ("[worker]\ncore = 5000\n", "n.toml:2: worker.core: 5000 is not 0..=1023"),
        ("[worker]\npoll = \"spin\"\n", "n.toml:2: worker.poll: unknown variant `spin`"),
        ("[worker]\nuser = \"\"\n", "n.toml:2: worker.user: is empty"),
        ("[port]\nframes = 3000\n", "n.toml:2: port.frames: 3000 is not a power of two"),
        ("[port]\nframes = -1\n", "n.toml:2: port.frames: invalid value: integer `-1`"),
        ("[port]\nchunk_bytes = 1024\n", "n.toml:2: port.chunk_bytes: 1024 is neither 2048"),
        ("[port]\nbusy_poll_budget = 0\n", "n.toml:2: port.busy_poll_budget: 0 is not 1..=256"),
        ("[supervisor]\nhang_limit_ms = 99\n", "n.toml:2: supervisor.hang_limit_ms: 99"),
        ("[supervisor]\nrealtime_priority = 100\n", "n.toml:2: supervisor.realtime_priority: 100"),
        ("[[interface]]\nname = \"a/b\"\n", "n.toml:2: interface[0].name: \"a/b\""),
        ("[[interface]]\nqueues = [0]\n", "n.toml:1: interface[0]: missing field `name`"),
        (
            "[[interface]]\nname = \"a\"\n[[interface]]\nname = \"a\"\n",
            "n.toml:4: interface[1].name: \"a\" stands twice",
        ),
        ("[[interface]]\nname = \"a\"\nqueues = [64]\n", "n.toml:3: interface[0].queues: queue 64"),
        ("[[interface]]\nname = \"a\"\nqueues = []\n", "n.toml:3: interface[0].queues: is empty"),
        ("[access]\nsources = [\"10.0.0.0/33\"]\n", "n.toml:2: access.sources: \"10.0.0.0/33\""),
        ("[access]\nsources = [\"10.0.0.1/8\"]\n", "n.toml:2: access.sources: \"10.0.0.1/8\""),
        ("[access]\nlimits = []\n", "n.toml:2: access.limits: unknown field `limits`"),
        (
            "[[access.limit]]\nprefix = \"10.0.0.0/8\"\npackets_per_s = 0\n",
            "n.toml:3: access.limit[0].packets_per_s: 0 is not 1..=100000000",
        ),
        (
            "[[access.limit]]\nprefix = \"10.0.0.0/8\"\nbytes_per_s = 1000\nbyte_burst = 1500\n",
            "n.toml:4: access.limit[0].byte_burst: 1500 is not 4096..=3600000",
        ),
        (
            "[[access.limit]]\nprefix = \"10.0.0.0/8\"\npacket_burst = 1\n",
            "n.toml:3: access.limit[0].packet_burst: has no meaning without packets_per_s",
        ),
        (
            "[[access.limit]]\nprefix = \"10.0.0.0/8\"\n[[access.limit]]\nprefix = \"10.0.0.0/8\"\n",
            "n.toml:4: access.limit[1].prefix: 10.0.0.0/8 stands twice",
        ),
        (
            "[cache]\nid = \"q\"\nsources = [\n{ prefix = \"10.0.0.0/8\", allow = [\"all\"] } ]\n",
            "n.toml:4: cache.sources[0].allow[0]: unknown variant `all`",
        ),
        (
            "[cache]\nid = \"q\"\nsources = [\n{ prefix = \"10.0.0.0/8\", allow = [] },\n\
             { prefix = \"10.0.0.0/8\", allow = [\"read\"] } ]\n",
            "n.toml:5: cache.sources[1].prefix: 10.0.0.0/8 stands twice",
        ),
        ("[echo]\nport = 70000\n", "n.toml:2: echo.port: invalid value: integer `70000`"),
        ("[echo]\nport = 0\n", "n.toml:2: echo.port: 0 is not a port"),
        ("[cache]\nid = \"q\"\nmax_memory_mb = 1\n", "n.toml:3: cache.max_memory_mb: 1 is not"),
        ("[cache]\nid = \"q\"\nreaders = [\"a\", \"\"]\n", "n.toml:3: cache.readers[1]: is empty"),
        ("[cache]\nid = \"q\"\nreaders = \"a\"\n", "n.toml:3: cache.readers: invalid type"),
        (
            "[cache]\nid = \"q\"\nhuge_pages = \"auto\"\n",
            "n.toml:3: cache.huge_pages: invalid type",
        ),
        (
            "[echo]\nport = 7\n[cache]\nid = \"q\"\nport = 7\n",
            "n.toml:5: cache.port: 7 is also echo.port",
        ),
        (
            "[cache]\nid = \"q\"\n[[feed]]\nvenue = \"nasdaq\"\ngroup = \"10.0.0.1\"\nport = 1\nchannel = 1\n",
            "n.toml:5: feed[0].group: 10.0.0.1 is not a multicast group",
        ),
        (
            "[[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 1\nchannel = 1\n",
            "n.toml:1: feed[0]: a feed needs a [[cache]]",
        ),
        (
            "[[cache]]\nid = \"q\"\n[[cache]]\nid = \"q\"\nport = 2\n",
            "n.toml:4: cache[1].id: \"q\" is also cache[0].id",
        ),
        (
            "[[cache]]\nid = \"q\"\n[[cache]]\nid = \"r\"\n",
            "n.toml:3: cache[1].port: 11211 is also cache[0].port",
        ),
        (
            "[[cache]]\nid = \"q\"\n[[cache]]\nid = \"r\"\nprot = 2\n",
            "n.toml:5: cache[1].prot: unknown field `prot`",
        ),
        ("[cache]\nid = \"q\"\nprot = 2\n", "n.toml:3: cache.prot: unknown field `prot`"),
        ("[[cache]]\nport = 2\n", "n.toml:1: cache[0]: missing field `id`"),
        ("[cache]\nid = \"q\"\nmax_value_bytes = 0\n", "n.toml:3: cache.max_value_bytes: 0 is"),
        ("cache = 5\n", "n.toml:1: cache: invalid type: integer `5`, expected a section"),
        (
            "[cache]\nid = \"q\"\n[[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 1\nchannel = 1\ncache = \"r\"\n",
            "n.toml:8: feed[0].cache: there is no cache \"r\"",
        ),
        ("[front]\nmax_conections = 1\n", "n.toml:2: front.max_conections: unknown field"),
        ("[front]\nmax_connections = 0\n", "n.toml:2: front.max_connections: 0 is not 1..="),
        ("[front]\nmax_buffer_mb = 1\n", "n.toml:2: front.max_buffer_mb: 1 is not 4..="),
        ("[front]\ncore = 1024\n", "n.toml:2: front.core: 1024 is not 0..=1023"),
        ("[capture]\nfiles = 3\n", "n.toml:1: capture: missing field `directory`"),
        ("[capture]\ndirectory = \"/x\"\nfile = 3\n", "n.toml:3: capture.file: unknown field"),
        ("[capture]\ndirectory = \"x\"\n", "n.toml:2: capture.directory: x is not absolute"),
        ("[capture]\ndirectory = \"/x\"\n", "n.toml:1: capture: captures nothing"),
        ("[capture]\ndirectory = \"/x\"\nfiles = 1\n", "n.toml:3: capture.files: 1 is not 2..="),
        ("[capture]\ndirectory = \"/x\"\nbuffer_mb = 2048\n", "n.toml:3: capture.buffer_mb: 2048"),
        ("[capture]\ndirectory = \"/x\"\nports = [0]\n", "n.toml:3: capture.ports: 0 is not"),
        ("[node\n", "n.toml:1: "),
        ("[control]\nlisten = \"nowhere\"\n", "n.toml:2: control.listen: invalid socket address"),
    ];

    #[test]
    fn every_bad_value_names_file_line_and_key() {
        for (text, expected) in REFUSED {
            // An interface is needed everywhere; added at the end so that lines stay.
            let message = parse(text, "n.toml").expect_err(text).to_string();
            assert!(message.starts_with(expected), "{text:?}\n  gave {message}\n  not  {expected}");
        }
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        let text = "[node]\nid = \"a\"\n\n[worker]\ncore = 1\n";
        assert_eq!(place_of(text, "n.toml", "worker.core"), "n.toml:5");
        assert_eq!(place_of(text, "n.toml", "worker.user"), "n.toml");
        assert_eq!(place_of(text, "n.toml", "control.user"), "n.toml");
        let text = "[[cache]]\nid = \"a\"\n[[cache]]\nid = \"b\"\nreaders = [\"c\"]\n";
        assert_eq!(place_of(text, "n.toml", "cache[1].readers"), "n.toml:5");
        assert_eq!(place_of(text, "n.toml", "cache[0].readers"), "n.toml");
        assert_eq!(place_of("[cache]\nid = \"a\"\n", "n.toml", "cache[0].id"), "n.toml:2");
    }

    #[test]
    fn nine_caches_are_one_too_many_and_a_single_one_needs_no_list() {
        let sections = |count: usize| -> String {
            (0..count).map(|n| format!("[[cache]]\nid = \"c{n}\"\nport = {}\n", n + 1)).collect()
        };
        assert_eq!(parse(&sections(8), "n.toml").unwrap().cache.len(), 8);
        let message = parse(&sections(9), "n.toml").unwrap_err().to_string();
        assert!(message.starts_with("n.toml:25: cache[8]: more than 8 caches"), "{message}");
        let addresses = |count: usize| {
            let listed: Vec<String> = (1..=count).map(|n| format!("\"198.18.0.{n}\"")).collect();
            let interface = format!("name = \"a\"\naddresses = [{}]\n", listed.join(", "));
            parse(&format!("{}[[interface]]\n{interface}", sections(8)), "n.toml")
        };
        assert!(addresses(6).is_ok());
        let message = addresses(7).unwrap_err().to_string();
        assert!(message.contains("n.toml:27: interface[0].addresses: 8 caches on 7"), "{message}");
        let (one, list) = ("[cache]\nid = \"q\"\n", "[[cache]]\nid = \"q\"\n");
        assert_eq!(parse(one, "n.toml").unwrap(), parse(list, "n.toml").unwrap());
    }

    #[test]
    fn lines_of_a_feed_are_checked_one_by_one() {
        let feed = |channel: u8, rest: &str| {
            format!(
                "[[feed]]\nvenue = \"nasdaq\"\ngroup = \"233.54.12.111\"\nport = 2647{channel}\n\
                 channel = {channel}\n{rest}"
            )
        };
        let node = |feeds: &str| {
            let cache = "[echo]\nport = 7\n[cache]\nid = \"q\"\n";
            parse(&format!("{cache}{feeds}"), "n.toml").map_err(|error| error.to_string())
        };
        let line = |port: u16| format!("{{ group = \"233.54.12.112\", port = {port} }}");
        let two = format!("lines = [{}, {}]\nhold_limit_us = 0\n", line(1), line(2));
        let whole = node(&feed(1, &two)).unwrap();
        let ports: Vec<u16> = whole.feed[0].every_line().map(|line| line.port).collect();
        assert_eq!((ports, whole.feed[0].hold_limit_us), (vec![26471, 1, 2], 0));
        let plain = node(&feed(1, "")).unwrap();
        assert_eq!((plain.feed[0].every_line().count(), plain.feed[0].hold_limit_us), (1, 5_000));

        let lines = |list: &str| feed(1, &format!("lines = [{list}]\n"));
        let (one, same) = (line(1), "{ group = \"233.54.12.111\", port = 26471 }");
        for (feeds, expected) in [
            (
                lines(&[line(1), line(2), line(3)].join(", ")),
                "n.toml:10: feed[0].lines: more than 2",
            ),
            (
                lines("{ group = \"10.0.0.1\", port = 1 }"),
                "n.toml:10: feed[0].lines[0].group: 10.0.0.1 is not a multicast group",
            ),
            (
                lines(&format!("\n{},\n{}", line(1), line(7))),
                "n.toml:12: feed[0].lines[1].port: 7 is also echo.port",
            ),
            (lines(&line(11211)), "n.toml:10: feed[0].lines[0].port: 11211 is also cache[0].port"),
            (lines(&line(0)), "n.toml:10: feed[0].lines[0].port: 0 is not a port"),
            (lines(same), "n.toml:10: feed[0].lines[0].group: 233.54.12.111:26471 stands twice"),
            (
                format!("{}{}", lines(&one), feed(2, &format!("lines = [{one}]\n"))),
                "n.toml:16: feed[1].lines[0].group: 233.54.12.112:1 stands twice",
            ),
            (lines("{ group = \"233.54.12.112\" }"), "n.toml:10: feed[0].lines[0]: missing field"),
            (feed(1, "hold_limit_us = 50001\n"), "n.toml:10: feed[0].hold_limit_us: 50001 is not"),
        ] {
            let message = node(&feeds).unwrap_err();
            assert!(message.starts_with(expected), "{feeds}\n  gave {message}\n  not  {expected}");
        }
    }

    #[test]
    fn the_default_file_is_the_default() {
        let parsed = parse(super::super::DEFAULT_TOML, "node.default.toml").unwrap();
        let mut expected = NodeConfig::default();
        expected.interface.push(super::super::Interface {
            name: "eth0".into(),
            queues: super::super::Auto::Auto,
            addresses: super::super::Auto::Auto,
        });
        assert_eq!(parsed, expected);
    }

    /// Every key of the format stands in the default file, at least as a comment.
    #[test]
    fn the_default_file_names_every_key() {
        for (section, keys) in [
            ("[node]", &["id", "region", "tier", "run_dir"][..]),
            ("[worker]", &["core", "poll", "user", "program"]),
            ("[supervisor]", &["realtime_priority", "hang_limit_ms", "start", "releases"]),
            (
                "[port]",
                &["kind", "frames", "chunk_bytes", "huge_pages", "zero_copy", "rx_checksum"],
            ),
            ("[host]", &["stages", "state", "root"]),
            ("[[interface]]", &["name", "queues", "addresses"]),
            ("[access]", &["sources"]),
            (
                "[[access.limit]]",
                &["prefix", "packets_per_s", "packet_burst", "bytes_per_s", "byte_burst"],
            ),
            ("[echo]", &["port"]),
            (
                "[[cache]]",
                &[
                    "id",
                    "port",
                    "max_memory_mb",
                    "max_value_bytes",
                    "huge_pages",
                    "hot_set",
                    "readers",
                    "sources",
                ],
            ),
            (
                "[front]",
                &[
                    "enabled",
                    "core",
                    "poll",
                    "max_connections",
                    "idle_timeout_s",
                    "max_buffer_mb",
                    "program",
                ],
            ),
            (
                "[[feed]]",
                &[
                    "venue",
                    "group",
                    "port",
                    "lines",
                    "hold_limit_us",
                    "channel",
                    "cache",
                    "start",
                    "max_orders",
                ],
            ),
            (
                "[capture]",
                &["directory", "file_mb", "files", "buffer_mb", "feeds", "ports", "program"],
            ),
            ("[control]", &["listen", "user"]),
        ] {
            let start = super::super::DEFAULT_TOML.find(section).expect(section);
            let body = &super::super::DEFAULT_TOML[start + section.len()..];
            let body = &body[..body.find("\n[").or(body.find("\n# [")).unwrap_or(body.len())];
            for key in keys {
                assert!(body.contains(&format!("{key} = ")), "{section} lacks {key}");
            }
        }
    }
}
