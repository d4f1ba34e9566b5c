use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::labels;
use crate::observed::OtherUpgrade;
use crate::record::Run;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What is stored of a run in this phase, with the mesh's plan.
fn stored(mesh: &Mesh, phase: Phase, more: &Value) -> Record {
    let mut run = json!({
        "schema": SCHEMA, "counter": 1, "source": SOURCE, "target": TARGET, "phase": phase,
        "startedAt": "1969-12-31T00:00:00Z",
    });
    run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let run = serde_json::from_value::<Run>(run).unwrap();
    Record { plan: Some(mesh.plan.clone()), run: Some(run), ..Record::default() }
}

fn turned_back() -> Value {
    json!({"cause": "Requested", "message": "asked for", "since": "1969-12-31T00:00:00Z", "fromWave": 0})
}

fn run(decision: &Decision) -> &Run {
    decision.record.run.as_ref().unwrap()
}

#[test]
fn what_a_newer_operator_stored_is_left_alone() {
    let mesh = Mesh::before();
    let record = stored(&mesh, Phase::Migrating, &json!({"schema": SCHEMA + 1}));
    let decision = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert_eq!(decision.record, record);
    assert_eq!(decision.view.conditions.get(ConditionType::Stalled).unwrap().reason, "RecordTooNew");
    let known = stored(&mesh, Phase::Migrating, &json!({}));
    let decision = decide(NOW, &mesh.intent, &known, &mesh.snapshot);
    assert_eq!(decision.effects.len(), 2, "both namespaces of the wave are relabelled");
}

#[test]
fn a_rollback_that_is_requested_after_the_end_is_answered() {
    let mut mesh = Mesh::after();
    mesh.intent.rollback_requested = true;
    let record = stored(&mesh, Phase::Succeeded, &json!({}));
    let decision = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::Succeeded);
    assert!(decision.view.message.contains("came too late"), "{}", decision.view.message);
    assert!(decision.view.message.contains("spec.targetRevision to asm-1-27"), "{}", decision.view.message);
}

#[test]
fn a_revision_that_namespaces_use_is_not_to_be_removed_after_a_rollback() {
    let mut mesh = Mesh::before();
    mesh.namespace("pay", |namespace| {
        namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
    });
    let record = stored(&mesh, Phase::RolledBack, &json!({"rollback": turned_back()}));
    let message = decide(NOW, &mesh.intent, &record, &mesh.snapshot).view.message;
    assert!(message.contains("asm-1-28 stays in use by pay"), "{message}");
    let mesh = Mesh::before();
    let message = decide(NOW, &mesh.intent, &record, &mesh.snapshot).view.message;
    assert!(message.contains("helm uninstall istiod-asm-1-28"), "{message}");
}

#[test]
fn another_upgrade_in_its_run_holds_back_a_rollback_too() {
    let mut mesh = Mesh::before();
    mesh.census(|census| census.taken_at = Some(NOW));
    mesh.intent.rollback_requested = true;
    let other = OtherUpgrade { name: "other".to_owned(), active: true, goes_first: false };
    mesh.snapshot.other_upgrades.push(other);
    let decision = decide(NOW, &mesh.intent, &Record::default(), &mesh.snapshot);
    assert_eq!((run(&decision).phase, run(&decision).rollback.as_ref()), (Phase::Preflight, None));
    assert_eq!(decision.view.blocked[0].reason, WaitReason::OtherUpgradeActive);
    mesh.snapshot.other_upgrades.clear();
    let decision = decide(NOW, &mesh.intent, &Record::default(), &mesh.snapshot);
    assert!(run(&decision).rollback.is_some());
}

#[test]
fn nothing_ends_without_a_count() {
    let mut mesh = Mesh::after();
    mesh.intent.completion.mode = crate::intent::CompletionMode::Keep;
    let record = stored(&mesh, Phase::Completing, &json!({"soakSince": "1969-12-31T00:00:00Z"}));
    mesh.snapshot.census = None;
    let decision = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::Completing);
    assert_eq!(decision.view.blocked[0].reason, WaitReason::Observing);
    mesh.census(|census| census.taken_at = Some(NOW));
    let decision = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::Succeeded);
}

#[test]
fn a_refused_decision_shows_what_is_stored() {
    let mesh = Mesh::before();
    let record = stored(&mesh, Phase::Migrating, &json!({"wave": 0}));
    let mut bad = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    bad.record.run.as_mut().unwrap().phase = Phase::Succeeded;
    bad.view.phase = Phase::Succeeded;
    bad.view.conditions.set(ConditionType::Succeeded, ConditionStatus::True, "UpgradeSucceeded", "");
    let shown = enforce(NOW, &mesh.intent, &record, &mesh.snapshot, bad);
    assert_eq!(shown.record, record);
    assert_eq!(shown.view.phase, Phase::Migrating);
    assert!(!shown.view.conditions.is_true(ConditionType::Succeeded));
    assert_eq!(shown.view.conditions.get(ConditionType::Stalled).unwrap().reason, "InvariantViolated");
    assert!(shown.effects.is_empty());
}

/// The older a wait for a person, the rarer the whole cluster is read.
#[test]
fn counts_become_rarer_the_longer_they_prove_nothing() {
    let mut mesh = Mesh::after();
    let at = |second| Timestamp::from_second(second).unwrap();
    let began = "1970-01-01T00:00:00Z";
    let record = stored(&mesh, Phase::Completing, &json!({"soakSince": began, "settledSince": began}));
    for (counted, gap) in [(0, 0), (100, 10), (100_000, 300)] {
        mesh.census(|census| census.taken_at = Some(at(counted)));
        let early = decide(at(counted + gap - 1), &mesh.intent, &record, &mesh.snapshot);
        let due = decide(at(counted + gap), &mesh.intent, &record, &mesh.snapshot);
        assert_eq!(due.needs.census_since.map(|since| since > at(counted)), Some(true));
        if gap > 0 {
            assert_eq!((early.needs.census_since, early.wake), (None, Wake::At(at(counted + gap))));
        }
    }
}
