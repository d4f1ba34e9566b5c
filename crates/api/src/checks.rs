//! The names that `spec.checks.skip` knows.

use meshupgrade_core::check::{COMPLETION, PREFLIGHT};

/// Names of all checks that can be skipped: those of preflight, then those of completion.
pub fn names() -> Vec<&'static str> {
    let mut names = PREFLIGHT.to_vec();
    names.extend(COMPLETION.iter().filter(|name| !PREFLIGHT.contains(name)));
    names
}
