//! The end of the way forward: soak, proof that nothing refers to the source, and its removal.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::aks::gateways;
use crate::check::{self, CheckInput};
use crate::gate;
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::injection::is_relabelled;
use crate::intent::CompletionMode;
use crate::inventory::{Group, is_system, members};
use crate::machine::aks;
use crate::machine::analysis::{self, Opinion};
use crate::machine::pass::{Pass, after, pair, shown};
use crate::machine::phase::Trigger;
use crate::machine::relabel::{injection_written, labels_in_place};
use crate::machine::staying;
use crate::machine::wave::append;
use crate::planning;
use crate::record::CloudStep;
use crate::tags;
use crate::wait::WaitReason;

/// Moves the completion by one step. Says whether the position changed.
pub fn complete(pass: &mut Pass<'_>) -> bool {
    if pass.run.source == pass.run.target {
        return nothing_to_move(pass);
    }
    let begun = *pass.run.soak_since.get_or_insert(pass.now);
    if aks::lacks_profile(pass) {
        return false;
    }
    // Who asks for a rollback does not want more to be moved.
    if pass.run.completion_held_since.is_none() && late(pass, begun) {
        return true;
    }
    let labels = labels_in_place(pass, pass.run.wave, None);
    if !labels {
        pass.run.settled_since = None;
    } else if pass.run.settled_since.is_none() {
        pass.run.settled_since = Some(pass.now);
    }
    let until = after(begun, pass.intent.completion.soak_seconds);
    let well = soaks_well(pass, begun, until);
    if well == Opinion::TurnedBack {
        return true;
    }
    if until > pass.now {
        pass.wait(WaitReason::Soaking, None, format!("the old control plane stays until {}", shown(until)));
        pass.wake_at(until);
        return false;
    }
    if well == Opinion::Waits {
        return false;
    }
    if !counted(pass, until.max(last_change(pass))) {
        return false;
    }
    let revisions = pass.revisions();
    pass.checks = check::completion(&CheckInput {
        intent: pass.intent,
        source: &revisions.0,
        target: &revisions.1,
        snapshot: pass.snapshot,
        plan: &pass.plan,
        unrestartable: &[],
        now: pass.now,
    });
    let failed: Vec<(WaitReason, String)> = check::failed(&pass.checks)
        .iter()
        .map(|result| {
            let reason = if result.name == "GitAgrees" {
                WaitReason::GitStillOnOldRevision
            } else {
                WaitReason::RevisionInUse
            };
            (reason, format!("{}: {}", result.name, result.message))
        })
        .collect();
    if failed.is_empty() && labels {
        return accepted(pass);
    }
    for (reason, because) in failed {
        pass.wait(reason, None, because);
    }
    false
}

/// What the metrics say of everything that was moved, while the old control plane soaks.
fn soaks_well(pass: &mut Pass<'_>, begun: Timestamp, until: Timestamp) -> Opinion {
    let intent = pass.intent;
    if intent.completion.soak_seconds == 0 {
        return Opinion::Passed;
    }
    if pass.run.gate.is_none() {
        let before = pass.run.started_at.unwrap_or(begun);
        analysis::open(pass, &intent.analysis, before, Vec::new());
    }
    let revisions = pass.revisions();
    let moved = pass.plan.waves.iter().flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let all = [Group::Application, Group::Last]
        .into_iter()
        .flat_map(|group| members(intent, pass.snapshot, pair(&revisions), &moved, group))
        .map(|workload| workload.reference.clone())
        .collect();
    analysis::gate(pass, &intent.analysis, "", &all, Some(until))
}

/// No label leads to another revision. That is success only if no proxy is on another one either: namespaces on a revision
/// tag, or whose label was moved before their pods, look the same from a distance.
fn nothing_to_move(pass: &mut Pass<'_>) -> bool {
    let begun = *pass.run.soak_since.get_or_insert(pass.now);
    if !counted(pass, begun) {
        return false;
    }
    if pass.lacks_version() {
        return false;
    }
    let injector = gate::control_plane(pass.snapshot, &pass.intent.istio_namespace, &pass.run.target);
    if let Some(wait) = injector.filter(|_| pass.run.patch) {
        // Without it nobody knows who takes part.
        pass.wait(wait.reason, wait.about, wait.because);
        return false;
    }
    if let Some(moved) = outdated(pass) {
        return moved;
    }
    let target = pass.run.target.clone();
    let is_of_the_addon = |revision: &Revision, workload: &WorkloadRef| {
        gateways::goes_with(pass.intent, pass.snapshot, revision, workload)
    };
    let census = pass.snapshot.census.as_ref().map(|census| census.without(is_of_the_addon, |_| false));
    let others: Vec<String> = census
        .iter()
        .flat_map(|census| &census.proxies)
        .filter(|(namespace, _)| !is_system(pass.intent, namespace))
        .flat_map(|(namespace, counts)| counts.keys().map(move |revision| (namespace, revision)))
        .filter(|(_, revision)| **revision != target && !revision.as_str().is_empty())
        .map(|(namespace, revision)| format!("{namespace} ({revision})"))
        .collect();
    if others.is_empty() {
        let version = pass.wanted().version.map(ToOwned::to_owned);
        return match version {
            Some(version) => {
                finish(pass, &format!("all proxies that can be restarted have the version {version}"))
            }
            None => finish(pass, "nothing had to be moved: no namespace uses another revision"),
        };
    }
    let names: Vec<&str> = others.iter().map(String::as_str).collect();
    let because = format!(
        "no label leads to another revision than {target}, but proxies of another one run in {}: restart what was not \
         restarted since its label changed, and move revision tags with istioctl tag set",
        crate::inventory::some_of(&names)
    );
    pass.wait(WaitReason::RevisionInUse, None, because);
    false
}

/// Patch upgrade: workloads whose proxies are outdated, for example because the injector's image changed on the way, go through
/// a wave of their own. `None` when there are none.
fn outdated(pass: &mut Pass<'_>) -> Option<bool> {
    let revisions = pass.revisions();
    let (version, census) = (pass.wanted().version?, pass.snapshot.census.as_ref()?);
    let old = census.outdated(&revisions.1, version);
    let scope = planning::scope_names(pass.intent, pass.snapshot, pair(&revisions));
    let mut namespaces = BTreeSet::new();
    for group in [Group::Application, Group::Last] {
        for workload in members(pass.intent, pass.snapshot, pair(&revisions), &scope, group) {
            if old.contains_key(&workload.reference) {
                namespaces.insert(workload.reference.namespace.clone());
            }
        }
    }
    if namespaces.is_empty() {
        return None;
    }
    if append(pass, &namespaces) {
        return Some(pass.go(Trigger::StragglersFound));
    }
    let names: Vec<&str> = namespaces.iter().map(NamespaceName::as_str).collect();
    let because = format!(
        "proxies are outdated in {}, and the plan has as many waves as it can: a new spec.runId begins anew",
        crate::inventory::some_of(&names)
    );
    pass.wait(WaitReason::RevisionInUse, None, because);
    Some(false)
}

/// Namespaces that came to the source late, and workloads of the waves that fell back, go through a wave of their own.
fn late(pass: &mut Pass<'_>, begun: Timestamp) -> bool {
    let revisions = pass.revisions();
    let pair = pair(&revisions);
    let mut namespaces = planning::stragglers(pass.intent, pass.snapshot, pair, &pass.plan);
    if let Some(census) =
        pass.snapshot.census.as_ref().filter(|census| census.taken_at.is_some_and(|at| at >= begun))
    {
        // A label that somebody put back is not ours to write again: only namespaces whose label is in place.
        let planned: BTreeSet<NamespaceName> = pass
            .plan
            .waves
            .iter()
            .flat_map(|wave| wave.namespaces.iter().cloned())
            .filter(|name| {
                pass.snapshot.namespaces.get(name).is_some_and(|namespace| {
                    is_relabelled(&namespace.labels, pair.target)
                        || tags::leads_to(pass.snapshot, namespace, pair.target)
                })
            })
            .collect();
        let fallen = census.workloads.get(pair.source);
        for group in [Group::Application, Group::Last] {
            for workload in members(pass.intent, pass.snapshot, pair, &planned, group) {
                let fell_back = fallen.is_some_and(|fallen| fallen.contains_key(&workload.reference));
                // Made while somebody had taken the label, or the target, away.
                if fell_back || census.without_proxy.contains_key(&workload.reference) {
                    namespaces.insert(workload.reference.namespace.clone());
                }
            }
        }
    }
    !namespaces.is_empty() && append(pass, &namespaces) && pass.go(Trigger::StragglersFound)
}

/// Whether a count is there that began after the removal was due. Otherwise one is asked for: since the last one a person may have taken hours
/// to approve, and there is no way back.
pub fn counted_for_removal(pass: &mut Pass<'_>) -> bool {
    let due = *pass.run.removal_due.get_or_insert(pass.now);
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let is_newer = counted.is_some_and(|counted| counted >= due);
    if !is_newer {
        pass.needs.census_since = Some(due);
        pass.wait_for_count("once more what still refers to the source, before it is removed");
    }
    is_newer
}

/// When something last happened to the labels of the plan: pods may have been made on the source until then, so an older
/// count proves nothing. Seen by us, or told by `managedFields`, whose times are whole seconds, rounded down.
fn last_change(pass: &Pass<'_>) -> Timestamp {
    let written = pass
        .plan
        .waves
        .iter()
        .flat_map(|wave| &wave.namespaces)
        .filter_map(|name| injection_written(pass, name))
        .max()
        .map(|at| after(at, 1));
    written.into_iter().chain(pass.run.settled_since).max().unwrap_or(Timestamp::MIN)
}

/// Whether a count is there that began after the soak; otherwise one is asked for.
fn counted(pass: &mut Pass<'_>, since: Timestamp) -> bool {
    let counted = pass.snapshot.census.as_ref().and_then(|census| census.taken_at);
    let Some(counted) = counted.filter(|counted| *counted >= since) else {
        pass.needs.census_since = Some(since);
        pass.wait_for_count("what still refers to the source");
        return false;
    };
    pass.count_again(counted, since);
    true
}

/// All checks pass: the source may go. Whoever installed it removes it, so its absence is the acceptance; where Azure removes it
/// for us, the write that asks for that is.
fn accepted(pass: &mut Pass<'_>) -> bool {
    let source = pass.run.source.clone();
    let namespace = pass.intent.istio_namespace.clone();
    let asked = pass.intent.aks.is_some() && pass.run.cloud == Some(CloudStep::Complete);
    if pass.intent.completion.mode == CompletionMode::Keep && !asked {
        return finish(pass, "the old control plane is kept");
    }
    if pass.intent.aks.is_none() && gate::is_gone(pass.snapshot, &source) {
        return finish(pass, "the old control plane is gone");
    }
    let target = pass.run.target.clone();
    if pass.intent.aks.is_none() && !staying::is_well(pass, &target, &source) {
        return false;
    }
    if !asked && (pass.intent.suspend || pass.run.paused) {
        let (reason, how) = if pass.intent.suspend {
            (WaitReason::Suspended, "spec.suspend is set")
        } else {
            (WaitReason::Paused, "paused by annotation")
        };
        pass.wait(reason, None, format!("{how}: completion waits"));
        return false;
    }
    let may_remove = pass.intent.completion.mode == CompletionMode::Automatic || pass.run.completion_approved;
    if pass.intent.aks.is_some() && (may_remove || asked) {
        return removed_by_cloud(pass);
    }
    if pass.intent.aks.is_some() {
        let because = format!(
            "nothing refers to {source} any more: approve its removal by the annotation that status.actions shows, or set \
             spec.completion.mode to Automatic; Keep ends the run with {source} in place"
        );
        pass.wait(WaitReason::ApprovalRequired, None, because);
        return false;
    }
    let how = gate::removal_command(&namespace, &source, "complete");
    let command = format!(
        "nothing refers to {source} any more: remove it the way it was installed, for example with {how}, or by the commit that \
         takes it out of Git"
    );
    match pass.intent.completion.mode {
        CompletionMode::Manual if !pass.run.completion_approved => pass.wait(
            WaitReason::ApprovalRequired,
            None,
            format!("{command}; spec.completion.mode: Keep ends the run with {source} in place"),
        ),
        CompletionMode::Manual | CompletionMode::Automatic | CompletionMode::Keep => {
            pass.wait(WaitReason::RemovalPending, None, command)
        }
    }
    false
}

/// The source's control plane is ours to remove, and nothing refers to it.
fn removed_by_cloud(pass: &mut Pass<'_>) -> bool {
    if !aks::done(pass, CloudStep::Complete) {
        return false;
    }
    if gate::is_gone(pass.snapshot, &pass.run.source) {
        return finish(pass, "the old control plane is gone");
    }
    let because = format!("Azure has removed {}; its last pods are going", pass.run.source);
    pass.wait(WaitReason::ControlPlaneOperation, None, because);
    false
}

fn finish(pass: &mut Pass<'_>, how: &str) -> bool {
    pass.run.ended_at = Some(pass.now);
    pass.run.soak_since = None;
    pass.run.gate = None;
    pass.needs.census_since = None;
    pass.event(false, "UpgradeSucceeded", None, format!("everything runs on {}: {how}", pass.run.target));
    pass.go(Trigger::Completed)
}
