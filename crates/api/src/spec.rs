//! `spec`: what a person asks for. Every default is the safe choice.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use meshupgrade_core::intent::InjectionMode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::aks::AksSpec;
use crate::analysis::AnalysisSpec;
use crate::limits;
use crate::restart::RestartSpec;
use crate::rules::{self, validations};
use crate::status::MeshUpgradeStatus;

/// One upgrade of an Istio mesh from one control plane revision to another, in waves of namespaces.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "meshupgrade.io",
    version = "v1alpha1",
    kind = "MeshUpgrade",
    plural = "meshupgrades",
    shortname = "mup",
    category = "istio-io",
    status = "MeshUpgradeStatus",
    derive = "PartialEq",
    doc = "MeshUpgrade moves an Istio mesh from one control plane revision to another, in waves of namespaces: relabel, restart, prove, then complete or roll back.",
    annotation("kustomize.toolkit.fluxcd.io/substitute", "disabled")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::APPROVED_WAVE, rules::TAG_MODE])))]
pub struct MeshUpgradeSpec {
    /// Revision to go to, for example `asm-1-28`. It cannot change while a run is in progress, with one exception:
    /// set back to the run's source it rolls back. Changing it after the run starts the next one.
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub target_revision: String,

    /// Revision to leave. Discovered when it is not set; when several are in use, name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub source_revision: Option<String>,

    /// Free text. Another value starts another run between the same revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::NAME))]
    pub run_id: Option<String>,

    /// Who installs and removes the control planes. Exactly one of its fields is set.
    pub control_plane: ControlPlaneSpec,

    /// How namespaces choose their revision.
    #[serde(default)]
    pub injection: InjectionSpec,

    /// The order in which namespaces move. The first wave that matches a namespace takes it; only the last may have
    /// neither selector nor names nor tag, and takes the rest. Left out: one wave of everything. Waves only order what already
    /// belongs to the source revision; they never bring a namespace into the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = limits::WAVES),
        extend("x-kubernetes-list-type" = "atomic"),
        extend("x-kubernetes-validations" = validations(&[rules::WAVE_NAMES, rules::WAVE_TAGS, rules::WAVE_REST]))
    )]
    pub waves: Option<Vec<WaveSpec>>,

    /// How workloads are restarted.
    #[serde(default)]
    pub restart: RestartSpec,

    /// Metrics that must pass after each batch and while a wave soaks, for waves without metrics of their own, and while the
    /// old control plane soaks at the end. A metric that fails does what `rollback.onFailure` says.
    #[serde(default)]
    pub analysis: AnalysisSpec,

    /// Maintenance windows: outside of them nothing new starts, and what is started ends. A rollback does not wait for
    /// them. Left out: something may start at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::WINDOWS), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Option<Vec<WindowSpec>>,

    /// Approval of waves that ask for it (`approval: Required`), as a commit. Void as soon as the plan is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalSpec>,

    /// Hold as soon as no batch is open. Running restarts end; nothing new starts.
    #[serde(default)]
    pub suspend: bool,

    /// Compute and publish the plan, and write nothing else.
    #[serde(default)]
    pub plan_only: bool,

    /// The way back.
    #[serde(default)]
    pub rollback: RollbackSpec,

    /// How a run ends.
    #[serde(default)]
    pub completion: CompletionSpec,

    /// Named checks.
    #[serde(default)]
    pub checks: ChecksSpec,
}

/// Who installs and removes the control planes. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::CONTROL_PLANE])))]
pub struct ControlPlaneSpec {
    /// The Istio add-on of a managed cluster of Azure, which the operator itself upgrades: it adds the target's control plane, and
    /// removes the one that has to go. The operator's identity needs the right to write the whole cluster
    /// (`Microsoft.ContainerService/managedClusters/write`); who does not want that uses `external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aks: Option<AksSpec>,

    /// Somebody else installs and removes them, for example Helm, Argo CD, Flux, the Sail operator, `az` or Terraform. The run waits for
    /// the target's control plane, and says at the end which one has to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSpec>,
}

/// Control planes that somebody else installs and removes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSpec {
    /// Namespace of the istiod Deployments.
    #[serde(default = "istio_namespace")]
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub namespace: String,

    /// In `aks-istio-system`: what becomes of the ConfigMap `istio-shared-configmap-REVISION` of the revision that went, once its control
    /// plane is gone.
    #[serde(default)]
    pub retired_mesh_config: RetiredMeshConfig,
}

/// What becomes of the shared mesh configuration of a revision whose control plane is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetiredMeshConfig {
    /// It is removed if it is a copy that the operator made and nobody changed.
    #[default]
    RemoveCopy,
    /// It is removed, whoever wrote it.
    Remove,
    /// It stays.
    Keep,
}

fn istio_namespace() -> String {
    "istio-system".to_owned()
}

impl Default for ExternalSpec {
    fn default() -> Self {
        Self { namespace: istio_namespace(), retired_mesh_config: RetiredMeshConfig::default() }
    }
}

/// How namespaces choose their revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InjectionSpec {
    /// `NamespaceLabel`: the operator sets the label `istio.io/rev` of each namespace. `RevisionTag`: every wave names a revision tag
    /// (`tag`), which the operator moves; no label of a namespace changes. `Observe`: somebody else, such as a GitOps tool, sets the
    /// labels or moves the tags; the operator waits for that, and does the rest. A wave with `tag` moves that tag in every mode.
    #[serde(default)]
    pub mode: InjectionMode,

    /// Namespaces that dropped out of the mesh: their label names a revision or a tag that is gone, so that new pods get no sidecar.
    /// `Report`: the check `NamespacesDropped` names them. `Repair`: they are brought to the target, each with its wave.
    #[serde(default)]
    pub dropped_namespaces: DroppedNamespaces,

    /// How long a namespace's label, or a revision tag, must stay in place before restarts begin.
    #[serde(default = "settle_seconds")]
    #[schemars(range(min = 1, max = limits::SETTLE_SECONDS))]
    pub settle_seconds: u32,
}

fn settle_seconds() -> u32 {
    30
}

impl Default for InjectionSpec {
    fn default() -> Self {
        Self {
            mode: InjectionMode::default(),
            dropped_namespaces: DroppedNamespaces::default(),
            settle_seconds: settle_seconds(),
        }
    }
}

/// What becomes of namespaces that dropped out of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DroppedNamespaces {
    /// They are named.
    #[default]
    Report,
    /// They are brought to the target.
    Repair,
}

/// One wave of namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::WAVE_SELECT])))]
pub struct WaveSpec {
    /// Name of the wave, unique in the list. `stragglers` and `gateways` are waves that the operator adds.
    #[schemars(
        length(min = 1, max = limits::NAME),
        regex(pattern = limits::DNS_LABEL),
        extend("x-kubernetes-validations" = validations(&[rules::WAVE_RESERVED]))
    )]
    pub name: String,

    /// Namespaces of the wave, by label. Needs at least one term. Excludes `namespaces` and `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,

    /// Namespaces of the wave, by name. Excludes `namespaceSelector` and `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = limits::NAMESPACES),
        inner(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub namespaces: Option<Vec<String>>,

    /// Namespaces of the wave: those that follow this revision tag. The wave moves the tag, and none of their labels. A tag that Helm,
    /// the Sail operator or a GitOps tool owns is theirs to move, and waited for. Excludes the other two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub tag: Option<String>,

    /// How many workloads of the wave may be in rollout at once: a number from 1 to 100, or a share of the wave's
    /// workloads from `1%` to `100%`, rounded up and never more than 100 workloads.
    #[serde(default = "max_concurrent_workloads")]
    #[schemars(schema_with = "int_or_percent")]
    pub max_concurrent_workloads: IntOrString,

    /// How long the wave is watched after its last workload, before the next wave begins.
    #[serde(default)]
    #[schemars(range(max = limits::SOAK_SECONDS))]
    pub soak_seconds: u32,

    /// `Required`: the wave begins when a person approves it, by `spec.approval` or by the annotation
    /// `meshupgrade.io/action` with a value from `status.actions`.
    #[serde(default)]
    pub approval: WaveApproval,

    /// Metrics of this wave, in place of `spec.analysis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSpec>,
}

/// Whether a wave needs a person's approval before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaveApproval {
    /// It does not.
    #[default]
    NotRequired,
    /// It does.
    Required,
}

/// An approval that lives in Git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// Name of a wave of `spec.waves`: it and all waves before it may begin.
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::DNS_LABEL))]
    pub through_wave: String,

    /// `status.planDigest` of the plan that is approved.
    #[schemars(length(max = limits::DIGEST), regex(pattern = limits::DIGEST_PATTERN))]
    pub plan_digest: String,
}

fn max_concurrent_workloads() -> IntOrString {
    IntOrString::Int(1)
}

fn int_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": limits::CONCURRENT,
        "pattern": limits::PERCENT_PATTERN,
    })
}

/// Selects namespaces by their labels: all terms must hold, and there must be one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::SELECTOR_EMPTY])))]
pub struct NamespaceSelector {
    /// Labels that must have exactly this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "match_labels")]
    pub match_labels: Option<BTreeMap<String, String>>,

    /// Further terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::SELECTOR_TERMS), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<SelectorTerm>>,
}

fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": limits::SELECTOR_TERMS,
        "additionalProperties": {
            "type": "string",
            "maxLength": limits::NAME,
            "pattern": limits::LABEL_VALUE_PATTERN,
        },
    })
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::SELECTOR_VALUES])))]
pub struct SelectorTerm {
    /// Key of the label.
    #[schemars(length(min = 1, max = limits::LABEL_KEY), regex(pattern = limits::LABEL_KEY_PATTERN))]
    pub key: String,

    /// What must hold for it: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: SelectorOperator,

    /// Values of `In` and `NotIn`; the other operators take none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = limits::SELECTOR_VALUES),
        inner(length(max = limits::NAME), regex(pattern = limits::LABEL_VALUE_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub values: Option<Vec<String>>,
}

/// Operator of a selector term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label has one of the values.
    In,
    /// The label is not set, or has none of the values.
    NotIn,
    /// The label is set.
    Exists,
    /// The label is not set.
    DoesNotExist,
}

/// A maintenance window, in the time of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowSpec {
    /// The days on which it opens. Left out: every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Option<Vec<Day>>,

    /// When it opens, for example `22:00`.
    #[schemars(length(max = 5), regex(pattern = limits::TIME_PATTERN))]
    pub start_time: String,

    /// When it closes, for example `05:00`. Not after `startTime` means on the next day; the same time means a whole day.
    #[schemars(length(max = 5), regex(pattern = limits::TIME_PATTERN))]
    pub end_time: String,

    /// IANA time zone of both times, for example `Europe/Berlin`.
    #[schemars(
        length(min = 1, max = limits::TIME_ZONE),
        extend("x-kubernetes-validations" = validations(&[rules::TIME_ZONE]))
    )]
    pub time_zone: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Day {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

/// The way back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackSpec {
    /// Roll back, from any phase before the accepted completion. Once seen it is final for the run: setting it back
    /// to false does not turn the run forward again.
    #[serde(default)]
    pub requested: bool,

    /// What a failed workload does: `Pause` stops and names it, `Automatic` rolls everything back.
    #[serde(default)]
    pub on_failure: OnFailure,

    /// How far `onFailure: Automatic` goes. `All`: everything goes back, and the run is over. `Wave`: the wave in work goes back, and
    /// the run waits until a person asks for a retry, or for the rollback of all.
    #[serde(default)]
    pub scope: RollbackScope,

    /// What happens to the target's control plane after a rollback, once nothing uses it. `Remove`: status says with which
    /// command; whoever installed it removes it. `Keep`: nothing is said.
    #[serde(default)]
    pub control_plane: RollbackControlPlane,
}

/// What a failed workload does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Stop, and name it.
    #[default]
    Pause,
    /// Roll everything back.
    Automatic,
}

/// How far a failure turns the run back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackScope {
    /// Everything goes back, and the run is over.
    #[default]
    All,
    /// The wave in work goes back, and the run waits for a person.
    Wave,
}

/// What happens to the target's control plane after a rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackControlPlane {
    /// It goes, once it is proven that nothing uses it.
    #[default]
    Remove,
    /// It stays.
    Keep,
}

/// How a run ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionSpec {
    /// What happens when all checks have passed. `Manual`: a person is asked (`ApprovalRequired`). `Automatic`: nobody has to be
    /// asked. Either way whoever installed the old control plane removes it, with the command that status shows, and the run
    /// ends when it is gone. `Keep`: the old control plane stays, and the run ends on the checks alone.
    #[serde(default)]
    pub mode: CompletionMode,

    /// How long the old control plane stays after the last wave.
    #[serde(default)]
    #[schemars(range(max = limits::SOAK_SECONDS))]
    pub soak_seconds: u32,
}

/// Who accepts the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CompletionMode {
    /// A person.
    #[default]
    Manual,
    /// The operator, when all checks pass.
    Automatic,
    /// Nobody has to: the old control plane stays.
    Keep,
}

/// Named checks of preflight and completion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChecksSpec {
    /// Checks to skip, by name. They are listed in `status.checks` as skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "check_names")]
    pub skip: Vec<String>,
}

fn check_names(_: &mut SchemaGenerator) -> Schema {
    let names = crate::checks::names();
    json_schema!({
        "type": "array",
        "maxItems": names.len(),
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "enum": names},
    })
}
