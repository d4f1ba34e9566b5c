//! The shared mesh configuration of the AKS add-on: one create, or one delete, and never a change of what is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use meshupgrade_core::effect::{MeshConfigChange, MeshConfigEdit};
use meshupgrade_core::ids::ConfigMapRef;
use meshupgrade_core::labels;
use meshupgrade_core::mesh_config::{CopyMark, KEY};

use crate::client::CallError;
use crate::context::Context;
use crate::observe::config_map::RawConfigMap;

/// Carries it out, and lets the next pass see what came of it.
pub async fn send(context: &Context, change: &MeshConfigChange) -> Result<(), CallError> {
    let (calls, map) = (context.clients.calls(), &change.map);
    match &change.edit {
        MeshConfigEdit::Create { text, mark } => {
            let api: Api<ConfigMap> = Api::namespaced(calls, map.namespace.as_str());
            let parameters =
                PostParams { field_manager: Some(labels::FIELD_MANAGER.to_owned()), ..PostParams::default() };
            let answer = context.clients.call(api.create(&parameters, &body(map, text, mark))).await?;
            context.config_maps.remember(&map.namespace, answer.into());
        }
        MeshConfigEdit::Delete { uid, resource_version } => {
            let api: Api<RawConfigMap> = Api::namespaced(calls, map.namespace.as_str());
            let preconditions = Preconditions {
                uid: Some(uid.to_string()),
                resource_version: Some(resource_version.clone()),
            };
            let only = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            context.clients.call(api.delete(&map.name, &only)).await?;
            context.config_maps.drop_deleted(map, resource_version);
        }
    }
    Ok(())
}

fn body(map: &ConfigMapRef, text: &str, mark: &CopyMark) -> ConfigMap {
    // A struct of strings always has a JSON form.
    let mark = serde_json::to_string(mark).unwrap_or_default();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(map.name.clone()),
            namespace: Some(map.namespace.to_string()),
            annotations: Some(BTreeMap::from([(labels::MESH_CONFIG_COPY.to_owned(), mark)])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_has_what_was_copied_and_our_mark_and_nothing_else() {
        let map =
            ConfigMapRef { namespace: "aks-istio-system".into(), name: "istio-shared-configmap-b".into() };
        let mark = CopyMark { from: "a".into(), to: "b".into(), digest: "sha256:1".into() };
        assert_eq!(
            serde_json::to_value(body(&map, "x: 1\n", &mark)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": "istio-shared-configmap-b", "namespace": "aks-istio-system",
                    "annotations": {
                        "meshupgrade.io/mesh-config-copy": r#"{"from":"a","to":"b","digest":"sha256:1"}"#,
                    },
                },
                "data": {"mesh": "x: 1\n"},
            })
        );
    }
}
