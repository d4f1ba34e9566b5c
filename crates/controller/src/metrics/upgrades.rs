//! How the MeshUpgrades are doing.

use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::{Record, Run};
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{counter, gauge};

/// States of workloads in `meshupgrade_workloads`.
const WORKLOAD_STATES: [&str; 3] = ["done", "restarting", "pending"];

/// Metrics by MeshUpgrade.
#[derive(Clone, Debug)]
pub struct Upgrades {
    info: IntGaugeVec,
    phase: IntGaugeVec,
    workloads: IntGaugeVec,
    rollbacks: IntCounterVec,
    measurements: IntCounterVec,
    outdated: IntGaugeVec,
}

impl Upgrades {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            info: gauge(
                registry,
                "meshupgrade_info",
                "Revisions of the run in progress, or of the last one.",
                &["name", "from", "to"],
            )?,
            phase: gauge(
                registry,
                "meshupgrade_phase",
                "1 for the phase that the MeshUpgrade is in, 0 for all others.",
                &["name", "phase"],
            )?,
            workloads: gauge(
                registry,
                "meshupgrade_workloads",
                "Restartable workloads of the plan, by state.",
                &["name", "state"],
            )?,
            rollbacks: counter(
                registry,
                "meshupgrade_rollbacks_total",
                "Runs that turned back, by cause.",
                &["reason"],
            )?,
            measurements: counter(
                registry,
                "meshupgrade_measurements_total",
                "Measurements of metrics, by verdict.",
                &["name", "metric", "verdict"],
            )?,
            outdated: gauge(
                registry,
                "meshupgrade_outdated_proxies",
                "Proxies with another image than the injector of their revision gives now.",
                &["name"],
            )?,
        })
    }

    /// A run turned back.
    pub fn count_rollback(&self, reason: &str) {
        self.rollbacks.with_label_values(&[reason]).inc();
    }

    /// Counts the measurements that came with a decision.
    pub fn count_measurements(&self, name: &str, before: &Record, record: &Record) {
        for sample in record.samples.iter().filter(|sample| !before.samples.contains(sample)) {
            self.measurements.with_label_values(&[name, &sample.metric, sample.verdict.as_str()]).inc();
        }
    }

    /// Shows how many proxies are outdated.
    pub fn show_outdated(&self, name: &str, proxies: Option<u32>) {
        match proxies {
            Some(proxies) => self.outdated.with_label_values(&[name]).set(i64::from(proxies)),
            None => drop(self.outdated.remove_label_values(&[name])),
        }
    }

    /// Shows where a MeshUpgrade is.
    pub fn show(&self, name: &str, before: &Record, record: &Record) {
        let pair = |run: &Run| (run.source.clone(), run.target.clone());
        if before.run.as_ref().map(pair) != record.run.as_ref().map(pair) {
            self.forget_pair(name, before);
        }
        let Some(run) = &record.run else { return };
        self.info.with_label_values(&[name, run.source.as_str(), run.target.as_str()]).set(1);
        for phase in Phase::ALL {
            let value = i64::from(phase == run.phase);
            self.phase.with_label_values(&[name, phase.as_str()]).set(value);
        }
        let all = record.plan.as_ref().map_or(0, |plan| i64::from(plan.workloads));
        let open = run.batch.as_ref().map_or(0, |batch| batch.entries.len());
        let restarting = i64::try_from(open).unwrap_or(i64::MAX);
        let done = i64::from(run.workloads_done);
        let values = [done, restarting, (all - done - restarting).max(0)];
        for (state, value) in WORKLOAD_STATES.into_iter().zip(values) {
            self.workloads.with_label_values(&[name, state]).set(value);
        }
    }

    /// Forgets a MeshUpgrade that is gone.
    pub fn forget(&self, name: &str, record: &Record) {
        self.forget_pair(name, record);
        for phase in Phase::ALL {
            let _ = self.phase.remove_label_values(&[name, phase.as_str()]);
        }
        for state in WORKLOAD_STATES {
            let _ = self.workloads.remove_label_values(&[name, state]);
        }
        self.show_outdated(name, None);
    }

    fn forget_pair(&self, name: &str, record: &Record) {
        if let Some(run) = &record.run {
            let _ = self.info.remove_label_values(&[name, run.source.as_str(), run.target.as_str()]);
        }
    }
}
