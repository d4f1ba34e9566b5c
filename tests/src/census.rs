//! The cluster-wide count, taken from the world itself as the shell does it with paged lists.

use meshupgrade_core::census::Census;

use crate::world::World;

/// Counts everything now.
pub fn take(world: &World) -> Census {
    let mut census =
        Census { taken_at: Some(world.now), references: world.references.clone(), ..Census::default() };
    for pod in world.pods.values() {
        census.add_pod(&pod.view);
    }
    census
}
