//! What the controllers report of a workload.

use std::sync::Arc;

use jiff::SignedDuration;
use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::RolloutStatus;

use crate::world::World;
use crate::world::views::Kind;

/// `spec.progressDeadlineSeconds` of every Deployment.
const PROGRESS_DEADLINE: i64 = 600;

/// Writes the status of a workload from its pods, if it changed.
pub fn report(world: &mut World, reference: &WorkloadRef) {
    let Some(app) = world.apps.get(reference) else {
        return;
    };
    let template = world.template_of(reference);
    let mut status = RolloutStatus { observed_generation: app.view.generation, ..RolloutStatus::default() };
    for (_, pod) in world.pods_of(reference) {
        if pod.terminating() {
            continue;
        }
        status.current += 1;
        status.updated += u32::from(pod.template == template);
        status.ready += u32::from(pod.view.ready);
        status.available += u32::from(pod.view.ready);
    }
    let before = &app.view.rollout;
    let moved = status.updated > before.updated || status.available > before.available;
    let complete = status.updated == app.view.replicas && status.available == app.view.replicas;
    let stalled = world.now > app.progress + SignedDuration::from_secs(PROGRESS_DEADLINE);
    status.deadline_exceeded = reference.kind == WorkloadKind::Deployment && !complete && !moved && stalled;
    if status != *before {
        store(world, reference, status, moved || complete);
    }
}

fn store(world: &mut World, reference: &WorkloadRef, status: RolloutStatus, progress: bool) {
    let now = world.now;
    if let Some(app) = world.apps.get_mut(reference) {
        Arc::make_mut(&mut app.view).rollout = status;
        if progress {
            app.progress = now;
        }
        world.touch(Kind::Workloads);
    }
}
