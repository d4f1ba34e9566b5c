//! Rules for a run that came to rest.

use jiff::Timestamp;
use meshupgrade_core::conditions::ConditionType;

use super::{Referee, Violation, planned, rule};
use crate::world::World;
use crate::world::injector::{Outcome, selected, webhooks};
use crate::world::pods::Pod;

impl Referee {
    /// I10: over, or waiting for something that has a name.
    pub fn judge_rest(&self, world: &World) -> Result<(), Violation> {
        let view = &world.upgrade.view;
        if view.phase.is_over() {
            return no_sidecar_was_lost(world);
        }
        rule!(
            !view.blocked.is_empty(),
            "I10: it rests in {} and says nothing of why: {}",
            view.phase,
            view.message
        );
        let person = view.blocked.iter().any(|wait| wait.reason.needs_human());
        rule!(
            !person || view.conditions.is_true(ConditionType::Stalled),
            "I10: it waits for a person and is not Stalled"
        );
        Ok(())
    }
}

/// I1: at the end no pod that was made during the run serves without the sidecar that it would get now.
fn no_sidecar_was_lost(world: &World) -> Result<(), Violation> {
    let record = &world.upgrade.record;
    let Some(run) = record.run.as_ref() else { return Ok(()) };
    let during = |at: Option<Timestamp>| at >= run.started_at && at <= run.ended_at;
    let planned = planned(record);
    let ours = |pod: &&Pod| pod.view.ready && !pod.terminating() && during(pod.view.created);
    for pod in world.pods.values().filter(ours).filter(|pod| pod.view.proxy.is_none()) {
        let Some(app) = world.apps.get(&pod.workload) else { continue };
        let namespace = &pod.workload.namespace;
        let labels = world.labels_of(namespace);
        let outcome = selected(&webhooks(world), &labels, namespace, &app.view.template);
        let would = outcome == Outcome::Injected(run.destination().clone());
        rule!(
            !(would && app.meshed && planned.contains(namespace)),
            "I1: {}, but pod {} serves without a sidecar",
            run.phase,
            pod.view.name
        );
    }
    Ok(())
}
