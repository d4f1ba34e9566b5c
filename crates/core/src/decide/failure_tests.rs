//! What fails a workload, how many may fail, and how long a wave may take.

use serde_json::json;

use super::decide;
use super::tests::{app, at, entry, pod, run, stored, two_waves};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::decision::Decision;
use crate::effect::Effect;
use crate::intent::{OnFailure, RollbackScope, Verb};
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::PodProblem;
use crate::record::{Record, RollbackCause};
use crate::wait::WaitReason;

const BEGAN: &str = "1970-01-01T00:00:00Z";
const LONG_AGO: &str = "1969-12-31T00:00:00Z";
const STAMP: &str = "u.1.forward.1";

/// The wave `shop`: `a` is in rollout and its new pod has a problem; `b` has to be restarted.
fn troubled(reason: &str) -> (Mesh, Record) {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    for name in ["shop", "pay"] {
        mesh.namespace(name, |namespace| {
            namespace.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    mesh.plan.waves[1].max_concurrent = 1;
    app(&mut mesh, "shop", "a", |workload| {
        workload.template.restart = Some(STAMP.to_owned());
        workload.rollout.available = 0;
    });
    pod(&mut mesh, "shop", "a", TARGET, |pod| {
        pod.ready = false;
        pod.restart = Some(STAMP.to_owned());
        pod.problem = Some(PodProblem { reason: reason.to_owned(), message: format!("it is {reason}") });
    });
    app(&mut mesh, "shop", "b", |_| {});
    pod(&mut mesh, "shop", "b", SOURCE, |_| {});
    let batch = json!({"number": 1, "openedAt": BEGAN, "entries": [entry("shop", "a", BEGAN, false)]});
    let record = stored(
        &mesh,
        Phase::Migrating,
        &json!({"wave": 1, "step": "Restart", "settledSince": LONG_AGO, "batches": 1, "batch": batch}),
    );
    (mesh, record)
}

fn next(mesh: &Mesh, record: &Record, second: i64) -> Decision {
    decide(at(second), &mesh.intent, record, &mesh.snapshot)
}

fn reasons(decision: &Decision) -> Vec<WaitReason> {
    decision.view.blocked.iter().map(|wait| wait.reason).collect()
}

#[test]
fn what_cannot_heal_fails_at_once() {
    let (mesh, record) = troubled("InvalidImageName");
    let failed = next(&mesh, &record, 10);
    assert!(run(&failed).batch.as_ref().unwrap().entries[0].timed_out);
    assert!(failed.view.message.contains("it is InvalidImageName"), "{}", failed.view.message);
    assert!(failed.events.iter().any(|event| event.reason == "WorkloadFailed"));
}

#[test]
fn what_may_heal_fails_after_its_grace() {
    let (mesh, record) = troubled("Unschedulable");
    let seen = next(&mesh, &record, 10);
    assert!(reasons(&seen).contains(&WaitReason::RolloutTroubled), "{:?}", reasons(&seen));
    assert!(seen.view.message.contains("it has until 1970-01-01T00:01:10Z to heal"), "{}", seen.view.message);
    assert!(!run(&next(&mesh, &seen.record, 69)).batch.as_ref().unwrap().entries[0].timed_out);
    assert!(run(&next(&mesh, &seen.record, 70)).batch.as_ref().unwrap().entries[0].timed_out);
}

#[test]
fn what_healed_has_its_whole_grace_again() {
    let (mesh, record) = troubled("ImagePullBackOff");
    let seen = next(&mesh, &record, 10);
    let (well, _) = troubled("");
    let healed = next(&well, &seen.record, 60);
    assert_eq!(run(&healed).batch.as_ref().unwrap().entries[0].troubled_since, None);
    let again = next(&mesh, &healed.record, 80);
    assert!(!run(&again).batch.as_ref().unwrap().entries[0].timed_out);
}

#[test]
fn an_old_pod_that_is_unwell_is_not_the_restarts_fault() {
    let (mut mesh, record) = troubled("InvalidImageName");
    let pods = mesh.snapshot.pods.get_mut(&"shop".into()).unwrap();
    std::sync::Arc::make_mut(&mut pods[0]).restart = None;
    let decision = next(&mesh, &record, 10);
    assert!(!run(&decision).batch.as_ref().unwrap().entries[0].timed_out);
}

#[test]
fn as_many_workloads_may_fail_as_are_tolerated() {
    let (mut mesh, record) = troubled("InvalidImageName");
    let stops = next(&mesh, &next(&mesh, &record, 10).record, 11);
    assert_eq!(run(&stops).batch.as_ref().unwrap().entries.len(), 1, "by default none");
    assert!(reasons(&stops).contains(&WaitReason::WorkloadFailed));
    mesh.intent.restart.max_failed_workloads = 1;
    mesh.intent.on_failure = OnFailure::Automatic;
    let goes_on = next(&mesh, &next(&mesh, &record, 10).record, 11);
    let entries = &run(&goes_on).batch.as_ref().unwrap().entries;
    assert_eq!(entries.len(), 2, "{}", goes_on.view.message);
    assert!(reasons(&goes_on).contains(&WaitReason::WorkloadPassedOver), "{:?}", reasons(&goes_on));
    assert_eq!(run(&goes_on).phase, Phase::Migrating);
    mesh.intent.restart.max_failed_workloads = 0;
    assert_eq!(run(&next(&mesh, &record, 10)).phase, Phase::RollingBack);
}

#[test]
fn a_failure_that_is_tolerated_holds_the_end_of_its_wave() {
    let (mut mesh, record) = troubled("InvalidImageName");
    mesh.intent.restart.max_failed_workloads = 1;
    mesh.snapshot.workloads.remove(&super::tests::reference("shop", "b"));
    let decision = next(&mesh, &record, 10);
    assert_eq!(run(&decision).wave, 1);
    assert!(reasons(&decision).contains(&WaitReason::WorkloadFailed), "{:?}", reasons(&decision));
}

#[test]
fn a_retry_can_be_for_one_workload() {
    let (mut mesh, record) = troubled("InvalidImageName");
    let failed = next(&mesh, &record, 10).record;
    let troubled_pod = mesh.snapshot.pods.get_mut(&"shop".into()).unwrap();
    std::sync::Arc::make_mut(&mut troubled_pod[0]).problem = None;
    mesh.intent.retry = Some("Deployment/shop/other#1".to_owned());
    let other = next(&mesh, &failed, 20);
    assert!(run(&other).batch.as_ref().unwrap().entries[0].timed_out);
    mesh.intent.retry = Some("Deployment/shop/a#2".to_owned());
    let retried = next(&mesh, &other.record, 21);
    assert!(!run(&retried).batch.as_ref().unwrap().entries[0].timed_out, "{:?}", retried.events);
}

#[test]
fn a_retry_is_offered_while_something_is_stuck() {
    let is_offered =
        |decision: &Decision| decision.view.actions.iter().any(|offer| offer.verb == Verb::Retry);
    let (mesh, record) = troubled("Unschedulable");
    let may_heal = next(&mesh, &record, 10);
    assert!(reasons(&may_heal).contains(&WaitReason::RolloutTroubled) && !is_offered(&may_heal));
    let (mut mesh, record) = troubled("InvalidImageName");
    assert!(is_offered(&next(&mesh, &next(&mesh, &record, 10).record, 11)));
    mesh.intent.restart.max_failed_workloads = 1;
    let goes_on = next(&mesh, &next(&mesh, &record, 10).record, 11);
    assert!(reasons(&goes_on).contains(&WaitReason::WorkloadPassedOver) && is_offered(&goes_on));
}

#[test]
fn a_wave_has_a_deadline() {
    let (mut mesh, record) = troubled("");
    mesh.intent.restart.progress_deadline_seconds = Some(100);
    let mut begun = next(&mesh, &record, 10).record;
    for second in [22, 34, 46, 58, 70, 82, 94, 106] {
        begun = next(&mesh, &begun, second).record;
    }
    let in_time = next(&mesh, &begun, 109);
    assert!(!reasons(&in_time).contains(&WaitReason::ProgressDeadlineExceeded));
    let over = next(&mesh, &begun, 110);
    assert!(reasons(&over).contains(&WaitReason::ProgressDeadlineExceeded), "{:?}", reasons(&over));
    mesh.intent.on_failure = OnFailure::Automatic;
    let back = next(&mesh, &begun, 110);
    assert_eq!(run(&back).rollback.as_ref().unwrap().cause, RollbackCause::ProgressDeadlineExceeded);
}

#[test]
fn time_for_people_does_not_count_against_a_wave() {
    let (mut mesh, _) = troubled("");
    mesh.intent.restart.progress_deadline_seconds = Some(100);
    mesh.snapshot.workloads.remove(&super::tests::reference("shop", "a"));
    let more = json!({"wave": 1, "step": "Restart", "settledSince": LONG_AGO});
    let record = stored(&mesh, Phase::Migrating, &more);
    mesh.intent.suspend = true;
    let paused = next(&mesh, &record, 10).record;
    let long_after = next(&mesh, &paused, 5000);
    assert!(!reasons(&long_after).contains(&WaitReason::ProgressDeadlineExceeded));
    mesh.intent.suspend = false;
    let goes_on = next(&mesh, &long_after.record, 5001);
    let progress = run(&goes_on).progress.as_ref().unwrap();
    assert_eq!((progress.since, progress.paused_at), (at(5001), None));
}

#[test]
fn nothing_new_starts_after_the_deadline_until_a_retry() {
    let (mut mesh, _) = troubled("");
    mesh.intent.restart.progress_deadline_seconds = Some(100);
    mesh.snapshot.workloads.remove(&super::tests::reference("shop", "a"));
    let progress = json!({"since": BEGAN, "seenAt": BEGAN, "exceeded": true});
    let more = json!({"wave": 1, "step": "Restart", "settledSince": LONG_AGO, "progress": progress});
    let record = stored(&mesh, Phase::Migrating, &more);
    let held = next(&mesh, &record, 200);
    assert_eq!(run(&held).batch, None);
    mesh.intent.retry = Some("go".to_owned());
    let released = next(&mesh, &next(&mesh, &held.record, 201).record, 202);
    assert!(run(&released).batch.is_some(), "{}", released.view.message);
}

#[test]
fn only_the_failed_wave_goes_back_and_then_waits_for_a_retry() {
    let (mut mesh, record) = troubled("InvalidImageName");
    (mesh.intent.on_failure, mesh.intent.rollback_scope) = (OnFailure::Automatic, RollbackScope::Wave);
    let turned = next(&mesh, &record, 10);
    let rollback = run(&turned).rollback.clone().unwrap();
    assert!(rollback.wave_only && rollback.from_wave == 1 && run(&turned).phase == Phase::RollingBack);
    let labels = next(&mesh, &turned.record, 11);
    let names: Vec<_> = labels
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Relabel(relabel) => relabel.namespace.as_str(),
            Effect::Restart(_) => "restart",
            Effect::Gateway(_) => "gateway",
            Effect::Tag(_) => "tag",
            Effect::TagService(_) => "tag-service",
            Effect::SetRevisions(_) => "revisions",
            Effect::MeshConfig(_) => "mesh-config",
        })
        .collect();
    assert_eq!(names, ["shop"], "the wave before stays where it is");
    // Everything of the wave is back, and counted.
    mesh.namespace("shop", |shop| {
        shop.labels.insert(labels::REVISION.to_owned(), SOURCE.to_owned());
    });
    mesh.snapshot.workloads.clear();
    mesh.snapshot.pods.insert("shop".into(), Vec::new());
    mesh.proxies("pay", TARGET, 3);
    let proven = json!({"wave": 1, "step": "Proven", "soakSince": BEGAN, "rollback": rollback});
    let proven = stored(&mesh, Phase::RollingBack, &proven);
    mesh.census(|census| census.taken_at = Some(at(500)));
    let back = next(&mesh, &proven, 500);
    assert_eq!(run(&back).phase, Phase::Migrating, "{}", back.view.message);
    assert_eq!((run(&back).wave, run(&back).turns, &run(&back).rollback), (1, 1, &None));
    let held = next(&mesh, &back.record, 501);
    assert!(
        held.effects.is_empty() && reasons(&held).contains(&WaitReason::WaveRolledBack),
        "{:?}",
        reasons(&held)
    );
    mesh.intent.retry = Some("mended".to_owned());
    let released = next(&mesh, &next(&mesh, &held.record, 502).record, 503);
    let [Effect::Relabel(relabel)] = &released.effects[..] else { panic!("{:?}", released.effects) };
    assert_eq!(relabel.stamp, "u.1.forward-2.1", "another turn, another stamp");
}

#[test]
fn who_asks_for_a_rollback_gets_all_of_it() {
    let (mut mesh, record) = troubled("InvalidImageName");
    (mesh.intent.on_failure, mesh.intent.rollback_scope) = (OnFailure::Automatic, RollbackScope::Wave);
    let turned = next(&mesh, &record, 10).record;
    mesh.intent.rollback_requested = true;
    let all = next(&mesh, &turned, 11);
    let rollback = run(&all).rollback.as_ref().unwrap();
    assert!(!rollback.wave_only && rollback.cause == RollbackCause::Requested);
    assert_eq!(run(&next(&mesh, &all.record, 12)).rollback.as_ref().unwrap().since, at(11), "latched");
}

#[test]
fn time_in_which_no_operator_runs_does_not_count_against_a_wave() {
    let (mut mesh, record) = troubled("");
    mesh.intent.restart.progress_deadline_seconds = Some(100);
    let begun = next(&mesh, &record, 10).record;
    let back = next(&mesh, &begun, 500);
    assert!(!reasons(&back).contains(&WaitReason::ProgressDeadlineExceeded), "{:?}", reasons(&back));
}

#[test]
fn a_retry_takes_up_only_as_many_as_may_be_in_rollout() {
    let (mut mesh, record) = troubled("InvalidImageName");
    mesh.intent.restart.max_failed_workloads = 1;
    // b takes the place of a, which failed.
    let beside = next(&mesh, &next(&mesh, &record, 10).record, 11).record;
    mesh.intent.retry = Some("all".to_owned());
    let retried = next(&mesh, &beside, 12);
    assert!(!reasons(&retried).contains(&WaitReason::InvariantViolated), "{}", retried.view.message);
    let open = run(&retried).batch.as_ref().unwrap().entries.iter().filter(|entry| !entry.timed_out).count();
    assert_eq!(open, 1);
    // Fewer may fail from now on: nothing breaks.
    mesh.intent.retry = None;
    mesh.intent.restart.max_failed_workloads = 0;
    assert!(!reasons(&next(&mesh, &beside, 13)).contains(&WaitReason::InvariantViolated));
}
