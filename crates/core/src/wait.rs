//! Reasons to wait. Every wait has one, with words for people and something that ends it.

use std::fmt;

use crate::decision::About;

/// One thing that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    /// Why.
    pub reason: WaitReason,
    /// What it is about, if it is one object.
    pub about: Option<About>,
    /// The cause in words, with the remedy where a person must act.
    pub because: String,
}

macro_rules! wait_reasons {
    ($($(#[$doc:meta])* $name:ident => $needs_human:literal,)*) => {
        /// Why a run waits. The name is the condition reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum WaitReason {
            $($(#[$doc])* $name,)*
        }

        impl WaitReason {
            /// All reasons, for the guide and for coverage reports.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason as a condition shows it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whether it stays until a person (or another controller) does something: shown as `Stalled`.
            pub fn needs_human(self) -> bool {
                match self {
                    $(Self::$name => $needs_human,)*
                }
            }
        }
    };
}

wait_reasons! {
    /// Another MeshUpgrade is in the middle of its run.
    OtherUpgradeActive => false,
    /// A preflight check failed.
    PreflightFailed => true,
    /// The target's control plane does not exist yet.
    RevisionNotFound => false,
    /// Somebody removed the target's control plane in the middle of the run.
    TargetRemoved => true,
    /// An istiod that is needed is not ready.
    IstiodNotReady => false,
    /// An injector webhook that is needed is missing, or has no CA.
    WebhookNotReady => false,
    /// The injector ConfigMap of a revision is missing.
    InjectorConfigMissing => false,
    /// A gateway of the add-on that takes traffic already is not ready.
    GatewayNotReady => false,
    /// The Service of the add-on's gateways has lost an address that it had before the target was started.
    GatewayAddressChanged => true,
    /// What must be known is being read.
    Observing => false,
    /// Labels must stay for the settle time.
    Settling => false,
    /// Somebody put a namespace's label, or a revision tag, back.
    LabelReverted => true,
    /// A label or a revision tag is somebody else's to move, and leads elsewhere.
    LabelNotMoved => true,
    /// The API server or an admission policy refuses a write of ours.
    WriteRefused => true,
    /// Pods are being replaced.
    RolloutInProgress => false,
    /// Something is wrong with the pods of a restarted workload that may heal by itself.
    RolloutTroubled => false,
    /// A workload did not get through its restart; the others of its wave go on.
    WorkloadPassedOver => false,
    /// A workload did not get through its restart.
    WorkloadFailed => true,
    /// A wave failed and went back by itself.
    WaveRolledBack => true,
    /// A wave has been worked on for longer than it may take.
    ProgressDeadlineExceeded => true,
    /// A workload is not ready, or in a rollout of its own that does not end: it is not restarted as it is.
    WorkloadNotReady => true,
    /// Nothing of the wave has moved for as long as a restart may take.
    NoProgress => true,
    /// Somebody took the restart annotation away in the middle of the rollout.
    RestartReverted => true,
    /// A pod disruption budget leaves no room now.
    BudgetExhausted => false,
    /// A pod disruption budget can never be met while the workload is restarted.
    BudgetNeverMet => true,
    /// With the labels as they are, new pods would get no sidecar, or another revision's, or several.
    InjectionUnsafe => true,
    /// The pause between batches.
    BatchPause => false,
    /// The soak time of a wave or of the run.
    Soaking => false,
    /// Metrics are measured.
    Analyzing => false,
    /// A metric failed.
    AnalysisFailed => true,
    /// A metric has a value and nothing to compare it with.
    AnalysisInconclusive => true,
    /// A metric has no data.
    AnalysisNoData => true,
    /// A metric source does not answer, or does not understand its query.
    AnalysisError => true,
    /// A pod on an unreachable node does not go away.
    PodTerminating => true,
    /// An ordered StatefulSet waits for a pod that will not become ready by itself.
    StatefulSetStuck => true,
    /// `spec.suspend` is set.
    Suspended => false,
    /// Somebody paused the run by annotation.
    Paused => false,
    /// No maintenance window is open.
    OutsideWindow => false,
    /// `spec.planOnly` is set.
    PlanOnly => false,
    /// Something still refers to the revision that is to go.
    RevisionInUse => false,
    /// Git would put the revision back that is to go.
    GitStillOnOldRevision => true,
    /// A wave, or completion, waits for a person.
    ApprovalRequired => false,
    /// Whoever installed the old control plane has to remove it now.
    RemovalPending => false,
    /// Azure starts or removes a control plane for this run.
    ControlPlaneOperation => false,
    /// Another operation runs on the managed cluster.
    ClusterBusy => false,
    /// Azure does not answer, or asks for patience.
    AzureUnavailable => false,
    /// Azure does not accept who we are, or a right is missing.
    AzureAccess => true,
    /// Azure refuses a change, or one failed.
    AzureRefused => true,
    /// Somebody else changed the mesh revisions of the managed cluster.
    RevisionsChanged => true,
    /// A newer version of the operator wrote what is stored: this one could misread it, and writes nothing.
    RecordTooNew => true,
    /// A decision would have broken an invariant: nothing was written.
    InvariantViolated => true,
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
