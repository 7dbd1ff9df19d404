//! A wire that harms the packets of some lines: loses, doubles, corrupts, delays and reorders them, by a
//! seeded file.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use nautilus_dataplane::fault::{DEFAULT_TOML, FaultFile, Wire};
use nautilus_ebpf::fault::FaultFates;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Carries packets between two interfaces and harms those of the file's lines.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Interface that forward packets come in by.
    #[arg(long = "in", value_name = "INTERFACE", required_unless_present_any = ["foretell", "print_default"])]
    from: Option<String>,
    /// Interface that they leave by; back packets go the other way.
    #[arg(long = "out", value_name = "INTERFACE", required_unless_present_any = ["foretell", "print_default"])]
    to: Option<String>,
    /// What is to happen to which packets.
    #[arg(long, value_name = "FILE", required_unless_present = "print_default")]
    file: Option<PathBuf>,
    /// Ends after so many seconds; at SIGTERM or SIGINT without it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// Prints the counts at the end as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Opens nothing: prints which of the first N packets of each line are harmed, and how.
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to", "seconds", "json"])]
    foretell: Option<u64>,
    /// Prints a fault file in which every key is explained.
    #[arg(long, exclusive = true)]
    print_default: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-fault: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.print_default {
        print!("{DEFAULT_TOML}");
        return Ok(());
    }
    let path = arguments.file.as_ref().context("--file is missing")?;
    let file = FaultFile::load(path)?;
    if let Some(count) = arguments.foretell {
        foretell(&file, count);
        return Ok(());
    }
    let (Some(from), Some(to)) = (&arguments.from, &arguments.to) else {
        bail!("--in and --out are missing");
    };
    let signals = signals().context("taking signals")?;
    // Delays of microseconds end on time only without the default slack of 50 us.
    let _ = nix::sys::prctl::set_timerslack(1);
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut wire = Wire::open(from, to, file)?;
    eprintln!("nautilus-fault: {from} and {to} are connected");
    let result = wire.run(signals.as_fd(), end);
    let report = wire.end()?;
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    Ok(result?)
}

fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// One line a harmed packet. Which bit of a corrupted one is turned depends on its length.
fn foretell(file: &FaultFile, count: u64) {
    for line in &file.line {
        let mut fates = FaultFates::new(file.rules(line));
        for _ in 0..count {
            let fate = fates.next(1);
            let harms: Vec<&str> = [
                (fate.is_lost, "lost"),
                (fate.corrupted_bit.is_some(), "corrupted"),
                (fate.is_duplicated, "duplicated"),
                (fate.is_reordered, "reordered"),
            ]
            .into_iter()
            .filter_map(|(is, what)| is.then_some(what))
            .collect();
            if !harms.is_empty() {
                println!("{} {} {}", line.name(), fate.number, harms.join(" "));
            }
        }
    }
}
