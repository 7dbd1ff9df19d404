//! `init` and `fini`: plan and state file made true, one change at a time.

use super::address::Address;
use super::machine::Machine;
use super::plan::{Plan, Step, named};
use super::state::{State, StateError};
use super::value::{text, token};

/// Where a change stands. A caller may show it; a test dies at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Written down, not made.
    Intended,
    /// Made, not written down what it became.
    Written,
    /// Both.
    Became,
    /// Undone, not written down.
    Undone,
    /// Both.
    Restored,
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Result {
    /// Knob and place.
    pub name: String,
    /// It is as it should be now.
    pub done: bool,
    /// What happened, in words.
    pub what: String,
}

/// Results for people, a line each, and how many were not done; `done` is the word for those that were.
pub fn told(results: &[Result], done: &str) -> (String, usize) {
    let mut text = String::new();
    for result in results {
        let front = if result.done { done } else { "LEFT" };
        text += &format!("{front:<10} {:<34} {}\n", result.name, result.what);
    }
    let left = results.iter().filter(|result| !result.done).count();
    text += &format!("{} {done}, {left} left\n", results.len() - left);
    (text, left)
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", text(bytes).unwrap_or_else(|_| "unreadable".into()))
}

/// Makes the changes of a plan.
pub fn init(
    machine: &Machine,
    state: &mut State,
    plan: &Plan,
    force: bool,
    reached: &mut dyn FnMut(Point),
) -> std::result::Result<Vec<Result>, StateError> {
    let mut results = Vec::new();
    for step in &plan.steps {
        let (done, what) = change(machine, state, step, force, reached)?;
        results.push(Result { name: named(&step.knob, &step.label), done, what });
    }
    Ok(results)
}

fn change(
    machine: &Machine,
    state: &mut State,
    step: &Step,
    force: bool,
    reached: &mut dyn FnMut(Point),
) -> std::result::Result<(bool, String), StateError> {
    let now = match machine.look(&step.address) {
        Ok(now) => now,
        Err(why) => return Ok((false, why)),
    };
    if now != step.old {
        return Ok((
            false,
            format!("reads {} since the plan was made; left as it is", quoted(&now)),
        ));
    }
    let known =
        state.standing().into_iter().find(|(_, first, _)| first.step.address == step.address);
    if let Some((_, _, last)) = known
        && let Some(became) = &last.became
        && *became != now
        && !force
    {
        let (became, now) = (quoted(became), quoted(&now));
        return Ok((
            false,
            format!("init left {became}, another program made it {now}; left (--force)"),
        ));
    }
    let id = state.intend(step)?;
    reached(Point::Intended);
    let written = machine.write(&step.address, step.kind, &step.new);
    reached(Point::Written);
    let became = machine.look(&step.address);
    match (written, became) {
        (Err(why), Ok(became)) if became == step.old => {
            state.refused(id)?;
            Ok((false, why))
        }
        (Ok(()), Ok(became)) if became == step.old => {
            state.refused(id)?;
            Ok((false, format!("{} was written without effect", step.new)))
        }
        (Err(why), Err(_)) => Ok((false, why)),
        (Ok(()), Err(why)) => Ok((false, format!("written, but cannot be read back: {why}"))),
        (_, Ok(became)) => {
            state.became(id, &became)?;
            reached(Point::Became);
            if token(step.kind, &became).as_ref() == Ok(&step.new) || starts_with(step, &became) {
                return Ok((true, format!("{} -> {}", quoted(&step.old), step.new)));
            }
            Ok((false, format!("{} was written, the kernel made it {}", step.new, quoted(&became))))
        }
    }
}

/// Of several numbers only the first was written.
fn starts_with(step: &Step, became: &[u8]) -> bool {
    let first =
        text(became).ok().and_then(|text| text.split_whitespace().next().map(str::to_owned));
    step.kind == super::knob::Kind::FirstNumber && first.as_ref() == Some(&step.new)
}

/// Undoes what the state file says, last change first.
pub fn fini(
    machine: &Machine,
    state: &mut State,
    force: bool,
    reached: &mut dyn FnMut(Point),
) -> std::result::Result<Vec<Result>, StateError> {
    let mut results = Vec::new();
    let standing: Vec<_> = state
        .standing()
        .into_iter()
        .map(|(_, first, last)| (first.step.clone(), last.became.clone()))
        .collect();
    for (step, expected) in standing.iter().rev() {
        let undone = undo(machine, step, expected.as_deref(), force, reached);
        let (done, what) = match undone {
            Ok(how) => {
                state.restored(&step.address, &how)?;
                reached(Point::Restored);
                (true, how)
            }
            Err(why) => (false, why),
        };
        results.push(Result { name: named(&step.knob, &step.label), done, what });
    }
    Ok(results)
}

fn undo(
    machine: &Machine,
    step: &Step,
    expected: Option<&[u8]>,
    force: bool,
    reached: &mut dyn FnMut(Point),
) -> std::result::Result<String, String> {
    let now = match machine.look(&step.address) {
        Ok(now) => now,
        Err(_) if is_gone(machine, &step.address) => return Ok("it has gone".into()),
        Err(why) => return Err(why),
    };
    if now == step.old {
        return Ok(format!("{} as before", quoted(&now)));
    }
    // Without what it became the change was cut short: whatever it reads is of that change.
    if let Some(expected) = expected
        && now != expected
        && !force
    {
        return Err(format!(
            "init left {}, another program made it {}; not overwritten with {} (--force)",
            quoted(expected),
            quoted(&now),
            quoted(&step.old)
        ));
    }
    machine.write(&step.address, step.kind, &step.restore)?;
    reached(Point::Undone);
    let back = machine.look(&step.address)?;
    if back != step.old {
        let (restore, back, old) = (&step.restore, quoted(&back), quoted(&step.old));
        return Err(format!("{restore} was written, it reads {back} in place of {old}"));
    }
    Ok(format!("{} -> {}", quoted(&now), quoted(&step.old)))
}

fn is_gone(machine: &Machine, address: &Address) -> bool {
    match address {
        Address::File(path) => !machine.exists(path),
        Address::Ethtool(nic, ..) | Address::Feature(nic, _) => {
            !machine.exists(&format!("sys/class/net/{nic}"))
        }
        _ => false,
    }
}
