//! `init` and `fini` by a node's supervisor, which is root: it is told stages and a tier, shows what it would
//! change on its interfaces and cores, and does what was shown.

use std::path::Path;
use std::process::ExitCode;

use nautilus_shm::attach::{HostAnswer, HostRequest, Verb};

use super::command::{CANNOT, Failure, LOST, USAGE, confirmed, print};
use super::knob::{STAGES, Stage, TIERS};
use super::tier::Tier;
use crate::attach::{ReachError, change_host};

/// Shows what would be changed and, once confirmed, has it changed.
pub fn init(
    node: &Path,
    tier: Tier,
    stages: &[Stage],
    force: bool,
    dry_run: bool,
    yes: bool,
) -> Result<ExitCode, Failure> {
    let stages = Stage::bits(if stages.is_empty() { &STAGES } else { stages });
    let tier = TIERS.iter().position(|known| *known == tier).unwrap_or(0) as u8;
    let ask =
        |digest| asked(node, HostRequest { verb: Verb::HostApply, stages, tier, force, digest });
    let plan = ask(0)?;
    if dry_run || plan.changes == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !confirmed(plan.changes as usize)? {
        return Err((USAGE, "not confirmed: nothing was changed".into()));
    }
    ask(plan.digest).map(ended)
}

/// Has everything that was changed made as it was.
pub fn fini(node: &Path, force: bool) -> Result<ExitCode, Failure> {
    asked(node, HostRequest::restore(force)).map(ended)
}

fn asked(node: &Path, request: HostRequest) -> Result<HostAnswer, Failure> {
    let (answer, text) = change_host(node, &request).map_err(|error| match &error {
        ReachError::Refused { .. } => (LOST, error.to_string()),
        _ => (CANNOT, error.to_string()),
    })?;
    print(&text);
    Ok(answer)
}

fn ended(answer: HostAnswer) -> ExitCode {
    if answer.left == 0 { ExitCode::SUCCESS } else { ExitCode::from(LOST) }
}
