//! Moves a revision tag: its webhooks and its label in one patch, so that nobody ever sees half of it.

use kube::Api;
use kube::api::Patch;
use meshupgrade_core::effect::MoveTag;
use meshupgrade_core::labels;
use meshupgrade_core::observed::ClientConfig;
use serde_json::{Value, json};

use super::{memory_and_stamp, patch, remember};
use crate::client::CallError;
use crate::context::Context;
use crate::observe::webhook::RawMutating;

pub(super) async fn send(context: &Context, change: &MoveTag) -> Result<(), CallError> {
    let api: Api<RawMutating> = Api::all(context.clients.calls());
    let remember = |answer| remember(&context.stores.webhooks, answer);
    patch(context, &api, remember, &change.webhook, &Patch::Strategic(body(change))).await
}

/// A strategic merge patch: the API server merges `webhooks` by name, so that everything else of an entry stays.
/// Source: `patchMergeKey` of `webhooks` in k8s.io/api/admissionregistration/v1.
fn body(change: &MoveTag) -> Value {
    let client = client_config(&change.client);
    let webhooks: Vec<Value> =
        change.entries.iter().map(|name| json!({"name": name, "clientConfig": client})).collect();
    json!({
        "metadata": {
            "resourceVersion": change.resource_version,
            "labels": {labels::REVISION: change.revision},
            "annotations": memory_and_stamp(&change.previous, &change.stamp),
        },
        "webhooks": webhooks,
    })
}

/// The whole of it: a form that the revision does not use is removed, and so is a path that it does not have.
fn client_config(client: &ClientConfig) -> Value {
    let service = client.service.as_ref().map(|service| {
        json!({"namespace": service.namespace, "name": service.name, "path": service.path, "port": service.port.unwrap_or(443)})
    });
    let ca_bundle = k8s_openapi::ByteString(client.ca_bundle.clone().into_bytes());
    json!({"service": service, "url": client.url, "caBundle": ca_bundle})
}

#[cfg(test)]
mod tests {
    use meshupgrade_core::effect::PreviousEdit;
    use meshupgrade_core::observed::ServiceReference;

    use super::*;

    fn change(client: ClientConfig) -> MoveTag {
        MoveTag {
            tag: "prod".to_owned(),
            webhook: "istio-revision-tag-prod".to_owned(),
            resource_version: "7".to_owned(),
            entries: vec!["rev.namespace.sidecar-injector.istio.io".to_owned()],
            revision: "asm-1-28".into(),
            client,
            previous: PreviousEdit::Remove,
            stamp: "u.1.back.1".to_owned(),
            because: String::new(),
        }
    }

    #[test]
    fn a_service_takes_the_place_of_a_url_and_the_other_way_round() {
        let service = ServiceReference {
            namespace: "aks-istio-system".into(),
            name: "istiod-asm-1-28".to_owned(),
            path: Some("/inject".to_owned()),
            port: None,
        };
        let by_service = ClientConfig { service: Some(service), url: None, ca_bundle: "ca".to_owned() };
        assert_eq!(
            body(&change(by_service)),
            json!({
                "metadata": {
                    "resourceVersion": "7",
                    "labels": {"istio.io/rev": "asm-1-28"},
                    "annotations": {"meshupgrade.io/relabelled-by": "u.1.back.1", "meshupgrade.io/previous-labels": null},
                },
                "webhooks": [{
                    "name": "rev.namespace.sidecar-injector.istio.io",
                    "clientConfig": {
                        "service": {"namespace": "aks-istio-system", "name": "istiod-asm-1-28", "path": "/inject", "port": 443},
                        "url": null,
                        "caBundle": "Y2E=",
                    },
                }],
            })
        );
        let url = Some("https://127.0.0.1:15017/inject".to_owned());
        let by_url = client_config(&ClientConfig { service: None, url, ca_bundle: "ca".to_owned() });
        assert_eq!(
            by_url,
            json!({"service": null, "url": "https://127.0.0.1:15017/inject", "caBundle": "Y2E="})
        );
    }
}
