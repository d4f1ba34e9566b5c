//! The I/O of the election: reads and writes of the Lease, each write guarded by the resource version.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::Leadership;
use super::decide::{Candidate, Loss, Monotonic, Move, Seen, Timing};
use crate::client::{CallError, within};
use crate::metrics::Metrics;

/// Where the Lease is, and who we are.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Our name in it.
    pub identity: String,
    /// The times.
    pub timing: Timing,
}

/// The running election.
pub struct Elector {
    election: Election,
    api: Api<Lease>,
    leadership: Leadership,
    elected: watch::Sender<bool>,
    metrics: Metrics,
    start: Instant,
    acquired: OnceLock<Timestamp>,
}

impl Elector {
    /// An election that has not begun. The receiver becomes true once we lead.
    pub fn new(
        election: Election,
        client: Client,
        leadership: Leadership,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<bool>) {
        let (elected, receiver) = watch::channel(false);
        let elector = Self {
            api: Api::namespaced(client, &election.namespace),
            election,
            leadership,
            elected,
            metrics,
            start: Instant::now(),
            acquired: OnceLock::new(),
        };
        (elector, receiver)
    }

    /// Takes part until leadership is lost. Whoever stops waiting for that still holds the lease until it expires, or
    /// until [`Self::release`].
    pub async fn run(&self) -> Loss {
        let mut candidate = Candidate::new(self.election.identity.clone(), self.election.timing);
        loop {
            let round = Instant::now();
            let next = match self.look().await {
                Ok(lease) => candidate.on_seen(self.now(), lease),
                Err(error) => self.failed(&candidate, &error),
            };
            let next = match next {
                Move::Create => self.write(&mut candidate, None, 0).await,
                Move::Take { version, transitions } => {
                    self.write(&mut candidate, Some(version), transitions).await
                }
                other => other,
            };
            if let Move::Lost(loss) = next {
                self.leadership.set(None);
                self.metrics.process.set_leader(false);
                return loss;
            }
            tokio::time::sleep(self.election.timing.retry.saturating_sub(round.elapsed())).await;
        }
    }

    /// Gives the lease back so that another process can lead at once. Only for a leader that writes no more.
    pub async fn release(&self) {
        if !self.leadership.leads() {
            return;
        }
        self.leadership.set(None);
        self.metrics.process.set_leader(false);
        let released = async {
            let lease = self.call(self.api.get(&self.election.name)).await?;
            let spec = lease.spec.unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.election.identity) {
                return Ok(());
            }
            let released = Lease {
                metadata: lease.metadata,
                spec: Some(LeaseSpec {
                    holder_identity: None,
                    lease_duration_seconds: Some(1),
                    renew_time: Some(MicroTime(Timestamp::now())),
                    ..spec
                }),
            };
            let parameters = PostParams::default();
            self.call(self.api.replace(&self.election.name, &parameters, &released)).await.map(|_| ())
        };
        match released.await {
            Ok(()) => tracing::info!("lease released"),
            Err(error) => tracing::warn!(%error, "lease not released: others wait until it expires"),
        }
    }

    async fn look(&self) -> Result<Option<Seen>, CallError> {
        let lease = self.call(self.api.get_opt(&self.election.name)).await?;
        Ok(lease.map(seen))
    }

    async fn write(&self, candidate: &mut Candidate, version: Option<String>, transitions: i32) -> Move {
        let began = self.now();
        let lease = self.lease(version.clone(), transitions);
        let parameters = PostParams::default();
        let answer = match version {
            Some(_) => self.call(self.api.replace(&self.election.name, &parameters, &lease)).await,
            None => self.call(self.api.create(&parameters, &lease)).await,
        };
        match answer {
            Ok(_) => {
                candidate.on_written(began);
                let _ = self.acquired.set(Timestamp::now());
                let until = candidate.leads_until().map(|until| self.start + until);
                self.leadership.set(until);
                if !self.elected.send_replace(true) {
                    self.metrics.process.set_leader(true);
                    tracing::info!(identity = self.election.identity, "leading");
                }
                Move::Wait
            }
            Err(error) => self.failed(candidate, &error),
        }
    }

    fn failed(&self, candidate: &Candidate, error: &CallError) -> Move {
        tracing::warn!(%error, "lease not read or written");
        if matches!(error, CallError::Timeout(_)) {
            self.metrics.process.count_timeout("lease");
        }
        candidate.on_failure(self.now())
    }

    fn lease(&self, version: Option<String>, transitions: i32) -> Lease {
        let now = Timestamp::now();
        let seconds = i32::try_from(self.election.timing.lease.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.election.name.clone()),
                namespace: Some(self.election.namespace.clone()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.election.identity.clone()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(transitions),
                acquire_time: Some(MicroTime(self.acquired.get().copied().unwrap_or(now))),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// A call that leaves room for another try before the deadline.
    async fn call<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        let limit = (self.election.timing.renew_deadline / 3).max(Duration::from_secs(1));
        within(limit, request).await
    }

    fn now(&self) -> Monotonic {
        self.start.elapsed()
    }
}

fn seen(lease: Lease) -> Seen {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Seen {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        version: lease.metadata.resource_version.unwrap_or_default(),
        duration: seconds.map(Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_lease_has_no_holder() {
        let lease = |holder: &str| Lease {
            metadata: ObjectMeta { resource_version: Some("5".into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(2),
                ..LeaseSpec::default()
            }),
        };
        assert_eq!(seen(lease("")).holder, None);
        let held = seen(lease("them"));
        assert_eq!(held.holder.as_deref(), Some("them"));
        assert_eq!((held.duration, held.transitions), (Some(Duration::from_secs(15)), 2));
        assert_eq!(seen(Lease::default()).holder, None);
    }
}
