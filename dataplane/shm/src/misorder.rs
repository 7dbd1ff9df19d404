//! Wrong orders of publication, so that the checks of the right one can be shown to see them.
//!
//! With the feature `kill-points` (tests only) a process whose environment has
//! `NAUTILUS_MISORDER=<name>` publishes in that order, and rests between the two publications as if it
//! were preempted there; a test in one process chooses with [`choose`] and rests nowhere. Without the
//! feature all of this compiles to nothing.

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misorder {
    /// The table shows a new value before the hot set does.
    TableFirst,
    /// The slot is not marked busy while the hot set and then the table are changed.
    Unmarked,
    /// A change of several words has no record that a successor could complete it from.
    Unrecorded,
    /// A `set` that came through the front is acknowledged before it is carried out.
    AcknowledgedFirst,
}

impl Misorder {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::TableFirst, Self::Unmarked, Self::Unrecorded, Self::AcknowledgedFirst];

    /// Its name in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TableFirst => "table-first",
            Self::Unmarked => "unmarked",
            Self::Unrecorded => "unrecorded",
            Self::AcknowledgedFirst => "acknowledged-first",
        }
    }

    /// Whether this thread has to be wrong in this way.
    #[inline(always)]
    pub fn is_wanted(self) -> bool {
        #[cfg(feature = "kill-points")]
        return armed::is_wanted(self);
        #[cfg(not(feature = "kill-points"))]
        false
    }
}

/// Rests between two publications, where the environment asked for the order.
#[inline(always)]
pub fn rest() {
    #[cfg(feature = "kill-points")]
    armed::rest();
}

#[cfg(feature = "kill-points")]
pub use armed::choose;

#[cfg(feature = "kill-points")]
mod armed {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::Misorder;

    /// What a preemption may take at least. Too low: no reader comes in between; too high: so few
    /// changes are made that none is seen by two readers.
    const REST: Duration = Duration::from_micros(100);

    std::thread_local! {
        static CHOSEN: Cell<Option<Misorder>> = const { Cell::new(None) };
    }

    /// Chooses for the calling thread.
    pub fn choose(misorder: Option<Misorder>) {
        CHOSEN.set(misorder);
    }

    fn of_environment() -> Option<Misorder> {
        static OF_ENVIRONMENT: OnceLock<Option<Misorder>> = OnceLock::new();
        *OF_ENVIRONMENT.get_or_init(|| {
            let name = std::env::var("NAUTILUS_MISORDER").ok()?;
            Misorder::ALL.into_iter().find(|misorder| misorder.name() == name)
        })
    }

    pub fn is_wanted(misorder: Misorder) -> bool {
        CHOSEN.get().or_else(of_environment) == Some(misorder)
    }

    pub fn rest() {
        if of_environment().is_some() {
            std::thread::sleep(REST);
        }
    }
}
