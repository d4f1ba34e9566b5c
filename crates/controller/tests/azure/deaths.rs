//! The process dies at a call: before it reached Azure, after it was carried out and before its answer came, or after the answer.
//! The next process has the stored record only.

use meshupgrade_arm_simulator::{Call, Fault, Times};

use crate::world::{Case, Way, World, case, run_all};

/// When it dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Before,
    BeforeTheAnswer,
    After,
}

const DEATHS: [Death; 3] = [Death::Before, Death::BeforeTheAnswer, Death::After];

/// The calls of a run, each with how many of them it makes at the least.
const CALLS: [(Call, u32); 6] = [
    (Call::Token, 1),
    (Call::GetCluster, 7),
    (Call::MeshUpgrades, 1),
    (Call::MeshRevisions, 1),
    (Call::PutCluster, 2),
    (Call::Operation, 2),
];

fn dies(way: Way, call: Call, number: u32, death: Death) -> Result<(), String> {
    let mut world = World::going(way);
    let times = Times::At { after: number, count: 1 };
    match death {
        Death::Before => world.azure.plant_at(call, Fault::DropBefore, times).unwrap(),
        Death::BeforeTheAnswer => world.azure.plant_at(call, Fault::LoseAnswer, times).unwrap(),
        Death::After => {}
    }
    world.until(&format!("{call:?} {number} was made"), |world| {
        world.azure.journal().iter().filter(|entry| entry.call == call).count() > number as usize
    })?;
    world.die();
    world.ends(way)?;
    world.wrote(&way.writes())
}

#[test]
fn at_every_call() {
    let mut cases: Vec<Case> = Vec::new();
    for way in Way::BOTH {
        for (call, least) in CALLS {
            // The ways part after the start.
            let first = if way == Way::Forward { 0 } else { least / 2 };
            for number in first..least {
                for death in DEATHS {
                    let name = format!("{death:?} of {call:?} {number}, {way:?}");
                    cases.push(case(name, move || dies(way, call, number, death)));
                }
            }
        }
    }
    run_all(cases);
}

/// A process that dies at each of its calls gets to the end all the same.
#[test]
fn again_and_again() {
    run_all(
        Way::BOTH
            .map(|way| {
                case(format!("{way:?}"), move || {
                    let mut world = World::going(way);
                    for _ in 0..12 {
                        let calls = world.azure.journal().len() + 5;
                        world.until("some calls were made", |world| {
                            world.azure.journal().len() >= calls || world.is_over()
                        })?;
                        world.die();
                    }
                    world.ends(way)?;
                    world.wrote(&way.writes())
                })
            })
            .into(),
    );
}
