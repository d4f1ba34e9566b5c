//! `spec.controlPlane.aks`: the managed cluster of Azure whose Istio add-on has the control planes.

pub use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_core::aks::id::{ClusterId, InvalidId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FieldError;
use crate::limits;
use crate::spec::RetiredMeshConfig;

/// A managed cluster of Azure, by its names. Nothing secret, and nothing that could lead a request elsewhere: which Azure is asked,
/// and as whom, is the operator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AksSpec {
    /// Id of the subscription.
    #[schemars(length(max = limits::UUID), regex(pattern = limits::UUID_PATTERN))]
    pub subscription_id: String,

    /// Name of the cluster's resource group.
    #[schemars(length(min = 1, max = limits::RESOURCE_GROUP), regex(pattern = limits::RESOURCE_GROUP_PATTERN))]
    pub resource_group: String,

    /// Name of the cluster.
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::CLUSTER_PATTERN))]
    pub cluster_name: String,

    /// What becomes of the ConfigMap `istio-shared-configmap-REVISION` of the revision that went, at the end of the run.
    #[serde(default)]
    pub retired_mesh_config: RetiredMeshConfig,
}

impl AksSpec {
    /// The cluster, or which name is wrong.
    pub fn cluster(&self) -> Result<ClusterId, FieldError> {
        ClusterId::new(&self.subscription_id, &self.resource_group, &self.cluster_name).map_err(|wrong| {
            let (field, message) = match wrong {
                InvalidId::Subscription => {
                    ("subscriptionId", "must be a UUID such as 00000000-0000-0000-0000-000000000000")
                }
                InvalidId::ResourceGroup => (
                    "resourceGroup",
                    "must be 1 to 90 letters, digits, '-', '_', '(', ')' and '.', with no '.' at the end",
                ),
                InvalidId::Cluster => (
                    "clusterName",
                    "must be 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends",
                ),
            };
            FieldError::new(format!("spec.controlPlane.aks.{field}"), message)
        })
    }
}
