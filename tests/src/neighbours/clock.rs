//! The clock.

use crate::rng::Rng;
use crate::world::World;

/// Lets a moment pass; sometimes a long one.
pub fn step(world: &mut World, rng: &mut Rng) {
    let seconds = match rng.below(20) {
        0 => 20,
        1 => 7,
        2..=5 => 0,
        _ => 1,
    };
    world.advance(if rng.is_ordered() { 1 } else { seconds });
}
