//! What one pass saw of the cluster. Filled by the shell, read by [`crate::decide()`]; nothing here is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aks::seen::ClusterSeen;
use crate::census::Census;
use crate::decision::About;
use crate::ids::{GatewayRef, NamespaceName, Revision, Uid, WorkloadRef};
use crate::measure::{Answer, Query};
use crate::mesh_config::SharedMesh;
use crate::selector::LabelSelector;

mod webhook;

pub use webhook::{ClientConfig, IstiodService, ServiceReference, WebhookConfiguration, WebhookEntry};

/// Labels or annotations of an object.
pub type Labels = BTreeMap<String, String>;

/// Everything a decision may look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Istio's mutating webhook configurations: injectors of revisions and of tags.
    pub webhooks: Vec<Arc<WebhookConfiguration>>,
    /// The Services of istiod in the Istio namespace, those of revisions and of revision tags. `None` where no tag is moved, or where they
    /// cannot be read.
    pub istiod_services: Option<Vec<Arc<IstiodService>>>,
    /// Control planes by revision, from the Istio namespace.
    pub control_planes: BTreeMap<Revision, ControlPlane>,
    /// What users of the AKS add-on put beside its mesh configurations, by the revision that it is for.
    pub shared_mesh: BTreeMap<Revision, Arc<SharedMesh>>,
    /// All namespaces.
    pub namespaces: BTreeMap<NamespaceName, Arc<Namespace>>,
    /// All workloads of the kinds that can be restarted.
    pub workloads: BTreeMap<WorkloadRef, Arc<Workload>>,
    /// All Gateways of the Gateway API; empty where the cluster does not know the kind.
    pub gateways: BTreeMap<GatewayRef, Arc<Gateway>>,
    /// Namespaces in which the AKS add-on may have gateways, as the operator was told; others may be in the cluster's profile.
    pub addon_namespaces: BTreeSet<NamespaceName>,
    /// Services of type LoadBalancer in the add-on's own two namespaces of gateways, where the mesh is the add-on's. A namespace that is missing here is unknown, not empty.
    pub gateway_services: BTreeMap<NamespaceName, Vec<Arc<LoadBalancer>>>,
    /// Pods of the namespaces that [`crate::decision::Needs`] named and whose watch is in sync.
    /// A namespace that is missing here is unknown, not empty.
    pub pods: BTreeMap<NamespaceName, Vec<Arc<Pod>>>,
    /// Pod disruption budgets by namespace.
    pub budgets: BTreeMap<NamespaceName, Vec<Arc<DisruptionBudget>>>,
    /// The last cluster-wide count of proxies and references, when one was asked for.
    pub census: Option<Arc<Census>>,
    /// The standing count of proxies, if there is one: no older than its interval, and without anything but pods.
    pub proxies: Option<Arc<Census>>,
    /// Why the last attempt at such a count came to nothing, if it did.
    pub census_problem: Option<String>,
    /// Other MeshUpgrades, each with whether it is in the middle of a run.
    pub other_upgrades: Vec<OtherUpgrade>,
    /// Restart stamps that this process knows to be applied to the workload of this uid, with the `metadata.generation`
    /// that the API server answered.
    pub applied: BTreeMap<(Uid, String), i64>,
    /// Writes that the API server or an admission policy refused a moment ago: what they were about, their stamp, and the
    /// answer.
    pub refused: BTreeMap<(About, String), String>,
    /// The operator's own workload, which is restarted last.
    pub operator: Option<WorkloadRef>,
    /// The last reading of the managed cluster, if one was asked for.
    pub aks: Option<ClusterSeen>,
    /// Answers to the queries of [`crate::decision::Needs::queries`]. One that is missing here is still on its way.
    pub answers: BTreeMap<Query, Answer>,
}

/// What is known of one control plane revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlane {
    /// The istiod Deployment (labels `app=istiod`, `istio.io/rev`).
    pub istiod: Option<Istiod>,
    /// Whether the injector ConfigMap `istio-sidecar-injector[-<rev>]` exists.
    pub injector_config: bool,
    /// The image of the proxies that its injector adds now, if its ConfigMap says so.
    pub proxy_image: Option<String>,
    /// What matters of the mesh ConfigMap `istio[-<rev>]`; `None` when it is missing or unreadable.
    pub mesh_config: Option<MeshConfig>,
}

/// An istiod Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Istiod {
    /// Name of the Deployment.
    pub name: String,
    /// Replicas that are asked for.
    pub desired: u32,
    /// Replicas that are ready.
    pub ready: u32,
}

/// Trust domain of a mesh that names none.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// The parts of a mesh configuration that two revisions must share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshConfig {
    /// `trustDomain`, `cluster.local` when it is not set.
    pub trust_domain: String,
    /// `discoverySelectors` as canonical JSON, empty when there are none.
    pub discovery_selectors: String,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: NamespaceName,
    /// Its uid.
    pub uid: Uid,
    /// Its resource version: the precondition of relabelling.
    pub resource_version: String,
    /// Its labels.
    pub labels: Labels,
    /// The values before the first relabelling (annotation [`crate::labels::PREVIOUS_LABELS`]).
    pub previous: Option<PreviousLabels>,
    /// The stamp of the last relabelling (annotation [`crate::labels::RELABELLED_BY`]).
    pub relabelled_by: Option<String>,
    /// Its field managers: who wrote it, by `managedFields`.
    pub managers: Vec<FieldManager>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl Namespace {
    /// When a field manager last wrote this namespace. Whole seconds, rounded down.
    pub fn last_write(&self, manager: &str) -> Option<Timestamp> {
        self.managers.iter().filter(|entry| entry.name == manager).filter_map(|entry| entry.wrote_at).max()
    }

    /// The last write of anybody who owns one of the two labels that decide injection: later they did not change. Whole
    /// seconds, rounded down.
    pub fn injection_labels_written(&self) -> Option<Timestamp> {
        let owners = self.managers.iter().filter(|entry| entry.owns_revision || entry.owns_injection);
        owners.filter_map(|entry| entry.wrote_at).max()
    }
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Which one.
    pub reference: GatewayRef,
    /// Its uid.
    pub uid: Uid,
    /// Its resource version: the precondition of relabelling.
    pub resource_version: String,
    /// Whether istiod renders proxies for it, as opposed to a waypoint or a class of another controller.
    pub managed: bool,
    /// Its own label `istio.io/rev`.
    pub revision: Option<String>,
    /// The value before the first relabelling (annotation [`crate::labels::PREVIOUS_LABELS`]).
    pub previous: Option<PreviousLabels>,
    /// The stamp of the last relabelling (annotation [`crate::labels::RELABELLED_BY`]).
    pub relabelled_by: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its name.
    pub name: String,
    /// Where it is reached from outside: IP addresses and host names of `status.loadBalancer.ingress`. Empty while it has none.
    pub addresses: BTreeSet<String>,
}

/// An entry of a namespace's `managedFields`, without those of a subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldManager {
    /// Its name, for example `argocd-controller`.
    pub name: String,
    /// Whether it used server-side apply.
    pub applies: bool,
    /// When it last wrote.
    pub wrote_at: Option<Timestamp>,
    /// Whether it owns the label `istio.io/rev`.
    pub owns_revision: bool,
    /// Whether it owns the label `istio-injection`.
    pub owns_injection: bool,
}

/// The memory for rollback: what a namespace said before its first relabelling. Lives in an annotation on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousLabels {
    /// Source revision of the run that wrote it.
    pub from: Revision,
    /// Target revision of the run that wrote it.
    pub to: Revision,
    /// Value of `istio.io/rev` before, if it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Value of `istio-injection` before, if it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<String>,
    /// Who owned the label before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
}

/// A Deployment, StatefulSet, DaemonSet, or Rollout of Argo Rollouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub reference: WorkloadRef,
    /// Its uid.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// The controller that owns it, if another object does.
    pub controller: Option<Owner>,
    /// The field managers that own something of it, the last to write first; without ours and those of `status`.
    pub managers: Vec<String>,
    /// Pods that are asked for (`spec.replicas`; for a DaemonSet `status.desiredNumberScheduled`).
    pub replicas: u32,
    /// How the pods are replaced.
    pub strategy: Strategy,
    /// Deployment: `spec.paused`.
    pub paused: bool,
    /// StatefulSet: pods are handled one after the other (`podManagementPolicy: OrderedReady`).
    pub ordered: bool,
    /// What its controller reports.
    pub rollout: RolloutStatus,
    /// What matters of the pod template.
    pub template: PodTemplate,
    /// Argo Rollout: what only this kind has.
    pub argo: Option<ArgoRollout>,
}

/// What only a Rollout of Argo Rollouts has. Source: pkg/apis/rollouts/v1alpha1/types.go of argo-rollouts 1.9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgoRollout {
    /// `spec.restartAt`: pods that were created before this time are to be replaced. Whole seconds.
    pub restart_at: Option<Timestamp>,
    /// `status.restartedAt`: the last such time that was dealt with.
    pub restarted_at: Option<Timestamp>,
    /// `status.phase`.
    pub phase: ArgoPhase,
    /// `status.message`: why it is in that phase.
    pub message: String,
    /// The object that its pod template is borrowed from (`spec.workloadRef`), if the template there is not known.
    pub template_of: Option<String>,
}

/// `status.phase` of a Rollout of Argo Rollouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArgoPhase {
    /// Fully promoted, and all its pods are there.
    Healthy,
    /// It gets there by itself. Also where nothing is reported yet.
    #[default]
    Progressing,
    /// It waits in the middle of a canary or blue-green update, or was paused by hand.
    Paused,
    /// Aborted, over its deadline, or not valid.
    Degraded,
}

/// How a workload replaces its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Step by step.
    RollingUpdate {
        /// How many may be missing.
        max_unavailable: IntOrPercent,
        /// How many may be added on top.
        max_surge: IntOrPercent,
    },
    /// Deployment: all pods go before the first new one comes.
    Recreate,
    /// StatefulSet, DaemonSet: pods change only when somebody deletes them.
    OnDelete,
    /// StatefulSet: pods below the ordinal keep the old template.
    Partitioned {
        /// `spec.updateStrategy.rollingUpdate.partition`.
        partition: u32,
    },
}

/// A number or a share of a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// So many.
    Int(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl IntOrPercent {
    /// The number, with shares rounded up.
    pub fn of_rounded_up(self, total: u32) -> u32 {
        match self {
            Self::Int(value) => value,
            Self::Percent(percent) => {
                u32::try_from((u64::from(total) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
    }

    /// The number, with shares rounded down.
    pub fn of_rounded_down(self, total: u32) -> u32 {
        match self {
            Self::Int(value) => value,
            Self::Percent(percent) => {
                u32::try_from(u64::from(total) * u64::from(percent) / 100).unwrap_or(u32::MAX)
            }
        }
    }
}

/// `status` of a workload, brought to one form for all kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutStatus {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    /// Pods that exist (not counting terminating ones).
    pub current: u32,
    /// Pods of the newest template.
    pub updated: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that are available (ready for `minReadySeconds`).
    pub available: u32,
    /// Deployment: condition `Progressing` is False with reason `ProgressDeadlineExceeded`.
    pub deadline_exceeded: bool,
    /// Deployment: message of the condition `ReplicaFailure`: pods cannot be created, for example for a quota.
    pub create_failure: Option<String>,
}

/// What matters of a pod template for injection and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTemplate {
    /// Labels of the pods.
    pub labels: Labels,
    /// Annotations of the pods; the shell keeps only those whose key contains `istio.io`.
    pub annotations: Labels,
    /// `spec.hostNetwork`: never injected.
    pub host_network: bool,
    /// The template brings its own `istio-proxy` container (manual injection, or a gateway with `image: auto`).
    pub own_proxy: bool,
    /// Value of [`crate::labels::RESTART`].
    pub restart: Option<String>,
}

/// The controller of an object (`ownerReferences[controller=true]`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Kind, for example `ReplicaSet`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// API group, empty for the core group.
    pub group: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// Its controller.
    pub controller: Option<Owner>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations whose key contains `istio.io`.
    pub annotations: Labels,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// Its proxy, in `containers` or in `initContainers` (native sidecar).
    pub proxy: Option<Proxy>,
    /// Phase Succeeded or Failed: nothing runs any more.
    pub finished: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Condition `Ready`.
    pub ready: bool,
    /// `metadata.deletionTimestamp`: when its grace period ends.
    pub deletion: Option<Timestamp>,
    /// Why it is not ready.
    pub problem: Option<PodProblem>,
    /// The restart stamp of the template it was made from.
    pub restart: Option<String>,
}

/// Why a pod is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodProblem {
    /// Kubernetes' reason where it gives one: of a waiting or terminated container, or of the condition `PodScheduled`. Empty
    /// where something merely starts.
    pub reason: String,
    /// As a person needs it.
    pub message: String,
}

/// A proxy in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// The revision it belongs to (annotation `istio.io/rev`, else `sidecar.istio.io/status`, else discovery address).
    pub revision: Option<Revision>,
    /// Its image.
    pub image: String,
    /// Whether it is a native sidecar (an init container).
    pub native: bool,
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// Its name.
    pub name: String,
    /// Which pods it counts; `None` selects nothing.
    pub selector: Option<LabelSelector>,
    /// `spec.minAvailable`.
    pub min_available: Option<IntOrPercent>,
    /// `spec.maxUnavailable`.
    pub max_unavailable: Option<IntOrPercent>,
    /// Whether `status` speaks of the current spec.
    pub observed: bool,
    /// `status.expectedPods`.
    pub expected_pods: u32,
    /// `status.disruptionsAllowed`.
    pub disruptions_allowed: u32,
}

/// Another MeshUpgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherUpgrade {
    /// Its name.
    pub name: String,
    /// Whether it is in the middle of a run (it wrote and is not over).
    pub active: bool,
    /// Whether it goes before this one when neither has begun: it is older, or of the same age and its uid is smaller.
    pub goes_first: bool,
}
