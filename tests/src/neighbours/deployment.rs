//! The Deployment controller with its ReplicaSets.
//! Source: pkg/controller/deployment/{rolling,recreate,sync}.go in kubernetes/kubernetes.

use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::Strategy;

use super::{end_time, of_kind, start_time, status};
use crate::rng::Rng;
use crate::world::{Template, World};

/// Handles some Deployments.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all = of_kind(world, WorkloadKind::Deployment);
    for reference in rng.part(all) {
        sync(world, &reference, rng);
        status::report(world, &reference);
    }
}

/// The pods of a Deployment as its controller counts them.
struct Count {
    new: Vec<Seen>,
    old: Vec<Seen>,
    terminating: u32,
}

#[derive(Clone)]
struct Seen {
    id: u64,
    ready: bool,
    template: Template,
}

impl Count {
    fn of(world: &World, reference: &WorkloadRef) -> Self {
        let template = world.template_of(reference);
        let mut count = Self { new: Vec::new(), old: Vec::new(), terminating: 0 };
        for (id, pod) in world.pods_of(reference) {
            if pod.terminating() {
                count.terminating += 1;
                continue;
            }
            let seen = Seen { id, ready: pod.view.ready, template: pod.template.clone() };
            if pod.template == template { count.new.push(seen) } else { count.old.push(seen) }
        }
        count
    }

    fn live(&self) -> u32 {
        len(&self.new) + len(&self.old)
    }
}

fn len<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

fn ready(list: &[Seen]) -> u32 {
    u32::try_from(list.iter().filter(|pod| pod.ready).count()).unwrap_or(u32::MAX)
}

fn sync(world: &mut World, reference: &WorkloadRef, rng: &mut Rng) {
    let Some(app) = world.apps.get(reference) else {
        return;
    };
    let (replicas, paused) = (app.view.replicas, app.view.paused);
    let strategy = app.view.strategy.clone();
    if paused {
        scale_paused(world, reference, replicas, rng);
        return;
    }
    match strategy {
        Strategy::Recreate => recreate(world, reference, replicas, rng),
        Strategy::RollingUpdate { max_unavailable, max_surge } => {
            let surge = max_surge.of_rounded_up(replicas);
            let unavailable = max_unavailable.of_rounded_down(replicas);
            // Both zero would never move: the controller takes one.
            let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
            roll(world, reference, &Limits { replicas, surge, unavailable }, rng);
        }
        Strategy::OnDelete | Strategy::Partitioned { .. } => {}
    }
}

struct Limits {
    replicas: u32,
    surge: u32,
    unavailable: u32,
}

fn roll(world: &mut World, reference: &WorkloadRef, limits: &Limits, rng: &mut Rng) {
    let count = Count::of(world, reference);
    let room = (limits.replicas + limits.surge).saturating_sub(count.live());
    let missing = limits.replicas.saturating_sub(len(&count.new));
    create(world, reference, missing.min(room), rng);
    remove(world, &count.new, len(&count.new).saturating_sub(limits.replicas), rng);
    let count = Count::of(world, reference);
    let floor = limits.replicas.saturating_sub(limits.unavailable);
    let new_unready = len(&count.new) - ready(&count.new);
    let spare = count.live().saturating_sub(floor).saturating_sub(new_unready);
    let sick: Vec<Seen> = count.old.iter().filter(|pod| !pod.ready).cloned().collect();
    let cleaned = spare.min(len(&sick));
    remove(world, &sick, cleaned, rng);
    let available = ready(&count.new) + ready(&count.old);
    let healthy: Vec<Seen> = count.old.into_iter().filter(|pod| pod.ready).collect();
    remove(world, &healthy, available.saturating_sub(floor), rng);
}

/// All old pods go, terminating ones too, before the first new one comes.
fn recreate(world: &mut World, reference: &WorkloadRef, replicas: u32, rng: &mut Rng) {
    let count = Count::of(world, reference);
    if !count.old.is_empty() {
        remove(world, &count.old, len(&count.old), rng);
    } else if count.new.is_empty() && count.terminating > 0 {
        // Waits for the end of the last old pod.
    } else {
        create(world, reference, replicas.saturating_sub(len(&count.new)), rng);
        remove(world, &count.new, len(&count.new).saturating_sub(replicas), rng);
    }
}

/// A paused Deployment scales what it has and rolls nothing.
fn scale_paused(world: &mut World, reference: &WorkloadRef, replicas: u32, rng: &mut Rng) {
    let count = Count::of(world, reference);
    let live: Vec<Seen> = count.old.iter().chain(&count.new).cloned().collect();
    let template = live.first().map(|pod| pod.template.clone());
    let template = template.unwrap_or_else(|| world.template_of(reference));
    for _ in len(&live)..replicas {
        let starts_in = start_time(rng);
        world.create_pod(reference, 0, template.clone(), starts_in);
    }
    remove(world, &live, len(&live).saturating_sub(replicas), rng);
}

fn create(world: &mut World, reference: &WorkloadRef, how_many: u32, rng: &mut Rng) {
    let template = world.template_of(reference);
    for _ in 0..how_many {
        let starts_in = start_time(rng);
        world.create_pod(reference, 0, template.clone(), starts_in);
    }
}

/// Unready pods go first.
fn remove(world: &mut World, pods: &[Seen], how_many: u32, rng: &mut Rng) {
    let mut order: Vec<&Seen> = pods.iter().collect();
    order.sort_by_key(|pod| pod.ready);
    for pod in order.into_iter().take(how_many as usize) {
        let ends_in = end_time(rng);
        world.delete_pod(pod.id, ends_in);
    }
}
