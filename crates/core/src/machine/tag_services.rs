//! The Services of revision tags (Istio 1.28 and later): each follows the webhook of its tag, once per run, direction and retry, and is
//! never fought for. New pods do not depend on them, so that a rollback brings workloads back without waiting for one.

use std::collections::BTreeMap;

use crate::decision::About;
use crate::effect::{Effect, MoveTagService};
use crate::machine::pass::Pass;
use crate::machine::permission::{Permission, permission};
use crate::machine::relabel::{Standings, answers};
use crate::machine::tags::stamp;
use crate::observed::{IstiodService, Labels};
use crate::record::Direction;
use crate::tags;
use crate::wait::WaitReason;

/// Leads the Services of a tag whose webhook is in place to the same istiod. What somebody else put elsewhere stays there. `now` says that
/// the turn of the tag has come.
pub fn follow(pass: &mut Pass<'_>, tag: &str, now: bool, standings: &mut Standings) {
    let snapshot = pass.snapshot;
    let (source, target) = pass.revisions();
    let origin = if pass.run.direction() == Direction::Back { target } else { source };
    for (_, service) in tags::services_on(snapshot, &origin).filter(|(of, _)| *of == tag) {
        follow_one(pass, tag, service, now, standings);
    }
}

fn follow_one(pass: &mut Pass<'_>, tag: &str, service: &IstiodService, now: bool, standings: &mut Standings) {
    let about = About::Service(service.reference.clone());
    let stamp = stamp(pass, tag);
    let again = pass.run.tag_attempts.contains_key(tag);
    if let Some(owner) = tags::owner(service.owner.as_ref(), &service.managers) {
        let because = format!(
            "{} of revision tag {tag} belongs to {owner}: {}",
            service.reference,
            by_hand(pass, service)
        );
        pass.wait(WaitReason::LabelNotMoved, Some(about), because);
        standings.tag_astray = true;
        return;
    }
    match permission(pass, service.relabelled_by.as_deref(), &stamp, again, now) {
        Permission::Granted if !answers(pass) => standings.awaited = true,
        Permission::Granted => {
            let Some(change) = change_of(pass, tag, service, stamp) else {
                no_selector(pass, tag, service);
                standings.tag_astray = true;
                return;
            };
            if pass.note_refusal(about.clone(), &change.stamp) {
                standings.tag_astray = true;
            } else {
                standings.awaited = true;
                let note = format!(
                    "{} leads to istiod of {}: {}",
                    service.reference, change.revision, change.because
                );
                pass.effect_event(false, "TagServiceMoved", Some(about), note);
            }
            pass.effect(Effect::TagService(change));
        }
        Permission::Used => {
            reverted(pass, tag, service);
            standings.tag_astray = true;
        }
        // It came after its tag's turn. What still refers to the old revision is told at the end.
        Permission::Never => {}
    }
}

fn change_of(pass: &Pass<'_>, tag: &str, service: &IstiodService, stamp: String) -> Option<MoveTagService> {
    let destination = pass.run.destination().clone();
    let selector = tags::selector_of(pass.snapshot, &destination)?;
    Some(MoveTagService {
        tag: tag.to_owned(),
        service: service.reference.clone(),
        resource_version: service.resource_version.clone(),
        selector: difference(&service.selector, selector),
        because: format!("revision tag {tag} points at {destination}"),
        revision: destination,
        stamp,
    })
}

/// What makes one selector of another.
fn difference(now: &Labels, wanted: &Labels) -> BTreeMap<String, Option<String>> {
    let removed = now.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), None));
    let set = wanted.iter().filter(|(key, value)| now.get(*key) != Some(value));
    removed.chain(set.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}

fn no_selector(pass: &mut Pass<'_>, tag: &str, service: &IstiodService) {
    let because = format!(
        "{} of revision tag {tag} cannot follow it: istiod of {} has no Service of its own in {} to take the selector from; {}",
        service.reference,
        pass.run.destination(),
        pass.intent.istio_namespace,
        by_hand(pass, service)
    );
    pass.wait(WaitReason::LabelNotMoved, Some(About::Service(service.reference.clone())), because);
}

/// Somebody changed it after our write: a person decides, or asks for another attempt.
fn reverted(pass: &mut Pass<'_>, tag: &str, service: &IstiodService) {
    let about = Some(About::Service(service.reference.clone()));
    if pass.retries_all() {
        *pass.run.tag_attempts.entry(tag.to_owned()).or_insert(1) += 1;
        pass.event(false, "RetryAccepted", about, "the Service of the tag will be moved once more");
        return;
    }
    let because = format!(
        "somebody changed {} of revision tag {tag} after MeshUpgrade moved it: {}; or {}",
        service.reference,
        by_hand(pass, service),
        pass.how_to_retry("moves it once more")
    );
    pass.wait(WaitReason::LabelReverted, about, because);
}

fn by_hand(pass: &Pass<'_>, service: &IstiodService) -> String {
    format!(
        "let it lead to {0}: {1}",
        pass.run.destination(),
        tags::move_service_by_hand(&service.reference, pass.run.destination())
    )
}
