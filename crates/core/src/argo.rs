//! Rollouts of Argo Rollouts: how they are restarted, and how far they are.
//!
//! Their controller does not replace pods because an annotation of the template changes: it would begin a canary or
//! blue-green update. It evicts the pods that were created before `spec.restartAt`, so that budgets hold by themselves, and
//! lets the same ReplicaSets make them again. Source: rollout/restart.go and docs/features/restart.md of argo-rollouts 1.9.

use jiff::{Timestamp, ToSpan as _};

use crate::ids::WorkloadKind;
use crate::observed::{ArgoPhase, ArgoRollout, Pod, Workload};
use crate::record::BatchEntry;
use crate::rollout::Rollout;

/// The `spec.restartAt` of a restart that is decided now; `None` for other kinds.
///
/// Times of objects are whole seconds, rounded down, and only what is older than `restartAt` is evicted: so it is the next
/// full second, also of the clock that the pods were created by. It differs from the last one, which would do nothing.
pub fn restart_at(now: Timestamp, workload: &Workload, pods: &[&Pod]) -> Option<Timestamp> {
    if workload.reference.kind != WorkloadKind::Rollout {
        return None;
    }
    let living = pods.iter().filter(|pod| !pod.finished && pod.deletion.is_none());
    let newest = living.filter_map(|pod| pod.created).max().map_or(now, |newest| newest.max(now));
    let last = workload.argo.as_ref().and_then(|argo| argo.restart_at);
    let next = next_second(newest);
    Some(if last == Some(next) { next_second(next) } else { next })
}

fn next_second(time: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.checked_add(1.second()).unwrap_or(whole)
}

/// Whether a Rollout is to restart at the time of an entry of the batch, or at a later one that somebody else set.
pub fn is_due(argo: &ArgoRollout, entry: &BatchEntry) -> bool {
    entry.restart_at.is_some() && argo.restart_at >= entry.restart_at
}

/// Whether a Rollout reports that it was restarted at the time of an entry, whatever its spec says now.
pub fn was_done(argo: &ArgoRollout, entry: &BatchEntry) -> bool {
    entry.restart_at.is_some() && argo.restarted_at >= entry.restart_at
}

/// Whether a pod came after the last restart of its workload: from the newest stamp, or created after `spec.restartAt`.
pub fn is_newest(pod: &Pod, workload: &Workload) -> bool {
    match &workload.argo {
        Some(argo) => argo.restart_at.is_some() && pod.created >= argo.restart_at,
        None => pod.restart == workload.template.restart,
    }
}

/// Whether a workload was ever restarted: by one of our stamps, or by `spec.restartAt`, whoever set it.
pub fn was_restarted(workload: &Workload) -> bool {
    match &workload.argo {
        Some(argo) => argo.restart_at.is_some(),
        None => workload.template.restart.is_some(),
    }
}

/// Whether a Rollout was restarted since a run began. `spec.restartAt` does not tell who set it.
pub fn restarted_since(workload: &Workload, begin: Option<Timestamp>) -> bool {
    begin.is_some() && workload.argo.as_ref().is_some_and(|argo| argo.restart_at >= begin)
}

/// Whether a Rollout stands still in the middle of its owner's update, with no restart to come: its pods stay as they are
/// until a person promotes it.
pub fn rests(workload: &Workload) -> bool {
    workload.argo.as_ref().is_some_and(|argo| {
        argo.phase == ArgoPhase::Paused
            && argo.restart_at.is_none_or(|wanted| argo.restarted_at == Some(wanted))
            && workload.rollout.observed_generation >= workload.generation
    })
}

/// How far a Rollout is, once its controller has seen the newest generation.
pub fn rollout(workload: &Workload, argo: &ArgoRollout) -> Rollout {
    let status = &workload.rollout;
    let name = &workload.reference;
    let because = |text: &str| match argo.message.as_str() {
        "" => text.to_owned(),
        message => format!("{text} ({message})"),
    };
    match argo.phase {
        ArgoPhase::Degraded => Rollout::Stuck(format!(
            "{}: kubectl argo rollouts get rollout {} -n {}",
            because("it is degraded"),
            name.name,
            name.namespace
        )),
        ArgoPhase::Paused => Rollout::InProgress(format!(
            "{}: kubectl argo rollouts promote {} -n {}",
            because("it is paused"),
            name.name,
            name.namespace
        )),
        ArgoPhase::Progressing => Rollout::InProgress(because("it is not healthy yet")),
        // Between two reports of its controller pods may have gone. Old ones of a blue-green update may stay for a while.
        ArgoPhase::Healthy if status.updated < workload.replicas => {
            Rollout::InProgress(format!("{} of {} pods updated", status.updated, workload.replicas))
        }
        ArgoPhase::Healthy if status.available < workload.replicas => {
            Rollout::InProgress(format!("{} of {} pods available", status.available, workload.replicas))
        }
        ArgoPhase::Healthy => Rollout::Done,
    }
}

#[cfg(test)]
mod tests;
