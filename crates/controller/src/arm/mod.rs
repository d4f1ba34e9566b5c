//! The client of Azure Resource Manager, for the Istio add-on of AKS.
//!
//! ```text
//!  config ─▶ sign_in (token) ─▶ exchange (one request, one answer) ─▶ core::aks (what it means) ─▶ client
//! ```
//!
//! It does exactly one write: the PUT of a cluster with another list of revisions ([`Arm::set_revisions`]). It is sent once,
//! and when its answer is lost the outcome is unknown until the cluster has been read again. Addresses of operations are
//! signed: they stay in memory, like tokens, and neither is in any message.

mod client;
pub mod config;
mod exchange;
mod operation;
mod sign_in;
mod token;

pub use self::client::{Accepted, Arm, ReadCluster, SetRevisions};
pub use self::config::{Config, ConfigError, Options};
pub use self::operation::{OperationHandle, Poll};

#[cfg(test)]
mod tests;
