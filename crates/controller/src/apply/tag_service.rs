//! Leads the Service of a revision tag to another istiod: its label and its selector in one patch.

use kube::Api;
use kube::api::Patch;
use meshupgrade_core::effect::{MoveTagService, PreviousEdit};
use meshupgrade_core::labels;
use serde_json::{Value, json};

use super::{memory_and_stamp, patch};
use crate::client::CallError;
use crate::context::Context;
use crate::observe::istiod_service::RawIstiodService;

pub(super) async fn send(context: &Context, change: &MoveTagService) -> Result<(), CallError> {
    let namespace = &change.service.namespace;
    let api: Api<RawIstiodService> = Api::namespaced(context.clients.calls(), namespace.as_str());
    let remember = |answer| context.istiod_services.remember(namespace, answer);
    patch(context, &api, remember, &change.service.name, &Patch::Merge(body(change))).await
}

/// A JSON merge patch: what it does not name stays. A tag remembers on its webhook where it pointed, so that its Service need not.
fn body(change: &MoveTagService) -> Value {
    json!({
        "metadata": {
            "resourceVersion": change.resource_version,
            "labels": {labels::REVISION: change.revision},
            "annotations": memory_and_stamp(&PreviousEdit::Leave, &change.stamp),
        },
        "spec": {"selector": change.selector},
    })
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::ids::ServiceRef;

    use super::*;

    #[test]
    fn label_and_selector_change_together_and_a_label_that_the_revision_lacks_goes() {
        let change = MoveTagService {
            tag: "prod".to_owned(),
            service: ServiceRef {
                namespace: "istio-system".into(),
                name: "istiod-revision-tag-prod".to_owned(),
            },
            resource_version: "7".to_owned(),
            revision: "asm-1-28".into(),
            selector: [
                (labels::REVISION.to_owned(), Some("asm-1-28".to_owned())),
                ("istio".to_owned(), None),
            ]
            .into(),
            stamp: "u.1.forward.1".to_owned(),
            because: String::new(),
        };
        assert_eq!(
            body(&change),
            json!({
                "metadata": {
                    "resourceVersion": "7",
                    "labels": {"istio.io/rev": "asm-1-28"},
                    "annotations": {"meshupgrade.io/relabelled-by": "u.1.forward.1"},
                },
                "spec": {"selector": {"istio.io/rev": "asm-1-28", "istio": null}},
            })
        );
    }
}
