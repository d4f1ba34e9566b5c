//! Every endpoint, refusal and fault of the simulator, by plain HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of the test functions")]

mod endpoints;
mod faults;
mod program;
mod sign_in;
mod support;
mod validation;
mod writes;
