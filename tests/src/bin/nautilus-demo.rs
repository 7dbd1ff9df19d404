//! `nautilus-demo`: one node end to end. A venue's two lines, which lose packets, or a file lead into it while
//! clients read; its worker is killed half-way; a table says what the clients saw.
//!
//! As root: a lab of one node on AF_XDP. Else, or with `--socket`: the same processes over kernel
//! sockets on loopback.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use nautilus_dataplane::feed::record::BboRecord;
use nautilus_dataplane::replay::generate::GeneratorSpec;
use nautilus_shm::cells::WorkerIdentity;
use nautilus_shm::control_region::{ControlReader, HistogramId, SUPERVISOR_PROCESS, WORKERS_MAX};
use nautilus_shm::metrics::labels::{FeedLine, HoleEnd, Recovery};
use nautilus_shm::metrics::{Counter, Owner, table};
use nautilus_tests::demo::{Feed, Subscribers, distributor};
use nautilus_tests::feed_source::FeedSource;
use nautilus_tests::lab::node_file::FEED_VENUE;
use nautilus_tests::lab::{
    self, Address, Folder, Lab, NetNs, NodeFile, RunId, Service, WireAt, WireReport, active_worker,
    attach, binary, left_behind, node_file, sweep,
};
use nautilus_tests::load::{self, Plan, Report};
use nautilus_tests::memcached::Client;
use nautilus_tests::phases::Phases;
use nautilus_tests::values;
use nautilus_tests::venue::VenueSpec;
use nautilus_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// One node end to end: feed, readers, a killed worker, a table.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A capture of MoldUDP64 (pcap) or an ITCH 5.0 BinaryFILE to replay; a venue without one, or generated
    /// order flow over kernel sockets.
    file: Option<PathBuf>,
    /// How long clients read, seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// Requests a second of each of the two readers.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Messages a second of the feed.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    feed_rate: u32,
    /// Seed of the generated flow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of a million packets, how many each of the venue's lines loses.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    loss_ppm: u32,
    /// Kernel sockets on loopback, even as root.
    #[arg(long)]
    socket: bool,
}

/// Keys the clients own, written before they are read.
const OWN_KEYS: usize = 500;
/// Symbols of the generated flow.
const SYMBOLS: u16 = 50;
/// Longest a worker's successor, or the first record of the feed, may take.
const SOON: Duration = Duration::from_secs(20);

/// Where the node runs, and where clients have to be to reach it.
enum Stage {
    Lab(Box<Lab>),
    Loopback { _supervisor: Service, run_dir: PathBuf, cache: SocketAddr },
}

impl Stage {
    /// `feed_more` is what the node file says of the feed beside its first line.
    fn start_lab(
        folder: Arc<Folder>,
        run: RunId,
        wires: &[WireAt],
        feed_more: &str,
    ) -> anyhow::Result<Self> {
        let mut lab = Lab::start_wired(folder, run, 1, wires, |_, _, file| {
            file.feed_more = feed_more.to_owned();
            Ok(())
        })?;
        lab.start_control()?;
        Ok(Self::Lab(Box::new(lab)))
    }

    /// The same node over kernel sockets, on ports that a memcached of this host does not have.
    fn start_loopback(folder: &Folder, run: RunId) -> anyhow::Result<Self> {
        let run_dir = folder.make("node1")?;
        let mut file = NodeFile::new("node1", &run_dir);
        file.port_kind = "socket";
        file.interfaces = vec!["lo".into()];
        file.addresses = vec![Ipv4Addr::LOCALHOST.into()];
        file.sources = vec!["127.0.0.0/8".into()];
        (file.echo_port, file.cache_port) = (37_007, 31_211);
        let cache = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), file.cache_port);
        let path = folder.write("node1.toml", &file.to_toml())?;
        let supervisor = Service::start(
            run,
            None,
            binary("nautilus-supervisor"),
            vec!["--config".into(), path.into()],
            folder.join("node1.log"),
        )?;
        let mut client = Client::connect(cache, Duration::from_millis(100))?;
        wait_until("the node answers", SOON, || client.get("absent").is_ok())
            .with_context(|| end_of(&folder.join("node1.log")))?;
        Ok(Self::Loopback { _supervisor: supervisor, run_dir, cache })
    }

    fn cache(&self) -> SocketAddr {
        match self {
            Self::Lab(lab) => (lab.nodes()[0].member.address.v4(), node_file::CACHE_PORT).into(),
            Self::Loopback { cache, .. } => *cache,
        }
    }

    fn as_client<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Lab(lab) => lab.client().namespace.run(action),
            Self::Loopback { .. } => action(),
        }
    }

    fn venue(&self) -> (Option<&Arc<NetNs>>, &'static str) {
        match self {
            Self::Lab(lab) => (Some(&lab.venue().namespace), "eth0"),
            Self::Loopback { .. } => (None, "lo"),
        }
    }

    /// What the node says of itself.
    fn region(&self) -> anyhow::Result<ControlReader> {
        Ok(attach(self.run_dir())?)
    }

    fn run_dir(&self) -> &Path {
        match self {
            Self::Lab(lab) => &lab.nodes()[0].run_dir,
            Self::Loopback { run_dir, .. } => run_dir,
        }
    }

    fn worker(&self) -> anyhow::Result<WorkerIdentity> {
        active_worker(&self.region()?).context("no worker is active")
    }
}

fn end_of(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn main() -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    let run = RunId::draw();
    let result = end_on_signals(&stop).and_then(|()| demonstrate(&Arguments::parse(), run, &stop));
    // Every guard has been dropped; what a guard could not undo goes here.
    sweep(run);
    let left = left_behind(run);
    if !left.is_empty() {
        eprintln!("nautilus-demo left behind:\n{}", left.join("\n"));
        return ExitCode::FAILURE;
    }
    match result {
        Ok(()) if stop.load(Ordering::Relaxed) => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C and SIGTERM set `stop`; everything then ends in order.
fn end_on_signals(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn demonstrate(arguments: &Arguments, run: RunId, stop: &AtomicBool) -> anyhow::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let loopback = arguments.socket || !root;
    let venue = (!loopback && arguments.file.is_none()).then_some(VenueSpec {
        seed: arguments.seed,
        symbols: SYMBOLS,
        rate: arguments.feed_rate,
        seconds: arguments.seconds + 60,
        lost_ppm: arguments.loss_ppm,
    });
    let spec = GeneratorSpec {
        seed: arguments.seed,
        symbols: SYMBOLS,
        messages: u64::from(arguments.feed_rate) * (arguments.seconds + 20),
        rate: arguments.feed_rate.into(),
    };
    let source = match &arguments.file {
        Some(file) => FeedSource::of_file(file)?,
        None => FeedSource::Generator(spec),
    };
    let feed_keys = match &venue {
        Some(venue) => venue.bbo_keys()?,
        None => source.bbo_keys(FEED_VENUE)?,
    };

    let folder = Arc::new(Folder::create(run)?);
    let mut stage = if loopback {
        println!("node: kernel sockets on loopback (the `socket` port)");
        println!("not shown this way: XDP, namespaces, restart with the same sockets, privileges");
        Stage::start_loopback(&folder, run)?
    } else {
        println!("node: AF_XDP on veth, lab {run}");
        let (mut feed_more, mut wires) = (String::new(), Vec::new());
        if let Some(venue) = &venue {
            let [node, of_venue] = [lab::node(1), lab::VENUE].map(Address::v4);
            feed_more = venue.of_node(&folder, node, of_venue)?;
            wires.push(venue.wire(&folder)?);
        }
        Stage::start_lab(Arc::clone(&folder), run, &wires, &feed_more)?
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(());
    }

    let own_keys: Vec<String> = (0..OWN_KEYS).map(|number| format!("own:{number}")).collect();
    stage.as_client(|| write_own(stage.cache(), &own_keys))?;
    let feed = match (&stage, &venue) {
        (Stage::Lab(lab), Some(venue)) => {
            Feed::Venue(venue.start(run, &lab.venue().namespace, &folder)?)
        }
        _ => {
            let (namespace, interface) = stage.venue();
            let mut replay = source.replay_arguments();
            for word in ["--interface", interface, "--pace", &format!("{}/s", arguments.feed_rate)]
            {
                replay.push(word.into());
            }
            // A source that ends begins anew, as the next session.
            let (program, log) = (binary("nautilus-replay"), folder.join("replay.log"));
            Feed::Replay(Service::start(run, namespace, program, replay, log)?)
        }
    };
    stage.as_client(|| first_record(stage.cache(), &feed_keys, stop)).with_context(|| {
        format!(
            "feed: {}\nnode: {}",
            end_of(&folder.join(feed.log())),
            end_of(&folder.join("node1.log"))
        )
    })?;

    let duration = Duration::from_secs(arguments.seconds);
    println!(
        "{}: {} symbols, {} messages/s; two readers of {}/s each for {duration:?}",
        feed.name(),
        feed_keys.len(),
        arguments.feed_rate,
        arguments.rate
    );
    let plan = |keys: &[String]| Plan {
        server: stage.cache(),
        keys: keys.to_vec(),
        rate_per_second: arguments.rate,
        duration,
    };
    let killed_at = OnceLock::new();
    let mut phases = Phases::default();
    let socket =
        venue.as_ref().map(|_| stage.as_client(|| distributor(lab::node(1)))).transpose()?;
    let subscribers = Subscribers::start(stage.run_dir(), &feed_keys[0], socket)?;
    let (own, read, killed) = std::thread::scope(|scope| {
        let own = scope.spawn(|| {
            stage.as_client(|| {
                load::read(&plan(&own_keys), stop, |key, found| {
                    found.is_some_and(|found| values::version_of(key, &found.bytes) == Some(0))
                })
            })
        });
        let read = scope.spawn(|| {
            stage.as_client(|| {
                load::read(&plan(&feed_keys), stop, |_, found| {
                    phases.count(killed_at.get().copied(), Instant::now(), found.is_some());
                    // A miss is honest: the feed is suspect until it is recovered, or its next session.
                    found.is_none_or(|found| BboRecord::decode(&found.bytes).is_some())
                })
            })
        });
        let killed = kill_worker(&stage, &feed, duration / 2, &killed_at, stop);
        (own.join(), read.join(), killed)
    });
    let seen = subscribers.end();
    let panicked = |_| anyhow::anyhow!("a reader panicked");
    let (own, read) = (own.map_err(panicked)??, read.map_err(panicked)??);
    let Some(killed) = killed? else { return Ok(()) };
    print(&own, &read, &phases, feed.heals());
    println!(
        "worker {} killed; {} went on: gap {:.3} ms by the supervisor's clock, {:.1} ms seen from \
         outside; readers' longest silence {:.1} ms",
        killed.victim,
        killed.successor,
        stage.region()?.supervisor().last_gap_ns() as f64 / 1e6,
        killed.seen.as_secs_f64() * 1e3,
        own.gap.max(read.gap).as_secs_f64() * 1e3
    );
    let region = stage.region()?;
    if let Stage::Lab(lab) = &mut stage
        && let Some(report) = lab.cut_venue()?
    {
        print_lines(&report, &region);
    }
    println!("{seen}");
    print_node(&region);
    if own.wrong + read.wrong > 0 {
        bail!(
            "{} wrong answers; first: {:?}",
            own.wrong + read.wrong,
            own.first_wrong.or(read.first_wrong)
        );
    }
    if own.hits == 0 || read.hits == 0 || seen.is_empty() {
        bail!("no value was read");
    }
    if phases.suspect_for.is_none() {
        bail!("no market data was read again after the kill");
    }
    Ok(())
}

fn write_own(server: SocketAddr, keys: &[String]) -> anyhow::Result<()> {
    let mut client = Client::connect(server, Duration::from_millis(500))?;
    for key in keys {
        let mut outcome = client.set(key, 0, &values::value(key, 0));
        for _ in 0..3 {
            if outcome.is_ok() {
                break;
            }
            outcome = client.set(key, 0, &values::value(key, 0));
        }
        outcome?;
    }
    Ok(())
}

/// Waits until the feed has put a first record into the cache.
fn first_record(server: SocketAddr, keys: &[String], stop: &AtomicBool) -> anyhow::Result<()> {
    let mut client = Client::connect(server, Duration::from_millis(200))?;
    wait_until("a first record of the feed is in the cache", SOON, || {
        stop.load(Ordering::Relaxed)
            || keys.iter().take(20).any(|key| matches!(client.get(key), Ok(Some(_))))
    })?;
    Ok(())
}

/// A worker's end.
struct Killed {
    victim: u32,
    successor: u32,
    /// From the kill until the successor was seen to be active.
    seen: Duration,
}

/// Kills the active worker after `pause` and, when another is active, lets the feed heal: the successor cannot
/// know what it missed. None when stopped before.
fn kill_worker(
    stage: &Stage,
    feed: &Feed,
    pause: Duration,
    killed_at: &OnceLock<Instant>,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Killed>> {
    let due = Instant::now() + pause;
    while Instant::now() < due {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let victim = stage.worker()?.pid;
    let killed = *killed_at.get_or_init(Instant::now);
    kill(nix::unistd::Pid::from_raw(victim as i32), Signal::SIGKILL)?;
    let mut successor = None;
    wait_until("another worker is active", SOON, || {
        successor = stage.worker().ok().filter(|worker| worker.pid != victim);
        successor.is_some()
    })?;
    let successor = successor.context("another worker is active")?.pid;
    let seen = killed.elapsed();
    feed.heal();
    Ok(Some(Killed { victim, successor, seen }))
}

fn print(own: &Report, feed: &Report, phases: &Phases, heals: &str) {
    println!(
        "\n{:<18}{:>9}{:>9}{:>9}{:>7}{:>7}{:>11}{:>11}{:>11}{:>10}",
        "reads",
        "sent",
        "hits",
        "misses",
        "lost",
        "wrong",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "gap ms"
    );
    for (name, report) in [("clients' own keys", own), ("market data", feed)] {
        println!(
            "{name:<18}{:>9}{:>9}{:>9}{:>7}{:>7}{:>11.1}{:>11.1}{:>11.1}{:>10.1}",
            report.sent,
            report.hits,
            report.answered - report.hits,
            report.lost(),
            report.wrong,
            report.latency_us(0.5),
            report.latency_us(0.99),
            report.latency_us(0.999),
            report.gap.as_secs_f64() * 1e3
        );
    }
    for (name, answers) in [
        ("  before the kill", phases.before),
        ("  while suspect", phases.suspect),
        ("  afterwards", phases.after),
    ] {
        println!("{name:<27}{:>9}{:>9}", answers.hits, answers.misses);
    }
    println!("(open loop: latency counts from the moment a request was due, kill included)\n");
    match phases.suspect_for {
        Some(time) => println!(
            "market data was suspect for {:.0} ms after the kill, until {heals}: a miss is the honest \
             answer then",
            time.as_secs_f64() * 1e3
        ),
        None => println!("market data was suspect from the kill to the end: every read was a miss"),
    }
}

/// What the lines lost, and how the node got it back.
fn print_lines(report: &WireReport, region: &ControlReader) {
    let sum = |counter: Counter| -> u64 {
        (0..WORKERS_MAX).map(|worker| region.metrics(worker).counter(counter)).sum()
    };
    for line in &report.lines {
        println!("line {}: {} packets passed, {} lost in XDP", line.name, line.passed, line.lost);
    }
    let recovery = |what| sum(table::FEED_RECOVERY.of(what));
    println!(
        "{} holes filled; {} messages asked for and got, {} gaps; {} snapshots applied; {} copies dropped in XDP",
        sum(table::FEED_HOLES.of(HoleEnd::Healed)),
        sum(table::FEED_RECOVERED_MESSAGES),
        sum(table::FEED_GAPS),
        recovery(Recovery::SnapshotsLoaded),
        [FeedLine::A, FeedLine::B]
            .map(|line| sum(table::FEED_LINE_DROPPED_PACKETS.of(line)))
            .iter()
            .sum::<u64>(),
    );
}

/// What the node measured itself: the way of a packet through it, and what became of every packet.
fn print_node(region: &ControlReader) {
    let mut latency = region.histogram(0, HistogramId::XdpToTx);
    for worker in 1..WORKERS_MAX {
        latency.merge(&region.histogram(worker, HistogramId::XdpToTx));
    }
    if latency.count() > 0 {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| latency.quantile(q) as f64 / 1e3);
        println!(
            "xdp_to_tx, {} answers: p50 {p50:.1} us, p99 {p99:.1} us, p99.9 {p999:.1} us",
            latency.count()
        );
    } else {
        println!("xdp_to_tx: not measured by kernel sockets");
    }
    let counts = region.metrics(SUPERVISOR_PROCESS);
    let verdicts: Vec<String> = counts
        .samples(Owner::Supervisor)
        .filter(|sample| sample.spec.name == "nautilus_xdp_packets_total" && sample.value > 0)
        .map(|sample| format!("{} {}", sample.labels.join(" "), sample.value))
        .collect();
    match verdicts.is_empty() {
        false => println!("xdp verdicts: {}", verdicts.join(", ")),
        true => println!("xdp verdicts: none, no program is attached"),
    }
}
