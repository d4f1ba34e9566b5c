//! The control-plane gate: never move a pod to a revision that cannot take it.

use crate::ids::{NamespaceName, Revision};
use crate::inventory::own_injector;
use crate::observed::Snapshot;
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
                 example with helm install istiod-{revision} istio/istiod -n {istio_namespace} --set revision={revision}"
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
            return wait(
                WaitReason::IstiodNotReady,
                format!(
                    "{} of {} pods of {istio_namespace}/{} are ready",
                    istiod.ready, istiod.desired, istiod.name
                ),
            );
        }
        Some(_) => {}
    }
    let Some(webhook) = webhook.filter(|webhook| !webhook.entries.is_empty()) else {
        return wait(
            WaitReason::WebhookNotReady,
            format!("revision {revision} has no injector webhook: new pods would get no sidecar"),
        );
    };
    if webhook.entries.iter().any(|entry| entry.ca_bundle.is_empty()) {
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

/// Whether nothing of a control plane is left: neither istiod nor its own injector.
pub fn is_gone(snapshot: &Snapshot, revision: &Revision) -> bool {
    own_injector(snapshot, revision).is_none()
        && snapshot.control_planes.get(revision).is_none_or(|plane| plane.istiod.is_none())
}
