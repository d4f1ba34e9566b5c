//! The revision tags of a run: where they should point, and whether we may move them. Each is moved in one write, once per run,
//! direction and retry, and never fought for. One that a tool owns is waited for.

use std::collections::BTreeSet;

use crate::decision::About;
use crate::effect::{Effect, MoveTag, PreviousEdit};
use crate::ids::NamespaceName;
use crate::inventory::{is_system, some_of};
use crate::labels;
use crate::machine::pass::{Pass, pair};
use crate::machine::permission::{Permission, permission};
use crate::machine::relabel::{Standings, answers, waves_up_to};
use crate::machine::tag_services;
use crate::observed::{PreviousLabels, WebhookConfiguration};
use crate::plan::{PlannedWave, WaveKind};
use crate::record::Direction;
use crate::tags;
use crate::wait::WaitReason;

/// What is to be done about one tag.
enum Due {
    /// It points where it should, or is not part of what the run moved.
    Nothing,
    /// A person asked for another attempt, which comes with the next pass.
    Again,
    /// One write is due.
    Move(Box<MoveTag>),
    /// Somebody has to act.
    Person(WaitReason, String),
}

/// Brings the tags of the waves up to `last` in place, as far as it is allowed. `write` is the wave whose tag is due; those of the
/// others were moved before and are only watched.
pub fn bring(pass: &mut Pass<'_>, last: u32, write: Option<u32>, standings: &mut Standings) {
    let with_tag = |(index, wave): (u32, &PlannedWave)| Some((index, wave.tag.clone()?, wave.tag_moves));
    let waves: Vec<(u32, String, bool)> = waves_up_to(pass, last).filter_map(with_tag).collect();
    for (index, tag, moves) in waves {
        let is_ours = moves || was_moved(pass, &tag) || wrote_in_this_run(pass, &tag);
        if pass.run.direction() == Direction::Back && !is_ours {
            // It was where it is before the run.
            continue;
        }
        let may_write = write == Some(index) || pass.run.direction() == Direction::Back;
        match due(pass, &tag, may_write) {
            Due::Nothing if is_ours => tag_services::follow(pass, &tag, may_write, standings),
            Due::Nothing => {}
            Due::Again => standings.awaited = true,
            Due::Move(_) if !answers(pass) => standings.awaited = true,
            Due::Move(change) => {
                if pass.note_refusal(About::Webhook(change.webhook.clone()), &change.stamp) {
                    astray(pass, &tag, standings);
                } else {
                    standings.awaited = true;
                    announce(pass, &change);
                }
                pass.effect(Effect::Tag(*change));
            }
            Due::Person(reason, because) => {
                let webhook =
                    tags::find(pass.snapshot, &tag).map(|webhook| About::Webhook(webhook.name.clone()));
                pass.wait(reason, webhook, because);
                astray(pass, &tag, standings);
            }
        }
    }
}

/// The namespaces that follow a tag cannot move before it.
fn astray(pass: &Pass<'_>, tag: &str, standings: &mut Standings) {
    standings.tag_astray = true;
    let waves = pass.plan.waves.iter().filter(|wave| wave.tag.as_deref() == Some(tag));
    standings.astray.extend(waves.flat_map(|wave| wave.namespaces.iter().cloned()));
}

fn due(pass: &mut Pass<'_>, tag: &str, may_write: bool) -> Due {
    let destination = pass.run.destination().clone();
    let snapshot = pass.snapshot;
    let Some(webhook) = tags::find(snapshot, tag) else {
        return Due::Person(WaitReason::LabelReverted, missing(pass, tag));
    };
    if tags::points_at(snapshot, webhook, &destination) {
        return Due::Nothing;
    }
    if let Some(owner) = tags::owner(webhook.owner.as_ref(), &webhook.managers) {
        let because = format!(
            "revision tag {tag} points at {}, and {owner} moves it: let that point it at {destination}",
            shown(webhook)
        );
        return Due::Person(WaitReason::LabelNotMoved, because);
    }
    let stamp = stamp(pass, tag);
    let again = pass.run.tag_attempts.contains_key(tag);
    match permission(pass, webhook.relabelled_by.as_deref(), &stamp, again, may_write) {
        Permission::Granted => moving(pass, tag, webhook, stamp),
        Permission::Used | Permission::Never => reverted(pass, tag, webhook),
    }
}

/// Whether a tag remembers that a run of this pair moved it.
fn was_moved(pass: &Pass<'_>, tag: &str) -> bool {
    let revisions = pass.revisions();
    tags::find(pass.snapshot, tag).is_some_and(|webhook| tags::moved_by(webhook, pair(&revisions)))
}

/// Whether this run wrote to a tag, in whatever direction: after the way back nothing else remembers it.
fn wrote_in_this_run(pass: &Pass<'_>, tag: &str) -> bool {
    let ours = pass.run.stamp_prefix(&pass.intent.uid);
    let stamp = tags::find(pass.snapshot, tag).and_then(|webhook| webhook.relabelled_by.as_ref());
    stamp.is_some_and(|stamp| stamp.starts_with(&ours))
}

/// Namespaces that began to follow a tag after the plan was made went to the target with it, and come back with it: they join its wave.
/// Says whether there were any.
pub fn followers_join(pass: &mut Pass<'_>) -> bool {
    let moved = pass.plan.waves.iter().filter(|wave| wave.kind != WaveKind::Gateways);
    let planned: BTreeSet<NamespaceName> = moved.flat_map(|wave| wave.namespaces.iter().cloned()).collect();
    let tags: BTreeSet<String> = pass.plan.waves.iter().filter_map(|wave| wave.tag.clone()).collect();
    let tags: BTreeSet<String> = tags.into_iter().filter(|tag| was_moved(pass, tag)).collect();
    if tags.is_empty() {
        return false;
    }
    let (intent, snapshot) = (pass.intent, pass.snapshot);
    let late = snapshot.namespaces.values().filter(|namespace| {
        !namespace.terminating && !planned.contains(&namespace.name) && !is_system(intent, &namespace.name)
    });
    let joining: Vec<(String, NamespaceName)> = late
        .filter_map(|namespace| Some((tags::followed(snapshot, namespace)?, namespace.name.clone())))
        .filter(|(tag, _)| tags.contains(tag))
        .collect();
    for (tag, namespace) in &joining {
        if let Some(wave) = pass.plan.waves.iter_mut().find(|wave| wave.tag.as_ref() == Some(tag)) {
            wave.namespaces.push(namespace.clone());
        }
    }
    !joining.is_empty()
}

fn moving(pass: &Pass<'_>, tag: &str, webhook: &WebhookConfiguration, stamp: String) -> Due {
    let revisions = pass.revisions();
    let destination = pass.run.destination().clone();
    let Some(client) = tags::client_of(pass.snapshot, &destination).cloned() else {
        return Due::Person(
            WaitReason::WebhookNotReady,
            format!(
                "the entries of the injector of {destination} point at different places: revision tag {tag} cannot follow it"
            ),
        );
    };
    let previous = match pass.run.direction() {
        Direction::Back => PreviousEdit::Remove,
        Direction::Forward if tags::moved_by(webhook, pair(&revisions)) => PreviousEdit::Leave,
        Direction::Forward => PreviousEdit::Set(PreviousLabels {
            from: revisions.0.clone(),
            to: revisions.1.clone(),
            revision: webhook.revision.as_ref().map(ToString::to_string),
            ..PreviousLabels::default()
        }),
    };
    let because = match pass.run.direction() {
        Direction::Forward => format!("its wave moves from {} to {}", revisions.0, revisions.1),
        Direction::Back => format!("the run goes back from {} to {}", revisions.1, revisions.0),
    };
    Due::Move(Box::new(MoveTag {
        tag: tag.to_owned(),
        webhook: webhook.name.clone(),
        resource_version: webhook.resource_version.clone(),
        entries: webhook.entries.iter().map(|entry| entry.name.clone()).collect(),
        revision: destination,
        client,
        previous,
        stamp,
        because,
    }))
}

/// Somebody moved it after our write: a person decides, or asks for another attempt.
fn reverted(pass: &mut Pass<'_>, tag: &str, webhook: &WebhookConfiguration) -> Due {
    if pass.retries_all() {
        *pass.run.tag_attempts.entry(tag.to_owned()).or_insert(1) += 1;
        tag_services::retried(pass, tag);
        let about = Some(About::Webhook(webhook.name.clone()));
        pass.event(false, "RetryAccepted", about, "the tag will be moved once more");
        return Due::Again;
    }
    let (destination, name) = (pass.run.destination(), &pass.intent.name);
    let because = format!(
        "somebody changed revision tag {tag}, which is to point at {destination} (now {}): point it there again, with \
         istioctl tag set {tag} --revision {destination} --istioNamespace {} --overwrite, or let MeshUpgrade do so: kubectl annotate \
         meshupgrade {name} {}=$(date +%s) --overwrite",
        shown(webhook),
        pass.intent.istio_namespace,
        labels::RETRY
    );
    Due::Person(WaitReason::LabelReverted, because)
}

fn missing(pass: &Pass<'_>, tag: &str) -> String {
    let destination = pass.run.destination();
    let found: Vec<&str> =
        tags::all_of(pass.snapshot, tag).into_iter().map(|webhook| webhook.name.as_str()).collect();
    if found.is_empty() {
        return format!(
            "revision tag {tag} is gone, so that new pods of its namespaces get no sidecar: istioctl tag set {tag} --revision \
             {destination} --istioNamespace {}",
            pass.intent.istio_namespace
        );
    }
    format!("revision tag {tag} has several webhook configurations: {}; delete all but one", some_of(&found))
}

/// Where a tag points now, for people.
fn shown(webhook: &WebhookConfiguration) -> String {
    webhook.revision.as_ref().map_or_else(|| "no revision".to_owned(), ToString::to_string)
}

fn stamp(pass: &Pass<'_>, tag: &str) -> String {
    pass.run.stamp(&pass.intent.uid, pass.run.tag_attempts.get(tag).copied().unwrap_or(1))
}

fn announce(pass: &mut Pass<'_>, change: &MoveTag) {
    let note = format!("revision tag {} points at {}: {}", change.tag, change.revision, change.because);
    pass.effect_event(false, "RevisionTagMoved", Some(About::Webhook(change.webhook.clone())), note);
}
