//! Approvals and actions: for which step, plan and run they count.

use serde_json::json;

use super::decide;
use super::tests::{at, run, stored, two_waves};
use crate::check::fixture::{Mesh, SOURCE, TARGET};
use crate::decision::Decision;
use crate::intent::{Action, ApprovalIntent, CompletionMode, Verb};
use crate::labels;
use crate::machine::phase::Phase;
use crate::planning::digest;
use crate::record::Record;
use crate::wait::WaitReason;

/// A plan whose only wave needs approval, counted, before its start.
fn asked() -> (Mesh, Decision) {
    let mut mesh = Mesh::before();
    mesh.intent.waves[0].approval = true;
    mesh.census(|census| census.taken_at = Some(at(0)));
    let decision = decide(at(0), &mesh.intent, &Record::default(), &mesh.snapshot);
    assert_eq!(decision.view.blocked[0].reason, WaitReason::ApprovalRequired);
    (mesh, decision)
}

fn offered(decision: &Decision, verb: Verb) -> Option<String> {
    let offer = decision.view.actions.iter().find(|offer| offer.verb == verb)?;
    Some(offer.value.clone())
}

fn say(mesh: &mut Mesh, value: &str) {
    mesh.intent.action = Some(Action::parse(value));
}

fn events(decision: &Decision) -> Vec<&str> {
    decision.events.iter().map(|event| event.reason).collect()
}

#[test]
fn an_approval_does_not_hold_for_another_target() {
    let (mut mesh, decision) = asked();
    say(&mut mesh, &offered(&decision, Verb::Approve).unwrap());
    // Approved, and waiting for the target.
    mesh.plane(TARGET, |plane| plane.injector_config = false);
    let approved = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    assert_eq!((run(&approved).phase, run(&approved).approved_waves), (Phase::StartingControlPlane, 1));
    mesh.add_revision("asm-1-29");
    mesh.intent.target = "asm-1-29".into();
    let other = decide(at(2), &mesh.intent, &approved.record, &mesh.snapshot);
    assert_eq!((run(&other).approved_waves, run(&other).started_at), (0, None));
    assert_eq!(other.view.blocked[0].reason, WaitReason::ApprovalRequired);
}

#[test]
fn a_value_that_was_ignored_counts_when_it_is_offered() {
    let (mut mesh, decision) = asked();
    let value = offered(&decision, Verb::Approve).unwrap();
    // A check fails when it is said.
    mesh.plane(SOURCE, |plane| plane.injector_config = false);
    let failing = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    assert_eq!(run(&failing).phase, Phase::Preflight);
    say(&mut mesh, &value);
    let ignored = decide(at(1), &mesh.intent, &failing.record, &mesh.snapshot);
    assert_eq!(events(&ignored), ["ActionIgnored"]);
    mesh.plane(SOURCE, |plane| plane.injector_config = true);
    let mut decision = decide(at(2), &mesh.intent, &ignored.record, &mesh.snapshot);
    decision = decide(at(3), &mesh.intent, &decision.record, &mesh.snapshot);
    assert!(run(&decision).started_at.is_some(), "{}", decision.view.message);
}

#[test]
fn a_value_of_another_step_is_ignored_once() {
    let (mut mesh, decision) = asked();
    say(&mut mesh, "approve/00000000");
    let first = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    assert_eq!(events(&first), ["ActionIgnored"]);
    let second = decide(at(2), &mesh.intent, &first.record, &mesh.snapshot);
    assert!(events(&second).is_empty());
    assert_eq!(run(&second).approved_waves, 0);
}

#[test]
fn an_approval_in_git_does_not_hold_for_the_next_run() {
    let (mut mesh, decision) = asked();
    let plan = decision.record.plan.clone().unwrap();
    let approval = |run| ApprovalIntent { through_wave: "all".into(), plan_digest: digest(&plan, run) };
    mesh.intent.approval = Some(approval(run(&decision)));
    let started = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    assert!(run(&started).started_at.is_some());
    let mut next = decision.record.clone();
    next.run.as_mut().unwrap().counter = 2;
    let next = decide(at(1), &mesh.intent, &next, &mesh.snapshot);
    assert_eq!(run(&next).started_at, None);
    mesh.intent.approval = Some(approval(run(&next)));
    assert!(run(&decide(at(2), &mesh.intent, &next.record, &mesh.snapshot)).started_at.is_some());
}

/// A label that somebody put back is written again on a retry, though the commit with the approval was reverted meanwhile.
#[test]
fn a_wave_that_has_begun_stays_approved() {
    let mut mesh = Mesh::after();
    mesh.plan.waves[0].approval = true;
    let record = stored(&mesh, Phase::Migrating, &json!({}));
    let digest = digest(&mesh.plan, record.run.as_ref().unwrap());
    mesh.intent.approval = Some(ApprovalIntent { through_wave: "all".into(), plan_digest: digest });
    let begun = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
    mesh.intent.approval = None;
    mesh.intent.retry = Some("1".to_owned());
    mesh.namespace("pay", |namespace| {
        namespace.labels.insert(labels::REVISION.to_owned(), SOURCE.to_owned());
        namespace.relabelled_by = Some("u.1.forward.1".to_owned());
    });
    let retried = decide(at(1), &mesh.intent, &begun.record, &mesh.snapshot);
    let written = decide(at(2), &mesh.intent, &retried.record, &mesh.snapshot);
    assert_eq!(written.effects.len(), 1, "{}", written.view.message);
}

#[test]
fn there_is_nothing_to_approve_where_nothing_was_moved() {
    let mut mesh = Mesh::after();
    two_waves(&mut mesh);
    mesh.intent.completion.mode = CompletionMode::Manual;
    let record = stored(&mesh, Phase::Completing, &json!({"source": TARGET}));
    mesh.snapshot.census = None;
    let decision = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(offered(&decision, Verb::Approve), None);
    let record = stored(&mesh, Phase::Completing, &json!({}));
    let decision = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
    assert!(offered(&decision, Verb::Approve).is_some());
}

#[test]
fn a_pause_holds_the_completion_too() {
    let mut mesh = Mesh::after();
    let began = "1970-01-01T00:00:00Z";
    let more = json!({"paused": true, "soakSince": began, "settledSince": began});
    let record = stored(&mesh, Phase::Completing, &more);
    mesh.intent.completion.mode = CompletionMode::Automatic;
    let decision = decide(at(0), &mesh.intent, &record, &mesh.snapshot);
    assert_eq!(decision.view.blocked[0].reason, WaitReason::Paused);
    assert!(offered(&decision, Verb::Resume).is_some());
}
