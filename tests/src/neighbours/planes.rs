//! istiods that die and return.

use meshupgrade_core::ids::Revision;

use crate::rng::Rng;
use crate::world::World;
use crate::world::views::Kind;

/// Kills or revives one replica, or all of them.
pub fn step(world: &mut World, rng: &mut Rng) {
    if rng.is_ordered() {
        return;
    }
    let all: Vec<Revision> =
        world.planes.iter().filter(|(_, plane)| plane.installed).map(|(name, _)| name.clone()).collect();
    let Some(revision) = rng.pick(&all).cloned() else {
        return;
    };
    let ready = u32::try_from(rng.below(3)).unwrap_or(0);
    set_ready(world, &revision, ready);
}

/// Sets how many replicas of an istiod are ready.
pub fn set_ready(world: &mut World, revision: &Revision, ready: u32) {
    let Some(plane) = world.planes.get_mut(revision).filter(|plane| plane.ready != ready) else {
        return;
    };
    plane.ready = ready;
    world.touch(Kind::Planes);
    world.note(format!("istiod {revision} has {ready} ready replicas"));
}
