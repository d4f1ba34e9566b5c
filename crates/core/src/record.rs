//! The durable facts: what cannot be observed again. They live in `status` and are the write-ahead log of a run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::verdict::Verdict;
use crate::ids::{NamespaceName, Revision, Uid, WorkloadRef};
use crate::machine::phase::Phase;
use crate::plan::Plan;

/// Version of the layout of [`Run`].
pub const SCHEMA: u32 = 1;
/// How many references an open batch may hold.
pub const MAX_BATCH: usize = 100;
/// How many finished runs are kept.
pub const MAX_HISTORY: usize = 10;
/// How many measurements are kept.
pub const MAX_SAMPLES: usize = 10;
/// How many namespaces are remembered as being on the target in Git.
pub const MAX_GIT_NAMESPACES: usize = 200;
/// How many Services of gateways have their addresses kept.
pub const MAX_GATEWAY_SERVICES: usize = 20;
/// How many addresses of each are kept: one of each family is usual.
pub const MAX_GATEWAY_ADDRESSES: usize = 8;

/// All that a decision remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The plan: recomputed until the first write of the run, frozen from then on.
    pub plan: Option<Plan>,
    /// The run in progress, or the last one.
    pub run: Option<Run>,
    /// Earlier runs, newest first.
    pub history: Vec<RunSummary>,
    /// The last measurements of the run, newest first.
    pub samples: Vec<Sample>,
}

/// The durable facts of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Version of this layout.
    pub schema: u32,
    /// Number of the run on this object, from 1.
    pub counter: u32,
    /// `spec.runId` when the run began.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run_id: String,
    /// The revision that the run leaves. Empty until the source is known.
    pub source: Revision,
    /// The revision that the run goes to.
    pub target: Revision,
    /// Position in the state machine.
    pub phase: Phase,
    /// When the plan was frozen, just before the first write. From then on source and target cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Index of the wave in work.
    #[serde(default)]
    pub wave: u32,
    /// What is done with that wave.
    #[serde(default)]
    pub step: WaveStep,
    /// Since when the labels that restarts wait for are all in place. Unset again when one of them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_since: Option<Timestamp>,
    /// When the soak of the wave, or of the whole run, or the proof of a rollback began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_since: Option<Timestamp>,
    /// The open batch: workloads that may be patched or are in rollout. Written before their first patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// How many batches were opened.
    #[serde(default)]
    pub batches: u32,
    /// When the last batch was closed: pauses between batches count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_closed_at: Option<Timestamp>,
    /// Workloads of the waves that are done.
    #[serde(default)]
    pub workloads_done: u32,
    /// Why the run turned back, once it did. Never unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Since when the run is held by something that is not the workloads' fault (control plane, label): the time is
    /// added to their timeouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
    /// Attempts of workloads beyond the first, asked for by the retry annotation. Keys are `Kind/namespace/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restart_attempts: BTreeMap<String, u32>,
    /// Since when the wave has stood still, because what is left of it waits for others: a rollout of its owner, a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// Rollback: namespaces whose label leads elsewhere although it was due. Their workloads wait; the others go back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub astray: BTreeSet<NamespaceName>,
    /// Rollback: something was passed over, or its label came back late: the waves are gone through once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub another_round: bool,
    /// Namespaces that may be relabelled once more, because the retry annotation asked for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub relabel_again: BTreeSet<NamespaceName>,
    /// Attempts of namespaces beyond the first, asked for by the retry annotation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_attempts: BTreeMap<NamespaceName, u32>,
    /// Attempts to move revision tags beyond the first, asked for by the retry annotation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tag_attempts: BTreeMap<String, u32>,
    /// The last value of the retry annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_retry: Option<String>,
    /// The last value of the action annotation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_action: Option<String>,
    /// So many waves from the first were approved by annotation.
    #[serde(default)]
    pub approved_waves: u32,
    /// The end was approved by annotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub completion_approved: bool,
    /// Held by annotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How many retries were accepted: the next one has another id.
    #[serde(default)]
    pub retries: u32,
    /// When the first batch of the wave in work was opened: what its metrics were before is measured up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_began: Option<Timestamp>,
    /// How many times a wave went back by itself: what is done after it has other stamps.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turns: u32,
    /// Why the wave in work went back, until a person lets it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<String>,
    /// When a person last let metrics be measured anew: what happened before is not counted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_from: Option<Timestamp>,
    /// A patch upgrade: source and target are one revision, and proxies with another image than the injector's are replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub patch: bool,
    /// How long the wave in work has been worked on, where it has a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The gate of metrics, while one is to be passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Somebody removed the control plane of the source while the waves need it. Not set where Azure is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source_gone: bool,
    /// Since when the control plane of the target is not there any more, in the middle of the run. Not set where Azure is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_gone_since: Option<Timestamp>,
    /// The last change of control planes that may have been sent to the cloud, or that was seen to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudStep>,
    /// That change was seen to be done, by whomever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cloud_done: bool,
    /// When the removal of the source was due first: the count that it rests on is newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal_due: Option<Timestamp>,
    /// Since when no request to complete is sent any more, because a rollback is asked for while the last one may be on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_held_since: Option<Timestamp>,
    /// How often that change was sent in vain: the longer the pause before it is sent again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cloud_failures: u32,
    /// When the last failure was counted, or a person asked for another attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_failed_at: Option<Timestamp>,
    /// AKS: the addresses of the gateways' Services from before the target's control plane was there, or as a person accepted them
    /// since. Keys are `namespace/name`; at most [`MAX_GATEWAY_SERVICES`], each with at most [`MAX_GATEWAY_ADDRESSES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateway_addresses: BTreeMap<String, BTreeSet<String>>,
    /// Namespaces whose label Git had on the target when the rollback set it back, and the field manager that deploys from there: until a
    /// sync of that shows that Git has the source again, the next one could put the target back. The first [`MAX_GIT_NAMESPACES`] of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub git_on_target: BTreeMap<NamespaceName, String>,
    /// After the end: the shared mesh configuration of the control plane that is gone was looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mesh_config_settled: bool,
}

/// A change of the control planes that a cloud provider makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CloudStep {
    /// The target's is added beside the source's.
    Start,
    /// The source's is removed. From here on there is no way back.
    Complete,
    /// The target's is removed.
    Rollback,
}

impl CloudStep {
    /// The step as messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "the start of the target's control plane",
            Self::Complete => "the removal of the source's control plane",
            Self::Rollback => "the removal of the target's control plane",
        }
    }

    /// The step as stamps name it.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Complete => "complete",
            Self::Rollback => "rollback",
        }
    }

    /// The reason of the event when it is asked for.
    pub fn event(self) -> &'static str {
        match self {
            Self::Start => "ControlPlaneStartRequested",
            Self::Complete => "ControlPlaneCompletionRequested",
            Self::Rollback => "ControlPlaneRollbackRequested",
        }
    }
}

/// How long a wave has been worked on. Time in which it waits for people or for a window does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Since when, moved on by the time that does not count.
    pub since: Timestamp,
    /// When it was last seen to be worked on, now and then.
    pub seen_at: Timestamp,
    /// Since when it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    /// The deadline is over: nothing new starts without a retry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exceeded: bool,
}

/// Metrics that must pass before the run goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// When the restarts that are judged were over. Windows begin here.
    pub since: Timestamp,
    /// Just before these restarts. The window that values are compared with ends here.
    pub baseline_at: Timestamp,
    /// From when on things are counted that happen while pods come up: the same, or the last retry.
    pub counted_from: Timestamp,
    /// The workloads of the batch that is judged; empty for a soak, which judges the whole wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadRef>,
    /// What was measured so far, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tallies: BTreeMap<String, Tally>,
}

/// How the measurements of a metric came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// How many there were.
    #[serde(default)]
    pub taken: u32,
    /// How many counted.
    #[serde(default)]
    pub concluded: u32,
    /// How many of these failed.
    #[serde(default)]
    pub failed: u32,
    /// How many of the last ones in a row were errors of the source.
    #[serde(default)]
    pub errors: u32,
    /// How many of the last ones in a row were inconclusive.
    #[serde(default)]
    pub inconclusive: u32,
    /// How many of the last ones in a row had no data.
    #[serde(default)]
    pub without_data: u32,
    /// The moment of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// The last one in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A measurement that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Name of the metric.
    pub metric: String,
    /// Name of the wave; empty for the soak before the old control plane goes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wave: String,
    /// The moment that it is about.
    pub at: Timestamp,
    /// How it came out.
    pub verdict: Verdict,
    /// The value that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The query as it was asked.
    pub query: String,
    /// It has no effect on the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What is done with the wave in work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaveStep {
    /// Labels are set.
    #[default]
    Relabel,
    /// Labels are in place and must stay for the settle time.
    Settle,
    /// Workloads are restarted, batch by batch.
    Restart,
    /// Everything of the wave runs on the new revision; rollback: everything is back, proof is due.
    Proven,
}

/// Workloads that are being restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Number of the batch in the run, from 1.
    pub number: u32,
    /// The workloads, at most [`MAX_BATCH`].
    pub entries: Vec<BatchEntry>,
    /// When it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// Those of its workloads that are through, where metrics judge it as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<WorkloadRef>,
}

/// One workload of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchEntry {
    /// Which workload.
    #[serde(flatten)]
    pub workload: WorkloadRef,
    /// Its uid: a recreated workload of the same name is another one.
    pub uid: Uid,
    /// When it entered the batch: its timeout counts from here.
    pub since: Timestamp,
    /// It failed: it ran into its timeout, or something is wrong that does not heal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// Since when something is wrong with its pods that may heal by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub troubled_since: Option<Timestamp>,
    /// Argo Rollout: the `spec.restartAt` of this attempt, in whole seconds. Stored before it is written, so that writing it
    /// twice restarts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<Timestamp>,
}

/// Why and when a run turned back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// What caused it.
    pub cause: RollbackCause,
    /// The cause in words.
    pub message: String,
    /// When.
    pub since: Timestamp,
    /// Index of the last wave that had begun: rollback goes from here to the first.
    pub from_wave: u32,
    /// Only that wave goes back; then the run goes on with it when a person asks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wave_only: bool,
    /// The waves were gone through once more for pods that had lost their sidecar.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looked_for_dropped: bool,
}

impl Rollback {
    /// Index of the last wave that goes back.
    pub fn to_wave(&self) -> u32 {
        if self.wave_only { self.from_wave } else { 0 }
    }
}

/// What caused a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackCause {
    /// `spec.rollback.requested`.
    Requested,
    /// `spec.targetRevision` was set back to the source.
    TargetReverted,
    /// A workload failed and `spec.rollback.onFailure` is `Automatic`.
    WorkloadFailed,
    /// A wave ran into its progress deadline and `spec.rollback.onFailure` is `Automatic`.
    ProgressDeadlineExceeded,
    /// A metric failed and `spec.rollback.onFailure` is `Automatic`.
    AnalysisFailed,
    /// Somebody else removed the target's control plane.
    TargetRemoved,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Number of the run.
    pub counter: u32,
    /// `spec.runId` of the run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run_id: String,
    /// Where it came from.
    pub source: Revision,
    /// Where it went.
    pub target: Revision,
    /// How it ended.
    pub result: Phase,
    /// When it wrote first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From source to target.
    Forward,
    /// From target to source.
    Back,
}

impl Run {
    /// Which way the run goes now.
    pub fn direction(&self) -> Direction {
        if self.rollback.is_some() { Direction::Back } else { Direction::Forward }
    }

    /// The revision that workloads should have at the end of the direction the run takes now.
    pub fn destination(&self) -> &Revision {
        match self.direction() {
            Direction::Forward => &self.target,
            Direction::Back => &self.source,
        }
    }

    /// The revision that the run leaves in the direction it takes now.
    pub fn origin(&self) -> &Revision {
        match self.direction() {
            Direction::Forward => &self.source,
            Direction::Back => &self.target,
        }
    }

    /// The stamp of a write: a constant of object, run, direction and attempt, so that writing it twice acts once.
    pub fn stamp(&self, uid: &Uid, attempt: u32) -> String {
        let direction = match self.direction() {
            Direction::Forward => "forward",
            Direction::Back => "back",
        };
        let turn = if self.turns == 0 { String::new() } else { format!("-{}", self.turns + 1) };
        format!("{uid}.{}.{direction}{turn}.{attempt}", self.counter)
    }

    /// What all stamps of this run begin with, in both directions.
    pub fn stamp_prefix(&self, uid: &Uid) -> String {
        format!("{uid}.{}.", self.counter)
    }

    /// The restart stamp of a workload.
    pub fn restart_stamp(&self, uid: &Uid, workload: &WorkloadRef) -> String {
        self.stamp(uid, self.restart_attempts.get(&attempt_key(workload)).copied().unwrap_or(1))
    }

    /// The stamp of the last write to a namespace, which puts back what had to stay away until the rollback was proven.
    pub fn restored_stamp(&self, uid: &Uid) -> String {
        format!("{uid}.{}.back.restored", self.counter)
    }

    /// The relabel stamp of a namespace.
    pub fn relabel_stamp(&self, uid: &Uid, namespace: &NamespaceName) -> String {
        self.stamp(uid, self.label_attempts.get(namespace).copied().unwrap_or(1))
    }
}

/// Key of a workload in [`Run::restart_attempts`].
pub fn attempt_key(workload: &WorkloadRef) -> String {
    format!("{}/{}/{}", workload.kind, workload.namespace, workload.name)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
