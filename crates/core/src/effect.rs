//! The closed list of writes that a decision may ask for.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::aks::seen::SetRevisions;
use crate::ids::{ConfigMapRef, GatewayRef, NamespaceName, Revision, ServiceRef, Uid, WorkloadRef};
use crate::mesh_config::CopyMark;
use crate::observed::{ClientConfig, PreviousLabels};

/// A write. Each is safe to repeat and carries its precondition and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One JSON merge patch on a namespace, with our field manager.
    Relabel(Relabel),
    /// One server-side apply of our pod-template annotation and nothing else, with our field manager. Forced, because a
    /// manager that applied an empty `annotations: {}` owns the path; no value of anybody is overwritten. For a Rollout of
    /// Argo Rollouts, of `spec.restartAt` and nothing else: forced, because who restarted it last owns it.
    Restart(Restart),
    /// One JSON merge patch on a Gateway of the Gateway API, with our field manager: pins it to a revision, or moves it.
    Gateway(GatewayLabel),
    /// One strategic merge patch on the `MutatingWebhookConfiguration` of a revision tag, with our field manager: where it points, and the
    /// revision that it names, change together or not at all.
    Tag(MoveTag),
    /// One JSON merge patch on the Service of a revision tag, with our field manager: which istiod it leads to.
    TagService(MoveTagService),
    /// One full `PUT` of a managed cluster of Azure that differs from what was read in the list of mesh revisions only.
    SetRevisions(SetRevisions),
    /// One create or delete of a ConfigMap of the AKS add-on's shared mesh configuration. Never a change of one.
    MeshConfig(MeshConfigChange),
}

/// Points a revision tag at another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveTag {
    /// The tag.
    pub tag: String,
    /// Name of its `MutatingWebhookConfiguration`.
    pub webhook: String,
    /// Precondition: its resource version.
    pub resource_version: String,
    /// Names of its entries that change. Their selectors stay.
    pub entries: Vec<String>,
    /// New value of its label `istio.io/rev`, by which istiod finds the tags whose CA it keeps.
    /// Source: pkg/webhooks/webhookpatch.go of Istio.
    pub revision: Revision,
    /// Where the revision's own injector points, with its CA.
    pub client: ClientConfig,
    /// What to do with the annotation that remembers the previous value.
    pub previous: PreviousEdit,
    /// Value of [`crate::labels::RELABELLED_BY`].
    pub stamp: String,
    /// Why.
    pub because: String,
}

/// Leads the Service of a revision tag to the istiod that the tag points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveTagService {
    /// The tag.
    pub tag: String,
    /// Its Service.
    pub service: ServiceRef,
    /// Precondition: its resource version.
    pub resource_version: String,
    /// New value of its label `istio.io/rev`.
    pub revision: Revision,
    /// What changes of its selector; `None` removes a label from it.
    pub selector: BTreeMap<String, Option<String>>,
    /// Value of [`crate::labels::RELABELLED_BY`].
    pub stamp: String,
    /// Why.
    pub because: String,
}

/// Creates or deletes the shared mesh configuration of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfigChange {
    /// Which ConfigMap.
    pub map: ConfigMapRef,
    /// What becomes of it.
    pub edit: MeshConfigEdit,
    /// What tells this write from others.
    pub stamp: String,
    /// Why.
    pub because: String,
}

/// What becomes of a shared mesh configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshConfigEdit {
    /// It comes into being. One that is there already is a conflict and stays as it is.
    Create {
        /// Value of the key [`crate::mesh_config::KEY`].
        text: String,
        /// Value of the annotation [`crate::labels::MESH_CONFIG_COPY`].
        mark: CopyMark,
    },
    /// It goes.
    Delete {
        /// Precondition: its uid.
        uid: Uid,
        /// Precondition: its resource version.
        resource_version: String,
    },
}

/// Sets the label that decides which istiod renders a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLabel {
    /// Which Gateway.
    pub gateway: GatewayRef,
    /// Precondition: its resource version.
    pub resource_version: String,
    /// New value of `istio.io/rev`; `None` removes the label.
    pub revision: Option<Revision>,
    /// What to do with the annotation that remembers the previous value.
    pub previous: PreviousEdit,
    /// Value of [`crate::labels::RELABELLED_BY`].
    pub stamp: String,
    /// The Deployment in the stored batch that the move is for; none when it is no move.
    pub workload: Option<WorkloadRef>,
    /// Why.
    pub because: String,
}

/// Sets the labels that decide injection on a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relabel {
    /// Which namespace.
    pub namespace: NamespaceName,
    /// Precondition: its resource version.
    pub resource_version: String,
    /// New value of `istio.io/rev`; `None` removes the label.
    pub revision: Option<Revision>,
    /// New value of `istio-injection`; `None` removes the label.
    pub injection: Option<String>,
    /// What to do with the annotation that remembers the previous values.
    pub previous: PreviousEdit,
    /// Value of [`crate::labels::RELABELLED_BY`].
    pub stamp: String,
    /// Why.
    pub because: String,
}

/// What a relabelling does with the previous-values annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousEdit {
    /// Write it: the first relabelling of this pair of revisions.
    Set(PreviousLabels),
    /// Leave it as it is: its first value is never overwritten.
    Leave,
    /// Remove it: the namespace is back to what it was.
    Remove,
}

/// Restarts a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Which workload.
    pub workload: WorkloadRef,
    /// Precondition: its uid.
    pub uid: Uid,
    /// Value of [`crate::labels::RESTART`].
    pub stamp: String,
    /// Argo Rollout: value of `spec.restartAt`, as it is in the stored batch.
    pub restart_at: Option<Timestamp>,
    /// Why.
    pub because: String,
}

impl Effect {
    /// Why it is done.
    pub fn because(&self) -> &str {
        match self {
            Self::Relabel(relabel) => &relabel.because,
            Self::Restart(restart) => &restart.because,
            Self::Gateway(label) => &label.because,
            Self::Tag(change) => &change.because,
            Self::TagService(change) => &change.because,
            Self::SetRevisions(change) => &change.because,
            Self::MeshConfig(change) => &change.because,
        }
    }
}
