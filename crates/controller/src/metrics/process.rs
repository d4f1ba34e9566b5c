//! How this process is doing.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{counter, gauge, histogram, single};

/// Value of the label `controller`.
const CONTROLLER: &str = "meshupgrade";

/// Metrics of passes, calls and watches.
#[derive(Clone, Debug)]
pub struct Process {
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_seconds: HistogramVec,
    active_workers: IntGaugeVec,
    max_workers: IntGaugeVec,
    calls: Calls,
    census_seconds: HistogramVec,
    source_queries: IntCounterVec,
    source_seconds: HistogramVec,
    leader: IntGauge,
    watched: IntGaugeVec,
}

/// Metrics of what is sent to the API server.
#[derive(Clone, Debug)]
struct Calls {
    requests: IntCounterVec,
    timeouts: IntCounterVec,
    effects: IntCounterVec,
    events_dropped: IntCounterVec,
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

impl Process {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let by_controller = &["controller"];
        Ok(Self {
            reconciles: counter(
                registry,
                "controller_runtime_reconcile_total",
                "Passes over MeshUpgrades, by how they ended.",
                &["controller", "result"],
            )?,
            reconcile_errors: counter(
                registry,
                "controller_runtime_reconcile_errors_total",
                "Passes over MeshUpgrades that failed.",
                by_controller,
            )?,
            reconcile_seconds: histogram(
                registry,
                "controller_runtime_reconcile_time_seconds",
                "How long passes over MeshUpgrades took.",
                by_controller,
            )?,
            active_workers: gauge(
                registry,
                "controller_runtime_active_workers",
                "Passes that run now.",
                by_controller,
            )?,
            max_workers: gauge(
                registry,
                "controller_runtime_max_concurrent_reconciles",
                "Passes that may run at once.",
                by_controller,
            )?,
            calls: Calls::new(registry)?,
            census_seconds: histogram(
                registry,
                "meshupgrade_census_time_seconds",
                "How long cluster-wide looks at proxies and references took.",
                &["result"],
            )?,
            source_queries: counter(
                registry,
                "meshupgrade_metric_source_queries_total",
                "Queries of metric sources, by what became of them.",
                &["source", "result"],
            )?,
            source_seconds: histogram(
                registry,
                "meshupgrade_metric_source_query_time_seconds",
                "How long queries of metric sources took.",
                &["source"],
            )?,
            leader: single(registry, "meshupgrade_leader", "1 while this process leads.")?,
            watched: gauge(
                registry,
                "meshupgrade_watched_objects",
                "Objects that the cluster-wide watches keep, by resource.",
                &["resource"],
            )?,
        })
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
        self.calls.requests.with_label_values(&[code, method.as_str()]).inc();
    }

    /// A call had no answer in time.
    pub fn count_timeout(&self, call: &'static str) {
        self.calls.timeouts.with_label_values(&[call]).inc();
    }

    /// A write to a namespace or workload ended.
    pub fn count_effect(&self, effect: &'static str, outcome: &'static str) {
        self.calls.effects.with_label_values(&[effect, outcome]).inc();
    }

    /// An event was not published.
    pub fn count_dropped_event(&self, reason: &'static str) {
        self.calls.events_dropped.with_label_values(&[reason]).inc();
    }

    /// A census ended.
    pub fn census_ended(&self, complete: bool, took: Duration) {
        let result = if complete { "complete" } else { "incomplete" };
        self.census_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// A query of a metric source ended. The source is the name of a configured one, or one word for all others.
    pub fn metric_source_answered(&self, source: &str, result: &'static str, took: Duration) {
        self.source_queries.with_label_values(&[source, result]).inc();
        self.source_seconds.with_label_values(&[source]).observe(took.as_secs_f64());
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
}

impl Calls {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counter(
                registry,
                "rest_client_requests_total",
                "Requests to the API server, by answer and method.",
                &["code", "method"],
            )?,
            timeouts: counter(
                registry,
                "meshupgrade_call_timeouts_total",
                "Calls to the API server that had no answer in time, by what they were for.",
                &["call"],
            )?,
            effects: counter(
                registry,
                "meshupgrade_effects_total",
                "Writes to namespaces and workloads, by kind and outcome.",
                &["effect", "outcome"],
            )?,
            events_dropped: counter(
                registry,
                "meshupgrade_events_dropped_total",
                "Kubernetes events that were not published, by reason.",
                &["reason"],
            )?,
        })
    }
}
