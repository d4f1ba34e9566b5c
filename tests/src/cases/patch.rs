//! Runs that stay on their revision and replace proxies whose image is outdated.

use meshupgrade_core::ids::Revision;
use meshupgrade_core::machine::phase::Phase;

use super::plain::three_waves;
use crate::action::Action;
use crate::case::{CASE, Case, End, When, beat};
use crate::world::World;
use crate::world::build::{OLD, default_rolling, deployment};

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "patched",
            about: "two workloads have the new image already: only the others are restarted, and no label is touched",
            world: patched,
            ..CASE
        },
        Case {
            name: "patched_twice",
            about: "another run id, after the provider patched once more",
            world: patched,
            script: || {
                vec![
                    beat(When::Phase(Phase::Succeeded), Action::Patch(OLD)),
                    beat(When::After(60), Action::RunId("december")),
                ]
            },
            ..CASE
        },
        Case {
            name: "patched_on_the_way",
            about: "the provider patches in the middle of the second wave: what was restarted before is restarted again",
            world: patched,
            script: || vec![beat(When::Wave(1), Action::Patch(OLD))],
            ..CASE
        },
        Case {
            name: "applied_again_after_a_patch",
            about: "an object that names neither the source nor a run restarts nothing that is on its target",
            world: || {
                let mut world = patched();
                world.request().source = None;
                world
            },
            ends: End::In(Phase::Succeeded),
            ..CASE
        },
    ]
}

/// Everything stays on the old revision, which was patched after most of its pods were made.
fn patched() -> World {
    let mut world = three_waves();
    let request = world.request();
    request.target = Revision::from(OLD);
    request.source = Some(Revision::from(OLD));
    if let Some(plane) = world.planes.get_mut(&Revision::from(OLD)) {
        plane.patch = 1;
    }
    for name in ["fresh", "new"] {
        world.running(&deployment("shop", name), 2, default_rolling());
    }
    world
}
