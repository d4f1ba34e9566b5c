//! The scenarios.

mod disturbed;
mod gates;
mod patch;
mod people;
mod plain;
mod tags;
mod turned;
mod windows;

use crate::case::Case;

/// All scenarios.
pub fn all() -> Vec<Case> {
    [
        plain::cases(),
        disturbed::cases(),
        gates::cases(),
        patch::cases(),
        people::cases(),
        tags::cases(),
        turned::cases(),
        windows::cases(),
    ]
    .concat()
}

/// A scenario by name.
pub fn find(name: &str) -> Option<Case> {
    all().into_iter().find(|case| case.name == name)
}
