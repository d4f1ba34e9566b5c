use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::check::fixture::{Mesh, SOURCE, TARGET, map};
use crate::ids::{WorkloadKind, WorkloadRef};
use crate::labels;
use crate::observed::{OtherUpgrade, Owner, Pod, Proxy, RolloutStatus, Workload};
use crate::plan::PlannedWave;
use crate::record::Run;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What is stored of a run in this phase, with the mesh's plan.
pub(super) fn stored(mesh: &Mesh, phase: Phase, more: &Value) -> Record {
    let mut run = json!({
        "schema": SCHEMA, "counter": 1, "source": SOURCE, "target": TARGET, "phase": phase,
        "startedAt": "1969-12-31T00:00:00Z",
    });
    run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let run = serde_json::from_value::<Run>(run).unwrap();
    Record { plan: Some(mesh.plan.clone()), run: Some(run), ..Record::default() }
}

pub(super) fn turned_back() -> Value {
    json!({"cause": "Requested", "message": "asked for", "since": "1969-12-31T00:00:00Z", "fromWave": 0})
}

pub(super) fn run(decision: &Decision) -> &Run {
    decision.record.run.as_ref().unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn reference(namespace: &str, name: &str) -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::Deployment, namespace, name)
}

/// A Deployment of one pod whose rollout is over.
pub(super) fn app(mesh: &mut Mesh, namespace: &str, name: &str, change: impl FnOnce(&mut Workload)) {
    mesh.add_workload(namespace, name, &[]);
    let workload = Arc::make_mut(mesh.snapshot.workloads.get_mut(&reference(namespace, name)).unwrap());
    workload.rollout = RolloutStatus {
        observed_generation: 1,
        current: 1,
        updated: 1,
        ready: 1,
        available: 1,
        deadline_exceeded: false,
        create_failure: None,
    };
    change(workload);
}

/// A ready pod of a Deployment.
pub(super) fn pod(
    mesh: &mut Mesh,
    namespace: &str,
    app: &str,
    revision: &str,
    change: impl FnOnce(&mut Pod),
) {
    let owner = Owner { kind: "ReplicaSet".into(), name: format!("{app}-h"), group: "apps".into() };
    let mut pod = Pod {
        namespace: namespace.into(),
        name: format!("{app}-h-1"),
        controller: Some(owner),
        labels: map(&[("pod-template-hash", "h")]),
        proxy: Some(Proxy { revision: Some(revision.into()), ..Proxy::default() }),
        ready: true,
        ..Pod::default()
    };
    change(&mut pod);
    mesh.snapshot.pods.entry(namespace.into()).or_default().push(Arc::new(pod));
}

/// The canary `pay`, one at a time, and then `shop`, three at a time.
pub(super) fn two_waves(mesh: &mut Mesh) {
    let wave = |name: &str, namespace: &str, workloads, max_concurrent| PlannedWave {
        name: name.to_owned(),
        namespaces: vec![namespace.into()],
        workloads,
        max_concurrent,
        ..PlannedWave::default()
    };
    mesh.plan.waves = vec![wave("canary", "pay", 1, 1), wave("shops", "shop", 2, 3)];
    mesh.plan.workloads = 3;
}

/// An entry of the batch.
pub(super) fn entry(namespace: &str, name: &str, since: &str, timed_out: bool) -> Value {
    json!({
        "kind": "Deployment", "namespace": namespace, "name": name, "uid": name, "since": since, "timedOut": timed_out,
    })
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
    let mut mesh = Mesh::before();
    mesh.census(|_| {});
    let told = |mesh: &Mesh| decide(NOW, &mesh.intent, &record, &mesh.snapshot).view.message;
    assert!(told(&mesh).contains("nothing uses asm-1-28 any more: remove it"), "{}", told(&mesh));
    assert!(told(&mesh).contains("helm uninstall istiod-asm-1-28"), "{}", told(&mesh));
    // Without namespaces it may be in use as well.
    mesh.add_tag("prod", TARGET);
    let tagged = told(&mesh);
    assert!(
        tagged.contains("before asm-1-28 is removed: TagsMoved") && !tagged.contains("helm uninstall"),
        "{tagged}"
    );
    // What is to be mended is looked at again: often for a day, and seldom after that.
    mesh.census(|census| census.taken_at = Some(at(10)));
    let ended = stored(&mesh, Phase::RolledBack, &json!({"rollback": turned_back(), "endedAt": at(5)}));
    let looks = |now| decide(at(now), &mesh.intent, &ended, &mesh.snapshot).needs.census_since.is_some();
    assert!(looks(1000) && looks(100_000));
    mesh.census(|census| census.taken_at = Some(at(99_000)));
    let looks = |now| decide(at(now), &mesh.intent, &ended, &mesh.snapshot).needs.census_since.is_some();
    assert!(!looks(100_000) && looks(102_600));
    let mut mesh = Mesh::before();
    mesh.census(|_| {});
    mesh.plane(SOURCE, |plane| plane.istiod.as_mut().unwrap().ready = 0);
    assert!(told(&mesh).contains("before asm-1-28 is removed: 0 of"), "{}", told(&mesh));
    mesh.snapshot.census = None;
    let counting = decide(NOW, &mesh.intent, &record, &mesh.snapshot);
    assert!(counting.view.message.contains("is being counted"), "{}", counting.view.message);
    assert!(counting.needs.census_since.is_some());
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
