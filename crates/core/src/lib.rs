//! The pure domain of MeshUpgrade: it decides, and does nothing else.
//!
//! [`decide()`] is total and deterministic: what it knows is in its arguments, what it wants is in its result. There is
//! no I/O, no clock and no randomness in this crate, and it depends on neither kube nor tokio.

pub mod aks;
pub mod analysis;
pub mod argo;
pub mod budget;
pub mod census;
pub mod check;
pub mod conditions;
pub mod decision;
pub mod effect;
pub mod gate;
pub mod gateways;
pub mod ids;
pub mod injection;
pub mod intent;
pub mod invariant;
pub mod inventory;
pub mod labels;
pub mod machine;
pub mod measure;
pub mod mesh_config;
pub mod observed;
pub mod plan;
pub mod planning;
pub mod pods;
pub mod record;
pub mod rollout;
pub mod selector;
pub mod tags;
pub mod trouble;
pub mod view;
pub mod wait;
pub mod window;

mod decide;

pub use decide::decide;
