//! The Istio add-on of Azure Kubernetes Service, as Azure Resource Manager (ARM) shows it.
//!
//! Only what its answers mean: the shapes of JSON, the body of the one write, and what errors say. Nothing here speaks to
//! anybody; the client is in the controller.
//!
//! Shapes and fields: `azure-mgmt-containerservice` 41 and the examples of Azure/azure-rest-api-specs
//! (`Microsoft.ContainerService/aks/stable`). Behaviour: MicrosoftDocs/azure-aks-docs, `istio-*.md`.

pub mod body;
pub mod cluster;
pub mod gateways;
pub mod id;
mod json;
pub mod offers;
pub mod operation;
pub mod problem;
pub mod revision;
pub mod seen;
pub mod symptom;
pub mod words;

/// Where the add-on has its control planes. Source: `istio-deploy-addon.md` of Azure's documentation.
pub const ISTIO_NAMESPACE: &str = "aks-istio-system";
/// Where the add-on has its ingress gateways. Source: `istio-deploy-ingress.md` of Azure's documentation.
pub const INGRESS_NAMESPACE: &str = "aks-istio-ingress";
/// Where the add-on has egress gateways that name no other namespace. Source: `istio-deploy-egress.md` of Azure's documentation.
pub const EGRESS_NAMESPACE: &str = "aks-istio-egress";
