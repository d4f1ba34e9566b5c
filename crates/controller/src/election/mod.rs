//! Leader election by a Lease, on a monotonic clock and on observed change only: clocks of other machines do not matter.

pub mod decide;
pub mod task;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::decide::Timing;

/// What a write may need beyond its timeout before others may take over.
const MARGIN: Duration = Duration::from_secs(1);

/// Whether this process leads, and for how long at least.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
    write: Duration,
}

impl Leadership {
    /// Nobody's yet. `call_timeout` is how long a write may take.
    pub fn new(call_timeout: Duration) -> Self {
        Self { until: Arc::default(), write: call_timeout + MARGIN }
    }

    /// Of a process that nobody else competes with: it leads for this long.
    pub fn alone(call_timeout: Duration, lasts: Duration) -> Self {
        let leadership = Self::new(call_timeout);
        leadership.set(Some(Instant::now() + lasts));
        leadership
    }

    /// Whether nobody else can lead before this time has passed.
    pub fn valid_for(&self, duration: Duration) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() + duration < until)
    }

    /// Whether a write that begins now ends while we still lead.
    pub fn may_write(&self) -> bool {
        self.valid_for(self.write)
    }

    /// Whether this process leads now.
    pub fn leads(&self) -> bool {
        self.valid_for(Duration::ZERO)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Timing {
    /// Whether a leader that renews in time can ever write; the reason if not.
    pub fn check(&self, call_timeout: Duration) -> Result<(), String> {
        if self.renew_deadline >= self.lease || self.retry >= self.renew_deadline {
            return Err(
                "lease duration, renew deadline and retry period must get smaller in this order".to_owned()
            );
        }
        let busy = call_timeout + MARGIN + self.retry;
        if busy >= self.lease {
            return Err(format!(
                "a lease of {} s is too short for writes of up to {} s and renewals every {} s",
                self.lease.as_secs(),
                call_timeout.as_secs(),
                self.retry.as_secs()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_needs_more_of_the_lease_than_its_timeout() {
        let leadership = Leadership::new(Duration::from_secs(10));
        assert!(!leadership.leads() && !leadership.may_write());
        leadership.set(Some(Instant::now() + Duration::from_secs(15)));
        assert!(leadership.leads() && leadership.may_write());
        leadership.set(Some(Instant::now() + Duration::from_secs(11)));
        assert!(leadership.leads() && !leadership.may_write());
        leadership.set(None);
        assert!(!leadership.leads());
    }

    #[test]
    fn timings_that_could_never_write_are_refused() {
        let timing = |lease, renew_deadline, retry| Timing {
            lease: Duration::from_secs(lease),
            renew_deadline: Duration::from_secs(renew_deadline),
            retry: Duration::from_secs(retry),
        };
        let ten = Duration::from_secs(10);
        assert_eq!(timing(15, 10, 2).check(ten), Ok(()));
        assert!(timing(15, 10, 5).check(ten).is_err());
        assert!(timing(10, 10, 2).check(Duration::from_secs(1)).is_err());
        assert_eq!(timing(5, 4, 1).check(Duration::from_secs(2)), Ok(()));
    }
}
