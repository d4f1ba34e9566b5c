//! Rollouts of Argo Rollouts. Source: pkg/apis/rollouts/v1alpha1/types.go of argo-rollouts 1.9.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::{ArgoPhase, ArgoRollout, IntOrPercent, RolloutStatus, Strategy};
use serde::Deserialize;

use super::{Described, Kind, RawRolling, RawTemplate, rolling};
use crate::slim::{self, Slim, count};

/// A Rollout, as far as it is parsed.
pub type RawRollout = Slim<RolloutSpec, RawRolloutStatus>;

slim::resource!(RawRollout, NamespaceResourceScope, "argoproj.io", "v1alpha1", "Rollout", "rollouts");

/// `spec` of a Rollout.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    replicas: Option<i64>,
    strategy: RolloutStrategy,
    template: Option<RawTemplate>,
    workload_ref: Option<TemplateOwner>,
    restart_at: Option<Time>,
}

/// One of the two, with the fields that a restart looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RolloutStrategy {
    canary: Option<RawRolling>,
    blue_green: Option<RawRolling>,
}

/// The object whose template a Rollout uses in place of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateOwner {
    kind: String,
    name: String,
}

/// `status` of a Rollout.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawRolloutStatus {
    /// A number as text; of versions before 0.10 a hash.
    observed_generation: String,
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    restarted_at: Option<Time>,
    phase: String,
    message: String,
}

impl Kind for RawRollout {
    const KIND: WorkloadKind = WorkloadKind::Rollout;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn describe(self) -> Described {
        let (spec, status) = (self.spec, self.status);
        let rolling_update = spec.strategy.canary.or(spec.strategy.blue_green);
        // A restart makes no pods on top, whatever maxSurge says.
        let strategy = match rolling(rolling_update, IntOrPercent::Percent(25), IntOrPercent::Int(0)) {
            Strategy::RollingUpdate { max_unavailable, .. } => {
                Strategy::RollingUpdate { max_unavailable, max_surge: IntOrPercent::Int(0) }
            }
            other => other,
        };
        let argo = ArgoRollout {
            restart_at: time(spec.restart_at),
            restarted_at: time(status.restarted_at),
            phase: phase(&status.phase),
            message: status.message,
            template_of: spec.workload_ref.as_ref().map(|owner| format!("{} {}", owner.kind, owner.name)),
        };
        let generation = self.metadata.generation.unwrap_or_default();
        Described {
            replicas: count(spec.replicas.unwrap_or(1)),
            strategy,
            // A paused Rollout is in the middle of an update, which is waited for.
            paused: false,
            ordered: false,
            rollout: RolloutStatus {
                observed_generation: observed_generation(&status.observed_generation, generation),
                current: count(status.replicas),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
                available: count(status.available_replicas),
                // Both are part of the phase.
                deadline_exceeded: false,
                create_failure: None,
            },
            template: spec.template.unwrap_or_default(),
            borrowed: spec.workload_ref.and_then(|owner| borrowed_from(owner, &self.metadata)),
            argo: Some(argo),
        }
    }
}

fn time(raw: Option<Time>) -> Option<Timestamp> {
    raw.map(|time| time.0)
}

/// What is neither a number nor empty was written by a version without generations (`isGenerationObserved` in
/// utils/rollout/rolloututil.go): its status counts.
fn observed_generation(text: &str, generation: i64) -> i64 {
    if text.is_empty() { 0 } else { text.parse().unwrap_or(generation) }
}

/// A phase that a later version invents is not the end of an update.
fn phase(text: &str) -> ArgoPhase {
    match text {
        "Healthy" => ArgoPhase::Healthy,
        "Paused" => ArgoPhase::Paused,
        "Degraded" => ArgoPhase::Degraded,
        _ => ArgoPhase::Progressing,
    }
}

/// Deployments are the only kind of template owner that is watched; ReplicaSets and PodTemplates may be one too.
fn borrowed_from(owner: TemplateOwner, metadata: &ObjectMeta) -> Option<WorkloadRef> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    (owner.kind == "Deployment").then(|| WorkloadRef::new(WorkloadKind::Deployment, namespace, owner.name))
}
