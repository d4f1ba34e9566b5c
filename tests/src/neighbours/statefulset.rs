//! The StatefulSet controller.
//! Source: `updateStatefulSet` in pkg/controller/statefulset/stateful_set_control.go in kubernetes/kubernetes.

use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::Strategy;

use super::{end_time, of_kind, start_time, status};
use crate::rng::Rng;
use crate::world::{Pod, Template, World};

/// Handles some StatefulSets.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all = of_kind(world, WorkloadKind::StatefulSet);
    for reference in rng.part(all) {
        sync(world, &reference, rng);
        status::report(world, &reference);
    }
}

fn pod_at(world: &World, reference: &WorkloadRef, slot: u32) -> Option<(u64, Pod)> {
    world.pods_of(reference).into_iter().find(|(_, pod)| pod.slot == slot).map(|(id, pod)| (id, pod.clone()))
}

fn sync(world: &mut World, reference: &WorkloadRef, rng: &mut Rng) {
    remember_previous(world, reference);
    let Some(app) = world.apps.get(reference).cloned() else {
        return;
    };
    let replicas = app.view.replicas;
    if fill(world, reference, replicas, app.view.ordered, rng) {
        return;
    }
    if shrink(world, reference, replicas, app.view.ordered, rng) {
        return;
    }
    match app.view.strategy {
        Strategy::RollingUpdate { .. } => update(world, reference, replicas, 0, rng),
        Strategy::Partitioned { partition } => update(world, reference, replicas, partition, rng),
        Strategy::OnDelete | Strategy::Recreate => {}
    }
}

/// `status.currentRevision` moves on when all pods have the newest template and are ready.
fn remember_previous(world: &mut World, reference: &WorkloadRef) {
    let template = world.template_of(reference);
    let pods = world.pods_of(reference);
    let complete = pods.iter().all(|(_, pod)| pod.template == template && pod.available());
    let oldest = pods.iter().map(|(_, pod)| &pod.template).find(|other| **other != template).cloned();
    if let Some(app) = world.apps.get_mut(reference) {
        if complete {
            app.previous = None;
        } else if app.previous.is_none() {
            app.previous = oldest;
        }
    }
}

/// Creates missing pods, lowest first. With ordered pods the first that is missing, unready or terminating holds
/// everything up, also a pod that never becomes ready on a template that nobody wants any more.
fn fill(world: &mut World, reference: &WorkloadRef, replicas: u32, ordered: bool, rng: &mut Rng) -> bool {
    let mut created = false;
    for slot in 0..replicas {
        let found = pod_at(world, reference, slot);
        let healthy = found.as_ref().is_some_and(|(_, pod)| pod.available());
        if found.is_none() {
            let template = template_for(world, reference, slot);
            let starts_in = start_time(rng);
            world.create_pod(reference, slot, template, starts_in);
            created = true;
        }
        if ordered && !healthy {
            return true;
        }
    }
    created
}

/// A missing pod below the part that is updated comes back as it was.
fn template_for(world: &World, reference: &WorkloadRef, slot: u32) -> Template {
    let newest = world.template_of(reference);
    let Some(app) = world.apps.get(reference) else {
        return newest;
    };
    let Some(previous) = app.previous.clone() else {
        return newest;
    };
    let partition = match app.view.strategy {
        Strategy::Partitioned { partition } => partition,
        _ => 0,
    };
    let kept = world
        .pods_of(reference)
        .iter()
        .filter(|(_, pod)| pod.template == previous && !pod.terminating())
        .count();
    if slot < partition || (slot as usize) < kept { previous } else { newest }
}

/// Removes pods beyond the replicas, highest first.
fn shrink(world: &mut World, reference: &WorkloadRef, replicas: u32, ordered: bool, rng: &mut Rng) -> bool {
    let mut surplus: Vec<(u32, u64, bool)> = world
        .pods_of(reference)
        .iter()
        .filter(|(_, pod)| pod.slot >= replicas)
        .map(|(id, pod)| (pod.slot, *id, pod.terminating()))
        .collect();
    surplus.sort_unstable_by(|a, b| b.cmp(a));
    let some = !surplus.is_empty();
    for (_, id, terminating) in surplus {
        let ends_in = end_time(rng);
        world.delete_pod(id, ends_in);
        if ordered || terminating {
            break;
        }
    }
    some
}

/// Replaces pods one by one, highest first; waits for each.
fn update(world: &mut World, reference: &WorkloadRef, replicas: u32, partition: u32, rng: &mut Rng) {
    let template = world.template_of(reference);
    for slot in (partition..replicas).rev() {
        let Some((id, pod)) = pod_at(world, reference, slot) else {
            return;
        };
        if pod.template != template && !pod.terminating() {
            let ends_in = end_time(rng);
            world.delete_pod(id, ends_in);
            return;
        }
        if !pod.available() {
            return;
        }
    }
}
