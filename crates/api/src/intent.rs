//! From a manifest to what the core works with.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use meshupgrade_core::aks::ISTIO_NAMESPACE;
use meshupgrade_core::ids::{NamespaceName, Revision, Uid};
use meshupgrade_core::intent::{self, Intent, WaveIntent, WaveSelect};
use meshupgrade_core::labels::{ACTION, RETRY};
use meshupgrade_core::observed::IntOrPercent;
use meshupgrade_core::selector::{LabelSelector, Operator, Requirement};

use crate::FieldError;
use crate::aks::AksSpec;
use crate::analysis;
use crate::limits;
use crate::restart::{Budgets, RunningJobs};
use crate::spec::{
    CompletionMode, ControlPlaneSpec, DroppedNamespaces, MeshUpgrade, NamespaceSelector, OnFailure,
    RetiredMeshConfig, RollbackControlPlane, RollbackScope, SelectorOperator, WaveApproval, WaveSpec,
};
use crate::window::windows;

/// Name of the one wave of a spec without waves.
pub const DEFAULT_WAVE: &str = "all";

impl MeshUpgrade {
    /// What the manifest asks for, or everything that is wrong with it.
    pub fn intent(&self) -> Result<Intent, Vec<FieldError>> {
        let errors = self.validate();
        if !errors.is_empty() {
            return Err(errors);
        }
        let spec = &self.spec;
        let aks =
            spec.control_plane.aks.as_ref().map(AksSpec::cluster).transpose().map_err(|wrong| vec![wrong])?;
        let istio_namespace = match &spec.control_plane.external {
            Some(external) => external.namespace.clone(),
            None => ISTIO_NAMESPACE.to_owned(),
        };
        Ok(Intent {
            name: self.name_any(),
            uid: Uid(self.metadata.uid.clone().unwrap_or_default()),
            generation: self.metadata.generation.unwrap_or_default(),
            target: Revision(spec.target_revision.clone()),
            source: spec.source_revision.clone().map(Revision),
            run_id: spec.run_id.clone().unwrap_or_default(),
            aks,
            istio_namespace: NamespaceName(istio_namespace),
            retired_mesh_config: retired_mesh_config(&spec.control_plane),
            injection: spec.injection.mode,
            frozen_tags: None,
            repairs_dropped: spec.injection.dropped_namespaces == DroppedNamespaces::Repair,
            settle_seconds: spec.injection.settle_seconds,
            waves: waves(spec.waves.as_deref())?,
            restart: intent::RestartIntent {
                timeout_seconds: spec.restart.timeout_seconds,
                pause_seconds: spec.restart.pause_seconds,
                respect_budgets: spec.restart.budgets == Budgets::Respect,
                grace_seconds: spec.restart.grace_seconds,
                running_jobs: match spec.restart.running_jobs {
                    RunningJobs::Wait => intent::RunningJobs::Wait,
                    RunningJobs::Ignore => intent::RunningJobs::Ignore,
                    RunningJobs::Block => intent::RunningJobs::Block,
                },
                max_failed_workloads: spec.restart.max_failed_workloads,
                progress_deadline_seconds: spec.restart.progress_deadline_seconds,
            },
            analysis: analysis::intent(&spec.analysis),
            windows: windows(spec.windows.as_deref())?,
            suspend: spec.suspend,
            plan_only: spec.plan_only,
            rollback_requested: spec.rollback.requested,
            on_failure: match spec.rollback.on_failure {
                OnFailure::Pause => intent::OnFailure::Pause,
                OnFailure::Automatic => intent::OnFailure::Automatic,
            },
            rollback_scope: match spec.rollback.scope {
                RollbackScope::All => intent::RollbackScope::All,
                RollbackScope::Wave => intent::RollbackScope::Wave,
            },
            rollback_control_plane: match spec.rollback.control_plane {
                RollbackControlPlane::Remove => intent::RollbackControlPlane::Remove,
                RollbackControlPlane::Keep => intent::RollbackControlPlane::Keep,
            },
            completion: intent::CompletionIntent {
                mode: match spec.completion.mode {
                    CompletionMode::Manual => intent::CompletionMode::Manual,
                    CompletionMode::Automatic => intent::CompletionMode::Automatic,
                    CompletionMode::Keep => intent::CompletionMode::Keep,
                },
                soak_seconds: spec.completion.soak_seconds,
            },
            skip_checks: spec.checks.skip.iter().cloned().collect(),
            retry: self.annotations().get(RETRY).cloned(),
            approval: spec.approval.as_ref().map(|approval| intent::ApprovalIntent {
                through_wave: approval.through_wave.clone(),
                plan_digest: approval.plan_digest.clone(),
            }),
            action: self.annotations().get(ACTION).map(|value| intent::Action::parse(value)),
        })
    }
}

fn retired_mesh_config(control_plane: &ControlPlaneSpec) -> intent::RetiredMeshConfig {
    let aks = control_plane.aks.as_ref().map(|aks| aks.retired_mesh_config);
    let external = control_plane.external.as_ref().map(|external| external.retired_mesh_config);
    match aks.or(external).unwrap_or_default() {
        RetiredMeshConfig::RemoveCopy => intent::RetiredMeshConfig::RemoveCopy,
        RetiredMeshConfig::Remove => intent::RetiredMeshConfig::Remove,
        RetiredMeshConfig::Keep => intent::RetiredMeshConfig::Keep,
    }
}

fn waves(waves: Option<&[WaveSpec]>) -> Result<Vec<WaveIntent>, Vec<FieldError>> {
    let Some(waves) = waves else {
        return Ok(vec![WaveIntent {
            name: DEFAULT_WAVE.to_owned(),
            select: WaveSelect::Rest,
            max_concurrent_workloads: IntOrPercent::Int(1),
            soak_seconds: 0,
            approval: false,
            analysis: None,
        }]);
    };
    waves
        .iter()
        .enumerate()
        .map(|(index, wave)| {
            let max_concurrent_workloads =
                int_or_percent(&wave.max_concurrent_workloads).map_err(|message| {
                    vec![FieldError::new(format!("spec.waves[{index}].maxConcurrentWorkloads"), message)]
                })?;
            Ok(WaveIntent {
                name: wave.name.clone(),
                select: select(wave),
                max_concurrent_workloads,
                soak_seconds: wave.soak_seconds,
                approval: wave.approval == WaveApproval::Required,
                analysis: wave.analysis.as_ref().map(analysis::intent),
            })
        })
        .collect()
}

fn select(wave: &WaveSpec) -> WaveSelect {
    match (&wave.namespace_selector, &wave.namespaces, &wave.tag) {
        (Some(selector), ..) => WaveSelect::Selector(selector.into()),
        (None, Some(names), _) => WaveSelect::Names(names.iter().cloned().map(NamespaceName).collect()),
        (None, None, Some(tag)) => WaveSelect::Tag(tag.clone()),
        (None, None, None) => WaveSelect::Rest,
    }
}

/// A number from 1 to 100, or a share from `1%` to `100%`.
pub(crate) fn int_or_percent(value: &IntOrString) -> Result<IntOrPercent, &'static str> {
    let allowed = 1..=limits::CONCURRENT;
    let parsed = match value {
        IntOrString::Int(number) => u32::try_from(*number).ok().map(IntOrPercent::Int),
        IntOrString::String(text) => text
            .strip_suffix('%')
            .filter(|digits| !digits.starts_with(['0', '+']))
            .and_then(|digits| digits.parse().ok())
            .map(IntOrPercent::Percent),
    };
    match parsed {
        Some(IntOrPercent::Int(value) | IntOrPercent::Percent(value)) if !allowed.contains(&value) => None,
        other => other,
    }
    .ok_or("must be a number from 1 to 100, or a share from 1% to 100%")
}

impl From<&NamespaceSelector> for LabelSelector {
    fn from(selector: &NamespaceSelector) -> Self {
        Self {
            match_labels: selector.match_labels.clone().unwrap_or_default(),
            match_expressions: selector
                .match_expressions
                .iter()
                .flatten()
                .map(|term| Requirement {
                    key: term.key.clone(),
                    operator: match term.operator {
                        SelectorOperator::In => Operator::In,
                        SelectorOperator::NotIn => Operator::NotIn,
                        SelectorOperator::Exists => Operator::Exists,
                        SelectorOperator::DoesNotExist => Operator::DoesNotExist,
                    },
                    values: term.values.clone().unwrap_or_default(),
                })
                .collect(),
        }
    }
}
