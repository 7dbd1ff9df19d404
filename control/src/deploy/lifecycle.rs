//! Where a node is in its life. One table says what may follow what.
//!
//! ```text
//!   planned -> provisioning -> tuning -> warming -> active -> draining -> retired -> planned
//!                   |            |  ^       |          |          |          ^
//!                   |            |  '-------|----------|----------'          |  in place: drained, changed
//!                   '------------'----------'----------'---> draining -------'  given up, or rolled back
//!   each of these five, planned and retired excepted, -> failed -> provisioning | draining | retired
//! ```

use crate::spelling::spelled_enum;

spelled_enum! {
    /// A stage of a node's life, as the store has it.
    pub enum NodeState {
        /// Wanted; nothing has been done.
        Planned = "planned",
        /// Its supervisor is looked for and checked.
        Provisioning = "provisioning",
        /// Host and node are given their settings.
        Tuning = "tuning",
        /// It runs and is filled and measured, without clients.
        Warming = "warming",
        /// It serves.
        Active = "active",
        /// Clients are led away; it answers those that are left.
        Draining = "draining",
        /// A step did not succeed; somebody has to decide.
        Failed = "failed",
        /// Out of service for good.
        Retired = "retired",
    }
}

use NodeState::{Active, Draining, Failed, Planned, Provisioning, Retired, Tuning, Warming};

/// What may follow what: the only place that says so.
pub const TRANSITIONS: [(NodeState, &[NodeState]); 8] = [
    (Planned, &[Provisioning, Retired]),
    (Provisioning, &[Tuning, Draining, Failed]),
    (Tuning, &[Warming, Draining, Failed]),
    (Warming, &[Active, Draining, Failed]),
    (Active, &[Draining, Failed]),
    (Draining, &[Tuning, Retired, Failed]),
    (Failed, &[Provisioning, Draining, Retired]),
    (Retired, &[Planned]),
];

/// A step of life that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node that is {from} cannot become {to}")]
pub struct TransitionError {
    /// What it is.
    pub from: NodeState,
    /// What it was to become.
    pub to: NodeState,
}

impl NodeState {
    /// What may follow.
    pub fn next(self) -> &'static [Self] {
        TRANSITIONS.iter().find(|(from, _)| *from == self).map_or(&[], |(_, next)| next)
    }

    /// The state after it, if the table allows that one.
    pub fn to(self, to: Self) -> Result<Self, TransitionError> {
        if self.next().contains(&to) { Ok(to) } else { Err(TransitionError { from: self, to }) }
    }

    /// Whether something of the node is running.
    pub fn is_running(self) -> bool {
        !matches!(self, Planned | Retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_64_pairs_is_allowed_or_refused_as_drawn() {
        // Rows from, columns to, in the order of the enum; written a second time, by hand.
        let drawn = [
            ".p.....r", // planned
            "..t..df.", // provisioning
            "...w.df.", // tuning
            "....adf.", // warming
            ".....df.", // active
            "..t...fr", // draining
            ".p...d.r", // failed
            "P.......", // retired
        ];
        let mut allowed = 0;
        for (row, from) in NodeState::ALL.iter().enumerate() {
            for (column, to) in NodeState::ALL.iter().enumerate() {
                let is_drawn = drawn[row].as_bytes()[column] != b'.';
                let result = from.to(*to);
                assert_eq!(result.is_ok(), is_drawn, "{from} -> {to}");
                match result {
                    Ok(state) => assert_eq!(state, *to),
                    Err(error) => assert_eq!(error, TransitionError { from: *from, to: *to }),
                }
                allowed += usize::from(is_drawn);
            }
        }
        assert_eq!(allowed, TRANSITIONS.iter().map(|(_, next)| next.len()).sum::<usize>());
        assert_eq!(TRANSITIONS.map(|(from, _)| from), *NodeState::ALL, "each state once");
    }

    #[test]
    fn every_state_can_be_reached_and_left_for_good() {
        let mut reached = vec![Planned];
        let mut index = 0;
        while index < reached.len() {
            for next in reached[index].next() {
                if !reached.contains(next) {
                    reached.push(*next);
                }
            }
            index += 1;
        }
        assert_eq!(reached.len(), NodeState::ALL.len());
        for state in NodeState::ALL.iter().filter(|state| state.is_running()) {
            let can_end = state.next().contains(&Retired) || state.next().contains(&Draining);
            assert!(can_end, "{state} cannot be retired");
            assert_eq!(*state != Failed, state.next().contains(&Failed), "{state}");
        }
    }

    #[test]
    fn only_a_warmed_node_becomes_active() {
        let before: Vec<NodeState> =
            NodeState::ALL.iter().copied().filter(|state| state.to(Active).is_ok()).collect();
        assert_eq!(before, [Warming]);
    }
}
