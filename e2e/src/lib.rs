//! Scenarios on the real control plane: a real API server, real controllers, two real istiods, and the operator as a
//! process with the rights of its chart's ServiceAccount. What it did is read from the API server's audit log.
//!
//! ```no_run
//! use meshupgrade_e2e::{App, Mesh, Scenario, SOURCE, TARGET, scenario};
//! use serde_json::json;
//!
//! scenario("everything_moves", async |s: &mut Scenario| {
//!     s.mesh(Mesh::new().on(SOURCE, "shop").app(App::deployment("shop", "web").replicas(2))).await?;
//!     s.wave(&["shop"], 1);
//!     s.start_operator()?;
//!     s.upgrade("mesh", json!({"targetRevision": TARGET, "completion": {"mode": "Keep"}})).await?;
//!     s.wait_phase("mesh", "Succeeded").await?;
//!     s.judge(&[]).await
//! });
//! ```

pub mod audit;
pub mod azure;
pub mod cluster;
pub mod injector;
pub mod install;
pub mod interrupt;
pub mod mesh;
pub mod operator;
pub mod referee;
pub mod scenario;
pub mod state;
pub mod tags;
pub mod tail;
pub mod telemetry;
pub mod upgrade;

pub use cluster::{Kind, scenario, scenario_of};
pub use mesh::{App, Mesh};
pub use operator::OperatorSpec;
pub use referee::Workload;
pub use scenario::Scenario;

/// The revision that runs leave.
pub const SOURCE: &str = "asm-1-27";
/// The revision that runs go to.
pub const TARGET: &str = "asm-1-28";
