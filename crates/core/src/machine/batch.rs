//! Restarts the workloads of one wave, in either direction. The batch in the record is written before the first patch:
//! whoever comes after a crash finds there what may be in rollout.

use std::collections::BTreeMap;

use crate::decision::About;
use crate::effect::{Effect, Restart};
use crate::ids::{Revision, WorkloadRef};
use crate::intent::OnFailure;
use crate::labels;
use crate::machine::pass::{Pass, about_workload, after, shown};
use crate::machine::workload::{
    Patched, Pods, State, explain, of, only_unready_are_stale, patched, safe_to_restart, state,
    stuck_stateful_set,
};
use crate::observed::{Pod, Workload};
use crate::pods::{by_workload, is_stale};
use crate::record::{Batch, BatchEntry, Direction, RollbackCause, attempt_key};
use crate::rollout::{Rollout, rollout};
use crate::wait::WaitReason;

/// How long after its grace period a pod may stay before it is named, in seconds.
const TERMINATION_MARGIN_SECONDS: u32 = 30;

/// The workloads of the wave in work and how they may be restarted.
pub struct Front<'a> {
    /// The restartable workloads of the wave.
    pub members: Vec<&'a Workload>,
    /// How many may be in rollout at once.
    pub max_concurrent: u32,
    /// Nothing may be patched now: the reason is noted already.
    pub held: bool,
}

/// Moves the front by one step. Says whether all of it is done.
pub fn advance(pass: &mut Pass<'_>, front: &Front<'_>) -> bool {
    let pods = pods_of(pass, front);
    hold_clock(pass, front.held);
    let was_open = pass.run.batch.is_some();
    let entries = pass.run.batch.take().map(|batch| batch.entries).unwrap_or_default();
    let entries = check_entries(pass, front, &pods, entries);
    if pass.run.rollback.is_none() && fails_the_run(pass, &entries) {
        return false;
    }
    if was_open && entries.is_empty() {
        pass.run.batch_closed_at = Some(pass.now);
    }
    let open = entries.len();
    let entries = fill(pass, front, &pods, entries);
    if entries.len() > open {
        pass.run.batches += 1;
    }
    let done = entries.is_empty()
        && front
            .members
            .iter()
            .all(|workload| state(pass, workload, &pods, pass.run.destination()) == State::Done);
    if !entries.is_empty() {
        pass.run.batch = Some(Batch { number: pass.run.batches, entries });
    }
    done
}

/// How many workloads of the front are done.
pub fn done_count(pass: &Pass<'_>, front: &Front<'_>) -> u32 {
    let pods = pods_of(pass, front);
    let done = front
        .members
        .iter()
        .filter(|workload| state(pass, workload, &pods, pass.run.destination()) == State::Done);
    u32::try_from(done.count()).unwrap_or(u32::MAX)
}

fn pods_of<'a>(pass: &Pass<'a>, front: &Front<'_>) -> Pods<'a> {
    let batch =
        pass.run.batch.iter().flat_map(|batch| batch.entries.iter().map(|entry| &entry.workload.namespace));
    let members = front.members.iter().map(|workload| &workload.reference.namespace);
    let snapshot = pass.snapshot;
    members
        .chain(batch)
        .filter_map(|name| snapshot.pods.get_key_value(name))
        .map(|(name, pods)| (name.clone(), pods))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .map(|(name, pods)| (name, by_workload(pods)))
        .collect()
}

/// Time in which nothing could go on for reasons that are not the workloads' is not counted against them.
fn hold_clock(pass: &mut Pass<'_>, held: bool) {
    let Some(batch) = pass.run.batch.as_mut() else {
        pass.run.held_since = None;
        return;
    };
    match (held, pass.run.held_since) {
        (true, None) => pass.run.held_since = Some(pass.now),
        (false, Some(since)) => {
            let held_for = pass.now.duration_since(since);
            for entry in &mut batch.entries {
                entry.since = entry.since.checked_add(held_for).unwrap_or(pass.now).min(pass.now);
            }
            pass.run.held_since = None;
        }
        (true, Some(_)) | (false, None) => {}
    }
}

fn check_entries(
    pass: &mut Pass<'_>,
    front: &Front<'_>,
    pods: &Pods<'_>,
    entries: Vec<BatchEntry>,
) -> Vec<BatchEntry> {
    let mut kept = Vec::new();
    let budgeted: Vec<WorkloadRef> = entries.iter().map(|entry| entry.workload.clone()).collect();
    for mut entry in entries {
        let workload =
            pass.snapshot.workloads.get(&entry.workload).filter(|workload| workload.uid == entry.uid);
        let Some(workload) = workload else {
            pass.event(
                false,
                "WorkloadGone",
                about_workload(&entry.workload),
                "it was deleted while it was being restarted",
            );
            continue;
        };
        let state = state(pass, workload, pods, pass.run.destination());
        if state == State::Done {
            continue;
        }
        if !check_entry(pass, front, pods, &mut entry, workload, &state, &budgeted) {
            continue;
        }
        time_out(pass, front, pods, &mut entry, &state);
        kept.push(entry);
    }
    kept
}

/// Patches an entry, or says what it waits for. Returns whether it stays in the batch.
fn check_entry(
    pass: &mut Pass<'_>,
    front: &Front<'_>,
    pods: &Pods<'_>,
    entry: &mut BatchEntry,
    workload: &Workload,
    state: &State,
    budgeted: &[WorkloadRef],
) -> bool {
    let about = about_workload(&entry.workload);
    match (patched(pass, entry, workload, pods), state) {
        (_, State::Unknown) => {
            pass.wait(WaitReason::Observing, about, format!("reading the pods of {}", entry.workload))
        }
        (Patched::NotYet, State::Stale) => {
            let others: Vec<&WorkloadRef> =
                budgeted.iter().filter(|other| **other != entry.workload).collect();
            if !front.held && safe_to_restart(pass, workload, pods, &others) {
                restart(pass, workload);
            }
        }
        (Patched::InPlace, State::Stale) if !front.held && came_out_wrong(pass, entry, workload, pods) => {
            *pass.run.restart_attempts.entry(attempt_key(&entry.workload)).or_insert(1) += 1;
            entry.since = pass.now;
            let note = "pods were made from its new template while the label led elsewhere: it is restarted once more";
            pass.event(true, if pass.retry { "RetryAccepted" } else { "RestartRepeated" }, about, note);
        }
        (Patched::Stripped, State::Stale) => {
            if pass.retry {
                *pass.run.restart_attempts.entry(attempt_key(&entry.workload)).or_insert(1) += 1;
                entry.since = pass.now;
                pass.event(false, "RetryAccepted", about, "it will be restarted once more");
                return true;
            }
            let owner = who(workload);
            pass.wait(
                WaitReason::RestartReverted,
                about,
                format!(
                    "{owner} put the pod template of {} back in the middle of its restart: let its owner keep the \
                     annotation {}; kubectl annotate meshupgrade {} {}=$(date +%s) --overwrite restarts it once more",
                    entry.workload,
                    labels::RESTART,
                    pass.intent.name,
                    labels::RETRY
                ),
            );
        }
        (_, state) => waiting(pass, entry, workload, state, pods),
    }
    true
}

/// Who may have changed a workload. `managedFields` does not tell who took something away, only who owns the rest.
fn who(workload: &Workload) -> String {
    match &workload.controller {
        Some(owner) => format!("{} {}", owner.kind, owner.name),
        None if workload.managers.is_empty() => "somebody".to_owned(),
        None => format!("somebody (its field managers: {})", workload.managers.join(", ")),
    }
}

/// Whether a pod of our own template is stale: it was made while the label was somewhere else, and no rollout will replace
/// it. Repeated once by itself: pods that come out wrong for another reason must not be restarted for ever.
fn came_out_wrong(pass: &Pass<'_>, entry: &BatchEntry, workload: &Workload, pods: &Pods<'_>) -> bool {
    let repeated = pass.run.restart_attempts.contains_key(&attempt_key(&entry.workload));
    let calm = pass.run.direction() == Direction::Back || rollout(workload) == Rollout::Done;
    if !calm || (repeated && !pass.retry) {
        return false;
    }
    let stamp = pass.run.restart_stamp(&pass.intent.uid, &entry.workload);
    let wrong = |pod: &&Pod| {
        pod.deletion.is_none()
            && pod.restart.as_ref() == Some(&stamp)
            && is_stale(pod, pass.run.destination())
    };
    of(pods, &entry.workload).iter().any(wrong)
}

fn waiting(pass: &mut Pass<'_>, entry: &BatchEntry, workload: &Workload, state: &State, pods: &Pods<'_>) {
    let about = about_workload(&entry.workload);
    let name = &entry.workload;
    if let Some(stuck) = stuck_stateful_set(pass, entry, workload, pods) {
        pass.wait(WaitReason::StatefulSetStuck, about, stuck);
        return;
    }
    match state {
        State::Stale => {
            let why = old_pods(of(pods, name), pass.run.destination());
            pass.wait(WaitReason::RolloutInProgress, about, format!("{name}: {why}"));
        }
        State::Rolling(why) | State::NotReady(why) => {
            pass.wait(WaitReason::RolloutInProgress, about, format!("{name}: {why}"))
        }
        State::Terminating(pod) => terminating(pass, name, pod, pods),
        State::Done | State::Unknown => {}
    }
}

/// How many pods are still to be replaced, and what ails a new one that does not come up.
fn old_pods(pods: &[&Pod], destination: &Revision) -> String {
    let living = pods.iter().filter(|pod| pod.deletion.is_none() && !pod.finished);
    let old = living.clone().filter(|pod| is_stale(pod, destination)).count();
    explain(pods, format!("{old} of {} pods are not on {destination} yet", living.count()))
}

fn terminating(pass: &mut Pass<'_>, workload: &WorkloadRef, pod: &str, pods: &Pods<'_>) {
    let named = of(pods, workload).iter().find(|candidate| candidate.name == pod);
    let deletion = named.and_then(|pod| pod.deletion);
    let late = deletion.map(|at| after(at, TERMINATION_MARGIN_SECONDS));
    match late {
        Some(late) if late <= pass.now => pass.wait(
            WaitReason::PodTerminating,
            about_workload(workload),
            format!(
                "pod {pod} of {workload} should have ended at {}: its node may be unreachable; \
                 kubectl delete pod {pod} -n {} --force once the node is known to be down",
                shown(deletion.unwrap_or(pass.now)),
                workload.namespace
            ),
        ),
        late => {
            pass.wait(
                WaitReason::RolloutInProgress,
                about_workload(workload),
                format!("{workload}: pod {pod} is ending"),
            );
            if let Some(late) = late {
                pass.wake_at(late);
            }
        }
    }
}

fn restart(pass: &mut Pass<'_>, workload: &Workload) {
    let stamp = pass.run.restart_stamp(&pass.intent.uid, &workload.reference);
    let because = format!("it has pods that are not on {}", pass.run.destination());
    pass.note_refusal(About::Workload(workload.reference.clone()), &stamp);
    pass.effect(Effect::Restart(Restart {
        workload: workload.reference.clone(),
        uid: workload.uid.clone(),
        stamp,
        because,
    }));
}

/// Opens or refills the batch. Workloads that cannot go now are passed over, and so go last.
fn fill(
    pass: &mut Pass<'_>,
    front: &Front<'_>,
    pods: &Pods<'_>,
    mut entries: Vec<BatchEntry>,
) -> Vec<BatchEntry> {
    let forward = pass.run.direction() == Direction::Forward;
    let failed = entries.iter().filter(|entry| entry.timed_out).count();
    let busy = if forward {
        entries.len() + rolling_from_before(pass, front, pods, &entries)
    } else {
        entries.len() - failed
    };
    let capacity = usize::try_from(front.max_concurrent).unwrap_or(1).saturating_sub(busy);
    let mut candidates = Vec::new();
    for workload in &front.members {
        if entries.iter().any(|entry| entry.workload == workload.reference) {
            continue;
        }
        match state(pass, workload, pods, pass.run.destination()) {
            State::Done => {}
            State::Stale => candidates.push(*workload),
            other => not_a_candidate(pass, workload, &other, pods),
        }
    }
    if !forward {
        // Who does not serve anyway goes first: its restart costs nothing, and mends.
        candidates.sort_by_key(|it| !only_unready_are_stale(pods, &it.reference, &pass.run.source));
    }
    if front.held || candidates.is_empty() || (forward && failed > 0) || !may_open(pass, &entries) {
        return entries;
    }
    let mut added = 0;
    for workload in candidates {
        if added >= capacity || entries.len() >= crate::record::MAX_BATCH {
            break;
        }
        let open: Vec<WorkloadRef> = entries.iter().map(|entry| entry.workload.clone()).collect();
        let ready = settled_rollout(pass, workload);
        if ready && safe_to_restart(pass, workload, pods, &open.iter().collect::<Vec<_>>()) {
            entries.push(BatchEntry {
                workload: workload.reference.clone(),
                uid: workload.uid.clone(),
                since: pass.now,
                timed_out: false,
            });
            added += 1;
        }
    }
    entries
}

/// Workloads that still roll, or end old pods, from a restart of ours that no batch knows of: an object of the same name
/// was deleted in the middle of it and applied again.
fn rolling_from_before(pass: &Pass<'_>, front: &Front<'_>, pods: &Pods<'_>, entries: &[BatchEntry]) -> usize {
    let unfinished = |workload: &Workload| {
        rollout(workload) != Rollout::Done
            || matches!(state(pass, workload, pods, pass.run.destination()), State::Terminating(_))
    };
    front
        .members
        .iter()
        .filter(|workload| entries.iter().all(|entry| entry.workload != workload.reference))
        .filter(|workload| workload.template.restart.is_some() && unfinished(workload))
        .count()
}

/// Suspension, windows and the pause between batches hold back new restarts; what is open goes on.
fn may_open(pass: &mut Pass<'_>, entries: &[BatchEntry]) -> bool {
    if pass.run.direction() == Direction::Back {
        return true;
    }
    if !pass.may_start() {
        return false;
    }
    let pause = pass.intent.restart.pause_seconds;
    if pause == 0 {
        return true;
    }
    if !entries.is_empty() {
        return false;
    }
    let until = pass.run.batch_closed_at.map(|closed| after(closed, pause));
    match until {
        Some(until) if until > pass.now => {
            pass.wait(WaitReason::BatchPause, None, format!("the next batch starts at {}", shown(until)));
            pass.wake_at(until);
            false
        }
        _ => true,
    }
}

/// Forward, a workload must stand still before it is restarted: what is broken before is not ours to shake. Back, a
/// rollout that does not end is what the restart mends.
fn settled_rollout(pass: &mut Pass<'_>, workload: &Workload) -> bool {
    if pass.run.direction() == Direction::Back {
        return true;
    }
    match rollout(workload) {
        Rollout::Done => true,
        Rollout::InProgress(why) | Rollout::Stuck(why) => {
            pass.wait(
                WaitReason::RolloutInProgress,
                about_workload(&workload.reference),
                format!("{} is not restarted before its own rollout is over: {why}", workload.reference),
            );
            false
        }
    }
}

fn not_a_candidate(pass: &mut Pass<'_>, workload: &Workload, state: &State, pods: &Pods<'_>) {
    let about = about_workload(&workload.reference);
    let name = &workload.reference;
    match state {
        State::Unknown => pass.wait(
            WaitReason::Observing,
            None,
            format!("reading the pods of namespace {}", name.namespace),
        ),
        State::Rolling(why) | State::NotReady(why) => {
            pass.wait(WaitReason::RolloutInProgress, about, format!("{name}: {why}"))
        }
        State::Terminating(pod) => terminating(pass, name, pod, pods),
        State::Done | State::Stale => {}
    }
}

fn time_out(pass: &mut Pass<'_>, front: &Front<'_>, pods: &Pods<'_>, entry: &mut BatchEntry, state: &State) {
    let stamp = pass.run.restart_stamp(&pass.intent.uid, &entry.workload);
    let refused = pass.snapshot.refused.contains_key(&(About::Workload(entry.workload.clone()), stamp));
    if front.held || pass.run.held_since.is_some() || refused {
        return;
    }
    let deadline = after(entry.since, pass.intent.restart.timeout_seconds);
    if entry.timed_out && pass.retry {
        entry.timed_out = false;
        entry.since = pass.now;
        pass.event(false, "RetryAccepted", about_workload(&entry.workload), "its time counts anew");
        return;
    }
    if !entry.timed_out && deadline > pass.now {
        pass.wake_at(deadline);
        return;
    }
    let detail = match state {
        State::Rolling(why) | State::NotReady(why) => why.clone(),
        State::Terminating(pod) => format!("pod {pod} is still ending"),
        _ => old_pods(of(pods, &entry.workload), pass.run.destination()),
    };
    let message = format!(
        "{} did not come through its restart in {} s: {detail}",
        entry.workload, pass.intent.restart.timeout_seconds
    );
    if !entry.timed_out {
        entry.timed_out = true;
        pass.event(true, "WorkloadFailed", about_workload(&entry.workload), message.clone());
    }
    pass.wait(WaitReason::WorkloadFailed, about_workload(&entry.workload), message);
}

/// A failed workload turns the run back if the user chose so.
fn fails_the_run(pass: &mut Pass<'_>, entries: &[BatchEntry]) -> bool {
    let failed = entries.iter().find(|entry| entry.timed_out).map(|entry| entry.workload.clone());
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
