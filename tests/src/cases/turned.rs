//! Runs that turn back.

use meshupgrade_core::intent::{OnFailure, RollbackControlPlane};
use meshupgrade_core::labels;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use super::plain::{both_labels, three_waves, two_apps};
use crate::action::Action;
use crate::case::{CASE, Case, End, Tolerate, When, beat};
use crate::neighbours::Neighbour;
use crate::world::build::{NEW, OLD, deployment, rolling, stateful_set};
use crate::world::{Plane, World};

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    let rolled_back = End::In(Phase::RolledBack);
    vec![
        Case {
            name: "rollback_in_wave_two",
            about: "rollback is requested while a batch of the second wave is open",
            world: three_waves,
            script: || vec![beat(When::Wave(1), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "rollback_is_latched",
            about: "the request is withdrawn at once, and the run still goes back",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Settling(1), Action::RequestRollback(true)),
                    beat(When::Phase(Phase::RollingBack), Action::RequestRollback(false)),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "rollback_from_completing",
            about: "everything was moved, and the old control plane still stands",
            world: || {
                let mut world = three_waves();
                world.request().rollback_control_plane = RollbackControlPlane::Remove;
                world
            },
            script: || vec![beat(When::Waits(WaitReason::RemovalPending), Action::RequestRollback(true))],
            remover: false,
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "target_set_back",
            about: "git revert: the target is the source again",
            world: three_waves,
            script: || vec![beat(When::Wave(1), Action::Target(OLD))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "next_run_after_rollback",
            about: "rolled back, then a new runId carries it through",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Target(OLD)),
                    beat(When::Phase(Phase::RolledBack), Action::Target(NEW)),
                    beat(When::After(60), Action::RunId("second")),
                ]
            },
            ..CASE
        },
        Case {
            name: "failure_turns_back",
            about: "a workload never becomes ready on the target, and onFailure is Automatic",
            world: || sick(OnFailure::Automatic),
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "failure_pauses",
            about: "a workload never becomes ready on the target; it is repaired, and the run goes on",
            world: || sick(OnFailure::Pause),
            script: || {
                vec![
                    beat(When::Waits(WaitReason::WorkloadFailed), Action::Suspend(true)),
                    beat(When::After(300), Action::Suspend(false)),
                    beat(When::After(10), Action::Cure(deployment("shop", "cart"))),
                ]
            },
            ..CASE
        },
        Case {
            name: "nothing_new_after_a_failure",
            about: "a workload that was broken before is repaired after another one failed: it waits for the retry",
            world: broken_and_sick,
            script: || {
                vec![
                    beat(When::Waits(WaitReason::WorkloadFailed), Action::Cure(deployment("shop", "broken"))),
                    beat(When::After(100), Action::Cure(deployment("shop", "cart"))),
                ]
            },
            ..CASE
        },
        Case {
            name: "broken_before_and_rolled_back",
            about: "a workload that was broken before the run, and that the run did not touch, does not hold up a rollback",
            world: || {
                let mut world = broken_and_sick();
                world.sick.remove(&(deployment("shop", "cart"), NEW.into()));
                world
            },
            script: || vec![beat(When::Waits(WaitReason::WorkloadNotReady), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "broken_before_and_rolled_back_late",
            about: "the same when everything else of its wave was moved",
            world: || {
                let mut world = broken_and_sick();
                world.sick.remove(&(deployment("shop", "cart"), NEW.into()));
                world
            },
            script: || {
                vec![
                    beat(When::Wave(1), Action::Suspend(true)),
                    beat(When::After(400), Action::RequestRollback(true)),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "ordered_set_stuck",
            about: "an ordered StatefulSet stands at a pod that cannot live on the target; rollback names it",
            world: || {
                let mut world = two_apps(|_| {});
                world.running(&stateful_set("shop", "db"), 3, rolling(0, 1));
                world.sick.insert((stateful_set("shop", "db"), NEW.into()));
                world
            },
            script: || {
                vec![
                    beat(When::Waits(WaitReason::WorkloadFailed), Action::RequestRollback(true)),
                    beat(
                        When::Waits(WaitReason::StatefulSetStuck),
                        Action::DeleteUnready(stateful_set("shop", "db")),
                    ),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "source_dies_in_rollback",
            about: "the source's istiod is down when the run turns back: it waits for it",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Istiod(OLD, 0)),
                    beat(When::Now, Action::RequestRollback(true)),
                    beat(When::Waits(WaitReason::IstiodNotReady), Action::Suspend(true)),
                    beat(When::After(200), Action::Istiod(OLD, 2)),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "default_injection_rolled_back",
            about: "a namespace had istio-injection and no revision: rollback gives back just that",
            world: default_injection,
            script: || vec![beat(When::Wave(0), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "rollback_before_the_start",
            about: "rollback is requested from the beginning, and there is nothing to undo",
            world: || two_apps(|intent| intent.rollback_requested = true),
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "both_labels_turned_back",
            about: "istio-injection comes back with the rollback, after the workloads did",
            world: both_labels,
            script: || vec![beat(When::Wave(0), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "label_fought_in_rollback",
            about: "somebody sets a label to the target while it goes back: its workloads wait, all others go back",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(2), Action::RequestRollback(true)),
                    beat(When::Back, Action::Label("shop".into(), Some(NEW))),
                    beat(When::Waits(WaitReason::LabelReverted), Action::Suspend(true)),
                    beat(When::After(900), Action::Label("shop".into(), Some(OLD))),
                ]
            },
            tolerate: Tolerate { lost_sidecars: true, ..CASE.tolerate },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "passed_over_in_rollback",
            about: "a workload of the second wave does not come up on the source either: the first wave goes back without it",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(2), Action::Sicken(deployment("shop", "cart"), OLD)),
                    beat(When::Now, Action::RequestRollback(true)),
                    beat(When::Waits(WaitReason::WorkloadFailed), Action::Retry),
                    beat(When::After(900), Action::Cure(deployment("shop", "cart"))),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "scaled_without_a_webhook",
            about: "the target's webhook is away while a workload is scaled up: its pods without a sidecar are mended by the rollback",
            world: || two_apps(|_| {}),
            script: || {
                vec![
                    beat(When::Settling(0), Action::Webhook(NEW, false)),
                    beat(When::Now, Action::Scale(deployment("shop", "web"), 4)),
                    beat(When::After(20), Action::RequestRollback(true)),
                ]
            },
            tolerate: Tolerate { lost_sidecars: true, ..CASE.tolerate },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "retried_after_passing_over",
            about: "two workloads that were passed over are retried while a wave is in work that allows one at a time",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Settling(2), Action::Sicken(deployment("shop", "cart"), OLD)),
                    beat(When::Now, Action::Sicken(deployment("shop", "web"), OLD)),
                    beat(When::Now, Action::RequestRollback(true)),
                    beat(When::Back, Action::Suspend(true)),
                    beat(When::After(30), Action::ReplaceTemplate(deployment("shop", "cart"))),
                    beat(When::Now, Action::ReplaceTemplate(deployment("shop", "web"))),
                    beat(When::Waits(WaitReason::WorkloadFailed), Action::Suspend(false)),
                    beat(When::After(900), Action::Retry),
                    beat(When::After(900), Action::Cure(deployment("shop", "cart"))),
                    beat(When::Now, Action::Cure(deployment("shop", "web"))),
                    beat(When::After(900), Action::Retry),
                ]
            },
            tolerate: Tolerate { budgets: true, lost_answer: true, ..CASE.tolerate },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "deployed_broken_in_rollback",
            about: "the owner of a workload that is back deploys a broken version: the first wave goes back all the same",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Settling(2), Action::Sicken(deployment("stock", "api"), OLD)),
                    beat(When::Now, Action::RequestRollback(true)),
                    beat(When::Back, Action::Suspend(true)),
                    beat(When::After(15), Action::Sicken(deployment("shop", "cart"), OLD)),
                    beat(When::Now, Action::Redeploy(deployment("shop", "cart"))),
                    beat(When::After(5000), Action::Cure(deployment("shop", "cart"))),
                    beat(When::Now, Action::Cure(deployment("stock", "api"))),
                ]
            },
            tolerate: Tolerate { budgets: true, ..CASE.tolerate },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "small_rollback",
            about: "two workloads, turned back after the first",
            world: || two_apps(|_| {}),
            script: || vec![beat(When::Wave(0), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "reapplied_and_rolled_back",
            about: "the object is deleted in the second wave and applied again asking for rollback",
            world: three_waves,
            script: || {
                vec![beat(When::Wave(1), Action::Reapply), beat(When::Now, Action::RequestRollback(true))]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "autoscaled_rollback",
            about: "replicas change all the time, and the run turns back",
            world: || {
                let mut world = three_waves();
                world.apps.values_mut().for_each(|app| app.autoscaled = true);
                world
            },
            script: || vec![beat(When::Wave(1), Action::RequestRollback(true))],
            neighbours: &[Neighbour::Autoscaler, Neighbour::Planes],
            ends: rolled_back,
            ..CASE
        },
    ]
}

/// Two of a wave at once; one cannot live on the target, one is broken from the beginning.
fn broken_and_sick() -> World {
    let mut world = sick(OnFailure::Pause);
    let broken = deployment("shop", "broken");
    world.running(&broken, 1, rolling(0, 1));
    world.sick.insert((broken.clone(), OLD.into()));
    let ids: Vec<u64> = world.pods_of(&broken).iter().map(|(id, _)| *id).collect();
    for id in ids {
        world.edit_pod(id, |pod| pod.ready = false);
    }
    world
}

fn sick(on_failure: OnFailure) -> World {
    let mut world = three_waves();
    world.request().on_failure = on_failure;
    world.sick.insert((deployment("shop", "cart"), NEW.into()));
    world
}

/// A namespace with `istio-injection=enabled`, which the old control plane answers as the default one.
fn default_injection() -> World {
    let mut world = two_apps(|_| {});
    world.plane(OLD, Plane { installed: true, ready: 2, default: true, ..Plane::default() });
    world.edit_namespace(&"shop".into(), |namespace| {
        namespace.labels.remove(labels::REVISION);
        namespace.labels.insert(labels::INJECTION.to_owned(), "enabled".to_owned());
        namespace.managers.clear();
    });
    world
}
