//! The shell around [`meshupgrade_core`]: everything that talks to something.
//!
//! ```text
//!  watches ─▶ stores ─▶ observe ─▶ decide (core) ─▶ publish ─▶ apply ─▶ again, until nothing changes
//!     └── poke ──────────▶ a pass over each MeshUpgrade ◀────────── wake, backoff
//! ```
//!
//! [`reconcile`] is the only module that knows this order. `observe` does no I/O; `publish` writes a changed record
//! before `apply` carries out what rests on it; what a write was answered is the only thing that is believed.

pub mod admin;
pub mod apply;
pub mod arm;
pub mod backoff;
pub mod census;
pub mod client;
pub mod context;
pub mod controller;
pub mod election;
pub mod events;
pub mod health;
pub mod managed_clusters;
pub mod memory;
pub mod metric_sources;
pub mod metrics;
pub mod observe;
pub mod proxies;
pub mod publish;
pub mod reconcile;
pub mod report;
pub mod slim;
pub mod stalls;
pub mod stop;
pub mod store;
pub mod traffic;
mod transport;
pub mod watch;

#[cfg(test)]
mod tls_server;
