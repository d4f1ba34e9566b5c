//! The Services of revision tags (Istio 1.28 and later): each follows the webhook of its tag, once per run, direction and retry, and is
//! never fought for. New pods do not depend on them, so that a rollback brings workloads back without waiting for one.

use std::sync::Arc;

use crate::decision::About;
use crate::effect::{Effect, MoveTagService};
use crate::machine::pass::Pass;
use crate::machine::permission::{Permission, permission};
use crate::machine::relabel::{Standings, answers};
use crate::observed::IstiodService;
use crate::record::Direction;
use crate::tags;
use crate::wait::WaitReason;

/// Leads the Service of a tag whose webhook is in place to the same istiod. What somebody else put elsewhere stays there, and so do other
/// Services with the label of the tag. `now` says that the turn of the tag has come.
pub fn follow(pass: &mut Pass<'_>, tag: &str, now: bool, standings: &mut Standings) {
    if let Some(service) = left_behind(pass, tag) {
        follow_one(pass, tag, &service, now, standings);
    }
}

/// A person asked for another attempt of the tag, which somebody put back with its Service.
pub fn retried(pass: &mut Pass<'_>, tag: &str) {
    if left_behind(pass, tag).is_some_and(|service| service.relabelled_by == Some(stamp(pass, tag))) {
        *pass.run.tag_attempts.entry(attempt_key(tag)).or_insert(1) += 1;
    }
}

/// The Service of a tag, if it leads to where the run comes from.
fn left_behind(pass: &Pass<'_>, tag: &str) -> Option<Arc<IstiodService>> {
    let (source, target) = pass.revisions();
    let (from, to) =
        if pass.run.direction() == Direction::Back { (target, source) } else { (source, target) };
    let name = tags::services::name_of(tag);
    let mut services = tags::services::left_on(pass.snapshot, &from, &to);
    let found = services.find(|(of, service)| *of == tag && service.reference.name == name);
    found.map(|(_, service)| Arc::clone(service))
}

fn follow_one(pass: &mut Pass<'_>, tag: &str, service: &IstiodService, now: bool, standings: &mut Standings) {
    let about = About::Service(service.reference.clone());
    let stamp = stamp(pass, tag);
    let last = service.relabelled_by.as_deref();
    let again = last.is_some() && pass.run.tag_attempts.contains_key(&attempt_key(tag));
    let permission = permission(pass, last, &stamp, again, now);
    if permission == Permission::Never {
        // It came after its tag's turn. What still refers to the old revision is told at the end.
        return;
    }
    if let Some(owner) = tags::owner(service.owner.as_ref(), &service.managers) {
        let because = format!(
            "{} of revision tag {tag} belongs to {owner}: let that lead it to istiod of {}",
            service.reference,
            pass.run.destination()
        );
        pass.wait(WaitReason::LabelNotMoved, Some(about), because);
        standings.tag_astray = true;
        return;
    }
    match permission {
        Permission::Granted if !answers(pass) => await_it(pass, standings),
        Permission::Granted => {
            let Some(change) = change_of(pass, tag, service, stamp) else {
                no_selector(pass, tag, service);
                standings.tag_astray = true;
                return;
            };
            if pass.note_refusal(about.clone(), &change.stamp) {
                standings.tag_astray = true;
            } else {
                await_it(pass, standings);
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
        Permission::Never => {}
    }
}

/// A write is due or on its way: the wave waits for it, and of a rollback only the end.
fn await_it(pass: &Pass<'_>, standings: &mut Standings) {
    match pass.run.direction() {
        Direction::Forward => standings.awaited = true,
        Direction::Back => standings.tag_astray = true,
    }
}

fn change_of(pass: &Pass<'_>, tag: &str, service: &IstiodService, stamp: String) -> Option<MoveTagService> {
    let destination = pass.run.destination().clone();
    Some(MoveTagService {
        tag: tag.to_owned(),
        service: service.reference.clone(),
        resource_version: service.resource_version.clone(),
        selector: tags::services::edits(pass.snapshot, service, &destination)?,
        because: format!("revision tag {tag} points at {destination}"),
        revision: destination,
        stamp,
    })
}

fn no_selector(pass: &mut Pass<'_>, tag: &str, service: &IstiodService) {
    let because = format!(
        "{} of revision tag {tag} cannot follow it: which pods are those of istiod of {} is not known, because no Service of its own \
         in {} says so; {}",
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
        *pass.run.tag_attempts.entry(attempt_key(tag)).or_insert(1) += 1;
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
    let destination = pass.run.destination();
    let edits = tags::services::edits(pass.snapshot, service, destination);
    let command = tags::services::by_hand(&service.reference, edits.as_ref(), destination);
    format!("let it lead to {destination}: {command}")
}

/// Attempts of the Service are counted by themselves: no tag has this name.
fn attempt_key(tag: &str) -> String {
    format!("service/{tag}")
}

fn stamp(pass: &Pass<'_>, tag: &str) -> String {
    let attempts = pass.run.tag_attempts.get(&attempt_key(tag)).copied();
    pass.run.stamp(&pass.intent.uid, attempts.unwrap_or(1))
}
