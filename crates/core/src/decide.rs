//! The entry point of the core.

use jiff::Timestamp;

use crate::conditions::{ConditionStatus, ConditionType};
use crate::decision::{Decision, Event, Wake};
use crate::intent::Intent;
use crate::invariant;
use crate::machine::pass::Pass;
use crate::machine::phase::{Phase, Trigger};
use crate::machine::{aks, back, complete, mesh_config, people, progress, remains, removed, start, wave};
use crate::observed::Snapshot;
use crate::record::{Record, RollbackCause, SCHEMA};
use crate::view;
use crate::wait::{Wait, WaitReason};

/// How many changes of position one call may make.
const MAX_STEPS: usize = 16;

/// Decides what to do now. Total and deterministic: the same arguments give the same result.
///
/// The effects rest on `record` as it was passed in, which must be what is stored.
pub fn decide(now: Timestamp, intent: &Intent, record: &Record, snapshot: &Snapshot) -> Decision {
    let in_progress = record.run.as_ref().is_some_and(|run| run.started_at.is_some() && !run.phase.is_over());
    let frozen = record.plan.as_ref().filter(|_| in_progress).map(|plan| intent.frozen(plan));
    let intent = frozen.as_ref().unwrap_or(intent);
    let mut pass = Pass::new(now, intent, record, snapshot);
    if pass.run.schema > SCHEMA {
        return too_new(pass, record);
    }
    aks::watch(&mut pass);
    removed::watch(&mut pass);
    turn_back_if_asked(&mut pass);
    people::act(&mut pass);
    let mut steps = 0;
    while steps < MAX_STEPS && step(&mut pass) {
        // What was waited for on the way is over.
        pass.waits.clear();
        steps += 1;
    }
    removed::note(&mut pass);
    progress::watch(&mut pass);
    handle_retry(&mut pass);
    let decision = finish(pass, record);
    enforce(now, intent, record, snapshot, decision)
}

/// What a newer operator stored is shown as far as it is understood, and stays as it is.
fn too_new(mut pass: Pass<'_>, record: &Record) -> Decision {
    let because = format!(
        "status was written by a newer version of the operator (its record has schema {}, this version knows {SCHEMA}): run that \
         version again; nothing is written until then",
        pass.run.schema
    );
    pass.wait(WaitReason::RecordTooNew, None, because);
    let decision = finish(pass, record);
    Decision { record: record.clone(), wake: Wake::OnChange, ..decision }
}

/// One step of the phase. Says whether the position changed, so that the next phase gets its turn.
fn step(pass: &mut Pass<'_>) -> bool {
    match pass.run.phase {
        Phase::Pending => pass.go(Trigger::Observed),
        Phase::Preflight => start::preflight(pass),
        Phase::Planned => start::planned(pass),
        Phase::StartingControlPlane => start::control_plane(pass),
        Phase::Migrating => wave::migrate(pass),
        Phase::Soaking => wave::soak(pass),
        Phase::Completing => complete::complete(pass),
        Phase::RollingBack => back::roll_back(pass),
        Phase::Succeeded | Phase::RolledBack => {
            if pass.run.phase == Phase::RolledBack {
                remains::look(pass);
            }
            mesh_config::tidied(pass);
            false
        }
    }
}

/// Rollback is latched when it is first seen, from any phase before the accepted completion.
fn turn_back_if_asked(pass: &mut Pass<'_>) {
    if !pass.can_turn_back() || aks::is_unknown(pass) {
        return;
    }
    if pass.intent.rollback_requested {
        pass.turn_back(RollbackCause::Requested, "spec.rollback.requested is set".into());
    } else if aks::target_was_removed(pass) || removed::target_stays_away(pass) {
        let target = pass.run.target.clone();
        pass.turn_back(
            RollbackCause::TargetRemoved,
            format!("somebody removed the control plane of {target} from the cluster"),
        );
    } else if pass.intent.target == pass.run.source {
        pass.turn_back(
            RollbackCause::TargetReverted,
            "spec.targetRevision was set back to the source".into(),
        );
    }
}

/// A retry is acted on by whatever was blocked in this pass; either way its value is used up.
fn handle_retry(pass: &mut Pass<'_>) {
    if !pass.retry {
        return;
    }
    pass.run.handled_retry.clone_from(&pass.intent.retry);
    pass.run.retries += 1;
    if !pass.events.iter().any(|event| event.reason == "RetryAccepted") {
        pass.event(false, "RetryIgnored", None, "nothing is blocked that a retry could mend");
    }
}

fn finish(mut pass: Pass<'_>, before: &Record) -> Decision {
    if pass.needs.census_since.is_some() && pass.started() {
        let namespaces = pass.plan.waves.iter().flat_map(|wave| wave.namespaces.iter().cloned());
        pass.needs.sidecars_in = namespaces.collect();
    }
    let record = pass.record();
    let view = view::of(&pass);
    let Pass { effects, mut events, effect_events, wake, needs, .. } = pass;
    let changed = record != *before;
    // Effects that rest on facts which are not stored yet come with the next call.
    let covered = record.run == before.run;
    if covered {
        events.extend(effect_events);
    }
    Decision {
        effects: if covered { effects } else { Vec::new() },
        wake: if changed { Wake::Again } else { wake },
        record,
        view,
        events,
        needs,
    }
}

/// A decision that breaks an invariant is a defect of this crate: nothing is written, and a person is told.
fn enforce(
    now: Timestamp,
    intent: &Intent,
    record: &Record,
    snapshot: &Snapshot,
    mut decision: Decision,
) -> Decision {
    let violations = invariant::violations(now, intent, record, snapshot, &decision);
    if violations.is_empty() {
        return decision;
    }
    let because = format!(
        "{}; nothing was written. This is a defect of MeshUpgrade: please report it",
        violations.join("; ")
    );
    let wait = Wait { reason: WaitReason::InvariantViolated, about: None, because: because.clone() };
    decision.effects.clear();
    decision.record = record.clone();
    decision.wake = Wake::OnChange;
    // What is shown is what is stored, not what was refused. What is observed goes on.
    decision.view = view::of(&Pass::new(now, intent, record, snapshot));
    decision.view.message.clone_from(&because);
    decision.view.blocked.insert(0, wait);
    decision.view.conditions.set(
        ConditionType::Stalled,
        ConditionStatus::True,
        "InvariantViolated",
        because.clone(),
    );
    decision.view.conditions.set(
        ConditionType::Ready,
        ConditionStatus::False,
        "InvariantViolated",
        because.clone(),
    );
    decision.events = vec![Event { warning: true, reason: "InvariantViolated", note: because, about: None }];
    decision
}

#[cfg(test)]
mod addon_gateway_tests;
#[cfg(test)]
mod aks_tests;
#[cfg(test)]
mod analysis_tests;
#[cfg(test)]
mod argo_tests;
#[cfg(test)]
mod dropped_tests;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod forward_tests;
#[cfg(test)]
mod gateway_tests;
#[cfg(test)]
mod mesh_config_tests;
#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod removal_tests;
#[cfg(test)]
mod rollback_tests;
#[cfg(test)]
mod tag_service_tests;
#[cfg(test)]
mod tags_tests;
#[cfg(test)]
mod tests;
