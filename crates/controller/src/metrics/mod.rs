//! Metrics: the names of controller-runtime, which dashboards know, and a few of our own. No label has more values
//! than there are MeshUpgrades, revisions, phases, metric sources or HTTP codes.

mod process;
mod upgrades;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use self::process::{Pass, Process};
pub use self::upgrades::Upgrades;

/// All metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// How this process is doing.
    pub process: Process,
    /// How the MeshUpgrades are doing.
    pub upgrades: Upgrades,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        Ok(Self { process: Process::new(&registry)?, upgrades: Upgrades::new(&registry)?, registry })
    }

    /// All metrics in the classic text format.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
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

fn single(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::with_opts(Opts::new(name, help))?;
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
    use std::time::Duration;

    use http::{Method, StatusCode};
    use meshupgrade_core::machine::phase::Phase;
    use meshupgrade_core::record::{Record, Run, SCHEMA};

    use super::*;

    fn record(phase: Phase) -> Record {
        let run = serde_json::json!({
            "schema": SCHEMA, "counter": 1, "source": "a", "target": "b", "phase": phase, "workloadsDone": 3,
        });
        Record {
            plan: Some(meshupgrade_core::plan::Plan { workloads: 10, ..Default::default() }),
            run: Some(serde_json::from_value::<Run>(run).unwrap()),
            ..Record::default()
        }
    }

    #[test]
    fn a_mesh_upgrade_is_shown_and_forgotten() {
        let metrics = Metrics::new().unwrap();
        let record = record(Phase::Migrating);
        metrics.upgrades.show("prod", &Record::default(), &record);
        let text = metrics.text().unwrap();
        assert!(text.contains("meshupgrade_info{from=\"a\",name=\"prod\",to=\"b\"} 1"));
        assert!(text.contains("meshupgrade_phase{name=\"prod\",phase=\"Migrating\"} 1"));
        assert!(text.contains("meshupgrade_phase{name=\"prod\",phase=\"Soaking\"} 0"));
        assert!(text.contains("meshupgrade_workloads{name=\"prod\",state=\"done\"} 3"));
        assert!(text.contains("meshupgrade_workloads{name=\"prod\",state=\"pending\"} 7"));
        metrics.upgrades.forget("prod", &record);
        assert!(!metrics.text().unwrap().contains("prod"));
    }

    #[test]
    fn every_metric_has_a_help_text_and_a_clean_name() {
        let metrics = Metrics::new().unwrap();
        metrics.process.pass_began();
        metrics.process.pass_ended(Pass::Error, Duration::from_millis(3));
        metrics.process.count_request(&Method::GET, Some(StatusCode::OK));
        metrics.process.count_request(&Method::PUT, None);
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
