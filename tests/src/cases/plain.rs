//! Runs in which nobody does anything unusual.

use std::sync::Arc;

use meshupgrade_core::ids::WorkloadRef;
use meshupgrade_core::intent::{CompletionMode, Intent, WaveSelect};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::observed::{IntOrPercent, Strategy};
use meshupgrade_core::wait::WaitReason;

use crate::action::{Action, act};
use crate::case::{CASE, Case, End, When, beat};
use crate::neighbours::Neighbour;
use crate::world::Plane;
use crate::world::World;
use crate::world::build::{
    NEW, OLD, OTHER, daemon_set, default_rolling, deployment, intent, names, rolling, stateful_set, wave,
};

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "three_waves",
            about: "a canary, two namespaces at two at a time with a soak, and the rest",
            world: three_waves,
            ..CASE
        },
        Case {
            name: "all_kinds",
            about: "all kinds and strategies, budgets that leave room for one, and what cannot be restarted",
            world: all_kinds,
            ends: End::InWaiting(Phase::Completing, WaitReason::RevisionInUse),
            ..CASE
        },
        Case {
            name: "shared_budget",
            about: "three workloads under one budget that lets only one pod go",
            world: shared_budget,
            ..CASE
        },
        Case {
            name: "keep_both",
            about: "completion mode Keep: the old control plane stays",
            world: || two_apps(|intent| intent.completion.mode = CompletionMode::Keep),
            ..CASE
        },
        Case {
            name: "manual_completion",
            about: "completion waits for a person, then for the removal",
            world: || two_apps(|intent| intent.completion.mode = CompletionMode::Manual),
            script: || vec![beat(When::Waits(WaitReason::ApprovalRequired), Action::Complete)],
            ..CASE
        },
        Case {
            name: "nothing_to_move",
            about: "no namespace uses another revision",
            world: || World::new(intent()),
            ..CASE
        },
        Case {
            name: "two_sources",
            about: "two sources and none named: a person must choose",
            world: two_sources,
            ends: End::InWaiting(Phase::Preflight, WaitReason::PreflightFailed),
            ..CASE
        },
        Case {
            name: "target_comes_late",
            about: "the target's control plane is installed while the run waits for it",
            world: || {
                let mut world = two_apps(|_| {});
                world.plane(NEW, Plane::default());
                world
            },
            script: || vec![beat(When::After(60), Action::Install(NEW))],
            ..CASE
        },
        Case {
            name: "surroundings_incomplete",
            about: "another upgrade, then a missing webhook, then a missing ConfigMap hold the run up before it begins",
            world: || {
                let mut world = two_apps(|_| {});
                for action in
                    [Action::OtherUpgrade(true), Action::Webhook(NEW, false), Action::Config(NEW, false)]
                {
                    act(&mut world, action);
                }
                world.history.clear();
                world
            },
            script: || {
                vec![
                    beat(When::Waits(WaitReason::OtherUpgradeActive), Action::OtherUpgrade(false)),
                    beat(When::Waits(WaitReason::WebhookNotReady), Action::Webhook(NEW, true)),
                    beat(When::Waits(WaitReason::InjectorConfigMissing), Action::Config(NEW, true)),
                ]
            },
            ..CASE
        },
        Case {
            name: "gateway_last",
            about: "an injected gateway goes last, whatever its namespace's wave",
            world: gateways,
            ..CASE
        },
        Case {
            name: "both_labels",
            about: "istio-injection hides the revision label: relabelling takes it away",
            world: both_labels,
            ..CASE
        },
        Case {
            name: "plan_only",
            about: "the plan is published and nothing is written, until planOnly is taken away",
            world: || two_apps(|intent| intent.plan_only = true),
            script: || {
                vec![
                    beat(When::Waits(WaitReason::PlanOnly), Action::Scale(deployment("shop", "web"), 3)),
                    beat(When::After(120), Action::PlanOnly(false)),
                ]
            },
            ..CASE
        },
        Case {
            name: "pauses_and_soaks",
            about: "pauses between batches, soak of waves and of the run",
            world: pauses,
            neighbours: &[Neighbour::Autoscaler],
            tolerate: crate::case::Tolerate { budgets: true, ..CASE.tolerate },
            ..CASE
        },
    ]
}

/// Five namespaces with six workloads in three waves.
pub fn three_waves() -> World {
    let mut request = intent();
    request.waves = vec![
        wave("canary", names(&["canary"]), 1),
        wave("shops", names(&["shop", "stock"]), 2),
        wave("rest", WaveSelect::Rest, 1),
    ];
    request.waves[1].soak_seconds = 60;
    let mut world = World::new(request);
    for name in ["canary", "shop", "stock", "billing"] {
        world.namespace(name, Some(OLD));
    }
    world.namespace("plain", None);
    let apps = [
        (deployment("canary", "web"), 1),
        (deployment("shop", "cart"), 2),
        (deployment("shop", "web"), 3),
        (deployment("stock", "api"), 2),
        (stateful_set("billing", "db"), 2),
        (deployment("billing", "web"), 2),
        (deployment("plain", "cron"), 1),
    ];
    for (app, replicas) in apps {
        world.running(&app, replicas, default_rolling());
    }
    world
}

/// One namespace with two workloads.
pub fn two_apps(change: impl FnOnce(&mut Intent)) -> World {
    let mut request = intent();
    change(&mut request);
    let mut world = World::new(request);
    world.namespace("shop", Some(OLD));
    world.running(&deployment("shop", "web"), 2, default_rolling());
    world.running(&deployment("shop", "api"), 2, default_rolling());
    world
}

fn all_kinds() -> World {
    let mut request = intent();
    request.waves = vec![wave("all", WaveSelect::Rest, 3)];
    let mut world = World::new(request);
    world.nodes = 3;
    world.tag("stable", OLD);
    world.plane(OTHER, Plane { installed: true, ready: 2, ..Plane::default() });
    let spaces = [
        ("shop", OLD),
        ("data", OLD),
        ("edge", OLD),
        ("tagged", "stable"),
        ("third", OTHER),
        ("lost", "none"),
    ];
    for (name, revision) in spaces {
        world.namespace(name, Some(revision));
        world.running(&deployment(name, "plain"), 1, rolling(1, 0));
    }
    world.request().source = Some(OLD.into());
    world.running(&deployment("shop", "quarter"), 4, default_rolling());
    world.running(&deployment("shop", "no-surge"), 3, rolling(0, 1));
    world.running(&deployment("shop", "recreate"), 2, Strategy::Recreate);
    world.running(&deployment("shop", "empty"), 0, default_rolling());
    world.running(&stateful_set("data", "ordered"), 3, rolling(0, 1));
    world.running(&stateful_set("data", "parallel"), 2, rolling(0, 1));
    world.shape(&stateful_set("data", "parallel"), |view| view.ordered = false);
    world.running(&stateful_set("data", "by-hand"), 2, Strategy::OnDelete);
    world.running(&stateful_set("data", "partitioned"), 2, Strategy::Partitioned { partition: 1 });
    world.running(&daemon_set("edge", "agent"), 3, rolling(0, 1));
    world.running(&daemon_set("edge", "surging"), 3, rolling(1, 0));
    opted_out(&mut world, &deployment("edge", "no-sidecar"));
    world.budget("shop", "no-surge", 2);
    world.budget("data", "ordered", 2);
    world.budget("shop", "recreate", 1);
    world
}

/// A workload whose pods refuse the sidecar.
pub fn opted_out(world: &mut World, app: &WorkloadRef) {
    world.running(app, 0, default_rolling());
    world.shape(app, |view| {
        view.template.labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    });
    world.edit_spec(app, |app| Arc::make_mut(&mut app.view).replicas = 1);
    crate::neighbours::deployment::step(world, &mut crate::rng::Rng::ordered());
    for _ in 0..4 {
        crate::neighbours::kubelet::step(world, &mut crate::rng::Rng::ordered());
    }
    crate::neighbours::deployment::step(world, &mut crate::rng::Rng::ordered());
}

/// A gateway in the namespace of the first wave, and workloads in both waves.
fn gateways() -> World {
    let mut request = intent();
    request.waves = vec![wave("edge", names(&["edge"]), 1), wave("rest", WaveSelect::Rest, 2)];
    let mut world = World::new(request);
    for name in ["edge", "shop"] {
        world.namespace(name, Some(OLD));
        world.running(&deployment(name, "web"), 1, rolling(1, 0));
    }
    let gateway = deployment("edge", "ingress");
    world.running(&gateway, 2, rolling(1, 0));
    world.shape(&gateway, |view| {
        view.template.annotations.insert("inject.istio.io/templates".to_owned(), "gateway".to_owned());
    });
    world
}

/// A namespace that got `istio-injection` after its pods were injected by the revision.
pub fn both_labels() -> World {
    let mut world = two_apps(|_| {});
    world.edit_namespace(&"shop".into(), |namespace| {
        namespace.labels.insert("istio-injection".to_owned(), "enabled".to_owned());
    });
    world
}

fn shared_budget() -> World {
    let mut request = intent();
    request.waves = vec![wave("all", WaveSelect::Rest, 3)];
    let mut world = World::new(request);
    world.namespace("shop", Some(OLD));
    for name in ["a", "b", "c"] {
        let app = deployment("shop", name);
        world.running(&app, 2, rolling(0, 1));
        world.shape(&app, |view| {
            view.template.labels.insert("app".to_owned(), "shared".to_owned());
        });
        let ids: Vec<u64> = world.pods_of(&app).iter().map(|(id, _)| *id).collect();
        for id in ids {
            world.edit_pod(id, |pod| {
                pod.labels.insert("app".to_owned(), "shared".to_owned());
            });
        }
    }
    world.budget("shop", "shared", 5);
    world
}

fn two_sources() -> World {
    let mut world = two_apps(|_| {});
    world.plane(OTHER, Plane { installed: true, ready: 1, ..Plane::default() });
    world.namespace("legacy", Some(OTHER));
    world.running(&deployment("legacy", "web"), 1, default_rolling());
    world
}

fn pauses() -> World {
    let mut world = three_waves();
    let request = world.request();
    request.restart.pause_seconds = 20;
    request.completion.soak_seconds = 90;
    request.waves[2].soak_seconds = 15;
    request.waves[2].max_concurrent_workloads = IntOrPercent::Percent(50);
    for app in world.apps.values_mut() {
        app.autoscaled = app.view.reference.name == "web";
    }
    world
}
