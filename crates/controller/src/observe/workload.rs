//! Deployments, StatefulSets, DaemonSets and Rollouts of Argo Rollouts in one form; istiod's Deployments on the side.

pub mod argo;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::{NamespaceName, Revision, WorkloadKind, WorkloadRef};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{
    ArgoRollout, IntOrPercent, Istiod, PodTemplate, RolloutStatus, Strategy, Workload,
};
use serde::Deserialize;

use super::Observed;
use super::pod::PROXY_CONTAINER;
pub use argo::RawRollout;

use crate::slim::{self, RawCondition, RawIntOrPercent, Slim, controller_of, count, istio_annotations};

/// How many field managers of a workload are kept.
const MAX_MANAGERS: usize = 3;

/// What a watch of workloads keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSeen {
    /// The workload.
    pub workload: std::sync::Arc<Workload>,
    /// Its revision and state, if it is an istiod.
    pub istiod: Option<(Revision, Istiod)>,
    /// The workload whose pod template it uses in place of its own.
    pub borrowed: Option<WorkloadRef>,
}

impl WorkloadSeen {
    /// The workload with the template of its owner, once that is known.
    pub fn with_template_of(&self, owner: Option<&Self>) -> std::sync::Arc<Workload> {
        let mut workload = std::sync::Arc::clone(&self.workload);
        if let Some(owner) = owner {
            let complete = std::sync::Arc::make_mut(&mut workload);
            complete.template = owner.workload.template.clone();
            if let Some(argo) = &mut complete.argo {
                argo.template_of = None;
            }
        }
        workload
    }
}

/// A Deployment, as far as it is parsed.
pub type RawDeployment = Slim<DeploymentSpec, DeploymentStatus>;
/// A StatefulSet, as far as it is parsed.
pub type RawStatefulSet = Slim<StatefulSetSpec, StatefulSetStatus>;
/// A DaemonSet, as far as it is parsed.
pub type RawDaemonSet = Slim<DaemonSetSpec, DaemonSetStatus>;

slim::resource!(RawDeployment, NamespaceResourceScope, "apps", "v1", "Deployment", "deployments");
slim::resource!(RawStatefulSet, NamespaceResourceScope, "apps", "v1", "StatefulSet", "statefulsets");
slim::resource!(RawDaemonSet, NamespaceResourceScope, "apps", "v1", "DaemonSet", "daemonsets");

/// `spec` of a Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeploymentSpec {
    replicas: Option<i64>,
    paused: bool,
    strategy: RawStrategy,
    template: RawTemplate,
}

/// `status` of a Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    conditions: Vec<RawCondition>,
}

/// `spec` of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    replicas: Option<i64>,
    pod_management_policy: Option<String>,
    update_strategy: RawStrategy,
    template: RawTemplate,
}

/// `status` of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
}

/// `spec` of a DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    update_strategy: RawStrategy,
    template: RawTemplate,
}

/// `status` of a DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    observed_generation: i64,
    desired_number_scheduled: i64,
    current_number_scheduled: i64,
    updated_number_scheduled: i64,
    number_ready: i64,
    number_available: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStrategy {
    #[serde(rename = "type")]
    kind: Option<String>,
    rolling_update: Option<RawRolling>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRolling {
    max_unavailable: Option<RawIntOrPercent>,
    max_surge: Option<RawIntOrPercent>,
    partition: Option<i64>,
}

/// A pod template, as far as it is parsed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawTemplate {
    #[serde(deserialize_with = "slim::slim_metadata")]
    metadata: ObjectMeta,
    spec: RawTemplateSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTemplateSpec {
    host_network: bool,
    /// `null` where Go wrote an empty template, as for a Rollout that borrows one.
    containers: Option<Vec<RawName>>,
    init_containers: Option<Vec<RawName>>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawName {
    name: String,
}

impl From<RawTemplate> for PodTemplate {
    fn from(raw: RawTemplate) -> Self {
        let containers = raw.spec.containers.iter().chain(&raw.spec.init_containers).flatten();
        let annotations = raw.metadata.annotations.as_ref();
        Self {
            annotations: istio_annotations(annotations),
            host_network: raw.spec.host_network,
            own_proxy: containers.into_iter().any(|one| one.name == PROXY_CONTAINER),
            restart: annotations.and_then(|all| all.get(labels::RESTART).cloned()),
            labels: raw.metadata.labels.unwrap_or_default(),
        }
    }
}

/// What differs between the kinds.
trait Kind {
    const KIND: WorkloadKind;
    fn metadata(&self) -> &ObjectMeta;
    fn describe(self) -> Described;
}

struct Described {
    replicas: u32,
    strategy: Strategy,
    paused: bool,
    ordered: bool,
    rollout: RolloutStatus,
    template: RawTemplate,
    borrowed: Option<WorkloadRef>,
    argo: Option<ArgoRollout>,
}

impl Kind for RawDeployment {
    const KIND: WorkloadKind = WorkloadKind::Deployment;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn describe(self) -> Described {
        let status = self.status;
        Described {
            replicas: count(self.spec.replicas.unwrap_or(1)),
            strategy: match self.spec.strategy.kind.as_deref() {
                Some("Recreate") => Strategy::Recreate,
                // The API server fills in the defaults; these are the same.
                _ => rolling(
                    self.spec.strategy.rolling_update,
                    IntOrPercent::Percent(25),
                    IntOrPercent::Percent(25),
                ),
            },
            paused: self.spec.paused,
            ordered: false,
            rollout: RolloutStatus {
                observed_generation: status.observed_generation,
                current: count(status.replicas),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
                available: count(status.available_replicas),
                deadline_exceeded: status.conditions.iter().any(|condition| {
                    condition.kind == "Progressing"
                        && condition.status == "False"
                        && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
                }),
                create_failure: status
                    .conditions
                    .iter()
                    .find(|condition| condition.kind == "ReplicaFailure" && condition.status == "True")
                    .and_then(|condition| condition.message.clone()),
            },
            template: self.spec.template,
            borrowed: None,
            argo: None,
        }
    }
}

impl Kind for RawStatefulSet {
    const KIND: WorkloadKind = WorkloadKind::StatefulSet;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn describe(self) -> Described {
        let status = self.status;
        let partition = self
            .spec
            .update_strategy
            .rolling_update
            .as_ref()
            .map_or(0, |rolling| count(rolling.partition.unwrap_or(0)));
        Described {
            replicas: count(self.spec.replicas.unwrap_or(1)),
            strategy: match self.spec.update_strategy.kind.as_deref() {
                Some("OnDelete") => Strategy::OnDelete,
                _ if partition > 0 => Strategy::Partitioned { partition },
                _ => rolling(
                    self.spec.update_strategy.rolling_update,
                    IntOrPercent::Int(1),
                    IntOrPercent::Int(0),
                ),
            },
            paused: false,
            ordered: self.spec.pod_management_policy.as_deref() != Some("Parallel"),
            rollout: RolloutStatus {
                observed_generation: status.observed_generation,
                current: count(status.replicas),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
                available: count(status.available_replicas),
                deadline_exceeded: false,
                // Only an event would tell.
                create_failure: None,
            },
            template: self.spec.template,
            borrowed: None,
            argo: None,
        }
    }
}

impl Kind for RawDaemonSet {
    const KIND: WorkloadKind = WorkloadKind::DaemonSet;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn describe(self) -> Described {
        let status = self.status;
        Described {
            replicas: count(status.desired_number_scheduled),
            strategy: match self.spec.update_strategy.kind.as_deref() {
                Some("OnDelete") => Strategy::OnDelete,
                _ => rolling(
                    self.spec.update_strategy.rolling_update,
                    IntOrPercent::Int(1),
                    IntOrPercent::Int(0),
                ),
            },
            paused: false,
            ordered: false,
            rollout: RolloutStatus {
                observed_generation: status.observed_generation,
                current: count(status.current_number_scheduled),
                updated: count(status.updated_number_scheduled),
                ready: count(status.number_ready),
                available: count(status.number_available),
                deadline_exceeded: false,
                // Only an event would tell.
                create_failure: None,
            },
            template: self.spec.template,
            borrowed: None,
            argo: None,
        }
    }
}

fn rolling(raw: Option<RawRolling>, max_unavailable: IntOrPercent, max_surge: IntOrPercent) -> Strategy {
    let raw = raw.unwrap_or_default();
    let or = |value: Option<RawIntOrPercent>, default| value.and_then(|raw| raw.value()).unwrap_or(default);
    Strategy::RollingUpdate {
        max_unavailable: or(raw.max_unavailable, max_unavailable),
        max_surge: or(raw.max_surge, max_surge),
    }
}

fn reference(kind: WorkloadKind, metadata: &ObjectMeta) -> WorkloadRef {
    WorkloadRef::new(
        kind,
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn observe<K: Kind>(raw: K) -> WorkloadSeen {
    let metadata = raw.metadata();
    let reference = reference(K::KIND, metadata);
    let uid = metadata.uid.clone().unwrap_or_default();
    let generation = metadata.generation.unwrap_or_default();
    let controller = controller_of(metadata);
    let managers = managers(metadata);
    let revision = istiod_revision(metadata);
    let described = raw.describe();
    let istiod = revision.filter(|_| K::KIND == WorkloadKind::Deployment).map(|revision| {
        let istiod = Istiod {
            name: reference.name.clone(),
            desired: described.replicas,
            ready: described.rollout.ready,
        };
        (revision, istiod)
    });
    let workload = Workload {
        reference,
        uid: uid.into(),
        generation,
        controller,
        managers,
        replicas: described.replicas,
        strategy: described.strategy,
        paused: described.paused,
        ordered: described.ordered,
        rollout: described.rollout,
        template: described.template.into(),
        argo: described.argo,
    };
    WorkloadSeen { workload: workload.into(), istiod, borrowed: described.borrowed }
}

/// Field managers other than ours, each once, the last to write first.
fn managers(metadata: &ObjectMeta) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_ref()) {
        if name != labels::FIELD_MANAGER && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.truncate(MAX_MANAGERS);
    names
}

/// The revision of an istiod: labels `app=istiod` and `istio.io/rev`, and no tag.
fn istiod_revision(metadata: &ObjectMeta) -> Option<Revision> {
    let all = metadata.labels.as_ref()?;
    let istiod = all.get("app").is_some_and(|app| app == "istiod") && !all.contains_key(labels::TAG);
    istiod.then(|| all.get(labels::REVISION).map(|value| Revision(value.clone())))?
}

macro_rules! observed {
    ($($type:ty),*) => {$(
        impl Observed for $type {
            type Key = WorkloadRef;
            type Value = WorkloadSeen;

            fn key(&self) -> WorkloadRef {
                reference(<Self as Kind>::KIND, &self.metadata)
            }

            fn observe(self) -> Option<WorkloadSeen> {
                Some(observe(self))
            }
        }
    )*};
}
observed!(RawDeployment, RawStatefulSet, RawDaemonSet, RawRollout);

/// Where the workloads of a namespace begin in the order of references.
pub fn first_in(namespace: &NamespaceName) -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::Deployment, namespace.clone(), "")
}

#[cfg(test)]
mod tests;
