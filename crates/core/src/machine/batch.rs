//! Restarts the workloads of one wave, in either direction. The batch in the record is written before the first patch:
//! whoever comes after a crash finds there what may be in rollout.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::analysis::AnalysisIntent;
use crate::argo;
use crate::decision::About;
use crate::effect::{Effect, Restart};
use crate::gateways;
use crate::ids::WorkloadRef;
use crate::labels;
use crate::machine::analysis::{self, Opinion};
use crate::machine::failure::{fails_the_run, pass_over_failed, time_out, too_many_failed};
use crate::machine::fill::{Filled, fill, rolling_unlisted};
use crate::machine::gateways::moved;
use crate::machine::pass::{Pass, about_workload, after, shown};
use crate::machine::phase::Phase;
use crate::machine::workload::{
    Patched, Pods, State, explain, of, patched, safe_to_restart, state, stuck_stateful_set,
};
use crate::observed::{Pod, Workload};
use crate::pods::{Wanted, by_workload, is_stale};
use crate::record::{Batch, BatchEntry, Direction, Rollback, attempt_key};
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
    /// The metrics that judge each batch as a whole before the next one; none when there is nothing to measure.
    pub analysis: Option<&'a AnalysisIntent>,
    /// Name of the wave.
    pub wave: String,
}

/// Moves the front by one step. Says whether all of it is done.
pub fn advance(pass: &mut Pass<'_>, front: &Front<'_>) -> bool {
    let pods = pods_of(pass, front);
    hold_clock(pass, front.held);
    let before = pass.run.batch.take();
    let listed = before.as_ref().map(|batch| batch.entries.clone()).unwrap_or_default();
    let entries = check_entries(pass, front, &pods, listed);
    if pass.run.rollback.is_none() && fails_the_run(pass, &entries) {
        return false;
    }
    let (opened_at, mut through_so_far) = through(before.as_ref(), front, &entries);
    // Failed ones that are tolerated stay in the batch, and what comes next is another batch beside them.
    let idle = entries.iter().all(|entry| entry.timed_out) && !too_many_failed(pass, &entries);
    if before.is_some() && entries.is_empty() {
        pass.run.batch_closed_at = Some(pass.now);
    }
    if let Some(analysis) = front.analysis.filter(|_| idle && !through_so_far.is_empty()) {
        pass.run.batch_closed_at = Some(pass.now);
        let done = std::mem::take(&mut through_so_far);
        analysis::open(pass, analysis, opened_at.unwrap_or(pass.now), done);
    }
    // Nothing is restarted before what was restarted is known to do well.
    if idle && judged(pass, front) != Opinion::Passed {
        if !entries.is_empty() && pass.run.rollback.is_none() {
            pass.run.batch = Some(Batch { number: pass.run.batches, entries, opened_at, done: Vec::new() });
        }
        return false;
    }
    let open = entries.len();
    let Filled { entries, waits_for_others } = fill(pass, front, &pods, entries);
    pass_over_failed(pass, &entries);
    if entries.len() > open {
        pass.run.batches += 1;
    }
    let all_done = front.members.iter().all(|workload| {
        is_done(pass, workload, &pods) || entries.iter().any(|entry| entry.workload == workload.reference)
    });
    let idle = waits_for_others && !front.held && entries.iter().all(|entry| entry.timed_out);
    let given_up = stands_still(pass, idle) && passes_over(pass);
    let done = passable(pass, &entries) && (all_done || given_up);
    pass.run.another_round |= done && !all_done;
    if done {
        pass.run.idle_since = None;
    }
    // In a rollback some of them are of a wave that was passed over.
    pass.needs.pods.extend(entries.iter().map(|entry| entry.workload.namespace.clone()));
    if !entries.is_empty() {
        let fresh = before.is_none() || (idle && entries.len() > open);
        let opened_at = if fresh { Some(pass.now) } else { opened_at };
        pass.run.wave_began = pass.run.wave_began.or(opened_at);
        let through = if fresh { Vec::new() } else { through_so_far };
        pass.run.batch = Some(Batch { number: pass.run.batches, entries, opened_at, done: through });
    }
    done
}

/// When a batch was opened, and which of its workloads are through. These are kept only where metrics judge them.
fn through(
    before: Option<&Batch>,
    front: &Front<'_>,
    entries: &[BatchEntry],
) -> (Option<Timestamp>, Vec<WorkloadRef>) {
    let Some(batch) = before else { return (None, Vec::new()) };
    let left = batch.entries.iter().filter(|old| entries.iter().all(|entry| entry.workload != old.workload));
    let mut through = batch.done.clone();
    if front.analysis.is_some() {
        through.extend(left.map(|entry| entry.workload.clone()));
    }
    (batch.opened_at, through)
}

/// What the metrics say of the last batch.
fn judged(pass: &mut Pass<'_>, front: &Front<'_>) -> Opinion {
    let Some(metrics) = front.analysis else {
        if pass.run.phase == Phase::Migrating {
            // The metrics were taken out of the spec.
            pass.run.gate = None;
        }
        return Opinion::Passed;
    };
    let Some(gate) = &pass.run.gate else { return Opinion::Passed };
    let alive = |workload: &&WorkloadRef| pass.snapshot.workloads.contains_key(*workload);
    let workloads = gate.workloads.iter().filter(alive).cloned().collect();
    analysis::gate(pass, metrics, &front.wave, &workloads, None)
}

/// Whether the wave has stood still for as long as a restart may take: nothing is in rollout by us, and what is left waits for
/// others (a rollout of its owner, a budget). Then a person is asked.
fn stands_still(pass: &mut Pass<'_>, idle: bool) -> bool {
    if !idle {
        pass.run.idle_since = None;
        return false;
    }
    let since = *pass.run.idle_since.get_or_insert(pass.now);
    let late = after(since, pass.intent.restart.timeout_seconds);
    if late > pass.now {
        pass.wake_at(late);
        return false;
    }
    if let Some(first) =
        pass.waits.first().filter(|_| !pass.waits.iter().any(|wait| wait.reason.needs_human()))
    {
        let because = format!(
            "the wave has not moved on for {} s: {}",
            pass.intent.restart.timeout_seconds, first.because
        );
        let about = first.about.clone();
        pass.wait(WaitReason::NoProgress, about, because);
    }
    true
}

/// In a rollback one workload does not keep earlier waves on the target, nor what was passed over before from its next round.
/// At its end all must be back.
fn passes_over(pass: &Pass<'_>) -> bool {
    let to_wave = pass.run.rollback.as_ref().map_or(0, Rollback::to_wave);
    pass.run.direction() == Direction::Back && (pass.run.wave > to_wave || pass.run.another_round)
}

/// Whether open restarts let the wave end: in a rollback those that ran into their timeout are passed over.
fn passable(pass: &Pass<'_>, entries: &[BatchEntry]) -> bool {
    entries.is_empty() || (passes_over(pass) && entries.iter().all(|entry| entry.timed_out))
}

/// Whether nothing is left to do for a workload. A rollback answers for what the run changed: what was broken before, and
/// has nothing on the target, does not hold it up.
fn is_done(pass: &Pass<'_>, workload: &Workload, pods: &Pods<'_>) -> bool {
    match state(pass, workload, pods) {
        State::Done => true,
        State::Unknown => false,
        _ => pass.run.direction() == Direction::Back && !is_concerned(pass, workload, pods),
    }
}

/// Whether a rollback has to bring a workload back: it has pods on the target, this run restarted it, or a pod got no sidecar
/// since this run began (the webhook that its namespace pointed at was away).
pub(super) fn is_concerned(pass: &Pass<'_>, workload: &Workload, pods: &Pods<'_>) -> bool {
    let origin = Some(pass.run.origin());
    let on_origin =
        |pod: &&Pod| !pod.finished && pod.proxy.as_ref().and_then(|proxy| proxy.revision.as_ref()) == origin;
    let ours = pass.run.stamp_prefix(&pass.intent.uid);
    // Creation times are whole seconds, rounded down.
    let since_the_start = |pod: &&Pod| pod.created.map(|created| after(created, 1)) > pass.run.started_at;
    let lost_its_sidecar = |pod: &&Pod| !pod.finished && pod.proxy.is_none() && since_the_start(pod);
    of(pods, &workload.reference).iter().any(|pod| on_origin(pod) || lost_its_sidecar(pod))
        || workload.template.restart.as_ref().is_some_and(|stamp| stamp.starts_with(&ours))
        || argo::restarted_since(workload, pass.run.started_at)
}

/// How many workloads of the front are done.
pub fn done_count(pass: &Pass<'_>, front: &Front<'_>) -> u32 {
    let pods = pods_of(pass, front);
    let done = front.members.iter().filter(|workload| is_done(pass, workload, &pods));
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
                entry.troubled_since = None;
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
    let back = pass.run.direction() == Direction::Back;
    let mut kept = Vec::new();
    let mut open = entries.iter().filter(|entry| !entry.timed_out).count();
    let mut budgeted: Vec<WorkloadRef> = entries.iter().map(|entry| entry.workload.clone()).collect();
    budgeted.extend(rolling_unlisted(pass, front, pods, &entries).into_iter().cloned());
    // After too many failures nothing new is restarted on the way forward, also what the batch has already.
    let stopped = pass.run.direction() == Direction::Forward && too_many_failed(pass, &entries);
    let budgeted = (!stopped).then_some(budgeted.as_slice());
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
        let state = state(pass, workload, pods);
        // A label that is astray leads new pods elsewhere: the workload comes back into a batch when the label does.
        let astray = pass.run.astray.contains(&entry.workload.namespace);
        let patched = patched(pass, &entry, workload, pods);
        let ending = of(pods, &entry.workload)
            .iter()
            .any(|pod| pod.deletion.is_some() && is_stale(pod, pass.wanted()));
        let at_rest = matches!(patched, Patched::NotYet) || (rollout(workload) == Rollout::Done && !ending);
        if state == State::Done || (astray && at_rest) {
            continue;
        }
        let mut blocked = false;
        if astray {
            waiting(pass, &entry, workload, &state, pods);
        } else {
            // One that was passed over is taken up again only where the limit has room for it.
            let room = !entry.timed_out || open < max_open(front);
            let passed_over = entry.timed_out;
            blocked = check_entry(pass, front, pods, &mut entry, workload, &state, Turn { budgeted, room });
            open += usize::from(passed_over && !entry.timed_out);
        }
        // Of this attempt or the next one. A pass that changes the record has no effects, so that it is stored first.
        entry.restart_at =
            entry.restart_at.or_else(|| argo::restart_at(pass.now, workload, of(pods, &entry.workload)));
        // In a rollback what holds back a patch is a reason to pass over the workload.
        let still = time_stands_still(pass, &entry, workload, &state, pods);
        if let Some(since) = still.filter(|_| !(back && blocked)) {
            entry.since = since;
        } else {
            let (failed, room) = (entry.timed_out, open < max_open(front));
            time_out(pass, front, pods, &mut entry, &state, room);
            open += usize::from(failed && !entry.timed_out);
        }
        kept.push(entry);
    }
    kept
}

/// How many workloads of the front may be in rollout at once.
pub(super) fn max_open(front: &Front<'_>) -> usize {
    usize::try_from(front.max_concurrent).unwrap_or(1)
}

/// The time of a workload does not run before it is patched (a budget is in the way) and while its pods are not known (the
/// operator was away and has just come back). Since when it counts is moved on now and then rather than with every pass, each
/// of which would be a write.
fn time_stands_still(
    pass: &Pass<'_>,
    entry: &BatchEntry,
    workload: &Workload,
    state: &State,
    pods: &Pods<'_>,
) -> Option<Timestamp> {
    let unpatched =
        || *state == State::Stale && matches!(patched(pass, entry, workload, pods), Patched::NotYet);
    let stands = !entry.timed_out && (*state == State::Unknown || unpatched());
    let move_on = after(entry.since, (pass.intent.restart.timeout_seconds / 2).max(1)) <= pass.now;
    stands.then_some(if move_on { pass.now } else { entry.since })
}

/// What an entry of the batch may do now.
#[derive(Clone, Copy)]
struct Turn<'a> {
    /// What counts against its budgets; `None` when it may not be patched.
    budgeted: Option<&'a [WorkloadRef]>,
    /// The limit has room for it, if it is to be taken up again.
    room: bool,
}

/// Patches an entry, or says what it waits for. Says whether something holds back its patch.
fn check_entry(
    pass: &mut Pass<'_>,
    front: &Front<'_>,
    pods: &Pods<'_>,
    entry: &mut BatchEntry,
    workload: &Workload,
    state: &State,
    turn: Turn<'_>,
) -> bool {
    let about = about_workload(&entry.workload);
    let forward = pass.run.direction() == Direction::Forward;
    match (patched(pass, entry, workload, pods), state) {
        (_, State::Unknown) => {
            pass.wait(WaitReason::Observing, about, format!("reading the pods of {}", entry.workload))
        }
        (Patched::NotYet, State::Stale) => {
            let may = !front.held && turn.room && (!forward || pass.may_start());
            let Some(budgeted) = turn.budgeted.filter(|_| may) else { return false };
            let others: Vec<&WorkloadRef> =
                budgeted.iter().filter(|other| **other != entry.workload).collect();
            if !safe_to_restart(pass, workload, pods, &others) || restart(pass, workload, entry) {
                return true;
            }
            if !forward && entry.timed_out {
                (entry.since, entry.timed_out, entry.troubled_since) = (pass.now, false, None);
            }
        }
        (Patched::InPlace, State::Stale)
            if !front.held && turn.room && came_out_wrong(pass, entry, workload, pods) =>
        {
            *pass.run.restart_attempts.entry(attempt_key(&entry.workload)).or_insert(1) += 1;
            (entry.since, entry.timed_out, entry.troubled_since) = (pass.now, false, None);
            entry.restart_at = None;
            let note = "pods were made from its new template while the label led elsewhere: it is restarted once more";
            pass.event(
                true,
                if pass.retries(&entry.workload) { "RetryAccepted" } else { "RestartRepeated" },
                about,
                note,
            );
        }
        (Patched::Stripped, State::Stale) => {
            if pass.retries(&entry.workload) && turn.room {
                *pass.run.restart_attempts.entry(attempt_key(&entry.workload)).or_insert(1) += 1;
                (entry.since, entry.timed_out, entry.troubled_since) = (pass.now, false, None);
                entry.restart_at = None;
                pass.event(false, "RetryAccepted", about, "it will be restarted once more");
                return false;
            }
            let owner = who(workload);
            let gateway = gateways::of_workload(pass.snapshot, workload).is_some();
            let (what, keep) = match workload.argo {
                Some(_) => ("spec.restartAt", "that field".to_owned()),
                None if gateway => ("the Gateway's label istio.io/rev", "that label".to_owned()),
                None => ("the pod template", format!("the annotation {}", labels::RESTART)),
            };
            pass.wait(
                WaitReason::RestartReverted,
                about,
                format!(
                    "{owner} put {what} of {} back in the middle of its restart: let its owner keep {keep}; {}",
                    entry.workload,
                    pass.how_to_retry("restarts it once more")
                ),
            );
        }
        (_, state) => waiting(pass, entry, workload, state, pods),
    }
    false
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
    if !calm || (repeated && !pass.retries(&entry.workload)) {
        return false;
    }
    let stamp = pass.restart_stamp(&entry.workload);
    let wrong = |pod: &&Pod| {
        let new = match &workload.argo {
            Some(_) => argo::is_newest(pod, workload),
            None => pod.restart.as_ref() == Some(&stamp),
        };
        pod.deletion.is_none() && new && is_stale(pod, pass.wanted())
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
            let why = old_pods(of(pods, name), pass.wanted());
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
pub(super) fn old_pods(pods: &[&Pod], wanted: Wanted<'_>) -> String {
    let living = pods.iter().filter(|pod| pod.deletion.is_none() && !pod.finished);
    let old = living.clone().filter(|pod| is_stale(pod, wanted)).count();
    explain(pods, format!("{old} of {} pods are not on {wanted} yet", living.count()))
}

pub(super) fn terminating(pass: &mut Pass<'_>, workload: &WorkloadRef, pod: &str, pods: &Pods<'_>) {
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

/// Asks for the restart of a workload. Says whether that was refused a moment ago.
fn restart(pass: &mut Pass<'_>, workload: &Workload, entry: &BatchEntry) -> bool {
    let stamp = pass.restart_stamp(&workload.reference);
    let because = format!("it has pods that are not on {}", pass.wanted());
    if let Some(gateway) = gateways::of_workload(pass.snapshot, workload) {
        return moved(pass, gateway, &workload.reference, stamp);
    }
    let refused = pass.note_refusal(About::Workload(workload.reference.clone()), &stamp);
    pass.effect(Effect::Restart(Restart {
        workload: workload.reference.clone(),
        uid: workload.uid.clone(),
        stamp,
        restart_at: entry.restart_at,
        because,
    }));
    refused
}
