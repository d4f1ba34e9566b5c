//! The validated request: what a person asked for. Made from the CRD's `spec` by the `api` crate.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::aks::ISTIO_NAMESPACE;
use crate::aks::id::ClusterId;
use crate::analysis::AnalysisIntent;
use crate::ids::{NamespaceName, Revision, Uid};
use crate::observed::IntOrPercent;
use crate::plan::Plan;
use crate::selector::LabelSelector;
use crate::window::Window;

/// A MeshUpgrade, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Name of the object.
    pub name: String,
    /// Its uid: part of every restart stamp.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// Where to go.
    pub target: Revision,
    /// Where from; discovered when it is not set.
    pub source: Option<Revision>,
    /// Free text: another value starts another run of the same pair.
    pub run_id: String,
    /// The managed cluster of Azure whose add-on has the control planes, if we start and remove them.
    pub aks: Option<ClusterId>,
    /// The namespace of the control planes.
    pub istio_namespace: NamespaceName,
    /// What becomes of the shared mesh configuration of a control plane that is gone.
    pub retired_mesh_config: RetiredMeshConfig,
    /// Who writes what decides injection.
    pub injection: InjectionMode,
    /// Namespaces that dropped out of the mesh, because their label leads nowhere any more, are brought to the target.
    pub repairs_dropped: bool,
    /// How long a label must stay before restarts begin, in seconds.
    pub settle_seconds: u32,
    /// The waves in order. Never empty: the default is one wave of everything.
    pub waves: Vec<WaveIntent>,
    /// The revision tags of the frozen plan, while a run is in progress: they and no others move.
    pub frozen_tags: Option<BTreeSet<String>>,
    /// How workloads are restarted.
    pub restart: RestartIntent,
    /// Metrics that waves without their own must satisfy, and all of them at the end.
    pub analysis: AnalysisIntent,
    /// When something new may start; always when there are none.
    pub windows: Vec<Window>,
    /// Hold when no batch is open.
    pub suspend: bool,
    /// Publish the plan, write nothing else.
    pub plan_only: bool,
    /// Rollback was requested.
    pub rollback_requested: bool,
    /// What a failed workload does.
    pub on_failure: OnFailure,
    /// How far a failure turns the run back.
    pub rollback_scope: RollbackScope,
    /// What a rollback does with the target's control plane.
    pub rollback_control_plane: RollbackControlPlane,
    /// How the run ends.
    pub completion: CompletionIntent,
    /// Names of checks to skip.
    pub skip_checks: BTreeSet<String>,
    /// Value of the annotation [`crate::labels::RETRY`].
    pub retry: Option<String>,
    /// Which waves are approved in Git.
    pub approval: Option<ApprovalIntent>,
    /// The annotation [`crate::labels::ACTION`].
    pub action: Option<Action>,
}

impl Intent {
    /// Whether the control planes are those of the AKS add-on, whoever starts and removes them.
    pub fn is_addon(&self) -> bool {
        self.aks.is_some() || self.istio_namespace.as_str() == ISTIO_NAMESPACE
    }

    /// Whether namespaces that dropped out of the mesh are part of the run. Where only tags are moved, no label can be repaired.
    pub fn repairs_labels(&self) -> bool {
        self.repairs_dropped && self.injection != InjectionMode::RevisionTag
    }

    /// Whether a wave moves this revision tag.
    pub fn moves_tag(&self, tag: &str) -> bool {
        self.tags().any(|moved| moved == tag)
    }

    /// The revision tags that waves move.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let declared = self.waves.iter().filter_map(|wave| match &wave.select {
            WaveSelect::Tag(tag) => Some(tag.as_str()),
            WaveSelect::Selector(_) | WaveSelect::Names(_) | WaveSelect::Rest => None,
        });
        let frozen = self.frozen_tags.iter().flatten().map(String::as_str);
        declared.filter(|_| self.frozen_tags.is_none()).chain(frozen)
    }

    /// The request as a run in progress follows it: what moves labels and tags is what its plan says, whatever the spec says by now.
    #[must_use]
    pub fn frozen(&self, plan: &Plan) -> Self {
        let tags = plan.waves.iter().filter_map(|wave| wave.tag.clone());
        Self { injection: plan.injection, frozen_tags: Some(tags.collect()), ..self.clone() }
    }
}

/// Who writes what decides injection. A wave that names a revision tag moves that tag in every mode; the mode is about all other
/// namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InjectionMode {
    /// The operator sets the label of each namespace.
    #[default]
    NamespaceLabel,
    /// The operator moves revision tags; no label of a namespace changes.
    RevisionTag,
    /// Somebody else, such as a GitOps tool, sets labels and moves tags: they are waited for.
    Observe,
}

impl InjectionMode {
    /// Whether it is the one that plans of older versions have.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The mode as the manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NamespaceLabel => "NamespaceLabel",
            Self::RevisionTag => "RevisionTag",
            Self::Observe => "Observe",
        }
    }
}

/// An approval that lives in Git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalIntent {
    /// This wave and all before it may begin.
    pub through_wave: String,
    /// Digest of the plan that was approved: it is void for any other.
    pub plan_digest: String,
}

/// What somebody said by annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The annotation as it is.
    pub value: String,
    /// What it asks for; `None` when that is not known.
    pub verb: Option<Verb>,
}

impl Action {
    /// Reads an annotation of the form `verb/id`.
    pub fn parse(value: &str) -> Self {
        let verb = value
            .split_once('/')
            .and_then(|(verb, _)| Verb::ALL.into_iter().find(|known| known.as_str() == verb));
        Self { value: value.to_owned(), verb }
    }
}

/// What somebody can ask for by annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// The step that waits for a person may begin.
    Approve,
    /// Hold as soon as no batch is open.
    Pause,
    /// Go on after [`Verb::Pause`].
    Resume,
    /// Go back.
    Rollback,
    /// Try once more what is blocked.
    Retry,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 5] = [Self::Approve, Self::Pause, Self::Resume, Self::Rollback, Self::Retry];

    /// The verb as the annotation writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
        }
    }
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveIntent {
    /// Its name.
    pub name: String,
    /// Which namespaces belong to it.
    pub select: WaveSelect,
    /// How many workloads may be in rollout at once.
    pub max_concurrent_workloads: IntOrPercent,
    /// How long to wait after its last workload, in seconds.
    pub soak_seconds: u32,
    /// A person must approve it before it begins.
    pub approval: bool,
    /// Its own metrics, in place of those of all waves.
    pub analysis: Option<AnalysisIntent>,
}

/// Which namespaces a wave takes from the scope. First match wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveSelect {
    /// By label.
    Selector(LabelSelector),
    /// By name.
    Names(BTreeSet<NamespaceName>),
    /// All that follow this revision tag, which the wave moves.
    Tag(String),
    /// Whatever no earlier wave took.
    Rest,
}

/// How workloads are restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartIntent {
    /// How long one workload may take, in seconds.
    pub timeout_seconds: u32,
    /// How long to wait between batches, in seconds. Zero refills a batch as its workloads finish.
    pub pause_seconds: u32,
    /// Whether pod disruption budgets hold back a restart.
    pub respect_budgets: bool,
    /// How long something may be wrong with the pods of a restarted workload that may heal by itself, in seconds.
    pub grace_seconds: u32,
    /// How many failed workloads of a wave do not stop the others.
    pub max_failed_workloads: u32,
    /// What running Jobs mean, whose pods keep their sidecar to the end.
    pub running_jobs: RunningJobs,
    /// How long a wave may be worked on, in seconds; without end if it is not set.
    pub progress_deadline_seconds: Option<u32>,
}

/// What running Jobs mean for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunningJobs {
    /// Completion waits until they end.
    #[default]
    Wait,
    /// They may go on with a sidecar whose control plane is gone.
    Ignore,
    /// The run does not begin while one has a sidecar of the source.
    Block,
}

/// What a failed workload does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Stop, name it, and go on when it is repaired.
    Pause,
    /// Roll everything back.
    Automatic,
}

/// How far a failure turns the run back. Who asks for a rollback asks for all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollbackScope {
    /// Everything goes back, and the run is over.
    #[default]
    All,
    /// The wave in work goes back, and the run waits for a person.
    Wave,
}

/// What a rollback does with the target's control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollbackControlPlane {
    /// It goes, after proof that nothing uses it.
    Remove,
    /// It stays.
    Keep,
}

/// What becomes of the shared mesh configuration of a control plane that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetiredMeshConfig {
    /// It goes if it is a copy of ours that nobody changed.
    RemoveCopy,
    /// It goes, whoever wrote it.
    Remove,
    /// It stays.
    Keep,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionIntent {
    /// Who accepts the end.
    pub mode: CompletionMode,
    /// How long the old control plane stays after the last wave, in seconds.
    pub soak_seconds: u32,
}

/// Who accepts the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionMode {
    /// A person.
    Manual,
    /// The operator, when all checks pass.
    Automatic,
    /// The old control plane stays.
    Keep,
}
