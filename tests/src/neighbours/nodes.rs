//! Nodes that die: a pod is gone at once, or stays terminating because its kubelet is silent.

use crate::rng::Rng;
use crate::world::World;

/// One pod is lost, or one silent node returns.
pub fn step(world: &mut World, rng: &mut Rng) {
    if rng.is_ordered() {
        return;
    }
    let ids: Vec<u64> = world.pods.keys().copied().collect();
    let Some(id) = rng.pick(&ids).copied() else {
        return;
    };
    if rng.chance(70) {
        world.note(format!("node: pod {} is lost", pod_name(world, id)));
        world.remove_pod(id);
    } else {
        strand(world, id);
    }
}

fn pod_name(world: &World, id: u64) -> String {
    world.pods.get(&id).map(|pod| pod.view.name.clone()).unwrap_or_default()
}

/// The node of a pod falls silent: the pod is to go and does not.
pub fn strand(world: &mut World, id: u64) {
    world.note(format!("node: pod {} hangs", pod_name(world, id)));
    world.delete_pod(id, 0);
    if let Some(pod) = world.pods.get_mut(&id) {
        pod.stranded = true;
    }
}

/// All silent nodes return.
pub fn heal(world: &mut World) {
    for pod in world.pods.values_mut() {
        pod.stranded = false;
    }
    world.version += 1;
}
