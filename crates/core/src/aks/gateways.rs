//! The gateways of the add-on in the cluster. Each revision has Deployments of its own behind one Service, which come and go with it: those that
//! go with a revision are not restarted, and their proxies do not keep it in use.

use super::revision::minor;
use super::{EGRESS_NAMESPACE, INGRESS_NAMESPACE};
use crate::ids::{NamespaceName, Revision, WorkloadKind, WorkloadRef};
use crate::intent::Intent;
use crate::observed::Snapshot;

/// What the names of ingress gateways begin with. Source: `istio-deploy-ingress.md` of Azure's documentation.
const INGRESS: &str = "aks-istio-ingressgateway-";

/// Whether a workload is a gateway of the add-on, of whatever revision.
pub fn is_gateway(intent: &Intent, snapshot: &Snapshot, workload: &WorkloadRef) -> bool {
    revision_of(intent, snapshot, workload).is_some()
}

/// Whether a workload is a gateway of the add-on that comes and goes with this revision.
pub fn goes_with(intent: &Intent, snapshot: &Snapshot, revision: &Revision, workload: &WorkloadRef) -> bool {
    revision_of(intent, snapshot, workload).as_ref() == Some(revision)
}

/// The revision that a gateway of the add-on comes and goes with; `None` for any other workload. Its proxies may be of another one: in a namespace
/// with a label, the label decides.
///
/// A gateway is told by its name, which ends in its revision, in a namespace where the add-on makes gateways: its own two, those that the
/// cluster's profile has, and, where Azure is not asked, those that the operator was told of. Whatever else is there is somebody's own. As long as
/// Azure was not read, for example after a restart of the operator, any such name counts.
fn revision_of(intent: &Intent, snapshot: &Snapshot, workload: &WorkloadRef) -> Option<Revision> {
    if !intent.is_addon() || workload.kind != WorkloadKind::Deployment {
        return None;
    }
    let (name, revision) = name_and_revision(&workload.name)?;
    is_made_by_the_addon(intent, snapshot, &workload.namespace, name).then_some(revision)
}

fn is_made_by_the_addon(intent: &Intent, snapshot: &Snapshot, namespace: &NamespaceName, name: &str) -> bool {
    if namespace.as_str() == INGRESS_NAMESPACE {
        return name.starts_with(INGRESS);
    }
    if intent.aks.is_none() {
        return namespace.as_str() == EGRESS_NAMESPACE || snapshot.addon_namespaces.contains(namespace);
    }
    // Until the profile is known nothing is taken away, and what may be Azure's is not touched.
    let profile = snapshot.aks.as_ref().and_then(|seen| seen.egress_gateways.as_ref());
    profile.is_none_or(|gateways| {
        gateways.iter().any(|gateway| {
            // Older api-versions name none.
            gateway.name.as_deref().is_none_or(|known| known == name)
                && gateway.namespace == namespace.as_str()
        })
    })
}

/// The name of a gateway and the revision that it is of: `out-asm-1-28`.
pub fn name_and_revision(deployment: &str) -> Option<(&str, Revision)> {
    let (name, revision) = deployment.split_at_checked(deployment.rfind("-asm-")?)?;
    let revision = Revision::from(revision.strip_prefix('-')?);
    minor(&revision).map(|_| (name, revision))
}

/// The namespaces in which every cluster with the add-on may have gateways.
pub fn default_namespaces() -> impl Iterator<Item = NamespaceName> {
    [INGRESS_NAMESPACE, EGRESS_NAMESPACE].into_iter().map(NamespaceName::from)
}
