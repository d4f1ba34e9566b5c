//! Managed clusters of Azure that MeshUpgrades need: each is read again and again while it is needed, because Azure has no watch,
//! and written when a decision asks for it. Nothing in a pass waits for Azure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use meshupgrade_core::aks::cluster::{ManagedCluster, ProvisioningState};
use meshupgrade_core::aks::operation::OperationState;
use meshupgrade_core::aks::problem::{ArmProblem, Class};
use meshupgrade_core::aks::seen::{ClusterNeed, ClusterSeen, Offers, SetRevisions, WriteOutcome, WriteSeen};
use meshupgrade_core::ids::Uid;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::arm::{Arm, ConfigError, OperationHandle, SetRevisions as Answer};
use crate::election::Leadership;
use crate::watch::Poke;

/// How often a cluster is read while an operation runs on it, at the least.
const BUSY: Duration = Duration::from_secs(10);
/// The shortest time between two readings of a cluster.
const SHORTEST: Duration = Duration::from_millis(500);
/// How long an operation is followed. Starts were seen to take 151 s; the cluster's own state is read all the time.
const LONGEST_OPERATION: Duration = Duration::from_hours(1);

/// How often clusters are read, and by which clock that is noted.
#[derive(Clone)]
pub struct Pace {
    /// How often each cluster is read.
    pub poll: Duration,
    /// The shortest time between two readings of a cluster.
    pub shortest: Duration,
    /// The clock that decisions go by.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Pace {
    /// Each cluster is read this often, by the clock of the system.
    pub fn every(poll: Duration) -> Self {
        Self { poll, shortest: SHORTEST, clock: Arc::new(Timestamp::now) }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace")
            .field("poll", &self.poll)
            .field("shortest", &self.shortest)
            .finish_non_exhaustive()
    }
}

/// What is known of the clusters.
#[derive(Clone, Debug)]
pub struct ManagedClusters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Why there is no client, where there is none: who has no cluster in Azure need not configure it.
    arm: Result<Arm, ArmProblem>,
    pace: Pace,
    poke: Poke,
    leadership: Leadership,
    known: Mutex<BTreeMap<Uid, Known>>,
}

/// What one MeshUpgrade needs and knows.
#[derive(Debug)]
struct Known {
    need: ClusterNeed,
    seen: Option<ClusterSeen>,
    write: Option<WriteSeen>,
    /// Asks for a reading now.
    again: Arc<Notify>,
    reader: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl ManagedClusters {
    /// None is known yet.
    pub fn new(arm: Result<Arm, ConfigError>, pace: Pace, poke: Poke, leadership: Leadership) -> Self {
        let arm = arm.map_err(|error| not_configured(&error));
        Self(Arc::new(Shared { arm, pace, poke, leadership, known: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.0.pace.clock)()
    }

    /// What a MeshUpgrade needs from now on. Must be called inside the runtime.
    pub fn want(&self, upgrade: &Uid, need: Option<&ClusterNeed>) {
        let mut known = self.lock();
        let Some(need) = need else {
            // What became of a write on its way must be known to whoever looks next.
            let sent =
                |found: &Known| found.write.as_ref().is_some_and(|write| write.outcome == WriteOutcome::Sent);
            if !known.get(upgrade).is_some_and(sent) {
                known.remove(upgrade);
            }
            return;
        };
        if let Some(found) = known.get_mut(upgrade).filter(|found| found.need.cluster == need.cluster) {
            found.need.clone_from(need);
            if !found.satisfied() {
                found.again.notify_one();
            }
            return;
        }
        let again = Arc::new(Notify::new());
        let reader = tokio::spawn(read_for_ever(self.clone(), upgrade.clone(), Arc::clone(&again)));
        let entry = Known { need: need.clone(), seen: None, write: None, again, reader };
        known.insert(upgrade.clone(), entry);
    }

    /// Forgets a MeshUpgrade that is gone.
    pub fn forget(&self, upgrade: &Uid) {
        self.lock().remove(upgrade);
    }

    /// The last reading for a MeshUpgrade.
    pub fn last(&self, upgrade: &Uid) -> Option<ClusterSeen> {
        let known = self.lock();
        let found = known.get(upgrade)?;
        let seen = found.seen.as_ref()?;
        Some(ClusterSeen { write: found.write.clone(), ..seen.clone() })
    }

    /// Begins a write, unless one is on its way. Must be called inside the runtime.
    pub fn write(&self, upgrade: &Uid, change: &SetRevisions) {
        let is_free = |last: Option<&WriteSeen>| last.is_none_or(|last| last.outcome != WriteOutcome::Sent);
        if self.note(upgrade, &change.stamp, WriteOutcome::Sent, is_free) {
            tokio::spawn(self.clone().carry_out(upgrade.clone(), change.clone()));
        }
    }

    /// Takes note of what became of a write, if the last one is such that it may. Says whether it did.
    fn note(
        &self,
        upgrade: &Uid,
        stamp: &str,
        outcome: WriteOutcome,
        may: impl FnOnce(Option<&WriteSeen>) -> bool,
    ) -> bool {
        let mut known = self.lock();
        let Some(found) = known.get_mut(upgrade).filter(|found| may(found.write.as_ref())) else {
            return false;
        };
        found.write = Some(WriteSeen { stamp: stamp.to_owned(), outcome, at: self.now() });
        found.again.notify_one();
        true
    }

    /// Takes note of what became of a write that was known to be like this. Another one may have begun since.
    fn note_end(&self, upgrade: &Uid, stamp: &str, was: &WriteOutcome, outcome: WriteOutcome) {
        let is_same =
            |last: Option<&WriteSeen>| last.is_some_and(|last| last.stamp == stamp && last.outcome == *was);
        if self.note(upgrade, stamp, outcome, is_same) {
            self.0.poke.poke();
        }
    }

    async fn carry_out(self, upgrade: Uid, change: SetRevisions) {
        let SetRevisions { cluster, expected, wanted, stamp, .. } = change;
        let answer = match &self.0.arm {
            Ok(arm) if self.0.leadership.may_write() => arm.set_revisions(&cluster, &expected, &wanted).await,
            Ok(_) => Err(not_leading()),
            Err(problem) => Err(problem.clone()),
        };
        let (outcome, handle) = match answer {
            Ok(Answer::AlreadySo) => (WriteOutcome::AlreadySo, None),
            Ok(Answer::Accepted(accepted)) => {
                (WriteOutcome::Accepted(OperationState::Running), accepted.handle)
            }
            Err(problem) => (WriteOutcome::Failed(problem), None),
        };
        self.note_end(&upgrade, &stamp, &WriteOutcome::Sent, outcome);
        if let Some(handle) = handle {
            self.follow(&upgrade, &stamp, &handle).await;
        }
    }

    /// An operation that fails says why, which the cluster itself does not.
    async fn follow(&self, upgrade: &Uid, stamp: &str, handle: &OperationHandle) {
        let Ok(arm) = &self.0.arm else { return };
        let state = match arm.follow(handle, LONGEST_OPERATION).await {
            Ok(state) => state,
            Err(problem) => {
                tracing::warn!(%problem, "the operation cannot be followed: the cluster's own state is watched");
                return;
            }
        };
        let was = WriteOutcome::Accepted(OperationState::Running);
        self.note_end(upgrade, stamp, &was, WriteOutcome::Accepted(state));
    }

    /// Reads once. Returns when to read again, or nothing when it is not needed any more.
    async fn read(&self, upgrade: &Uid) -> Option<Duration> {
        let need = self.lock().get(upgrade)?.need.clone();
        let read_at = self.now();
        let (cluster, offers) = match &self.0.arm {
            Ok(arm) => ask(arm, &need).await,
            Err(problem) => (Err(problem.clone()), None),
        };
        let pause = self.pause(&cluster);
        let mut known = self.lock();
        let found = known.get_mut(upgrade).filter(|found| found.need.cluster == need.cluster)?;
        let before = found.seen.as_ref().and_then(|seen| seen.egress_gateways.clone());
        let egress_gateways =
            cluster.as_ref().map_or(before, |cluster| Some(cluster.egress_gateways.clone()));
        found.seen = Some(ClusterSeen { read_at, cluster, egress_gateways, offers, write: None });
        let satisfied = found.satisfied();
        drop(known);
        self.0.poke.poke();
        Some(if satisfied { pause } else { self.0.pace.shortest })
    }

    fn pause(&self, cluster: &Result<ManagedCluster, ArmProblem>) -> Duration {
        match cluster {
            Ok(cluster) if matches!(cluster.provisioning_state, ProvisioningState::UnderWay(_)) => {
                self.0.pace.poll.min(BUSY)
            }
            Err(ArmProblem { class: Class::Throttled { retry_after_seconds: Some(seconds) }, .. }) => {
                self.0.pace.poll.max(Duration::from_secs(*seconds))
            }
            Ok(_) | Err(_) => self.0.pace.poll,
        }
    }
}

impl Known {
    /// Whether the last reading is what the next pass needs. One that failed is: trying again at once would not mend it.
    fn satisfied(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| {
            seen.read_at >= self.need.since
                && (!self.need.offers || seen.offers.is_some() || seen.cluster.is_err())
        })
    }
}

async fn read_for_ever(clusters: ManagedClusters, upgrade: Uid, again: Arc<Notify>) {
    while let Some(pause) = clusters.read(&upgrade).await {
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = again.notified() => tokio::time::sleep_until(begun + clusters.0.pace.shortest.min(pause)).await,
        }
    }
}

async fn ask(arm: &Arm, need: &ClusterNeed) -> (Result<ManagedCluster, ArmProblem>, Option<Offers>) {
    let cluster = arm.read(&need.cluster).await.map(|read| read.cluster);
    let offers = match &cluster {
        Ok(cluster) if need.offers => Some(Offers {
            upgrades: arm.upgrades(&need.cluster).await,
            revisions: arm.revisions(&need.cluster, &cluster.location).await,
        }),
        _ => None,
    };
    (cluster, offers)
}

fn not_configured(error: &ConfigError) -> ArmProblem {
    ArmProblem::own(
        Class::SignIn,
        "NotConfigured",
        "The operator cannot speak to Azure.",
        &format!("Its configuration does not allow it: {error}."),
        "Correct the operator's configuration and start it anew, or use controlPlane.external.",
    )
}

fn not_leading() -> ArmProblem {
    ArmProblem::own(
        Class::Transient { retry_after_seconds: None },
        "NotLeading",
        "The cluster was not changed.",
        "This process does not lead any more.",
        "",
    )
}
