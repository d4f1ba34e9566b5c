//! Metrics: the names of controller-runtime, which dashboards know, and a few of our own. No label has more values
//! than there are MeshUpgrades, revisions, phases or HTTP codes.

use std::time::Duration;

use http::{Method, StatusCode};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::Record;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Value of the label `controller`.
const CONTROLLER: &str = "meshupgrade";
/// States of workloads in `meshupgrade_workloads`.
const WORKLOAD_STATES: [&str; 3] = ["done", "restarting", "pending"];

/// All metrics of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_seconds: HistogramVec,
    active_workers: IntGaugeVec,
    max_workers: IntGaugeVec,
    requests: IntCounterVec,
    call_timeouts: IntCounterVec,
    effects: IntCounterVec,
    events_dropped: IntCounterVec,
    census_seconds: HistogramVec,
    info: IntGaugeVec,
    phase: IntGaugeVec,
    workloads: IntGaugeVec,
    rollbacks: IntCounterVec,
    leader: IntGauge,
    watched: IntGaugeVec,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It waits for a change.
    Success,
    /// It comes back by itself.
    RequeueAfter,
    /// It failed.
    Error,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            reconciles: counter(
                &registry,
                "controller_runtime_reconcile_total",
                "Passes over MeshUpgrades, by how they ended.",
                &["controller", "result"],
            )?,
            reconcile_errors: counter(
                &registry,
                "controller_runtime_reconcile_errors_total",
                "Passes over MeshUpgrades that failed.",
                &["controller"],
            )?,
            reconcile_seconds: histogram(
                &registry,
                "controller_runtime_reconcile_time_seconds",
                "How long passes over MeshUpgrades took.",
                &["controller"],
            )?,
            active_workers: gauge(
                &registry,
                "controller_runtime_active_workers",
                "Passes that run now.",
                &["controller"],
            )?,
            max_workers: gauge(
                &registry,
                "controller_runtime_max_concurrent_reconciles",
                "Passes that may run at once.",
                &["controller"],
            )?,
            requests: counter(
                &registry,
                "rest_client_requests_total",
                "Requests to the API server, by answer and method.",
                &["code", "method"],
            )?,
            call_timeouts: counter(
                &registry,
                "meshupgrade_call_timeouts_total",
                "Calls to the API server that had no answer in time, by what they were for.",
                &["call"],
            )?,
            effects: counter(
                &registry,
                "meshupgrade_effects_total",
                "Writes to namespaces and workloads, by kind and outcome.",
                &["effect", "outcome"],
            )?,
            events_dropped: counter(
                &registry,
                "meshupgrade_events_dropped_total",
                "Kubernetes events that were not published, by reason.",
                &["reason"],
            )?,
            census_seconds: histogram(
                &registry,
                "meshupgrade_census_time_seconds",
                "How long cluster-wide looks at proxies and references took.",
                &["result"],
            )?,
            info: gauge(
                &registry,
                "meshupgrade_info",
                "Revisions of the run in progress, or of the last one.",
                &["name", "from", "to"],
            )?,
            phase: gauge(
                &registry,
                "meshupgrade_phase",
                "1 for the phase that the MeshUpgrade is in, 0 for all others.",
                &["name", "phase"],
            )?,
            workloads: gauge(
                &registry,
                "meshupgrade_workloads",
                "Restartable workloads of the plan, by state.",
                &["name", "state"],
            )?,
            rollbacks: counter(
                &registry,
                "meshupgrade_rollbacks_total",
                "Runs that turned back, by cause.",
                &["reason"],
            )?,
            watched: gauge(
                &registry,
                "meshupgrade_watched_objects",
                "Objects that the cluster-wide watches keep, by resource.",
                &["resource"],
            )?,
            leader: IntGauge::with_opts(Opts::new("meshupgrade_leader", "1 while this process leads."))?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.leader.clone()))?;
        Ok(metrics)
    }

    /// All metrics in the classic text format.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// How many passes may run at once.
    pub fn set_max_workers(&self, workers: u16) {
        self.max_workers.with_label_values(&[CONTROLLER]).set(workers.into());
    }

    /// A pass began.
    pub fn pass_began(&self) {
        self.active_workers.with_label_values(&[CONTROLLER]).inc();
    }

    /// A pass ended.
    pub fn pass_ended(&self, pass: Pass, took: Duration) {
        self.active_workers.with_label_values(&[CONTROLLER]).dec();
        let result = match pass {
            Pass::Success => "success",
            Pass::RequeueAfter => "requeue_after",
            Pass::Error => "error",
        };
        self.reconciles.with_label_values(&[CONTROLLER, result]).inc();
        if pass == Pass::Error {
            self.reconcile_errors.with_label_values(&[CONTROLLER]).inc();
        }
        self.reconcile_seconds.with_label_values(&[CONTROLLER]).observe(took.as_secs_f64());
    }

    /// A request was answered, or failed without an answer.
    pub fn count_request(&self, method: &Method, status: Option<StatusCode>) {
        let code = status.as_ref().map_or("<error>", StatusCode::as_str);
        self.requests.with_label_values(&[code, method.as_str()]).inc();
    }

    /// A call had no answer in time.
    pub fn count_timeout(&self, call: &'static str) {
        self.call_timeouts.with_label_values(&[call]).inc();
    }

    /// A write to a namespace or workload ended.
    pub fn count_effect(&self, effect: &'static str, outcome: &'static str) {
        self.effects.with_label_values(&[effect, outcome]).inc();
    }

    /// An event was not published.
    pub fn count_dropped_event(&self, reason: &'static str) {
        self.events_dropped.with_label_values(&[reason]).inc();
    }

    /// A census ended.
    pub fn census_ended(&self, complete: bool, took: Duration) {
        let result = if complete { "complete" } else { "incomplete" };
        self.census_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// A run turned back.
    pub fn count_rollback(&self, reason: &str) {
        self.rollbacks.with_label_values(&[reason]).inc();
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// How many objects of a kind are kept.
    pub fn set_watched(&self, resource: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.watched.with_label_values(&[resource]).set(count);
    }

    /// Shows where a MeshUpgrade is.
    pub fn show(&self, name: &str, before: &Record, record: &Record) {
        if let Some(old) = before.run.as_ref() {
            let same = record
                .run
                .as_ref()
                .is_some_and(|run| (&run.source, &run.target) == (&old.source, &old.target));
            if !same {
                let _ = self.info.remove_label_values(&[name, old.source.as_str(), old.target.as_str()]);
            }
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
        if let Some(run) = &record.run {
            let _ = self.info.remove_label_values(&[name, run.source.as_str(), run.target.as_str()]);
        }
        for phase in Phase::ALL {
            let _ = self.phase.remove_label_values(&[name, phase.as_str()]);
        }
        for state in WORKLOAD_STATES {
            let _ = self.workloads.remove_label_values(&[name, state]);
        }
    }
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let buckets = vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::record::{Run, SCHEMA};

    use super::*;

    fn record(phase: Phase) -> Record {
        let run = serde_json::json!({
            "schema": SCHEMA, "counter": 1, "source": "a", "target": "b", "phase": phase, "workloadsDone": 3,
        });
        Record {
            plan: Some(meshupgrade_core::plan::Plan { workloads: 10, ..Default::default() }),
            run: Some(serde_json::from_value::<Run>(run).unwrap()),
            history: Vec::new(),
        }
    }

    #[test]
    fn a_mesh_upgrade_is_shown_and_forgotten() {
        let metrics = Metrics::new().unwrap();
        let record = record(Phase::Migrating);
        metrics.show("prod", &Record::default(), &record);
        let text = metrics.text().unwrap();
        assert!(text.contains("meshupgrade_info{from=\"a\",name=\"prod\",to=\"b\"} 1"));
        assert!(text.contains("meshupgrade_phase{name=\"prod\",phase=\"Migrating\"} 1"));
        assert!(text.contains("meshupgrade_phase{name=\"prod\",phase=\"Soaking\"} 0"));
        assert!(text.contains("meshupgrade_workloads{name=\"prod\",state=\"done\"} 3"));
        assert!(text.contains("meshupgrade_workloads{name=\"prod\",state=\"pending\"} 7"));
        metrics.forget("prod", &record);
        assert!(!metrics.text().unwrap().contains("prod"));
    }

    #[test]
    fn every_metric_has_a_help_text_and_a_clean_name() {
        let metrics = Metrics::new().unwrap();
        metrics.pass_began();
        metrics.pass_ended(Pass::Error, Duration::from_millis(3));
        metrics.count_request(&Method::GET, Some(StatusCode::OK));
        metrics.count_request(&Method::PUT, None);
        let text = metrics.text().unwrap();
        assert!(
            text.contains(
                "controller_runtime_reconcile_total{controller=\"meshupgrade\",result=\"error\"} 1"
            )
        );
        assert!(text.contains("rest_client_requests_total{code=\"200\",method=\"GET\"} 1"));
        assert!(text.contains("rest_client_requests_total{code=\"<error>\",method=\"PUT\"} 1"));
        for family in metrics.registry.gather() {
            assert!(family.help().ends_with('.'), "{}", family.name());
        }
    }
}
