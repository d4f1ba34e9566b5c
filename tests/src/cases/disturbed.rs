//! Runs in which others get in the way.

use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::intent::OnFailure;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use super::plain::{three_waves, two_apps};
use crate::action::{Action, usual_menu};
use crate::case::{CASE, Case, Chaos, End, Tolerate, When, beat};
use crate::neighbours::Neighbour;
use crate::world::World;
use crate::world::build::{NEW, OLD, default_rolling, deployment, rolling, stateful_set};

fn ns(name: &str) -> NamespaceName {
    NamespaceName::from(name)
}

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "reverted_within_settle",
            about: "GitOps puts a label back while it settles; Git is corrected",
            world: git_world,
            neighbours: &[Neighbour::GitOps],
            script: || vec![beat(When::Waits(WaitReason::LabelReverted), Action::Commit(ns("shop"), NEW))],
            tolerate: Tolerate { lost_sidecars: true, ..CASE.tolerate },
            ..CASE
        },
        Case {
            name: "reverted_while_restarting",
            about: "somebody puts a label back in the middle of the restarts; a retry writes it once more",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Label(ns("shop"), Some(OLD))),
                    beat(When::Waits(WaitReason::LabelReverted), Action::Suspend(true)),
                    beat(When::After(120), Action::Suspend(false)),
                    beat(When::Waits(WaitReason::LabelReverted), Action::Retry),
                ]
            },
            ..CASE
        },
        Case {
            name: "git_ignores_the_label",
            about: "an ignore rule keeps GitOps away; completion waits until Git has the new revision",
            world: || {
                let mut world = git_world();
                world.git.values_mut().for_each(|git| git.ignores = true);
                world
            },
            neighbours: &[Neighbour::GitOps],
            script: || {
                vec![
                    beat(When::Waits(WaitReason::GitStillOnOldRevision), Action::Commit(ns("shop"), NEW)),
                    beat(When::After(60), Action::Ignore(ns("shop"), false)),
                    beat(When::After(60), Action::Sync(ns("shop"))),
                ]
            },
            ..CASE
        },
        Case {
            name: "restart_stripped",
            about: "an owner puts the old template back in mid-rollout; a retry restarts once more",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::ReplaceTemplate(deployment("shop", "cart"))),
                    beat(When::Waits(WaitReason::RestartReverted), Action::Retry),
                ]
            },
            tolerate: Tolerate { lost_answer: true, ..CASE.tolerate },
            ..CASE
        },
        Case {
            name: "istiod_dies",
            about: "the target's istiod dies in the second wave and returns",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Istiod(NEW, 0)),
                    beat(When::Waits(WaitReason::IstiodNotReady), Action::Suspend(true)),
                    beat(When::After(400), Action::Suspend(false)),
                    beat(When::After(10), Action::Istiod(NEW, 1)),
                ]
            },
            neighbours: &[Neighbour::Planes],
            ..CASE
        },
        Case {
            name: "stragglers",
            about: "a namespace comes to the source in the last wave, another one while completing",
            world: || {
                let mut world = three_waves();
                world.request().completion.soak_seconds = 60;
                world
            },
            script: || {
                let late = |name: &str| Action::CreateNamespace(name.to_owned(), Some(OLD.to_owned()));
                vec![
                    beat(When::Wave(2), late("late-one")),
                    beat(When::Phase(Phase::Completing), late("late-two")),
                ]
            },
            ..CASE
        },
        Case {
            name: "churn",
            about: "application teams scale, redeploy, create and delete in the middle of it",
            world: three_waves,
            neighbours: &[Neighbour::Teams, Neighbour::Autoscaler],
            script: || {
                vec![
                    beat(When::Settling(0), Action::Redeploy(deployment("shop", "web"))),
                    beat(When::Wave(1), Action::Redeploy(deployment("shop", "cart"))),
                    beat(When::Now, Action::Scale(deployment("stock", "api"), 4)),
                    beat(When::After(5), Action::Create(deployment("shop", "new"), 2, default_rolling())),
                    beat(When::After(5), Action::Delete(deployment("shop", "web"))),
                    beat(When::Wave(2), Action::DeleteNamespace(ns("canary"))),
                    beat(When::Now, Action::Delete(stateful_set("billing", "db"))),
                ]
            },
            tolerate: Tolerate { budgets: true, ..CASE.tolerate },
            ..CASE
        },
        Case {
            name: "fallen_in_the_soak",
            about: "within the soak the label is put back, a pod is made, and the label is mended: the pod is brought over",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Phase(Phase::Soaking), Action::Label("shop".into(), Some(OLD))),
                    beat(When::Now, Action::Scale(deployment("shop", "web"), 4)),
                    beat(When::After(10), Action::Label("shop".into(), Some(NEW))),
                ]
            },
            ..CASE
        },
        Case {
            name: "only_tags_use_the_source",
            about: "no label leads to another revision, but proxies of one run behind a tag: that is no success",
            world: || {
                let mut world = two_apps(|_| {});
                world.tag("prod", OLD);
                world.edit_namespace(&"shop".into(), |namespace| {
                    namespace.labels.insert("istio.io/rev".to_owned(), "prod".to_owned());
                });
                world
            },
            ends: End::Waiting(WaitReason::RevisionInUse),
            ..CASE
        },
        Case {
            name: "suspend_and_resume",
            about: "suspended in mid-batch: the batch ends, nothing new begins",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Suspend(true)),
                    beat(When::Waits(WaitReason::Suspended), Action::Scale(deployment("shop", "web"), 2)),
                    beat(When::After(600), Action::Suspend(false)),
                ]
            },
            ..CASE
        },
        Case {
            name: "recreated_after_its_restart",
            about: "a workload of the open batch is deleted and created again while the label leads back",
            world: three_waves,
            script: || {
                let cart = deployment("shop", "cart");
                vec![
                    beat(When::Wave(1), Action::Label("shop".into(), Some(OLD))),
                    beat(When::Now, Action::Recreate(cart)),
                    beat(When::After(60), Action::Retry),
                ]
            },
            tolerate: crate::case::Tolerate { budgets: true, ..CASE.tolerate },
            ..CASE
        },
        Case {
            name: "reapplied",
            about: "the object is deleted in the second wave and applied again: what was moved is adopted",
            world: three_waves,
            script: || vec![beat(When::Wave(1), Action::Reapply)],
            ..CASE
        },
        Case {
            name: "reference_blocks",
            about: "an EnvoyFilter names the old revision until somebody removes it",
            world: || two_apps(|_| {}),
            script: || {
                vec![
                    beat(When::Wave(0), Action::Refer(OLD)),
                    beat(When::Waits(WaitReason::RevisionInUse), Action::Suspend(true)),
                    beat(When::After(100), Action::Suspend(false)),
                    beat(When::After(10), Action::Unrefer),
                ]
            },
            ..CASE
        },
        Case {
            name: "node_falls_silent",
            about: "an old pod hangs on an unreachable node: the wave waits for it by name",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Strand(deployment("shop", "cart"))),
                    beat(When::Waits(WaitReason::PodTerminating), Action::HealNodes),
                ]
            },
            tolerate: Tolerate { budgets: true, ..CASE.tolerate },
            neighbours: &[Neighbour::Nodes],
            ..CASE
        },
        Case {
            name: "node_falls_silent_for_long",
            about: "the same for longer than the timeout: that is not the workload's failure, and nothing turns back",
            world: || {
                let mut world = three_waves();
                world.request().on_failure = OnFailure::Automatic;
                world
            },
            script: || {
                vec![
                    beat(When::Wave(1), Action::Strand(deployment("shop", "cart"))),
                    beat(When::Waits(WaitReason::PodTerminating), Action::Suspend(false)),
                    beat(When::After(900), Action::HealNodes),
                ]
            },
            tolerate: Tolerate { budgets: true, ..CASE.tolerate },
            neighbours: &[Neighbour::Nodes],
            ..CASE
        },
        Case {
            name: "plan_only_in_mid_run",
            about: "planOnly is set while a batch is open: that ends, nothing new starts until it is taken back",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::PlanOnly(true)),
                    beat(When::Waits(WaitReason::PlanOnly), Action::Suspend(false)),
                    beat(When::After(300), Action::PlanOnly(false)),
                ]
            },
            ..CASE
        },
        Case {
            name: "budget_exhausted",
            about: "a budget has no room until a sick workload recovers",
            world: || {
                let mut world = two_apps(|_| {});
                world.running(&deployment("shop", "tight"), 2, rolling(0, 1));
                world.budget("shop", "tight", 1);
                let id = world.pods_of(&deployment("shop", "tight"))[0].0;
                world.edit_pod(id, |pod| pod.ready = false);
                world.sick.insert((deployment("shop", "tight"), OLD.into()));
                world
            },
            script: || {
                vec![
                    beat(When::Wave(0), Action::Suspend(false)),
                    beat(When::After(100), Action::Cure(deployment("shop", "tight"))),
                ]
            },
            ..CASE
        },
        Case {
            name: "swarm",
            about: "everything at once",
            world: swarm,
            script: || {
                vec![
                    beat(When::Waits(WaitReason::GitStillOnOldRevision), Action::Commit(ns("gitops"), NEW)),
                    beat(When::After(60), Action::Ignore(ns("gitops"), false)),
                    beat(When::After(60), Action::Sync(ns("gitops"))),
                ]
            },
            neighbours: &[
                Neighbour::Teams,
                Neighbour::Autoscaler,
                Neighbour::Planes,
                Neighbour::Nodes,
                Neighbour::GitOps,
                Neighbour::Operators,
            ],
            tolerate: Tolerate { lost_sidecars: true, budgets: true, lost_answer: true },
            ends: End::In(Phase::Succeeded),
            chaos: Chaos { lag: 5, faults: 15, handover: true, turns: 600 },
            ..CASE
        },
    ]
}

fn git_world() -> World {
    let mut world = three_waves();
    world.namespaces.remove(&ns("shop"));
    world.git_namespace("shop", OLD, false);
    world
}

fn swarm() -> World {
    let mut world = three_waves();
    world.git_namespace("gitops", OLD, true);
    world.running(&deployment("gitops", "web"), 2, default_rolling());
    world.apps.values_mut().for_each(|app| app.autoscaled = app.view.reference.name == "web");
    world.menu = usual_menu();
    world.menu.extend([
        Action::Label(ns("shop"), Some(OLD)),
        Action::Label(ns("shop"), Some(NEW)),
        Action::Label(ns("stock"), None),
        Action::ReplaceTemplate(deployment("shop", "cart")),
        Action::Sicken(deployment("shop", "cart"), NEW),
        Action::Cure(deployment("shop", "cart")),
        Action::Commit(ns("gitops"), NEW),
        Action::Sync(ns("gitops")),
        Action::Reapply,
        Action::Target(NEW),
        Action::RunId("again"),
        Action::PlanOnly(false),
        Action::RequestRollback(true),
        Action::RequestRollback(false),
    ]);
    world
}
