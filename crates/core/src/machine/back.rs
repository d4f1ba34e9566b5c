//! The way back: labels, then workloads wave by wave, then proof. Needs nothing but the source's control plane.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::argo;
use crate::check::{self, CheckInput};
use crate::gate;
use crate::ids::{NamespaceName, Revision};
use crate::intent::RollbackControlPlane;
use crate::machine::aks;
use crate::machine::batch;
use crate::machine::gateways;
use crate::machine::git;
use crate::machine::pass::{Pass, about_workload, after};
use crate::machine::phase::Trigger;
use crate::machine::relabel::{Standings, in_place_since, labels, memory_restored};
use crate::machine::wave::{front_of, settle_time_is_over};
use crate::observed::Workload;
use crate::plan::PlannedWave;
use crate::record::{CloudStep, WaveStep};
use crate::rollout::{Rollout, rollout};
use crate::wait::WaitReason;

/// Indices of the waves that go back.
fn going_back(pass: &Pass<'_>) -> RangeInclusive<u32> {
    pass.run.rollback.as_ref().map_or(0..=0, |rollback| rollback.to_wave()..=rollback.from_wave)
}

/// Moves the rollback by one step. Says whether the position changed.
pub fn roll_back(pass: &mut Pass<'_>) -> bool {
    if pass.run.source == pass.run.target {
        return finish(pass);
    }
    if aks::nowhere_to_go_back(pass) {
        return false;
    }
    if pass.run.step == WaveStep::Proven {
        return prove(pass);
    }
    let from_wave = pass.run.rollback.as_ref().map_or(0, |rollback| rollback.from_wave);
    let namespaces: BTreeSet<NamespaceName> =
        pass.current_wave().map(|wave| wave.namespaces.iter().cloned().collect()).unwrap_or_default();
    pass.needs.pods.clone_from(&namespaces);
    let source = pass.run.source.clone();
    let gate = gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &source);
    let open = gate.is_none();
    pass.waits.extend(gate);
    let settled = settled(pass, from_wave);
    match pass.run.step {
        WaveStep::Relabel => {
            if pass.run.settled_since.is_none() {
                return false;
            }
            pass.run.step = WaveStep::Settle;
            true
        }
        WaveStep::Settle => {
            if settled {
                pass.run.step = WaveStep::Restart;
            }
            settled
        }
        WaveStep::Restart => restart(pass, &namespaces, open && settled),
        WaveStep::Proven => false,
    }
}

/// Writes the labels that are due, and remembers which are astray. One that is back has to settle.
fn look_at_labels(pass: &mut Pass<'_>, from_wave: u32) -> Standings {
    let standings = labels(pass, from_wave, Some(from_wave));
    let is_back = !pass.run.astray.is_subset(&standings.astray);
    if standings.awaited || is_back {
        pass.run.settled_since = None;
    }
    // Its wave may be over already.
    pass.run.another_round |= is_back;
    pass.run.astray.clone_from(&standings.astray);
    standings
}

/// Whether the labels that can come back have, and stayed for the settle time. A namespace whose label somebody fights for
/// holds up its own workloads, and not those of all others.
fn settled(pass: &mut Pass<'_>, from_wave: u32) -> bool {
    if look_at_labels(pass, from_wave).awaited {
        return false;
    }
    if pass.run.step == WaveStep::Relabel {
        pass.run.settled_since = Some(in_place_since(pass, from_wave));
    }
    settle_time_is_over(pass)
}

fn restart(pass: &mut Pass<'_>, namespaces: &BTreeSet<NamespaceName>, open: bool) -> bool {
    if let Some(wave) = pass.current_wave().cloned() {
        let settled: BTreeSet<NamespaceName> = namespaces.difference(&pass.run.astray).cloned().collect();
        let front = front_of(pass, &wave, &settled, !open);
        if !batch::advance(pass, &front) || !open {
            return false;
        }
    }
    let before = pass.run.wave.checked_sub(1).filter(|wave| going_back(pass).contains(wave));
    if let Some(wave) = before {
        pass.run.wave = wave;
    } else if pass.run.another_round {
        begin_another_round(pass);
    } else {
        pass.run.step = WaveStep::Proven;
        pass.run.soak_since = pass.run.soak_since.max(Some(pass.now));
    }
    true
}

/// From the last wave once more: what is back already is passed in no time.
fn begin_another_round(pass: &mut Pass<'_>) {
    pass.run.another_round = false;
    pass.run.step = WaveStep::Restart;
    pass.run.wave = pass.run.rollback.as_ref().map_or(0, |rollback| rollback.from_wave);
}

/// Nothing may run on the target any more, and no label may lead there.
fn prove(pass: &mut Pass<'_>) -> bool {
    let begun = *pass.run.soak_since.get_or_insert(pass.now);
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let Some(counted) = counted.filter(|counted| *counted >= begun) else {
        pass.needs.census_since = Some(begun);
        pass.wait_for_count("what still runs on the target");
        return false;
    };
    pass.count_again(counted, begun);
    let revisions = pass.revisions();
    let from_wave = pass.run.rollback.as_ref().map_or(0, |rollback| rollback.from_wave);
    let standings = look_at_labels(pass, from_wave);
    git::forget_proven(pass);
    if pass.run.another_round && !standings.awaited {
        begin_another_round(pass);
        return true;
    }
    let fallen = late_workloads(pass, &revisions.1);
    let mut plan = pass.plan.clone();
    if pass.run.rollback.as_ref().is_some_and(|rollback| rollback.wave_only) {
        // The waves before stay on the target.
        plan.waves = waves_back(pass).cloned().collect();
    }
    pass.checks = check::rollback_proof(&CheckInput {
        intent: pass.intent,
        source: &revisions.0,
        target: &revisions.1,
        snapshot: pass.snapshot,
        plan: &plan,
        unrestartable: &[],
        now: pass.now,
    });
    let failed: Vec<String> = check::failed(&pass.checks)
        .iter()
        .map(|result| format!("{}: {}", result.name, result.message))
        .collect();
    let dropped = dropped_workloads(pass);
    if failed.is_empty() && standings.in_place() && !dropped {
        return all_stand_still(pass) && restored(pass, from_wave) && removed(pass) && finish(pass);
    }
    if (fallen || dropped) && !standings.awaited {
        if let Some(rollback) = pass.run.rollback.as_mut().filter(|_| dropped) {
            rollback.looked_for_dropped = true;
        }
        // Something of ours still runs there, for example a pod that was created late, or in a namespace whose label was
        // astray: once more through the waves.
        begin_another_round(pass);
        // This count has been acted on: the next proof needs a newer one.
        pass.run.soak_since = counted.checked_add(jiff::SignedDuration::from_nanos(1)).ok();
        return true;
    }
    for because in failed {
        pass.wait(WaitReason::RevisionInUse, None, because);
    }
    false
}

/// Whether namespaces and Gateways are what they were before the run.
fn restored(pass: &mut Pass<'_>, from_wave: u32) -> bool {
    // Where one wave goes back, the pins of the others are still needed.
    let wave_only = pass.run.rollback.as_ref().is_some_and(|rollback| rollback.wave_only);
    memory_restored(pass, from_wave) && (wave_only || gateways::released(pass))
}

/// Whether the target's control plane is gone, where it is ours to remove: nothing uses it any more.
fn removed(pass: &mut Pass<'_>) -> bool {
    let wave_only = pass.run.rollback.as_ref().is_some_and(|rollback| rollback.wave_only);
    let stays = pass.intent.rollback_control_plane == RollbackControlPlane::Keep;
    if wave_only || stays || pass.intent.aks.is_none() {
        return true;
    }
    let unused = nothing_refers_to_the_target(pass);
    if !git::is_back(pass) || !unused || !aks::done(pass, CloudStep::Rollback) {
        return false;
    }
    let target = pass.run.target.clone();
    if gate::is_gone(pass.snapshot, &target) {
        return true;
    }
    let because = format!("Azure has removed {target}; its last pods are going");
    pass.wait(WaitReason::ControlPlaneOperation, None, because);
    false
}

/// Nobody else may use what Azure would take away, also what the run did not move. Otherwise who does is told.
fn nothing_refers_to_the_target(pass: &mut Pass<'_>) -> bool {
    let revisions = pass.revisions();
    let results = check::removal_of_the_target(&CheckInput {
        intent: pass.intent,
        source: &revisions.0,
        target: &revisions.1,
        snapshot: pass.snapshot,
        plan: &pass.plan,
        unrestartable: &[],
        now: pass.now,
    });
    let failed: Vec<String> = check::failed(&results)
        .iter()
        .map(|result| {
            format!(
                "{}: {}; spec.rollback.controlPlane: Keep leaves {} in place",
                result.name, result.message, revisions.1
            )
        })
        .collect();
    for because in &failed {
        pass.wait(WaitReason::RevisionInUse, None, because.clone());
    }
    failed.is_empty()
}

/// The waves that go back.
fn waves_back<'p>(pass: &'p Pass<'_>) -> impl Iterator<Item = &'p PlannedWave> {
    let range = going_back(pass);
    (0u32..).zip(&pass.plan.waves).filter(move |(index, _)| range.contains(index)).map(|(_, wave)| wave)
}

/// Whether restartable workloads of the plan's waves have pods on a revision, by the last count.
fn late_workloads(pass: &Pass<'_>, revision: &Revision) -> bool {
    let Some(workloads) = pass.snapshot.census.as_ref().and_then(|census| census.workloads.get(revision))
    else {
        return false;
    };
    waves_back(pass).any(|wave| {
        let namespaces =
            wave.namespaces.iter().filter(|name| !pass.run.astray.contains(name)).cloned().collect();
        let front = front_of(pass, wave, &namespaces, true);
        front.members.iter().any(|workload| workloads.contains_key(&workload.reference))
    })
}

/// Whether pods of the plan's waves that were made in this run have no sidecar, by the last count: their namespace had no label, or no control
/// plane, when their workload had had its turn. That is worth one more round, and no second one.
fn dropped_workloads(pass: &Pass<'_>) -> bool {
    let Some(census) = pass.snapshot.census.as_ref() else { return false };
    let had_its_round = pass.run.rollback.as_ref().is_none_or(|rollback| rollback.looked_for_dropped);
    let in_this_run = |workload: &Workload| {
        let newest = census.without_proxy.get(&workload.reference).and_then(|found| found.newest);
        newest.is_some_and(|created| Some(after(created, 1)) > pass.run.started_at)
    };
    !had_its_round
        && waves_back(pass).any(|wave| {
            let namespaces =
                wave.namespaces.iter().filter(|name| !pass.run.astray.contains(name)).cloned().collect();
            front_of(pass, wave, &namespaces, true).members.into_iter().any(in_this_run)
        })
}

/// Whether no workload that this run restarted is still in rollout; those that are, are named. A wave may have been left with
/// one that did not get its pods.
fn all_stand_still(pass: &mut Pass<'_>) -> bool {
    let planned: BTreeSet<NamespaceName> =
        waves_back(pass).flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let ours = pass.run.stamp_prefix(&pass.intent.uid);
    let restarted = |workload: &&Workload| {
        planned.contains(&workload.reference.namespace)
            && (workload.template.restart.as_ref().is_some_and(|stamp| stamp.starts_with(&ours))
                || argo::restarted_since(workload, pass.run.started_at))
            && !argo::rests(workload)
    };
    let mut unfinished = Vec::new();
    for workload in pass.snapshot.workloads.values().map(AsRef::as_ref).filter(restarted) {
        if let Rollout::InProgress(why) | Rollout::Stuck(why) = rollout(workload) {
            unfinished.push((workload.reference.clone(), why));
        }
    }
    // An autoscaler or a drain may just be at work.
    let since = pass.run.soak_since.unwrap_or(pass.now);
    let late = after(since, pass.intent.restart.timeout_seconds);
    if !unfinished.is_empty() && late > pass.now {
        pass.wake_at(late);
    }
    for (workload, why) in &unfinished {
        let because = format!("{workload} is on {} again and not ready: {why}", pass.run.source);
        if late > pass.now {
            pass.wait(WaitReason::RolloutInProgress, about_workload(workload), because);
        } else {
            let because = format!("{because}; repair it");
            pass.wait(WaitReason::WorkloadNotReady, about_workload(workload), because);
        }
    }
    unfinished.is_empty()
}

fn finish(pass: &mut Pass<'_>) -> bool {
    if pass.run.rollback.as_ref().is_some_and(|rollback| rollback.wave_only) {
        return end_of_the_wave(pass);
    }
    pass.run.ended_at = Some(pass.now);
    pass.run.soak_since = None;
    let (source, target) = pass.revisions();
    pass.event(
        false,
        "RollbackCompleted",
        None,
        format!("everything runs on {source} again; nothing is left on {target}"),
    );
    pass.go(Trigger::RollbackProven)
}

/// A wave that went back by itself is where it began; the waves before stay, and a person decides about it.
fn end_of_the_wave(pass: &mut Pass<'_>) -> bool {
    let Some(rollback) = pass.run.rollback.take() else { return false };
    let name = pass.current_wave().map_or_else(String::new, |wave| wave.name.clone());
    let source = pass.run.source.clone();
    let note = format!("wave {name:?} runs on {source} again: {}", rollback.message);
    pass.event(true, "WaveRolledBack", None, note);
    let run = &mut pass.run;
    (run.returned, run.turns) = (Some(rollback.message), run.turns + 1);
    (run.wave, run.step) = (rollback.from_wave, WaveStep::Relabel);
    (run.settled_since, run.soak_since, run.batch_closed_at) = (None, None, None);
    run.another_round = false;
    run.astray.clear();
    // Stamps of the next turn are others: attempts count anew.
    run.restart_attempts.clear();
    run.label_attempts.clear();
    run.tag_attempts.clear();
    pass.go(Trigger::WaveReturned)
}
