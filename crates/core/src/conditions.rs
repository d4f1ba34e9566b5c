//! Conditions: one module sets them all, so that `Stalled` and `Reconciling` are never both true.

use std::collections::BTreeMap;

/// Longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1024;

/// The condition types that MeshUpgrade publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The run is over and the target serves every planned namespace.
    Ready,
    /// Work goes on, or waits on purpose.
    Reconciling,
    /// It does not go on until a person does something.
    Stalled,
    /// How the run ended; Unknown while it goes on.
    Succeeded,
    /// All preflight checks passed or were skipped.
    PreflightPassed,
    /// The control plane that pods are moved to is ready.
    ControlPlaneReady,
    /// The run waits on purpose.
    Paused,
    /// Nothing is wrong with what was restarted.
    Healthy,
    /// Every restartable workload of the plan runs on the target.
    DataPlaneMigrated,
    /// Something refers to the source. Only a confirmed False allows its removal.
    OldRevisionInUse,
    /// The rollback is done and proven.
    RolledBack,
}

impl ConditionType {
    /// The type as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Succeeded => "Succeeded",
            Self::PreflightPassed => "PreflightPassed",
            Self::ControlPlaneReady => "ControlPlaneReady",
            Self::Paused => "Paused",
            Self::Healthy => "Healthy",
            Self::DataPlaneMigrated => "DataPlaneMigrated",
            Self::OldRevisionInUse => "OldRevisionInUse",
            Self::RolledBack => "RolledBack",
        }
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

impl ConditionStatus {
    /// The status as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition, without its times: the shell keeps `lastTransitionTime` when the status did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// CamelCase reason.
    pub reason: String,
    /// Words for people.
    pub message: String,
}

/// All conditions of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(BTreeMap<ConditionType, Condition>);

impl Conditions {
    /// Sets one condition. `Stalled=True` removes `Reconciling` and the other way round.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        if status == ConditionStatus::True {
            match kind {
                ConditionType::Stalled => self.remove(ConditionType::Reconciling),
                ConditionType::Reconciling => self.remove(ConditionType::Stalled),
                _ => {}
            }
        }
        let message: String = message.into();
        let condition =
            Condition { status, reason: reason.into(), message: message.chars().take(MAX_MESSAGE).collect() };
        self.0.insert(kind, condition);
    }

    /// Removes one condition.
    pub fn remove(&mut self, kind: ConditionType) {
        self.0.remove(&kind);
    }

    /// One condition.
    pub fn get(&self, kind: ConditionType) -> Option<&Condition> {
        self.0.get(&kind)
    }

    /// Whether a condition is set and true.
    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.get(kind).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// All conditions in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (ConditionType, &Condition)> {
        self.0.iter().map(|(kind, condition)| (*kind, condition))
    }
}
