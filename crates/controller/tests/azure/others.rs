//! Others write to the same cluster, at each stage of a run: what they did is seen, told, and never written over.

use std::time::Duration;

use meshupgrade_arm_simulator::{Call, Fault};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::record::RollbackCause;
use meshupgrade_core::wait::WaitReason;

use crate::mesh::{OTHER, SOURCE, TARGET};
use crate::process::TIMEOUT_SECONDS;
use crate::world::{Stage, Way, World, case, run_all};

const BOTH: &[&str] = &[SOURCE, TARGET];
/// How late a request is that a write of others comes before: on a busy machine too, and yet within the request's timeout.
const LATE: Fault = Fault::Delay(Duration::from_millis(TIMEOUT_SECONDS * 700));

fn shows(world: &World, reason: WaitReason) -> Result<String, String> {
    world.shown.get(&reason).cloned().ok_or_else(|| format!("{reason} was not shown: {:?}", world.shown))
}

/// An upgrade of the same pair, whoever began it, is taken over: only its end is written.
#[test]
fn the_same_upgrade_is_taken_over() {
    let cases = Way::BOTH.into_iter().flat_map(|way| {
        [Stage::Begin, Stage::StartDue].map(|stage| {
            case(format!("{stage:?}, {way:?}"), move || {
                let mut world = World::new().turned(way);
                world.at(stage, |world| world.put_by_somebody_else(BOTH));
                world.ends(way)?;
                world.wrote(&way.writes()[1..])
            })
        })
    });
    run_all(cases.collect());
}

/// The write that was on its way meets the same list, which somebody else wrote a moment before.
#[test]
fn the_same_upgrade_in_the_same_moment() {
    let mut world = World::new();
    world.at(Stage::StartDue, |world| world.azure.plant(Call::PutCluster, LATE).unwrap());
    world
        .until("the start is due", |world| !world.azure.accepted_puts().is_empty() || world.is_due())
        .unwrap();
    world.put_by_somebody_else(BOTH);
    world.ends(Way::Forward).unwrap();
    assert_eq!(world.azure.accepted_puts().len(), 1);
}

/// Somebody begins an upgrade between our two readings: the cluster had one revision, and AKS refuses to say what it offers (409
/// `ServiceMeshUpgradeInProgress`). That is no error: the cluster says which upgrade it is.
#[test]
fn an_upgrade_that_begins_between_two_readings() {
    let lists: [&'static [&'static str]; 2] = [BOTH, &[SOURCE, OTHER]];
    let cases = lists.into_iter().flat_map(|list| {
        Way::BOTH.map(|way| {
            case(format!("{list:?}, {way:?}"), move || {
                let mut world = World::new().turned(way);
                world.azure.plant(Call::MeshUpgrades, LATE).unwrap();
                world.until("the cluster is read", |world| world.calls(Call::GetCluster) > 0)?;
                world.put_by_somebody_else(list);
                world.until("it is answered", |world| world.calls(Call::MeshUpgrades) > 0)?;
                let journal = world.azure.journal();
                let first = journal.iter().find(|entry| entry.call == Call::MeshUpgrades).unwrap();
                if first.code.as_deref() != Some("ServiceMeshUpgradeInProgress") {
                    return Err(format!("the race was not met: {first:?}"));
                }
                if list == BOTH {
                    world.ends(way)?;
                    return world.wrote(&way.writes()[1..]);
                }
                world.until("it is told", |world| {
                    world
                        .view
                        .blocked
                        .iter()
                        .any(|wait| wait.because.contains("az aks mesh upgrade complete"))
                })?;
                world.for_seconds(600)?;
                world.wrote(&[])?;
                world.put_by_somebody_else(&[SOURCE]);
                world.ends(way)?;
                world.wrote(&way.writes())
            })
        })
    });
    run_all(cases.collect());
}

/// Another pair stops the run before and after its start, and it goes on when that upgrade is over.
#[test]
fn another_upgrade_is_waited_for() {
    let before =
        [(Stage::Begin, WaitReason::PreflightFailed), (Stage::StartDue, WaitReason::RevisionsChanged)];
    let cases = before.map(|(stage, reason)| {
        case(format!("{stage:?}"), move || {
            let mut world = World::new();
            world.at(stage, |world| world.put_by_somebody_else(&[SOURCE, OTHER]));
            world.until("it is told", |world| world.shown.contains_key(&reason))?;
            let told = shows(&world, reason)?;
            if !told.contains(OTHER) || !told.contains("az aks mesh upgrade complete") {
                return Err(told);
            }
            world.for_seconds(600)?;
            world.wrote(&[])?;
            world.put_by_somebody_else(&[SOURCE]);
            world.ends(Way::Forward)?;
            world.wrote(&Way::Forward.writes())
        })
    });
    run_all(cases.into());
}

/// Just before completion is asked for, somebody completes and begins the next upgrade: that is not touched.
#[test]
fn the_next_upgrade_of_others_is_left_alone() {
    let mut world = World::new();
    world.at(Stage::EndDue, |world| world.put_by_somebody_else(&[TARGET, OTHER]));
    world.until("it is over", World::is_over).unwrap();
    world.wrote(&[BOTH]).unwrap();
    assert_eq!(world.phase(), Phase::Succeeded);
}

/// Somebody rolls back after our start: while it starts that is told, and in the waves everything goes back.
#[test]
fn a_rollback_by_others() {
    let mut world = World::new();
    world.at(Stage::Moving, |world| {
        world.others_break_it = true;
        world.put_by_somebody_else(&[SOURCE]);
    });
    world.ends(Way::Back).unwrap();
    world.wrote(&[BOTH]).unwrap();
    let rollback = world.record.run.as_ref().and_then(|run| run.rollback.clone()).unwrap();
    assert_eq!(rollback.cause, RollbackCause::TargetRemoved);
}

#[test]
fn a_rollback_by_others_while_it_starts_is_not_fought() {
    let mut world = World::new();
    world.at(Stage::StartDue, |world| world.azure.plant(Call::PutCluster, Fault::NeverInstalled).unwrap());
    world.at(Stage::Started, |world| world.azure.set_revisions(&world.cluster(), &[SOURCE]).unwrap());
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::RevisionsChanged)).unwrap();
    assert!(world.view.message.contains("Terraform"), "{}", world.view.message);
    world.for_seconds(200).unwrap();
    assert_eq!(world.puts().len(), 1);
    // A person who has settled it need not wait. What is being read just now can be retried by nobody.
    let tells = |world: &World| world.view.blocked.iter().any(|it| it.reason == WaitReason::RevisionsChanged);
    world.until("it is told still", tells).unwrap();
    world.intent.retry = Some("1".to_owned());
    world.holds_still = true;
    world.until("it is asked for again", |world| world.puts().len() == 2).unwrap();
    world.holds_still = false;
    world.ends(Way::Forward).unwrap();
}

/// Somebody completes: before the waves are over that drops workloads, which the run brings back as it goes on; at the end it is
/// what was wanted.
#[test]
fn a_completion_by_others() {
    run_all(
        [Stage::Moving, Stage::EndDue]
            .map(|stage| {
                case(format!("{stage:?}"), move || {
                    let mut world = World::new();
                    world.at(stage, |world| {
                        world.others_break_it = true;
                        world.put_by_somebody_else(&[TARGET]);
                    });
                    world.ends(Way::Forward)?;
                    world.wrote(&[BOTH])
                })
            })
            .into(),
    );
}

/// Just before our rollback is asked for, somebody has done it.
#[test]
fn our_rollback_by_others() {
    let mut world = World::going(Way::Back);
    world.at(Stage::EndDue, |world| world.put_by_somebody_else(&[SOURCE]));
    world.ends(Way::Back).unwrap();
    world.wrote(&[BOTH]).unwrap();
}

/// The cluster itself is upgraded, or was: nothing is written before that is over, and the run goes on by itself.
#[test]
fn an_upgrade_of_the_cluster_is_waited_for() {
    let cases = Way::BOTH.into_iter().flat_map(|way| {
        [Stage::Begin, Stage::StartDue, Stage::Moving, Stage::EndDue].map(|stage| {
            case(format!("{stage:?}, {way:?}"), move || {
                let mut world = World::new().turned(way);
                world.at(stage, |world| {
                    world.azure.set_provisioning_state(&world.cluster(), "Upgrading").unwrap();
                });
                world.until("it is told", |world| world.shown.contains_key(&WaitReason::ClusterBusy))?;
                world.for_seconds(600)?;
                // Azure would refuse it, but is not even asked.
                if world.puts().len() != usize::from(stage >= Stage::Moving) {
                    return Err("it was written to a cluster that is not at rest".to_owned());
                }
                world.azure.set_provisioning_state(&world.cluster(), "Succeeded").unwrap();
                world.ends(way)?;
                world.wrote(&way.writes())
            })
        })
    });
    run_all(cases.collect());
}

/// What others put into the list in the middle of our operation counts.
#[test]
fn a_write_of_others_in_the_middle_of_our_operation() {
    let mut world = World::new();
    world.at(Stage::StartDue, |world| {
        world.azure.plant(Call::PutCluster, Fault::ForeignRevisions(&[SOURCE, OTHER])).unwrap();
    });
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::RevisionsChanged)).unwrap();
    world.for_seconds(600).unwrap();
    assert_eq!((world.puts().len(), world.phase()), (1, Phase::StartingControlPlane));
}
