//! Replays market data: captures as they are or under other addresses, ITCH BinaryFILEs, and a seeded
//! generator, over multicast UDP, as raw frames, or into a pcap file; or captures without any network, into
//! the records that a node published.
#![forbid(unsafe_code)]

use anyhow::{Context, bail, ensure};
use clap::Parser;
use nautilus_dataplane::feed::moldudp64::Session;
use nautilus_dataplane::net::Endpoint;
use nautilus_dataplane::replay::binary_file::BinaryFile;
use nautilus_dataplane::replay::generate::{Generator, GeneratorSpec};
use nautilus_dataplane::replay::offline::Offline;
use nautilus_dataplane::replay::offline_report::{record_line, report};
use nautilus_dataplane::replay::pace::Pace;
use nautilus_dataplane::replay::pack::{Packer, session_named, session_of_now};
use nautilus_dataplane::replay::run::{Replay, Summary, Vlan};
use nautilus_dataplane::replay::sink::{Addressing, DEFAULT_SOURCE, Sink};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Replays market data over multicast UDP, as raw frames, into a pcap file, or into the records of a node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Captures, pcapng or pcap, to replay unchanged in this order: with --interface, --write or --offline.
    #[arg(value_name = "CAPTURE", conflicts_with_all = ["pcap", "itch", "generate"])]
    captures: Vec<PathBuf>,
    /// No network: applies the captures to the feeds of this node file, by the recorded stamps alone, and
    /// prints the books that come of it.
    #[arg(long, value_name = "NODE_FILE", requires = "captures", conflicts_with_all = ["interface", "write"])]
    offline: Option<PathBuf>,
    /// With --offline, writes every record, a line each: its key, and its bytes in hexadecimal.
    #[arg(long, value_name = "FILE", requires = "offline")]
    records: Option<PathBuf>,

    /// Capture files to replay, in this order.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pcap: Vec<PathBuf>,
    /// ITCH 5.0 BinaryFILE to pack into MoldUDP64.
    #[arg(long, value_name = "FILE", conflicts_with = "pcap")]
    itch: Option<PathBuf>,
    /// Generate valid order flow.
    #[arg(long, conflicts_with_all = ["pcap", "itch"])]
    generate: bool,
    /// Seed of the generator: the same seed gives the same messages and packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stocks to generate.
    #[arg(long, default_value_t = 100)]
    symbols: u16,
    /// Messages to generate.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages a second of generated exchange time.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,

    /// Interface to send on.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Send raw frames instead of using a kernel UDP socket; needs --interface and CAP_NET_RAW.
    #[arg(long, requires = "interface")]
    raw: bool,
    /// Write a pcap file instead of sending.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "interface"])]
    write: Option<PathBuf>,
    /// Send the frames of --pcap unchanged; needs --raw or --write.
    #[arg(long, requires = "pcap")]
    as_is: bool,

    /// Multicast group.
    #[arg(long, default_value = "233.54.12.111")]
    group: Ipv4Addr,
    /// UDP port.
    #[arg(long, default_value_t = 26_477, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Source address: of raw frames 198.18.0.1, of a socket that of the interface unless given.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Ipv4Addr>,
    /// MoldUDP64 session, at most ten characters; one of the clock unless given, so that each run is a
    /// session of its own.
    #[arg(long, value_parser = session_named)]
    session: Option<Session>,
    /// Sequence number of the first message.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 62))]
    sequence_start: u64,
    /// Tags of raw frames: keep (those of the capture), strip, or an identifier 1-4094.
    #[arg(long, default_value = "strip", value_parser = vlan)]
    vlan: Vlan,

    /// max, original, a factor such as 10 (ten times as fast), or messages a second such as 50000/s.
    #[arg(long, default_value = "original")]
    pace: Pace,
    /// Milliseconds without a packet after which a heartbeat is sent.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    heartbeat_ms: u64,
    /// Do not announce the end of the session.
    #[arg(long)]
    no_end: bool,
    /// Give up after this time; 3,600 unless said, for captures two days.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=172_800))]
    max_seconds: Option<u64>,
}

impl Arguments {
    /// Whether whole frames leave, and no datagrams by a kernel socket.
    fn sends_frames(&self) -> bool {
        self.raw || self.write.is_some() || !self.captures.is_empty()
    }
}

fn vlan(text: &str) -> Result<Vlan, String> {
    match text {
        "keep" => Ok(Vlan::Keep),
        "strip" => Ok(Vlan::Strip),
        _ => match text.parse() {
            Ok(identifier @ 1..=4094) => Ok(Vlan::Set(identifier)),
            _ => Err("keep, strip, or an identifier 1-4094".into()),
        },
    }
}

fn sink(arguments: &Arguments) -> anyhow::Result<Sink> {
    let frames = arguments.sends_frames();
    let default_source = if frames { DEFAULT_SOURCE } else { Ipv4Addr::UNSPECIFIED };
    let source = arguments.source.unwrap_or(default_source);
    let identifier = match arguments.vlan {
        Vlan::Set(identifier) => identifier,
        Vlan::Keep | Vlan::Strip => 0,
    };
    let addressing = Addressing {
        from: Endpoint::new(IpAddr::V4(source), if frames { arguments.port } else { 0 }),
        to: Endpoint::new(IpAddr::V4(arguments.group), arguments.port),
        vlans: [identifier, 0],
    };
    Ok(match (&arguments.write, &arguments.interface) {
        (Some(path), _) => Sink::file(path, addressing)?,
        (None, Some(interface)) if frames => Sink::raw(interface, addressing)?,
        (None, interface) => Sink::udp(interface.as_deref(), addressing)?,
    })
}

fn run(arguments: &Arguments) -> anyhow::Result<(Summary, Session)> {
    ensure!(arguments.group.is_multicast(), "--group {} is not a multicast group", arguments.group);
    let raw = arguments.sends_frames();
    ensure!(
        arguments.captures.is_empty() || arguments.interface.is_some() || arguments.write.is_some(),
        "where to? give --interface NAME, --write FILE or --offline NODE_FILE"
    );
    ensure!(raw || !arguments.as_is, "--as-is sends frames: add --raw or --write");
    ensure!(
        raw || arguments.vlan == Vlan::Strip,
        "--vlan is for frames: add --raw or --write, or send through a VLAN interface"
    );
    // Everything that can be refused is looked at before the first packet leaves.
    let generator = match arguments.generate {
        true => Some(Generator::new(GeneratorSpec {
            seed: arguments.seed,
            symbols: arguments.symbols,
            messages: arguments.messages,
            rate: arguments.rate,
        })?),
        false => None,
    };
    let file = arguments.itch.as_deref().map(BinaryFile::open).transpose()?;
    let has_captures = !arguments.pcap.is_empty() || !arguments.captures.is_empty();
    if generator.is_none() && file.is_none() && !has_captures {
        bail!("nothing to replay: give CAPTURE..., --pcap FILE..., --itch FILE or --generate");
    }

    let session = arguments.session.unwrap_or_else(session_of_now);
    let mut packer = Packer::new(session, arguments.sequence_start);
    let heartbeat = Duration::from_millis(arguments.heartbeat_ms);
    let default_s = if arguments.captures.is_empty() { 3_600 } else { 172_800 };
    let limit = Duration::from_secs(arguments.max_seconds.unwrap_or(default_s));
    let mut replay = Replay::new(sink(arguments)?, arguments.pace, heartbeat, limit);
    if let Some(generator) = generator {
        replay.generated(generator, arguments.seed, &mut packer)?;
    } else if let Some(file) = file {
        replay.binary_file(file, &mut packer)?;
    }
    for path in &arguments.pcap {
        match arguments.as_is {
            true => replay.frames(path)?,
            false => replay.readdressed(path, arguments.vlan, &mut packer)?,
        }
    }
    for path in &arguments.captures {
        replay.frames(path)?;
    }
    let ends = !arguments.no_end && !arguments.as_is && arguments.captures.is_empty();
    Ok((replay.finish(ends.then_some(&packer))?, session))
}

/// Replays into memory; prints what a person wants to see of it, and writes all of it.
fn offline(arguments: &Arguments, node_file: &Path) -> anyhow::Result<()> {
    let config = nautilus_dataplane::config::load(node_file)?;
    let mut offline = Offline::new(&config)?;
    for path in &arguments.captures {
        offline.file(path)?;
    }
    if let Some(path) = &arguments.records {
        let mut text = String::new();
        for (key, record) in offline.keyspace().records() {
            text += &record_line(key, record);
        }
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    print!("{}", report(&offline));
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    if let Some(node_file) = &arguments.offline {
        return match offline(&arguments, node_file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("nautilus-replay: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&arguments) {
        Ok((Summary { packets, messages, control_packets }, session)) => {
            println!(
                "replayed packets={packets} messages={messages} control={control_packets} \
                 session={session} seconds={:.3}",
                started.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The whole chain on one line, and never a backtrace.
            eprintln!("nautilus-replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}
