//! The cluster-wide count, taken from the world itself as the shell does it with paged lists.

use meshupgrade_core::census::Census;
use meshupgrade_core::decision::Needs;

use crate::world::World;

/// Counts everything now.
pub fn take(world: &World, needs: &Needs) -> Census {
    let mut census = Census {
        taken_at: Some(world.now),
        references: world.references.clone(),
        sidecars_in: needs.sidecars_in.clone(),
        rights: needs.rights.clone(),
        ..Census::default()
    };
    for pod in world.pods.values() {
        census.add_pod(&pod.view);
    }
    census
}
