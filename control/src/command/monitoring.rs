//! `nautilus monitoring`: alerts, metrics over time, dashboards.

use clap::{Args, Subcommand, ValueEnum};

use super::connect::Connect;
use super::exit::{Exit, Failure};
use super::filled;
use super::sheet::sheet;
use crate::client::Call;

/// Alerts, metrics over time, dashboards
#[derive(Args, Debug)]
pub struct Monitoring {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what is watched and what fires
    Status,
    /// Puts an alert rule in place
    Alert {
        #[command(flatten)]
        body: filled::Body,
    },
    /// Shows a metric over time
    Metric {
        /// Its name
        name: String,
        /// Begin, as the API reads it
        #[arg(long)]
        start: Option<String>,
        /// End, as the API reads it
        #[arg(long)]
        end: Option<String>,
        /// Milliseconds between two values
        #[arg(long)]
        step_ms: Option<u64>,
        /// How values of a step become one
        #[arg(long)]
        agg: Option<String>,
        /// Only series with this label; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Shows a dashboard's figures
    Dashboard {
        /// Which
        #[arg(value_enum)]
        id: Dashboard,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dashboard {
    EdgeOverview,
    TradingPerformance,
    RegionalPerformance,
    CachePerformance,
    FailoverStatus,
}

impl Monitoring {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let call = match self.verb {
            Verb::Status => Call::get("monitoring/status", &[]),
            Verb::Alert { body } => body.of(Call::post("monitoring/alerts", &[]))?,
            Verb::Metric { name, start, end, step_ms, agg, labels } => {
                let mut call = Call::get("monitoring/metrics/{}", &[&name])
                    .with_some("start", start)
                    .with_some("end", end)
                    .with_some("step_ms", step_ms)
                    .with_some("agg", agg);
                for label in &labels {
                    let (key, value) = label.split_once('=').ok_or_else(|| {
                        Failure::usage(format!("--label {label}: KEY=VALUE is needed"))
                    })?;
                    call = call.with(&format!("label.{key}"), value);
                }
                call
            }
            Verb::Dashboard { id } => {
                let id = id.to_possible_value().map(|value| value.get_name().to_owned());
                Call::get("monitoring/dashboards/{}", &[&id.unwrap_or_default()])
            }
        };
        self.connect.perform(&call, sheet)
    }
}
