//! Istio's injectors: mutating webhook configurations of revisions and of tags.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::Revision;
use meshupgrade_core::labels;
use meshupgrade_core::observed::{ClientConfig, ServiceReference, WebhookConfiguration, WebhookEntry};
use serde::Deserialize;

use super::Observed;
use super::namespace::{first_owner, managers, parse_previous};
use crate::slim::{self, RawSelector};

/// What the name of every webhook of Istio ends in.
const SUFFIX: &str = "istio.io";

/// A `MutatingWebhookConfiguration`, as far as it is parsed.
#[derive(Clone, Debug, Deserialize)]
pub struct RawMutating {
    #[serde(default, deserialize_with = "slim::metadata_with_managers")]
    metadata: ObjectMeta,
    #[serde(default)]
    webhooks: Vec<RawWebhook>,
}

slim::resource!(
    RawMutating,
    ClusterResourceScope,
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations"
);

/// One webhook of a configuration, mutating or validating.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawWebhook {
    /// Its name.
    pub name: String,
    namespace_selector: RawSelector,
    object_selector: RawSelector,
    client_config: RawClientConfig,
    failure_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawClientConfig {
    url: Option<String>,
    service: Option<RawService>,
    ca_bundle: Option<ByteString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawService {
    namespace: String,
    name: String,
    path: Option<String>,
    port: Option<i32>,
}

impl From<RawClientConfig> for ClientConfig {
    fn from(raw: RawClientConfig) -> Self {
        Self {
            service: raw.service.map(|service| ServiceReference {
                namespace: service.namespace.into(),
                name: service.name,
                path: service.path,
                // What the API server fills in.
                port: service.port.filter(|port| *port != 443),
            }),
            url: raw.url,
            ca_bundle: raw
                .ca_bundle
                .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
                .unwrap_or_default(),
        }
    }
}

impl RawWebhook {
    /// Whether it is one of Istio's.
    pub fn is_istio(&self) -> bool {
        self.name.ends_with(SUFFIX)
    }

    /// Where it points: `namespace/service`, or a URL.
    pub fn endpoint(&self) -> String {
        match (&self.client_config.service, &self.client_config.url) {
            (Some(service), _) => format!("{}/{}", service.namespace, service.name),
            (None, Some(url)) => url.clone(),
            (None, None) => String::new(),
        }
    }
}

impl From<RawWebhook> for WebhookEntry {
    fn from(raw: RawWebhook) -> Self {
        Self {
            name: raw.name,
            namespace_selector: raw.namespace_selector.into(),
            object_selector: raw.object_selector.into(),
            client: raw.client_config.into(),
            // The default of admissionregistration v1.
            fails_closed: raw.failure_policy.as_deref() != Some("Ignore"),
        }
    }
}

impl Observed for RawMutating {
    type Key = String;
    type Value = WebhookConfiguration;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn observe(self) -> Option<WebhookConfiguration> {
        let entries: Vec<WebhookEntry> =
            self.webhooks.into_iter().filter(RawWebhook::is_istio).map(WebhookEntry::from).collect();
        if entries.is_empty() {
            return None;
        }
        let metadata = self.metadata;
        let label = |key: &str| metadata.labels.as_ref()?.get(key).cloned();
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        Some(WebhookConfiguration {
            revision: label(labels::REVISION).map(Revision),
            tag: label(labels::TAG),
            entries,
            // Only tags are written: a new version alone of another one is no news.
            resource_version: match label(labels::TAG) {
                Some(_) => metadata.resource_version.clone().unwrap_or_default(),
                None => String::new(),
            },
            previous: annotation(labels::PREVIOUS_LABELS).and_then(|text| parse_previous(&text)),
            relabelled_by: annotation(labels::RELABELLED_BY),
            managers: managers(metadata.managed_fields.unwrap_or_default()),
            owner: first_owner(metadata.owner_references.as_deref()),
            name: metadata.name.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn observe(labels: &Value, webhooks: &Value) -> Option<WebhookConfiguration> {
        let value = json!({"metadata": {"name": "injector", "labels": labels}, "webhooks": webhooks});
        serde_json::from_value::<RawMutating>(value).unwrap().observe()
    }

    fn entry(client_config: &Value) -> Value {
        json!({
            "name": "rev.namespace.sidecar-injector.istio.io",
            "clientConfig": client_config,
            "namespaceSelector": {"matchExpressions": [
                {"key": "istio.io/rev", "operator": "In", "values": ["asm-1-28"]},
                {"key": "istio-injection", "operator": "DoesNotExist"},
            ]},
            "objectSelector": {"matchExpressions": [
                {"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]},
            ]},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        })
    }

    #[test]
    fn an_injector_that_points_at_a_service_is_read() {
        let service = json!({
            "service": {"namespace": "aks-istio-system", "name": "istiod-asm-1-28", "path": "/inject", "port": 443},
            "caBundle": "Y2E=",
        });
        let seen = observe(&json!({"istio.io/rev": "asm-1-28"}), &json!([entry(&service)])).unwrap();
        assert_eq!(seen.revision.unwrap().as_str(), "asm-1-28");
        assert_eq!(seen.tag, None);
        let entry = &seen.entries[0];
        let service = entry.client.service.as_ref().unwrap();
        assert_eq!(
            (service.namespace.as_str(), service.name.as_str()),
            ("aks-istio-system", "istiod-asm-1-28")
        );
        assert_eq!((service.path.as_deref(), service.port), (Some("/inject"), None));
        assert_eq!(entry.client.ca_bundle, "ca", "it is base64 on the wire");
        assert!(entry.fails_closed);
        let labels = |rev: &str| [("istio.io/rev".to_owned(), rev.to_owned())].into();
        assert!(entry.namespace_selector.matches(&labels("asm-1-28")));
        assert!(!entry.namespace_selector.matches(&labels("asm-1-27")));
    }

    #[test]
    fn an_injector_that_points_at_a_url_is_read() {
        let seen = observe(
            &json!({"istio.io/rev": "asm-1-28", "istio.io/tag": "prod"}),
            &json!([entry(&json!({"url": "https://127.0.0.1:15017/inject"}))]),
        )
        .unwrap();
        assert_eq!(seen.tag.as_deref(), Some("prod"));
        assert_eq!(seen.entries[0].client.url.as_deref(), Some("https://127.0.0.1:15017/inject"));
        assert_eq!(
            (seen.entries[0].client.service.as_ref(), seen.entries[0].client.ca_bundle.as_str()),
            (None, "")
        );
    }

    #[test]
    fn who_owns_a_tag_and_what_it_was_is_read() {
        let previous = r#"{"from":"asm-1-27","to":"asm-1-28","revision":"asm-1-27"}"#;
        let value = json!({
            "metadata": {
                "name": "istio-revision-tag-prod", "resourceVersion": "7",
                "labels": {"istio.io/rev": "asm-1-28", "istio.io/tag": "prod"},
                "annotations": {"meshupgrade.io/previous-labels": previous, "meshupgrade.io/relabelled-by": "u.1.forward.1"},
                "ownerReferences": [{"apiVersion": "sailoperator.io/v1", "kind": "IstioRevisionTag", "name": "prod", "uid": "u"}],
                "managedFields": [{"manager": "helm", "operation": "Update", "time": "2026-01-02T00:00:00Z",
                    "fieldsV1": {"f:metadata": {"f:labels": {"f:istio.io/rev": {}}}}}],
            },
            "webhooks": [entry(&json!({}))],
        });
        let seen = serde_json::from_value::<RawMutating>(value).unwrap().observe().unwrap();
        assert_eq!(
            (seen.resource_version.as_str(), seen.relabelled_by.as_deref()),
            ("7", Some("u.1.forward.1"))
        );
        assert_eq!(seen.previous.as_ref().unwrap().from.as_str(), "asm-1-27");
        assert_eq!(seen.owner.as_ref().unwrap().kind, "IstioRevisionTag");
        assert!(seen.managers[0].owns_revision);
        assert_eq!(seen.revision_written(), Some("2026-01-02T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn webhooks_of_others_are_left_out() {
        let mut other = entry(&json!({}));
        other["name"] = json!("pods.example.com");
        assert_eq!(observe(&json!({}), &json!([other])), None);
        let both = observe(&json!({}), &json!([other, entry(&json!({}))])).unwrap();
        assert_eq!(both.entries.len(), 1);
    }

    #[test]
    fn only_ignore_lets_a_pod_in_when_the_call_fails() {
        let policy = |policy: Value| {
            let mut one = entry(&json!({}));
            one["failurePolicy"] = policy;
            observe(&json!({}), &json!([one])).unwrap().entries[0].fails_closed
        };
        assert!(!policy(json!("Ignore")));
        assert!(policy(json!("Fail")));
        assert!(policy(Value::Null));
    }
}
