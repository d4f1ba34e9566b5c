//! Revision tags, and labels that are somebody else's: `pay` follows the tag `prod`, whose wave is the first; `shop` has a label.

use std::sync::Arc;

use serde_json::{Value, json};

use super::decide;
use super::tests::{app, at, pod, reference, run, stored, turned_back, two_waves};
use crate::check::fixture::{Mesh, SOURCE, TARGET, client};
use crate::decision::{About, Decision};
use crate::effect::{Effect, MoveTag, PreviousEdit};
use crate::intent::{InjectionMode, WaveIntent, WaveSelect};
use crate::inventory::{Pair, discover_source};
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{FieldManager, Owner, PreviousLabels, WebhookConfiguration};
use crate::plan::{PlannedWave, WaveKind};
use crate::planning;
use crate::record::Record;
use crate::wait::WaitReason;

pub(super) fn mesh() -> Mesh {
    let mut mesh = Mesh::before();
    let rest = mesh.intent.waves.remove(0);
    let tag = WaveIntent { name: "tagged".into(), select: WaveSelect::Tag("prod".into()), ..rest.clone() };
    mesh.intent.waves = vec![tag, WaveIntent { name: "rest".into(), ..rest }];
    mesh.add_tag("prod", SOURCE);
    mesh.namespace("pay", |pay| {
        pay.labels.insert(labels::REVISION.to_owned(), "prod".to_owned());
    });
    two_waves(&mut mesh);
    mesh.plan.waves[0].tag = Some("prod".to_owned());
    mesh.plan.waves[0].tag_moves = true;
    mesh
}

pub(super) fn tag(mesh: &mut Mesh, change: impl FnOnce(&mut WebhookConfiguration)) {
    let webhook = mesh.snapshot.webhooks.iter_mut().find(|webhook| webhook.tag.is_some()).unwrap();
    change(Arc::make_mut(webhook));
}

/// As the API server has it after the write.
pub(super) fn apply(mesh: &mut Mesh, change: &MoveTag) {
    let change = change.clone();
    tag(mesh, |webhook| {
        assert_eq!(change.webhook, webhook.name);
        webhook.revision = Some(change.revision);
        for entry in &mut webhook.entries {
            assert!(change.entries.contains(&entry.name));
            entry.client = change.client.clone();
        }
        webhook.relabelled_by = Some(change.stamp);
        match change.previous {
            PreviousEdit::Set(previous) => webhook.previous = Some(previous),
            PreviousEdit::Leave => {}
            PreviousEdit::Remove => webhook.previous = None,
        }
    });
}

pub(super) fn moves(decision: &Decision) -> Vec<&MoveTag> {
    let moves = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Tag(change) => Some(change),
        _ => None,
    });
    moves.collect()
}

fn relabels(decision: &Decision) -> Vec<&str> {
    let relabels = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Relabel(relabel) => Some(relabel.namespace.as_str()),
        _ => None,
    });
    relabels.collect()
}

pub(super) fn waits_for(decision: &Decision, reason: WaitReason) -> String {
    let wait = decision.view.blocked.iter().find(|wait| wait.reason == reason);
    wait.unwrap_or_else(|| panic!("{reason}: {:?}", decision.view.blocked)).because.clone()
}

pub(super) fn migrating(mesh: &Mesh, more: &Value) -> Record {
    stored(mesh, Phase::Migrating, more)
}

#[test]
fn members_of_a_tag_move_with_its_wave_whatever_else_selects_them() {
    let mut mesh = mesh();
    mesh.intent.waves.reverse();
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    let waves: Vec<_> =
        plan.waves.iter().map(|wave| (wave.tag.as_deref(), wave.namespaces.clone())).collect();
    assert_eq!(waves, [(None, vec!["shop".into()]), (Some("prod"), vec!["pay".into()])]);
    assert_eq!(discover_source(&mesh.intent, &mesh.snapshot), Ok(Some(SOURCE.into())));
    // Without a wave of its own it stays, and is told.
    mesh.intent.waves.pop();
    let plan =
        planning::make(&mesh.intent, &mesh.snapshot, Pair { source: &mesh.source, target: &mesh.target })
            .plan;
    assert_eq!(plan.left[0].reason, "OnRevisionTag");
}

#[test]
fn an_approval_is_for_the_tags_and_the_mode_too() {
    let mesh = mesh();
    let record = migrating(&mesh, &json!({}));
    let run = record.run.as_ref().unwrap();
    let digest = |change: fn(&mut crate::plan::Plan)| {
        let mut plan = mesh.plan.clone();
        change(&mut plan);
        planning::digest(&plan, run)
    };
    let base = digest(|_| {});
    assert_ne!(base, digest(|plan| plan.waves[0].tag = Some("other".into())));
    assert_ne!(base, digest(|plan| plan.waves[0].tag = None));
    assert_ne!(base, digest(|plan| plan.injection = InjectionMode::Observe));
}

#[test]
fn a_tag_is_moved_in_one_write_and_its_workloads_are_restarted_after_the_settle_time() {
    let mut mesh = mesh();
    app(&mut mesh, "pay", "c", |_| {});
    pod(&mut mesh, "pay", "c", SOURCE, |_| {});
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!(relabels(&first), [""; 0], "no label changes, and the second wave is not due");
    let [change] = moves(&first)[..] else { panic!("{:?}", first.effects) };
    assert_eq!((change.revision.as_str(), &change.client), (TARGET, &client(TARGET)));
    assert_eq!(change.entries.len(), 2, "all entries lead to the new revision");
    let PreviousEdit::Set(previous) = &change.previous else { panic!("{:?}", change.previous) };
    assert_eq!(previous.revision.as_deref(), Some(SOURCE));
    apply(&mut mesh, &change.clone());
    let settling = decide(at(1), &mesh.intent, &first.record, &mesh.snapshot);
    assert!(moves(&settling).is_empty() && run(&settling).batch.is_none());
    let mut record = settling.record;
    for second in [2, 60, 61] {
        record = decide(at(second), &mesh.intent, &record, &mesh.snapshot).record;
    }
    let batch = record.run.unwrap().batch.unwrap();
    assert_eq!(batch.entries[0].workload, reference("pay", "c"));
}

#[test]
fn a_tag_waits_for_the_target_and_for_its_wave() {
    let mut mesh = mesh();
    mesh.webhook(TARGET, |webhook| webhook.entries[0].client.ca_bundle.clear());
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(moves(&decision).is_empty());
    waits_for(&decision, WaitReason::WebhookNotReady);
    let mut mesh = self::mesh();
    mesh.plan.waves.reverse();
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!((moves(&decision).len(), relabels(&decision)), (0, vec!["shop"]));
}

#[test]
fn a_tag_that_somebody_moved_back_is_not_fought_for() {
    let mut mesh = mesh();
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    apply(&mut mesh, &moves(&first)[0].clone());
    tag(&mut mesh, |webhook| webhook.revision = Some(SOURCE.into()));
    let decision = decide(at(1), &mesh.intent, &first.record, &mesh.snapshot);
    assert!(moves(&decision).is_empty());
    let told = waits_for(&decision, WaitReason::LabelReverted);
    assert!(told.contains("istioctl tag set prod --revision asm-1-28"), "{told}");
    mesh.intent.retry = Some("1".to_owned());
    let retried = decide(at(2), &mesh.intent, &decision.record, &mesh.snapshot);
    let again = decide(at(3), &mesh.intent, &retried.record, &mesh.snapshot);
    let [change] = moves(&again)[..] else { panic!("{:?}", again.view.blocked) };
    assert_eq!(change.stamp, "u.1.forward.2");
    assert!(matches!(change.previous, PreviousEdit::Leave), "the first memory is never overwritten");
}

#[test]
fn only_the_label_of_a_tag_is_not_enough() {
    let mut mesh = mesh();
    tag(&mut mesh, |webhook| webhook.revision = Some(TARGET.into()));
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!(moves(&decision).len(), 1, "its entries lead to the source");
}

#[test]
fn a_tag_of_a_tool_is_waited_for() {
    let mut mesh = mesh();
    let helm = FieldManager { name: "helm".into(), owns_revision: true, ..FieldManager::default() };
    tag(&mut mesh, |webhook| webhook.managers = vec![helm]);
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(moves(&decision).is_empty());
    let told = waits_for(&decision, WaitReason::LabelNotMoved);
    assert!(told.contains("helm moves it"), "{told}");
    tag(&mut mesh, |webhook| {
        webhook.managers.clear();
        webhook.owner =
            Some(Owner { kind: "IstioRevisionTag".into(), name: "prod".into(), ..Owner::default() });
    });
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(waits_for(&decision, WaitReason::LabelNotMoved).contains("IstioRevisionTag prod moves it"));
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(TARGET));
    });
    let decision = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    waits_for(&decision, WaitReason::Settling);
}

#[test]
fn a_tag_that_is_deleted_on_the_way_is_told() {
    let mut mesh = mesh();
    mesh.snapshot.webhooks.retain(|webhook| webhook.tag.is_none());
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({"wave": 1})), &mesh.snapshot);
    assert!(waits_for(&decision, WaitReason::LabelReverted).contains("revision tag prod is gone"));
}

#[test]
fn a_rollback_moves_the_tag_back_and_forgets_what_it_remembered() {
    let mut mesh = mesh();
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    apply(&mut mesh, &moves(&first)[0].clone());
    let record = stored(&mesh, Phase::RollingBack, &json!({"rollback": turned_back()}));
    let back = decide(at(1), &mesh.intent, &record, &mesh.snapshot);
    let [change] = moves(&back)[..] else { panic!("{:?}", back.view.blocked) };
    assert_eq!((change.revision.as_str(), &change.client), (SOURCE, &client(SOURCE)));
    assert!(matches!(change.previous, PreviousEdit::Remove));
    apply(&mut mesh, &change.clone());
    let decision = decide(at(2), &mesh.intent, &record, &mesh.snapshot);
    assert!(moves(&decision).is_empty());
}

/// The object was deleted and applied anew in the middle of its run.
#[test]
fn what_a_tag_remembers_keeps_its_namespaces_in_scope() {
    let mut mesh = mesh();
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        let previous = PreviousLabels { from: SOURCE.into(), to: TARGET.into(), ..PreviousLabels::default() };
        webhook.previous = Some(previous);
    });
    mesh.namespace("shop", |shop| shop.labels.clear());
    assert_eq!(discover_source(&mesh.intent, &mesh.snapshot), Ok(Some(SOURCE.into())));
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    assert_eq!(plan.waves[0].namespaces, ["pay".into()]);
    tag(&mut mesh, |webhook| webhook.previous = None);
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    assert!(plan.waves[0].namespaces.is_empty(), "who was on the target before has nothing to do with it");
}

fn observing() -> Mesh {
    let mut mesh = mesh();
    mesh.intent.injection = InjectionMode::Observe;
    mesh.intent.waves.remove(0);
    mesh.plan.injection = InjectionMode::Observe;
    mesh.plan.waves[0].tag = None;
    mesh
}

#[test]
fn labels_and_tags_of_others_are_waited_for_and_never_written() {
    let mut mesh = observing();
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(decision.effects.is_empty(), "{:?}", decision.effects);
    let told = waits_for(&decision, WaitReason::LabelNotMoved);
    assert!(told.contains("namespace pay") && told.contains("istio.io/rev=asm-1-28 in Git"), "{told}");
    assert_eq!(decision.view.blocked[0].about, Some(About::Namespace("pay".into())));
    tag(&mut mesh, |webhook| webhook.revision = Some(TARGET.into()));
    let decision = decide(at(1), &mesh.intent, &decision.record, &mesh.snapshot);
    waits_for(&decision, WaitReason::Settling);
    // The second wave is another commit.
    let second = decide(at(2), &mesh.intent, &migrating(&mesh, &json!({"wave": 1})), &mesh.snapshot);
    assert!(waits_for(&second, WaitReason::LabelNotMoved).contains("namespace shop"));
}

#[test]
fn a_rollback_waits_for_git_where_git_moved_the_labels() {
    let mut mesh = observing();
    for name in ["pay", "shop"] {
        mesh.namespace(name, |it| {
            it.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    mesh.intent.rollback_requested = true;
    let turned = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert_eq!(run(&turned).rollback.as_ref().unwrap().from_wave, 1, "one commit moved both waves");
    let decision = decide(at(1), &mesh.intent, &turned.record, &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert!(waits_for(&decision, WaitReason::LabelNotMoved).contains("istio.io/rev=asm-1-27 in Git"));
}

#[test]
fn the_source_is_known_even_if_git_moved_every_label_before() {
    let mut mesh = observing();
    mesh.snapshot.webhooks.retain(|webhook| webhook.tag.is_none());
    for name in ["pay", "shop"] {
        mesh.namespace(name, |it| {
            it.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned());
        });
    }
    mesh.proxies("shop", SOURCE, 3);
    mesh.proxies("pay", TARGET, 1);
    assert_eq!(discover_source(&mesh.intent, &mesh.snapshot), Ok(Some(SOURCE.into())));
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    assert_eq!(plan.waves[0].namespaces, ["shop".into()], "pay runs on the target already");
}

#[test]
fn where_only_tags_move_a_label_that_somebody_set_is_left_alone() {
    let mut mesh = mesh();
    mesh.plan.injection = InjectionMode::RevisionTag;
    mesh.intent.injection = InjectionMode::RevisionTag;
    // It left the tag after the plan was made.
    mesh.namespace("pay", |pay| {
        pay.labels.insert(labels::REVISION.to_owned(), SOURCE.to_owned());
    });
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(TARGET));
    });
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    assert!(decision.effects.is_empty());
    assert!(
        waits_for(&decision, WaitReason::LabelNotMoved).contains("RevisionTag leaves its label to others")
    );
}

#[test]
fn a_tag_in_a_wave_of_the_next_run_changes_no_labels() {
    let mut mesh = mesh();
    mesh.add_tag("other", SOURCE);
    mesh.add_namespace("follower", &[(labels::REVISION, "other")]);
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    assert!(planning::stragglers(&mesh.intent, &mesh.snapshot, pair, &mesh.plan).is_empty());
    // As the check RevisionTags says, but in the middle of the run.
    mesh.intent.waves[1].select = WaveSelect::Tag("other".into());
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let frozen = mesh.intent.frozen(&mesh.plan);
    assert!(planning::stragglers(&frozen, &mesh.snapshot, pair, &mesh.plan).is_empty());
}

/// Its gateways are injected ones, which are restarted last, with the wave of gateways.
#[test]
fn a_tag_whose_wave_left_the_spec_in_mid_run_goes_on_with_all_that_follows_it() {
    let mut mesh = mesh();
    app(&mut mesh, "pay", "edge", |edge| {
        edge.template.annotations.insert(labels::INJECT_TEMPLATES.to_owned(), "gateway".to_owned());
    });
    pod(&mut mesh, "pay", "edge", SOURCE, |_| {});
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(TARGET));
        let previous = PreviousLabels { from: SOURCE.into(), to: TARGET.into(), ..PreviousLabels::default() };
        webhook.previous = Some(previous);
    });
    let last = PlannedWave {
        kind: WaveKind::Gateways,
        namespaces: vec!["pay".into()],
        max_concurrent: 1,
        ..PlannedWave::default()
    };
    mesh.plan.waves.push(last);
    mesh.namespace("shop", |shop| drop(shop.labels.insert(labels::REVISION.to_owned(), TARGET.to_owned())));
    mesh.intent.waves.remove(0);
    let mut record = migrating(&mesh, &json!({"wave": 2}));
    for second in [0, 60, 61] {
        record = decide(at(second), &mesh.intent, &record, &mesh.snapshot).record;
    }
    let batch = record.run.unwrap().batch.unwrap();
    assert_eq!(batch.entries[0].workload, reference("pay", "edge"));
}

#[test]
fn a_rollback_leaves_a_tag_that_was_on_the_target_before() {
    let mut mesh = mesh();
    tag(&mut mesh, |webhook| {
        webhook.revision = Some(TARGET.into());
        webhook.entries.iter_mut().for_each(|entry| entry.client = client(TARGET));
    });
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    assert!(!plan.waves[0].tag_moves && plan.waves[0].namespaces.is_empty());
    mesh.plan.waves[0] = plan.waves[0].clone();
    let record = stored(&mesh, Phase::RollingBack, &json!({"rollback": turned_back()}));
    assert!(moves(&decide(at(1), &mesh.intent, &record, &mesh.snapshot)).is_empty());
}

#[test]
fn who_began_to_follow_a_moved_tag_comes_back_with_it() {
    let mut mesh = mesh();
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    apply(&mut mesh, &moves(&first)[0].clone());
    mesh.add_namespace("late", &[(labels::REVISION, "prod")]);
    mesh.intent.rollback_requested = true;
    let turned = decide(at(1), &mesh.intent, &first.record, &mesh.snapshot);
    let plan = turned.record.plan.unwrap();
    assert_eq!(plan.waves[0].namespaces, ["pay".into(), "late".into()]);
}

#[test]
fn a_tag_of_a_tool_that_is_put_back_on_the_way_holds_the_run() {
    let mut mesh = mesh();
    let helm = FieldManager { name: "helm".into(), owns_revision: true, ..FieldManager::default() };
    tag(&mut mesh, |webhook| webhook.managers = vec![helm]);
    let decision = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({"wave": 1})), &mesh.snapshot);
    waits_for(&decision, WaitReason::LabelNotMoved);
    assert!(relabels(&decision).is_empty() || run(&decision).batch.is_none());
}

#[test]
fn a_namespace_that_went_to_the_tag_of_a_later_wave_is_waited_for() {
    let mut mesh = mesh();
    mesh.add_tag("later", SOURCE);
    mesh.plan.waves[1].tag = Some("later".to_owned());
    mesh.plan.waves[1].tag_moves = true;
    let first = decide(at(0), &mesh.intent, &migrating(&mesh, &json!({})), &mesh.snapshot);
    apply(&mut mesh, &moves(&first)[0].clone());
    mesh.namespace("pay", |pay| {
        pay.labels.insert(labels::REVISION.to_owned(), "later".to_owned());
    });
    let decision = decide(at(1), &mesh.intent, &first.record, &mesh.snapshot);
    let told = waits_for(&decision, WaitReason::LabelNotMoved);
    assert!(told.contains("follows the revision tag later, which another wave moves"), "{told}");
}

#[test]
fn what_a_tool_moved_before_the_run_is_restarted_all_the_same() {
    let mut mesh = mesh();
    tag(&mut mesh, |webhook| webhook.revision = Some(TARGET.into()));
    mesh.proxies("pay", SOURCE, 2);
    let pair = Pair { source: &mesh.source, target: &mesh.target };
    let plan = planning::make(&mesh.intent, &mesh.snapshot, pair).plan;
    assert_eq!(plan.waves[0].namespaces, ["pay".into()]);
}

/// A right that is missing may be given at any time, and another tag needs another one: the count that a plan rests on was asked about both.
#[test]
fn a_plan_rests_on_a_count_that_asked_for_the_rights_of_its_tags() {
    let mut mesh = mesh();
    let webhook = About::Webhook("istio-revision-tag-prod".to_owned());
    let needs = |mesh: &Mesh, second: i64| {
        let record = stored(mesh, Phase::Preflight, &json!({"startedAt": null}));
        decide(at(second), &mesh.intent, &record, &mesh.snapshot).needs
    };
    mesh.census(|census| census.taken_at = Some(at(100)));
    let unasked = needs(&mesh, 110);
    assert_eq!((unasked.census_since, unasked.rights), (Some(at(101)), [webhook.clone()].into()));
    mesh.census(|census| census.rights = [webhook.clone()].into());
    assert_eq!(needs(&mesh, 110).census_since, None);
    mesh.census(|census| census.denied = [webhook].into());
    assert_eq!(needs(&mesh, 110).census_since, None);
    assert_eq!(needs(&mesh, 161).census_since, Some(at(101)));
    // Who takes it on himself is not kept by it.
    mesh.intent.skip_checks.insert("RevisionTags".to_owned());
    assert_eq!(needs(&mesh, 161).census_since, None);
}
