//! Scenarios on the real control plane: a real API server, real controllers, two real istiods, and the operator as a
//! process with the rights of its chart's ServiceAccount. What it did is read from the API server's audit log.

pub mod audit;
pub mod referee;
