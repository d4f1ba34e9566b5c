//! Namespaces: labels, who owns the one that matters, and our own annotations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use meshupgrade_core::ids::NamespaceName;
use meshupgrade_core::labels;
use meshupgrade_core::observed::{FieldManager, Namespace, Owner, PreviousLabels};
use serde::Deserialize;

use super::Observed;
use crate::slim;

/// A namespace, as far as it is parsed.
#[derive(Clone, Debug, Deserialize)]
pub struct RawNamespace {
    #[serde(default, deserialize_with = "slim::metadata_with_managers")]
    metadata: ObjectMeta,
}

slim::resource!(RawNamespace, ClusterResourceScope, "", "v1", "Namespace", "namespaces");

impl Observed for RawNamespace {
    type Key = NamespaceName;
    type Value = Namespace;

    fn key(&self) -> NamespaceName {
        NamespaceName(self.metadata.name.clone().unwrap_or_default())
    }

    fn observe(self) -> Option<Namespace> {
        let metadata = self.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        let managed = metadata.managed_fields.unwrap_or_default();
        Some(Namespace {
            name: metadata.name.unwrap_or_default().into(),
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            previous: annotations.get(labels::PREVIOUS_LABELS).and_then(|text| parse_previous(text)),
            relabelled_by: annotations.get(labels::RELABELLED_BY).cloned(),
            managers: managers(managed),
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }
}

pub(super) fn parse_previous(text: &str) -> Option<PreviousLabels> {
    serde_json::from_str(text)
        .inspect_err(|error| tracing::warn!(%error, "annotation {} is not ours", labels::PREVIOUS_LABELS))
        .ok()
}

/// Who wrote the object itself (not a subresource).
pub(super) fn managers(managed: Vec<ManagedFieldsEntry>) -> Vec<FieldManager> {
    let own = managed.into_iter().filter(|entry| entry.subresource.is_none());
    own.map(|entry| FieldManager {
        applies: entry.operation.as_deref() == Some("Apply"),
        wrote_at: entry.time.as_ref().map(|time| time.0),
        owns_revision: owns_label(&entry, labels::REVISION),
        owns_injection: owns_label(&entry, labels::INJECTION),
        name: entry.manager.unwrap_or_default(),
    })
    .collect()
}

/// The object that this one belongs to. Whether that calls itself its controller or not, it makes it anew.
pub(super) fn first_owner(owners: Option<&[OwnerReference]>) -> Option<Owner> {
    let owner = owners?.first()?;
    Some(Owner {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        group: owner.api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
    })
}

fn owns_label(entry: &ManagedFieldsEntry, label: &str) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    fields.and_then(|fields| fields.get("f:metadata")?.get("f:labels")?.get(format!("f:{label}"))).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn observe(value: Value) -> Namespace {
        serde_json::from_value::<RawNamespace>(value).unwrap().observe().unwrap()
    }

    fn manager(name: &str, operation: &str, time: &str, labels: &[&str]) -> Value {
        let owned: serde_json::Map<String, Value> =
            labels.iter().map(|label| (format!("f:{label}"), json!({}))).collect();
        json!({
            "manager": name, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": owned}},
        })
    }

    fn namespace(managed: &Value) -> Namespace {
        observe(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": "shop", "uid": "u-1", "resourceVersion": "42",
                "labels": {"istio.io/rev": "asm-1-27", "team": "shop"},
                "annotations": {
                    "meshupgrade.io/previous-labels":
                        r#"{"from":"asm-1-27","to":"asm-1-28","revision":"asm-1-27","manager":"argocd-controller"}"#,
                    "meshupgrade.io/relabelled-by": "u.1.forward.1",
                },
                "managedFields": managed,
            },
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        }))
    }

    #[test]
    fn labels_and_our_annotations_are_read() {
        let namespace = namespace(&json!([]));
        assert_eq!(namespace.name.as_str(), "shop");
        assert_eq!(namespace.resource_version, "42");
        assert_eq!(namespace.labels.get("team").map(String::as_str), Some("shop"));
        let previous = namespace.previous.unwrap();
        assert_eq!(previous.from.as_str(), "asm-1-27");
        assert_eq!(previous.to.as_str(), "asm-1-28");
        assert_eq!(previous.manager.as_deref(), Some("argocd-controller"));
        assert_eq!(namespace.relabelled_by.as_deref(), Some("u.1.forward.1"));
        assert_eq!(namespace.managers, []);
        assert!(!namespace.terminating);
    }

    #[test]
    fn the_managers_are_read_with_what_they_own_and_when_they_wrote() {
        let namespace = namespace(&json!([
            manager("kubectl-label", "Update", "2026-01-01T00:00:00Z", &["team", "istio-injection"]),
            manager("argocd-controller", "Apply", "2026-01-02T00:00:00Z", &["team", "istio.io/rev"]),
        ]));
        let [kubectl, argo] = namespace.managers.as_slice() else { panic!("{:?}", namespace.managers) };
        let owns = |manager: &FieldManager| (manager.owns_revision, manager.owns_injection);
        assert_eq!(
            (kubectl.name.as_str(), kubectl.applies, owns(kubectl)),
            ("kubectl-label", false, (false, true))
        );
        assert_eq!(
            (argo.name.as_str(), argo.applies, owns(argo)),
            ("argocd-controller", true, (true, false))
        );
        assert_eq!(argo.wrote_at, Some("2026-01-02T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn writes_of_a_subresource_are_no_writes_of_the_object() {
        let mut status = manager("kube-controller-manager", "Update", "2026-01-02T00:00:00Z", &[]);
        status["subresource"] = json!("status");
        assert!(namespace(&json!([status])).managers.is_empty());
    }

    #[test]
    fn an_annotation_that_is_not_ours_is_no_memory() {
        let namespace = observe(json!({"metadata": {
            "name": "shop", "annotations": {"meshupgrade.io/previous-labels": "yesterday"},
        }}));
        assert_eq!(namespace.previous, None);
    }
}
