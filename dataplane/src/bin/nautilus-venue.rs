//! A venue: matches seeded order flow and sends its market data over one to three multicast lines, with
//! a request server for what was lost and a snapshot server for who comes late.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use clap::Parser;
use nautilus_dataplane::feed::history::History;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::feed::pack::{Packer, Packetiser};
use nautilus_dataplane::feed::request_server::{
    Refusal, RequestCounts, RequestLimits, RequestServer,
};
use nautilus_dataplane::feed::soupbintcp::Credentials;
use nautilus_dataplane::replay::pace::{Pace, Schedule};
use nautilus_dataplane::replay::pack::{session_named, session_of_now};
use nautilus_dataplane::venue::day::Day;
use nautilus_dataplane::venue::engine::books_text;
use nautilus_dataplane::venue::flow::FlowSpec;
use nautilus_dataplane::venue::lines::{LINES_MAX, LineSpec, Lines};
use nautilus_dataplane::venue::publish::{PublishCounts, Publisher};
use nautilus_dataplane::venue::requests;
use nautilus_dataplane::venue::shared::Shared;
use nautilus_dataplane::venue::snapshots::{self, SnapshotCounts, SnapshotSpec};
use nix::sys::signal::{SigSet, Signal};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Messages in one packet. ITCH messages of the least length do not fill an MTU with so many.
const MESSAGES_MAX: u16 = 1_000;

/// Bytes of IPv4 and of IPv6 headers with UDP's.
const HEADERS_V4_BYTES: usize = 28;
const HEADERS_V6_BYTES: usize = 48;

/// Matches seeded order flow and publishes it as MoldUDP64 and ITCH 5.0.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Seed of the order flow: the same seed gives the same messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stocks to trade.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    symbols: u16,
    /// Messages a second of exchange time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: u64,
    /// Messages after which the day is brought to its end; the closing crosses come on top.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// The same as exchange time at the rate, in seconds.
    #[arg(long, conflicts_with = "messages", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// original (exchange time), max, a factor such as 10, or messages a second such as 50000/s.
    #[arg(long, default_value = "original")]
    pace: Pace,
    /// MoldUDP64 session, at most ten characters; one of the clock unless given.
    #[arg(long, value_parser = session_named)]
    session: Option<Session>,

    /// Multicast group and port of a line, IPv4 or [IPv6]; one to three times.
    #[arg(long = "line", value_name = "GROUP:PORT", required = true)]
    lines: Vec<SocketAddr>,
    /// Own address of each line in turn, whose interface its packets leave by.
    #[arg(long = "interface-address", value_name = "ADDRESS")]
    interface_addresses: Vec<IpAddr>,
    /// Own address of all lines.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "interface_addresses")]
    source: Option<IpAddr>,
    /// MTU of the lines: no packet, headers included, is longer.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(576..=9_216))]
    mtu: u16,
    /// Longest time a message waits for others of its packet, in microseconds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    flush_us: u64,

    /// Address of the MoldUDP64 request server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    request: Option<SocketAddr>,
    /// Memory for the messages it can send again, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    history_mb: u64,
    /// Requests a second that one source gets answered.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_s: u32,
    /// Address of the GLIMPSE snapshot server.
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["user", "password_file"])]
    snapshot: Option<SocketAddr>,
    /// Who may have a snapshot.
    #[arg(long, requires = "snapshot")]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE", requires = "snapshot")]
    password_file: Option<PathBuf>,

    /// Milliseconds of heartbeats before the first message, in which receivers may join.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    begin_after_ms: u64,
    /// Milliseconds after the last message in which the end is announced and the servers answer.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    linger_ms: u64,
    /// Write the books as text when the day is over, before the time after it.
    #[arg(long, value_name = "FILE")]
    write_books: Option<PathBuf>,
}

/// What is opened before the first packet leaves, so that everything that can be refused is.
struct Opened {
    session: Session,
    day: Day,
    lines: Lines,
    payload_bytes_max: usize,
    requests: Option<UdpSocket>,
    snapshots: Option<(TcpListener, Credentials)>,
}

fn line_specs(arguments: &Arguments) -> anyhow::Result<Vec<LineSpec>> {
    let (lines, addresses) = (&arguments.lines, &arguments.interface_addresses);
    ensure!(lines.len() <= LINES_MAX, "--line can be given {LINES_MAX} times, not {}", lines.len());
    ensure!(
        addresses.is_empty() || addresses.len() == lines.len(),
        "--interface-address must be given once a --line: {} for {}",
        addresses.len(),
        lines.len()
    );
    let address = |index: usize| addresses.get(index).copied().or(arguments.source);
    let specs = lines.iter().enumerate();
    Ok(specs.map(|(index, group)| LineSpec { group: *group, address: address(index) }).collect())
}

fn credentials(user: &str, path: &Path) -> anyhow::Result<Credentials> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--password-file {shown}"))?;
    let password = text.lines().next().unwrap_or_default();
    Credentials::new(user, password)
        .with_context(|| format!("--user {user}, --password-file {shown}"))
}

fn open(arguments: &Arguments) -> anyhow::Result<Opened> {
    let messages = match arguments.seconds {
        Some(seconds) => seconds.saturating_mul(arguments.rate),
        None => arguments.messages,
    };
    let (seed, symbols, rate) = (arguments.seed, arguments.symbols, arguments.rate);
    let day = Day::new(FlowSpec { seed, symbols, messages, rate })?;
    let lines = Lines::open(&line_specs(arguments)?)?;
    // The same packets on all lines: what fits the longer headers.
    let is_v6 = arguments.lines.iter().any(SocketAddr::is_ipv6);
    let headers_bytes = if is_v6 { HEADERS_V6_BYTES } else { HEADERS_V4_BYTES };
    let requests = arguments
        .request
        .map(|at| UdpSocket::bind(at).with_context(|| format!("--request {at}")))
        .transpose()?;
    let snapshots = match (&arguments.snapshot, &arguments.user, &arguments.password_file) {
        (Some(at), Some(user), Some(path)) => {
            let credentials = credentials(user, path)?;
            let listener = TcpListener::bind(at).with_context(|| format!("--snapshot {at}"))?;
            Some((listener, credentials))
        }
        _ => None,
    };
    if let Some(path) = &arguments.write_books {
        // Before the run, not after it.
        std::fs::write(path, "").with_context(|| format!("--write-books {}", path.display()))?;
    }
    Ok(Opened {
        session: arguments.session.unwrap_or_else(session_of_now),
        day,
        lines,
        payload_bytes_max: usize::from(arguments.mtu) - headers_bytes,
        requests,
        snapshots,
    })
}

/// Runs the day and returns the line of counts.
fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let Opened { session, day, lines, payload_bytes_max, requests, snapshots } = open(arguments)?;
    let history = History::new((arguments.history_mb << 20) as usize, 1);
    let shared = Shared::new(day, history);
    let limits = RequestLimits { source_per_s: arguments.requests_per_s, ..Default::default() };
    let server = RequestServer::new(session, payload_bytes_max, limits, arguments.seed);
    let snapshot_counts = SnapshotCounts::default();
    let packer = Packer::with_limits(session, 1, payload_bytes_max, MESSAGES_MAX);
    let packets = Packetiser::new(packer, arguments.flush_us * 1_000, shared.now_ns());

    let signals = end_signals();
    signals.thread_block().context("blocking SIGTERM and SIGINT")?;
    let shared = std::sync::Arc::new(shared);
    let hurried = shared.clone();
    // Ends with the process: it has nothing to give back.
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            hurried.hurry();
        }
    });
    let shared = &*shared;
    let (published, answered) = std::thread::scope(|scope| {
        let requests = requests
            .as_ref()
            .map(|socket| scope.spawn(move || requests::serve(socket, server, shared)));
        let snapshots = snapshots.as_ref().map(|(listener, credentials)| {
            let spec = SnapshotSpec { session, credentials: *credentials };
            let counts = &snapshot_counts;
            scope.spawn(move || snapshots::serve(listener, spec, shared, counts))
        });
        let published = publish(arguments, shared, Publisher::new(shared, lines, packets));
        // In any case: the scope waits for its threads.
        shared.stop();
        let answered = requests.map(|thread| thread.join().expect("the request thread's panic"));
        if let Some(thread) = snapshots {
            thread.join().expect("the snapshot thread's panic").context("--snapshot")?;
        }
        anyhow::Ok((published?, answered.transpose().context("--request")?.unwrap_or_default()))
    })?;
    let state = shared.read();
    let last_sequence = state.history().next_sequence() - 1;
    Ok(line(session, last_sequence, &published, &answered, &snapshot_counts))
}

/// What ends the day and the time after it at once; the counts are printed all the same.
fn end_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals
}

fn publish(
    arguments: &Arguments,
    shared: &Shared,
    mut publisher: Publisher<'_>,
) -> anyhow::Result<(PublishCounts, u64)> {
    publisher.wait(Duration::from_millis(arguments.begin_after_ms));
    publisher.publish(Schedule::new(arguments.pace))?;
    if let Some(path) = &arguments.write_books {
        // Before the time after the day, so that who reads them finds the venue still there.
        let text = books_text(shared.read().day().engine());
        std::fs::write(path, text).with_context(|| format!("--write-books {}", path.display()))?;
    }
    Ok(publisher.end(Duration::from_millis(arguments.linger_ms)))
}

/// Everything that was counted, as one line of JSON.
fn line(
    session: Session,
    last_sequence: u64,
    (published, failures): &(PublishCounts, u64),
    (requests, answer_failures): &(RequestCounts, u64),
    snapshots: &SnapshotCounts,
) -> String {
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let mut out = format!(
        "{{\"session\":\"{session}\",\"last_sequence\":{last_sequence},\"messages\":{},\
         \"packets\":{},\"heartbeats\":{},\"ends\":{},\"send_failures\":{failures},\
         \"requests_answered\":{},\"request_messages\":{},\"answer_failures\":{answer_failures},\
         \"requests_refused\":{{",
        published.messages,
        published.packets,
        published.heartbeats,
        published.ends,
        requests.answered,
        requests.messages,
    );
    for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\"{}\":{}", refusal.name(), requests.refused[index])
            .expect("a String takes everything");
    }
    write!(
        out,
        "}},\"snapshots\":{},\"snapshots_rejected\":{},\"snapshots_failed\":{},\
         \"snapshots_refused\":{}}}",
        count(&snapshots.sent),
        count(&snapshots.rejected),
        count(&snapshots.failed),
        count(&snapshots.refused)
    )
    .expect("a String takes everything");
    out
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are no errors, and may have lines.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            // What is wrong comes before the first empty line; usage and hints follow it.
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let wrong = lines.collect::<Vec<_>>().join(" ");
            eprintln!("nautilus-venue: {}", wrong.trim_start_matches("error: "));
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The whole chain on one line, and never a backtrace.
            eprintln!("nautilus-venue: {error:#}");
            ExitCode::FAILURE
        }
    }
}
