//! Read-only fields of a cluster, and what a PUT changes besides the revisions.

use serde_json::Value;

/// The only field that an upgrade of the mesh is about.
const REVISIONS: &str = "/properties/serviceMeshProfile/istio/revisions";

/// Fields that a PUT does not set; `*` is any name or index.
///
/// Source: azure-mgmt-containerservice 41.6.0, fields with visibility "read" of ManagedCluster and what it is made of;
/// `resourceUID`, the states and versions of pools and the ids of identities besides from azure-cli
/// test_aks_azure_service_mesh_canary_upgrade.yaml: its PUT leaves them out, and the answer still has them.
const READ_ONLY: [&str; 23] = [
    "/id",
    "/name",
    "/type",
    "/systemData",
    "/eTag",
    "/identity/principalId",
    "/identity/tenantId",
    "/identity/userAssignedIdentities/*/principalId",
    "/identity/userAssignedIdentities/*/clientId",
    "/properties/provisioningState",
    "/properties/powerState",
    "/properties/maxAgentPools",
    "/properties/currentKubernetesVersion",
    "/properties/fqdn",
    "/properties/privateFQDN",
    "/properties/azurePortalFQDN",
    "/properties/resourceUID",
    "/properties/addonProfiles/*/identity",
    "/properties/agentPoolProfiles/*/eTag",
    "/properties/agentPoolProfiles/*/provisioningState",
    "/properties/agentPoolProfiles/*/currentOrchestratorVersion",
    "/properties/agentPoolProfiles/*/nodeImageVersion",
    "/properties/oidcIssuerProfile/issuerURL",
];

/// JSON pointers of what `sent` drops, changes or adds against `stored`, in their order.
pub(crate) fn foreign_changes(stored: &Value, sent: &Value) -> Vec<String> {
    let mut changes = Vec::new();
    collect(stored, sent, "", &mut changes);
    changes
}

/// What is stored after a PUT: what was sent, with the read-only fields of what is stored now.
pub(crate) fn accepted(stored: &Value, mut sent: Value) -> Value {
    remove_read_only(&mut sent, "");
    keep_read_only(stored, &mut sent, "");
    sent
}

fn collect(stored: &Value, sent: &Value, at: &str, changes: &mut Vec<String>) {
    if at == REVISIONS || is_read_only(at) {
        return;
    }
    match (stored, sent) {
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => {
            for key in keys(stored).chain(keys(sent).filter(|key| child(stored, key).is_none())) {
                let [before, after] =
                    [stored, sent].map(|value| child(value, &key).cloned().unwrap_or(Value::Null));
                collect(&before, &after, &format!("{at}/{}", escaped(&key)), changes);
            }
        }
        // Source: azure-cli test_aks_azure_service_mesh_canary_upgrade.yaml: the PUT leaves out `nodeLabels: {}`, and the
        // answer has it again.
        (before, after) if before == after || (is_nothing(before) && is_nothing(after)) => {}
        _ => changes.push(at.to_owned()),
    }
}

fn keys(value: &Value) -> Box<dyn Iterator<Item = String> + '_> {
    match value {
        Value::Object(fields) => Box::new(fields.keys().cloned()),
        Value::Array(elements) => Box::new((0..elements.len()).map(|index| index.to_string())),
        _ => Box::new(std::iter::empty()),
    }
}

fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Array(elements) => elements.get(key.parse::<usize>().ok()?),
        _ => value.get(key),
    }
}

fn child_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match value {
        Value::Array(elements) => elements.get_mut(key.parse::<usize>().ok()?),
        _ => value.get_mut(key),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        _ => false,
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn is_read_only(at: &str) -> bool {
    READ_ONLY.iter().any(|pattern| {
        pattern.split('/').count() == at.split('/').count()
            && pattern.split('/').zip(at.split('/')).all(|(want, name)| want == "*" || want == name)
    })
}

fn remove_read_only(value: &mut Value, at: &str) {
    let names: Vec<String> = keys(value).collect();
    for key in names {
        let pointer = format!("{at}/{}", escaped(&key));
        if is_read_only(&pointer) {
            if let Value::Object(fields) = value {
                fields.remove(&key);
            }
        } else if let Some(inner) = child_mut(value, &key) {
            remove_read_only(inner, &pointer);
        }
    }
}

fn keep_read_only(stored: &Value, sent: &mut Value, at: &str) {
    for key in keys(stored) {
        let pointer = format!("{at}/{}", escaped(&key));
        let Some(kept) = child(stored, &key) else { continue };
        if is_read_only(&pointer) {
            if let Value::Object(fields) = sent {
                fields.insert(key, kept.clone());
            }
        } else if let Some(inner) = child_mut(sent, &key) {
            keep_read_only(kept, inner, &pointer);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_and_read_only_fields_are_no_foreign_changes() {
        let stored = crate::default_document(&["asm-1-27"]);
        let mut sent = stored.clone();
        sent["properties"]["serviceMeshProfile"]["istio"]["revisions"] = json!(["asm-1-27", "asm-1-28"]);
        sent["eTag"] = json!("x");
        sent["properties"]["provisioningState"] = json!("Failed");
        sent["properties"]["agentPoolProfiles"][1].as_object_mut().unwrap().remove("nodeImageVersion");
        sent["properties"]["agentPoolProfiles"][1].as_object_mut().unwrap().remove("nodeTaints");
        assert_eq!(foreign_changes(&stored, &sent), [""; 0]);
        let after = accepted(&stored, sent);
        assert_eq!(after["properties"]["provisioningState"], "Succeeded");
        assert_eq!(after.get("eTag"), None);
        assert_eq!(
            after["properties"]["agentPoolProfiles"][1]["nodeImageVersion"],
            "AKSUbuntu-2204gen2containerd-202608.19.0"
        );
    }

    #[test]
    fn what_is_dropped_changed_or_added_is_named() {
        let stored = crate::default_document(&["asm-1-27"]);
        let mut sent = stored.clone();
        sent["tags"]["team"] = json!("other");
        sent["tags"]["a/b"] = json!("new");
        sent["properties"]["agentPoolProfiles"].as_array_mut().unwrap().pop();
        sent["properties"]["serviceMeshProfile"]["istio"].as_object_mut().unwrap().remove("futureField");
        assert_eq!(
            foreign_changes(&stored, &sent),
            [
                "/properties/agentPoolProfiles/1",
                "/properties/serviceMeshProfile/istio/futureField",
                "/tags/team",
                "/tags/a~1b",
            ]
        );
    }
}
