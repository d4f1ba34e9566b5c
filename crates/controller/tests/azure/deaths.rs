//! The process dies at a call: before it reached Azure, after it was carried out and before its answer came, or after the answer.
//! The next process has the stored record only.

use meshupgrade_arm_simulator::{Call, Fault, Times};

use crate::tables::{is_sign_in, ways};
use crate::world::{Case, Stage, Way, World, case, run_all};

/// When it dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Before,
    BeforeTheAnswer,
    After,
}

const DEATHS: [Death; 3] = [Death::Before, Death::BeforeTheAnswer, Death::After];

/// The calls of a run, each with how many of them it makes at the least.
const CALLS: [(Call, u32); 7] = [
    (Call::Token, 1),
    (Call::IdentityToken, 1),
    (Call::GetCluster, 7),
    (Call::MeshUpgrades, 1),
    (Call::MeshRevisions, 1),
    (Call::PutCluster, 2),
    (Call::Operation, 2),
];

/// The calls that are made at every stage, each with how many of them at the least.
const CALLS_OF_STAGES: [(Call, u32); 2] = [(Call::GetCluster, 2), (Call::Token, 1)];

/// Dies at a call, counted from a stage on.
fn dies(way: Way, stage: Stage, call: Call, number: u32, death: Death) -> Result<(), String> {
    let mut world = World::of(call).turned(way);
    if stage == Stage::EndAccepted {
        world.ends_slowly();
    }
    if stage != Stage::Begin {
        world.reaches(stage)?;
    }
    let made = world.calls(call);
    if is_sign_in(call) && stage != Stage::Begin {
        // Otherwise the token is good for an hour.
        world.azure.plant(Call::GetCluster, Fault::Unauthorized).unwrap();
    }
    let times = Times::At { after: number, count: 1 };
    match death {
        Death::Before => world.azure.plant_at(call, Fault::DropBefore, times).unwrap(),
        Death::BeforeTheAnswer => world.azure.plant_at(call, Fault::LoseAnswer, times).unwrap(),
        Death::After => {}
    }
    world.until(&format!("{call:?} {number} was made"), |world| {
        world.calls(call) > made + number as usize || world.is_over()
    })?;
    world.die();
    world.ends(way)?;
    world.wrote(&way.writes())
}

fn dying(way: Way, stage: Stage, call: Call, number: u32) -> impl Iterator<Item = Case> {
    DEATHS.into_iter().map(move |death| {
        let name = format!("{death:?} of {call:?} {number}, {stage:?}, {way:?}");
        case(name, move || dies(way, stage, call, number, death))
    })
}

#[test]
fn at_every_call() {
    let mut cases: Vec<Case> = Vec::new();
    for way in Way::BOTH {
        for (call, least) in CALLS {
            // The ways part after the start.
            let first = if way == Way::Forward { 0 } else { least / 2 };
            for number in first..least {
                cases.extend(dying(way, Stage::Begin, call, number));
            }
        }
    }
    run_all(cases);
}

/// The same at the calls that are made again and again, counted from each later stage on.
#[test]
fn at_every_stage() {
    let mut cases: Vec<Case> = Vec::new();
    for stage in &Stage::ALL[1..] {
        for &way in ways(*stage) {
            for (call, least) in CALLS_OF_STAGES {
                for number in 0..least {
                    cases.extend(dying(way, *stage, call, number));
                }
            }
        }
    }
    // From the sign-in on it is the same way as with workload identity.
    cases.extend(Way::BOTH.into_iter().flat_map(|way| dying(way, Stage::EndDue, Call::IdentityToken, 0)));
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
