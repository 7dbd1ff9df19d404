//! Starts and keeps one node. See `src/supervisor/README.md`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nautilus_dataplane::app::feed_memory::FeedMemory;
use nautilus_dataplane::config::{self, ConfigError, PortKind};
use nautilus_dataplane::supervisor::explain::without_node;
use nautilus_dataplane::supervisor::host::Host;
use nautilus_dataplane::supervisor::node::{Node, Origin, check};
use nautilus_dataplane::supervisor::releases::contract;
use nautilus_dataplane::supervisor::sys::inherited_connection;
use nautilus_shm::attach::{Ask, PACKET_BYTES_MAX};

/// Keeps the resources and workers of one Nautilus Edge node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The node file (TOML).
    #[arg(long, value_name = "FILE", required_unless_present = "print_default")]
    config: Option<PathBuf>,
    /// Check the node file against this host, print what `auto` becomes, and exit.
    #[arg(long)]
    check: bool,
    /// With --check: the file is for another host. What only that one can say is listed, not checked.
    #[arg(long, requires = "check")]
    elsewhere: bool,
    /// Read an explain request of the attach protocol from standard input, answer it by a program filled
    /// from the node file, and exit. For `nautilus explain --config`.
    #[arg(long, conflicts_with = "check")]
    explain: bool,
    /// Check the node file, say what other releases must have in common with this one to take a node over from
    /// it, and exit.
    #[arg(long, conflicts_with_all = ["check", "explain"])]
    describe: bool,
    /// The release that this is, as the supervisor before says.
    #[arg(long, hide = true, value_name = "NAME")]
    release: Option<String>,
    /// A connection that waits for the end of a swap.
    #[arg(long, hide = true, value_name = "NUMBER")]
    answer: Vec<i32>,
    /// A connection that waits until everything is exchanged in it.
    #[arg(long, hide = true, value_name = "NUMBER")]
    answer_soon: Vec<i32>,
    /// The connection to the front.
    #[arg(long, hide = true, value_name = "NUMBER")]
    front: Option<i32>,
    /// Print the default node file, every key documented, and exit.
    #[arg(long)]
    print_default: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each error names its cause itself.
            let _ = writeln!(std::io::stderr(), "nautilus-supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.print_default {
        std::io::stdout().write_all(nautilus_dataplane::config::DEFAULT_TOML.as_bytes())?;
        return Ok(());
    }
    // Before anything else is opened.
    let inherited = |numbers: Vec<i32>| numbers.into_iter().filter_map(inherited_connection);
    let waiting = inherited(arguments.answer).collect();
    let waiting_soon = inherited(arguments.answer_soon).collect();
    let front = arguments.front.and_then(inherited_connection);
    let Some(path) = arguments.config else { anyhow::bail!("--config is missing") };
    if arguments.check && arguments.elsewhere {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let config = config::parse(&text, &path.display().to_string())?;
        for want in config::wants_of_its_host(&config) {
            writeln!(std::io::stdout(), "its host must have {want}")?;
        }
        writeln!(std::io::stdout(), "{}: fine, as far as can be seen here", path.display())?;
        return Ok(());
    }
    if arguments.check {
        let (resolved, _, mirror) = check(&path)?;
        for choice in &resolved.choices {
            writeln!(std::io::stdout(), "{choice}")?;
        }
        if let Some(capture) = &resolved.config.capture {
            writeln!(std::io::stdout(), "{}", capture.describe(&resolved.config))?;
        }
        for feed in &resolved.config.feed {
            let (protocol, memory) = (feed.protocol.name(), FeedMemory::of(feed));
            writeln!(std::io::stdout(), "feed of {:?}: {protocol}; {memory}", feed.venue)?;
        }
        if resolved.config.port.kind == PortKind::Xdp {
            match Host::probe() {
                Ok(host) => {
                    for line in host.withdrawn {
                        writeln!(std::io::stdout(), "{line}")?;
                    }
                }
                Err(error) => writeln!(std::io::stdout(), "cannot start here: {error}")?,
            }
        }
        for name in resolved.config.interface.iter().map(|interface| &interface.name) {
            if mirror.link_named(name).is_none() {
                writeln!(
                    std::io::stdout(),
                    "there is no interface {name} here: a start is refused until there is"
                )?;
            }
        }
        writeln!(std::io::stdout(), "{}: fine", path.display())?;
        return Ok(());
    }
    if arguments.describe {
        check(&path)?;
        writeln!(std::io::stdout(), "contract: {}", contract())?;
        return Ok(());
    }
    if arguments.explain {
        let mut packet = Vec::new();
        std::io::stdin().take(PACKET_BYTES_MAX as u64 + 1).read_to_end(&mut packet)?;
        let Ask::Explain(request) = Ask::decode(&packet)? else {
            anyhow::bail!("not such a request")
        };
        let (resolved, _, mirror) = check(&path)?;
        std::io::stdout().write_all(without_node(&request, (&resolved, &mirror)).as_bytes())?;
        return Ok(());
    }
    let origin = Origin { release: arguments.release, waiting, waiting_soon, front };
    Ok(Node::start(&path, origin)?.run()?)
}
