//! Waiting for what happens elsewhere, with a bound and a name.

use std::time::{Duration, Instant};

/// Pause between two looks. Too low: the waiting takes a core from what it waits for. Too high:
/// tests idle.
const PAUSE: Duration = Duration::from_millis(5);

/// The predicate did not hold in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} in vain until {what}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
}

/// Looks at `predicate` until it holds, at most `timeout`; `what` completes "waited until ...".
pub fn wait_until(
    what: impl Into<String>,
    timeout: Duration,
    mut predicate: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    let started = Instant::now();
    loop {
        if predicate() {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited >= timeout {
            return Err(TimedOut { what: what.into(), waited });
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_gives_up() {
        let mut looks = 0;
        wait_until("three looks", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        })
        .unwrap();
        let error = wait_until("never", Duration::from_millis(20), || false).unwrap_err();
        assert!(error.to_string().contains("until never"), "{error}");
    }
}
