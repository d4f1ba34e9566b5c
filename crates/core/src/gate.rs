//! The control-plane gate: never move a pod to a revision that cannot take it.

use crate::aks::ISTIO_NAMESPACE;
use crate::ids::{NamespaceName, Revision, WorkloadKind, WorkloadRef};
use crate::inventory::own_injector;
use crate::observed::{Istiod, Snapshot};
use crate::pods::workload_of;
use crate::trouble::trouble;
use crate::wait::{Wait, WaitReason};

/// Why pods must not be moved to a revision now; `None` when its istiod, injector webhook and injector configuration
/// are all in place.
pub fn control_plane(
    snapshot: &Snapshot,
    istio_namespace: &NamespaceName,
    revision: &Revision,
) -> Option<Wait> {
    let wait = |reason, because: String| Some(Wait { reason, about: None, because });
    let plane = snapshot.control_planes.get(revision);
    let istiod = plane.and_then(|plane| plane.istiod.as_ref());
    let webhook = own_injector(snapshot, revision);
    if istiod.is_none() && webhook.is_none() {
        return wait(
            WaitReason::RevisionNotFound,
            format!(
                "no control plane of revision {revision} in namespace {istio_namespace}: install it beside the other, for \
                 example with {}",
                start_command(istio_namespace, revision)
            ),
        );
    }
    match istiod {
        None => {
            return wait(
                WaitReason::IstiodNotReady,
                format!("there is no istiod Deployment of revision {revision} in {istio_namespace}"),
            );
        }
        Some(istiod) if istiod.ready == 0 => {
            return wait(WaitReason::IstiodNotReady, not_ready(snapshot, istio_namespace, istiod));
        }
        Some(_) => {}
    }
    let Some(webhook) = webhook.filter(|webhook| !webhook.entries.is_empty()) else {
        return wait(
            WaitReason::WebhookNotReady,
            format!("revision {revision} has no injector webhook: new pods would get no sidecar"),
        );
    };
    if webhook.entries.iter().any(|entry| entry.client.ca_bundle.is_empty()) {
        return wait(
            WaitReason::WebhookNotReady,
            format!("istiod has not written its CA into the webhook {} yet", webhook.name),
        );
    }
    if webhook.entries.iter().any(|entry| !entry.fails_closed) {
        return wait(
            WaitReason::WebhookNotReady,
            format!(
                "the webhook {} lets pods in without a sidecar when it fails: set failurePolicy: Fail",
                webhook.name
            ),
        );
    }
    if !plane.is_some_and(|plane| plane.injector_config) {
        return wait(
            WaitReason::InjectorConfigMissing,
            format!("there is no ConfigMap istio-sidecar-injector-{revision} in {istio_namespace}"),
        );
    }
    None
}

/// Why a revision cannot take over a mesh yet: see [`control_plane()`], and all of its istiod's pods are to be ready, of which later
/// one is enough.
pub fn new_control_plane(
    snapshot: &Snapshot,
    istio_namespace: &NamespaceName,
    revision: &Revision,
) -> Option<Wait> {
    let missing = || {
        let istiod = snapshot.control_planes.get(revision)?.istiod.as_ref()?;
        let because = not_ready(snapshot, istio_namespace, istiod);
        let wait = Wait { reason: WaitReason::IstiodNotReady, about: None, because };
        (istiod.ready < istiod.desired).then_some(wait)
    };
    control_plane(snapshot, istio_namespace, revision).or_else(missing)
}

/// How a person starts a control plane: that of the AKS add-on is known by its namespace.
fn start_command(istio_namespace: &NamespaceName, revision: &Revision) -> String {
    if istio_namespace.as_str() == ISTIO_NAMESPACE {
        return format!("az aks mesh upgrade start -g RESOURCE_GROUP -n CLUSTER --revision {revision}");
    }
    format!("helm install istiod-{revision} istio/istiod -n {istio_namespace} --set revision={revision}")
}

/// How a person removes a control plane; `verb` is what that is for `az`: `complete` or `rollback`.
pub fn removal_command(istio_namespace: &NamespaceName, revision: &Revision, verb: &str) -> String {
    if istio_namespace.as_str() == ISTIO_NAMESPACE {
        return format!("az aks mesh upgrade {verb} -g RESOURCE_GROUP -n CLUSTER");
    }
    format!("helm uninstall istiod-{revision} -n {istio_namespace}")
}

fn not_ready(snapshot: &Snapshot, namespace: &NamespaceName, istiod: &Istiod) -> String {
    let deployment = WorkloadRef::new(WorkloadKind::Deployment, namespace.clone(), istiod.name.clone());
    let why = what_keeps(snapshot, &deployment).map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} of {} pods of {namespace}/{} are ready{why}", istiod.ready, istiod.desired, istiod.name)
}

/// What keeps the pods of a Deployment from being ready, in Kubernetes' words, as far as they are seen.
pub fn what_keeps(snapshot: &Snapshot, deployment: &WorkloadRef) -> Option<String> {
    let workload = snapshot.workloads.get(deployment)?;
    let pods = snapshot.pods.get(&deployment.namespace).map(Vec::as_slice).unwrap_or_default();
    let own = pods.iter().map(AsRef::as_ref).filter(|pod| workload_of(pod).as_ref() == Some(deployment));
    trouble(workload, own).map(|trouble| trouble.message)
}

/// Whether nothing of a control plane is left: neither istiod nor its own injector.
pub fn is_gone(snapshot: &Snapshot, revision: &Revision) -> bool {
    own_injector(snapshot, revision).is_none()
        && snapshot.control_planes.get(revision).is_none_or(|plane| plane.istiod.is_none())
}
