//! What Azure refuses again and again: it is told, asked for seldom, leaves the way back open, and a retry ends the wait.

use meshupgrade_arm_simulator::{Call, Fault, Times};
use meshupgrade_core::wait::WaitReason;

use crate::tables::ways;
use crate::world::{Case, Stage, Way, World, case, run_all};

/// Refusals that stay: where, which, and what is shown.
fn refusals() -> Vec<(Call, Fault, WaitReason)> {
    let access = WaitReason::AzureAccess;
    let unavailable = WaitReason::AzureUnavailable;
    vec![
        (Call::PutCluster, Fault::Forbidden, access),
        (Call::PutCluster, Fault::Unauthorized, access),
        (Call::PutCluster, Fault::RevisionsRefused("It is out of support."), WaitReason::AzureRefused),
        (Call::PutCluster, Fault::NotFound, WaitReason::AzureRefused),
        (Call::PutCluster, Fault::OperationNotAllowed("pool - Updating"), WaitReason::ClusterBusy),
        (Call::PutCluster, Fault::PreconditionFailed, unavailable),
        (Call::PutCluster, Fault::EtagMismatch, unavailable),
        (Call::PutCluster, Fault::ServerError(500), unavailable),
        (Call::PutCluster, Fault::DropBefore, unavailable),
        (Call::GetCluster, Fault::Forbidden, access),
        (Call::GetCluster, Fault::NotFound, WaitReason::AzureRefused),
        (Call::GetCluster, Fault::ServerError(503), unavailable),
        (Call::GetCluster, Fault::Garbage, unavailable),
    ]
}

/// In ten minutes: so seldom that nobody is kept busy with it.
const MOST_WRITES: usize = 21;

fn refused(way: Way, stage: Stage, call: Call, fault: Fault, reason: WaitReason) -> Result<(), String> {
    let mut world = World::going(way);
    world.at(stage, move |world| world.azure.plant_at(call, fault, Times::Always).unwrap());
    world.until("it is told", |world| world.shown.contains_key(&reason))?;
    let before = world.puts().len();
    world.for_seconds(600)?;
    if world.puts().len() - before > MOST_WRITES {
        return Err(format!("{} writes in ten minutes", world.puts().len() - before));
    }
    world.until("it is told again", |world| world.view.blocked.iter().any(|wait| wait.reason == reason))?;
    world.azure.heal();
    let (begun, asked) = (world.clock.advanced(), world.azure.accepted_puts().len());
    world.intent.retry = Some("once more".to_owned());
    world.until("it is accepted", |world| world.azure.accepted_puts().len() > asked)?;
    // The others are tried again soon in any case.
    let is_seldom = call == Call::PutCluster && reason.needs_human();
    if is_seldom && world.clock.advanced() - begun > 150 {
        return Err(format!("the retry came after {} s", world.clock.advanced() - begun));
    }
    if is_seldom && !world.events.contains(&"RetryAccepted") {
        return Err("the retry was not told".to_owned());
    }
    world.ends(way)?;
    world.wrote(&way.writes())
}

#[test]
fn a_retry_ends_the_wait() {
    let mut cases: Vec<Case> = Vec::new();
    for stage in [Stage::StartDue, Stage::EndDue] {
        for &way in ways(stage) {
            for (call, fault, reason) in refusals() {
                cases.push(case(format!("{fault:?} at {call:?}, {stage:?}, {way:?}"), move || {
                    refused(way, stage, call, fault, reason)
                }));
            }
        }
    }
    run_all(cases);
}

/// A completion that Azure refused was not accepted: there is a way back.
#[test]
fn a_refused_completion_can_be_rolled_back() {
    let mut world = World::new();
    world.at(Stage::EndDue, |world| {
        world.azure.plant_at(Call::PutCluster, Fault::Forbidden, Times::Always).unwrap();
    });
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::AzureAccess)).unwrap();
    world.intent.rollback_requested = true;
    world.azure.heal();
    world.ends(Way::Back).unwrap();
    world.wrote(&Way::Back.writes()).unwrap();
}

/// One whose answer was lost may have been accepted: there is none.
#[test]
fn a_completion_whose_answer_was_lost_cannot() {
    let mut world = World::new();
    world.at(Stage::EndDue, |world| world.azure.plant(Call::PutCluster, Fault::LoseAnswer).unwrap());
    world.until("it was sent", |world| world.puts().len() == 2).unwrap();
    world.intent.rollback_requested = true;
    world.ends(Way::Forward).unwrap();
    world.wrote(&Way::Forward.writes()).unwrap();
}
