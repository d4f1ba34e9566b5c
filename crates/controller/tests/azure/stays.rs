//! What keeps a run from going on is shown as long as it is so, and no longer: at each call, where a fault stays.

use meshupgrade_arm_simulator::{Call, Fault, Times};
use meshupgrade_core::wait::WaitReason;

use crate::tables::{faults, is_sign_in, ways};
use crate::world::{Case, Stage, Way, World, case, run_all};

/// A fault that stays from a stage on, until it is told and some time has passed.
fn stays(way: Way, stage: Stage, call: Call, fault: Fault, reason: WaitReason) -> Case {
    case(format!("{fault:?} at {call:?}, {stage:?}, {way:?}"), move || {
        let mut world = World::of(call).turned(way);
        if stage == Stage::EndAccepted {
            world.ends_slowly();
        }
        if stage != Stage::Begin {
            world.reaches(stage)?;
        }
        world.shown.clear();
        world.azure.plant_at(call, fault, Times::Always).unwrap();
        if is_sign_in(call) && stage != Stage::Begin {
            // Otherwise the token is good for an hour.
            world.azure.plant_at(Call::GetCluster, Fault::Unauthorized, Times::Always).unwrap();
        }
        world.until("it is told", |world| world.shown.contains_key(&reason))?;
        let sent = world.puts().len();
        world.for_seconds(100)?;
        if world.puts().len() != sent {
            return Err("something was written that nobody could look at".to_owned());
        }
        world
            .until("it is still told", |world| world.view.blocked.iter().any(|wait| wait.reason == reason))?;
        world.azure.heal();
        world.ends(way)?;
        if !world.view.blocked.is_empty() {
            return Err(format!("it is still told: {:?}", world.view.blocked));
        }
        world.wrote(&way.writes())
    })
}

/// Every fault that is shown at all, from the beginning on.
#[test]
fn from_the_beginning() {
    let calls = [Call::GetCluster, Call::MeshUpgrades, Call::MeshRevisions, Call::Token, Call::IdentityToken];
    let mut cases = Vec::new();
    for call in calls {
        for (fault, shown) in faults(call) {
            cases.extend(shown.map(|reason| stays(Way::Forward, Stage::Begin, call, fault, reason)));
        }
    }
    run_all(cases);
}

/// One of each kind, from each later stage on.
#[test]
fn from_later_on() {
    let kinds = [
        (Call::GetCluster, Fault::ServerError(503), WaitReason::AzureUnavailable),
        (Call::GetCluster, Fault::Forbidden, WaitReason::AzureAccess),
        (Call::GetCluster, Fault::NotFound, WaitReason::AzureRefused),
        (Call::Token, Fault::InvalidClient, WaitReason::AzureAccess),
        (Call::IdentityToken, Fault::Garbage, WaitReason::AzureUnavailable),
    ];
    let mut cases = Vec::new();
    for stage in &Stage::ALL[1..] {
        for &way in ways(*stage) {
            for (call, fault, reason) in kinds.clone() {
                cases.push(stays(way, *stage, call, fault, reason));
            }
        }
    }
    run_all(cases);
}
