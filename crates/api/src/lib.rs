//! The custom resource `MeshUpgrade` of `meshupgrade.io/v1alpha1`: its types, its rules, and the way to and from
//! [`meshupgrade_core`].
//!
//! Rules that need only the object exist twice, on purpose with the same verdict: as CEL and schema in the CRD
//! ([`crd()`]), and as code ([`MeshUpgrade::validate`]) for the command line and for an operator that meets an object
//! which an older CRD let in.

pub mod aks;
pub mod analysis;
pub mod checks;
pub mod crd;
pub mod field;
pub mod intent;
pub mod limits;
pub mod publish;
pub mod restart;
pub mod rules;
pub mod spec;
pub mod status;
pub mod structure;
pub mod validate;
mod window;

pub use crd::crd;
pub use field::FieldError;
pub use publish::publish_status;
pub use spec::{MeshUpgrade, MeshUpgradeSpec};
pub use status::MeshUpgradeStatus;

/// API group of the custom resource.
pub const GROUP: &str = "meshupgrade.io";
/// API version of the custom resource.
pub const VERSION: &str = "v1alpha1";
/// Kind of the custom resource.
pub const KIND: &str = "MeshUpgrade";
