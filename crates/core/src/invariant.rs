//! Safety properties of one decision, checked in release builds too. A decision that breaks one writes nothing.
//! Numbers are those of the project's list of invariants.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::aks::gateways;
use crate::aks::seen::SetRevisions;
use crate::decision::Decision;
use crate::effect::{Effect, MeshConfigChange, MeshConfigEdit, MoveTag, MoveTagService};
use crate::gate;
use crate::ids::{NamespaceName, Revision, WorkloadKind};
use crate::intent::Intent;
use crate::machine::people;
use crate::machine::phase::Phase;
use crate::mesh_config::map_of;
use crate::observed::Snapshot;
use crate::plan::Plan;
use crate::record::{Batch, CloudStep, MAX_BATCH, Record, Run};
use crate::window::{Opening, opening};

/// What a decision breaks; empty when it is fine.
pub fn violations(
    now: Timestamp,
    intent: &Intent,
    before: &Record,
    snapshot: &Snapshot,
    decision: &Decision,
) -> Vec<String> {
    let mut found = Vec::new();
    let Some(run) = &decision.record.run else {
        return vec!["I3: a decision without a run".into()];
    };
    batch_is_bounded(before, run, decision, &mut found);
    position_never_goes_back(before, run, &mut found);
    held_opens_nothing(now, intent, before, run, &mut found);
    success_is_proven(intent, before, run, snapshot, &mut found);
    effects_stay_in_the_plan(intent, before, snapshot, decision, &mut found);
    found
}

fn batch_is_bounded(before: &Record, run: &Run, decision: &Decision, found: &mut Vec<String>) {
    let Some(batch) = &run.batch else { return };
    // Failed workloads that are passed over stay open beside the allowed number. How many may fail can change on the way.
    let open = |batch: &Batch| batch.entries.iter().filter(|entry| !entry.timed_out).count();
    let old = before.run.as_ref().filter(|old| old.counter == run.counter);
    let before = old.and_then(|old| old.batch.as_ref()).map_or(0, open);
    let open = open(batch);
    let allowed = decision
        .record
        .plan
        .as_ref()
        .and_then(|plan| plan.waves.get(usize::try_from(run.wave).ok()?))
        .map_or(MAX_BATCH, |wave| usize::try_from(wave.max_concurrent).unwrap_or(MAX_BATCH));
    if (open > allowed && open > before) || batch.entries.len() > MAX_BATCH {
        found.push(format!("I3: {open} workloads open, {allowed} allowed"));
    }
}

fn position_never_goes_back(before: &Record, run: &Run, found: &mut Vec<String>) {
    let Some(old) = before.run.as_ref().filter(|old| old.counter == run.counter) else {
        return;
    };
    let latched = old.rollback.as_ref().is_some_and(|rollback| !rollback.wave_only);
    if latched && run.rollback.as_ref().is_none_or(|rollback| rollback.wave_only) {
        found.push("I11: a rollback was turned forward again".into());
    }
    if run.rollback.is_none() && run.wave < old.wave {
        found.push(format!("I11: wave {} after wave {}", run.wave, old.wave));
    }
    if old.started_at.is_some() && (old.source != run.source || old.target != run.target) {
        found.push("I11: source or target changed in mid-run".into());
    }
}

fn held_opens_nothing(now: Timestamp, intent: &Intent, before: &Record, run: &Run, found: &mut Vec<String>) {
    let closed = matches!(opening(&intent.windows, now), Opening::Closed(_));
    if run.rollback.is_some() || !(intent.suspend || intent.plan_only || run.paused || closed) {
        return;
    }
    let batches = before.run.as_ref().filter(|old| old.counter == run.counter).map_or(0, |old| old.batches);
    if run.batches > batches {
        found.push(
            "I12: a batch was opened while spec.suspend or spec.planOnly is set, or no window is open".into(),
        );
    }
}

fn success_is_proven(
    intent: &Intent,
    before: &Record,
    run: &Run,
    snapshot: &Snapshot,
    found: &mut Vec<String>,
) {
    let was_over = before.run.as_ref().is_some_and(|old| old.counter == run.counter && old.phase.is_over());
    if run.phase != Phase::Succeeded || was_over || run.source == run.target {
        return;
    }
    // Who skips the check by name takes it on himself; status says so.
    let skipped = intent.skip_checks.contains("ProxiesMoved");
    match &snapshot.census {
        Some(census)
            if skipped
                || census.workloads.get(&run.source).is_none_or(|workloads| {
                    workloads
                        .keys()
                        .all(|workload| gateways::goes_with(intent, snapshot, &run.source, workload))
                }) => {}
        _ => found.push(format!("I4: success, though workloads are on {} or were not counted", run.source)),
    }
}

fn effects_stay_in_the_plan(
    intent: &Intent,
    before: &Record,
    snapshot: &Snapshot,
    decision: &Decision,
    found: &mut Vec<String>,
) {
    let (Some(run), Some(plan)) = (&before.run, &before.plan) else {
        if !decision.effects.is_empty() {
            found.push("I13: a write before the plan is stored".into());
        }
        return;
    };
    let planned: BTreeSet<&NamespaceName> = plan.waves.iter().flat_map(|wave| &wave.namespaces).collect();
    for effect in &decision.effects {
        let (namespace, stamp) = match effect {
            Effect::Relabel(relabel) => (&relabel.namespace, &relabel.stamp),
            Effect::Restart(restart) => (&restart.workload.namespace, &restart.stamp),
            Effect::Gateway(label) => (&label.gateway.namespace, &label.stamp),
            Effect::Tag(change) => {
                let last = snapshot.webhooks.iter().find(|webhook| webhook.name == change.webhook);
                let last = last.and_then(|webhook| webhook.relabelled_by.as_deref());
                let MoveTag { tag, revision, stamp, .. } = change;
                tag_move_is_due(intent, run, plan, &TagWrite { tag, revision, stamp, last }, found);
                continue;
            }
            Effect::TagService(change) => {
                let mut services = snapshot.istiod_services.iter().flatten();
                let last = services.find(|service| service.reference == change.service);
                let last = last.and_then(|service| service.relabelled_by.as_deref());
                let MoveTagService { tag, revision, stamp, .. } = change;
                tag_move_is_due(intent, run, plan, &TagWrite { tag, revision, stamp, last }, found);
                continue;
            }
            Effect::SetRevisions(change) => {
                cloud_change_is_due(intent, run, change, found);
                continue;
            }
            Effect::MeshConfig(change) => {
                mesh_config_change_is_due(intent, run, snapshot, change, found);
                continue;
            }
        };
        if run.started_at.is_none() || run.phase.is_over() || !planned.contains(namespace) {
            found.push(format!("I13: a write to {namespace}, which is not part of the stored plan"));
        }
        match effect {
            Effect::Relabel(relabel) => {
                let seen = snapshot.namespaces.get(namespace).and_then(|seen| seen.relabelled_by.as_ref());
                if seen == Some(&relabel.stamp) {
                    found.push(format!("I15: {namespace} would be relabelled twice"));
                }
                let to = relabel.revision.as_ref();
                let wave =
                    plan.waves.iter().zip(0u32..).find(|(wave, _)| wave.namespaces.contains(namespace));
                let approved = wave.is_none_or(|(_, index)| people::is_approved(intent, run, plan, index));
                if run.rollback.is_none() && !approved {
                    found.push(format!("I12: {namespace} would be relabelled before its wave is approved"));
                }
                if run.rollback.is_none() && to != Some(&run.target) {
                    found.push(format!("I7: {namespace} would get a label that is not the target's"));
                }
            }
            Effect::Tag(_) | Effect::TagService(_) | Effect::SetRevisions(_) | Effect::MeshConfig(_) => {}
            Effect::Gateway(label) => {
                let gateway = &label.gateway;
                let seen = snapshot.gateways.get(gateway).and_then(|seen| seen.relabelled_by.as_ref());
                if seen == Some(&label.stamp) {
                    found.push(format!("I15: {gateway} would be relabelled twice"));
                }
                let mut open = run.batch.iter().flat_map(|batch| &batch.entries);
                if label.workload.as_ref().is_some_and(|moved| open.all(|entry| entry.workload != *moved)) {
                    found.push(format!("I3: the Deployment of {gateway} is not in the stored batch"));
                }
            }
            Effect::Restart(restart) => {
                let mut open = run.batch.iter().flat_map(|batch| &batch.entries);
                let stored = open.any(|entry| {
                    entry.workload == restart.workload
                        && entry.uid == restart.uid
                        && entry.restart_at == restart.restart_at
                });
                let complete =
                    (restart.workload.kind == WorkloadKind::Rollout) == restart.restart_at.is_some();
                if !stored || !complete {
                    found.push(format!("I3: {} is not in the stored batch", restart.workload));
                }
            }
        }
        if !stamp.starts_with(intent.uid.as_str()) {
            found.push(format!("I13: a stamp of another object: {stamp}"));
        }
    }
}

/// A write to an object of a revision tag: where it goes, and the stamps of this write and of the last one.
struct TagWrite<'a> {
    tag: &'a str,
    revision: &'a Revision,
    stamp: &'a str,
    last: Option<&'a str>,
}

/// A revision tag is moved with its wave, to where the run goes, and once.
fn tag_move_is_due(intent: &Intent, run: &Run, plan: &Plan, change: &TagWrite<'_>, found: &mut Vec<String>) {
    let mut waves = (0u32..).zip(&plan.waves);
    let wave = waves.find(|(_, wave)| wave.tag.as_deref() == Some(change.tag)).map(|(index, _)| index);
    if run.started_at.is_none() || run.phase.is_over() || wave.is_none() {
        found.push(format!("I13: revision tag {} is not part of the stored plan", change.tag));
    }
    if run.rollback.is_none() && wave.is_some_and(|wave| !people::is_approved(intent, run, plan, wave)) {
        found.push(format!("I12: revision tag {} would be moved before its wave is approved", change.tag));
    }
    if change.revision != run.destination() {
        found.push(format!("I7: revision tag {} would not be moved to where the run goes", change.tag));
    }
    if change.last == Some(change.stamp) {
        found.push(format!("I15: revision tag {} would be moved twice", change.tag));
    }
    if !change.stamp.starts_with(intent.uid.as_str()) {
        found.push(format!("I13: a stamp of another object: {}", change.stamp));
    }
}

/// The shared mesh configuration of the target comes before anything moves; one goes after its control plane, and no other.
fn mesh_config_change_is_due(
    intent: &Intent,
    run: &Run,
    snapshot: &Snapshot,
    change: &MeshConfigChange,
    found: &mut Vec<String>,
) {
    let of = |revision| change.map == map_of(&intent.istio_namespace, revision);
    let due = match (&change.edit, run.phase) {
        (MeshConfigEdit::Create { .. }, Phase::StartingControlPlane) => {
            run.started_at.is_some() && of(&run.target)
        }
        (MeshConfigEdit::Delete { .. }, Phase::Succeeded) => {
            of(&run.source) && gate::is_gone(snapshot, &run.source)
        }
        (MeshConfigEdit::Delete { .. }, Phase::RolledBack) => {
            of(&run.target) && gate::is_gone(snapshot, &run.target)
        }
        _ => false,
    };
    if !due || !intent.is_addon() {
        found.push(format!("I13: a write to {} in phase {}", change.map, run.phase));
    }
    if !change.stamp.starts_with(intent.uid.as_str()) {
        found.push(format!("I13: a stamp of another object: {}", change.stamp));
    }
}

/// A change of the control planes is stored before it is asked for, and takes nothing away before its time.
fn cloud_change_is_due(intent: &Intent, run: &Run, change: &SetRevisions, found: &mut Vec<String>) {
    let phase = match run.cloud {
        None => {
            found.push("I13: a change of control planes that is not stored".into());
            return;
        }
        Some(CloudStep::Start) => Phase::StartingControlPlane,
        Some(CloudStep::Complete) => Phase::Completing,
        Some(CloudStep::Rollback) => Phase::RollingBack,
    };
    let pair = [&run.source, &run.target];
    let strange = change.wanted.iter().chain(&change.expected).any(|revision| !pair.contains(&revision));
    if run.phase != phase || run.started_at.is_none() || strange || change.wanted.is_empty() {
        found.push(format!("I4: the control planes {:?} in phase {}", change.wanted, run.phase));
    }
    if !change.stamp.starts_with(intent.uid.as_str()) {
        found.push(format!("I13: a stamp of another object: {}", change.stamp));
    }
}
