//! Runs all scenarios. See the crate's documentation for how a failure is replayed.

mod explore;
mod faults;
mod ordered;
mod points;
mod seeds;
