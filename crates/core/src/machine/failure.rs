//! What fails a workload, and what a failed workload does to the run.

use crate::argo;
use crate::decision::About;
use crate::gateways;
use crate::intent::OnFailure;
use crate::machine::batch::{Front, old_pods};
use crate::machine::pass::{Pass, about_workload, after, shown};
use crate::machine::workload::{Pods, State, of};
use crate::record::{BatchEntry, Direction, RollbackCause};
use crate::trouble::{Outlook, Trouble, trouble};
use crate::wait::WaitReason;

/// Fails an entry whose time is over, or whose trouble does not heal.
pub(super) fn time_out(
    pass: &mut Pass<'_>,
    front: &Front<'_>,
    pods: &Pods<'_>,
    entry: &mut BatchEntry,
    state: &State,
    room: bool,
) {
    let stamp = pass.restart_stamp(&entry.workload);
    let refused = pass.snapshot.refused.contains_key(&(About::Workload(entry.workload.clone()), stamp));
    // What is not known is nobody's failure, and a pod that its node does not end is not the workload's. A rollback passes it
    // over all the same.
    let forward = pass.run.direction() == Direction::Forward;
    let not_its_fault =
        matches!(state, State::Unknown) || (forward && matches!(state, State::Terminating(_)));
    let refused = refused && pass.run.direction() == Direction::Forward;
    if front.held || pass.run.held_since.is_some() || refused || not_its_fault {
        return;
    }
    let deadline = after(entry.since, pass.intent.restart.timeout_seconds);
    let hopeless = hopeless(pass, entry, pods);
    // In a rollback it is passed over, and one that others were started beside needs room: taking it back in would be one more
    // in rollout than allowed.
    if entry.timed_out && room && pass.retries(&entry.workload) && pass.run.direction() == Direction::Forward
    {
        (entry.since, entry.timed_out, entry.troubled_since) = (pass.now, false, None);
        pass.event(false, "RetryAccepted", about_workload(&entry.workload), "its time counts anew");
        return;
    }
    if !entry.timed_out && deadline > pass.now && hopeless.is_none() {
        pass.wake_at(deadline);
        return;
    }
    let detail = match state {
        State::Rolling(why) | State::NotReady(why) => why.clone(),
        _ => old_pods(of(pods, &entry.workload), pass.wanted()),
    };
    let message = match hopeless {
        Some(why) => format!("{} does not come through its restart: {why}", entry.workload),
        None => format!(
            "{} did not come through its restart in {} s: {detail}",
            entry.workload, pass.intent.restart.timeout_seconds
        ),
    };
    if !entry.timed_out {
        entry.timed_out = true;
        pass.event(true, "WorkloadFailed", about_workload(&entry.workload), message.clone());
    }
    pass.wait(WaitReason::WorkloadFailed, about_workload(&entry.workload), message);
}

/// Why a workload does not come through its restart, whatever time it has left: something is wrong with its new pods that does
/// not heal, or has not healed within the grace. What may still heal is noted.
fn hopeless(pass: &mut Pass<'_>, entry: &mut BatchEntry, pods: &Pods<'_>) -> Option<String> {
    let workload = pass.snapshot.workloads.get(&entry.workload)?;
    let ours = pass.run.stamp_prefix(&pass.intent.uid);
    let restarted = argo::was_restarted(workload) || gateways::was_moved(pass.snapshot, workload, &ours);
    let new =
        of(pods, &entry.workload).iter().copied().filter(|pod| restarted && argo::is_newest(pod, workload));
    let Some(Trouble { outlook, message }) = trouble(workload, new) else {
        entry.troubled_since = None;
        return None;
    };
    let since = *entry.troubled_since.get_or_insert(pass.now);
    let late = after(since, pass.intent.restart.grace_seconds);
    if outlook == Outlook::CannotHeal || late <= pass.now {
        return Some(message);
    }
    // It says more than that the rollout goes on.
    let about = about_workload(&entry.workload);
    pass.waits.retain(|wait| wait.reason != WaitReason::RolloutInProgress || wait.about != about);
    let because = format!("{}: {message}; it has until {} to heal", entry.workload, shown(late));
    pass.wait(WaitReason::RolloutTroubled, about_workload(&entry.workload), because);
    pass.wake_at(late);
    None
}

/// Whether more workloads failed than the user tolerates.
pub(super) fn too_many_failed(pass: &Pass<'_>, entries: &[BatchEntry]) -> bool {
    let failed = entries.iter().filter(|entry| entry.timed_out).count();
    failed > usize::try_from(pass.intent.restart.max_failed_workloads).unwrap_or(usize::MAX)
}

/// Failures that are tolerated hold up nothing while there is something else to do.
pub(super) fn pass_over_failed(pass: &mut Pass<'_>, entries: &[BatchEntry]) {
    let goes_on = entries.iter().any(|entry| !entry.timed_out) && !too_many_failed(pass, entries);
    if pass.run.direction() == Direction::Back || !goes_on {
        return;
    }
    for wait in pass.waits.iter_mut().filter(|wait| wait.reason == WaitReason::WorkloadFailed) {
        wait.reason = WaitReason::WorkloadPassedOver;
    }
}

/// Too many failed workloads turn the run back if the user chose so.
pub(super) fn fails_the_run(pass: &mut Pass<'_>, entries: &[BatchEntry]) -> bool {
    let failed = entries.iter().find(|entry| entry.timed_out).map(|entry| entry.workload.clone());
    let failed = failed.filter(|_| too_many_failed(pass, entries) && pass.can_turn_back());
    match (failed, pass.intent.on_failure) {
        (Some(workload), OnFailure::Automatic) => {
            let message = pass
                .waits
                .iter()
                .find(|wait| wait.reason == WaitReason::WorkloadFailed)
                .map_or_else(|| format!("{workload} failed"), |wait| wait.because.clone());
            pass.turn_back(RollbackCause::WorkloadFailed, message);
            true
        }
        _ => false,
    }
}
