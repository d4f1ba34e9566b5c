//! The digest of a plan: what an approval is given for.

use meshupgrade_core::ids::Revision;
use meshupgrade_core::plan::{Plan, WaveKind};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::spec::InjectionMode;

/// Digest over source, target, mode, and which declared wave has which namespaces.
///
/// Numbers of workloads are not part of it, and neither are the waves that the operator appends: they come and go with
/// workloads and late namespaces, which must not void an approval.
pub fn plan_digest(source: &Revision, target: &Revision, mode: InjectionMode, plan: &Plan) -> String {
    let waves: Vec<_> = plan
        .waves
        .iter()
        .filter(|wave| wave.kind == WaveKind::Declared)
        .map(|wave| json!([wave.name, wave.namespaces]))
        .collect();
    let content = json!([source, target, mode, waves]).to_string();
    format!("sha256:{:x}", Sha256::digest(content))
}
