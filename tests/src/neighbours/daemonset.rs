//! The DaemonSet controller.
//! Source: pkg/controller/daemon/{daemon_controller,update}.go in kubernetes/kubernetes.

use meshupgrade_core::ids::{WorkloadKind, WorkloadRef};
use meshupgrade_core::observed::Strategy;

use super::{end_time, of_kind, start_time, status};
use crate::rng::Rng;
use crate::world::{Pod, World};

/// Handles some DaemonSets.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all = of_kind(world, WorkloadKind::DaemonSet);
    for reference in rng.part(all) {
        sync(world, &reference, rng);
        status::report(world, &reference);
    }
}

/// The pods of one node.
struct Node {
    slot: u32,
    new: Option<(u64, Pod)>,
    old: Option<(u64, Pod)>,
    any: bool,
}

fn nodes(world: &World, reference: &WorkloadRef) -> Vec<Node> {
    let template = world.template_of(reference);
    let count = world.apps.get(reference).map_or(0, |app| app.view.replicas);
    let pods = world.pods_of(reference);
    (0..count)
        .map(|slot| {
            let here = || pods.iter().filter(move |(_, pod)| pod.slot == slot);
            let live = |new: bool| {
                here()
                    .find(|(_, pod)| !pod.terminating() && (pod.template == template) == new)
                    .map(|(id, pod)| (*id, (*pod).clone()))
            };
            Node { slot, new: live(true), old: live(false), any: here().next().is_some() }
        })
        .collect()
}

fn sync(world: &mut World, reference: &WorkloadRef, rng: &mut Rng) {
    let Some(strategy) = world.apps.get(reference).map(|app| app.view.strategy.clone()) else {
        return;
    };
    for node in nodes(world, reference).iter().filter(|node| !node.any) {
        create(world, reference, node.slot, rng);
    }
    if let Strategy::RollingUpdate { max_unavailable, max_surge } = strategy {
        let nodes = nodes(world, reference);
        let count = u32::try_from(nodes.len()).unwrap_or(0);
        let surge = max_surge.of_rounded_up(count);
        if surge > 0 {
            roll_with_surge(world, reference, &nodes, surge, rng);
        } else {
            roll(world, &nodes, max_unavailable.of_rounded_up(count).max(1), rng);
        }
    }
}

fn roll(world: &mut World, nodes: &[Node], unavailable: u32, rng: &mut Rng) {
    let ready = |pod: &Option<(u64, Pod)>| pod.as_ref().is_some_and(|(_, pod)| pod.available());
    let out = nodes.iter().filter(|node| !ready(&node.new) && !ready(&node.old)).count();
    let mut room = (unavailable as usize).saturating_sub(out);
    for (id, pod) in nodes.iter().filter_map(|node| node.old.as_ref()) {
        let ends_in = end_time(rng);
        if !pod.view.ready {
            world.delete_pod(*id, ends_in);
        } else if room > 0 {
            room -= 1;
            world.delete_pod(*id, ends_in);
        }
    }
}

fn roll_with_surge(world: &mut World, reference: &WorkloadRef, nodes: &[Node], surge: u32, rng: &mut Rng) {
    let mut room = surge as usize;
    for node in nodes {
        let Some((old, pod)) = &node.old else {
            continue;
        };
        match &node.new {
            Some((_, new)) if new.available() => {
                let ends_in = end_time(rng);
                world.delete_pod(*old, ends_in);
            }
            Some(_) => room = room.saturating_sub(1),
            None if room > 0 || !pod.view.ready => {
                room = room.saturating_sub(1);
                create(world, reference, node.slot, rng);
            }
            None => {}
        }
    }
}

fn create(world: &mut World, reference: &WorkloadRef, slot: u32, rng: &mut Rng) {
    let template = world.template_of(reference);
    let starts_in = start_time(rng);
    world.create_pod(reference, slot, template, starts_in);
}
