//! The phases of a run and the only ways between them, as a table.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Seen, nothing looked at yet.
    #[default]
    Pending,
    /// Named checks run; nothing is written.
    Preflight,
    /// The plan is published; nothing is written. With `spec.planOnly` the run stays here.
    Planned,
    /// The target's control plane is waited for.
    StartingControlPlane,
    /// Waves move: labels, settle, restarts, proof.
    Migrating,
    /// A wave is done and is watched for its soak time.
    Soaking,
    /// All waves are done: nothing may refer to the source before it goes.
    Completing,
    /// Everything runs on the target and the source is gone (or kept on purpose).
    Succeeded,
    /// Labels go back, then workloads, then proof.
    RollingBack,
    /// Everything runs on the source again.
    RolledBack,
}

/// What moves a run from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The object was seen.
    Observed,
    /// All preflight checks passed or were skipped.
    PreflightPassed,
    /// A preflight check that had passed fails now.
    PreflightFailed,
    /// The plan is to be carried out.
    PlanAccepted,
    /// The target's control plane is ready and the plan is frozen.
    ControlPlaneReady,
    /// All restartable workloads of the wave run on the target and the wave has a soak time.
    WaveProven,
    /// The wave's soak time is over and another wave follows.
    NextWave,
    /// The last wave is over.
    WavesDone,
    /// Namespaces of the source appeared after the last wave.
    StragglersFound,
    /// Nothing refers to the source, and its control plane is gone or kept on purpose.
    Completed,
    /// Rollback was requested or caused.
    RollbackBegun,
    /// Nothing runs on the target any more.
    RollbackProven,
    /// Nothing of the wave that went back by itself runs on the target any more.
    WaveReturned,
}

/// The table: trigger, where from, where to. Everything else is not a transition.
pub const TRANSITIONS: &[(Trigger, &[Phase], Phase)] = &[
    (Trigger::Observed, &[Phase::Pending], Phase::Preflight),
    (Trigger::PreflightPassed, &[Phase::Preflight], Phase::Planned),
    (Trigger::PreflightFailed, &[Phase::Planned, Phase::StartingControlPlane], Phase::Preflight),
    (Trigger::PlanAccepted, &[Phase::Planned], Phase::StartingControlPlane),
    (Trigger::ControlPlaneReady, &[Phase::StartingControlPlane], Phase::Migrating),
    (Trigger::WaveProven, &[Phase::Migrating], Phase::Soaking),
    (Trigger::NextWave, &[Phase::Migrating, Phase::Soaking], Phase::Migrating),
    (Trigger::WavesDone, &[Phase::Migrating, Phase::Soaking], Phase::Completing),
    (Trigger::StragglersFound, &[Phase::Completing], Phase::Migrating),
    (Trigger::Completed, &[Phase::Completing], Phase::Succeeded),
    (
        Trigger::RollbackBegun,
        &[
            Phase::Pending,
            Phase::Preflight,
            Phase::Planned,
            Phase::StartingControlPlane,
            Phase::Migrating,
            Phase::Soaking,
            Phase::Completing,
            // A wave was going back by itself.
            Phase::RollingBack,
        ],
        Phase::RollingBack,
    ),
    (Trigger::RollbackProven, &[Phase::RollingBack], Phase::RolledBack),
    (Trigger::WaveReturned, &[Phase::RollingBack], Phase::Migrating),
];

impl Trigger {
    /// All triggers.
    pub const ALL: [Self; 13] = [
        Self::Observed,
        Self::PreflightPassed,
        Self::PreflightFailed,
        Self::PlanAccepted,
        Self::ControlPlaneReady,
        Self::WaveProven,
        Self::NextWave,
        Self::WavesDone,
        Self::StragglersFound,
        Self::Completed,
        Self::RollbackBegun,
        Self::RollbackProven,
        Self::WaveReturned,
    ];
}

impl Phase {
    /// All phases, in the order of a run.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Preflight,
        Self::Planned,
        Self::StartingControlPlane,
        Self::Migrating,
        Self::Soaking,
        Self::Completing,
        Self::Succeeded,
        Self::RollingBack,
        Self::RolledBack,
    ];

    /// Where a trigger leads from here; `None` when the table has no such transition.
    pub fn on(self, trigger: Trigger) -> Option<Self> {
        TRANSITIONS
            .iter()
            .find(|(event, from, _)| *event == trigger && from.contains(&self))
            .map(|(_, _, to)| *to)
    }

    /// Whether the run is over.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack)
    }

    /// The phase as status shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preflight => "Preflight",
            Self::Planned => "Planned",
            Self::StartingControlPlane => "StartingControlPlane",
            Self::Migrating => "Migrating",
            Self::Soaking => "Soaking",
            Self::Completing => "Completing",
            Self::Succeeded => "Succeeded",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The table as a Mermaid state diagram.
pub fn diagram() -> String {
    let moves = TRANSITIONS.iter().flat_map(|(trigger, sources, to)| {
        sources.iter().map(move |from| format!("    {from} --> {to}: {trigger:?}\n"))
    });
    let ends =
        Phase::ALL.into_iter().filter(|phase| phase.is_over()).map(|phase| format!("    {phase} --> [*]\n"));
    let lines: String = moves.chain(ends).collect();
    format!("stateDiagram-v2\n    [*] --> Pending\n{lines}")
}
