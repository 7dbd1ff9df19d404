//! The control daemon: watches nodes read-only and answers HTTP, over TLS beyond this host. `README.md` of the crate has the
//! paths; exit codes: 0 told to stop, 1 could not serve, 2 bad usage or configuration.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nautilus_control::api::Managers;
use nautilus_control::cache::{EdgeCacheManager, Items};
use nautilus_control::config::{Config, ConfigError, DEFAULT_PATH};
use nautilus_control::deploy::runner::{Deployments, system_clock};
use nautilus_control::notify::ServiceManager;
use nautilus_control::security::folder_of;
use nautilus_control::serve::Server;
use nautilus_control::watcher::Watcher;
use nautilus_sandbox::{Files, Kind};
use tokio::signal::unix::{SignalKind, signal};

/// Watches the nodes of a site and answers HTTP
#[derive(Parser)]
#[command(name = "nautilus-control", version)]
struct Arguments {
    /// File with the list of nodes
    #[arg(long, env = "NAUTILUS_CONTROL_CONFIG", conflicts_with = "node")]
    config: Option<PathBuf>,
    /// Run directory of a node, instead of a file; may be repeated
    #[arg(long, value_name = "RUN_DIR")]
    node: Vec<PathBuf>,
    /// Address and port to listen on, instead of the file's
    #[arg(long)]
    listen: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match configuration(&arguments) {
        Ok(config) => config,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(2);
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. A log that cannot be written is no reason to end.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "nautilus-control: {text}");
}

fn configuration(arguments: &Arguments) -> Result<Config, ConfigError> {
    let mut config = if arguments.node.is_empty() {
        let path = arguments.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        Config::load(path)?
    } else {
        Config::of_run_dirs(&arguments.node)?
    };
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    config.check_listen(arguments.config.as_deref().unwrap_or(Path::new("--listen")))?;
    Ok(config)
}

fn serve(config: Config) -> anyhow::Result<()> {
    use anyhow::Context;
    // Before there is a second thread, and before anybody can ask anything.
    let store = config.deploy.store.as_deref().map(folder_of);
    let write = config.security.written().into_iter().chain(store).collect();
    let files = Files { read: vec!["/".into()], write };
    let entered = nautilus_sandbox::enter(Kind::Control, &files);
    entered.notes.iter().for_each(|note| say(note));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let count = config.nodes.len();
        let deployments = Deployments::open(&config.deploy, &config.nodes, system_clock, say)?;
        let watcher = Watcher::start(config.nodes).context("starting the watcher")?;
        let items = Arc::new(Items::new(watcher.clone()));
        let store = deployments.as_ref().map(|deployments| deployments.store());
        let caches = EdgeCacheManager::start(watcher.clone(), store)
            .context("starting the keeper of caches")?;
        let managers = Managers { watcher, deployments, items, caches };
        let server = Server::open(managers, config.listen, &config.security).await?;
        let status = format!("listening on {}, watching {count} nodes", server.url()?);
        say(&status);
        let manager = ServiceManager::of_environment();
        manager.ready(&status);
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Answers in progress are dropped: every one of them can be asked again.
        tokio::select! {
            result = server.run(say) => result,
            () = keep_awake(&manager) => Ok(()),
            () = stop => {
                manager.stopping();
                Ok(())
            }
        }
    })
}

/// Says from the loop that serves that it turns, as often as the service manager wants to hear it.
async fn keep_awake(manager: &ServiceManager) {
    let Some(interval) = manager.interval() else { return std::future::pending().await };
    loop {
        manager.alive();
        tokio::time::sleep(interval).await;
    }
}
