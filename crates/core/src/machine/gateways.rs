//! Gateways of the Gateway API in a run: pinned before the label of their namespace is written, moved one by one in the wave
//! of gateways, and let go at the end. Their labels are written as seldom as those of namespaces, and never fought for.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::decision::About;
use crate::effect::{Effect, GatewayLabel, PreviousEdit};
use crate::gateways::{label_towards, memory, needs_pin, of_workload, revision_of, takes_part};
use crate::ids::{NamespaceName, Revision, WorkloadRef};
use crate::labels;
use crate::machine::pass::{Pass, about_workload, pair};
use crate::observed::{Gateway, PreviousLabels};
use crate::plan::WaveKind;
use crate::record::Direction;
use crate::rollout::{Rollout, rollout};
use crate::tags;
use crate::wait::WaitReason;

/// Whether no Gateway would move with the label of its namespace, which is about to be written. Those that would are pinned to the
/// source, one after the other: Istio copies labels of a Gateway into the template of its pods, so that a pin rolls them.
pub fn pinned(pass: &mut Pass<'_>) -> bool {
    let revisions = pass.revisions();
    let namespaces = relabelled_by_the_run(pass);
    let due: Vec<Arc<Gateway>> = all(pass)
        .filter(|gateway| namespaces.contains(&gateway.reference.namespace))
        .filter(|gateway| is_led_by_us(pass, gateway))
        .filter(|gateway| needs_pin(pass.snapshot, pair(&revisions), gateway))
        .collect();
    if rolls(pass) || due.is_empty() {
        return due.is_empty() && !rolls(pass);
    }
    if !pass.may_start() {
        return false;
    }
    // One that somebody keeps from being pinned is told, and holds up the labels; the others are pinned all the same.
    for gateway in &due {
        let stamp = format!("{}.pin", pass.run.relabel_stamp(&pass.intent.uid, &gateway.reference.namespace));
        let because = format!(
            "it is to stay on {} while the label of its namespace changes: it moves in the wave of gateways",
            revisions.0
        );
        let label = Some(revisions.0.clone());
        if !write(pass, gateway, label, remember(gateway, &revisions), stamp, None, because) {
            break;
        }
    }
    false
}

/// Whether the run itself writes what leads the namespace of a Gateway to a revision: what somebody else moves is not ours to hold.
fn is_led_by_us(pass: &Pass<'_>, gateway: &Gateway) -> bool {
    let namespace = pass.snapshot.namespaces.get(&gateway.reference.namespace);
    namespace.is_none_or(|namespace| tags::is_led_by_us(pass.intent, pass.snapshot, namespace))
}

/// Whether pods of a Gateway that this run wrote to are still being replaced; that is noted.
fn rolls(pass: &mut Pass<'_>) -> bool {
    let ours = pass.run.stamp_prefix(&pass.intent.uid);
    let written =
        |gateway: &Gateway| gateway.relabelled_by.as_ref().is_some_and(|stamp| stamp.starts_with(&ours));
    let snapshot = pass.snapshot;
    let rolling = snapshot.workloads.values().find_map(|workload| {
        of_workload(snapshot, workload).filter(|gateway| written(gateway))?;
        match rollout(workload) {
            Rollout::Done => None,
            Rollout::InProgress(why) | Rollout::Stuck(why) => Some((workload.reference.clone(), why)),
        }
    });
    let Some((workload, why)) = rolling else { return false };
    let because = format!("{workload} takes over the label of its Gateway: {why}");
    pass.wait(WaitReason::RolloutInProgress, about_workload(&workload), because);
    true
}

/// The write that moves a Gateway to where the run goes, for the Deployment that is in the stored batch.
pub fn moved(pass: &mut Pass<'_>, gateway: &Gateway, workload: &WorkloadRef, stamp: String) -> bool {
    let because = format!("its proxies are not on {} yet", pass.wanted());
    move_to_destination(pass, gateway, stamp, Some(workload.clone()), because)
}

/// Whether the run has let go of all Gateways: those that it pinned, and that have no Deployment that would have moved them. One
/// after the other, as when they were pinned.
pub fn released(pass: &mut Pass<'_>) -> bool {
    let revisions = pass.revisions();
    let homes: BTreeSet<NamespaceName> =
        pass.plan.waves.iter().flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let destination = pass.run.destination().clone();
    let held: Vec<Arc<Gateway>> = all(pass)
        .filter(|gateway| homes.contains(&gateway.reference.namespace))
        .filter(|gateway| takes_part(pass.snapshot, pair(&revisions), gateway))
        .filter(|gateway| memory(pair(&revisions), gateway).is_some())
        .filter(|gateway| is_pin_or_away(pass, gateway, &destination))
        .collect();
    if rolls(pass) || held.is_empty() {
        return held.is_empty() && !rolls(pass);
    }
    if pass.run.direction() == Direction::Forward && !pass.may_start() {
        return false;
    }
    for gateway in &held {
        let stamp =
            format!("{}.release", pass.run.relabel_stamp(&pass.intent.uid, &gateway.reference.namespace));
        let because = format!("the run lets go of it: it belongs to {destination}");
        if !move_to_destination(pass, gateway, stamp, None, because) {
            break;
        }
    }
    false
}

/// Whether a Gateway is elsewhere, or a label of ours stands where there was none and none is needed.
fn is_pin_or_away(pass: &Pass<'_>, gateway: &Gateway, destination: &Revision) -> bool {
    let revisions = pass.revisions();
    let wanted = label_towards(pass.snapshot, pair(&revisions), pass.run.direction(), gateway);
    revision_of(pass.snapshot, gateway).as_ref() != Some(destination)
        || gateway.revision.as_deref() != wanted.as_ref().map(Revision::as_str)
}

fn move_to_destination(
    pass: &mut Pass<'_>,
    gateway: &Gateway,
    stamp: String,
    workload: Option<WorkloadRef>,
    because: String,
) -> bool {
    let revisions = pass.revisions();
    let direction = pass.run.direction();
    let label = label_towards(pass.snapshot, pair(&revisions), direction, gateway);
    let previous = match direction {
        // What follows its namespace again is as it was.
        Direction::Forward if label.is_some() => remember(gateway, &revisions),
        Direction::Forward | Direction::Back => PreviousEdit::Remove,
    };
    write(pass, gateway, label, previous, stamp, workload, because)
}

/// Asks for a write, or says that somebody undid it. Says whether it was refused a moment ago or undone.
fn write(
    pass: &mut Pass<'_>,
    gateway: &Gateway,
    revision: Option<Revision>,
    previous: PreviousEdit,
    stamp: String,
    workload: Option<WorkloadRef>,
    because: String,
) -> bool {
    if gateway.relabelled_by.as_ref() == Some(&stamp) {
        reverted(pass, gateway, revision.as_ref());
        return true;
    }
    let about = About::Gateway(gateway.reference.clone());
    let refused = pass.note_refusal(about.clone(), &stamp);
    if !refused {
        let value = revision.as_ref().map_or("removed".to_owned(), |it| format!("set to {it}"));
        let note = format!("{} is {value}: {because}", labels::REVISION);
        pass.effect_event(false, "GatewayRelabeled", Some(about), note);
    }
    pass.effect(Effect::Gateway(GatewayLabel {
        gateway: gateway.reference.clone(),
        resource_version: gateway.resource_version.clone(),
        revision,
        previous,
        stamp,
        workload,
        because,
    }));
    refused
}

fn reverted(pass: &mut Pass<'_>, gateway: &Gateway, wanted: Option<&Revision>) {
    if pass.retries_all() {
        *pass.run.label_attempts.entry(gateway.reference.namespace.clone()).or_insert(1) += 1;
        let about = Some(About::Gateway(gateway.reference.clone()));
        pass.event(false, "RetryAccepted", about, "the label will be written once more");
        return;
    }
    let reference = &gateway.reference;
    let value =
        wanted.map_or_else(|| format!("{}-", labels::REVISION), |it| format!("{}={it}", labels::REVISION));
    let because = format!(
        "somebody changed {} of {reference} after MeshUpgrade set it: kubectl label gateways.gateway.networking.k8s.io {} -n {} \
         {value} --overwrite, or let its owner ignore that label",
        labels::REVISION,
        reference.name,
        reference.namespace
    );
    pass.wait(WaitReason::LabelReverted, Some(About::Gateway(reference.clone())), because);
}

fn remember(gateway: &Gateway, revisions: &(Revision, Revision)) -> PreviousEdit {
    if memory(pair(revisions), gateway).is_some() {
        return PreviousEdit::Leave;
    }
    PreviousEdit::Set(PreviousLabels {
        from: revisions.0.clone(),
        to: revisions.1.clone(),
        revision: gateway.revision.clone(),
        ..PreviousLabels::default()
    })
}

/// The namespaces whose labels the run writes.
fn relabelled_by_the_run(pass: &Pass<'_>) -> BTreeSet<NamespaceName> {
    let waves = pass.plan.waves.iter().filter(|wave| wave.kind != WaveKind::Gateways);
    waves.flat_map(|wave| wave.namespaces.iter().cloned()).collect()
}

fn all<'p>(pass: &'p Pass<'_>) -> impl Iterator<Item = Arc<Gateway>> + 'p {
    pass.snapshot.gateways.values().cloned()
}
