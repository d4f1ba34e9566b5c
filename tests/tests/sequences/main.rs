//! Runs all scenarios. See the crate's documentation for how a failure is replayed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of the test functions")]

mod explore;
mod fakes;
mod faults;
mod ordered;
mod points;
mod seeds;
