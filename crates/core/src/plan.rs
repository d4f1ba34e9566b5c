//! The plan: which namespaces move in which wave, what will not be restarted and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{NamespaceName, WorkloadRef};
use crate::intent::InjectionMode;

/// How many exceptions a plan lists; the rest is only counted.
pub const MAX_EXCEPTIONS: usize = 50;

/// What a run will do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The waves in order. Stragglers and gateways are appended behind those of the spec.
    pub waves: Vec<PlannedWave>,
    /// Who writes what decides injection.
    #[serde(default, skip_serializing_if = "InjectionMode::is_default")]
    pub injection: InjectionMode,
    /// Restartable workloads in all waves.
    pub workloads: u32,
    /// Workloads and pods with a sidecar that will not be restarted, at most [`MAX_EXCEPTIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_restarted: Vec<NotRestarted>,
    /// How many such workloads and pods there are.
    #[serde(default)]
    pub not_restarted_count: u32,
    /// Namespaces of a mesh that stay as they are, at most [`MAX_EXCEPTIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftNamespace>,
    /// How many such namespaces there are.
    #[serde(default)]
    pub left_count: u32,
}

/// One wave of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWave {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    #[serde(default)]
    pub kind: WaveKind,
    /// Its namespaces. A wave of gateways relabels nothing: its namespaces moved before.
    pub namespaces: Vec<NamespaceName>,
    /// Its restartable workloads when the plan was made.
    pub workloads: u32,
    /// How many of them may be in rollout at once.
    pub max_concurrent: u32,
    /// Its soak time in seconds.
    #[serde(default)]
    pub soak_seconds: u32,
    /// A person must approve it before it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
    /// The revision tag that it moves, in place of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// That tag led to the source when the plan was made, or the run had moved it before: it is taken back in a rollback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tag_moves: bool,
}

/// Where a wave comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaveKind {
    /// From the spec.
    #[default]
    Declared,
    /// Namespaces that came to the source after the plan was frozen.
    Stragglers,
    /// Injected gateway Deployments (and the operator's own workload), restarted last.
    Gateways,
}

/// Something with a sidecar that will not be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotRestarted {
    /// Its kind, for example `StatefulSet` or `Pod`.
    pub kind: String,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: String,
    /// CamelCase reason.
    pub reason: String,
    /// Why, and what a person does about it.
    pub message: String,
}

/// A namespace of a mesh that stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftNamespace {
    /// Its name.
    pub namespace: NamespaceName,
    /// CamelCase reason.
    pub reason: String,
    /// Why.
    pub message: String,
}

/// Why a workload will not be restarted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unrestartable {
    /// Which workload.
    pub workload: WorkloadRef,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Why, and what a person does about it.
    pub message: String,
}
