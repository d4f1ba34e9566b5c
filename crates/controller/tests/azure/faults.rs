//! Each fault at each call that it fits, once: the run ends as it does without.

use std::time::Duration;

use meshupgrade_arm_simulator::{Call, End, Fault, Times};
use meshupgrade_core::wait::WaitReason;

use crate::mesh::{SOURCE, TARGET};
use crate::process::TIMEOUT_SECONDS;
use crate::world::{Case, Stage, Way, World, case, run_all};

/// What can happen to any request.
fn of_networks() -> Vec<(Fault, Option<WaitReason>)> {
    let late = Duration::from_millis(TIMEOUT_SECONDS * 1000 + 300);
    let all = [
        Fault::DropBefore,
        Fault::LoseAnswer,
        Fault::Delay(late),
        Fault::Garbage,
        Fault::Huge(5 << 20),
        Fault::Redirect("https://127.0.0.1:9/".to_owned()),
        Fault::TooManyRequests(1),
        Fault::ServerError(500),
        Fault::ServerError(503),
    ];
    all.map(|fault| (fault, None)).into()
}

/// What any request to Azure Resource Manager can be answered. A refused token is replaced, unless it was for a write.
fn of_arm() -> Vec<(Fault, Option<WaitReason>)> {
    let mut all = of_networks();
    all.push((Fault::Unauthorized, None));
    all.push((Fault::Forbidden, Some(WaitReason::AzureAccess)));
    all.push((Fault::NotFound, Some(WaitReason::AzureRefused)));
    all
}

fn of_reading() -> Vec<(Fault, Option<WaitReason>)> {
    let mut all = of_arm();
    all.push((Fault::NoEtag, None));
    all
}

fn of_upgrades() -> Vec<(Fault, Option<WaitReason>)> {
    let mut all = of_arm();
    for fault in [Fault::UpgradesAbsent, Fault::UpgradesEmpty, Fault::NoProfiles] {
        all.push((fault, Some(WaitReason::PreflightFailed)));
    }
    all
}

fn of_writing() -> Vec<(Fault, Option<WaitReason>)> {
    let mut all = of_arm();
    let unavailable = Some(WaitReason::AzureUnavailable);
    all.extend([
        (Fault::NoEtag, None),
        (Fault::OperationNotAllowed("nodepool1 - Updating"), Some(WaitReason::ClusterBusy)),
        (Fault::EtagMismatch, unavailable),
        (Fault::PreconditionFailed, unavailable),
        (Fault::RevisionsRefused("It is not the day for it."), Some(WaitReason::AzureRefused)),
        (Fault::OperationTakes(Duration::from_millis(900)), Some(WaitReason::ControlPlaneOperation)),
        (Fault::OperationLost, None),
    ]);
    all
}

/// Azure does not tell how an operation stands: the cluster does. Nothing is shown of it.
fn of_operations() -> Vec<(Fault, Option<WaitReason>)> {
    of_arm().into_iter().map(|(fault, _)| (fault, None)).collect()
}

fn of_sign_in() -> Vec<(Fault, Option<WaitReason>)> {
    let mut all = of_networks();
    all.push((Fault::InvalidClient, Some(WaitReason::AzureAccess)));
    all.push((Fault::TokenLifetime(Duration::ZERO), None));
    all
}

/// One fault at one call of a run.
fn one(way: Way, stage: Stage, call: Call, fault: Fault, shown: Option<WaitReason>) -> Case {
    case(format!("{fault:?} at {call:?}, {stage:?}, {way:?}"), move || {
        let mut world = World::going(way);
        if stage == Stage::EndAccepted {
            // Long enough for what is planted then to be met.
            world.at(Stage::EndDue, |world| {
                let takes = Fault::OperationTakes(Duration::from_millis(500));
                world.azure.plant(Call::PutCluster, takes).unwrap();
            });
        }
        world.at(stage, move |world| {
            world.azure.plant(call, fault).unwrap();
            if call == Call::Token && stage != Stage::Begin {
                // Otherwise the token is good for an hour.
                world.azure.plant(Call::GetCluster, Fault::Unauthorized).unwrap();
            }
        });
        world.ends(way)?;
        world.wrote(&way.writes())?;
        // The last calls may be on their way when the run is over.
        world.until("the fault is met", |world| world.azure.pending_faults() == 0)?;
        // A reading that failed once may be followed by another one before anybody looks; a write is not.
        match shown.filter(|_| call == Call::PutCluster) {
            Some(reason) if !world.shown.contains_key(&reason) => {
                Err(format!("{reason} was never shown, only {:?}", world.shown))
            }
            _ => Ok(()),
        }
    })
}

/// The ways part after the start.
pub fn ways(stage: Stage) -> &'static [Way] {
    if stage < Stage::Moving { &[Way::Forward] } else { &Way::BOTH }
}

fn each(call: Call, stages: &[Stage], faults: &[(Fault, Option<WaitReason>)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &stage in stages {
        for &way in ways(stage) {
            for (fault, shown) in faults {
                cases.push(one(way, stage, call, fault.clone(), *shown));
            }
        }
    }
    cases
}

#[test]
fn a_run_without_faults_ends() {
    for way in Way::BOTH {
        let mut world = World::going(way);
        world.ends(way).unwrap();
        world.wrote(&way.writes()).unwrap();
        assert_eq!(world.puts().len(), 2);
        assert!(world.puts().iter().all(|put| put.if_match.is_some()));
    }
}

#[test]
fn reading_the_cluster() {
    use Stage::{Begin, EndAccepted, EndDue, StartDue, Started};
    let mut cases = each(Call::GetCluster, &[Begin, StartDue], &of_reading());
    let some =
        [Fault::DropBefore, Fault::LoseAnswer, Fault::ServerError(503), Fault::Forbidden, Fault::NotFound];
    cases.extend(each(Call::GetCluster, &[Started, EndDue, EndAccepted], &some.map(|fault| (fault, None))));
    run_all(cases);
}

#[test]
fn reading_what_is_offered() {
    let mut cases = each(Call::MeshUpgrades, &[Stage::Begin], &of_upgrades());
    cases.extend(each(Call::MeshRevisions, &[Stage::Begin], &of_arm()));
    run_all(cases);
}

#[test]
fn writing() {
    run_all(each(Call::PutCluster, &[Stage::StartDue, Stage::EndDue], &of_writing()));
}

#[test]
fn following_the_operation() {
    run_all(each(Call::Operation, &[Stage::StartDue, Stage::EndDue], &of_operations()));
}

#[test]
fn signing_in() {
    use Stage::{EndDue, StartDue, Started};
    let mut cases = each(Call::Token, &[Stage::Begin], &of_sign_in());
    let some = [Fault::DropBefore, Fault::Garbage, Fault::ServerError(500), Fault::InvalidClient];
    cases.extend(each(Call::Token, &[StartDue, Started, EndDue], &some.map(|fault| (fault, None))));
    run_all(cases);
}

/// What keeps a run from its beginning is shown as long as it is so, and no longer.
#[test]
fn what_stays_is_shown() {
    let of = |call: Call, faults: Vec<(Fault, Option<WaitReason>)>| {
        faults.into_iter().filter_map(move |(fault, shown)| Some((call, fault, shown?)))
    };
    let all = of(Call::GetCluster, of_reading())
        .chain(of(Call::MeshUpgrades, of_upgrades()))
        .chain(of(Call::MeshRevisions, of_arm()))
        .chain(of(Call::Token, of_sign_in()));
    let cases = all.map(|(call, fault, reason)| {
        case(format!("{fault:?} at {call:?}"), move || {
            let mut world = World::new();
            world.azure.plant_at(call, fault, Times::Always).unwrap();
            world.until("it is told", |world| world.shown.contains_key(&reason))?;
            world.wrote(&[])?;
            world.azure.heal();
            world.ends(Way::Forward)?;
            world.wrote(&Way::Forward.writes())
        })
    });
    run_all(cases.collect());
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
        (true, Stage::StartDue) => accepted(&world, &[start, start, last]),
        (true, _) => accepted(&world, &[start, last, last]),
    }
}

fn accepted(world: &World, expected: &[&[&str]]) -> Result<(), String> {
    let found: Vec<_> = world.azure.accepted_puts().into_iter().filter_map(|entry| entry.revisions).collect();
    if found == expected { Ok(()) } else { Err(format!("accepted were {found:?} and not {expected:?}")) }
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
    assert_eq!(world.phase(), meshupgrade_core::machine::phase::Phase::Completing);
    world.put_by_somebody_else(&[TARGET]);
    world.ends(Way::Forward).unwrap();
    world.wrote(&Way::Forward.writes()).unwrap();
}
