//! Services of istiod: those of revisions, and those of revision tags.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshupgrade_core::ids::{Revision, ServiceRef};
use meshupgrade_core::labels;
use meshupgrade_core::observed::{IstiodService, Labels};
use serde::Deserialize;

use super::Observed;
use super::namespace::{first_owner, managers};
use crate::slim;

/// A Service in an Istio namespace, as far as it is parsed.
#[derive(Clone, Debug, Deserialize)]
pub struct RawIstiodService {
    #[serde(default, deserialize_with = "slim::metadata_with_managers")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    selector: Option<Labels>,
}

slim::resource!(RawIstiodService, NamespaceResourceScope, "", "v1", "Service", "services");

impl Observed for RawIstiodService {
    type Key = String;
    type Value = IstiodService;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn observe(self) -> Option<IstiodService> {
        let metadata = self.metadata;
        let named = metadata.labels.unwrap_or_default();
        let tag = named.get(labels::TAG).cloned();
        let is_istiod = named.get("app").is_some_and(|app| app == "istiod");
        if tag.is_none() && !is_istiod {
            return None;
        }
        Some(IstiodService {
            reference: ServiceRef {
                namespace: metadata.namespace.unwrap_or_default().into(),
                name: metadata.name.unwrap_or_default(),
            },
            revision: named.get(labels::REVISION).cloned().map(Revision),
            selector: self.spec.selector.unwrap_or_default(),
            // Only those of tags are written: a new version alone of another one is no news.
            resource_version: tag.as_ref().and(metadata.resource_version).unwrap_or_default(),
            tag,
            relabelled_by: metadata.annotations.unwrap_or_default().remove(labels::RELABELLED_BY),
            managers: managers(metadata.managed_fields.unwrap_or_default()),
            owner: first_owner(metadata.owner_references.as_deref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn observe(labels: &Value) -> Option<IstiodService> {
        let raw = json!({
            "metadata": {
                "name": "one", "namespace": "istio-system", "resourceVersion": "7", "labels": labels,
                "annotations": {"meshupgrade.io/relabelled-by": "u.1.forward.1"},
                "managedFields": [{
                    "manager": "helm", "operation": "Update", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:labels": {"f:istio.io/rev": {}}}},
                }],
            },
            "spec": {"selector": {"app": "istiod", "istio.io/rev": "asm-1-27"}, "ports": [{"port": 443}]},
        });
        serde_json::from_value::<RawIstiodService>(raw).unwrap().observe()
    }

    #[test]
    fn those_of_revisions_and_of_tags_are_kept_and_no_others() {
        let tag =
            observe(&json!({"app": "istiod", "istio.io/rev": "asm-1-27", "istio.io/tag": "prod"})).unwrap();
        assert_eq!(tag.reference.to_string(), "Service istio-system/one");
        assert_eq!((tag.revision.as_ref(), tag.tag.as_deref()), (Some(&"asm-1-27".into()), Some("prod")));
        assert_eq!(
            (tag.resource_version.as_str(), tag.relabelled_by.as_deref()),
            ("7", Some("u.1.forward.1"))
        );
        assert_eq!(tag.selector.get("istio.io/rev").map(String::as_str), Some("asm-1-27"));
        assert!(tag.managers[0].owns_revision);
        let own = observe(&json!({"app": "istiod", "istio.io/rev": "asm-1-27"})).unwrap();
        assert_eq!((own.tag, own.resource_version.as_str()), (None, ""));
        assert_eq!(observe(&json!({"app": "istio-ingressgateway"})), None);
        assert_eq!(observe(&json!(null)), None);
    }
}
