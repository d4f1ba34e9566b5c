//! One process of the operator: what it knows of the cluster is gone when it ends, and what it was about to send with it.

use std::path::Path;
use std::time::Duration;

use meshupgrade_arm_simulator::{Call, Simulator};
use meshupgrade_controller::arm::{Arm, Config, Options};
use meshupgrade_controller::election::Leadership;
use meshupgrade_controller::managed_clusters::{ManagedClusters, Pace};
use meshupgrade_controller::watch::Poke;
use meshupgrade_core::aks::seen::{ClusterNeed, ClusterSeen, SetRevisions};
use meshupgrade_core::ids::Uid;
use tokio::runtime::{Builder, Runtime};

use crate::clock::Clock;

/// How long a request may take, in seconds.
pub const TIMEOUT_SECONDS: u64 = 1;
/// How often the cluster is read if nothing asks for it.
const POLL: Duration = Duration::from_millis(400);
const SHORTEST: Duration = Duration::from_millis(12);
const AN_HOUR: Duration = Duration::from_hours(1);

/// A process. Dropping it ends all its tasks.
pub struct Process {
    runtime: Option<Runtime>,
    clusters: ManagedClusters,
    uid: Uid,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Process {
    pub fn start(options: &Options, clock: &Clock, uid: &Uid) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        let arm = Arm::new(Config::new(options).unwrap()).unwrap();
        let clock = clock.clone();
        let pace = Pace { poll: POLL, shortest: SHORTEST, clock: std::sync::Arc::new(move || clock.now()) };
        let leadership = Leadership::alone(Duration::from_secs(TIMEOUT_SECONDS), AN_HOUR);
        let clusters = ManagedClusters::new(Ok(arm), pace, Poke::default(), leadership);
        drop(inside);
        Self { runtime: Some(runtime), clusters, uid: uid.clone() }
    }

    pub fn last(&self) -> Option<ClusterSeen> {
        self.clusters.last(&self.uid)
    }

    pub fn want(&self, need: Option<&ClusterNeed>) {
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        self.clusters.want(&self.uid, need);
    }

    pub fn write(&self, change: &SetRevisions) {
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        self.clusters.write(&self.uid, change);
    }
}

/// What an operator is configured with that makes this call: the token of a managed identity is asked for only where that is chosen.
pub fn options(azure: &Simulator, directory: &Path, call: Call) -> Options {
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // Only the shape of an assertion, and whom it is for, is looked at.
    let assertion = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJhcGk6Ly9BenVyZUFEVG9rZW5FeGNoYW5nZSJ9.x";
    Options {
        endpoint: azure.base_url().to_owned(),
        authority_host: azure.base_url().to_owned(),
        ca_file: Some(file("ca.pem", azure.ca_pem())),
        timeout_seconds: TIMEOUT_SECONDS,
        client_id: azure.config().clients.first().cloned(),
        tenant_id: Some(azure.config().tenant.clone()),
        federated_token_file: Some(file("token", assertion)),
        managed_identity: call == Call::IdentityToken,
        managed_identity_host: azure.identity_url().to_owned(),
        ..Options::default()
    }
}
