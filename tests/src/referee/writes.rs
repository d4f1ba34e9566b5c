//! Rules for each write.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use meshupgrade_core::effect::{MoveTag, MoveTagService, PreviousEdit, Relabel, Restart};
use meshupgrade_core::ids::{NamespaceName, Revision, Uid, WorkloadRef};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{Labels, Namespace, PodTemplate};
use meshupgrade_core::pods::workload_of;
use meshupgrade_core::record::{BatchEntry, Direction};

use super::{Referee, Rolling, Violation, direction_of, planned, revisions, rule};
use crate::world::World;
use crate::world::history::Seen;
use crate::world::injector::{Outcome, selected};

impl Referee {
    pub(super) fn judge_relabel(
        &mut self,
        world: &World,
        effect: &Relabel,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let name = &effect.namespace;
        rule!(planned(&seen.record).contains(name), "I13: {name} is relabelled and not in the stored plan");
        rule!(
            name.as_str() != crate::world::build::ISTIO,
            "I13: the control plane's namespace is relabelled"
        );
        let Some(before) = seen.snapshot.namespaces.get(name) else {
            return Err(format!("I13: {name} is relabelled and was not seen"));
        };
        let uid = world.namespaces.get(name).map(|namespace| namespace.uid.clone()).unwrap_or_default();
        let count = self.relabels.entry((uid.clone(), effect.stamp.clone())).or_insert(0);
        *count += 1;
        rule!(*count <= 1, "I15: {name} is relabelled twice for {}", effect.stamp);
        let Some((source, target, destination)) = revisions(seen) else {
            return Err("I3: a write without a stored run".to_owned());
        };
        rule!(
            seen.record.run.as_ref().is_some_and(|run| run.started_at.is_some()),
            "I3: {name} is relabelled before the plan is frozen"
        );
        rule!(answers(seen, destination), "I1: {name} is relabelled while {destination} does not answer");
        match direction_of(&effect.stamp) {
            Some(Direction::Forward) => {
                rule!(effect.revision.as_ref() == Some(target), "I7: {name} gets {:?}", effect.revision);
                rule!(
                    is_meshed(seen, name, &before.labels, source, target),
                    "I13: {name} was not on {source} and is brought into {target}"
                );
                if matches!(effect.previous, PreviousEdit::Set(_)) {
                    rule!(!remembers(before, source, target), "I5: what {name} remembers is overwritten");
                    self.first.insert(uid, injection_labels(&before.labels));
                }
            }
            Some(Direction::Back) => {
                if let Some(first) = self.first.get(&uid) {
                    let now = injection_labels(&world.labels_of(name));
                    rule!(is_back(&now, first), "I5: {name} goes back to {now:?} instead of {first:?}");
                }
            }
            None => return Err(format!("I8: a stamp without direction: {}", effect.stamp)),
        }
        Ok(())
    }

    pub(super) fn judge_tag(&mut self, effect: &MoveTag, seen: &Seen) -> Result<(), Violation> {
        let MoveTag { tag, stamp, revision, .. } = effect;
        let waves = seen.record.plan.iter().flat_map(|plan| &plan.waves);
        rule!(
            waves.into_iter().any(|wave| wave.tag.as_ref() == Some(tag)),
            "I13: tag {tag} is not in the stored plan"
        );
        let count = self.relabels.entry((Uid::from(format!("tag {tag}")), stamp.clone())).or_insert(0);
        *count += 1;
        rule!(*count <= 1, "I15: tag {tag} is moved twice for {stamp}");
        let Some((_, target, destination)) = revisions(seen) else {
            return Err("I3: a write without a stored run".to_owned());
        };
        rule!(answers(seen, destination), "I1: tag {tag} is moved while {destination} does not answer");
        rule!(revision == destination, "I7: tag {tag} goes to {revision}");
        let own = seen
            .snapshot
            .webhooks
            .iter()
            .find(|it| it.tag.is_none() && it.revision.as_ref() == Some(revision));
        let leads = own.is_some_and(|own| own.entries.iter().all(|entry| entry.client == effect.client));
        rule!(leads, "I7: tag {tag} does not lead where {revision} does");
        let forward = direction_of(stamp) == Some(Direction::Forward);
        rule!(!forward || revision == target, "I7: tag {tag} goes forward to {revision}");
        Ok(())
    }

    pub(super) fn judge_tag_service(
        &mut self,
        world: &World,
        effect: &MoveTagService,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let MoveTagService { tag, stamp, revision, selector, .. } = effect;
        let count = self.relabels.entry((Uid::from(format!("service {tag}")), stamp.clone())).or_insert(0);
        *count += 1;
        rule!(*count <= 1, "I15: the Service of tag {tag} is moved twice for {stamp}");
        let Some((_, _, destination)) = revisions(seen) else {
            return Err("I3: a write without a stored run".to_owned());
        };
        rule!(revision == destination, "I7: the Service of tag {tag} goes to {revision}");
        let wanted = Some(&Some(revision.0.clone()));
        rule!(selector.get(labels::REVISION) == wanted, "I7: the Service of {tag} selects {selector:?}");
        let leads = seen
            .snapshot
            .webhooks
            .iter()
            .any(|it| it.tag.as_ref() == Some(tag) && it.revision.as_ref() == Some(revision));
        let there = world.tags.contains_key(tag);
        rule!(leads && there, "the Service of tag {tag} moves before its webhook");
        Ok(())
    }

    pub(super) fn judge_restart(
        &mut self,
        world: &World,
        effect: &Restart,
        changed: bool,
        seen: &Seen,
    ) -> Result<(), Violation> {
        let name = &effect.workload;
        let Some((_, _, destination)) = revisions(seen) else {
            return Err("I3: a write without a stored run".to_owned());
        };
        rule!(
            planned(&seen.record).contains(&name.namespace),
            "I13: {name} is restarted and not in the plan"
        );
        let batch = seen.record.run.as_ref().and_then(|run| run.batch.as_ref());
        let entry = batch.and_then(|batch| {
            batch.entries.iter().find(|entry| entry.workload == *name && entry.uid == effect.uid)
        });
        let Some(entry) = entry else {
            return Err(format!("I3: {name} is restarted and not in the stored batch"));
        };
        opened_before_a_failure(entry, seen)?;
        rule!(answers(seen, destination), "I1: {name} is restarted while {destination} does not answer");
        would_become(effect, seen, destination)?;
        self.has_settled(effect, seen)?;
        rule!(has_stale_pod(effect, seen, destination), "I8: {name} is restarted without a stale pod");
        if changed {
            let count = self.restarts.entry((effect.uid.clone(), effect.stamp.clone())).or_insert(0);
            *count += 1;
            let known = self.known.contains(&(effect.uid.clone(), effect.stamp.clone()));
            let lost = self.tolerate.lost_answer && *count == 2;
            rule!(*count <= 1 || !known || lost, "I8: {name} is restarted twice for {}", effect.stamp);
            self.count_rolling(world, effect, seen)?;
        }
        Ok(())
    }

    /// Remembers which labels a decision saw taken away after the operator had set them in this direction.
    pub(super) fn remember_reverts(&mut self, seen: &Seen) {
        let (Some(run), Some((_, _, destination))) = (&seen.record.run, revisions(seen)) else {
            return;
        };
        for name in planned(&seen.record) {
            let Some(namespace) = seen.snapshot.namespaces.get(name) else {
                continue;
            };
            let stamp = namespace.relabelled_by.as_deref().and_then(|stamp| stamp.rsplit_once('.'));
            let ours = run.stamp(&seen.intent.uid, 1);
            let written = stamp.is_some() && stamp.map(|it| it.0) == ours.rsplit_once('.').map(|it| it.0);
            let label = namespace.labels.get(labels::REVISION).map(String::as_str);
            // Back, it should say what it said at first, which may be nothing.
            let first = self.first.get(&namespace.uid).filter(|_| run.direction() == Direction::Back);
            let expected = first
                .map_or(Some(destination.as_str()), |first| first.get(labels::REVISION).map(String::as_str));
            if written && label != expected {
                self.reverted.insert(name.clone(), seen.at);
            }
        }
    }

    /// The label has been there for the settle time since the operator set it, and since a decision last saw it away. A
    /// change that no decision saw is not held against anybody.
    fn has_settled(&self, effect: &Restart, seen: &Seen) -> Result<(), Violation> {
        let name = &effect.workload.namespace;
        let settle = SignedDuration::from_secs(i64::from(seen.intent.settle_seconds));
        let set =
            seen.labelled.get(name).filter(|labelled| labelled.by_operator).map(|labelled| labelled.since);
        // A decision cannot know what only a later one saw.
        let seen_away = self.reverted.get(name).copied().filter(|at| *at <= seen.at);
        let since = set.max(seen_away);
        rule!(
            since.is_none_or(|since| since + settle <= seen.at),
            "I1: {} is restarted {} s after the label of its namespace was set or seen away",
            effect.workload,
            since.map_or(0, |since| seen.at.duration_since(since).as_secs())
        );
        Ok(())
    }

    /// At most as many workloads in rollout as the wave allows, by what really runs. Counted for each object and
    /// direction: what another object began, or the way forward before a rollback, is not this batch.
    fn count_rolling(&mut self, world: &World, effect: &Restart, seen: &Seen) -> Result<(), Violation> {
        let (Some(run), Some(plan)) = (&seen.record.run, &seen.record.plan) else {
            return Ok(());
        };
        let family = effect.stamp.rsplit_once('.').map_or("", |(family, _)| family).to_owned();
        self.forget_what_came_to_rest(world);
        let rolling = Rolling { uid: effect.uid.clone(), destination: run.destination().clone() };
        self.rolling.insert((effect.workload.clone(), family.clone()), rolling);
        // Rollback passes over failed workloads, which stay open beside the others.
        let failed = |workload: &WorkloadRef| {
            let mut entries = run.batch.iter().flat_map(|batch| &batch.entries);
            run.rollback.is_some() && entries.any(|entry| entry.timed_out && entry.workload == *workload)
        };
        let rolling: Vec<String> = self
            .rolling
            .keys()
            .filter(|(workload, other)| *other == family && !failed(workload))
            .map(|(workload, _)| workload.to_string())
            .collect();
        let wave = plan.waves.get(run.wave as usize);
        let allowed = wave.map_or(0, |wave| wave.max_concurrent as usize);
        rule!(rolling.len() <= allowed, "I3: {allowed} allowed in rollout, but: {}", rolling.join(", "));
        Ok(())
    }
}

/// The injection labels of all labels.
pub(super) fn injection_labels(all: &Labels) -> Labels {
    let keys = [labels::REVISION, labels::INJECTION];
    keys.iter().filter_map(|key| all.get(*key).map(|value| ((*key).to_owned(), value.clone()))).collect()
}

/// Whether labels go back. Of two that hide each other, the one that would take the sidecars away stays gone until the
/// workloads are back (I1).
fn is_back(now: &Labels, first: &Labels) -> bool {
    let mut safe = first.clone();
    if first.len() > 1 {
        safe.remove(labels::INJECTION);
    }
    *now == *first || *now == safe
}

fn answers(seen: &Seen, revision: &Revision) -> bool {
    let plane = seen.snapshot.control_planes.get(revision);
    let ready = plane.and_then(|plane| plane.istiod.as_ref()).is_some_and(|istiod| istiod.ready > 0);
    ready && seen.snapshot.webhooks.iter().any(|webhook| webhook.revision.as_ref() == Some(revision))
}

/// Whether a namespace was in the mesh that the run moves.
fn is_meshed(
    seen: &Seen,
    name: &NamespaceName,
    labels: &Labels,
    source: &Revision,
    target: &Revision,
) -> bool {
    // The live labels, or the revision's label alone, where `istio-injection` hides it.
    let mut plain = labels.clone();
    plain.remove(labels::INJECTION);
    let selects = |labels: &Labels| {
        let outcome = selected(&seen.snapshot.webhooks, labels, name, &PodTemplate::default());
        outcome == Outcome::Injected(source.clone())
    };
    selects(labels)
        || selects(&plain)
        || seen.snapshot.namespaces.get(name).is_some_and(|namespace| remembers(namespace, source, target))
}

/// Whether a namespace remembers its labels from before it was moved from one revision to the other.
fn remembers(namespace: &Namespace, source: &Revision, target: &Revision) -> bool {
    namespace.previous.as_ref().is_some_and(|previous| previous.from == *source && previous.to == *target)
}

/// New pods of the workload would get the destination's sidecar.
fn would_become(effect: &Restart, seen: &Seen, destination: &Revision) -> Result<(), Violation> {
    let name = &effect.workload;
    let Some(workload) = seen.snapshot.workloads.get(name) else {
        return Err(format!("I13: {name} is restarted and was not seen"));
    };
    let nothing = BTreeMap::new();
    let namespace = seen.snapshot.namespaces.get(&name.namespace);
    let labels = namespace.map_or(&nothing, |namespace| &namespace.labels);
    let outcome = selected(&seen.snapshot.webhooks, labels, &name.namespace, &workload.template);
    rule!(
        outcome == Outcome::Injected(destination.clone()),
        "I1: {name} is restarted, and its pods would become {outcome:?} instead of {destination}"
    );
    Ok(())
}

/// On the way forward nothing is opened any more after a workload of the batch failed.
fn opened_before_a_failure(entry: &BatchEntry, seen: &Seen) -> Result<(), Violation> {
    let Some(run) = seen.record.run.as_ref().filter(|run| run.rollback.is_none()) else {
        return Ok(());
    };
    let timeout = SignedDuration::from_secs(i64::from(seen.intent.restart.timeout_seconds));
    let mut failed = run.batch.iter().flat_map(|batch| &batch.entries).filter(|other| other.timed_out);
    let failed = failed.find(|failed| entry.since >= failed.since + timeout);
    rule!(
        failed.is_none(),
        "I3: {} is opened after {} failed",
        entry.workload,
        failed.map_or_else(String::new, |failed| failed.workload.to_string())
    );
    Ok(())
}

fn has_stale_pod(effect: &Restart, seen: &Seen, destination: &Revision) -> bool {
    let pods = seen.snapshot.pods.get(&effect.workload.namespace);
    // A patch upgrade replaces proxies with another image than the injector's, too.
    let patch = seen.record.run.as_ref().is_some_and(|run| run.patch);
    let plane = seen.snapshot.control_planes.get(destination).filter(|_| patch);
    let image = plane.and_then(|plane| plane.proxy_image.as_ref());
    pods.into_iter().flatten().any(|pod| {
        let revision = pod.proxy.as_ref().and_then(|proxy| proxy.revision.as_ref());
        let outdated = image.is_some() && pod.proxy.as_ref().map(|proxy| &proxy.image) != image;
        let stale = revision != Some(destination) || outdated;
        workload_of(pod).as_ref() == Some(&effect.workload) && !pod.finished && stale
    })
}
