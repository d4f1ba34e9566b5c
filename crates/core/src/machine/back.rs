//! The way back: labels, then workloads wave by wave, then proof. Needs nothing but the source's control plane.

use std::collections::BTreeSet;

use crate::check::{self, CheckInput};
use crate::gate;
use crate::ids::{NamespaceName, Revision};
use crate::machine::batch;
use crate::machine::pass::Pass;
use crate::machine::phase::Trigger;
use crate::machine::relabel::{Standings, in_place_since, labels, memory_restored};
use crate::machine::wave::{front_of, settle_time_is_over};
use crate::record::WaveStep;
use crate::wait::WaitReason;

/// Moves the rollback by one step. Says whether the position changed.
pub fn roll_back(pass: &mut Pass<'_>) -> bool {
    if pass.run.source == pass.run.target {
        return finish(pass);
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
    if standings.awaited || !pass.run.astray.is_subset(&standings.astray) {
        pass.run.settled_since = None;
    }
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
    if let Some(wave) = pass.run.wave.checked_sub(1) {
        pass.run.wave = wave;
    } else {
        pass.run.step = WaveStep::Proven;
        pass.run.soak_since = pass.run.soak_since.max(Some(pass.now));
    }
    true
}

/// Nothing may run on the target any more, and no label may lead there.
fn prove(pass: &mut Pass<'_>) -> bool {
    let begun = *pass.run.soak_since.get_or_insert(pass.now);
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let Some(counted) = counted.filter(|counted| *counted >= begun) else {
        pass.needs.census_since = Some(begun);
        pass.wait(WaitReason::Observing, None, "counting what still runs on the target");
        return false;
    };
    pass.count_again(counted, begun);
    let revisions = pass.revisions();
    let from_wave = pass.run.rollback.as_ref().map_or(0, |rollback| rollback.from_wave);
    let standings = look_at_labels(pass, from_wave);
    let fallen = late_workloads(pass, &revisions.1);
    pass.checks = check::rollback_proof(&CheckInput {
        intent: pass.intent,
        source: &revisions.0,
        target: &revisions.1,
        snapshot: pass.snapshot,
        plan: &pass.plan,
        unrestartable: &[],
        now: pass.now,
    });
    let failed: Vec<String> = check::failed(&pass.checks)
        .iter()
        .map(|result| format!("{}: {}", result.name, result.message))
        .collect();
    if failed.is_empty() && standings.in_place() {
        return memory_restored(pass, from_wave) && finish(pass);
    }
    if fallen && !standings.awaited {
        // Something of ours still runs there, for example a pod that was created late, or in a namespace whose label was
        // astray: once more through the waves.
        pass.run.step = WaveStep::Restart;
        pass.run.wave = from_wave;
        // This count has been acted on: the next proof needs a newer one.
        pass.run.soak_since = counted.checked_add(jiff::SignedDuration::from_nanos(1)).ok();
        return true;
    }
    for because in failed {
        pass.wait(WaitReason::RevisionInUse, None, because);
    }
    false
}

/// Whether restartable workloads of the plan's waves have pods on a revision, by the last count.
fn late_workloads(pass: &Pass<'_>, revision: &Revision) -> bool {
    let Some(workloads) = pass.snapshot.census.as_ref().and_then(|census| census.workloads.get(revision))
    else {
        return false;
    };
    let from_wave = pass.run.rollback.as_ref().map_or(0, |rollback| rollback.from_wave);
    (0u32..).zip(&pass.plan.waves).take_while(|(index, _)| *index <= from_wave).any(|(_, wave)| {
        let namespaces =
            wave.namespaces.iter().filter(|name| !pass.run.astray.contains(name)).cloned().collect();
        let front = front_of(pass, wave, &namespaces, true);
        front.members.iter().any(|workload| workloads.contains_key(&workload.reference))
    })
}

fn finish(pass: &mut Pass<'_>) -> bool {
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
