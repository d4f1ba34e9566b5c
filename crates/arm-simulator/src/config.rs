//! What a simulator is started with.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::document::default_document;
use crate::lock;
use crate::offers::{Offer, default_offers};

/// The tenant of a default configuration.
const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// The application that may sign in, in a default configuration.
const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
/// The subscription of a default cluster.
const SUBSCRIPTION: &str = "33333333-3333-3333-3333-333333333333";

/// Installs and removes what an accepted change of revisions stands for.
pub trait ControlPlanes: Send + Sync {
    /// Installs istiod and the gateways of this revision. The operation succeeds only after that; with an error, which is
    /// shown as the operation's, it fails.
    fn install<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Removes istiod and the gateways of this revision; errors as for [`ControlPlanes::install`].
    fn remove<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Control planes that are names in a set.
#[derive(Debug, Default)]
pub struct InMemory {
    installed: Mutex<BTreeSet<String>>,
}

impl InMemory {
    /// Control planes of these revisions.
    pub fn with(revisions: &[&str]) -> Arc<Self> {
        let installed = revisions.iter().map(|&revision| revision.to_owned()).collect();
        Arc::new(Self { installed: Mutex::new(installed) })
    }

    /// The revisions that are installed now.
    pub fn installed(&self) -> BTreeSet<String> {
        lock(&self.installed).clone()
    }
}

impl ControlPlanes for InMemory {
    fn install<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>> {
        lock(&self.installed).insert(revision.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn remove<'a>(&'a self, revision: &'a str) -> BoxFuture<'a, Result<(), String>> {
        lock(&self.installed).remove(revision);
        Box::pin(async { Ok(()) })
    }
}

/// One AKS cluster.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Subscription id.
    pub subscription: String,
    /// Resource group.
    pub resource_group: String,
    /// Name of the cluster.
    pub name: String,
    /// The cluster as a GET answers it, without `id`, `name`, `type` and eTags, which the simulator adds.
    pub document: Value,
    /// Installed are the revisions of the document; they are not installed once more at the start.
    pub control_planes: Arc<dyn ControlPlanes>,
}

impl ClusterConfig {
    /// The cluster `mesh-test` in westus2 with Kubernetes 1.33 and these revisions.
    pub fn new(control_planes: Arc<dyn ControlPlanes>, revisions: &[&str]) -> Self {
        Self {
            subscription: SUBSCRIPTION.to_owned(),
            resource_group: "mesh-rg".to_owned(),
            name: "mesh-test".to_owned(),
            document: default_document(revisions),
            control_planes,
        }
    }

    /// The resource id.
    pub fn id(&self) -> String {
        let Self { subscription, resource_group, name, .. } = self;
        format!(
            "/subscriptions/{subscription}/resourceGroups/{resource_group}\
             /providers/Microsoft.ContainerService/managedClusters/{name}"
        )
    }
}

/// Everything a simulator needs to know.
#[derive(Clone)]
pub struct Config {
    /// Port of HTTPS on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Port of the managed-identity endpoint on 127.0.0.1; 0 takes a free one.
    pub identity_port: u16,
    /// Tenant id.
    pub tenant: String,
    /// Client ids that may sign in, also as managed identities. Without a client id, the first one is meant.
    pub clients: Vec<String>,
    /// The clusters.
    pub clusters: Vec<ClusterConfig>,
    /// Revisions of the add-on, in every location that has a cluster.
    pub offers: Vec<Offer>,
    /// How long an operation takes besides installing and removing.
    pub operation_time: Duration,
    /// Seconds of `Retry-After` with an accepted PUT and with a running operation. The recording has no such header,
    /// and a client then waits 30 s.
    pub retry_after: Option<u64>,
    /// How long a token is valid.
    pub token_lifetime: Duration,
}

impl Config {
    /// These clusters with the default offers, operations of 50 ms, and tokens for an hour.
    pub fn new(clusters: Vec<ClusterConfig>) -> Self {
        Self {
            port: 0,
            identity_port: 0,
            tenant: TENANT.to_owned(),
            clients: vec![CLIENT.to_owned()],
            clusters,
            offers: default_offers(),
            operation_time: Duration::from_millis(50),
            retry_after: None,
            token_lifetime: Duration::from_hours(1),
        }
    }
}
