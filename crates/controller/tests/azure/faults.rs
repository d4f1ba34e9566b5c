//! Each fault at each call that it fits, once: the run ends as it does without.

use meshupgrade_arm_simulator::{Call, End, Fault, Times};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use crate::mesh::{SOURCE, TARGET};
use crate::tables::{faults, is_sign_in, ways};
use crate::world::{Case, Stage, Way, World, case, run_all};

/// One fault at one call of a run.
fn one(way: Way, stage: Stage, call: Call, fault: Fault, shown: Option<WaitReason>) -> Case {
    case(format!("{fault:?} at {call:?}, {stage:?}, {way:?}"), move || {
        let mut world = World::of(call).turned(way);
        if stage == Stage::EndAccepted {
            world.ends_slowly();
        }
        world.at(stage, move |world| {
            world.azure.plant(call, fault).unwrap();
            if is_sign_in(call) && stage != Stage::Begin {
                // Otherwise the token is good for an hour.
                world.azure.plant(Call::GetCluster, Fault::Unauthorized).unwrap();
            }
        });
        world.ends(way)?;
        world.wrote(&way.writes())?;
        // The last calls may be on their way when the run is over.
        world.until("the fault is met", |world| world.azure.pending_faults() == 0)?;
        // A reading that failed once may be followed by another one before anybody looks (`stays.rs`); a write is not.
        match shown.filter(|_| call == Call::PutCluster) {
            // The answer was lost, but the list of revisions is there.
            Some(WaitReason::AzureUnavailable) if world.puts().len() == 2 => Ok(()),
            Some(reason) if !world.shown.contains_key(&reason) => {
                Err(format!("{reason} was never shown, only {:?}", world.shown))
            }
            _ => Ok(()),
        }
    })
}

fn each(call: Call, stages: &[Stage]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &stage in stages {
        for &way in ways(stage) {
            for (fault, shown) in faults(call) {
                cases.push(one(way, stage, call, fault, shown));
            }
        }
    }
    cases
}

#[test]
fn a_run_without_faults_ends() {
    for (call, other) in [(Call::Token, Call::IdentityToken), (Call::IdentityToken, Call::Token)] {
        for way in Way::BOTH {
            let mut world = World::of(call).turned(way);
            world.ends(way).unwrap();
            world.wrote(&way.writes()).unwrap();
            assert_eq!(world.puts().len(), 2);
            assert!(world.puts().iter().all(|put| put.if_match.is_some()));
            assert_eq!((world.calls(call), world.calls(other)), (1, 0));
        }
    }
}

#[test]
fn reading_the_cluster() {
    run_all(each(Call::GetCluster, &Stage::ALL));
}

/// A write begins with a reading of its own. Whatever keeps that from succeeding, nothing is sent.
#[test]
fn reading_the_cluster_for_a_write() {
    let mut cases = Vec::new();
    for stage in [Stage::StartDue, Stage::EndDue] {
        for &way in ways(stage) {
            for (fault, shown) in faults(Call::GetCluster) {
                let Some(reason) = shown else { continue };
                cases.push(case(format!("{fault:?}, {stage:?}, {way:?}"), move || {
                    let mut world = World::going(way);
                    world.reaches(stage)?;
                    let sent = world.puts().len();
                    world.before_write(stage, |world| {
                        world.azure.plant_at(Call::GetCluster, fault, Times::Always).unwrap();
                    });
                    world.until("the write failed", World::write_failed)?;
                    world.until("it is told", |world| world.shown.contains_key(&reason))?;
                    if world.puts().len() != sent {
                        return Err("something was written without a reading".to_owned());
                    }
                    world.azure.heal();
                    world.ends(way)?;
                    world.wrote(&way.writes())
                }));
            }
        }
    }
    run_all(cases);
}

#[test]
fn reading_what_is_offered() {
    let mut cases = each(Call::MeshUpgrades, &[Stage::Begin]);
    cases.extend(each(Call::MeshRevisions, &[Stage::Begin]));
    run_all(cases);
}

#[test]
fn writing() {
    run_all(each(Call::PutCluster, &[Stage::StartDue, Stage::EndDue]));
}

#[test]
fn following_the_operation() {
    run_all(each(Call::Operation, &[Stage::StartDue, Stage::EndDue]));
}

#[test]
fn signing_in() {
    run_all(each(Call::Token, &Stage::ALL));
}

/// From the sign-in on it is the same way as with workload identity: each fault at the first token, and at one of a later stage.
#[test]
fn signing_in_with_a_managed_identity() {
    let mut cases = each(Call::IdentityToken, &[Stage::Begin]);
    let later = Stage::ALL[1..].iter().flat_map(|&stage| ways(stage).iter().map(move |&way| (way, stage)));
    for ((fault, shown), (way, stage)) in faults(Call::IdentityToken).into_iter().zip(later.cycle()) {
        cases.push(one(way, stage, Call::IdentityToken, fault, shown));
    }
    run_all(cases);
}

/// The eTags were missing for months: then writes are not tied to what was read, and are the same two.
#[test]
fn without_etags() {
    run_all(
        Way::BOTH
            .map(|way| {
                case(format!("{way:?}"), move || {
                    let mut world = World::going(way);
                    for call in [Call::GetCluster, Call::PutCluster] {
                        world.azure.plant_at(call, Fault::NoEtag, Times::Always).unwrap();
                    }
                    world.ends(way)?;
                    assert!(world.puts().iter().all(|put| put.if_match.is_none()));
                    world.wrote(&way.writes())
                })
            })
            .into(),
    );
}

/// An operation that ends badly is told, and nothing is written before somebody has brought the cluster in order.
#[test]
fn an_operation_that_fails() {
    let mut cases = Vec::new();
    for stage in [Stage::StartDue, Stage::EndDue] {
        for &way in ways(stage) {
            for end in [End::Failed, End::Canceled] {
                for reverted in [false, true] {
                    cases
                        .push(case(format!("{end:?}, reverted {reverted}, {stage:?}, {way:?}"), move || {
                            fails(way, stage, end, reverted)
                        }));
                }
            }
        }
    }
    run_all(cases);
}

fn fails(way: Way, stage: Stage, end: End, reverted: bool) -> Result<(), String> {
    let mut world = World::going(way);
    world.at(stage, move |world| {
        world.azure.plant(Call::PutCluster, Fault::OperationEnds { end, reverted }).unwrap();
    });
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::AzureRefused))?;
    let sent = world.puts().len();
    world.for_seconds(600)?;
    if world.puts().len() != sent {
        return Err("something was written although the cluster is not in order".to_owned());
    }
    let revisions = world.azure.revisions(&world.cluster());
    world.put_by_somebody_else(&revisions.iter().map(String::as_str).collect::<Vec<_>>());
    world.ends(way)?;
    // What was taken back is asked for once more.
    let [start, last] = way.writes();
    match (reverted, stage) {
        (false, _) => world.wrote(&[start, last]),
        (true, Stage::StartDue) => world.accepted(&[start, start, last]),
        (true, _) => world.accepted(&[start, last, last]),
    }
}

/// Azure says that all is well, and the control plane is not there: no label moves.
#[test]
fn a_control_plane_that_does_not_come() {
    let mut world = World::going(Way::Forward);
    world.at(Stage::StartDue, |world| world.azure.plant(Call::PutCluster, Fault::NeverInstalled).unwrap());
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::RevisionNotFound)).unwrap();
    let told = world.shown[&WaitReason::RevisionNotFound].clone();
    assert!(!told.contains("helm") && told.contains("kubectl get pods -n aks-istio-system"), "{told}");
    world.for_seconds(600).unwrap();
    world.put_by_somebody_else(&[SOURCE, TARGET]);
    world.ends(Way::Forward).unwrap();
    world.wrote(&Way::Forward.writes()).unwrap();
}

/// It is Azure's last word that the source is gone, and it still answers: the run is not over.
#[test]
fn a_control_plane_that_does_not_go() {
    let mut world = World::going(Way::Forward);
    world.at(Stage::EndDue, |world| world.azure.plant(Call::PutCluster, Fault::NeverInstalled).unwrap());
    world.until("it is completed", |world| world.azure.accepted_puts().len() == 2).unwrap();
    world.for_seconds(600).unwrap();
    assert_eq!(world.phase(), Phase::Completing);
    world.put_by_somebody_else(&[TARGET]);
    world.ends(Way::Forward).unwrap();
    world.wrote(&Way::Forward.writes()).unwrap();
}

/// The start was carried out in Azure only, and somebody has seen enough: there is a way back.
#[test]
fn a_control_plane_that_does_not_come_is_given_up() {
    let mut world = World::new();
    world.at(Stage::StartDue, |world| world.azure.plant(Call::PutCluster, Fault::NeverInstalled).unwrap());
    world.until("it is told", |world| world.shown.contains_key(&WaitReason::RevisionNotFound)).unwrap();
    world.intent.rollback_requested = true;
    world.ends(Way::Back).unwrap();
    world.wrote(&Way::Back.writes()).unwrap();
}

/// The same for the target after a rollback.
#[test]
fn a_control_plane_that_does_not_go_after_the_rollback() {
    let mut world = World::going(Way::Back);
    world.at(Stage::EndDue, |world| world.azure.plant(Call::PutCluster, Fault::NeverInstalled).unwrap());
    world.until("it is rolled back", |world| world.azure.accepted_puts().len() == 2).unwrap();
    world.for_seconds(600).unwrap();
    assert_eq!(world.phase(), Phase::RollingBack);
    world.put_by_somebody_else(&[SOURCE]);
    world.ends(Way::Back).unwrap();
    world.wrote(&Way::Back.writes()).unwrap();
}
