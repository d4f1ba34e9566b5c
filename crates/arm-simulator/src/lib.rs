//! A simulated Azure Resource Manager with the sign-in of Microsoft Entra, for one or more AKS clusters with the Istio
//! add-on. It listens on 127.0.0.1 only.
//!
//! What it answers, and from where that is known, is the table in `docs/arm-simulator.md`. A comment `Source:` at an
//! answer names the recording, thread or document that shows it; `Inferred:` says that none was found.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use meshupgrade_arm_simulator::{Call, ClusterConfig, Config, Fault, InMemory, Simulator};
//! let cluster = ClusterConfig::new(InMemory::with(&["asm-1-27"]), &["asm-1-27"]);
//! let id = cluster.id();
//! let simulator = Simulator::start(Config::new(vec![cluster])).await?;
//! simulator.plant(Call::PutCluster, Fault::LoseAnswer)?;
//! println!("{} trusts {}", simulator.base_url(), simulator.ca_pem());
//! println!("{:?} {:?}", simulator.revisions(&id), simulator.journal());
//! # Ok(())
//! # }
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod clients;

mod answer;
mod arm;
mod cluster;
mod compare;
mod config;
mod document;
mod fault;
mod identity;
mod journal;
mod offers;
mod operation;
mod route;
mod server;
mod shared;
mod sign_in;
mod simulator;
mod tls;
mod validate;

pub use config::{ClusterConfig, Config, ControlPlanes, InMemory};
pub use document::default_document;
pub use fault::{End, Fault, Times};
pub use journal::Entry;
pub use offers::Offer;
pub use route::Call;
pub use simulator::Simulator;

/// A panic elsewhere must not keep others from the state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
