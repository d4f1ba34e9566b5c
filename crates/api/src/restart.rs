//! `spec.restart`: how workloads are restarted, and when one has failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// How workloads are restarted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartSpec {
    /// How long one workload may take to get through its restart before it counts as failed.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = limits::TIMEOUT_SECONDS))]
    pub timeout_seconds: u32,

    /// How long to wait between batches. 0 starts the next workload as soon as one is done.
    #[serde(default)]
    #[schemars(range(max = limits::SOAK_SECONDS))]
    pub pause_seconds: u32,

    /// `Respect`: a workload is restarted only when its pod disruption budgets leave room for what its own rollout
    /// strategy takes away. `Ignore`: the rollout strategy alone decides.
    #[serde(default)]
    pub budgets: Budgets,

    /// How long something may be wrong with the pods of a restarted workload that may heal by itself, before it counts as failed:
    /// a pod that no node has room for, an image that is pulled again, a container that starts over. What cannot heal counts
    /// as failed at once.
    #[serde(default = "grace_seconds")]
    #[schemars(range(max = limits::TIMEOUT_SECONDS))]
    pub grace_seconds: u32,

    /// How many failed workloads of a wave do not stop the others. The wave ends only when these are repaired too.
    #[serde(default)]
    #[schemars(range(max = limits::CONCURRENT))]
    pub max_failed_workloads: u32,

    /// What running Jobs mean, also those of CronJobs, whose pods keep their sidecar to the end. `Wait`: completion waits until they
    /// end. `Ignore`: they may go on when the old control plane is gone. `Block`: the run does not begin while there are any.
    #[serde(default)]
    pub running_jobs: RunningJobs,

    /// How long one wave may be worked on, from its labels to its last workload; its soak does not count, nor does time in which
    /// it waits for people or for a window. Then nothing new is started, or, with `rollback.onFailure: Automatic`, everything
    /// goes back. Left out: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::SOAK_SECONDS))]
    pub progress_deadline_seconds: Option<u32>,
}

/// What running Jobs mean for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunningJobs {
    /// Completion waits until they end.
    #[default]
    Wait,
    /// They may go on when the old control plane is gone.
    Ignore,
    /// The run does not begin while there are any.
    Block,
}

fn grace_seconds() -> u32 {
    300
}

fn timeout_seconds() -> u32 {
    600
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            timeout_seconds: timeout_seconds(),
            pause_seconds: 0,
            budgets: Budgets::default(),
            grace_seconds: grace_seconds(),
            max_failed_workloads: 0,
            running_jobs: RunningJobs::default(),
            progress_deadline_seconds: None,
        }
    }
}

/// Whether pod disruption budgets hold back a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Budgets {
    /// They do.
    #[default]
    Respect,
    /// They do not.
    Ignore,
}
