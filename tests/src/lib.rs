//! Planner sequences: the pure core among small fakes of its neighbours.
//!
//! A [`world::World`] is a cluster in memory. The [`neighbours`] change it as their models do, the [`operator`] runs the
//! real `decide` on what it sees of it, and the [`referee`] holds the history against the project's invariants after
//! every step. A [`case::Case`] runs once in the default order, whose log is a golden file, and then in as many random
//! orders as wanted; a failure names the case and the seed that replay it.

pub mod action;
pub mod case;
pub mod cases;
pub mod census;
pub mod explore;
pub mod faults;
pub mod log;
pub mod neighbours;
pub mod operator;
pub mod referee;
pub mod report;
pub mod rng;
pub mod runner;
pub mod world;
