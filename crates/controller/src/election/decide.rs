//! What to do about the Lease: pure, with the time as an argument. The rules are those of client-go: a foreign lease
//! counts from when *we* saw it change last, never from what is written in it.

use std::time::Duration;

/// Time on a clock that only goes forward, from some start.
pub type Monotonic = Duration;

/// The three times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last sign of life before they take over.
    pub lease: Duration,
    /// After how long without a renewal the leader gives up.
    pub renew_deadline: Duration,
    /// How often the lease is renewed, or looked at.
    pub retry: Duration,
}

/// What matters of a Lease object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; `None` when it was released.
    pub holder: Option<String>,
    /// Changes with every write.
    pub version: String,
    /// How long its holder asks others to wait.
    pub duration: Option<Duration>,
    /// How often the holder changed.
    pub transitions: i32,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// There is no lease: create it with us as the holder.
    Create,
    /// Write it with us as the holder, over this version of it.
    Take {
        /// The precondition.
        version: String,
        /// `leaseTransitions` to write.
        transitions: i32,
    },
    /// Somebody else leads: look again later.
    Wait,
    /// We led and do not any more.
    Lost(Loss),
}

/// Why leadership was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Another process holds the lease.
    #[error("{0} holds the lease")]
    TakenBy(String),
    /// It could not be renewed in time.
    #[error("the lease could not be renewed in time")]
    NotRenewed,
}

/// One process in the election.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    timing: Timing,
    /// The lease as seen last, and when it was first seen so.
    seen: Option<(Seen, Monotonic)>,
    /// When the write that was confirmed last began.
    renewed: Option<Monotonic>,
}

impl Candidate {
    /// A candidate that has seen nothing yet.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// Decides after a look at the lease; `None` when there is none.
    pub fn on_seen(&mut self, now: Monotonic, lease: Option<Seen>) -> Move {
        if let Some(loss) = self.expired(now) {
            return Move::Lost(loss);
        }
        let Some(lease) = lease else {
            self.seen = None;
            return Move::Create;
        };
        let since = match &self.seen {
            Some((known, since)) if *known == lease => *since,
            _ => now,
        };
        self.seen = Some((lease.clone(), since));
        match &lease.holder {
            Some(holder) if *holder == self.identity => {
                Move::Take { version: lease.version, transitions: lease.transitions }
            }
            Some(holder) if self.renewed.is_some() => Move::Lost(Loss::TakenBy(holder.clone())),
            Some(_) if now < since + self.patience(&lease) => Move::Wait,
            _ => Move::Take { version: lease.version, transitions: lease.transitions.saturating_add(1) },
        }
    }

    /// A look at the lease, or a write of it, failed.
    pub fn on_failure(&self, now: Monotonic) -> Move {
        self.expired(now).map_or(Move::Wait, Move::Lost)
    }

    /// The API server confirmed our write, which began at this time.
    pub fn on_written(&mut self, began: Monotonic) {
        self.renewed = Some(began);
    }

    /// Until when nobody else can lead: they wait for the whole lease from when they saw our write, and that was not
    /// before it began.
    pub fn leads_until(&self) -> Option<Monotonic> {
        self.renewed.map(|renewed| renewed + self.timing.lease)
    }

    fn expired(&self, now: Monotonic) -> Option<Loss> {
        let renewed = self.renewed?;
        (now >= renewed + self.timing.renew_deadline).then_some(Loss::NotRenewed)
    }

    /// The holder may have been started with a longer lease than ours.
    fn patience(&self, lease: &Seen) -> Duration {
        lease.duration.map_or(self.timing.lease, |asked| asked.max(self.timing.lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        lease: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn at(seconds: u64) -> Monotonic {
        Duration::from_secs(seconds)
    }

    fn candidate() -> Candidate {
        Candidate::new("us".into(), TIMING)
    }

    #[allow(clippy::unnecessary_wraps)] // as a look at the lease gives it
    fn held_by(holder: Option<&str>, version: &str) -> Option<Seen> {
        Some(Seen {
            holder: holder.map(ToOwned::to_owned),
            version: version.to_owned(),
            duration: Some(TIMING.lease),
            transitions: 3,
        })
    }

    fn take(version: &str, transitions: i32) -> Move {
        Move::Take { version: version.to_owned(), transitions }
    }

    #[test]
    fn without_a_lease_we_create_one() {
        assert_eq!(candidate().on_seen(at(0), None), Move::Create);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        assert_eq!(candidate().on_seen(at(0), held_by(None, "1")), take("1", 4));
    }

    #[test]
    fn a_foreign_lease_is_taken_only_when_we_saw_no_change_for_its_duration() {
        let mut us = candidate();
        assert_eq!(us.on_seen(at(100), held_by(Some("them"), "1")), Move::Wait);
        assert_eq!(us.on_seen(at(114), held_by(Some("them"), "1")), Move::Wait);
        assert_eq!(us.on_seen(at(115), held_by(Some("them"), "1")), take("1", 4));
    }

    #[test]
    fn every_renewal_of_the_holder_starts_the_wait_anew() {
        let mut us = candidate();
        assert_eq!(us.on_seen(at(0), held_by(Some("them"), "1")), Move::Wait);
        assert_eq!(us.on_seen(at(14), held_by(Some("them"), "2")), Move::Wait);
        assert_eq!(us.on_seen(at(28), held_by(Some("them"), "2")), Move::Wait);
        assert_eq!(us.on_seen(at(29), held_by(Some("them"), "2")), take("2", 4));
    }

    #[test]
    fn a_holder_that_asks_for_more_time_gets_it() {
        let mut us = candidate();
        let patient = Some(Seen { duration: Some(at(60)), ..held_by(Some("them"), "1").unwrap() });
        assert_eq!(us.on_seen(at(0), patient.clone()), Move::Wait);
        assert_eq!(us.on_seen(at(59), patient.clone()), Move::Wait);
        assert_eq!(us.on_seen(at(60), patient), take("1", 4));
    }

    #[test]
    fn our_own_lease_is_renewed_without_a_transition() {
        let mut us = candidate();
        us.on_written(at(0));
        assert_eq!(us.on_seen(at(2), held_by(Some("us"), "7")), take("7", 3));
        assert_eq!(us.leads_until(), Some(at(15)));
        us.on_written(at(2));
        assert_eq!(us.leads_until(), Some(at(17)));
    }

    #[test]
    fn a_lease_in_our_name_from_before_a_restart_is_ours() {
        assert_eq!(candidate().on_seen(at(0), held_by(Some("us"), "7")), take("7", 3));
    }

    #[test]
    fn who_finds_another_holder_while_leading_has_lost() {
        let mut us = candidate();
        us.on_written(at(0));
        let found = us.on_seen(at(2), held_by(Some("them"), "8"));
        assert_eq!(found, Move::Lost(Loss::TakenBy("them".into())));
    }

    #[test]
    fn who_cannot_renew_gives_up_before_others_may_take_over() {
        let mut us = candidate();
        us.on_written(at(0));
        assert_eq!(us.on_failure(at(9)), Move::Wait);
        assert_eq!(us.on_failure(at(10)), Move::Lost(Loss::NotRenewed));
        // Waking up after a long pause, even with the lease still in our name.
        assert_eq!(us.on_seen(at(60), held_by(Some("us"), "7")), Move::Lost(Loss::NotRenewed));
        assert!(us.leads_until().unwrap() > at(10));
    }

    #[test]
    fn who_does_not_lead_cannot_lose() {
        assert_eq!(candidate().on_failure(at(1000)), Move::Wait);
    }

    #[test]
    fn a_lease_that_somebody_deleted_is_created_again_by_the_leader() {
        let mut us = candidate();
        us.on_written(at(0));
        assert_eq!(us.on_seen(at(2), None), Move::Create);
    }
}
