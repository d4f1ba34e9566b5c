//! An autoscaler: it changes replicas, and with them the generation, at any moment.

use std::sync::Arc;

use meshupgrade_core::ids::WorkloadRef;

use crate::rng::Rng;
use crate::world::World;

/// Scales one workload up or down by one, between one and four pods.
pub fn step(world: &mut World, rng: &mut Rng) {
    let all: Vec<WorkloadRef> =
        world.apps.iter().filter(|(_, app)| app.autoscaled).map(|(name, _)| name.clone()).collect();
    if rng.is_ordered() {
        return;
    }
    let Some(reference) = rng.pick(&all) else {
        return;
    };
    let up = rng.chance(50);
    world.edit_spec(reference, |app| {
        let view = Arc::make_mut(&mut app.view);
        view.replicas = if up { view.replicas + 1 } else { view.replicas.saturating_sub(1) }.clamp(1, 4);
    });
}
