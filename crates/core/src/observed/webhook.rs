//! What makes new pods members of the mesh: Istio's injectors and revision tags, and the Services behind them.

use jiff::Timestamp;

use super::{FieldManager, Labels, Owner, PreviousLabels};
use crate::ids::{NamespaceName, Revision, ServiceRef};
use crate::selector::LabelSelector;

/// A `MutatingWebhookConfiguration` that has entries of Istio's sidecar injector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// Name of the object.
    pub name: String,
    /// Label `istio.io/rev`: the revision whose istiod answers.
    pub revision: Option<Revision>,
    /// Label `istio.io/tag`: set when this is a revision tag and not the revision's own injector.
    pub tag: Option<String>,
    /// The entries whose name ends in `istio.io`.
    pub entries: Vec<WebhookEntry>,
    /// Its resource version: the precondition of moving a tag.
    pub resource_version: String,
    /// What the tag said before its first move (annotation [`crate::labels::PREVIOUS_LABELS`]).
    pub previous: Option<PreviousLabels>,
    /// The stamp of the last move (annotation [`crate::labels::RELABELLED_BY`]).
    pub relabelled_by: Option<String>,
    /// Its field managers: who wrote it, by `managedFields`.
    pub managers: Vec<FieldManager>,
    /// The object that it belongs to, for example an `IstioRevisionTag` of the Sail operator.
    pub owner: Option<Owner>,
}

impl WebhookConfiguration {
    /// The last write of anybody who owns the label that names its revision: a tag was not moved later. Whole seconds, rounded down.
    pub fn revision_written(&self) -> Option<Timestamp> {
        self.managers.iter().filter(|entry| entry.owns_revision).filter_map(|entry| entry.wrote_at).max()
    }

    /// Where all of its entries point, if that is one place.
    pub fn client(&self) -> Option<&ClientConfig> {
        let (first, rest) = self.entries.split_first()?;
        rest.iter().all(|entry| entry.client.is_same_place(&first.client)).then_some(&first.client)
    }
}

/// One webhook of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookEntry {
    /// Name, for example `rev.namespace.sidecar-injector.istio.io`.
    pub name: String,
    /// Which namespaces it applies to.
    pub namespace_selector: LabelSelector,
    /// Which pods it applies to.
    pub object_selector: LabelSelector,
    /// Where it points.
    pub client: ClientConfig,
    /// Whether a failing call refuses the pod (`failurePolicy: Fail`) instead of letting it in without a sidecar.
    pub fails_closed: bool,
}

/// Where a webhook points (`clientConfig`): a Service or a URL, and who signs its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// The Service, if it is one of this cluster.
    pub service: Option<ServiceReference>,
    /// The URL otherwise.
    pub url: Option<String>,
    /// The PEM bundle that signs the server's certificate; empty until istiod wrote it.
    pub ca_bundle: String,
}

impl ClientConfig {
    /// Whether both lead to the same server. Who signs its certificate is istiod's business, which writes it anew.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.service == other.service && self.url == other.url
    }
}

/// The Service that a webhook points at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceReference {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// The path of the URL, if one is set.
    pub path: Option<String>,
    /// The port, 443 if none is set.
    pub port: Option<i32>,
}

/// A Service of istiod in the Istio namespace: that of a revision, or of a revision tag (Istio 1.28 and later), which names the
/// revision that the tag points at and selects the pods of its istiod.
/// Source: manifests/charts/istio-control/istio-discovery/templates/{service,revision-tags-svc}.yaml of Istio.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstiodService {
    /// Which one.
    pub reference: ServiceRef,
    /// Label `istio.io/rev`.
    pub revision: Option<Revision>,
    /// Label `istio.io/tag`: set when it is a revision tag's.
    pub tag: Option<String>,
    /// The pods that it leads to (`spec.selector`).
    pub selector: Labels,
    /// Its resource version: the precondition of moving a tag's.
    pub resource_version: String,
    /// The stamp of the last move (annotation [`crate::labels::RELABELLED_BY`]).
    pub relabelled_by: Option<String>,
    /// Its field managers: who wrote it, by `managedFields`.
    pub managers: Vec<FieldManager>,
    /// The object that it belongs to.
    pub owner: Option<Owner>,
}
