//! Which workloads the batch takes in next, and what keeps them out.

use crate::argo;
use crate::gateways;
use crate::ids::WorkloadRef;
use crate::machine::batch::{Front, is_concerned, max_open, terminating};
use crate::machine::failure::too_many_failed;
use crate::machine::pass::{Pass, about_workload, after, shown};
use crate::machine::workload::{Pods, State, of, only_unready_are_stale, safe_to_restart, state};
use crate::observed::{Pod, Workload};
use crate::pods::is_stale;
use crate::record::{BatchEntry, Direction};
use crate::rollout::{Rollout, rollout};
use crate::wait::WaitReason;

/// The batch after it was filled.
pub struct Filled {
    /// Its entries.
    pub entries: Vec<BatchEntry>,
    /// A workload of the front is left that cannot be taken in now, for a reason that is not ours: its own rollout, a budget.
    pub waits_for_others: bool,
}

/// Opens or refills the batch. Workloads that cannot go now are passed over, and so go last.
pub fn fill(pass: &mut Pass<'_>, front: &Front<'_>, pods: &Pods<'_>, mut entries: Vec<BatchEntry>) -> Filled {
    let mut waits_for_others = false;
    let forward = pass.run.direction() == Direction::Forward;
    let failed = entries.iter().filter(|entry| entry.timed_out).count();
    let mut candidates = Vec::new();
    for workload in &front.members {
        if entries.iter().any(|entry| entry.workload == workload.reference) {
            continue;
        }
        match state(pass, workload, pods) {
            State::Done => {}
            ref state if !forward && *state != State::Unknown && !is_concerned(pass, workload, pods) => {}
            State::Stale => candidates.push(*workload),
            other => {
                waits_for_others |= !matches!(other, State::Unknown);
                not_a_candidate(pass, workload, &other, pods);
            }
        }
    }
    if !forward {
        // Who is in rollout, or does not serve anyway, goes first: its restart takes nothing more away, and mends.
        candidates.sort_by_key(|it| {
            let unready = only_unready_are_stale(pods, &it.reference, pass.wanted());
            (rollout(it) == Rollout::Done, !unready)
        });
    }
    if front.held
        || candidates.is_empty()
        || (forward && too_many_failed(pass, &entries))
        || !may_open(pass, front.analysis.is_some(), &entries)
    {
        return Filled { entries, waits_for_others };
    }
    let max = max_open(front);
    for workload in candidates {
        let rolling = rolling_unlisted(pass, front, pods, &entries);
        let others: Vec<&WorkloadRef> =
            rolling.into_iter().filter(|other| **other != workload.reference).collect();
        let listed = entries.len() - failed;
        if listed + others.len() >= max || entries.len() >= crate::record::MAX_BATCH {
            waits_for_others |= !others.is_empty();
            note_unlisted(pass, &others, &workload.reference);
            break;
        }
        let open: Vec<WorkloadRef> =
            entries.iter().map(|entry| &entry.workload).chain(others).cloned().collect();
        let ready = settled_rollout(pass, workload);
        if ready && safe_to_restart(pass, workload, pods, &open.iter().collect::<Vec<_>>()) {
            entries.push(BatchEntry {
                workload: workload.reference.clone(),
                uid: workload.uid.clone(),
                since: pass.now,
                timed_out: false,
                troubled_since: None,
                restart_at: argo::restart_at(pass.now, workload, of(pods, &workload.reference)),
            });
        } else {
            waits_for_others = true;
        }
    }
    Filled { entries, waits_for_others }
}

fn note_unlisted(pass: &mut Pass<'_>, rolling: &[&WorkloadRef], next: &WorkloadRef) {
    for workload in rolling {
        let because = format!("{workload} is still in rollout from an earlier restart: {next} waits for it");
        pass.wait(WaitReason::RolloutInProgress, about_workload(workload), because);
    }
}

/// Workloads that are in rollout, or end old pods, and that no batch knows of: an object of the same name was deleted in the
/// middle of it and applied again, or the run turned back. They count against the limit and the budgets. One that was broken
/// before does not.
pub fn rolling_unlisted<'a>(
    pass: &Pass<'_>,
    front: &Front<'a>,
    pods: &Pods<'_>,
    entries: &[BatchEntry],
) -> Vec<&'a WorkloadRef> {
    let wanted = pass.wanted();
    let forward = pass.run.direction() == Direction::Forward;
    // A pod of the newest template that is stale was not made by a restart towards the destination.
    let broken_before = |workload: &Workload| {
        let newest = |pod: &&Pod| !pod.finished && argo::is_newest(pod, workload);
        workload.generation == workload.rollout.observed_generation
            && of(pods, &workload.reference).iter().filter(|pod| newest(pod)).any(|pod| is_stale(pod, wanted))
    };
    let unfinished = |workload: &Workload| {
        (rollout(workload) != Rollout::Done && !argo::rests(workload))
            || matches!(state(pass, workload, pods), State::Terminating(_))
    };
    let ours_prefix = pass.run.stamp_prefix(&pass.intent.uid);
    let counts = |workload: &&&Workload| {
        let restarted =
            argo::was_restarted(workload) || gateways::was_moved(pass.snapshot, workload, &ours_prefix);
        let ours =
            if forward { restarted && !broken_before(workload) } else { is_concerned(pass, workload, pods) };
        ours && unfinished(workload) && entries.iter().all(|entry| entry.workload != workload.reference)
    };
    front.members.iter().filter(counts).map(|workload| &workload.reference).collect()
}

/// Suspension, windows and the pause between batches hold back new restarts; what is open goes on.
/// Where metrics judge a batch as a whole, it is not refilled.
fn may_open(pass: &mut Pass<'_>, gated: bool, entries: &[BatchEntry]) -> bool {
    if pass.run.direction() == Direction::Back {
        return true;
    }
    if !pass.may_start() {
        return false;
    }
    let pause = pass.intent.restart.pause_seconds;
    if pause == 0 && !gated {
        return true;
    }
    if entries.iter().any(|entry| !entry.timed_out) {
        return false;
    }
    let until = pass.run.batch_closed_at.filter(|_| pause > 0).map(|closed| after(closed, pause));
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
    let (why, stuck) = match rollout(workload) {
        Rollout::Done => return true,
        Rollout::InProgress(why) => (why, false),
        Rollout::Stuck(why) => (why, true),
    };
    let because = format!("{} is not restarted before its own rollout is over: {why}", workload.reference);
    unready(pass, &workload.reference, stuck, because);
    false
}

/// A workload holds up its wave and is not in the batch. Its own controller, or whoever deployed it, gets as long as a restart
/// may take; then, or when its controller gave up, a person is asked.
fn unready(pass: &mut Pass<'_>, workload: &WorkloadRef, stuck: bool, because: String) {
    let about = about_workload(workload);
    let timeout = pass.intent.restart.timeout_seconds;
    let late = pass.run.idle_since.is_some_and(|since| after(since, timeout) <= pass.now);
    let gave_up = stuck && pass.run.idle_since.is_some();
    if !late && !gave_up {
        return pass.wait(WaitReason::RolloutInProgress, about, because);
    }
    let remedy = format!("{because}; repair it, or scale it to zero until the run is over");
    pass.wait(WaitReason::WorkloadNotReady, about, remedy);
}

fn not_a_candidate(pass: &mut Pass<'_>, workload: &Workload, state: &State, pods: &Pods<'_>) {
    let name = &workload.reference;
    match state {
        State::Unknown => pass.wait(
            WaitReason::Observing,
            None,
            format!("reading the pods of namespace {}", name.namespace),
        ),
        State::Rolling(why) | State::NotReady(why) => {
            let stuck = matches!(rollout(workload), Rollout::Stuck(_));
            unready(pass, name, stuck, format!("{name}: {why}"));
        }
        State::Terminating(pod) => terminating(pass, name, pod, pods),
        State::Done | State::Stale => {}
    }
}
