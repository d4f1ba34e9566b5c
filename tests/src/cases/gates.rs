//! Runs that metrics gate.

use meshupgrade_core::intent::{OnFailure, RollbackScope};
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;

use super::plain::three_waves;
use crate::action::Action;
use crate::case::{CASE, Case, End, When, beat};
use crate::neighbours::telemetry::{Source, errors};
use crate::world::World;
use crate::world::build::{NEW, deployment};

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "metrics_pass",
            about: "every batch is measured before the next one, and the first wave while it soaks",
            world: || {
                let mut world = gated(OnFailure::Automatic);
                world.request().waves[0].soak_seconds = 60;
                world
            },
            ..CASE
        },
        Case {
            name: "errors_turn_back",
            about: "requests of a workload of the second wave fail on the target: everything goes back",
            world: || ailing(OnFailure::Automatic),
            ends: End::In(Phase::RolledBack),
            random_ends: &[End::In(Phase::RolledBack)],
            ..CASE
        },
        Case {
            name: "errors_pause",
            about: "the same without automatic rollback: a person mends it and asks for a retry",
            world: || ailing(OnFailure::Pause),
            script: || {
                vec![
                    beat(When::Waits(WaitReason::AnalysisFailed), Action::Soothe),
                    beat(When::After(300), Action::Retry),
                ]
            },
            ..CASE
        },
        Case {
            name: "no_news",
            about: "the source is away, then empty, then without numbers: nothing goes on until it is back",
            world: || {
                let mut world = gated(OnFailure::Automatic);
                world.telemetry.source = Source::Down;
                world
            },
            script: || {
                vec![
                    beat(When::Waits(WaitReason::AnalysisError), Action::Telemetry(Source::Empty)),
                    beat(When::Waits(WaitReason::AnalysisNoData), Action::Telemetry(Source::NotANumber)),
                    beat(When::After(600), Action::Telemetry(Source::Up)),
                ]
            },
            ..CASE
        },
        Case {
            name: "turned_back_without_news",
            about: "a rollback does not ask any metric source",
            world: || {
                let mut world = gated(OnFailure::Pause);
                world.telemetry.source = Source::Down;
                world
            },
            script: || vec![beat(When::Waits(WaitReason::AnalysisError), Action::RequestRollback(true))],
            ends: End::In(Phase::RolledBack),
            random_ends: &[End::In(Phase::RolledBack)],
            ..CASE
        },
        Case {
            name: "one_wave_returns",
            about: "only the failed wave goes back; a person mends it and lets it go forward once more",
            world: ailing_wave,
            script: || {
                vec![
                    beat(When::Waits(WaitReason::WaveRolledBack), Action::Soothe),
                    beat(When::After(300), Action::Retry),
                ]
            },
            ..CASE
        },
        Case {
            name: "one_wave_returns_and_then_all",
            about: "only the failed wave goes back; a person decides that all of it shall",
            world: ailing_wave,
            script: || vec![beat(When::Waits(WaitReason::WaveRolledBack), Action::RequestRollback(true))],
            ends: End::In(Phase::RolledBack),
            ..CASE
        },
        Case {
            name: "all_while_one_wave_returns",
            about: "a rollback of all is asked for while one wave goes back by itself",
            world: ailing_wave,
            script: || vec![beat(When::Back, Action::RequestRollback(true))],
            ends: End::In(Phase::RolledBack),
            ..CASE
        },
        Case {
            name: "errors_while_soaking",
            about: "requests begin to fail while the last wave soaks",
            world: || {
                let mut world = gated(OnFailure::Automatic);
                world.request().completion.soak_seconds = 120;
                world
            },
            script: || {
                vec![beat(When::Phase(Phase::Completing), Action::Ail(deployment("shop", "web"), NEW))]
            },
            ends: End::In(Phase::RolledBack),
            ..CASE
        },
    ]
}

/// Three waves that are measured.
fn gated(on_failure: OnFailure) -> World {
    let mut world = three_waves();
    let request = world.request();
    request.on_failure = on_failure;
    request.analysis.metrics = vec![errors()];
    world.menu.extend([
        Action::Telemetry(Source::Down),
        Action::Telemetry(Source::Empty),
        Action::Telemetry(Source::Up),
        Action::Telemetry(Source::Up),
    ]);
    world
}

/// The same, where only the wave goes back.
fn ailing_wave() -> World {
    let mut world = ailing(OnFailure::Automatic);
    world.request().rollback_scope = RollbackScope::Wave;
    world
}

/// A workload of the second wave does not work on the target.
fn ailing(on_failure: OnFailure) -> World {
    let mut world = gated(on_failure);
    world.telemetry.ailing.insert((deployment("shop", "web"), NEW.into()));
    world
}
