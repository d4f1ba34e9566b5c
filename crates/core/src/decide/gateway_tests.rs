//! Gateways of the Gateway API on their way: `shop` has one that follows its namespace, and `edge`, which is not in scope, one
//! with a label of its own.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{app, at, entry, pod, reference, run, stored, turned_back, two_waves};
use super::{Decision, decide};
use crate::check::fixture::{Mesh, SOURCE, TARGET, map};
use crate::effect::{Effect, GatewayLabel, PreviousEdit};
use crate::ids::GatewayRef;
use crate::inventory::Pair;
use crate::labels;
use crate::machine::phase::Phase;
use crate::observed::{Gateway, Labels, PreviousLabels};
use crate::plan::{PlannedWave, WaveKind};
use crate::planning;
use crate::wait::WaitReason;

fn gateway(mesh: &mut Mesh, namespace: &str, name: &str, revision: Option<&str>) {
    let reference = GatewayRef { namespace: namespace.into(), name: name.into() };
    let gateway = Gateway {
        reference: reference.clone(),
        resource_version: "7".into(),
        managed: true,
        revision: revision.map(ToOwned::to_owned),
        ..Gateway::default()
    };
    mesh.snapshot.gateways.insert(reference, Arc::new(gateway));
    let deployment = format!("{name}-istio");
    app(mesh, namespace, &deployment, |workload| {
        workload.template.labels = rendered(name);
        workload.template.own_proxy = true;
    });
    pod(mesh, namespace, &deployment, SOURCE, |_| {});
}

fn rendered(name: &str) -> Labels {
    map(&[(labels::GATEWAY_NAME, name), (labels::SIDECAR_INJECT, "false"), (labels::GATEWAY_MANAGED, "x")])
}

fn change(mesh: &mut Mesh, namespace: &str, name: &str, change: impl FnOnce(&mut Gateway)) {
    let reference = GatewayRef { namespace: namespace.into(), name: name.into() };
    change(Arc::make_mut(mesh.snapshot.gateways.get_mut(&reference).unwrap()));
}

/// What the run wrote when it pinned it.
fn pin(gateway: &mut Gateway) {
    gateway.revision = Some(SOURCE.into());
    gateway.previous =
        Some(PreviousLabels { from: SOURCE.into(), to: TARGET.into(), ..PreviousLabels::default() });
    gateway.relabelled_by = Some("u.1.forward.1.pin".into());
}

fn before() -> Mesh {
    let mut mesh = Mesh::before();
    two_waves(&mut mesh);
    mesh.add_namespace("edge", &[]);
    gateway(&mut mesh, "shop", "web", None);
    gateway(&mut mesh, "edge", "own", Some(SOURCE));
    let namespaces = vec!["edge".into(), "shop".into()];
    mesh.plan.waves.push(PlannedWave {
        name: "gateways".into(),
        kind: WaveKind::Gateways,
        namespaces,
        workloads: 2,
        max_concurrent: 1,
        ..PlannedWave::default()
    });
    mesh
}

fn writes(decision: &Decision) -> Vec<&GatewayLabel> {
    let labels = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Gateway(label) => Some(label),
        _ => None,
    });
    labels.collect()
}

fn decided(mesh: &Mesh, phase: Phase, more: &Value) -> Decision {
    decide(at(100), &mesh.intent, &stored(mesh, phase, more), &mesh.snapshot)
}

/// The wave of gateways, with `web` of `shop` in the batch.
fn moving() -> (Mesh, Value) {
    let mut mesh = before();
    change(&mut mesh, "shop", "web", pin);
    for name in ["shop", "pay"] {
        mesh.namespace(name, |namespace| {
            namespace.labels.insert(labels::REVISION.into(), TARGET.into());
        });
    }
    let batch = json!({"number": 1, "entries": [entry("shop", "web-istio", "1970-01-01T00:01:40Z", false)]});
    let more = json!({"wave": 2, "step": "Restart", "settledSince": "1970-01-01T00:00:00Z", "batches": 1, "batch": batch});
    (mesh, more)
}

#[test]
fn what_follows_its_namespace_is_pinned_before_any_label_is_written() {
    let mut mesh = before();
    let first = decided(&mesh, Phase::Migrating, &json!({}));
    let [label] = writes(&first)[..] else { panic!("{:?}", first.effects) };
    assert_eq!(first.effects.len(), 1, "no namespace before it: {:?}", first.effects);
    assert_eq!(
        (label.gateway.to_string().as_str(), label.resource_version.as_str()),
        ("Gateway shop/web", "7")
    );
    assert_eq!(label.revision.as_ref().map(crate::ids::Revision::as_str), Some(SOURCE));
    let PreviousEdit::Set(previous) = &label.previous else { panic!("{label:?}") };
    assert_eq!(previous.revision, None, "it had no label of its own");
    change(&mut mesh, "shop", "web", pin);
    let second = decided(&mesh, Phase::Migrating, &json!({}));
    assert!(matches!(&second.effects[..], [Effect::Relabel(_)]), "{:?}", second.effects);
}

#[test]
fn a_pin_that_somebody_takes_away_is_told_and_not_written_again() {
    let mut mesh = before();
    change(&mut mesh, "shop", "web", |gateway| {
        pin(gateway);
        gateway.revision = None;
    });
    let decision = decided(&mesh, Phase::Migrating, &json!({}));
    assert!(decision.effects.is_empty(), "{:?}", decision.effects);
    let wait = &decision.view.blocked[0];
    assert_eq!(wait.reason, WaitReason::LabelReverted);
    assert!(wait.because.contains("gateways.gateway.networking.k8s.io web -n shop"), "{}", wait.because);
}

#[test]
fn gateways_are_planned_last_wherever_they_are() {
    let mesh = before();
    let (source, target) = (SOURCE.into(), TARGET.into());
    let planning = planning::make(&mesh.intent, &mesh.snapshot, Pair { source: &source, target: &target });
    let last = planning.plan.waves.last().unwrap();
    assert_eq!((last.kind, last.workloads, last.max_concurrent), (WaveKind::Gateways, 2, 1));
    assert_eq!(last.namespaces, ["edge".into(), "shop".into()]);
    assert!(planning.plan.not_restarted.is_empty(), "{:?}", planning.plan.not_restarted);
}

#[test]
fn a_gateway_moves_by_its_label_when_it_is_in_the_stored_batch() {
    let (mut mesh, more) = moving();
    let decision = decided(&mesh, Phase::Migrating, &more);
    let [label] = writes(&decision)[..] else { panic!("{:?}", decision.effects) };
    assert_eq!(decision.effects.len(), 1, "never restarted: {:?}", decision.effects);
    assert_eq!(
        (&label.revision, &label.previous),
        (&None, &PreviousEdit::Remove),
        "it follows its namespace again"
    );
    assert_eq!(label.workload, Some(reference("shop", "web-istio")));
    change(&mut mesh, "shop", "web", |gateway| {
        (gateway.revision, gateway.previous) = (None, None);
        gateway.relabelled_by = Some("u.1.forward.1".into());
    });
    let waits = decided(&mesh, Phase::Migrating, &more);
    assert!(waits.effects.is_empty(), "{:?}", waits.effects);
    assert!(run(&waits).batch.is_some(), "until its pods are on the target");
}

#[test]
fn a_label_of_its_own_is_set_and_remembered() {
    let (mut mesh, mut more) = moving();
    more["batch"]["entries"] = json!([entry("edge", "own-istio", "1970-01-01T00:01:40Z", false)]);
    let decision = decided(&mesh, Phase::Migrating, &more);
    let [label] = writes(&decision)[..] else { panic!("{:?}", decision.effects) };
    assert_eq!(label.revision.as_ref().map(crate::ids::Revision::as_str), Some(TARGET));
    let PreviousEdit::Set(previous) = &label.previous else { panic!("{label:?}") };
    assert_eq!(previous.revision.as_deref(), Some(SOURCE));
    // Somebody puts it back.
    change(&mut mesh, "edge", "own", |gateway| gateway.relabelled_by = Some("u.1.forward.1".into()));
    let reverted = decided(&mesh, Phase::Migrating, &more);
    assert!(reverted.effects.is_empty(), "{:?}", reverted.effects);
    assert!(reverted.view.blocked.iter().any(|wait| wait.reason == WaitReason::RestartReverted));
}

#[test]
fn a_rollback_lets_go_of_what_was_pinned() {
    let mut mesh = before();
    mesh.census(|census| census.taken_at = Some(at(100)));
    change(&mut mesh, "shop", "web", pin);
    let more = json!({"step": "Proven", "soakSince": "1970-01-01T00:01:40Z", "rollback": turned_back()});
    let decision = decided(&mesh, Phase::RollingBack, &more);
    let [label] = writes(&decision)[..] else { panic!("{:?} {:?}", decision.effects, decision.view.blocked) };
    assert_eq!((&label.revision, &label.previous), (&None, &PreviousEdit::Remove));
    assert_eq!(run(&decision).phase, Phase::RollingBack, "not over before it is done");
    change(&mut mesh, "shop", "web", |gateway| (gateway.revision, gateway.previous) = (None, None));
    assert_eq!(run(&decided(&mesh, Phase::RollingBack, &more)).phase, Phase::RolledBack);
}

#[test]
fn a_gateway_without_a_deployment_is_let_go_before_completion() {
    let (mut mesh, _) = moving();
    mesh.snapshot.workloads.clear();
    mesh.snapshot.pods.clear();
    change(&mut mesh, "edge", "own", |gateway| gateway.revision = Some(TARGET.into()));
    let decision = decided(&mesh, Phase::Migrating, &json!({"wave": 3}));
    let [label] = writes(&decision)[..] else { panic!("{:?}", decision.effects) };
    assert_eq!((label.gateway.name.as_str(), &label.revision), ("web", &None));
    assert_eq!(run(&decision).phase, Phase::Migrating);
}

#[test]
fn gateways_are_pinned_one_after_the_other() {
    let mut mesh = before();
    gateway(&mut mesh, "pay", "till", None);
    let first = decided(&mesh, Phase::Migrating, &json!({}));
    let [label] = writes(&first)[..] else { panic!("{:?}", first.effects) };
    assert_eq!(label.gateway.to_string(), "Gateway pay/till");
    // Istio rolls its pods for the sake of the label.
    change(&mut mesh, "pay", "till", pin);
    let deployment = Arc::make_mut(mesh.snapshot.workloads.get_mut(&reference("pay", "till-istio")).unwrap());
    deployment.rollout.updated = 0;
    let waits = decided(&mesh, Phase::Migrating, &json!({}));
    assert!(waits.effects.is_empty(), "{:?}", waits.effects);
    assert_eq!(waits.view.blocked[0].reason, WaitReason::RolloutInProgress);
    let deployment = Arc::make_mut(mesh.snapshot.workloads.get_mut(&reference("pay", "till-istio")).unwrap());
    deployment.rollout.updated = 1;
    let second = decided(&mesh, Phase::Migrating, &json!({}));
    assert_eq!(writes(&second).iter().map(|it| it.gateway.name.as_str()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn a_namespace_of_the_default_revision_takes_its_gateway_along_unless_it_is_pinned() {
    let mut mesh = before();
    mesh.webhook(SOURCE, |webhook| {
        let mut entry = webhook.entries[0].clone();
        entry.namespace_selector = crate::selector::LabelSelector {
            match_labels: map(&[(labels::INJECTION, "enabled")]),
            ..Default::default()
        };
        webhook.entries.push(entry);
    });
    mesh.namespace("shop", |namespace| namespace.labels = map(&[(labels::INJECTION, "enabled")]));
    let decision = decided(&mesh, Phase::Migrating, &json!({}));
    assert_eq!(writes(&decision).iter().map(|it| it.gateway.name.as_str()).collect::<Vec<_>>(), ["web"]);
}

/// `shop` follows the tag `default` by `istio-injection`, and so does its Gateway.
fn by_the_default_tag() -> Mesh {
    let mut mesh = before();
    mesh.add_tag("default", SOURCE);
    let tag = mesh.snapshot.webhooks.iter_mut().find(|webhook| webhook.tag.is_some()).unwrap();
    Arc::make_mut(tag).entries[0].namespace_selector = crate::selector::LabelSelector {
        match_labels: map(&[(labels::INJECTION, "enabled")]),
        ..Default::default()
    };
    mesh.namespace("shop", |namespace| namespace.labels = map(&[(labels::INJECTION, "enabled")]));
    mesh.plan.waves[0].tag = Some("default".to_owned());
    mesh.plan.waves[0].tag_moves = true;
    mesh
}

#[test]
fn what_follows_the_default_is_pinned_and_a_rollback_lets_go_of_it() {
    let mut mesh = by_the_default_tag();
    let first = decided(&mesh, Phase::Migrating, &json!({}));
    let [label] = writes(&first)[..] else { panic!("{:?}", first.effects) };
    assert_eq!((label.gateway.name.as_str(), &label.revision), ("web", &Some(SOURCE.into())));
    change(&mut mesh, "shop", "web", pin);
    mesh.census(|census| census.taken_at = Some(at(100)));
    let more = json!({"step": "Proven", "soakSince": "1970-01-01T00:01:40Z", "rollback": turned_back()});
    let back = decided(&mesh, Phase::RollingBack, &more);
    let [label] = writes(&back)[..] else { panic!("{:?} {:?}", back.effects, back.view.blocked) };
    assert_eq!((&label.revision, &label.previous), (&None, &PreviousEdit::Remove));
    change(&mut mesh, "shop", "web", |gateway| (gateway.revision, gateway.previous) = (None, None));
    assert_eq!(run(&decided(&mesh, Phase::RollingBack, &more)).phase, Phase::RolledBack);
}
