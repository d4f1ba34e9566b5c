//! Runs of the real chain without Kubernetes: decisions, the shell that reads and writes managed clusters, the client of Azure
//! Resource Manager over TLS, and the simulated Azure. Only the mesh is made by hand: it has what Azure has installed.
//!
//! Each call meets each fault that it can meet, the process dies at each call, and others write at each stage. A run must end as
//! it does without, by the same two writes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of the test functions")]

mod clock;
mod deaths;
mod faults;
mod mesh;
mod others;
mod process;
mod put_back;
mod refusals;
mod stays;
mod tables;
mod texts;
mod world;
