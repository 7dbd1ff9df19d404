//! H1: ten nodes rolled to another release by one call, while clients ask all of them at half the rate that the
//! same nodes sustain; then a canary that cannot start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::roll::load::{Load, Report};
use crate::roll::site::{Deployed, NODES, Site};
use crate::run::{Bench, Half};

/// Rates tried, requests a second: the next is one and a half times this one.
const RATE_FIRST: u64 = 2_000;
const RATE_MAX: u64 = 200_000;

/// How long each is tried.
const RATE_TRIED: Duration = Duration::from_secs(1);

/// A rate is sustained if no request failed, and no more of ten thousand than this were tried again.
const AGAIN_MAX: u64 = 5;

/// Load before a change and after it.
const BESIDE: Duration = Duration::from_millis(500);

/// Longest that load goes on: above it the change hangs.
const CHANGE_MAX: Duration = Duration::from_secs(120);

/// The row.
pub struct H1 {
    load: Load,
    site: Site,
    deployed: Duration,
    sustained_per_s: u64,
    release: usize,
}

impl H1 {
    /// Deploys the nodes and finds the rate that they sustain.
    pub fn set_up() -> anyhow::Result<Self> {
        let mut site = Site::start()?;
        let deployed = site.deploy("all_at_once", "r1")?;
        anyhow::ensure!(deployed.phase == "done", "{}", deployed.reason);
        let caches = site.caches();
        let mut load = site.client().run(|| Load::open(caches))?;
        let mut sustained_per_s = 0;
        let mut rate_per_s = RATE_FIRST;
        while rate_per_s < RATE_MAX {
            let report = load.mix(rate_per_s, RATE_TRIED, &AtomicBool::new(false));
            // A generator that cannot keep up with its own answers has not sustained it either.
            let Ok(report) = report else { break };
            right(&report)?;
            if report.errors > 0 || report.tried_again * 10_000 > report.asked * AGAIN_MAX {
                break;
            }
            sustained_per_s = rate_per_s;
            rate_per_s += rate_per_s / 2;
        }
        anyhow::ensure!(
            sustained_per_s > 0,
            "not even {RATE_FIRST} requests a second are sustained"
        );
        eprintln!(
            "H1: {NODES} nodes deployed in {:.2} s by one call; {sustained_per_s} requests/s sustained",
            deployed.whole.as_secs_f64()
        );
        Ok(Self { load, site, deployed: deployed.whole, sustained_per_s, release: 0 })
    }

    /// A change while clients ask.
    fn change(&mut self, strategy: &str, release: &str) -> anyhow::Result<(Report, Deployed)> {
        let Self { load, site, sustained_per_s, .. } = self;
        let rate_per_s = *sustained_per_s / 2;
        let stop = AtomicBool::new(false);
        let (report, deployed) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| load.mix(rate_per_s, CHANGE_MAX, &stop));
            std::thread::sleep(BESIDE);
            let deployed = site.deploy(strategy, release);
            std::thread::sleep(BESIDE);
            stop.store(true, Ordering::Relaxed);
            (asking.join(), deployed)
        });
        if let Ok(deployed) = &deployed {
            let (whole, steps) = (deployed.whole.as_secs_f64(), &deployed.steps);
            eprintln!("H1: {strategy} to {release} in {whole:.2} s; ms a step: {steps}");
        }
        let report = report.map_err(|_| anyhow::anyhow!("the load broke"))??;
        right(&report)?;
        Ok((report, deployed?))
    }
}

/// A wrong answer is no figure.
fn right(report: &Report) -> anyhow::Result<()> {
    let first = report.first_wrong.as_deref().unwrap_or_default();
    anyhow::ensure!(report.wrong == 0, "{} wrong answers, the first: {first}", report.wrong);
    Ok(())
}

impl Bench for H1 {
    fn sides(&self) -> Vec<String> {
        vec!["nautilus".into()]
    }

    fn peer_of(&self, _measure: usize) -> Option<usize> {
        None
    }

    fn half(&mut self, _side: usize) -> anyhow::Result<Half> {
        self.release = 1 - self.release;
        let release = ["r1", "r2"][self.release];
        let (rolled, roll) = self.change("rolling", release)?;
        anyhow::ensure!(roll.phase == "done", "rolled: {}: {}", roll.phase, roll.reason);
        let (judged, canary) = self.change("canary", "bad")?;
        anyhow::ensure!(canary.phase == "rolled_back", "canary: {}", canary.phase);
        let back =
            canary.back.ok_or_else(|| anyhow::anyhow!("nothing said that it turned back"))?;
        let seconds = |duration: Duration| Some(duration.as_secs_f64());
        let values = vec![
            Some((rolled.errors + judged.errors) as f64),
            seconds(roll.whole),
            seconds(back).map(|seconds| seconds * 1e3),
            seconds(canary.whole),
            seconds(self.deployed),
            Some(self.sustained_per_s as f64),
            Some((rolled.tried_again + judged.tried_again) as f64),
        ];
        Ok(Half { values, latency: Some(rolled.latency), ..Half::default() })
    }
}
