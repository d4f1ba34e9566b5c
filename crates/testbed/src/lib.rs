//! Starts and drives a real Kubernetes control plane with real istiod revisions on this machine, without containers:
//! API server, controllers, scheduler and injection are the real programs, nodes and their kubelets are simulated.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use meshupgrade_testbed::{Cluster, ClusterOptions};
//! let cluster = Cluster::start(ClusterOptions::default()).await?;
//! println!("{}", cluster.kubectl(&["get", "pods", "-A"]).await?);
//! cluster.shutdown().await
//! # }
//! ```
//!
//! Pods become ready at once, unless annotations (also those of a workload's pod template) say otherwise:
//!
//! | `testbed.meshupgrade.io/…` | effect |
//! |---|---|
//! | `ready-after: 5s` | containers are waiting until then |
//! | `terminate-after: 5s` | how long a deleted pod stays |
//! | `complete-after: 5s` | when a pod of a Job ends (default 1s; with a classic proxy it never does, as in reality) |
//! | `fail-after: 5s` | that long after becoming ready its containers crash |
//! | `never-ready: "true"` | the application's containers run and are never ready |
//! | `never-ready-on: <revision>` | the proxy injected by this revision is never ready |
//! | `image-pull-failure: "true"` | the images of the application cannot be pulled |
//! | `image-pull-failure-on: <revision>` | the proxy image of this revision cannot be pulled |
//!
//! Removing a fault's annotation from the pod heals the pod.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod access;
mod binaries;
mod cluster;
mod command;
mod control_plane;
mod credentials;
mod istio;
mod mesh;
mod ports;
mod process;
mod program;
mod readiness;
pub mod session;
mod stages;

pub use access::{ProxyRevision, apply_yaml, client_for, is_ready, proxy_revisions, wait_for};
pub use binaries::Binaries;
pub use cluster::{Cluster, ClusterOptions, NodeSpec};
pub use istio::{IstioRevision, SYSTEM_NAMESPACE};
pub use program::{IstiodAddress, Program, ProgramSpec};
pub use stages::ANNOTATIONS;

/// A panic elsewhere must not keep us from ending processes.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
