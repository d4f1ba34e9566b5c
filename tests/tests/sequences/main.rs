//! Runs all scenarios. See the crate's documentation for how a failure is replayed.

mod ordered;
mod seeds;
