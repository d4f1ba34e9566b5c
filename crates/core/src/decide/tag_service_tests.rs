//! The Service of the tag `prod`, whose wave is the first.

use std::sync::Arc;

use serde_json::json;

use super::decide;
use super::tags_tests::{apply, mesh, migrating, moves, tag, waits_for};
use super::tests::{at, stored, turned_back};
use crate::check::fixture::{Mesh, SOURCE, TARGET, client, map, said};
use crate::decision::{About, Decision};
use crate::effect::{Effect, MoveTagService};
use crate::ids::ServiceRef;
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{FieldManager, IstiodService};
use crate::wait::WaitReason;

fn with_service() -> Mesh {
    let mut mesh = mesh();
    mesh.add_tag_service("prod", SOURCE);
    mesh
}

/// The tag's webhook is where the run goes.
fn moved() -> Mesh {
    let mut mesh = with_service();
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&first).is_empty(), "the webhook goes first");
    apply(&mut mesh, &moves(&first)[0].clone());
    mesh
}

fn reference() -> ServiceRef {
    ServiceRef { namespace: "istio-system".into(), name: "istiod-revision-tag-prod".to_owned() }
}

fn service(mesh: &mut Mesh, change: impl FnOnce(&mut IstiodService)) {
    let mut services = mesh.snapshot.istiod_services.iter_mut().flatten();
    change(Arc::make_mut(services.find(|service| service.tag.is_some()).unwrap()));
}

/// As the API server has it after the write.
fn store(mesh: &mut Mesh, change: &MoveTagService) {
    service(mesh, |service| {
        assert_eq!(service.reference, change.service);
        service.revision = Some(change.revision.clone());
        service.relabelled_by = Some(change.stamp.clone());
        for (key, value) in &change.selector {
            match value {
                Some(value) => service.selector.insert(key.clone(), value.clone()),
                None => service.selector.remove(key),
            };
        }
    });
}

fn services(decision: &Decision) -> Vec<MoveTagService> {
    let moves = decision.effects.iter().filter_map(|effect| match effect {
        Effect::TagService(change) => Some(change.clone()),
        _ => None,
    });
    moves.collect()
}

#[test]
fn it_follows_the_webhook_of_its_tag_before_the_wave_goes_on() {
    let mut mesh = moved();
    let second = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(moves(&second).is_empty());
    let [change] = &services(&second)[..] else { panic!("{:?}", second.view.blocked) };
    assert_eq!((&change.service, change.revision.as_str()), (&reference(), TARGET));
    let selector = [(labels::REVISION.to_owned(), Some(TARGET.to_owned()))];
    assert_eq!(change.selector, selector.into(), "only what differs");
    store(&mut mesh, change);
    let third = decide(at(2), &mesh.intent, &second.record, &mesh.snapshot);
    assert!(services(&third).is_empty());
    waits_for(&third, WaitReason::Settling);
}

#[test]
fn the_selector_is_that_of_the_revisions_own_service() {
    let mut mesh = moved();
    let own = mesh.snapshot.istiod_services.as_mut().unwrap();
    // The Service of an istiod without a revision in its name selects by another label.
    Arc::make_mut(&mut own[1]).selector = map(&[("app", "istiod"), ("istio", "pilot")]);
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    let wanted = [(labels::REVISION.to_owned(), None), ("istio".to_owned(), Some("pilot".to_owned()))];
    assert_eq!(services(&decision)[0].selector, wanted.into());
    let own = mesh.snapshot.istiod_services.as_mut().unwrap();
    own.remove(1);
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&decision).is_empty());
    let told = waits_for(&decision, WaitReason::LabelNotMoved);
    assert!(told.contains("no Service of its own in istio-system"), "{told}");
}

#[test]
fn a_label_alone_is_not_enough_and_another_revision_is_not_ours() {
    let mut mesh = moved();
    service(&mut mesh, |service| service.revision = Some(TARGET.into()));
    let by_selector = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!(services(&by_selector).len(), 1, "it still leads to the source");
    service(&mut mesh, |service| {
        service.revision = Some("asm-1-26".into());
        service.selector = map(&[("app", "istiod"), (labels::REVISION, "asm-1-26")]);
    });
    let elsewhere = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&elsewhere).is_empty());
}

#[test]
fn one_that_somebody_put_back_is_not_fought_for() {
    let mut mesh = moved();
    let second = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    store(&mut mesh, &services(&second)[0]);
    service(&mut mesh, |service| service.selector = map(&[("app", "istiod"), (labels::REVISION, SOURCE)]));
    let decision = decide(at(2), &mesh.intent, &second.record, &mesh.snapshot);
    assert!(services(&decision).is_empty());
    let told = waits_for(&decision, WaitReason::LabelReverted);
    let command = r#"kubectl patch service istiod-revision-tag-prod -n istio-system --type merge -p '{"metadata":{"labels":{"istio.io/rev":"asm-1-28"}}"#;
    assert!(told.contains(command), "{told}");
    mesh.intent.retry = Some("1".to_owned());
    let retried = decide(at(3), &mesh.intent, &decision.record, &mesh.snapshot);
    let again = decide(at(4), &mesh.intent, &retried.record, &mesh.snapshot);
    assert_eq!(services(&again)[0].stamp, "u.1.forward.2");
}

#[test]
fn one_of_a_tool_is_waited_for_and_announced() {
    let mut mesh = with_service();
    let helm = FieldManager { name: "helm".into(), owns_revision: true, ..FieldManager::default() };
    service(&mut mesh, |service| service.managers = vec![helm.clone()]);
    let told = said(&mesh.preflight());
    assert!(told.iter().any(|text| text.contains("istiod-revision-tag-prod (helm)")), "{told:?}");
    let mut mesh = moved();
    service(&mut mesh, |service| service.managers = vec![helm]);
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&decision).is_empty());
    assert!(waits_for(&decision, WaitReason::LabelNotMoved).contains("belongs to helm"));
}

#[test]
fn one_that_may_not_be_written_holds_up_its_wave_and_says_so() {
    let mut mesh = moved();
    let refused = (About::Service(reference()), "u.1.forward.1".to_owned());
    mesh.snapshot.refused.insert(refused, "cannot patch resource \"services\"".to_owned());
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(waits_for(&decision, WaitReason::WriteRefused).contains("the chart's value revisionTags"));
    assert!(decision.record.run.unwrap().settled_since.is_none());
}

#[test]
fn where_services_cannot_be_read_the_run_goes_on_and_preflight_says_so() {
    let mut mesh = with_service();
    mesh.snapshot.istiod_services = None;
    let told = said(&mesh.preflight());
    assert!(
        told.iter().any(|text| text
            .contains("RevisionTags Warning: the operator may not watch the Services in istio-system")),
        "{told:?}"
    );
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(TARGET));
    });
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    waits_for(&decision, WaitReason::Settling);
}

/// One that came late is not in anybody's way until the source is to go.
#[test]
fn one_that_came_after_its_turn_is_told_at_the_end() {
    let mut mesh = moved();
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({"wave": 1})), &mesh.snapshot);
    assert!(services(&decision).is_empty());
    mesh.census(|census| census.taken_at = Some(at(1)));
    let told = said(&mesh.completion());
    assert!(
        told.iter().any(|text| text.starts_with(
            "TagsMoved Failed: Service istio-system/istiod-revision-tag-prod of a revision tag leads to asm-1-27"
        )),
        "{told:?}"
    );
}

/// New pods do not ask it: workloads come back while somebody holds it, and the end waits.
#[test]
fn a_rollback_takes_it_back() {
    let mut mesh = moved();
    let second = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    store(&mut mesh, &services(&second)[0]);
    let record = stored(&mesh, Phase::RollingBack, &json!({"rollback": turned_back()}));
    let back = decide(at(2), &mesh.intent, &record, &mesh.snapshot);
    assert!(services(&back).is_empty(), "the webhook goes first");
    apply(&mut mesh, &moves(&back)[0].clone());
    // The labels settle meanwhile.
    let settling = decide(at(3), &mesh.intent, &back.record, &mesh.snapshot);
    assert!(settling.record.run.as_ref().unwrap().settled_since.is_some());
    let back = decide(at(3), &mesh.intent, &settling.record, &mesh.snapshot);
    let [change] = &services(&back)[..] else { panic!("{:?}", back.view.blocked) };
    assert_eq!((change.revision.as_str(), change.stamp.as_str()), (SOURCE, "u.1.back.1"));
    mesh.snapshot.refused.insert((About::Service(reference()), change.stamp.clone()), "forbidden".to_owned());
    let refused = decide(at(4), &mesh.intent, &back.record, &mesh.snapshot);
    assert!(refused.record.run.unwrap().settled_since.is_some(), "{:?}", refused.view.blocked);
}

/// A retry is for what was blocked then, and for nothing that somebody changes later.
#[test]
fn a_retry_of_the_one_is_none_of_the_other_and_brings_no_late_one() {
    let mut mesh = moved();
    let attempts = json!({"tagAttempts": {"service/prod": 2}});
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(SOURCE.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(SOURCE));
    });
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &attempts), &mesh.snapshot);
    assert!(moves(&decision).is_empty(), "the webhook was put back, and nobody asked for it");
    waits_for(&decision, WaitReason::LabelReverted);
    let mesh = moved();
    let late = json!({"wave": 1, "tagAttempts": {"prod": 2, "service/prod": 2}});
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &late), &mesh.snapshot);
    assert!(services(&decision).is_empty(), "it never had a stamp of ours");
}

#[test]
fn a_late_one_of_a_tool_holds_no_later_wave() {
    let mut mesh = moved();
    let helm = FieldManager { name: "helm".into(), owns_revision: true, ..FieldManager::default() };
    service(&mut mesh, |service| service.managers = vec![helm]);
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({"wave": 1})), &mesh.snapshot);
    assert!(decision.view.blocked.iter().all(|wait| wait.reason != WaitReason::LabelNotMoved));
}

/// A Service beside the revision's own may select the pods of all revisions, and both revisions may have one selector.
#[test]
fn what_a_selector_says_is_read_from_the_revisions_own_service() {
    let mut mesh = moved();
    let own = mesh.snapshot.istiod_services.as_mut().unwrap();
    let mut all = IstiodService::clone(&own[1]);
    (all.reference.name, all.selector) = ("istiod-all".to_owned(), map(&[("app", "istiod")]));
    own.insert(0, Arc::new(all));
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    let selector = [(labels::REVISION.to_owned(), Some(TARGET.to_owned()))];
    assert_eq!(services(&decision)[0].selector, selector.into());
    for own in mesh.snapshot.istiod_services.as_mut().unwrap() {
        Arc::make_mut(own).selector = map(&[("app", "istiod")]);
    }
    service(&mut mesh, |service| service.revision = Some(TARGET.into()));
    let shared = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&shared).is_empty(), "it leads to both, and always will");
    service(&mut mesh, |service| {
        service.selector = map(&[("app", "istiod"), ("istio", "istiod"), (labels::REVISION, SOURCE)]);
    });
    let wider = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!(services(&wider).len(), 1, "more than the revision's own, and still the source's");
}

#[test]
fn another_service_with_the_label_of_a_tag_is_left_to_the_end() {
    let mut mesh = moved();
    service(&mut mesh, |service| service.reference.name = "istiod-for-vms".to_owned());
    let decision = decide(at(1), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(services(&decision).is_empty());
    waits_for(&decision, WaitReason::Settling);
}

/// The istiod of a revision without a name has another label `istio` than one with a name.
#[test]
fn the_command_removes_what_would_select_nothing() {
    let mut mesh = moved();
    service(&mut mesh, |service| service.selector = map(&[("app", "istiod"), ("istio", "pilot")]));
    mesh.census(|census| census.taken_at = Some(at(1)));
    let told = said(&mesh.completion());
    assert!(
        told.iter()
            .any(|text| text.contains(r#""spec":{"selector":{"istio":null,"istio.io/rev":"asm-1-28"}}"#)),
        "{told:?}"
    );
}

/// It led to the target when the plan was made, so that the plan does not count on it; the run moved it all the same.
#[test]
fn a_tag_that_the_run_moved_against_its_plan_comes_back_with_its_service() {
    let mut mesh = moved();
    mesh.plan.waves[0].tag_moves = false;
    service(&mut mesh, |service| {
        service.revision = Some(TARGET.into());
        service.selector = map(&[("app", "istiod"), (labels::REVISION, TARGET)]);
    });
    let record = stored(&mesh, Phase::RollingBack, &json!({"rollback": turned_back()}));
    let back = decide(at(2), &mesh.intent, &record, &mesh.snapshot);
    apply(&mut mesh, &moves(&back)[0].clone());
    let settling = decide(at(3), &mesh.intent, &back.record, &mesh.snapshot);
    let back = decide(at(3), &mesh.intent, &settling.record, &mesh.snapshot);
    assert_eq!(services(&back).len(), 1);
}
