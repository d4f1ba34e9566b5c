//! What a mesh tells about itself, for scenarios that ask for it: a real Prometheus that scrapes the real istiods, which
//! have a real xDS client connected for every proxy, and an exporter that speaks for the proxies of the simulated pods.
//!
//! ```no_run
//! # use meshupgrade_e2e::{Scenario, TARGET, telemetry::{Fault, Telemetry}};
//! # async fn example(s: &Scenario) -> anyhow::Result<()> {
//! let faults = [Fault::of("shop", "web", TARGET).errors(0.2), Fault::of("shop", "api", TARGET).rejects_configuration()];
//! let mut telemetry = Telemetry::start(s, &faults).await?;
//! println!("{}", telemetry.prometheus_url());
//! telemetry.stop_prometheus().await?;
//! telemetry.start_prometheus().await
//! # }
//! ```

mod exporter;
mod fault;
mod prometheus;
mod series;
mod sidecar;

use anyhow::{Result, ensure};
use meshupgrade_testbed::{Program, ProgramSpec};

use crate::scenario::Scenario;
use exporter::Exporter;
pub use fault::Fault;
use prometheus::Prometheus;
pub use prometheus::Sample;

/// Everything ends when it is dropped. It knows the istiods that are installed when it starts: one that is installed
/// later, or again, has other addresses.
#[derive(Debug)]
pub struct Telemetry {
    // In this order they end: who asks before who answers.
    prometheus: Prometheus,
    clients: Program,
    _exporter: Exporter,
}

impl Telemetry {
    /// Starts all of it and waits until Prometheus answers. What is wrong with which workload is fixed from then on.
    pub async fn start(scenario: &Scenario, faults: &[Fault]) -> Result<Self> {
        let exporter = Exporter::start(scenario.client(), faults).await?;
        let dir = scenario.logs_dir();
        let port = scenario.prometheus_port()?;
        let mut prometheus = Prometheus::new(scenario.cluster(), port, exporter.address, &dir)?;
        let clients = scenario.cluster().start_program(&clients(scenario, faults))?;
        prometheus.start().await?;
        Ok(Self { prometheus, clients, _exporter: exporter })
    }

    /// Where Prometheus answers, without a slash at the end.
    pub fn prometheus_url(&self) -> String {
        self.prometheus.url()
    }

    /// Ends Prometheus in order; its data stay.
    pub async fn stop_prometheus(&mut self) -> Result<()> {
        self.prometheus.stop().await
    }

    /// Starts Prometheus again, at the same address and with its data, unless it runs.
    pub async fn start_prometheus(&mut self) -> Result<()> {
        self.prometheus.start().await
    }

    /// Asks Prometheus.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        self.prometheus.query(query).await
    }

    /// The only value of an answer; `None` when there are no data.
    pub async fn value(&self, query: &str) -> Result<Option<f64>> {
        let samples = self.query(query).await?;
        ensure!(samples.len() < 2, "{query} has {} values", samples.len());
        Ok(samples.first().map(|sample| sample.value))
    }

    /// Fails when the xDS clients have ended by themselves.
    pub fn check_clients(&mut self) -> Result<()> {
        self.clients.check()
    }
}

fn clients(scenario: &Scenario, faults: &[Fault]) -> ProgramSpec {
    let cluster = scenario.cluster();
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    let istiods = cluster.istiod_addresses();
    let istiods = istiods.iter().map(|istiod| format!("--istiod={}={}", istiod.revision, istiod.xds));
    let args = std::iter::once(kubeconfig).chain(istiods).chain(faults.iter().filter_map(Fault::rejection));
    ProgramSpec { program: "xds-clients".into(), args: args.collect(), dir: scenario.logs_dir() }
}
