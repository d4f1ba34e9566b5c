//! What is wrong with which workload, fixed before a run: nothing here ever looks at a MeshUpgrade.

use std::time::Duration;

use super::sidecar::Sidecar;

/// What the pods of one workload do on one revision.
#[derive(Clone, Debug)]
pub struct Fault {
    namespace: String,
    workload: String,
    revision: String,
    traffic: Traffic,
    rejects: bool,
}

impl Fault {
    /// A row without any difference yet to what every other pod does.
    pub fn of(namespace: &str, workload: &str, revision: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            revision: revision.to_owned(),
            traffic: Traffic::default(),
            rejects: false,
        }
    }

    /// This share of its answers, between 0 and 1, has the code 503.
    #[must_use]
    pub fn errors(mut self, share: f64) -> Self {
        self.traffic.error_share = share;
        self
    }

    /// Its requests take this long on average, and between half as long and half as long again.
    #[must_use]
    pub fn latency_ms(mut self, milliseconds: f64) -> Self {
        self.traffic.latency_ms = milliseconds;
        self
    }

    /// Each of its pods answers so many.
    #[must_use]
    pub fn requests_per_second(mut self, requests: f64) -> Self {
        self.traffic.requests_per_second = requests;
        self
    }

    /// What is told of its requests is so old when it is scraped, as behind a collector that does not keep up.
    #[must_use]
    pub fn late(mut self, age: Duration) -> Self {
        self.traffic.age = age;
        self
    }

    /// Its proxies refuse all configuration that istiod sends them: clusters and listeners once when they connect, and
    /// again at each push. As anywhere, istiod has no `pilot_total_xds_rejects` before the first refusal, so that
    /// `increase()` and `rate()` miss those that a scrape finds in a new series.
    #[must_use]
    pub fn rejects_configuration(mut self) -> Self {
        self.rejects = true;
        self
    }

    /// How the xDS clients are told that it rejects, if it does.
    pub(super) fn rejection(&self) -> Option<String> {
        let Self { namespace, workload, revision, .. } = self;
        self.rejects.then(|| format!("--reject={namespace}/{workload}@{revision}"))
    }

    fn is_of(&self, sidecar: &Sidecar) -> bool {
        self.namespace == sidecar.namespace
            && self.workload == sidecar.workload
            && self.revision == sidecar.revision
    }
}

/// The requests that one pod answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Traffic {
    pub requests_per_second: f64,
    pub error_share: f64,
    pub latency_ms: f64,
    /// How old samples are when they are scraped.
    pub age: Duration,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { requests_per_second: 50.0, error_share: 0.0, latency_ms: 20.0, age: Duration::ZERO }
    }
}

impl Traffic {
    /// What the table says about a pod; of two rows for the same the first one counts.
    pub fn of(faults: &[Fault], sidecar: &Sidecar) -> Self {
        faults.iter().find(|fault| fault.is_of(sidecar)).map(|fault| fault.traffic).unwrap_or_default()
    }
}
