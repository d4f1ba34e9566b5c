//! Istio's injectors: mutating webhook configurations of revisions and of tags.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::Revision;
use meshupgrade_core::labels;
use meshupgrade_core::observed::{WebhookConfiguration, WebhookEntry};
use serde::Deserialize;

use super::Observed;
use crate::slim::{self, RawSelector};

/// What the name of every webhook of Istio ends in.
const SUFFIX: &str = "istio.io";

/// A `MutatingWebhookConfiguration`, as far as it is parsed.
#[derive(Clone, Debug, Deserialize)]
pub struct RawMutating {
    #[serde(default, deserialize_with = "slim::slim_metadata")]
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
    ca_bundle: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawService {
    namespace: String,
    name: String,
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
            endpoint: raw.endpoint(),
            name: raw.name,
            namespace_selector: raw.namespace_selector.into(),
            object_selector: raw.object_selector.into(),
            ca_bundle: raw.client_config.ca_bundle.unwrap_or_default(),
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
        let label = |key: &str| self.metadata.labels.as_ref()?.get(key).cloned();
        Some(WebhookConfiguration {
            revision: label(labels::REVISION).map(Revision),
            tag: label(labels::TAG),
            name: self.metadata.name.unwrap_or_default(),
            entries,
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
        assert_eq!(entry.endpoint, "aks-istio-system/istiod-asm-1-28");
        assert_eq!(entry.ca_bundle, "Y2E=");
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
        assert_eq!(seen.entries[0].endpoint, "https://127.0.0.1:15017/inject");
        assert_eq!(seen.entries[0].ca_bundle, "");
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
