//! One cluster: its document, its eTag and what is installed.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{ClusterConfig, ControlPlanes};
use crate::journal::revisions_of;
use crate::offers::Offer;
use crate::shared::uuid;

/// The first API version whose clusters have an eTag.
///
/// Source: azure-sdk-for-python, changelog of azure-mgmt-containerservice 34.0.0 (API version 2024-09-01).
const ETAG_SINCE: &str = "2024-09-01";

pub(crate) struct Cluster {
    pub id: String,
    pub subscription: String,
    name: String,
    pub document: Value,
    pub control_planes: Arc<dyn ControlPlanes>,
    /// Control planes that operations installed or found.
    pub installed: Vec<String>,
    /// Counts writes of the document.
    version: u64,
}

impl Cluster {
    pub fn new(config: &ClusterConfig) -> Self {
        Self {
            id: config.id(),
            subscription: config.subscription.clone(),
            name: config.name.clone(),
            document: config.document.clone(),
            control_planes: Arc::clone(&config.control_planes),
            installed: wanted(&config.document),
            version: 1,
        }
    }

    pub fn etag(&self) -> String {
        uuid(&format!("{} {}", self.id, self.version))
    }

    pub fn location(&self) -> String {
        location(self.text("/location"))
    }

    pub fn provisioning_state(&self) -> &str {
        self.text("/properties/provisioningState")
    }

    /// Minor and full version of Kubernetes.
    pub fn kubernetes(&self) -> (String, String) {
        let full = self.text("/properties/currentKubernetesVersion").to_owned();
        let minor = full.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        (minor, full)
    }

    pub fn support_plan(&self) -> &str {
        self.text("/properties/supportPlan")
    }

    pub fn revisions(&self) -> Vec<String> {
        wanted(&self.document)
    }

    fn text(&self, pointer: &str) -> &str {
        self.document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Source: AKS documentation, use-etags: an operation on the cluster changes its eTag and those of its pools.
    /// Inferred: the end of an operation changes them too, because it writes the provisioning state.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.document);
        self.version += 1;
    }

    /// Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml, answer to the PUT: the pools are `Updating` too.
    pub fn set_provisioning_state(document: &mut Value, state: &str) {
        document["properties"]["provisioningState"] = json!(state);
        if let Some(pools) =
            document.pointer_mut("/properties/agentPoolProfiles").and_then(Value::as_array_mut)
        {
            for pool in pools {
                pool["provisioningState"] = json!(state);
            }
        }
    }

    /// As a GET with this API version shows it.
    pub fn shown(&self, api_version: &str, with_etag: bool) -> Value {
        let mut shown = self.document.clone();
        shown["id"] = json!(self.id);
        shown["name"] = json!(self.name);
        shown["type"] = json!("Microsoft.ContainerService/ManagedClusters");
        if with_etag && api_version >= ETAG_SINCE {
            self.add_etags(&mut shown);
        }
        shown
    }

    /// Source: AKS documentation, use-etags: pools have eTags of their own.
    fn add_etags(&self, shown: &mut Value) {
        shown["eTag"] = json!(self.etag());
        if let Some(pools) = shown.pointer_mut("/properties/agentPoolProfiles").and_then(Value::as_array_mut)
        {
            for (index, pool) in pools.iter_mut().enumerate() {
                pool["eTag"] = json!(uuid(&format!("{} {} {index}", self.id, self.version)));
            }
        }
    }

    /// Revisions to which this one can go with the cluster's version.
    ///
    /// Source: AKS troubleshooting, minor revision upgrade, row 3 of the matrix: none are returned if the next revision is
    /// incompatible with the version of the cluster.
    pub fn upgrades(&self, offer: &Offer, offers: &[Offer]) -> Vec<String> {
        let (minor, _) = self.kubernetes();
        let goes = |name: &&String| {
            offers.iter().any(|other| {
                &other.revision == *name && other.supported && other.allows(&minor, self.support_plan())
            })
        };
        offer.upgrades.iter().filter(goes).cloned().collect()
    }
}

/// The revisions that the document asks for: with another mode than Istio none.
fn wanted(document: &Value) -> Vec<String> {
    let mode = document.pointer("/properties/serviceMeshProfile/mode").and_then(Value::as_str);
    if mode.is_some_and(|mode| mode.eq_ignore_ascii_case("Istio")) {
        revisions_of(document)
    } else {
        Vec::new()
    }
}

/// `West US 2` is `westus2`.
pub(crate) fn location(text: &str) -> String {
    text.replace("%20", "").replace(' ', "").to_lowercase()
}
