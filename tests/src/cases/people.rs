//! Runs that people approve, pause and turn back by what they say.

use meshupgrade_core::intent::{CompletionMode, Verb};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use super::plain::three_waves;
use crate::action::Action;
use crate::case::{CASE, Case, End, When, beat};
use crate::world::World;
use crate::world::build::OLD;

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "approved_by_annotation",
            about: "two waves wait for approval; a value of another step changes nothing",
            world: || approved(&[0, 1]),
            script: || {
                let asked = When::Waits(WaitReason::ApprovalRequired);
                vec![
                    beat(asked, Action::Annotate("approve/0000")),
                    beat(When::After(60), Action::Annotate("aprove/0000")),
                    beat(When::After(60), Action::Say(Verb::Approve)),
                    beat(When::Wave(0), Action::Say(Verb::Approve)),
                    beat(asked, Action::Suspend(false)),
                    beat(When::After(300), Action::Say(Verb::Approve)),
                ]
            },
            ..CASE
        },
        Case {
            name: "approved_in_git",
            about: "a commit approves two of three waves; the last one waits for another commit",
            world: || approved(&[0, 1, 2]),
            script: || {
                let asked = When::Waits(WaitReason::ApprovalRequired);
                vec![
                    beat(asked, Action::Approve("shops")),
                    beat(When::Wave(1), Action::Suspend(false)),
                    beat(asked, Action::Approve("rest")),
                ]
            },
            ..CASE
        },
        Case {
            name: "approval_of_another_plan",
            about: "a namespace appears after the approval and before the start: what is approved is not what would be done",
            world: || {
                let mut world = approved(&[0]);
                world.request().suspend = true;
                world
            },
            script: || {
                vec![
                    beat(When::Phase(Phase::Planned), Action::Approve("canary")),
                    beat(When::After(10), Action::CreateNamespace("added".into(), Some(OLD.into()))),
                    beat(When::After(10), Action::Suspend(false)),
                    beat(When::Waits(WaitReason::ApprovalRequired), Action::Suspend(false)),
                    beat(When::After(100), Action::Approve("canary")),
                ]
            },
            ..CASE
        },
        Case {
            name: "paused_and_resumed",
            about: "the annotation pauses the run in the middle of a wave: the open batch ends, and nothing new begins",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Say(Verb::Pause)),
                    beat(When::Waits(WaitReason::Paused), Action::Annotate("resume/0000")),
                    beat(When::After(300), Action::Say(Verb::Resume)),
                ]
            },
            ..CASE
        },
        Case {
            name: "turned_back_by_annotation",
            about: "the annotation turns a paused run back",
            world: three_waves,
            script: || {
                vec![
                    beat(When::Wave(1), Action::Say(Verb::Pause)),
                    beat(When::Waits(WaitReason::Paused), Action::Say(Verb::Rollback)),
                ]
            },
            ends: End::In(Phase::RolledBack),
            ..CASE
        },
        Case {
            name: "completion_approved",
            about: "the end is approved by annotation: the old control plane may go",
            world: || {
                let mut world = three_waves();
                world.request().completion.mode = CompletionMode::Manual;
                world
            },
            script: || {
                vec![
                    beat(When::Phase(Phase::Completing), Action::Suspend(false)),
                    beat(When::Waits(WaitReason::ApprovalRequired), Action::Say(Verb::Approve)),
                ]
            },
            ..CASE
        },
    ]
}

/// Three waves, of which these need approval.
fn approved(waves: &[usize]) -> World {
    let mut world = three_waves();
    for wave in waves {
        world.request().waves[*wave].approval = true;
    }
    world
}
