//! Waiting times that grow with failures.

use std::time::Duration;

/// How long to wait after so many failures in a row: doubling from `first`, never more than `longest`.
///
/// No jitter: one process talks to the API server, and tests want to know.
pub fn delay(failures: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(longest)
}

/// Failures in a row of one object. Grows on real errors only and is forgotten on success; a pass that a watch
/// triggered in between does not shorten it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures(u32);

impl Failures {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_mins(1);

    /// Counts one more and says how long to wait.
    pub fn fail(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        delay(self.0, Self::FIRST, Self::LONGEST)
    }

    /// A pass went well.
    pub fn succeed(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_the_limit_and_starts_again_after_success() {
        let mut failures = Failures::default();
        let waits: Vec<u64> = (0..9).map(|_| u64::try_from(failures.fail().as_millis()).unwrap()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        failures.succeed();
        assert_eq!(failures.fail(), Duration::from_millis(500));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        assert_eq!(delay(u32::MAX, Duration::from_secs(1), Duration::from_mins(1)), Duration::from_mins(1));
        assert_eq!(delay(0, Duration::from_secs(1), Duration::from_mins(1)), Duration::from_secs(1));
    }
}
