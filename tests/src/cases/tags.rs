//! Revision tags, and labels that are somebody else's to move.

use meshupgrade_core::intent::{InjectionMode, Intent, WaveSelect};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use crate::action::Action;
use crate::case::{CASE, Case, End, When, beat};
use crate::world::World;
use crate::world::build::{
    NEW, OLD, default_rolling, deployment, intent, names, rolling, stateful_set, wave,
};

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    let rolled_back = End::In(Phase::RolledBack);
    vec![
        Case {
            name: "tags_and_labels",
            about: "a canary tag, a stable tag, and namespaces with labels of their own",
            world: || mixed(|_| {}),
            ..CASE
        },
        Case {
            name: "tags_go_back",
            about: "rollback is requested in the wave of the second tag",
            world: || mixed(|_| {}),
            script: || vec![beat(When::Wave(1), Action::RequestRollback(true))],
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "tag_put_back",
            about: "somebody points the tag back while it settles: nothing is restarted until a person decides",
            world: || mixed(|_| {}),
            script: || {
                vec![
                    beat(When::Settling(0), Action::Tag("canary", OLD)),
                    beat(When::Waits(WaitReason::LabelReverted), Action::Retry),
                ]
            },
            ..CASE
        },
        Case {
            name: "tag_service_put_back",
            about: "somebody puts the Service of a tag back while it settles, and once more in the rollback, whose workloads come back",
            world: || mixed(|_| {}),
            script: || {
                vec![
                    beat(When::Settling(0), Action::TagService("canary", OLD)),
                    beat(When::Waits(WaitReason::LabelReverted), Action::Retry),
                    beat(When::Wave(1), Action::RequestRollback(true)),
                    beat(When::Phase(Phase::RollingBack), Action::TagService("canary", NEW)),
                    beat(When::Waits(WaitReason::LabelReverted), Action::TagService("canary", OLD)),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "tags_reapplied",
            about: "the MeshUpgrade is deleted in the middle and applied again: it goes on, and could still go back",
            world: || mixed(|_| {}),
            script: || {
                vec![
                    beat(When::Wave(1), Action::Reapply),
                    beat(When::Phase(Phase::Completing), Action::RequestRollback(true)),
                ]
            },
            remover: false,
            ends: rolled_back,
            ..CASE
        },
        Case {
            name: "late_follower",
            about: "a namespace with an application comes to a tag after the plan is frozen",
            world: || mixed(|_| {}),
            script: || {
                vec![beat(
                    When::Wave(1),
                    Action::CreateNamespace("late".to_owned(), Some("canary".to_owned())),
                )]
            },
            ..CASE
        },
        Case {
            name: "git_moves_the_labels",
            about: "mode Observe: one commit for each wave, and the operator writes no label",
            world: observed,
            script: || {
                vec![
                    beat(When::Waits(WaitReason::LabelNotMoved), Action::Label("first".into(), Some(NEW))),
                    beat(When::Waits(WaitReason::LabelNotMoved), Action::Label("second".into(), Some(NEW))),
                ]
            },
            ..CASE
        },
        Case {
            name: "git_goes_back",
            about: "mode Observe: the rollback waits for the commit that sets the labels back",
            world: observed,
            script: || {
                vec![
                    beat(When::Waits(WaitReason::LabelNotMoved), Action::Label("first".into(), Some(NEW))),
                    beat(When::Wave(0), Action::RequestRollback(true)),
                    beat(When::Waits(WaitReason::LabelNotMoved), Action::Label("first".into(), Some(OLD))),
                ]
            },
            ends: rolled_back,
            ..CASE
        },
    ]
}

/// Two tags with a wave each, and a namespace with a label.
fn mixed(change: impl FnOnce(&mut Intent)) -> World {
    let mut request = intent();
    request.waves = vec![
        wave("canary", WaveSelect::Tag("canary".to_owned()), 1),
        wave("stable", WaveSelect::Tag("stable".to_owned()), 2),
        wave("rest", WaveSelect::Rest, 2),
    ];
    change(&mut request);
    let mut world = World::new(request);
    world.tag("canary", OLD);
    world.tag("stable", OLD);
    for (name, revision) in [("try", "canary"), ("shop", "stable"), ("data", "stable"), ("plain", OLD)] {
        world.namespace(name, Some(revision));
        world.running(&deployment(name, "web"), 2, default_rolling());
    }
    world.running(&stateful_set("data", "db"), 2, rolling(0, 1));
    world
}

/// Two waves whose labels Git has.
fn observed() -> World {
    let mut request = intent();
    request.injection = InjectionMode::Observe;
    request.waves = vec![wave("first", names(&["first"]), 1), wave("second", WaveSelect::Rest, 1)];
    let mut world = World::new(request);
    for name in ["first", "second"] {
        world.namespace(name, Some(OLD));
        world.running(&deployment(name, "web"), 2, default_rolling());
    }
    world
}
