//! The operator's own rights, asked of the API server before a run needs them.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use meshupgrade_core::decision::About;

use crate::client::Clients;

/// What of this the operator may not patch. What the API server does not answer counts as allowed: the write itself will tell.
pub async fn denied(clients: &Clients, wanted: &BTreeSet<About>) -> BTreeSet<About> {
    let api: Api<SelfSubjectAccessReview> = Api::all(clients.calls());
    let mut denied = BTreeSet::new();
    for about in wanted {
        let Some(review) = review(about) else { continue };
        match clients.call(api.create(&PostParams::default(), &review)).await {
            Ok(answer) => {
                if answer.status.is_some_and(|status| !status.allowed) {
                    denied.insert(about.clone());
                }
            }
            Err(error) => tracing::warn!(?about, %error, "whether it may be patched could not be asked"),
        }
    }
    denied
}

/// The question; `None` for what no run asks about.
fn review(about: &About) -> Option<SelfSubjectAccessReview> {
    let (group, resource, namespace, name) = match about {
        About::Webhook(name) => {
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", None, name.clone())
        }
        About::Service(service) => {
            ("", "services", Some(service.namespace.to_string()), service.name.clone())
        }
        About::Namespace(_)
        | About::Workload(_)
        | About::Gateway(_)
        | About::ConfigMap(_)
        | About::Cluster(_) => return None,
    };
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some("patch".to_owned()),
        namespace,
        name: Some(name),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    Some(SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() })
}
