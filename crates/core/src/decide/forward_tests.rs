//! The way forward: what starts when, and what is asked of people.

use serde_json::json;

use super::decide;
use super::tests::{app, at, entry, pod, run, stored, turned_back, two_waves};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::conditions::ConditionType;
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::PreviousLabels;
use crate::plan::WaveKind;
use crate::record::Record;
use crate::wait::WaitReason;

/// Both namespaces are relabelled; workloads are added by the test.
fn relabelled() -> Mesh {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    for name in ["shop", "pay"] {
        mesh.namespace(name, |namespace| {
            namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    mesh
}

#[test]
fn an_ordinary_rollout_beside_an_open_batch_asks_nobody() {
    let mut mesh = relabelled();
    app(&mut mesh, "shop", "a", |workload| workload.template.restart = Some("u.1.forward.1".to_owned()));
    pod(&mut mesh, "shop", "a", SOURCE, |_| {});
    // Done an hour ago; its owner has just deployed a new version.
    app(&mut mesh, "shop", "b", |workload| workload.generation = 2);
    pod(&mut mesh, "shop", "b", TARGET, |_| {});
    let open = entry("shop", "a", "1970-01-01T01:00:00Z", false);
    let more = json!({"wave": 1, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z",
        "batch": {"number": 1, "entries": [open]}});
    let record = stored(&mesh, Phase::Migrating, &more);
    let decision = decide(at(3601), &mesh.intent, &record, &mesh.snapshot);
    assert!(!decision.view.conditions.is_true(ConditionType::Stalled), "{}", decision.view.message);
}

#[test]
fn a_batch_of_a_soak_is_watched_while_suspended() {
    let mut mesh = relabelled();
    mesh.plan.waves[1].soak_seconds = 60;
    mesh.intent.on_failure = crate::intent::OnFailure::Automatic;
    mesh.intent.suspend = true;
    app(&mut mesh, "shop", "a", |workload| {
        workload.template.restart = Some("u.1.forward.1".to_owned());
        workload.rollout.available = 0;
    });
    pod(&mut mesh, "shop", "a", TARGET, |pod| pod.ready = false);
    let began = "1970-01-01T00:00:00Z";
    let open = entry("shop", "a", "1970-01-01T00:01:00Z", false);
    let more = json!({"wave": 1, "step": "Proven", "settledSince": began, "soakSince": began,
        "batch": {"number": 1, "entries": [open]}});
    let record = stored(&mesh, Phase::Soaking, &more);
    let decision = decide(at(100_000), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).phase, Phase::RollingBack, "{}", decision.view.message);
}

#[test]
fn what_is_listed_and_not_patched_does_not_start_while_suspended() {
    let mut mesh = relabelled();
    app(&mut mesh, "shop", "a", |_| {});
    pod(&mut mesh, "shop", "a", SOURCE, |_| {});
    let listed = entry("shop", "a", "1970-01-01T01:00:00Z", false);
    let more = json!({"wave": 1, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z",
        "batches": 1, "batch": {"number": 1, "entries": [listed]}});
    let record = stored(&mesh, Phase::Migrating, &more);
    assert_eq!(decide(at(3601), &mesh.intent, &record, &mesh.snapshot).effects.len(), 1);
    mesh.intent.suspend = true;
    let decision = decide(at(3601), &mesh.intent, &record, &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert_eq!(decision.view.blocked[0].reason, WaitReason::Suspended);
}

#[test]
fn a_timeout_of_one_second_is_no_hot_loop() {
    let mut mesh = relabelled();
    mesh.intent.restart.timeout_seconds = 1;
    app(&mut mesh, "pay", "c", |_| {});
    pod(&mut mesh, "pay", "c", SOURCE, |_| {});
    let more = json!({"wave": 0, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z"});
    let first = decide(at(100), &mesh.intent, &stored(&mesh, Phase::Migrating, &more), &mesh.snapshot);
    let second = decide(at(100), &mesh.intent, &first.record, &mesh.snapshot);
    assert_eq!(second.record, first.record);
    assert_eq!(second.effects.len(), 1);
}

#[test]
fn the_plan_is_frozen_by_a_count_that_is_not_old() {
    let mut mesh = Mesh::before();
    let mut record = stored(&mesh, Phase::StartingControlPlane, &json!({}));
    record.run.as_mut().unwrap().started_at = None;
    for (counted, starts) in [(None, false), (Some(1000), false), (Some(9500), true)] {
        mesh.snapshot.census = None;
        if let Some(second) = counted {
            mesh.census(|census| census.taken_at = Some(at(second)));
        }
        let decision = decide(at(10_000), &mesh.intent, &record, &mesh.snapshot);
        assert_eq!(run(&decision).started_at.is_some(), starts, "{counted:?}: {}", decision.view.message);
        assert_eq!(decision.needs.census_since.is_some(), !starts, "{counted:?}");
    }
}

#[test]
fn a_namespace_that_went_on_to_a_third_revision_stays_there() {
    let mut mesh = Mesh::before();
    mesh.add_revision("asm-1-29");
    mesh.intent.source = Some(SOURCE.into());
    mesh.namespace("shop", |namespace| {
        namespace.labels.insert(labels::REVISION.to_owned(), "asm-1-29".to_owned());
        namespace.previous = Some(PreviousLabels {
            from: SOURCE.into(),
            to: TARGET.into(),
            revision: Some(SOURCE.to_owned()),
            ..PreviousLabels::default()
        });
    });
    mesh.census(|census| census.taken_at = Some(at(0)));
    let plan = decide(at(0), &mesh.intent, &Record::default(), &mesh.snapshot).record.plan.unwrap();
    let left: Vec<(&str, &str)> =
        plan.left.iter().map(|left| (left.namespace.as_str(), &*left.reason)).collect();
    assert_eq!(left, [("shop", "OtherRevision")]);
}

#[test]
fn a_namespace_in_two_waves_is_written_once() {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    let mut again = mesh.plan.waves[1].clone();
    again.kind = WaveKind::Stragglers;
    mesh.plan.waves.push(again);
    mesh.namespace("shop", |namespace| {
        namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
    });
    let mut turned = turned_back();
    turned["fromWave"] = json!(2);
    let record = stored(&mesh, Phase::RollingBack, &json!({"rollback": turned, "wave": 2}));
    assert_eq!(decide(at(10), &mesh.intent, &record, &mesh.snapshot).effects.len(), 1);
}

#[test]
fn a_rollback_after_the_source_is_gone_is_answered() {
    let mut mesh = Mesh::after();
    mesh.proxies("shop", SOURCE, 1);
    mesh.intent.rollback_requested = true;
    mesh.snapshot.control_planes.remove(&crate::ids::Revision::from(SOURCE));
    mesh.snapshot.webhooks.retain(|webhook| webhook.revision != Some(SOURCE.into()));
    let began = "1970-01-01T00:00:00Z";
    let record =
        stored(&mesh, Phase::Completing, &json!({"wave": 1, "soakSince": began, "settledSince": began}));
    let decision = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(run(&decision).rollback, None);
    assert!(
        decision.view.message.contains("spec.rollback.requested changes nothing"),
        "{}",
        decision.view.message
    );
}

/// Pods that come out wrong for another reason than a label that was astray must not be restarted for ever.
#[test]
fn a_restart_is_repeated_once_by_itself() {
    let mut mesh = relabelled();
    let attempts = |mesh: &mut Mesh, more: serde_json::Value, stamp: &str| {
        mesh.snapshot.workloads.clear();
        mesh.snapshot.pods.clear();
        app(mesh, "shop", "a", |workload| workload.template.restart = Some(stamp.to_owned()));
        pod(mesh, "shop", "a", SOURCE, |pod| pod.restart = Some(stamp.to_owned()));
        let open = entry("shop", "a", "1970-01-01T00:01:00Z", false);
        let mut position = json!({"wave": 1, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z",
            "batch": {"number": 1, "entries": [open]}});
        position.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let record = stored(mesh, Phase::Migrating, &position);
        run(&decide(at(100), &mesh.intent, &record, &mesh.snapshot)).restart_attempts.clone()
    };
    let key = "Deployment/shop/a";
    assert_eq!(attempts(&mut mesh, json!({}), "u.1.forward.1").get(key), Some(&2));
    assert_eq!(attempts(&mut mesh, json!({"restartAttempts": {key: 2}}), "u.1.forward.2").get(key), Some(&2));
}

/// The API server refuses this; an object that an older definition let in must not move the goal either.
#[test]
fn a_third_target_in_mid_run_changes_nothing() {
    let mut mesh = relabelled();
    mesh.add_revision("asm-1-29");
    mesh.intent.target = "asm-1-29".into();
    let record = stored(&mesh, Phase::Migrating, &json!({}));
    let decision = decide(at(100), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!((run(&decision).source.as_str(), run(&decision).target.as_str()), (SOURCE, TARGET));
    let caught = decision.view.blocked.iter().any(|wait| wait.reason == WaitReason::InvariantViolated);
    assert!(!caught, "only the invariant held it: {}", decision.view.message);
}
