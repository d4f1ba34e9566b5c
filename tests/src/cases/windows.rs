//! Runs with maintenance windows.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use meshupgrade_core::machine::phase::Phase;
use meshupgrade_core::wait::WaitReason;
use meshupgrade_core::window::Window;

use super::plain::three_waves;
use crate::action::Action;
use crate::case::{CASE, Case, End, When, beat};
use crate::world::World;

/// The scenarios of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "window_opens_later",
            about: "applied outside of the window: the plan is published, and the run starts when it opens",
            world: || open_from_to((0, 10, 0), (6, 0, 0)),
            ..CASE
        },
        Case {
            name: "window_closes_in_mid_wave",
            about: "the window closes while a batch is open: it ends, and the rest goes on the next day",
            world: || open_from_to((0, 0, 0), (0, 1, 8)),
            ..CASE
        },
        Case {
            name: "rollback_outside_the_windows",
            about: "a rollback does not wait for a window",
            world: || open_from_to((0, 0, 0), (0, 1, 8)),
            script: || vec![beat(When::Waits(WaitReason::OutsideWindow), Action::RequestRollback(true))],
            ends: End::In(Phase::RolledBack),
            ..CASE
        },
    ]
}

/// Three waves and one window each day. The world begins at midnight.
fn open_from_to(start: (i8, i8, i8), end: (i8, i8, i8)) -> World {
    let mut world = three_waves();
    let time = |(hour, minute, second)| Time::constant(hour, minute, second, 0);
    let (start, end) = (time(start), time(end));
    world.request().windows = vec![Window { days: Vec::new(), start, end, time_zone: TimeZone::UTC }];
    world
}
