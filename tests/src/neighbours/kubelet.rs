//! The kubelets: pods become ready after a while, and terminating ones go.

use meshupgrade_core::observed::PodProblem;

use crate::rng::Rng;
use crate::world::{Pod, World};

/// Handles some pods.
pub fn step(world: &mut World, rng: &mut Rng) {
    let busy = |pod: &Pod| !pod.stranded && (pod.terminating() || !pod.view.ready);
    let ids: Vec<u64> = world.pods.iter().filter(|(_, pod)| busy(pod)).map(|(id, _)| *id).collect();
    for id in rng.part(ids) {
        advance(world, id);
    }
}

fn advance(world: &mut World, id: u64) {
    let Some(pod) = world.pods.get_mut(&id) else {
        return;
    };
    let left = if pod.terminating() { &mut pod.ends_in } else { &mut pod.starts_in };
    if *left > 0 {
        *left -= 1;
        // Nobody sees the countdown, but the cluster is not at rest.
        world.version += 1;
        return;
    }
    if pod.terminating() {
        world.remove_pod(id);
    } else {
        start(world, id);
    }
}

/// A pod becomes ready, or is gone, at once.
pub fn finish(world: &mut World, id: u64) {
    match world.pods.get(&id) {
        Some(pod) if pod.terminating() => world.remove_pod(id),
        _ => start(world, id),
    }
}

fn start(world: &mut World, id: u64) {
    let Some(pod) = world.pods.get(&id) else {
        return;
    };
    let sick =
        pod.revision().is_some_and(|revision| world.sick.contains(&(pod.workload.clone(), revision.clone())));
    match (sick, pod.view.problem.is_some()) {
        (true, true) => {}
        (true, false) => world.edit_pod(id, |pod| {
            pod.problem = Some(PodProblem {
                reason: "CrashLoopBackOff".to_owned(),
                message: "container istio-proxy: CrashLoopBackOff".to_owned(),
            });
        }),
        (false, _) => world.edit_pod(id, |pod| {
            pod.ready = true;
            pod.problem = None;
        }),
    }
}
